"""Spikes as the window cache keeps them, to sums and sums of squares of counts around events."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurostore.kernels._ready import compiled

Ticks = NDArray[np.int64]

_TOGETHER = 32
_MOST = 4096
"""Spikes of a bin up to which the squares of `_TOGETHER` counts add up in 32 bits."""


@compiled
def find_edges(
    events: NDArray[Any],
    block: Ticks,
    first: int,
    length: int,
    at: Ticks,
    edge: Ticks,
    ends: Ticks,
    out: Ticks,
) -> None:
    """The first spike at or after every edge of a bin around events, by the index of blocks.

    Parameters
    ----------
    events, block, first, length
        As `neurostore.cache.Packed` has them.
    at : (event,) int64
        Ticks of the events.
    edge : (bin + 1,) int64
        Ticks from the event, ascending.
    ends : (2,) int64
        First spike that counts and the one after the last.
    out : (event, bin + 1) int64
    """
    blocks = len(block) - 1
    bits = np.uint64(16) if events.itemsize == 4 else np.uint64(32)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    for e in range(len(at)):
        for k in range(len(edge)):
            tick = at[e] + edge[k] - first
            number = tick // length
            if number < 0:
                low = np.int64(0)
            elif number >= blocks:
                low = block[blocks]
            else:
                low, high = block[number], block[number + 1]
                offset = np.uint64(tick - number * length)
                # Spikes of a block lie about evenly, so that the guess is off by a few.
                guess = low + np.int64(offset) * (high - low) // length
                while guess < high and (np.uint64(events[guess]) & mask) < offset:
                    guess += 1
                while guess > low and (np.uint64(events[guess - 1]) & mask) >= offset:
                    guess -= 1
                low = guess
            out[e, k] = min(max(low, ends[0]), ends[1])


@compiled
def add_counts(
    events: NDArray[Any],
    where: Ticks,
    group: Ticks,
    seen: NDArray[np.uint8],
    count: NDArray[np.uint32],
    total: NDArray[np.int64],
    square: NDArray[np.int64],
) -> None:
    """Add the counts of bins around some events to their sums; bins outermost, for the caches.

    Parameters
    ----------
    where : (event, bin + 1) int64
        First spike of every bin, as `find_edges` gives it.
    group : (unit,) int64
        Which observed time a unit has.
    seen : (group, event, bin) uint8
        Whether the whole bin is observed time; what is not adds nothing.
    count : (unit,) uint32
        Zeros, and zeros again after it.
    total, square : (bin, unit) int64
        Sums of counts and of their squares.
    """
    units, groups = len(count), len(seen)
    bits = np.uint64(16) if events.itemsize == 4 else np.uint64(32)
    own, squared = np.zeros(units, np.uint32), np.zeros(units, np.uint32)
    for k in range(where.shape[1] - 1):
        own[:], squared[:] = 0, 0
        for e in range(len(where)):
            begin, end = where[e, k], where[e, k + 1]
            known = True
            for g in range(groups):
                known = known and seen[g, e, k] != 0
            if known and end - begin < _MOST and (end - begin) * 8 > units:
                for i in range(begin, end):
                    count[np.uint64(events[i]) >> bits] += np.uint32(1)
                for u in range(units):
                    c = count[u]
                    own[u] += c
                    squared[u] += c * c
                    count[u] = 0
                continue
            for i in range(begin, end):
                unit = np.uint64(events[i]) >> bits
                if known or seen[group[unit], e, k]:
                    c = np.int64(count[unit])
                    count[unit] = np.uint32(c + 1)
                    total[k, unit] += 1
                    square[k, unit] += 2 * c + 1  # (c + 1)² less c²
            for i in range(begin, end):
                count[np.uint64(events[i]) >> bits] = 0
        for u in range(units):
            total[k, u] += own[u]
            square[k, u] += squared[u]


@compiled
def add_events(
    events: NDArray[Any],
    block: Ticks,
    first: int,
    length: int,
    at: Ticks,
    edge: Ticks,
    ends: Ticks,
    group: Ticks,
    seen: NDArray[np.uint8],
    total: NDArray[np.int64],
    square: NDArray[np.int64],
) -> None:
    """`find_edges` and `add_counts`, a few events at a time: their spikes stay in the cache."""
    count = np.zeros(total.shape[1], dtype=np.uint32)
    where = np.empty((_TOGETHER, len(edge)), dtype=np.int64)
    for low in range(0, len(at), _TOGETHER):
        high = min(low + _TOGETHER, len(at))
        some = where[: high - low]
        find_edges(events, block, first, length, at[low:high], edge, ends, some)
        add_counts(events, some, group, seen[:, low:high], count, total, square)
