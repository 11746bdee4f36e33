"""The chunks of one table: their checksums, their ends, and what they decode to.

Chunks are fetched a piece at a time and decoded from the bytes at hand, so that nothing is read
twice and memory stays bounded.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from zarr.core.buffer import default_buffer_prototype
from zarr.core.buffer.cpu import Buffer as Bytes
from zarr.core.sync import sync
from zarr.storage import WrapperStore

from neurostore.errors import StoreError, counted
from neurostore.store import _damage, _fork, layout
from neurostore.store._faults import Fault
from neurostore.store._format import chunk_digest

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.abc.store import Store as ZarrStore
    from zarr.core.buffer import Buffer, BufferPrototype

    from neurostore.store.layout import StoredArray

PIECE = 1 << 24
"""Decoded bytes at hand at once, of one array."""
_TOGETHER = 64
"""Chunks that are on their way at once, of one array."""


@dataclass(frozen=True)
class Looked:
    """What was read of a table and what is wrong with it."""

    chunks: int
    bytes: int
    faults: list[Fault]


@dataclass(frozen=True, eq=False)
class Part:
    """An array of a table: where it belongs, what it must be, and what its values may name.

    Attributes
    ----------
    rows : int or None
        Rows of what its values are rows of, with what they are called; None where they are none.
    """

    id: str
    table: str
    column: str
    array: StoredArray
    digest: str
    contract: str = ""
    rows: int | None = None
    least: int = 0

    @property
    def chunks(self) -> int:
        """How many chunks it has."""
        shape, chunks = self.array.shape, self.array.chunks
        return prod(-(-n // c) for n, c in zip(shape, chunks, strict=True))

    def fault(self, check: str, message: str, found: str = "", expected: str = "") -> Fault:
        """What is wrong with it."""
        return Fault.critical(
            self.id,
            check,
            message,
            table=self.table,
            variable=self.column,
            found=found,
            expected=expected,
        )


class _Held(WrapperStore[Any]):
    """A store some of whose chunks are at hand."""

    def __init__(self, store: ZarrStore, held: dict[str, bytes] | None = None) -> None:
        super().__init__(store)
        self.held: dict[str, bytes] = {} if held is None else held

    def _with_store(self, store: ZarrStore) -> _Held:
        return _Held(store, self.held)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if byte_range is None and key in self.held:
            return Bytes.from_bytes(self.held[key])
        found: Buffer | None = await self._store.get(key, prototype, byte_range)
        return found


Met = Callable[[int, int], None]
"""Told how many chunks and bytes were read."""


def check_some(part: Part, numbers: Sequence[int], met: Met) -> Looked:
    """Checksum and end of some chunks, by number in C order."""
    array = part.array
    keys = layout.chunk_keys(array.path, array.shape, array.chunks)
    faults, read = [], 0
    for first in range(0, len(numbers), _TOGETHER):
        some = [keys[number] for number in numbers[first : first + _TOGETHER]]
        found = _fetch(array.store, some)
        read += _size(found)
        met(len(found), _size(found))
        for key, one in found.items():
            faults += _wrong(part, key, one, array._ends.get(key, b""))
    return Looked(len(numbers), read, faults)


def check_all(part: Part, met: Met) -> Looked:
    """Every chunk, and the digest of what they decode to; links where all of it is whole."""
    faults, read, total = list[Fault](), 0, hashlib.sha256()
    held = _Held(part.array.store)
    array = replace(part.array, store=held)  # what it opens is dropped with it
    low, high = 0, -1
    for rows, keys in _pieces(array):
        found = _fetch(part.array.store, keys)
        read += _size(found)
        met(len(found), _size(found))
        for key, one in found.items():
            faults += _wrong(part, key, one, array._ends.get(key, b""))
        if faults:
            continue  # its digest is lost, the other chunks are looked at all the same
        held.held.clear()  # in place: what was opened holds this very mapping
        held.held.update({key: one for key, one in found.items() if isinstance(one, bytes)})
        try:
            values = array[rows]
        except StoreError as error:
            faults.append(part.fault("store/chunk/unreadable", error.line))
            continue
        for first in range(0, len(values), array.chunks[0]):
            total.update(chunk_digest(values[first : first + array.chunks[0]]))
        if part.rows is not None and values.size:
            low, high = min(low, int(values.min())), max(high, int(values.max()))
    if not faults and total.hexdigest() != part.digest:
        text = f"{part.table}/{part.column} of {part.id} is not what was written"
        faults.append(part.fault("store/table/digest", text, total.hexdigest(), part.digest))
    if not faults and part.rows is not None and (low < part.least or high >= part.rows):
        named = low if low < part.least else high
        text = (
            f"{part.table}/{part.column} of {part.id} names the row {named} of "
            f"{counted(part.rows, 'row')}"
        )
        faults.append(part.fault("store/link/row", text, str(named), f"below {part.rows}"))
    return Looked(part.chunks, read, faults)


def _pieces(array: StoredArray) -> Iterator[tuple[slice, list[str]]]:
    """Rows and keys of whole chunks, about `PIECE` decoded bytes each."""
    keys = layout.chunk_keys(array.path, array.shape, array.chunks)
    if not keys:
        return
    blocks = -(-array.shape[0] // array.chunks[0])
    width = len(keys) // blocks
    size = prod(array.chunks) * width * max(1, np.dtype(array.dtype).itemsize)
    step = max(1, PIECE // max(1, size))
    for first in range(0, blocks, step):
        rows = slice(first * array.chunks[0], (first + step) * array.chunks[0])
        yield rows, keys[first * width : (first + step) * width]


def _fetch(store: ZarrStore, keys: Sequence[str]) -> Mapping[str, bytes | StoreError | None]:
    """What lies under keys, as it is stored; None where there is nothing."""

    async def one(key: str, some: asyncio.Semaphore) -> bytes | StoreError | None:
        async with some:
            try:
                buffer = await store.get(key, default_buffer_prototype())
            except BaseException as error:
                _damage.pass_on(error)
                return error if isinstance(error, StoreError) else _damage.wrap(key, error)
            return None if buffer is None else buffer.to_bytes()

    async def every() -> list[bytes | StoreError | None]:
        some = asyncio.Semaphore(_TOGETHER)
        return await asyncio.gather(*(one(key, some) for key in keys))

    _fork.check()
    return dict(zip(keys, sync(every()), strict=True))


def _size(found: Mapping[str, bytes | StoreError | None]) -> int:
    return sum(len(one) for one in found.values() if isinstance(one, bytes))


def _wrong(part: Part, key: str, found: bytes | StoreError | None, end: bytes) -> list[Fault]:
    """What is wrong with the bytes of a chunk."""
    if found is None:
        return [part.fault("store/chunk/missing", f"chunk {key} is not found")]
    if isinstance(found, StoreError):
        return [part.fault("store/chunk/unreadable", found.line)]
    crc = int(google_crc32c.value(found[:-4])).to_bytes(4, "little")
    kept, wanted = found[-4:], end or crc
    if crc == kept == wanted:
        return []
    if crc == kept:
        text = f"chunk {key} is whole, but not the one that was written there"
        return [part.fault("store/chunk/other", text, kept.hex(), end.hex())]
    text = f"chunk {key} fails its checksum ({len(found):,} bytes)"
    return [part.fault("store/chunk/crc32c", text, crc.hex(), (end or kept).hex())]
