"""Which sessions, tables, stimuli and splits a clone takes, as the catalogue of its source says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neurostore.errors import NotFoundError, UsageError, counted
from neurostore.schemas import contract
from neurostore.store import _splits, layout
from neurostore.store._copied import Piece
from neurostore.store._format import digest, session_path

if TYPE_CHECKING:
    from neurostore.store.store import Store

OBSERVED = "intervals/observed"
COUNTED = {"units", "spikes"}
"""Tables that say nothing of a rate without the observed time."""


@dataclass(frozen=True)
class Selection:
    """What is copied.

    Attributes
    ----------
    pieces : tuple of Piece
        Stimuli, then sessions, then splits: whatever names another thing comes after it.
    said : mapping
        What the copy says of its source: URL, snapshot, selection and digest.
    notes : tuple of str
        What came along with what was asked for, and what was left out.
    """

    pieces: tuple[Piece, ...]
    said: Mapping[str, Any]
    notes: tuple[str, ...]


def select(
    source: Store,
    where: str | None,
    sessions: Sequence[str] | None,
    tables: Sequence[str] | None,
) -> Selection:
    """The selection that the arguments of `clone` name.

    Raises
    ------
    NotFoundError
        Where there is no such session, or none of those chosen has such a table.
    UsageError
        Where no session is left.
    """
    rows, notes = _rows(source, where, sessions), list[str]()
    if tables is not None:
        _refuse_unknown(rows, tables)
    origin = {"source": source.url, "snapshot": source.snapshot}
    chosen = list(_sessions(rows, tables, origin, notes))
    whole = where is None and sessions is None
    if not chosen and not (whole and tables is None):
        raise UsageError(f"No session of {source.url} is chosen; there is nothing to clone.")
    shown = None if whole and tables is None else _shown(source, chosen)
    pieces = [*_stimuli_of(source, shown, notes), *chosen]
    pieces += _splits_of(source, None if whole else {one.id for one in chosen}, notes)
    said = {
        **origin,
        "where": where,
        "sessions": None if sessions is None else len(set(sessions)),
        "tables": None if tables is None else sorted(set(tables)),
        "digest": digest([[one.id, one.row["checksum"], list(one.tables)] for one in pieces]),
    }
    return Selection(tuple(pieces), said, tuple(notes))


def _rows(
    source: Store, where: str | None, sessions: Sequence[str] | None
) -> list[Mapping[str, Any]]:
    known = {str(row["id"]): row for row in source.rows}
    for id in sessions or ():
        if id not in known:
            raise NotFoundError("session", id, known, source.url)
    kept = set(known) if where is None else set(source.sessions(where)["id"])
    kept &= set(known) if sessions is None else set(sessions)
    return [row for id, row in known.items() if id in kept]


def _refuse_unknown(rows: Iterable[Mapping[str, Any]], tables: Sequence[str]) -> None:
    known = {name for row in rows for name in row["tables"]}
    if not tables:
        raise UsageError("tables=[] names no table; leave it out for all of them.")
    for name in tables:
        if name not in known:
            raise NotFoundError("table", name, known, "the sessions chosen")


def _sessions(
    rows: Iterable[Mapping[str, Any]],
    tables: Sequence[str] | None,
    origin: Mapping[str, Any],
    notes: list[str],
) -> Iterator[Piece]:
    for row in rows:
        id, there = str(row["id"]), tuple(sorted(row["tables"]))
        asked = there if tables is None else tuple(one for one in there if one in set(tables))
        if not asked:
            notes.append(f"left out: {id} has none of these tables")
            continue
        names = _linked(row["tables"], asked)
        if added := [name for name in names if name not in asked]:
            notes.append(f"added: {', '.join(added)} of {id}, which what is chosen links to")
        clone = {**origin, "row": row["checksum"]}
        yield Piece(id, session_path(id), row, names, None if names == there else clone)


def _linked(entries: Mapping[str, Mapping[str, Any]], asked: Iterable[str]) -> tuple[str, ...]:
    """These tables, and those whose rows they name or without which they say nothing of a rate."""
    found, coming = set[str](), list(asked)
    while coming:
        name = coming.pop()
        found.add(name)
        columns = contract(entries[name]["contract"]).columns
        links = {columns[one].link for one in entries[name]["arrays"] if one in columns}
        links |= {OBSERVED} if name in COUNTED else set()
        coming += [one for one in links if one in entries and one not in found]
    return tuple(sorted(found))


def _shown(source: Store, chosen: Iterable[Piece]) -> set[str]:
    """Names of the stimuli that the presentations of these sessions show."""
    found = set()
    for piece in chosen:
        for name in piece.tables:
            if name.startswith("presentations/"):
                entry = piece.row["tables"][name]
                table = layout.read_table(source.zarr, piece.path, name, entry)
                found.add(str(table.attrs.get("stimulus", "")))
    return found


def _stimuli_of(source: Store, shown: set[str] | None, notes: list[str]) -> Iterator[Piece]:
    left = set()
    for attrs in source.stimulus_rows:
        if shown is None or attrs["stimulus"] in shown:
            yield _piece(attrs)
        else:
            left.add(str(attrs["stimulus"]))
    if left:
        notes.append(f"left out: stimuli that are not shown in it: {', '.join(sorted(left))}")


def _splits_of(source: Store, chosen: set[str] | None, notes: list[str]) -> Iterator[Piece]:
    for attrs in source.split_rows:
        if chosen is not None:
            lacking = set(_splits.read(source.zarr, attrs).sessions) - chosen
            if lacking:
                title = f"{attrs['split']}/v{attrs['version']}"
                what = counted(len(lacking), "session")
                notes.append(f"left out: the split {title}, for {what} of it not in the copy")
                continue
        yield _piece(attrs)


def _piece(attrs: Mapping[str, Any]) -> Piece:
    row = attrs["row"]
    return Piece(str(row["id"]), str(row["id"])[1:], row, tuple(sorted(row["tables"])))
