"""Commands on a store: made, filled, browsed, checked and named."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

import neurostore
from neurostore.cli._history import opened
from neurostore.cli._print import console, print_findings, print_json, print_table, records, say
from neurostore.cli._words import DONE, REFUSED, At, Id, Url, Where
from neurostore.errors import counted

if TYPE_CHECKING:
    from neurostore.store import Session, Store

BARS = " ▁▂▃▄▅▆▇█"


def create(url: Url) -> int:
    """Make a new, empty store.

    Args:
        url: A folder that is not there yet, or is empty; or s3://BUCKET/PREFIX (gs, az).
    """
    store = neurostore.create(url)
    say(f"Created {store.url} at {store.snapshot}. Fill it: neurostore ingest {url} FILE...")
    return DONE


def ingest(
    url: Url,
    files: Annotated[list[Path], tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    dataset: str | None = None,
    dry_run: bool = False,
    stop_on_refusal: bool = False,
    again: bool = False,
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
        again: Read what is in the store already too, and replace its session, although it was read
            from another path.
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
        again=again,
        message=message,
    )
    if json:
        print_json({"dry_run": dry_run, **report.to_json(), "outgrown": store.outgrown()})
        return REFUSED if report.refused else DONE
    for one in report.outcomes:
        would = "would be " if dry_run and one.status != "unchanged" else ""
        say(f"{would}{one.status}: {one.message}", error=one.status == "refused")
        if one.status != "refused":
            print_findings(one.findings)
        for note in one.notes:
            say(f"    left out: {note}")
    statuses = Counter(one.status for one in report.outcomes)
    if len(report.outcomes) > 1:
        say(", ".join(f"{count:,} {status}" for status, count in statuses.items()) + ".")
    if dry_run:
        say("Dry run: nothing was written.")
    elif any(one.status in ("written", "replaced") for one in report.outcomes):
        say(f"Committed {report.snapshot}. Look: neurostore sessions {url}")
        _say_outgrown(store)
    return REFUSED if report.refused else DONE


def sessions(
    url: Url,
    where: Where = None,
    at: At = None,
    allow_damaged: bool = False,
    json: bool = False,
) -> int:
    """List the sessions of a store.

    Args:
        url: The store.
        where: Only those for which this holds, e.g. "n_units >= 20".
        at: A tag, snapshot or date instead of the newest snapshot.
        allow_damaged: Read what can be read of a damaged store, and say what cannot.
        json: Print all columns as JSON.
    """
    store = opened(url, at, allow_damaged)
    frame = store.sessions(where)
    _say_damage(store)
    _say_outgrown(store)
    _say_unfinished(store)
    if json:
        print_json(records(frame))
        return DONE
    shown = ["id", "n_units", "n_spikes", "n_trials", "observed", "findings"]
    shown += ["damage"] if "damage" in frame else []
    print_table(frame[[*shown, "regions", "subject", "species"]], "session")
    return DONE


def units(
    url: Url,
    where: Where = None,
    at: At = None,
    allow_damaged: bool = False,
    json: bool = False,
) -> int:
    """List the units of all sessions.

    Args:
        url: The store.
        where: Only those for which this holds, e.g. "region = 'CA1' AND rate_hz < 50".
        at: A tag, snapshot or date instead of the newest snapshot.
        allow_damaged: Read what can be read of a damaged store, and say what cannot.
        json: Print all columns as JSON.
    """
    store = opened(url, at, allow_damaged)
    frame = store.units(where)
    _say_damage(store)
    if json:
        print_json(records(frame))
        return DONE
    shown = ["session", "unit", "region", "n_spikes", "rate_hz", "quality", "probe"]
    print_table(frame[[name for name in shown if name in frame]], "unit")
    return DONE


def optimize(url: Url, dry_run: bool = False, json: bool = False) -> int:
    """Write the catalogue as one object beside the repository, so that others open it at once.

    Nothing is committed. Of later snapshots, who opens it reads again only what has changed.

    Args:
        url: The store.
        dry_run: Say what would be written, write nothing.
        json: Print what was written as JSON.
    """
    store = neurostore.open(url)
    made = store.optimize(dry_run=dry_run)
    if json:
        print_json({"dry_run": dry_run, **made.to_json(), "outgrown": store.outgrown()})
        return DONE
    would = "Dry run: would write" if dry_run else "Wrote"
    before = f", in place of that of {made.before}" if made.before else ""
    say(
        f"{would} the catalogue of {counted(made.sessions, 'session')} ({made.nodes:,} groups and "
        f"arrays) at {made.snapshot} in {counted(made.bytes, 'byte')}{before}."
    )
    _say_outgrown(store)
    return DONE


def _say_outgrown(store: Store) -> None:
    for line in store.outgrown():
        say(line, error=True)


def _say_unfinished(store: Store) -> None:
    for line in store.unfinished():
        say(line, error=True)


def show(
    url: Url, session: Id, at: At = None, allow_damaged: bool = False, json: bool = False
) -> int:
    """Show one session: what it holds, a small raster, its trials, what was wrong.

    Args:
        url: The store.
        session: Its id, <dataset>/<session>.
        at: A tag, snapshot or date instead of the newest snapshot.
        allow_damaged: Show it though other sessions are damaged.
        json: Print what the store keeps about it as JSON.
    """
    store = opened(url, at, allow_damaged)
    found = store.session(session)
    _say_unfinished(store)
    if json:
        print_json(dict(found.attrs))
        return DONE
    say(repr(found))
    for line in [*_raster(found, console().width), *_trials(found)]:
        say(line)
    for finding in found.findings:
        say(f"  {finding}")
    for note in found.notes:
        say(f"  left out: {note}")
    return DONE


def _say_damage(store: Store) -> None:
    """What cannot be read, on stderr, where a store is read around it."""
    for fault in store.damage if store.allow_damaged else ():
        say(f"damaged: {fault.path}: {fault.finding.message}", error=True)


def _raster(session: Session, width: int) -> list[str]:
    """Spikes of some units over the session, a block character a bin."""
    if not session.attrs["row"]["n_spikes"]:
        return []
    columns = max(20, min(100, width - 24))
    clock = session.clock
    first, last = clock.tick(session.start), clock.tick(session.stop)
    # whole ticks, rounded up: counts takes whole bins only, and no spike may fall off the end
    bin = math.ceil((last - first + 1) / columns) / clock.rate
    start = first / clock.rate
    counts = session.counts(start, start + columns * bin, bin)
    busiest = counts.sum("bin").argsort().values[::-1][:12]
    lines = [f"  raster of {len(busiest)} of {counts.shape[0]} units, {float(bin):.3g} s a column"]
    for row in sorted(busiest):
        values = counts.values[row]
        top = max(1, values.max())
        bars = "".join(BARS[math.ceil(8 * value / top)] for value in values)
        lines.append(f"  {str(counts['unit'].values[row])[:12]:<12} {bars} {values.sum():,}")
    return lines


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 999 else f"{value:,.1f}"


def _trials(session: Session) -> list[str]:
    """One line a table of intervals: rows, how many are valid, how long they are."""
    lines = []
    for name, table in session.intervals.items():
        valid = table["valid"].values
        seconds = (table["stop"] - table["start"]).values[valid]
        if len(seconds):
            ends = dict.fromkeys(map(_seconds, (seconds.min(), seconds.max())))
            long = f"{' to '.join(ends)} s long, {seconds.sum():,.1f} s in all"
        else:
            long = "none of them with both ends"
        own = {"start", "stop", "valid", *(f"{key}_valid" for key in table)}
        columns = [str(key) for key in table if key not in own]
        lines.append(f"  {name}: {counted(len(valid), 'row')} ({valid.sum():,} valid), {long}")
        if columns:
            lines.append(f"      columns: {', '.join(columns[:12])}")
    return lines
