"""Opening arrays so that damage is an error: a chunk not found, a failed checksum, bad bytes.

Zarr reads a chunk that is not found as its fill value; here every chunk was written, so a missing
one is damage. The pipeline wraps each chunk's getter, which works for shards too.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import zarr
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.registry import register_pipeline

from neurostore.errors import DamagedError, StoreError

if TYPE_CHECKING:
    from zarr.abc.store import ByteGetter
    from zarr.abc.store import Store as ZarrStore
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, BufferPrototype, NDBuffer
    from zarr.core.indexing import SelectorTuple

WAY_OUT = "Bring the store back from a copy, or open an older snapshot (store.log())."


@dataclass(frozen=True)
class _Found:
    """A chunk's getter that does not take "not found" for an answer."""

    getter: Any

    async def get(self, prototype: BufferPrototype, byte_range: Any = None) -> Buffer:
        try:
            buffer: Buffer | None = await self.getter.get(prototype, byte_range)
        except Exception as error:
            raise wrap(self.where, error) from error
        if buffer is None:
            raise DamagedError(f"Chunk {self.where} is not found. {WAY_OUT}")
        return buffer

    @property
    def where(self) -> str:
        return str(getattr(self.getter, "path", self.getter))


class DamagePipeline(BatchedCodecPipeline):
    """Zarr's own pipeline; damage is named by array and chunk."""

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
        except Exception as error:
            names = ", ".join(sorted({one[0].where for one in wrapped})[:3])
            raise wrap(names, error) from error


register_pipeline(DamagePipeline)
_PATH = f"{DamagePipeline.__module__}.{DamagePipeline.__qualname__}"


def wrap(where: str, error: Exception) -> DamagedError:
    """An error while reading, as damage that names the place."""
    said = str(error).strip().splitlines()
    return DamagedError(
        f"{where} cannot be read: {type(error).__name__}: {said[0] if said else ''}. {WAY_OUT}"
    )


def open_array(store: ZarrStore, path: str) -> zarr.Array[Any]:
    """An array whose reads go through the pipeline above."""
    with zarr.config.set({"codec_pipeline.path": _PATH}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Numcodecs codecs are not in the Zarr version 3")
        try:
            return zarr.open_array(store, path=path, mode="r", zarr_format=3)
        except Exception as error:
            raise wrap(path, error) from error
