"""Spikes as the window cache keeps them, to sums and sums of squares of counts around events."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurostore.kernels._ready import compiled

Ticks = NDArray[np.int64]

_MOST = 2048
"""Spikes of a bin below which the squares of 1,024 counts add up in 32 bits."""
_WHOLE = 32
"""Units that are added up at once."""


def whole(units: int) -> int:
    """Room for so many units, of which no rest is left when they are added up."""
    return max(1, -(-units // _WHOLE)) * _WHOLE


@compiled
def first_spike(events: NDArray[Any], block: Ticks, row: int, offset: int) -> int:
    """The first spike of a block `offset` ticks or more after the block's start."""
    mask = np.uint64(0xFFFF) if events.itemsize == 4 else np.uint64(0xFFFFFFFF)
    low, high = block[row], block[row + 1]
    while low < high:
        middle = (low + high) >> 1
        if np.int64(np.uint64(events[middle]) & mask) < offset:
            low = middle + 1
        else:
            high = middle
    return int(low)


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
    own: NDArray[np.uint32],
    squared: NDArray[np.uint32],
    total: NDArray[np.int64],
    square: NDArray[np.int64],
) -> bool:
    """Add the counts of bins around at most 1,024 events to their sums.

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
    group : (unit,) int64
        Which observed time a unit has.
    seen : (group, event, bin) uint8
        Whether the whole bin is observed time; what is not adds nothing.
    own, squared : (bin, `whole` of units) uint32
        Sums of counts and of their squares; zeros.
    total, square : (bin, unit) int64
        The same of bins that 32 bits do not hold, or that some units were not observed in.

    Returns
    -------
    bool
        Whether there are such bins.
    """
    units, groups, bins, blocks = total.shape[1], len(seen), len(edge) - 1, len(block) - 1
    bits = np.uint64(16) if events.itemsize == 4 else np.uint64(32)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    room, apart, always = own.shape[1], False, bool(seen.all())
    count = np.zeros((4, room), np.uint32)  # of four events: the sums are read and written once
    place, row = np.zeros(4, np.int64), np.zeros(4, np.int64)
    for low in range(0, len(at), 4):
        here = at[low : low + 4]
        for e in range(len(here)):
            tick = here[e] + edge[0] - first
            row[e] = min(max(tick // length, 0), blocks - 1)
            found = first_spike(events, block, row[e], tick - row[e] * length)
            place[e] = min(max(found, ends[0]), ends[1])
        for k in range(bins):
            left = 0  # by bit: events that do not go into the sums of all
            for e in range(len(here)):
                counts, n = count[e], place[e]
                stop = here[e] + edge[k + 1] - first
                while True:
                    last = min(block[row[e] + 1], ends[1])
                    end = np.uint64(min(max(stop - row[e] * length, 0), length))
                    while n + 8 <= last and (np.uint64(events[np.uint64(n + 7)]) & mask) < end:
                        for i in range(n, n + 8):  # in order of time: one test for all of them
                            counts[np.uint64(events[np.uint64(i)]) >> bits] += np.uint32(1)
                        n += 8
                    for i in range(n, min(n + 8, last)):  # no branch that would be guessed
                        event = np.uint64(events[np.uint64(i)])
                        inside = np.uint32((event & mask) < end)
                        counts[event >> bits] += inside
                        n += int(inside)
                    if n < last or stop <= (row[e] + 1) * length or row[e] + 1 == blocks:
                        break
                    row[e] += 1
                together = n - place[e] < _MOST
                place[e] = n
                if not always:
                    for g in range(groups):
                        together = together and seen[g, low + e, k] != 0
                if not together:
                    left |= 1 << e
            if left:
                apart = True
                for e in range(len(here)):
                    for u in range(units if left >> e & 1 else 0):
                        if seen[group[u], low + e, k]:
                            total[k, u] += count[e, u]
                            square[k, u] += np.int64(count[e, u]) * np.int64(count[e, u])
                        count[e, u] = 0
            sums, squares = own[k], squared[k]
            for u in range(room):
                a, b, c, d = count[0, u], count[1, u], count[2, u], count[3, u]
                sums[u] += a + b + c + d
                squares[u] += a * a + b * b + c * c + d * d
                count[0, u], count[1, u], count[2, u], count[3, u] = 0, 0, 0, 0
    return apart
