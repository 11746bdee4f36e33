"""Checksums of the window cache, over whole files without the GIL."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neurostore.kernels._ready import compiled

_POLYNOMIAL = 0xEDB88320
"""Of CRC-32 as in zlib, reflected (ISO 3309)."""


def _tables() -> NDArray[np.uint32]:
    """Eight tables (8, 256): what a byte does to a sum, with 0 to 7 zero bytes behind it."""
    made = np.zeros((8, 256), dtype=np.uint32)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        made[0, byte] = value
    for k in range(1, 8):
        made[k] = (made[k - 1] >> 8) ^ made[0][made[k - 1] & 255]
    return made


TABLES = _tables()


@compiled
def crc32(data: NDArray[np.uint8], tables: NDArray[np.uint32]) -> np.int64:
    """The CRC-32 of bytes (n,), eight at a time (Kounavis & Berry 2005)."""
    value, k = np.uint32(0xFFFFFFFF), 0
    eight = np.uint32(8)
    low = np.uint32(255)
    while k + 8 <= len(data):
        value ^= (
            np.uint32(data[k])
            | (np.uint32(data[k + 1]) << eight)
            | (np.uint32(data[k + 2]) << np.uint32(16))
            | (np.uint32(data[k + 3]) << np.uint32(24))
        )
        value = (
            tables[7, value & low]
            ^ tables[6, (value >> eight) & low]
            ^ tables[5, (value >> np.uint32(16)) & low]
            ^ tables[4, value >> np.uint32(24)]
            ^ tables[3, data[k + 4]]
            ^ tables[2, data[k + 5]]
            ^ tables[1, data[k + 6]]
            ^ tables[0, data[k + 7]]
        )
        k += 8
    while k < len(data):
        value = tables[0, (value ^ np.uint32(data[k])) & low] ^ (value >> eight)
        k += 1
    return np.int64(value ^ np.uint32(0xFFFFFFFF))


@compiled
def verify(
    data: NDArray[np.uint8],
    segment: int,
    sums: NDArray[np.uint32],
    verified: NDArray[np.uint8],
    tables: NDArray[np.uint32],
) -> None:
    """Mark the segments of a file's data that are what was written; the others stay as they are.

    Parameters
    ----------
    data : (byte,) uint8
    segment : int
        Bytes in a segment.
    sums : (segment,) uint32
    verified : (segment,) uint8
    """
    for k in range(len(sums)):
        if not verified[k]:
            own = data[k * segment : (k + 1) * segment]
            if crc32(own, tables) == sums[k]:
                verified[k] = 1
