"""The window cache of a session's tables: decoded once, held against the row while it is done.

A table that is cached is opened by what the session's row says of it, without the store. What a row
claims is not believed: the key is the digest of what it says, and all that is decoded must have the
digests it names, so that no store can put other values under another one's key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from neurostore import cache
from neurostore.cache import ByUnit, Cache, Checked, Entry, Packed, Writer
from neurostore.cache._packed import by_unit_plan, check_index, load_if_many, pack, packed_shapes
from neurostore.errors import DamagedError, StoreError
from neurostore.schemas import Column, Table
from neurostore.store._damage import WAY_OUT
from neurostore.store._format import chunk_digest, digest

if TYPE_CHECKING:
    from neurostore.store.session import Session

_View = TypeVar("_View")

FORMAT = 1
"""Of what lies in the entries below; another one has other keys."""
_THREADS = 4
_ENTRY = ("arrays", "contract", "metadata", "rows")


def table(session: Session, name: str) -> Table | None:
    """A table, memory mapped; None where it cannot be cached."""
    build = partial(_build_table, session, name)
    return _kept(session, name, "table", build, _open_table)


def packed(session: Session) -> Packed | None:
    """The spikes, packed; None where they cannot be cached, or there is no such table."""
    if "spikes" not in session.attrs["row"]["tables"]:
        return None
    return _kept(session, "spikes", "packed", partial(_build_packed, session), Packed.of)


def put(session: Session, name: str, into: Cache) -> Path:
    """Put what is read of a table into a cache of its own; gives the file.

    Raises
    ------
    StoreError
        Where it cannot be written.
    """
    kind = "packed" if name == "spikes" else "table"
    own = key(session, name, kind)
    build = _build_packed if name == "spikes" else partial(_build_table, name=name)
    entry = into.get(own) or build(session, held=into, key=own)
    if entry is None:
        raise StoreError(f"{name} of {session.id} cannot be written to {into.root}.")
    return entry.path


def by_unit(session: Session) -> ByUnit | None:
    """The ticks of every unit; None where they cannot be cached, or there is no such table."""

    def build(held: Cache, key: str) -> Entry | None:
        spikes = packed(session)
        if spikes is None:
            return None
        shapes, meta, fill = by_unit_plan(spikes)
        return held.build(key, shapes, lambda writer: fill(writer.arrays), dict(meta))

    if "spikes" not in session.attrs["row"]["tables"]:
        return None
    return _kept(session, "spikes", "by unit", build, ByUnit.of)


def key(session: Session, name: str, kind: str) -> str:
    """What an entry is kept under: digest of the content, clock, and kind of entry.

    Raises
    ------
    DamagedError
        Where the row claims a digest that is not the one of what it says.
    """
    entry = session.attrs["row"]["tables"][name]
    found = content(entry)
    if found != entry["digest"]:
        raise DamagedError(
            f"The row of {session.id} says {entry['digest']} is the digest of {name!r}; of what it "
            f"says it is {found}. {WAY_OUT}"
        )
    clock = str(session.attrs["clock"]["rate"])
    more = [session.attrs["row"]["n_units"]] if name == "spikes" else []
    return digest([FORMAT, cache.FORMAT, found, clock, kind, *more])


def content(entry: Mapping[str, Any]) -> str:
    """The digest of what a row says of a table: contract, rows, arrays, metadata."""
    return digest({part: entry[part] for part in _ENTRY})


def _kept(
    session: Session,
    name: str,
    kind: str,
    build: Callable[[Cache, str], Entry | None],
    view: Callable[[Entry], _View],
) -> _View | None:
    """What lies in an entry, kept by the session until damage is found in it; None if nowhere."""
    held = session.store.cache
    if held is None:
        return None
    of, entry, made = session._kept.get((name, kind), (None, None, None))
    if of != held or (entry is not None and entry.damaged):
        own = key(session, name, kind)
        entry = held.get(own) or build(held, own)
        made = None if entry is None else view(entry)
        session._kept[name, kind] = (held, entry, made)  # None, too: it is not tried again
    return made


# ---- tables


@dataclass(frozen=True)
class _Text:
    """Strings end to end: their UTF-8 bytes, and where each begins."""

    blob: NDArray[np.uint8]
    start: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[Any]) -> _Text:
        texts = [str(text).encode("utf-8", "surrogatepass") for text in values.ravel()]
        start = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(texts), np.uint8), start)

    def strings(self, shape: tuple[int, ...]) -> NDArray[Any]:
        data, ends = self.blob.tobytes(), self.start.tolist()
        made = np.empty(len(ends) - 1, dtype=object)
        for k in range(len(made)):
            made[k] = data[ends[k] : ends[k + 1]].decode("utf-8", "surrogatepass")
        return made.reshape(shape)


def _build_table(session: Session, name: str, held: Cache, key: str) -> Entry | None:
    stored, digests = session.stored(name), session.attrs["row"]["tables"][name]["arrays"]
    texts: dict[str, _Text] = {}
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {}
    for number, (column, said) in enumerate(stored.columns.items()):
        dtype, shape = np.dtype(said.values.dtype), said.values.shape
        if not isinstance(dtype, np.dtypes.StringDType):
            shapes[f"{number}"] = (dtype, shape)
            continue
        values = np.empty(shape, dtype=dtype)
        copy(said.values, values, digests[column], f"{column!r} of {name} of {session.id}")
        texts[column] = text = _Text.of(values)
        shapes[f"{number}.blob"] = (np.uint8, text.blob.shape)
        shapes[f"{number}.start"] = (np.int64, text.start.shape)

    def fill(writer: Writer) -> None:
        for number, (column, said) in enumerate(stored.columns.items()):
            if column in texts:
                writer.arrays[f"{number}.blob"][:] = texts[column].blob
                writer.arrays[f"{number}.start"][:] = texts[column].start
            else:
                where = f"{column!r} of {name} of {session.id}"
                copy(said.values, writer.arrays[f"{number}"], digests[column], where)

    return held.build(key, shapes, fill, _meta(stored))


def _meta(stored: Table) -> dict[str, Any]:
    columns = [
        {
            "name": name,
            "dims": list(column.dims),
            "attrs": dict(column.attrs),
            "shape": list(column.values.shape),
        }
        for name, column in stored.columns.items()
    ]
    said = {"name": stored.name, "contract": stored.contract, "attrs": dict(stored.attrs)}
    return {**said, "columns": columns}


def _open_table(entry: Entry) -> Table:
    said: Mapping[str, Any] = entry.meta
    columns = {
        one["name"]: Column(tuple(one["dims"]), _values(entry, number, one["shape"]), one["attrs"])
        for number, one in enumerate(said["columns"])
    }
    return Table(said["name"], said["contract"], columns, said["attrs"])


def _values(entry: Entry, number: int, shape: list[int]) -> Any:
    if f"{number}.blob" in entry.arrays:
        entry.check(f"{number}.blob")
        entry.check(f"{number}.start")
        text = _Text(entry.arrays[f"{number}.blob"], entry.arrays[f"{number}.start"])
        return text.strings(tuple(shape))
    array = entry.arrays[f"{number}"]
    return array if array.nbytes < cache.WHOLE else Checked(entry, f"{number}")


# ---- decoding


def copy(values: Any, out: NDArray[Any], digest: str, what: str) -> None:
    """Decode an array into another, held against the digest of its content; see `_decode`."""

    def put(first: int, chunk: NDArray[Any]) -> None:
        out[first : first + len(chunk)] = chunk

    _decode({what: values}, {what: digest}, lambda first, chunks: put(first, chunks[what]))


def _decode(
    arrays: Mapping[str, Any],
    digests: Mapping[str, str],
    put: Callable[[int, dict[str, NDArray[Any]]], None],
) -> None:
    """Decode arrays of one chunking in threads, and hold each against the digest of its content.

    Raises
    ------
    DamagedError
    """
    length, rows = next((values.shape[0], values.chunks[0]) for values in arrays.values())

    def one(first: int) -> list[bytes]:
        chunks = {name: values[first : first + rows] for name, values in arrays.items()}
        put(first, chunks)
        return [chunk_digest(chunk) for chunk in chunks.values()]

    totals = [hashlib.sha256() for _ in arrays]
    for found in _in_threads(one, range(0, length, rows)):
        for total, part in zip(totals, found, strict=True):
            total.update(part)
    for name, total in zip(arrays, totals, strict=True):
        if total.hexdigest() != digests[name]:
            raise DamagedError(
                f"{name}: its content has the digest {total.hexdigest()}, its session says "
                f"{digests[name]}. {WAY_OUT}"
            )


def _in_threads(one: Callable[[int], list[bytes]], firsts: range) -> list[list[bytes]]:
    found = [one(first) for first in firsts[:1]]  # opens the arrays, which threads must not
    if len(firsts) < 2:
        return found
    threads = ThreadPoolExecutor(_THREADS)
    try:
        return found + list(threads.map(one, firsts[1:]))
    finally:
        threads.shutdown(cancel_futures=True)


# ---- spikes


def _build_packed(session: Session, held: Cache, key: str) -> Entry | None:
    stored, digests = session.stored("spikes"), session.attrs["row"]["tables"]["spikes"]["arrays"]
    where, units = f"spikes of {session.id}", int(session.attrs["row"]["n_units"])
    said: Any = stored.attrs["block"]
    first, length = int(said["start"]), int(said["length"])
    block = np.empty(stored.columns["block"].values.shape, dtype=np.int64)
    copy(stored.columns["block"].values, block, digests["block"], f"'block' of {where}")
    arrays: dict[str, Any] = {name: stored.columns[name].values for name in ("time", "unit")}
    spikes = arrays["time"].shape[0]
    check_index(block, spikes, where)

    def put(out: NDArray[Any], row: int, chunks: dict[str, NDArray[Any]]) -> None:
        time, unit = chunks.values()
        place = out[row : row + len(time)]
        if len(unit) and unit.max() >= units:
            raise DamagedError(f"The {where} name a unit {unit.max()}; there are {units}.")
        if not pack(time, unit, block, first, length, place, row):
            raise DamagedError(f"The {where} from {row:,} on do not lie in their blocks.")

    def fill(writer: Writer) -> None:
        load_if_many(spikes)
        writer.arrays["block"][:] = block
        named = {f"{name!r} of {where}": values for name, values in arrays.items()}
        expected = {f"{name!r} of {where}": digests[name] for name in arrays}
        _decode(named, expected, partial(put, writer.arrays["events"]))

    meta = {"first": first, "length": length, "units": units}
    return held.build(key, packed_shapes(spikes, len(block), length, units), fill, dict(meta))
