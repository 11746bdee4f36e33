"""How an entry lies on disk: one file of arrays, every byte of them under a checksum.

``magic (8) | header length (8) | crc32 of the header (4) | crc32 of the table of checksums (4) |
header (JSON) | padding | crc32 of every segment (4 each) | padding | data``, little-endian. The
data begins at a multiple of a page, as does every array in it; a segment is 64 KiB of the data.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import JSON, DamagedError

FORMAT = 1
MAGIC = b"nscache\x01"
PAGE = 4096
SEGMENT = 1 << 16
"""Bytes of data under one checksum."""
SMALL = 1 << 16
"""Bytes up to which a file is read into memory, and verified, whole."""
_FIXED = struct.Struct("<8sQII")
_KINDS = "biuf"

Shapes = Mapping[str, tuple[Any, tuple[int, ...]]]
"""Arrays by name: dtype and shape."""


@dataclass(frozen=True)
class Place:
    """Where an array lies: its first byte counts from the start of the data."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of all its values."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def row(self) -> int:
        """Bytes of one row."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    def view(self, content: mmap.mmap | bytes, start: int) -> NDArray[Any]:
        """The array in a file, mapped or in memory, whose data begins at `start`."""
        if not self.nbytes:
            return np.zeros(self.shape, self.dtype)
        count = self.nbytes // self.dtype.itemsize
        return np.frombuffer(content, self.dtype, count, start + self.offset).reshape(self.shape)


@dataclass(frozen=True)
class Header:
    """What stands in front of the data.

    Attributes
    ----------
    key : str
        What the entry is kept under.
    meta : JSON
        Whatever its maker said of it.
    places : mapping of str to Place
    """

    key: str
    meta: Mapping[str, JSON]
    places: Mapping[str, Place]

    @classmethod
    def of(cls, key: str, arrays: Shapes, meta: Mapping[str, JSON]) -> Header:
        """With the arrays laid out one after the other, each at the start of a page."""
        places, offset = {}, 0
        for name, (dtype, shape) in arrays.items():
            kind = np.dtype(dtype)
            if kind.kind not in _KINDS:
                raise TypeError(f"An entry holds numbers and bools, {name!r} is {kind}.")
            places[name] = Place(kind.newbyteorder("<"), tuple(map(int, shape)), offset)
            offset = up(offset + places[name].nbytes, PAGE)
        return cls(key, meta, places)

    @property
    def size(self) -> int:
        """Bytes of the data, padding included."""
        return max((up(one.offset + one.nbytes, PAGE) for one in self.places.values()), default=0)

    @property
    def segments(self) -> int:
        """Segments of the data; the last one may be short."""
        return -(-self.size // SEGMENT)

    @property
    def text(self) -> bytes:
        """As it stands in the file."""
        arrays = {
            name: {
                "dtype": place.dtype.str,
                "shape": list(place.shape),
                "offset": place.offset,
                "nbytes": place.nbytes,
            }
            for name, place in self.places.items()
        }
        said = {"format": FORMAT, "key": self.key, "meta": self.meta, "arrays": arrays}
        return json.dumps(said, ensure_ascii=True).encode()

    @property
    def start(self) -> int:
        """Where the data begins in the file."""
        return up(_sums_at(len(self.text)) + 4 * self.segments, PAGE)

    def front(self, sums: NDArray[np.uint32]) -> bytes:
        """All that stands in front of the data, given the checksums of its segments."""
        text, table = self.text, sums.astype("<u4").tobytes()
        fixed = _FIXED.pack(MAGIC, len(text), zlib.crc32(text), zlib.crc32(table))
        return (fixed + text).ljust(_sums_at(len(text)), b"\0") + table


def read(path: Path, mapped: memoryview) -> tuple[Header, NDArray[np.uint32]]:
    """The header of a file and the checksums of its segments.

    Raises
    ------
    DamagedError
        Where they are not what was written, or the file is not as long as they say.
    """
    if len(mapped) < _FIXED.size or bytes(mapped[:8]) != MAGIC:
        raise DamagedError(f"{path} is no entry of a window cache of format {FORMAT}.")
    _, length, head, table = _FIXED.unpack(mapped[: _FIXED.size])
    text = bytes(mapped[_FIXED.size : _FIXED.size + length])
    if len(text) != length or zlib.crc32(text) != head:
        raise DamagedError(f"The header of {path} is not what was written.")
    header = _parse(json.loads(text))
    first = _sums_at(length)
    sums = mapped[first : first + 4 * header.segments]
    if zlib.crc32(sums) != table or len(sums) != 4 * header.segments:
        raise DamagedError(f"The table of checksums of {path} is not what was written.")
    if len(mapped) != header.start + header.size:
        raise DamagedError(
            f"{path} has {len(mapped):,} bytes, {header.start + header.size:,} were written."
        )
    return header, np.frombuffer(bytes(sums), dtype="<u4")


def _parse(said: Mapping[str, Any]) -> Header:
    places = {
        name: Place(np.dtype(one["dtype"]), tuple(one["shape"]), one["offset"])
        for name, one in said["arrays"].items()
    }
    return Header(said["key"], said["meta"], places)


def checksum(data: memoryview, segment: int) -> int:
    """crc32 of a segment of the data."""
    return zlib.crc32(data[segment * SEGMENT : (segment + 1) * SEGMENT])


def up(value: int, to: int) -> int:
    """The least multiple of `to` that is not below the value."""
    return -(-value // to) * to


def _sums_at(length: int) -> int:
    return up(_FIXED.size + length, 8)


def sync_folder(folder: Path) -> None:
    """Write a folder's names to the disk."""
    held = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)
