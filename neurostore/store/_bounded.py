"""Codecs that decode no more than their chunk may hold, whatever its bytes claim."""

from __future__ import annotations

import asyncio
import struct
import zlib
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pcodec import standalone
from zarr.abc.codec import Codec
from zarr.codecs import BloscCodec, GzipCodec, VLenUTF8Codec, ZstdCodec
from zarr.codecs.numcodecs import PCodec

from neurostore.store._caps import TEXT_BYTES

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

_ZSTD = b"\x28\xb5\x2f\xfd"


def bounded(codec: Codec) -> Codec:
    """The codec itself, or one that decodes the same within its bounds."""
    kept = _KEPT.get(type(codec))
    return codec if kept is None else kept.from_dict(codec.to_dict())


def values_of(content: bytes, made: NDArray[Any]) -> None:
    """Decode PCodec into an array (value,) of just as many values.

    Raises
    ------
    ValueError
        Where it holds fewer or more.
    """
    done = standalone.simple_decompress_into(content, made)
    if not done.finished or done.n_processed != len(made):
        raise ValueError(f"it does not hold {len(made):,} values")


def _refuse(found: int | None, spec: ArraySpec) -> None:
    """Raise where compressed bytes do not say, or say that they are more than the chunk holds."""
    native: Any = spec.dtype.to_native_dtype()
    text = isinstance(native, np.dtypes.StringDType)
    # PCodec never makes its values much larger: a page's header is all that may come on top.
    most = TEXT_BYTES if text else prod(spec.shape) * native.itemsize + (1 << 16)
    if found is None or found > most:
        raise ValueError(f"it expands to {found or 'so many'} bytes, expected at most {most:,}")


def _zstd_size(data: bytes) -> int | None:
    """What the header of the first frame says of its content; None where it says nothing."""
    if data[:4] != _ZSTD or len(data) < 6:
        return None
    said = data[4]
    single, size = said >> 5 & 1, (1 if said >> 5 & 1 else 0, 2, 4, 8)[said >> 6]
    first = 5 + (1 - single) + (0, 1, 2, 4)[said & 3]
    if not size or len(data) < first + size:
        return None
    return int.from_bytes(data[first : first + size], "little") + (256 if size == 2 else 0)


class _Zstd(ZstdCodec):
    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        _refuse(_zstd_size(chunk_bytes[:18].to_bytes()), chunk_spec)
        return await super()._decode_single(chunk_bytes, chunk_spec)


class _Blosc(BloscCodec):
    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        head = chunk_bytes[:16].to_bytes()
        _refuse(struct.unpack_from("<I", head, 4)[0] if len(head) == 16 else None, chunk_spec)
        return await super()._decode_single(chunk_bytes, chunk_spec)


class _Gzip(GzipCodec):
    """Its header says no size, so that it is counted first, a piece at a time."""

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        await asyncio.to_thread(self._count, chunk_bytes.to_bytes(), chunk_spec)
        return await super()._decode_single(chunk_bytes, chunk_spec)

    def _count(self, rest: bytes, spec: ArraySpec) -> None:
        total = 0
        while rest:  # a member after the other
            member = zlib.decompressobj(31)
            while rest and not member.eof:
                total += len(member.decompress(rest, 1 << 20))
                rest = member.unconsumed_tail
                _refuse(total, spec)
            rest = member.unused_data


class _Text(VLenUTF8Codec):
    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        _refuse(len(chunk_bytes), chunk_spec)
        said = int.from_bytes(chunk_bytes[:4].to_bytes(), "little")
        if said != prod(chunk_spec.shape):
            raise ValueError(f"it says {said:,} strings, expected {prod(chunk_spec.shape):,}")
        return await super()._decode_single(chunk_bytes, chunk_spec)


class _PCodec(PCodec, codec_name="pcodec"):
    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        native: Any = chunk_spec.dtype.to_native_dtype()
        made = np.empty(prod(chunk_spec.shape), native)
        await asyncio.to_thread(values_of, chunk_data.to_bytes(), made)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(made.reshape(chunk_spec.shape))


_KEPT: dict[type[Codec], type[Codec]] = {
    ZstdCodec: _Zstd,
    BloscCodec: _Blosc,
    GzipCodec: _Gzip,
    VLenUTF8Codec: _Text,
    PCodec: _PCodec,
}
