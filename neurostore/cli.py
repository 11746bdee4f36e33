"""The commands: a store made, filled, browsed, checked and named from a shell.

Exit codes: 0 done (findings that refused nothing included), 1 something was refused or a check
failed, 2 wrong usage, 3 the store, the disk or the network failed.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

import neurostore
from neurostore.errors import NeurostoreError, StoreError, UsageError, counted

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from neurostore.schemas import Finding
    from neurostore.store import Session, Store

DONE, REFUSED, USAGE, FAILED = 0, 1, 2, 3

Url = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="URL")]
Id = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SESSION")]
Where = Annotated[str | None, tyro.conf.arg(metavar="SQL")]
BARS = " ▁▂▃▄▅▆▇█"


def create(url: Url) -> int:
    """Make a new, empty store.

    Args:
        url: A folder that is not there yet, or is empty.
    """
    store = neurostore.create(url)
    _say(f"Created {store.url} at {store.snapshot}. Fill it: neurostore ingest {url} FILE...")
    return DONE


def ingest(
    url: Url,
    files: Annotated[list[Path], tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    dataset: str | None = None,
    dry_run: bool = False,
    stop_on_refusal: bool = False,
    message: str | None = None,
    json: bool = False,
) -> int:
    """Read files into a store, in one commit.

    Args:
        url: The store.
        files: NWB files; a refused one does not stop the others.
        dataset: Dataset of the sessions; each file's folder without it.
        dry_run: Read and check everything, write nothing.
        stop_on_refusal: Write nothing at all if one file is refused.
        message: Of the commit.
        json: Print the report as JSON.
    """
    store = neurostore.open(url)
    report = neurostore.ingest(
        store,
        files,
        dataset,
        dry_run=dry_run,
        stop_on_refusal=stop_on_refusal,
        message=message,
    )
    if json:
        _print_json({"dry_run": dry_run, **report.to_json()})
        return REFUSED if report.refused else DONE
    for one in report.outcomes:
        would = "would be " if dry_run and one.status != "unchanged" else ""
        _say(f"{would}{one.status}: {one.message}", error=one.status == "refused")
        if one.status != "refused":
            _findings(one.findings)
        for note in one.notes:
            _say(f"    left out: {note}")
    statuses = Counter(one.status for one in report.outcomes)
    if len(report.outcomes) > 1:
        _say(", ".join(f"{count:,} {status}" for status, count in statuses.items()) + ".")
    if dry_run:
        _say("Dry run: nothing was written.")
    elif any(one.status in ("written", "replaced") for one in report.outcomes):
        _say(f"Committed {report.snapshot}. Look: neurostore sessions {url}")
    return REFUSED if report.refused else DONE


def sessions(url: Url, where: Where = None, at: str | None = None, json: bool = False) -> int:
    """List the sessions of a store.

    Args:
        url: The store.
        where: Only those for which this holds, e.g. "n_units >= 20".
        at: A tag or snapshot instead of the newest one.
        json: Print all columns as JSON.
    """
    frame = neurostore.open(url, at).sessions(where)
    if json:
        _print_json(_records(frame))
        return DONE
    shown = ["id", "n_units", "n_spikes", "n_trials", "observed", "findings"]
    _table(frame[[*shown, "regions", "subject", "species"]], "session")
    return DONE


def units(url: Url, where: Where = None, at: str | None = None, json: bool = False) -> int:
    """List the units of all sessions.

    Args:
        url: The store.
        where: Only those for which this holds, e.g. "region = 'CA1' AND rate_hz < 50".
        at: A tag or snapshot instead of the newest one.
        json: Print all columns as JSON.
    """
    frame = neurostore.open(url, at).units(where)
    if json:
        _print_json(_records(frame))
        return DONE
    shown = ["session", "unit", "region", "n_spikes", "rate_hz", "quality", "probe"]
    _table(frame[[name for name in shown if name in frame]], "unit")
    return DONE


def show(url: Url, session: Id, at: str | None = None, json: bool = False) -> int:
    """Show one session: what it holds, a small raster, its trials, what was wrong.

    Args:
        url: The store.
        session: Its id, <dataset>/<session>.
        at: A tag or snapshot instead of the newest one.
        json: Print what the store keeps about it as JSON.
    """
    found = neurostore.open(url, at).session(session)
    if json:
        _print_json(dict(found.attrs))
        return DONE
    _say(repr(found))
    for line in [*_raster(found, _console().width), *_trials(found)]:
        _say(line)
    for finding in found.findings:
        _say(f"  {finding}")
    for note in found.notes:
        _say(f"  left out: {note}")
    return DONE


def validate(
    url: Url,
    sessions: Annotated[list[str], tyro.conf.Positional, tyro.conf.arg(metavar="SESSION")] = [],  # noqa: B006
    at: str | None = None,
    json: bool = False,
) -> int:
    """Check sessions and splits against their contracts and digests; reads every value.

    Args:
        url: The store.
        sessions: Ids; all of them and the splits without.
        at: A tag or snapshot instead of the newest one.
        json: Print the findings as JSON.
    """
    store = neurostore.open(url, at)
    ok = "holds its contracts, unchanged since its commit{}"
    found = _with_progress(store, list(sessions) or list(store.sessions()["id"]))
    found |= {} if sessions else store.validate_splits()
    if json:
        _print_json({id: [one.to_json() for one in findings] for id, findings in found.items()})
    else:
        for id, findings in found.items():
            kept = "" if findings or id not in store else _kept(store, id)
            _say(f"{id}: {counted(len(findings), 'finding') if findings else ok.format(kept)}")
            for finding in findings:
                _say(f"    {finding}")
    return REFUSED if any(found.values()) else DONE


def log(url: Url, limit: int = 20, json: bool = False) -> int:
    """Show the history of a store, newest first.

    Args:
        url: The store.
        limit: At most so many commits.
        json: Print it as JSON.
    """
    commits = neurostore.open(url).log(limit)
    if json:
        _print_json([one.to_json() for one in commits])
        return DONE
    for one in commits:
        tags = f"  [{', '.join(one.tags)}]" if one.tags else ""
        who = f"{one.author}@{one.host}  neurostore {one.version}"
        _say(f"{one.snapshot}  {one.time:%Y-%m-%d %H:%M:%S}  {who}{tags}\n    {one.message}")
        for id, what in one.changes.items():
            _say(f"        {what} {id}")
    return DONE


def tag(
    url: Url,
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")],
    at: str | None = None,
) -> int:
    """Name a snapshot for good; a tag never moves.

    Args:
        url: The store.
        name: Letters, digits, dots and dashes.
        at: The snapshot; the newest one without it.
    """
    store = neurostore.open(url, at)
    store.tag(name)
    _say(f"{name} is {store.snapshot}. Read it: neurostore sessions {url} --at {name}")
    return DONE


def demo(out: Path = Path("neurostore-demo"), seed: int = 0) -> int:
    """Simulate three recordings, put them into a store, and make a page about it.

    Args:
        out: Folder for the store and the page.
        seed: Of the simulation.
    """
    from neurostore.demo import run

    run(out, seed=seed)
    return DONE


COMMANDS: dict[str, Callable[..., int]] = {
    "create": create,
    "ingest": ingest,
    "sessions": sessions,
    "units": units,
    "show": show,
    "validate": validate,
    "log": log,
    "tag": tag,
    "demo": demo,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    verbose = "-v" in words
    words = [word for word in words if word != "-v"]
    if words == ["--version"]:
        _say(f"neurostore {neurostore.__version__}")
        return DONE
    try:
        code: int = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="neurostore",
            description="A versioned feature store for neural recordings.",
            args=words,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        return code
    except NeurostoreError as error:
        if verbose:
            raise
        _say(f"neurostore: {error.line}", error=True)
        if isinstance(error, StoreError):
            return FAILED
        return USAGE if isinstance(error, UsageError) else REFUSED
    except BrokenPipeError:
        return DONE  # who was reading has seen enough
    except OSError as error:
        if verbose:
            raise
        _say(f"neurostore: the disk or the network failed: {error}", error=True)
        return FAILED
    except KeyboardInterrupt:
        _say("neurostore: stopped; nothing of this command was committed.", error=True)
        return 130


def run() -> None:
    """The console script: ends at once, for a thread of the storage engine may not end well."""
    try:
        code = main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else USAGE
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# ---- printing


def _kept(store: Store, id: str) -> str:
    return f"; {counted(len(store.session(id).findings), 'finding')} kept with it"


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def _say(text: str, *, error: bool = False) -> None:
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


def _findings(findings: Sequence[Finding]) -> None:
    """What is wrong, a line each; what is merely missing as a number."""
    grave = [one for one in findings if one.severity != "suggestion"]
    for finding in grave:
        _say(f"    {finding}")
    if len(findings) > len(grave):
        more = counted(len(findings) - len(grave), "suggestion")
        _say(f"    {more} (missing metadata and the like: neurostore show, or --json)")


def _print_json(value: Any) -> None:
    _say(json.dumps(_plain(value), ensure_ascii=False, indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return records


def _table(frame: pd.DataFrame, what: str) -> None:
    """A table that fits the terminal: numbers whole, ids whole if need be over two lines."""
    from rich.table import Table
    from rich.text import Text

    cells = {str(name): [_cell(value) for value in frame[name]] for name in frame}
    width, shown = _console().width, list(cells)
    while len(shown) > 2 and _width(cells, shown) > width:
        shown.pop()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in shown:
        number = frame[name].dtype.kind in "iuf"
        table.add_column(
            name, justify="right" if number else "left", no_wrap=number, overflow="fold"
        )
    for row in range(len(frame)):
        table.add_row(*(Text(cells[name][row]) for name in shown))
    _console().print(table)
    left = [name for name in cells if name not in shown]
    more = f"; not shown for want of width: {', '.join(left)} (--json has all)" if left else ""
    _say(f"{counted(len(frame), what)}{more}")


def _width(cells: Mapping[str, Sequence[str]], shown: Sequence[str]) -> int:
    widest = [max([len(name), *map(len, cells[name])]) for name in shown]
    widest[0] = min(widest[0], 32)  # an id may break, other cells should not
    return sum(widest) + 2 * len(widest)


def _cell(value: Any) -> str:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _raster(session: Session, width: int) -> list[str]:
    """Spikes of some units over the session, a block character a bin."""
    if not session.attrs["row"]["n_spikes"]:
        return []
    columns = max(20, min(100, width - 24))
    span = session.stop - session.start
    bin = span / columns
    counts = session.counts(session.start, session.stop, bin)
    busiest = counts.sum("bin").argsort().values[::-1][:12]
    lines = [f"  raster of {len(busiest)} of {counts.shape[0]} units, {bin:.3g} s a column"]
    for row in sorted(busiest):
        values = counts.values[row]
        top = max(1, values.max())
        bars = "".join(BARS[math.ceil(8 * value / top)] for value in values)
        lines.append(f"  {str(counts['unit'].values[row])[:12]:<12} {bars} {values.sum():,}")
    return lines


def _trials(session: Session) -> list[str]:
    """One line a table of intervals: rows, how many are valid, how long they are."""
    lines = []
    for name, table in session.intervals.items():
        valid = table["valid"].values
        seconds = (table["stop"] - table["start"]).values[valid]
        if len(seconds):
            long = f"{seconds.min():.3g} to {seconds.max():.3g} s, {seconds.sum():,.1f} s in all"
        else:
            long = "none of them with both ends"
        own = {"start", "stop", "valid", *(f"{key}_valid" for key in table)}
        columns = [str(key) for key in table if key not in own]
        lines.append(f"  {name}: {len(valid):,} rows ({valid.sum():,} valid), {long}")
        if columns:
            lines.append(f"      columns: {', '.join(columns[:12])}")
    return lines


def _with_progress(store: Store, ids: Sequence[str]) -> dict[str, list[Finding]]:
    if not sys.stderr.isatty():
        return store.validate(ids)
    from rich.console import Console
    from rich.progress import track

    found: dict[str, list[Finding]] = {}
    for id in track(ids, "validating", console=Console(stderr=True), transient=True):
        found |= store.validate([id])
    return found
