"""Decoded chunks of spikes that are read directly: kept within one bound for the whole process."""

from __future__ import annotations

import itertools
import weakref
from collections import OrderedDict
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

BOUND = 256 << 20
"""Bytes that the chunks of all sessions of a process take together."""

Key = tuple[str, int]
"""Column and number of a chunk."""

_kept: OrderedDict[tuple[int, Key], NDArray[Any]] = OrderedDict()
"""The chunk used longest ago first, by session and key."""
_size = 0
_lock = RLock()  # a session may be collected, and let go of its chunks, while a thread has it
_numbers = itertools.count()


class Chunks:
    """The decoded chunks of one session; where all take too much, those used longest ago go."""

    def __init__(self) -> None:
        self._number = next(_numbers)
        self._keys: set[Key] = set()
        weakref.finalize(self, _forget, self._number, self._keys).atexit = False

    def get(self, key: Key, values: Any, rows: slice) -> NDArray[Any]:
        """A chunk: these rows of its column, decoded where they are not at hand."""
        with _lock:
            found = _kept.get((self._number, key))
            if found is not None:
                _kept.move_to_end((self._number, key))
                return found
        return self._keep(key, np.asarray(values[rows]))  # several threads decode at once

    def _keep(self, key: Key, chunk: NDArray[Any]) -> NDArray[Any]:
        global _size
        with _lock:
            found = _kept.setdefault((self._number, key), chunk)
            if found is chunk:
                self._keys.add(key)
                _size += chunk.nbytes
            while _size > BOUND and len(_kept) > 1:  # the last one is in use anyway
                _size -= _kept.popitem(last=False)[1].nbytes
        return found


def _forget(number: int, keys: set[Key]) -> None:
    global _size
    with _lock:
        for key in keys:
            chunk = _kept.pop((number, key), None)
            _size -= 0 if chunk is None else chunk.nbytes
