"""Opening arrays so that damage is an error: a chunk not found, a failed checksum, bad bytes.

Zarr reads a chunk that is not found as its fill value; here every chunk was written, so a missing
one is damage. The pipeline wraps each chunk's getter, which works for shards too. A chunk ends in
its crc32c, and its array's attributes keep the crc32c of every chunk: where a damaged manifest
leads to a whole chunk of another place, the two differ.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.core.sync import sync
from zarr.registry import register_pipeline
from zarr.storage import WrapperStore

from neurostore.errors import DamagedError, StoreError
from neurostore.store._bounded import bounded, values_of
from neurostore.store._damage import WAY_OUT, chunk, pass_on, wrap
from neurostore.store._together import together

if TYPE_CHECKING:
    from typing import Self

    from zarr.abc.codec import Codec
    from zarr.abc.store import ByteGetter, ByteRequest
    from zarr.abc.store import Store as ZarrStore
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, BufferPrototype, NDBuffer
    from zarr.core.indexing import SelectorTuple

Kept = TypeVar("Kept")

_TOGETHER = 64
"""Chunks that are on their way at once."""
CHECKSUMS = "chunk_crc32c"
"""Attribute of an array: the last four bytes of every chunk, in hexadecimal and C order."""


@dataclass(frozen=True)
class _Found:
    """A chunk's getter that does not take "not found" for an answer."""

    getter: Any

    async def get(self, prototype: BufferPrototype, byte_range: Any = None) -> Buffer:
        return await _found(self.where, self.getter.get(prototype, byte_range))

    @property
    def where(self) -> str:
        return str(getattr(self.getter, "path", self.getter))


async def _found(where: str, asked: Awaitable[Buffer | None]) -> Buffer:
    try:
        buffer = await asked
    except StoreError:
        raise
    except BaseException as error:
        pass_on(error)
        raise wrap(chunk(where), error) from error
    if buffer is None:
        raise DamagedError(f"{chunk(where)} is not found. {WAY_OUT}")
    return buffer


class DamagePipeline(BatchedCodecPipeline):
    """Zarr's own pipeline; damage is named by array and chunk, and no chunk outgrows its bounds."""

    @classmethod
    def from_codecs(cls, codecs: Iterable[Codec], *, batch_size: int | None = None) -> Self:
        return super().from_codecs([*map(bounded, codecs)], batch_size=batch_size)

    async def read_batch(
        self,
        batch_info: Iterable[tuple[ByteGetter, ArraySpec, SelectorTuple, SelectorTuple, bool]],
        out: NDBuffer,
        drop_axes: tuple[int, ...] = (),
    ) -> None:
        wrapped: list[Any] = [(_Found(getter), *rest) for getter, *rest in batch_info]
        try:
            await super().read_batch(wrapped, out, drop_axes)
        except StoreError:
            raise
        except BaseException as error:
            pass_on(error)
            names = sorted({one[0].where for one in wrapped})[:3]
            raise wrap(", ".join(map(chunk, names)), error) from error


register_pipeline(DamagePipeline)
_PATH = f"{DamagePipeline.__module__}.{DamagePipeline.__qualname__}"


class Chunks(WrapperStore[Any]):
    """A store that knows how the chunks of one array end."""

    def __init__(self, store: ZarrStore, ends: Mapping[str, bytes]) -> None:
        super().__init__(store)
        self._ends = ends

    def _with_store(self, store: ZarrStore) -> Chunks:
        return Chunks(store, self._ends)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        buffer: Buffer | None = await self._store.get(key, prototype, byte_range)
        end = self._ends.get(key)
        if buffer is not None and byte_range is None and end is not None:
            _refuse_another(chunk(key), buffer[-4:].to_bytes() if len(buffer) else b"", end)
        return buffer


def _refuse_another(name: str, found: bytes, end: bytes) -> None:
    if found != end:
        raise DamagedError(
            f"{name} is not the one that was written: crc32c {found.hex()}, expected {end.hex()}. "
            f"{WAY_OUT}"
        )


def check_chunk(name: str, data: bytes, end: bytes = b"", *, summed: bool = True) -> None:
    """Hold the bytes of a stored chunk against their checksum, and that against the array's.

    Parameters
    ----------
    name : str
        What errors call it: "Chunk 0 of ...".
    end : bytes
        How it was written to end; empty where nothing is known of it.
    summed : bool
        Whether it ends in its crc32c.

    Raises
    ------
    DamagedError
    """
    if end:
        _refuse_another(name, data[-4:], end)
    counted = google_crc32c.value(data[:-4]).to_bytes(4, "little")
    if summed and counted != data[-4:]:
        raise DamagedError(
            f"{name} is damaged: its bytes give crc32c {counted.hex()}, it ends in "
            f"{data[-4:].hex()}. {WAY_OUT}"
        )


@dataclass(frozen=True)
class Packed:
    """A chunk of PCodec and crc32c alone: how it ends (empty where nothing is known of it)."""

    key: str
    end: bytes
    rows: int
    dtype: np.dtype[Any]

    def decode(self, data: bytes) -> NDArray[Any]:
        """Its values (rows,)."""
        check_chunk(chunk(self.key), data, self.end)
        made = np.empty(self.rows, self.dtype)
        try:
            values_of(data[:-4], made)
        except BaseException as error:
            pass_on(error)
            raise wrap(chunk(self.key), error) from error
        return made


def read_packed(
    store: ZarrStore, chunks: Sequence[Packed], keep: Callable[[int, NDArray[Any]], Kept]
) -> list[Kept]:
    """What is kept of each chunk; all are asked for at once, and decoded as they come.

    Parameters
    ----------
    keep : callable
        Called with a chunk's place among `chunks` and its values.
    """

    async def one(each: tuple[int, Packed]) -> Kept:
        place, packed = each
        found = await _found(packed.key, store.get(packed.key, default_buffer_prototype()))
        return keep(place, packed.decode(found.to_bytes()))

    return sync(together(one, enumerate(chunks), _TOGETHER))


class Ends(WrapperStore[Any]):
    """A store that remembers how every chunk written through it ends."""

    def __init__(self, store: ZarrStore, ends: dict[str, bytes] | None = None) -> None:
        super().__init__(store)
        self.ends: dict[str, bytes] = {} if ends is None else ends

    def _with_store(self, store: ZarrStore) -> Ends:
        return Ends(store, self.ends)

    async def set(self, key: str, value: Buffer) -> None:
        await self._store.set(key, value)
        self.ends[key] = value[-4:].to_bytes()


_opening = Lock()
"""Settings and filters are the process's: what one thread sets back another may need."""


def open_array(
    store: ZarrStore, path: str, ends: Mapping[str, bytes] | None = None
) -> zarr.Array[Any]:
    """An array whose reads go through the pipeline above, each chunk's end as it was written."""
    with (
        _opening,
        zarr.config.set({"codec_pipeline.path": _PATH}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Numcodecs codecs are not in the Zarr version 3")
        try:
            known = Chunks(store, ends) if ends else store
            return zarr.open_array(known, path=path, mode="r", zarr_format=3)
        except StoreError:
            raise
        except BaseException as error:
            pass_on(error)
            raise wrap(path, error) from error
