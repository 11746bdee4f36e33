"""Two sessions of one clock made one: their units side by side, their spikes in order of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from zarr.core.sync import sync

from neurostore.errors import NotFoundError, RefusedError, UsageError
from neurostore.schemas import Column, Table
from neurostore.store import _catalogue, _copied, _rename, tables
from neurostore.store._format import session_path, table_path
from neurostore.store.builder import check_tables, refuse
from neurostore.store.edit import Edit, carry_out

if TYPE_CHECKING:
    from neurostore.store.session import Session
    from neurostore.store.store import Store
    from neurostore.store.transaction import Transaction

OBSERVED = "intervals/observed"
_KEYS = {"units": "unit", "electrodes": "electrode"}


@dataclass(frozen=True)
class Merging:
    """What becomes of the tables of two sessions.

    Attributes
    ----------
    united : mapping of name to Table
        Made of both.
    copied : tuple of str
        Those that only the other session has.
    notes : tuple of str
        What is left out.
    bytes : int
        What the tables to write take as they are stored now.
    """

    into: str
    other: str
    united: Mapping[str, Table]
    copied: tuple[str, ...]
    notes: tuple[str, ...]
    bytes: int

    @property
    def steps(self) -> tuple[tuple[str, str], ...]:
        """What is done to what."""
        made = [("united", f"{self.into}: {name}") for name in self.united]
        made += [("copied", f"{self.other}: {name}") for name in self.copied]
        return (*made, ("merged", f"{self.other} → {self.into}"))


def plan(store: Store, into: str, other: str) -> Merging:
    """What it takes to merge a session into another one.

    Raises
    ------
    NotFoundError
        Where one of them is not there.
    RefusedError
        Where clocks, subjects or tables do not fit, unit ids clash, or a split names the other.
    """
    if into == other:
        raise UsageError(f"A session is merged into another one, found {into} twice.")
    first, second = store.session(into), store.session(other)
    _refuse_others(store, first, second)
    old, new = (one.attrs["row"]["tables"] for one in (first, second))
    united, notes = {}, list[str]()
    for name in sorted(old.keys() & new.keys()):
        if name in ("units", "spikes", OBSERVED) or _same(old[name], new[name]):
            continue
        if name not in _KEYS:
            raise RefusedError(
                f"{into} and {other} both have {name}, with other values. Update one of them "
                "under another name first."
            )
        united[name] = _joined(first.stored(name), second.stored(name), first, second)
    if "units" in old and "units" in new:
        united["units"] = _joined(first.stored("units"), second.stored("units"), first, second)
    if "spikes" in old and "spikes" in new:
        united["spikes"] = _spikes(first, second)
    if OBSERVED in old or OBSERVED in new:
        observed = _observed(first, second, notes)
        united |= {} if observed is None else {OBSERVED: observed}
    copied = tuple(n for n in sorted(new.keys() - old.keys()) if n not in united and n != OBSERVED)
    whole = {name: first.stored(name) for name in old} | {n: second.stored(n) for n in copied}
    refuse(into, check_tables({**whole, **united}, [*united]))
    size = 0
    for name in united:
        for session, entries in ((first, old), (second, new)):
            size += _size(store, session.id, name, entries) if name in entries else 0
    size += sum(_size(store, other, name, new) for name in copied)
    return Merging(into, other, united, copied, tuple(notes), size)


def _size(store: Store, id: str, name: str, entries: Mapping[str, Any]) -> int:
    return _copied.table_size(store.zarr, session_path(id), name, entries[name])


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return bool(a["digest"] == b["digest"])


def _refuse_others(store: Store, first: Session, second: Session) -> None:
    said = [one.attrs["clock"] for one in (first, second)]
    for key in ("rate", "origin", "shift"):
        if said[0][key] != said[1][key]:
            raise RefusedError(
                f"{first.id} and {second.id} are on other clocks: {key} {said[0][key]!r} and "
                f"{said[1][key]!r}. Only sessions of one clock merge."
            )
    subjects = [str(one.metadata.get("subject", "")) for one in (first, second)]
    if all(subjects) and subjects[0] != subjects[1]:
        raise RefusedError(
            f"{first.id} is of {subjects[0]}, {second.id} of {subjects[1]}: two subjects never "
            "merge."
        )
    if splits := _rename.naming(store, second.id):
        names = ", ".join(one.title for one in splits)
        raise RefusedError(f"{second.id} is named by {names}. Make the split without it first.")
    for name, entry in second.attrs["row"]["tables"].items():
        if "unit" in entry["arrays"] and name not in ("units", "spikes", OBSERVED):
            raise RefusedError(f"{name} of {second.id} names rows of units, which would move.")


def _refuse_same_ids(first: Session, second: Session, name: str) -> None:
    key = _KEYS[name]
    ids = [{str(id) for id in one.stored(name).columns[key].values[:]} for one in (first, second)]
    if clash := sorted(ids[0] & ids[1]):
        more = f" and {len(clash) - 8:,} more" if len(clash) > 8 else ""
        raise RefusedError(
            f"{first.id} and {second.id} both have the {name} {', '.join(clash[:8])}{more}. Give "
            "them other ids in one session first, such as the probe's name ahead."
        )


# ---- tables of both


def _joined(a: Table, b: Table, first: Session, second: Session) -> Table:
    """The rows of both, one after another; text and numbers that one lacks are empty and NaN."""
    _refuse_same_ids(first, second, a.name)
    columns = {}
    for name in dict.fromkeys([*a.columns, *b.columns]):
        sides = [table.columns.get(name) for table in (a, b)]
        known = next(one for one in sides if one is not None)
        parts = [
            _missing(known, table.rows, f"{name!r} of {a.name}") if one is None else one.values[:]
            for one, table in zip(sides, (a, b), strict=True)
        ]
        shapes = {np.asarray(part).shape[1:] for part in parts}
        if len(shapes) > 1 or any(one is not None and one.attrs != known.attrs for one in sides):
            raise RefusedError(
                f"{name!r} of {a.name} has another shape or unit in {second.id} than in {first.id}."
            )
        columns[name] = Column(known.dims, np.concatenate(parts), known.attrs)
    return Table(a.name, a.contract, columns, {**b.attrs, **a.attrs})


def _missing(known: Column, rows: int, what: str) -> NDArray[Any]:
    dtype = known.values.dtype
    if dtype.kind not in "fT":
        raise RefusedError(f"{what} is in one session alone, and {dtype} has no value for missing.")
    return np.full((rows, *known.values.shape[1:]), "" if dtype.kind == "T" else np.nan, dtype)


def _count(session: Session) -> int:
    return int(session.attrs["row"]["n_units"])


def _spikes(first: Session, second: Session) -> Table:
    a, b = (one.stored("spikes") for one in (first, second))
    count = _count(first) + _count(second)
    dtype = np.dtype(np.uint16 if count <= 1 << 16 else np.uint32)
    ticks = np.concatenate([np.asarray(one.columns["time"].values[:]) for one in (a, b)])
    rows = [np.asarray(one.columns["unit"].values[:]).astype(dtype) for one in (a, b)]
    time, unit, _ = tables._by_time(
        ticks, np.concatenate([rows[0], rows[1] + dtype.type(_count(first))]), max(1, count)
    )
    block, where = tables.blocks(time, first.clock)
    columns = {
        name: Column(a.columns[name].dims, values, a.columns[name].attrs)
        for name, values in (("time", time), ("unit", unit), ("block", block))
    }
    return Table("spikes", a.contract, columns, {**a.attrs, "block": where})


def _observed(first: Session, second: Session, notes: list[str]) -> Table | None:
    """Observed time of the units of both, by unit where it differs; None where it stays."""
    both = (first, second)
    found = [one.stored(OBSERVED) if OBSERVED in one.tables else None for one in both]
    counts = [_count(one) for one in both]
    if sum(counts) and not all(counts):
        for session, count, table in zip(both, counts, found, strict=True):
            if not count and table is not None:
                notes.append(f"observed time of {session.id}, which has no units, was left out")
        return found[counts.index(max(counts))]
    extents = [_extent(table) for table in found]
    plain = all(table is not None and "unit" not in table.columns for table in found)
    start, stop = (np.concatenate([one[side] for one in extents]) for side in (0, 1))
    unit = None
    if plain and all(np.array_equal(extents[0][side], extents[1][side]) for side in (0, 1)):
        return None
    if sum(counts):
        parts = [_by_unit(*one) for one in zip(found, extents, counts, (0, counts[0]), strict=True)]
        start, stop, unit = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((start,) if unit is None else (start, unit))
    group = None if unit is None else unit[order].astype(np.uint32)
    keep, ends = tables._merge(start[order], stop[order], group)
    attrs = {"units": "tick"}
    columns = {
        "start": Column(("interval",), start[order][keep], attrs),
        "stop": Column(("interval",), ends, attrs),
        "valid": Column(("interval",), np.ones(len(ends), dtype=bool)),
    }
    if group is not None:
        columns["unit"] = Column(("interval",), group[keep])
    assumed = any(bool(table.attrs.get("assumed")) for table in found if table is not None)
    contract = next(table.contract for table in found if table is not None)
    return Table(OBSERVED, contract, columns, {"assumed": assumed})


def _extent(table: Table | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if table is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    start, stop = (np.asarray(table.columns[name].values[:]) for name in ("start", "stop"))
    return start, stop


def _by_unit(
    table: Table | None, extent: tuple[NDArray[np.int64], NDArray[np.int64]], units: int, first: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Start, stop and row of the unit; intervals of a session are those of each of its units."""
    start, stop = extent
    if table is not None and "unit" in table.columns:
        rows = np.asarray(table.columns["unit"].values[:]).astype(np.int64)
        return start, stop, rows + first
    unit = np.repeat(np.arange(first, first + units, dtype=np.int64), len(start))
    return np.tile(start, units), np.tile(stop, units), unit


# ---- doing it


def run(store: Store, planned: Merging, message: str | None, dry_run: bool) -> Edit:
    """Merge in a commit of its own, or say what would be done."""
    what = Edit(planned.steps, planned.bytes, dry_run=dry_run)
    said = message or f"merged {planned.other} into {planned.into}"
    return carry_out(store, said, what, lambda tx: merge(tx, planned))


def merge(tx: Transaction, planned: Merging) -> None:
    """Merge two sessions in a transaction that has touched neither."""
    into, other = planned.into, planned.other
    for id in (into, other):
        if id in tx._changes or tx._updates.get(id):
            raise UsageError(f"{id} was changed in this transaction; merge it in another one.")
    path, from_path = session_path(into), session_path(other)
    before = tx._touch(into, path)
    tx._touch(other, from_path)
    attrs, more = (_catalogue.read_attrs(tx._before, one) for one in (path, from_path))
    if attrs is None or more is None:
        raise NotFoundError("session", into if attrs is None else other, [], tx._store.url)
    entries, theirs = dict(attrs.pop("row")["tables"]), more.pop("row")["tables"]
    inputs = {
        name: {
            f"{id}/{name}": side[name]["digest"]
            for id, side in ((into, entries), (other, theirs))
            if name in side
        }
        for name in planned.united
    }
    writer, clock = tx._draft.below(path), tx._store.session(into).clock
    try:
        for name in planned.united:
            if name in entries:
                sync(writer.delete_dir(f"{path}/{table_path(name)}"))
        entries |= tx._write_tables(writer, path, planned.united, clock)
        for name in planned.copied:
            _copied.copy_table(tx._before, from_path, name, theirs[name], writer, path)
            entries[name] = theirs[name]
        made = {"made_by": "merge", "transaction": tx._id}
        lineage = {name: {**made, "inputs": inputs[name]} for name in planned.united}
        lineage |= {n: {"source": more["source"], **more["lineage"][n]} for n in planned.copied}
        tx._write_row(writer, path, _attrs(attrs, more, lineage, planned), entries)
    except BaseException:
        tx._undo(writer, path, into, before)
        raise
    tx._take_out(other, from_path, "merge")
    tx._changes[into] = "merge"


def _attrs(
    attrs: dict[str, Any], more: dict[str, Any], lineage: dict[str, Any], planned: Merging
) -> dict[str, Any]:
    """Attributes of both: what the first says goes ahead."""
    found = [one for one in more["findings"] if one not in attrs["findings"]]
    notes = [*more["notes"], f"merged with {more['id']}", *planned.notes]
    clock = attrs["clock"]
    return {
        **attrs,
        "metadata": {**more["metadata"], **attrs["metadata"]},
        "clock": {**clock, "error": max(clock["error"], more["clock"]["error"])},
        "findings": [*attrs["findings"], *found],
        "notes": [*attrs["notes"], *(one for one in notes if one not in attrs["notes"])],
        "lineage": {**attrs["lineage"], **lineage},
        "transactions": {**more.get("transactions", {}), **attrs.get("transactions", {})},
    }
