"""`Writer`: the arrays of an entry while they are filled, on disk space that is already theirs."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurostore.cache import _format
from neurostore.cache._format import Header
from neurostore.errors import StoreError

_THREADS = min(4, os.cpu_count() or 1)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNABLE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""What a file system says that cannot reserve space: zeros are written instead."""


class FullError(StoreError):
    """The disk has no room for an entry."""


@dataclass(frozen=True, eq=False)
class Writer:
    """What fills an entry.

    Attributes
    ----------
    arrays : mapping of str to ndarray
        Views of the file, to be filled chunk by chunk, by threads if need be.
    """

    arrays: Mapping[str, NDArray[Any]]
    _header: Header
    _map: mmap.mmap
    _file: int

    @classmethod
    def start(cls, path: Path, file: int, header: Header) -> Writer:
        """On an open, empty file.

        Raises
        ------
        FullError
            Where the disk has no room for all of it.
        """
        size = header.start + header.size
        reserve(path, file, size)
        mapped = mmap.mmap(file, size)
        arrays = {name: place.view(mapped, header.start) for name, place in header.places.items()}
        return cls(arrays, header, mapped, file)

    def finish(self) -> None:
        """Compute the checksums, write what stands in front, and wait for the disk.

        A small one is not waited for: should a crash of the system lose it, its checksums tell.
        """
        data = memoryview(self._map)[self._header.start :]
        with ThreadPoolExecutor(_THREADS) as threads:  # crc32 runs without Python's lock
            sums = threads.map(
                lambda segment: _format.checksum(data, segment), range(self._header.segments)
            )
            front = self._header.front(np.fromiter(sums, np.uint32, self._header.segments))
        self._map[: len(front)] = front
        if len(self._map) > _format.SMALL:
            self._map.flush()
            os.fsync(self._file)


def reserve(path: Path, file: int, size: int) -> None:
    """Take disk space for a file, so that writing to its map cannot fail.

    Raises
    ------
    FullError
        Where there is not enough.
    """
    try:
        os.ftruncate(file, 0)
        _take(file, size)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        os.ftruncate(file, 0)
        status = os.statvfs(path.parent)
        raise FullError(
            f"The disk of {path.parent} is full: an entry of the window cache needs {size:,} "
            f"bytes, {status.f_bavail * status.f_frsize:,} are free ({error.strerror}). Make room, "
            "or set $NEUROSTORE_CACHE to a folder on another disk, or to 'off'."
        ) from error


def _take(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in _UNABLE:
                raise
        else:
            return
    zeros = bytes(1 << 20)
    for first in range(0, size, len(zeros)):
        os.pwrite(file, zeros[: size - first], first)
