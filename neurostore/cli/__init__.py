"""The commands: a store made, filled and browsed; models trained, scored and compared, in a shell.

Exit codes: 0 done (findings that refused nothing included), 1 something was refused or a check
failed, 2 wrong usage, 3 the store, the disk or the network failed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import tyro

import neurostore
from neurostore.cli import _cache, _clone, _data, _model, _release, _store
from neurostore.cli._print import say
from neurostore.cli._words import DONE, FAILED, REFUSED, USAGE
from neurostore.errors import NeurostoreError, StoreError, UsageError, counted

__all__ = ["COMMANDS", "DONE", "FAILED", "REFUSED", "USAGE", "main", "run"]


def demo(out: Path = Path("neurostore-demo"), seed: int = 0, recording: Path | None = None) -> int:
    """Simulate three recordings, store them, train a model on one, and make pages about it.

    Args:
        out: Folder for the store, the runs and the pages.
        seed: Of the simulation.
        recording: An NWB file of your own, on which the same is done.
    """
    from neurostore.demo import run

    run(out, seed=seed, recording=recording)
    return DONE


COMMANDS: dict[str, Callable[..., int]] = {
    "create": _store.create,
    "ingest": _store.ingest,
    "sessions": _store.sessions,
    "units": _store.units,
    "show": _store.show,
    "validate": _store.validate,
    "cache": _cache.cache,
    "log": _store.log,
    "tag": _store.tag,
    "publish": _release.publish,
    "clone": _clone.clone,
    "train": _model.train,
    "evaluate": _model.evaluate,
    "report": _model.report,
    "experiment": _model.experiment,
    "runs": _model.runs,
    "describe": _data.describe,
    "pack": _data.pack,
    "demo": demo,
}

OVERRIDABLE = {"train": 3, "experiment": 3, "pack": 3, "describe": 2}
"""Commands that take ``--section.key value`` over a recipe, after so many words of their own."""


def _apart(words: list[str]) -> list[str]:
    """Put the overrides of a recipe, which are no options of ours, behind a ``--``.

    Raises
    ------
    UsageError
        Where one stands before what it would swallow: an override takes all words that follow it.
    """
    if not words or words[0] not in OVERRIDABLE:
        return words
    kept: list[str] = []
    overrides: list[str] = []
    into = kept
    for word in words:
        if word.startswith("--"):
            key = word[2:].partition("=")[0]
            into = overrides if "." in key or key in ("seed", "device", "precision") else kept
            if into is overrides and sum(one[:2] != "--" for one in kept) <= OVERRIDABLE[words[0]]:
                raise UsageError(
                    f"{word} stands too early: neurostore {words[0]} takes "
                    f"{counted(OVERRIDABLE[words[0]], 'word')} first, then overrides. See "
                    f"neurostore {words[0]} --help."
                )
        into.append(word)
    return [*kept, "--", *overrides] if overrides else kept


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    verbose = "-v" in words
    words = [word for word in words if word != "-v"]
    if words == ["--version"]:
        say(f"neurostore {neurostore.__version__}")
        return DONE
    try:
        code: int = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="neurostore",
            description="A versioned feature store for neural recordings.",
            args=_apart(words),
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        return code
    except NeurostoreError as error:
        if verbose:
            raise
        say(f"neurostore: {error.line}", error=True)
        if isinstance(error, StoreError):
            return FAILED
        return USAGE if isinstance(error, UsageError) else REFUSED
    except BrokenPipeError:
        return DONE  # who was reading has seen enough
    except OSError as error:
        if verbose:
            raise
        say(f"neurostore: the disk or the network failed: {error}", error=True)
        return FAILED
    except KeyboardInterrupt as stop:
        what = str(stop) or "stopped; nothing of this command was committed."
        say(f"neurostore: {what}", error=True)
        return 130


def run() -> None:
    """The console script: ends at once, for a thread of the storage engine may not end well."""
    sys.path.append(os.getcwd())  # a recipe may name a module of the folder one works in
    try:
        code = main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else USAGE
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
