"""Whether presentations name rows that their stimulus has, where the store knows both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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


def refuse_links(
    store: ZarrStore, changed: Iterable[str], rows: Mapping[str, Row | None], others: Iterable[Row]
) -> None:
    """Hold presentations against their stimuli, where a transaction changed one or the other.

    Parameters
    ----------
    store : Zarr store
        The draft as it stands.
    changed : iterable of str
        Ids of what the transaction wrote.
    rows : mapping
        Their rows; None of what was deleted.
    others : iterable of rows
        Of the sessions that the store has, read where a stimulus is new.

    Raises
    ------
    RefusedError
        With the first presentation of a row that its stimulus does not have.
    """
    mine = list(changed)
    there = [row for id in mine if (row := rows[id]) is not None]
    sessions = [row for row in there if "session" in row]
    new = [row for row in there if str(row["id"]).count("/") == 2 and "session" not in row]
    if new:
        sessions += [row for row in others if row["id"] not in mine]
    for id, table in _presentations(store, sessions):
        path = _stimuli.path_of(_shown(table))
        attrs = _catalogue.read_attrs(store, path)
        if attrs is not None:
            refuse_beyond(id, table, int(attrs["frames"]))


def _presentations(store: ZarrStore, sessions: Iterable[Row]) -> Iterator[tuple[str, Table]]:
    from neurostore.store import layout

    for row in sessions:
        names = [name for name in row["tables"] if name.startswith(KIND)]
        path = session_path(str(row["id"]))
        attrs = _catalogue.read_attrs(store, path) if names else None
        if attrs is None:  # or deleted by others since
            continue
        for name in names:
            entry = attrs["row"]["tables"].get(name)
            if entry is not None:
                yield str(row["id"]), layout.read_table(store, path, name, entry)
