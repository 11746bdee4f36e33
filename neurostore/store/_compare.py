"""Two snapshots compared by what their sessions' rows say; values only where digests differ.

Icechunk's own diff is not asked: its transaction logs are not checksummed. What two chunks hold is
the same where both end in the same crc32c; neither is decoded then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.schemas import Column, Table
from neurostore.store._format import CHUNK
from neurostore.store._moved import moved
from neurostore.store.difference import (
    Difference,
    Pair,
    SessionDifference,
    SharedDifference,
    TableDifference,
    What,
)

if TYPE_CHECKING:
    from neurostore.store.session import Session
    from neurostore.store.store import Store

Row = Mapping[str, Any]
_KEYS = {"units": "unit", "electrodes": "electrode"}
"""Tables whose rows are known by a name, and the column that holds it."""
_OWN = {"id", "dataset", "session", "row", "lineage", "transactions", "findings", "notes"}
"""Attributes of a session that are told in other ways."""


def compare(before: Store, after: Store, only: Iterable[str] | None = None) -> Difference:
    """The difference between two snapshots, of some sessions by id or of everything."""
    old, new = _by_id(before.rows), _by_id(after.rows)
    renamed = _renamed(old, new, _recorded(before, after))
    kept = (old.keys() - {*renamed.values()}) & (new.keys() - renamed.keys())
    some = [only] if isinstance(only, str) else only
    wanted = old.keys() | new.keys() if some is None else {*some}
    came = (new.keys() - kept - renamed.keys()) & wanted
    gone = (old.keys() - kept - {*renamed.values()}) & wanted
    made = [_one_sided(new[id], "added") for id in came]
    made += [_one_sided(old[id], "removed") for id in gone]
    pairs = [(id, id) for id in kept & wanted if old[id]["digest"] != new[id]["digest"]]
    for is_now, was in [*pairs, *renamed.items()]:
        if wanted & {is_now, was}:
            made.append(_session(before.session(was), after.session(is_now)))
    splits: tuple[SharedDifference, ...] = ()
    stimuli: tuple[SharedDifference, ...] = ()
    if only is None:
        splits = _shared(before.split_rows, after.split_rows)
        stimuli = _shared(before.stimulus_rows, after.stimulus_rows)
    same = len(kept & wanted) - len(pairs)
    made.sort(key=lambda one: one.id)
    return Difference(before.snapshot, after.snapshot, tuple(made), splits, stimuli, same)


def _by_id(rows: Iterable[Row]) -> dict[str, Row]:
    return {str(row["id"]): row for row in rows}


def _recorded(before: Store, after: Store) -> dict[str, str]:
    """Ids of now → ids of then, as the commits between two snapshots say."""
    names = after._renamed_since(before.snapshot)
    if names is None:
        names = {was: now for now, was in (before._renamed_since(after.snapshot) or {}).items()}
    return names


def _renamed(
    old: Mapping[str, Row], new: Mapping[str, Row], recorded: Mapping[str, str]
) -> dict[str, str]:
    """Ids of now → ids of then: as recorded, or else where the tables are the same by digest."""
    found = {now: was for now, was in recorded.items() if now in new and was in old}
    gone: dict[tuple[Any, ...], list[str]] = {}
    for id in sorted(old.keys() - new.keys() - {*found.values()}):
        gone.setdefault(_content(old[id]), []).append(id)
    for id in sorted(new.keys() - old.keys() - found.keys()):
        if candidates := gone.get(_content(new[id])):
            found[id] = candidates.pop(0)
    return found


def _content(row: Row) -> tuple[Any, ...]:
    return tuple((name, entry["digest"]) for name, entry in sorted(row["tables"].items()))


def _one_sided(row: Row, what: What) -> SessionDifference:
    def pair(value: Any) -> Pair:
        return (None, value) if what == "added" else (value, None)

    units, spikes, observed = (pair(row[name]) for name in ("n_units", "n_spikes", "observed"))
    return SessionDifference(str(row["id"]), what, units, spikes, observed)


# ---- one session


def _session(before: Session, after: Session) -> SessionDifference:
    old, new = before.attrs["row"], after.attrs["row"]
    tables = tuple(_tables(before, after))
    attributes = differing(_outer(before.attrs), _outer(after.attrs))
    ids = [_ids(before), _ids(after)]
    there = {"spikes", "units"} <= old["tables"].keys() & new["tables"].keys()
    spikes = next((one for one in tables if one.name == "spikes"), None)
    other = next((one for one in tables if one.name == "units"), None)
    renamed = before.id != after.id
    what: What = "renamed" if renamed else "changed" if tables or attributes else "rewritten"
    return SessionDifference(
        after.id,
        what,
        (old["n_units"], new["n_units"]),
        (old["n_spikes"], new["n_spikes"]),
        (old["observed"], new["observed"]),
        was=before.id if renamed else "",
        units_added=tuple(id for id in ids[1] if id not in set(ids[0])),
        units_removed=tuple(id for id in ids[0] if id not in set(ids[1])),
        moved=moved(before, after, *ids) if there and (spikes or other) else None,
        tables=tables,
        attributes=attributes,
    )


def _ids(session: Session) -> list[str]:
    if "units" not in session.tables:
        return []
    return [str(id) for id in session.stored("units").columns["unit"].values[:]]


def _outer(attrs: Mapping[str, Any]) -> dict[str, Any]:
    said = {key: value for key, value in attrs.items() if key not in _OWN}
    return {**said, "findings": len(attrs["findings"]), "notes": len(attrs["notes"])}


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Pair]:
    """The entries of two nested mappings that differ, by dotted name."""
    old, new = dict(_flat(before)), dict(_flat(after))
    names = sorted(old.keys() | new.keys())
    return {
        name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)
    }


def _flat(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, one in value.items():
        if isinstance(one, Mapping):
            yield from _flat(one, f"{above}{key}.")
        else:
            yield f"{above}{key}", one


# ---- tables


def _tables(before: Session, after: Session) -> Iterator[TableDifference]:
    old, new = before.attrs["row"]["tables"], after.attrs["row"]["tables"]
    again = _fitted_again(old, new)
    for name in sorted(old.keys() | new.keys()):
        if name in again.values():
            continue
        was = again.get(name, name)
        if was not in old:
            yield TableDifference(name, "added", (None, new[name]["rows"]))
        elif name not in new:
            yield TableDifference(name, "removed", (old[name]["rows"], None))
        elif name != was or old[name]["digest"] != new[name]["digest"]:
            yield _table(before, after, was, name)


def _fitted_again(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Names of now → names of then, of features that lie under another digest."""
    gone = sorted(name for name in old.keys() - new.keys() if name.startswith("features/"))
    found = {}
    for name in sorted(new.keys() - old.keys()):
        same = [one for one in gone if one.split("/")[:2] == name.split("/")[:2]]
        if name.startswith("features/") and same:
            found[name] = same[0]
            gone.remove(same[0])
    return found


def _table(before: Session, after: Session, was: str, name: str) -> TableDifference:
    first, second = before.stored(was), after.stored(name)
    old = before.attrs["row"]["tables"][was]["arrays"]
    new = after.attrs["row"]["tables"][name]["arrays"]
    rows = _matched(first, second)
    places: set[int] | None = set() if name in _KEYS else None
    values = {
        key: _changed(first.columns[key], second.columns[key], rows, places)
        for key in first.columns
        if key in second.columns
        if old[key] != new[key] and name != "spikes"
    }
    attributes = differing(_about(before, first, was), _about(after, second, name))
    return TableDifference(
        name,
        "changed" if was == name else "fitted again",
        (first.rows, second.rows),
        "" if was == name else was,
        tuple(key for key in second.columns if key not in first.columns),
        tuple(key for key in first.columns if key not in second.columns),
        {key: one for key, one in values.items() if one is not None},
        attributes,
        _names(second, places),
    )


def _names(table: Table, places: Collection[int] | None) -> tuple[str, ...]:
    """The things that rows of a table are, by name."""
    if not places or _KEYS[table.name] not in table.columns:
        return ()
    ids = table.columns[_KEYS[table.name]].values[:]
    return tuple(str(ids[row]) for row in sorted(places))


def _about(session: Session, table: Table, name: str) -> dict[str, Any]:
    """Attributes of a table, of its columns, and how it was made."""
    said = {key: dict(one.attrs) for key, one in table.columns.items()}
    for key, one in table.columns.items():
        said[key]["dtype"] = "string" if one.values.dtype.kind == "T" else one.values.dtype.name
    lineage = dict(session.attrs.get("lineage", {}).get(name, {}))
    lineage.pop("transaction", None)
    own = {} if name == "spikes" else dict(table.attrs)  # where its blocks lie follows its times
    return {**own, "contract": table.contract, **said, "lineage": lineage}


def _matched(first: Table, second: Table) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Rows of the things that both tables name, the first ascending; None where places count."""
    key = _KEYS.get(first.name)
    if key is None or key not in first.columns or key not in second.columns:
        return None
    old = [str(one) for one in first.columns[key].values[:]]
    new = [str(one) for one in second.columns[key].values[:]]
    if old == new:
        return None
    places = {id: row for row, id in enumerate(old)}
    pairs = [(places[id], row) for row, id in enumerate(new) if id in places]
    made = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    order = np.argsort(made[:, 0])
    return made[order, 0], made[order, 1]


def _changed(
    first: Column,
    second: Column,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
    places: set[int] | None,
) -> tuple[int, int] | None:
    """How many values of a column differ, of how many that both tables have.

    Rows of the second table in which one does are added to `places`, where that is given.
    """
    a, b = first.values, second.values
    if len(a.shape) != len(b.shape) or (a.dtype.kind == "T") != (b.dtype.kind == "T"):
        return None  # another dtype, which the attributes say
    count = min(a.shape[0], b.shape[0]) if rows is None else len(rows[0])
    width = int(np.prod(b.shape[1:], dtype=np.int64))
    if a.shape[1:] != b.shape[1:]:
        return count * width, count * width
    step, found = max(1, CHUNK // max(1, width)), 0
    alike = _alike(a, b) if rows is None else None
    if alike is not None:
        step = alike[0]
    for number, begin in enumerate(range(0, count, step)):
        if alike is not None and alike[1][number : number + 1] == [True]:
            continue
        piece = slice(begin, min(begin + step, count))
        if rows is None:
            differ = _unequal(np.asarray(a[piece]), np.asarray(b[piece]))
        else:
            differ = _unequal(np.asarray(a[rows[0][piece]]), _in_order(b, rows[1][piece]))
        found += int(np.count_nonzero(differ))
        if places is not None and differ.any():
            at = np.flatnonzero(differ.reshape(len(differ), -1).any(axis=1))
            places.update((at + begin if rows is None else rows[1][piece][at]).tolist())
    return found, count * width


def _in_order(values: Any, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Rows of an array in any order; it is asked for them in ascending order."""
    order = np.argsort(rows)
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return np.asarray(np.asarray(values[rows[order]])[back])


def _alike(a: Any, b: Any) -> tuple[int, Sequence[bool]] | None:
    """Rows of a chunk, and which chunks of two arrays end alike; None where they lie otherwise."""
    if a.chunks != b.chunks or a.dtype != b.dtype or not (a.checksums and b.checksums):
        return None
    count = min(len(a.checksums), len(b.checksums)) // 8
    parts = [slice(8 * k, 8 * k + 8) for k in range(count)]
    return int(a.chunks[0]), [a.checksums[one] == b.checksums[one] for one in parts]


def _unequal(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    differ: NDArray[np.bool_] = np.asarray(a != b)
    if a.dtype.kind == b.dtype.kind == "f":
        differ &= ~(np.isnan(a) & np.isnan(b))
    return differ


# ---- splits and stimuli


def _shared(
    before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]
) -> tuple[SharedDifference, ...]:
    old = {str(one["id"]): one for one in before}
    new = {str(one["id"]): one for one in after}
    made = []
    for id in sorted(old.keys() | new.keys()):
        pair = old.get(id), new.get(id)
        digest = tuple(None if one is None else one["digest"] for one in pair)
        if digest[0] == digest[1]:
            continue
        what: What = "added" if pair[0] is None else "removed" if pair[1] is None else "changed"
        rows = tuple(None if one is None else _rows(one) for one in pair)
        made.append(SharedDifference(id, what, (rows[0], rows[1]), (digest[0], digest[1])))
    return tuple(made)


def _rows(attrs: Mapping[str, Any]) -> int:
    if "frames" in attrs:
        return int(attrs["frames"])
    return sum(int(entry["rows"]) for entry in attrs["row"]["tables"].values())
