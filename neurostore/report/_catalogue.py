"""The page of a store: catalogue, findings, figures and history."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from neurostore import figures
from neurostore.errors import NotFoundError, UsageError
from neurostore.report._page import PAGE, bullets, grid, many, page, scored, section, write
from neurostore.runs import Run
from neurostore.schemas import Finding
from neurostore.store import Commit, Session, Store

if TYPE_CHECKING:
    import pandas as pd

SECONDS = 20.0
"""How much of a session the raster shows, unless told otherwise."""

COMMITS = 100
"""How many commits the page shows, the newest."""


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
    runs: Sequence[str | Path] = (),
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
    runs : sequence of str or Path, optional
        Folders of runs, which are listed with their scores and led to where they have a page.

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
        section("Sessions", _catalogue(table)),
        section("Findings", _findings(store, table)),
    ]
    if shown is not None:
        pictures = _pictures(store.session(shown), unit, event, start, seconds)
        if pictures:
            inlined = "".join(one.html() for one in pictures)
            parts.append(section(f"Session {shown}", f'<div class="figures">{inlined}</div>'))
    if runs:
        opened = [Run.open(folder) for folder in runs]
        parts.insert(1, section("Models", _models(opened, Path(path).absolute().parent)))
    parts.append(section("History", _history(commits)))
    return write(Path(path), page(title, "".join(parts)))


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
    counts = f"{many(len(table), 'session')}, {many(units, 'unit')}, {many(spikes, 'spike')}"
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
    return grid([*heads, "Regions", "#Findings"], rows)


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
        parts.append(bullets(_finding(one) for one in session.findings))
        if session.notes:
            notes = bullets(escape(note) for note in session.notes)
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


def _models(runs: Sequence[Run], beside: Path) -> str:
    """The runs with their scores; a link is relative, so that the folder may move."""
    rows = []
    for run in runs:
        page = run.folder / PAGE
        name = escape(run.id)
        if page.is_file():
            name = f'<a href="{escape(quote(os.path.relpath(page, beside)))}">{name}</a>'
        said = run.scores(run.recipe.evaluate.label)
        scores = ["–", "–", "–"]
        if said is not None:
            best = said["models"][said["baseline"]]
            gain = best["difference"] or {"bits_per_spike": None, "interval": None}
            scores = [
                scored(said["bits_per_spike"], said["models"][0]["interval"]),
                f"{escape(best['name'])} {scored(best['bits_per_spike'])}",
                scored(gain["bits_per_spike"], gain["interval"], sign=True),
            ]
        sessions = escape(", ".join(run.identity["sessions"]))
        rows.append([name, sessions, *scores])
    heads = ["Run", "Session", "#Bits per spike", "#Best baseline", "#Difference"]
    return grid(heads, rows)


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
    return grid(["Snapshot", "Time (UTC)", "Message", "Author"], rows) + older
