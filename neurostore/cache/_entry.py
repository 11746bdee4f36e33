"""`Entry`: an open file of the cache, whose bytes are held against their checksums on first touch.

A large file is mapped, and its map keeps a duplicate of the file descriptor, with it a shared lock:
as long as any array of the entry lives, in any process, the file is not evicted. A small one is
read into memory and closed, so that it may go, and hundreds of sessions take no descriptors.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurostore.cache import _format
from neurostore.cache._descriptors import mapped, opened
from neurostore.cache._format import PAGE, SEGMENT, SMALL, Header
from neurostore.errors import JSON, DamagedError

if sys.platform != "win32":  # where there is no cache
    import fcntl

WHOLE = 1 << 20
"""Bytes below which an array is verified when its entry is opened."""
_NOT_AS_SAID = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True, eq=False)
class Entry:
    """Arrays in a file, mapped or in memory, read only.

    It pickles as its path and is opened again where it is unpickled; a small one as its bytes.

    Attributes
    ----------
    path : Path
    fixed : bool
        Whether the file is not the cache's own: it has no lock, and stays where it is damaged.
    arrays : mapping of str to ndarray
        Views of the file; call `check` before rows of a large one are read.
    verified : (segment,) uint8
        1 where this process has found the segment to be what was written. A segment is 64 KiB
        of the data; an array begins at the byte `offset` gives.
    """

    path: Path
    arrays: Mapping[str, NDArray[Any]] = field(repr=False)
    verified: NDArray[np.uint8] = field(repr=False)
    _header: Header = field(repr=False)
    _sums: NDArray[np.uint32] = field(repr=False)
    _map: mmap.mmap | bytes = field(repr=False)
    _inode: int = field(repr=False)
    fixed: bool = False
    _wrong: list[str] = field(default_factory=list, repr=False)

    @classmethod
    def open(cls, path: Path, fixed: bool = False, key: str = "") -> Entry:
        """The entry in a file, a large one locked unless fixed; its small arrays are verified.

        Raises
        ------
        FileNotFoundError
        DamagedError
            Where header, length or a small array are not what was written, or it is the entry of
            another key than the one that is asked for.
        OpenFilesError
            Where the process may open no more files.
        """
        while True:
            held = opened(path, os.O_RDONLY)
            try:
                if not fixed:
                    fcntl.flock(held, fcntl.LOCK_SH)
                if fixed or same_file(path, held):  # else it was removed while we waited
                    inode = os.fstat(held).st_ino
                    try:
                        made = cls._of(path, _content(path, held), inode, fixed)
                        if key not in ("", made.key):
                            raise DamagedError(f"{path} is the entry of {made.key!r:.200}.")
                        return made
                    except DamagedError:
                        if not fixed:
                            remove(path, inode)
                        raise
            finally:
                os.close(held)

    @classmethod
    def _of(cls, path: Path, content: mmap.mmap | bytes, inode: int, fixed: bool) -> Entry:
        try:
            header, sums = _format.read(path, memoryview(content))
            places = header.places.items()
            arrays = {name: place.view(content, header.start) for name, place in places}
        except _NOT_AS_SAID as error:
            raise DamagedError(f"{path} does not lie as its format says: {error!r}.") from error
        verified = np.zeros(header.segments, dtype=np.uint8)
        entry = cls(path, arrays, verified, header, sums, content, inode, fixed)
        for name, place in header.places.items():
            if place.nbytes < WHOLE:
                entry.check(name)
        return entry

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self._map, bytes):  # whose file may be gone
            return Entry._of, (self.path, self._map, self._inode, self.fixed)
        return Entry.open, (self.path, self.fixed)

    @property
    def key(self) -> str:
        """What it is kept under."""
        return self._header.key

    @property
    def meta(self) -> Mapping[str, JSON]:
        """Whatever its maker said of it."""
        return self._header.meta

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._header.start + self._header.size

    @property
    def damaged(self) -> bool:
        """Whether damage was found in it since it was opened."""
        return bool(self._wrong)

    def offset(self, name: str) -> int:
        """The first byte of an array, from the start of the data (segment 0)."""
        return self._header.places[name].offset

    def check(self, name: str, first: int = 0, stop: int | None = None) -> None:
        """Hold rows [first, stop) of an array against their checksums, once in a process.

        Raises
        ------
        DamagedError
            With file, array and segment; the file is removed, so that it is built anew.
        """
        place = self._header.places[name]
        stop = place.shape[0] if stop is None else min(stop, place.shape[0])
        if stop <= first or not place.row:
            return
        low = (place.offset + max(first, 0) * place.row) // SEGMENT
        high = (place.offset + stop * place.row - 1) // SEGMENT + 1
        if not self.verified[low:high].all():
            self._verify(name, low + np.flatnonzero(self.verified[low:high] == 0))

    def check_rows(self, name: str, rows: NDArray[np.integer[Any]]) -> None:
        """As `check`, for rows (n,) anywhere in the array."""
        length = self._header.places[name].shape[0]
        at = np.where(rows < 0, rows + length, rows).astype(np.int64)
        at = at[(at >= 0) & (at < length)]  # numpy refuses the others itself
        self.check_ranges(name, at, at + 1)

    def check_ranges(self, name: str, first: NDArray[np.int64], stop: NDArray[np.int64]) -> None:
        """As `check`, for several ranges of rows (range,); all are asked of the disk at once."""
        place, some = self._header.places[name], stop > first
        if not some.any() or not place.row:
            return
        low = (place.offset + first[some] * place.row) // SEGMENT
        high = (place.offset + stop[some] * place.row - 1) // SEGMENT
        touched = np.zeros(len(self.verified) + 1, dtype=np.int64)
        np.add.at(touched, low, 1)
        np.add.at(touched, high + 1, -1)
        cold = np.flatnonzero((np.cumsum(touched[:-1]) > 0) & (self.verified == 0))
        if cold.size:
            self._verify(name, cold)

    def _verify(self, name: str, cold: NDArray[np.int64]) -> None:
        data = memoryview(self._map)[self._header.start :]
        self._will_need(cold)  # plain page faults are ten times slower
        for segment in cold.tolist():
            if _format.checksum(data, segment) != self._sums[segment]:
                self._damaged(name, segment)
            self.verified[segment] = 1

    def verify_piece(self, first: int, count: int) -> bool:
        """Verify some segments from one on, without the GIL; whether there are more behind them.

        What is not what was written stays unverified, and is found where it is read.
        """
        from neurostore.kernels import _sums

        begin, stop = first * SEGMENT, min((first + count) * SEGMENT, self._header.size)
        data = np.frombuffer(self._map, np.uint8, stop - begin, self._header.start + begin)
        some = slice(first, first + count)
        _sums.verify(data, SEGMENT, self._sums[some], self.verified[some], _sums.TABLES)
        return stop < self._header.size

    def _will_need(self, cold: NDArray[np.int64]) -> None:
        if isinstance(self._map, bytes) or not hasattr(mmap, "MADV_WILLNEED"):
            return
        for run in np.split(cold, np.flatnonzero(np.diff(cold) > 1) + 1):
            first = self._header.start + int(run[0]) * SEGMENT
            length = min(len(run) * SEGMENT, len(self._map) - first)
            self._map.madvise(mmap.MADV_WILLNEED, first // PAGE * PAGE, length)

    def _damaged(self, name: str, segment: int) -> None:
        said = (
            f"Segment {segment} of {self.path}, in the array {name!r}, is not what was written: "
            "its checksum differs. "
        )
        if self.fixed:
            raise DamagedError(said + "Copy the file again from where it was made.")
        said += "The file was taken out of the cache; read again, and it is built anew from the "
        said += "store."
        self._wrong.append(said)
        remove(self.path, self._inode)
        raise DamagedError(said)


@dataclass(frozen=True, eq=False)
class Checked:
    """An array of an entry as the values of a column: what is read of it is verified first.

    It reads by slices of any axis and by integer arrays, each axis on its own.
    """

    entry: Entry
    name: str

    @property
    def array(self) -> NDArray[Any]:
        """The whole of it, unverified; see `Entry.check`."""
        return self.entry.arrays[self.name]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every dimension."""
        return self.array.shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.array.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of one value."""
        return self.array.dtype

    def __len__(self) -> int:
        return len(self.array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        self.entry.check(self.name)
        return np.array(self.array, dtype=dtype, copy=bool(copy) or None)

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        if not keys or keys[0] is Ellipsis or keys[0] is None:
            self.entry.check(self.name)
            return self.array[key]
        self._check(keys[0])
        values = self.array[keys[0]]
        axis = 0 if np.ndim(keys[0]) == 0 and not isinstance(keys[0], slice) else 1
        for k, one in enumerate(keys[1:]):
            values = values[(*(slice(None),) * (axis + k), one)]
            axis -= np.ndim(one) == 0 and not isinstance(one, slice)
        return values

    def _check(self, rows: Any) -> None:
        length = len(self)
        if isinstance(rows, slice):
            taken = range(length)[rows]
            ends = (taken[0], taken[-1]) if taken else (0, -1)
            self.entry.check(self.name, min(ends), max(ends) + 1)
            return
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        self.entry.check_rows(self.name, chosen.ravel())


def _content(path: Path, held: int) -> mmap.mmap | bytes:
    """What lies in a file: small ones in memory."""
    size = os.fstat(held).st_size
    if not size:
        raise DamagedError(f"{path} is empty.")
    if size <= SMALL:
        return os.pread(held, size, 0)
    return mapped(path, held)


def same_file(path: Path, held: int) -> bool:
    """Whether an open file is still what its path names."""
    try:
        return os.stat(path).st_ino == os.fstat(held).st_ino
    except FileNotFoundError:
        return False


def remove(path: Path, inode: int) -> None:
    """Take a damaged file away, unless another has come in its place or the folder is read only."""
    try:
        if os.stat(path).st_ino == inode:
            path.unlink()
    except OSError:
        return  # what was found is said by the caller either way
