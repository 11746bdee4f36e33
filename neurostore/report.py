"""One HTML page of a store that stands on its own: catalogue, findings, figures and history."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import neurostore
from neurostore import figures
from neurostore.errors import NotFoundError, UsageError
from neurostore.schemas import Finding
from neurostore.store import Commit, Session, Store

if TYPE_CHECKING:
    import pandas as pd

SECONDS = 20.0
"""How much of a session the raster shows, unless told otherwise."""

COMMITS = 100
"""How many commits the page shows, the newest."""

WORDS = {"Regions": "words", "Message": "words"}
"""Columns of a table that hold running text, and their class."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5a6475; --line: #d9dee6;
  --page: #f6f7f9; --card: #ffffff; --accent: #0060a0; --warn: #9a4a00; --bad: #b00020; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #a3adbd; --line: #343c4a;
  --page: #14181f; --card: #1c222c; --accent: #6cb8f0; --warn: #f0a860; --bad: #ff8095; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 0.75rem; }
h3 { font-size: 1rem; margin: 1rem 0 0.25rem; overflow-wrap: anywhere; }
section > :last-child { margin-bottom: 0; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem 1.1rem; margin: 1.1rem 0; }
code { font: 0.9em ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
.soft, figcaption, caption { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
th, td { text-align: left; vertical-align: top; padding: 0.4rem 0.7rem; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.name { font-weight: 600; }
td.words { min-width: 14rem; white-space: normal; overflow-wrap: anywhere; }
.tag { display: inline-block; border: 1px solid var(--accent); color: var(--accent);
  border-radius: 1em; padding: 0 0.6em; margin-right: 0.3em; font-size: 0.85em; }
ul { margin: 0.25rem 0; padding-left: 1.2rem; }
li { margin: 0.35rem 0; overflow-wrap: anywhere; }
.critical { color: var(--bad); font-weight: 600; }
.violation { color: var(--warn); font-weight: 600; }
.suggestion { color: var(--soft); font-weight: 600; }
.figures { display: flex; flex-wrap: wrap; gap: 1.25rem; }
figure { margin: 0; flex: 1 1 22rem; }
figure:first-child { flex: 1.5 1 34rem; }
figure img { display: block; width: 100%; max-width: 46rem; height: auto; background: #ffffff;
  border-radius: 6px; }
figcaption { font-size: 0.9rem; margin-top: 0.4rem; max-width: 46rem; }
a { color: var(--accent); }
@media (max-width: 40rem) { main { padding: 0.75rem 0.6rem 2rem; } section { padding: 0.8rem; }
  figure, figure:first-child { overflow-x: auto; flex: 1 1 100%; }
  figure img { max-width: none; width: 30rem; } }
"""


def catalogue_page(
    store: Store,
    path: str | Path,
    *,
    title: str = "neurostore",
    session: str | None = None,
    unit: str | None = None,
    event: str | None = None,
    start: float | None = None,
    seconds: float = SECONDS,
) -> Path:
    """Write the page of a store: one file that needs no network and no script.

    Parameters
    ----------
    path : str or Path
        The HTML file; it is there whole or not at all.
    session : str, optional
        Id of the session whose figures are shown; else the first one with units and trials.
    unit : str, optional
        Id of the unit of the PSTH; else the one with most spikes.
    event : str, optional
        ``"<interval table>.<time column>"`` to align the PSTH to, as ``"trials.stim_on_time"``;
        else the first there is.
    start, seconds : float
        Where the raster starts on the session clock, else half-way; and how long it is.

    Returns
    -------
    Path
        Where the page lies.

    Raises
    ------
    NotFoundError
        Where there is no such session, unit or event.
    MissingExtraError
        Where matplotlib is not installed.
    """
    table = store.sessions()
    commits = store.log(COMMITS + 1)
    shown = session or _worth_showing(table)
    parts = [
        _header(store, title, table),
        _section("Sessions", _catalogue(table)),
        _section("Findings", _findings(store, table)),
    ]
    if shown is not None:
        pictures = _pictures(store.session(shown), unit, event, start, seconds)
        if pictures:
            inlined = "".join(one.html() for one in pictures)
            parts.append(_section(f"Session {shown}", f'<div class="figures">{inlined}</div>'))
    parts.append(_section("History", _history(commits)))
    return _write(Path(path), _page(title, "".join(parts)))


def _worth_showing(table: pd.DataFrame) -> str | None:
    """Id of the first session with units and trials, else with units."""
    for rows in (
        table[(table["n_units"] > 0) & (table["n_trials"] > 0)],
        table[table["n_units"] > 0],
    ):
        if len(rows):
            return str(rows["id"].iloc[0])
    return None


# ---- figures


def _pictures(
    session: Session, unit: str | None, event: str | None, start: float | None, seconds: float
) -> list[figures.Picture]:
    """Draw the raster and, where there is an event, the PSTH."""
    if "units" not in session.tables or not np.isfinite(session.start):
        return []
    if start is None:
        start = np.floor(max(session.start, (session.start + session.stop - seconds) / 2))
    pictures = [figures.raster(session, start, start + seconds)]
    event = event or _first_event(session)
    if event is not None:
        counts = session.units["n_spikes"].values
        unit = unit or str(session.units["unit"].values[int(np.argmax(counts))])
        name = event.partition(".")[2]
        pictures.append(figures.psth(session, unit, _event_times(session, event), event=name))
    return pictures


def _first_event(session: Session) -> str | None:
    """Name the first event column with a time in it, of the trials before other tables."""
    for name in sorted(set(session.intervals) - {"observed"}, key=lambda name: name != "trials"):
        table = session.intervals[name]
        masked = [str(column) for column in table if f"{column}_valid" in table]
        for event in (f"{name}.{column}" for column in [*masked, "start"]):
            if len(_event_times(session, event)):
                return event
    return None


def _event_times(session: Session, event: str) -> figures.Floats:
    """Read the valid times (event,) seconds of an event column."""
    name, _, column = event.partition(".")
    table = session.intervals[name]
    if column not in table:
        raise NotFoundError("event", column, map(str, table), f"{session.id}: intervals/{name}")
    if table[column].dtype.kind != "f":
        raise UsageError(f"{session.id}: {event} holds no times, but {table[column].dtype}.")
    mask = table.get(f"{column}_valid", table["valid"]).values
    times: figures.Floats = np.asarray(table[column].values, dtype=np.float64)[mask]
    return times[np.isfinite(times)]


# ---- words and tables


def _header(store: Store, title: str, table: pd.DataFrame) -> str:
    units, spikes = int(table["n_units"].sum()), int(table["n_spikes"].sum())
    counts = f"{_many(len(table), 'session')}, {_many(units, 'unit')}, {_many(spikes, 'spike')}"
    where = f"Store <code>{escape(store.url)}</code>" if store.url else "Store"
    snapshot = f"snapshot <code>{escape(store.snapshot)}</code>"
    return (
        f'<h1>{escape(title)}</h1><p>{counts}.<br><span class="soft">{where}, {snapshot}</span></p>'
    )


def _catalogue(table: pd.DataFrame) -> str:
    if not len(table):
        return "<p>The store is empty.</p>"
    heads = ["Session", "Subject", "Species", "#Units", "#Spikes", "#Trials", "#Length"]
    rows = [_catalogue_row(row, index) for index, row in enumerate(table.to_dict("records"))]
    return _table([*heads, "Regions", "#Findings"], rows)


def _catalogue_row(row: dict[Any, Any], index: int) -> list[str]:
    """Escape one row of the catalogue; its findings lead to where they are told."""
    seconds = row["stop"] - row["start"]
    length = f"{seconds / 60:,.1f} min" if np.isfinite(seconds) else "–"
    found = int(row["findings"])
    said = [escape(str(row[name] or "–")) for name in ("id", "subject", "species")]
    numbers = [f"{row[name]:,}" for name in ("n_units", "n_spikes", "n_trials")]
    regions = escape(", ".join(map(str, row["regions"]))) or "–"
    link = f'<a href="#session-{index}">{found}</a>' if found else "0"
    return [*said, *numbers, length, regions, link]


def _findings(store: Store, table: pd.DataFrame) -> str:
    """Tell what was found in every session, and what its reader left out."""
    parts, clean = [], []
    for index, id in enumerate(table["id"]):
        session = store.session(str(id))
        if not session.findings and not session.notes:
            clean.append(str(id))
            continue
        parts.append(f'<h3 id="session-{index}">{escape(str(id))}</h3>')
        parts.append(_list(_finding(one) for one in session.findings))
        if session.notes:
            notes = _list(escape(note) for note in session.notes)
            parts.append(f'<p class="soft">Left out by the reader:</p>{notes}')
    if clean:
        parts.append(f'<p class="soft">Nothing to report: {escape(", ".join(clean))}.</p>')
    return "".join(parts) or "<p>No session, no findings.</p>"


def _finding(finding: Finding) -> str:
    """Say one finding, and the id of its check."""
    kind = escape(finding.severity)
    return (
        f'<span class="{kind}">{kind.capitalize()}:</span> {escape(finding.message)} '
        f'<code class="soft">{escape(finding.check)}</code>'
    )


def _history(commits: Sequence[Commit]) -> str:
    """Tell the commits, newest first."""
    rows = []
    for commit in commits[:COMMITS]:
        tags = "".join(f'<span class="tag">{escape(tag)}</span>' for tag in commit.tags)
        rows.append(
            [
                f'<code title="{escape(commit.snapshot)}">{escape(commit.snapshot[:8])}</code>',
                f"{commit.time:%Y-%m-%d %H:%M}",
                tags + escape(commit.message),
                escape(commit.author),
            ]
        )
    older = '<p class="soft">Older commits: neurostore log.</p>' if len(commits) > COMMITS else ""
    return _table(["Snapshot", "Time (UTC)", "Message", "Author"], rows) + older


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out rows of escaped cells; a head with a leading ``#`` is a column of numbers."""
    kinds = ["number" if head.startswith("#") else WORDS.get(head, "") for head in heads]
    kinds[0] = "name"
    head = "".join(
        f'<th scope="col" class="{kind}">{escape(text.removeprefix("#"))}</th>'
        for text, kind in zip(heads, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{kind}">{cell}</td>' for cell, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# ---- the file


def _page(title: str, body: str) -> str:
    """Put the page together; its policy lets in pictures that are in it and its one style."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}; base-uri \'none\'">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n"
        f'<p class="soft">Written by neurostore {escape(neurostore.__version__)}.</p>\n'
        "</main>\n</body>\n</html>\n"
    )


def _write(path: Path, text: str) -> Path:
    """Write beside `path` and rename, so that a reader never sees half a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(text.encode(errors="xmlcharrefreplace"))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path
