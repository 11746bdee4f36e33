"""The commands: a store made, filled and browsed; models trained, scored and compared, in a shell.

Exit codes: 0 done (findings that refused nothing included), 1 something was refused or a check
failed, 2 wrong usage, 3 the store, the disk or the network failed.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import tyro

import neurostore
from neurostore.cli import (
    _cache,
    _clone,
    _data,
    _history,
    _migrate,
    _model,
    _names,
    _release,
    _store,
    _upkeep,
    _validate,
    _verify,
)
from neurostore.cli._print import say
from neurostore.cli._words import DONE, FAILED, REFUSED, USAGE
from neurostore.errors import NeurostoreError, NotFoundError, StoreError, UsageError, counted
from neurostore.store.urls import by_default, hidden, takes_options

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
    "optimize": _store.optimize,
    "validate": _validate.validate,
    "verify": _verify.verify,
    "migrate": _migrate.migrate,
    "cache": _cache.cache,
    "log": _history.log,
    "diff": _history.diff,
    "restore": _history.restore,
    "rename": _history.rename,
    "delete": _history.delete,
    "merge": _history.merge,
    "branch": _names.branch,
    "lineage": _history.lineage,
    "du": _history.du,
    "tag": _names.tag,
    "publish": _release.publish,
    "clone": _clone.clone,
    "gc": _upkeep.gc,
    "expire": _upkeep.expire,
    "erase": _upkeep.erase,
    "train": _model.train,
    "evaluate": _model.evaluate,
    "report": _model.report,
    "experiment": _model.experiment,
    "runs": _model.runs,
    "describe": _data.describe,
    "pack": _data.pack,
    "demo": demo,
}

STORAGE = (
    "A store in a bucket or behind another URL takes --storage KEY=VALUE, as often as need be; -v "
    "shows the details of an error."
)
"""What the help of every command says beside its own words."""
DESCRIPTION = f"A versioned feature store for neural recordings. {STORAGE}"
OVERRIDABLE = {"train": 3, "experiment": 3, "pack": 3, "describe": 2}
"""Commands that take ``--section.key value`` over a recipe, after so many words of their own."""
ELSEWHERE = ("evaluate", "report", "runs")
"""Commands on runs, which say themselves where their store lies."""


def _with_storage(command: Callable[..., int]) -> Callable[..., int]:
    """A command whose help says of `--storage`, which is taken out of its words ahead of it."""

    @functools.wraps(command)
    def run(*words: Any, **options: Any) -> int:
        return command(*words, **options)

    above, arguments, below = (inspect.getdoc(command) or "").partition("\n\nArgs:")
    run.__doc__ = f"{above}\n\n{STORAGE}{arguments}{below}"
    return run


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


def _storage(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The words without ``--storage KEY=VALUE``, and the options that these say.

    A dot leads into a mapping: ``client_kwargs.region_name=eu-west-1``; true and false are no text.

    Raises
    ------
    UsageError
        Where one is not KEY=VALUE; its value may be a secret, and is not shown.
    """
    kept: list[str] = []
    options: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        if word != "--storage" and not word.startswith("--storage="):
            kept.append(word)
            continue
        said = word.partition("=")[2] if "=" in word else next(rest, "")
        name, sign, value = said.partition("=")
        if not (name and sign):
            raise UsageError("--storage takes KEY=VALUE, as in --storage anon=true.")
        *above, last = name.split(".")
        into = options
        for key in above:
            into = into.setdefault(key, {})
        into[last] = {"true": True, "false": False}.get(value, value)
    return kept, options


def _refuse_unused(words: list[str], options: dict[str, Any]) -> None:
    """Raise where storage options are given, and no URL that they could belong to."""
    known = not words or words[0] in ELSEWHERE or any(map(takes_options, words[1:]))
    if options and not known:
        raise UsageError(
            f"--storage is for a store in a bucket or behind another URL, found {sorted(options)} "
            f"and no such URL: neurostore {' '.join(words[:2])}. Leave it out."
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    verbose = "-v" in words
    words = [word for word in words if word != "-v"]
    if words == ["--version"]:
        say(f"neurostore {neurostore.__version__}")
        return DONE
    try:
        words, options = _storage(words)
        if words and words[0][0:1] != "-" and words[0] not in COMMANDS:
            raise NotFoundError("command", words[0], COMMANDS, "neurostore")
        _refuse_unused(words, options)
        with by_default(options):
            code: int = tyro.extras.subcommand_cli_from_dict(
                {name: _with_storage(one) for name, one in COMMANDS.items()},
                prog="neurostore",
                description=DESCRIPTION,
                args=_apart(words),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
        return code
    except NeurostoreError as error:
        _say(error, error.line, verbose)
        if isinstance(error, StoreError):
            return FAILED
        return USAGE if isinstance(error, UsageError) else REFUSED
    except BrokenPipeError:
        return DONE  # who was reading has seen enough
    except OSError as error:
        _say(error, f"the disk or the network failed: {error}", verbose)
        return FAILED
    except KeyboardInterrupt as stop:
        what = str(stop) or "stopped; nothing of this command was committed."
        say(f"neurostore: {what}", error=True)
        return 130


def _say(error: Exception, line: str, verbose: bool) -> None:
    """What went wrong in a line, or with all that led to it; without what is secret in it."""
    details = "".join(traceback.format_exception(error)) if verbose else ""
    say(hidden(f"{details}neurostore: {line}"), error=True)


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
