"""Decoded chunks of spikes that are read directly: kept within one bound for the whole process."""

from __future__ import annotations

import itertools
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from neurostore.store.layout import StoredArray

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
    """The decoded chunks of one session; where all take too much, those used longest ago go.

    A chunk is kept from the second time on that it is asked for: to touch new memory costs as much
    as to decode.
    """

    def __init__(self) -> None:
        self._number = next(_numbers)
        self._keys: set[Key] = set()
        self._asked: set[Key] = set()
        weakref.finalize(self, _forget, self._number, self._keys).atexit = False

    def get(
        self, columns: Mapping[str, StoredArray], ranges: Sequence[tuple[int, int]]
    ) -> list[list[NDArray[Any]]]:
        """Rows [first, stop) of each column, one array a range.

        All chunks of all columns that are not at hand are asked for together.
        """
        from neurostore.store import layout

        found: list[list[list[NDArray[Any]]]] = [[[] for _ in ranges] for _ in columns]
        wanted: dict[Key, list[tuple[list[NDArray[Any]], slice]]] = {}
        for parts, (column, values) in zip(found, columns.items(), strict=True):
            rows = values.chunks[0]
            for some, (first, stop) in zip(parts, ranges, strict=True):
                for number in range(first // rows, -(-stop // rows)):
                    cut = slice(max(first - number * rows, 0), stop - number * rows)
                    wanted.setdefault((column, number), []).append((some, cut))
        known: dict[Key, NDArray[Any]] = {}
        again: set[Key] = set()
        with _lock:
            for key in wanted:
                if (self._number, key) in _kept:
                    _kept.move_to_end((self._number, key))
                    known[key] = _kept[self._number, key]
                elif key in self._asked:
                    again.add(key)
                self._asked.add(key)
        missing = sorted(wanted.keys() - known.keys())

        def own(key: Key, chunk: NDArray[Any]) -> list[NDArray[Any]]:
            kept = key in known
            if key in again:
                kept, chunk = True, self._keep(key, chunk)
            mine = [chunk[some] for _, some in wanted[key]]
            return mine if kept else [part.copy() for part in mine]

        chunks = [(columns[column], number) for column, number in missing]
        parts_of = layout.keep_chunks(chunks, lambda place, chunk: own(missing[place], chunk))
        made = dict(zip(missing, parts_of, strict=True))
        made |= {key: own(key, chunk) for key, chunk in known.items()}
        for key in sorted(wanted):
            for (into, _), part in zip(wanted[key], made[key], strict=True):
                into.append(part)
        return [
            [_joined(parts, values.dtype) for parts in of]
            for of, values in zip(found, columns.values(), strict=True)
        ]

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


def _joined(parts: list[NDArray[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
