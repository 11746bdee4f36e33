"""Whether presentations name rows that their stimulus has, where the store knows both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostore.errors import Finding, RefusedError, counted
from neurostore.schemas import Table
from neurostore.store import _catalogue, _stimuli
from neurostore.store._format import session_path

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

KIND = "presentations/"
Row = Mapping[str, Any]


def _shown(table: Table) -> str:
    return str(table.attrs.get("stimulus", ""))


def beyond(session: str, table: Table, frames: int) -> Finding | None:
    """The rows of a table of presentations that its stimulus of so many frames does not have."""
    rows = np.asarray(table.columns["row"].values[:])
    bad = rows >= frames
    if not bad.any():
        return None
    first, expected = int(np.argmax(bad)), f"-1 to {frames - 1}"
    message = (
        f"{session}: {table.name}: 'row' is {rows[first]} in row {first}, but the stimulus "
        f"{_shown(table)!r} has {counted(frames, 'frame')}: expected {expected}"
    )
    check, found, count = f"{table.contract}/row/link", str(rows[first]), int(bad.sum())
    return Finding(check, "critical", table.name, "row", message, first, found, expected, count)


def broken(store: ZarrStore, session: str, tables: Mapping[str, Table]) -> list[Finding]:
    """What of the presentations of a session names no row of its stimulus, where that is kept."""
    found = []
    for name, table in tables.items():
        path = _stimuli.path_of(_shown(table))
        attrs = _catalogue.read_attrs(store, path) if name.startswith(KIND) else None
        found += [] if attrs is None else [beyond(session, table, int(attrs["frames"]))]
    return [one for one in found if one is not None]


def refuse_beyond(session: str, table: Table, frames: int) -> None:
    """Raise where `beyond` finds something.

    Raises
    ------
    RefusedError
        With the finding, which names the first such row.
    """
    finding = beyond(session, table, frames)
    if finding is not None:
        raise RefusedError(
            f"{finding.message}. Mend the presentations, or the stimulus.", [finding]
        )


def found_broken(
    at: Callable[[str], ZarrStore],
    changed: Mapping[str, Row | None],
    others: Iterable[Row],
) -> Iterator[tuple[str, str, Finding]]:
    """Presentations that do not fit their stimuli, where a transaction changed one or the other.

    Parameters
    ----------
    at : callable
        Gives the Zarr store in which what lies at a path is to be read.
    changed : mapping
        What the transaction wrote by id: its row, None of what it deleted.
    others : iterable of rows
        Of the sessions that the store has, read where a stimulus is new or deleted.

    Yields
    ------
    tuple
        The id of the session, the id of the stimulus, and what is wrong.
    """
    there = [row for row in changed.values() if row is not None]
    sessions = [row for row in there if "session" in row]
    stimuli = {id for id in changed if _stimuli.is_stimulus(id) and id.count("/") == 2}
    if stimuli:
        sessions += [row for row in others if row["id"] not in changed]
    for id, table in _presentations(at, sessions):
        path = _stimuli.path_of(_shown(table))
        attrs = _catalogue.read_attrs(at(path), path)
        if attrs is not None:
            finding = beyond(id, table, int(attrs["frames"]))
        else:
            finding = _orphan(id, table) if f"/{path}" in stimuli else None
        if finding is not None:
            yield id, f"/{path}", finding


def _orphan(session: str, table: Table) -> Finding:
    name = _shown(table)
    message = f"{session}: {table.name} presents the stimulus {name!r}, which would be deleted"
    check = f"{table.contract}/row/link"
    return Finding(check, "critical", table.name, "row", message, None, name, "a stimulus")


def stimuli_of(at: Callable[[str], ZarrStore], rows: Iterable[Row]) -> set[str]:
    """Ids of the stimuli that the presentations of some sessions name."""
    shown = (_shown(table) for _, table in _presentations(at, rows))
    return {f"/{_stimuli.path_of(name)}" for name in shown if name}


def _presentations(
    at: Callable[[str], ZarrStore], sessions: Iterable[Row]
) -> Iterator[tuple[str, Table]]:
    from neurostore.store import layout

    for row in sessions:
        names = [name for name in row["tables"] if name.startswith(KIND)]
        path = session_path(str(row["id"]))
        store = at(path)
        attrs = _catalogue.read_attrs(store, path) if names else None
        if attrs is None:  # or deleted by others since
            continue
        for name in names:
            entry = attrs["row"]["tables"].get(name)
            if entry is not None:
                yield str(row["id"]), layout.read_table(store, path, name, entry)
