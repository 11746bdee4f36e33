"""Spikes as the window cache keeps them, to counts and to lists of events.

A spike is one unsigned number: its offset in its block in the low `bits`, the row of its unit above
them. `block` holds the first spike of every block, `first` the first tick of block 0, `length` the
ticks of a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurostore.kernels._ready import compiled

Packed = NDArray[Any]
Ticks = NDArray[np.int64]


@compiled
def pack(
    time: Ticks, unit: NDArray[Any], block: Ticks, first: int, length: int, at: int, out: Packed
) -> bool:
    """Spikes `at`, `at` + 1, ... of a session, packed; False where one is not in its block.

    Parameters
    ----------
    time, unit : (spike,)
        Ticks, ascending; rows of units.
    block : (block + 1,) int64
    out : (spike,) uint32 or uint64
    """
    bits = np.uint64(16) if out.itemsize == 4 else np.uint64(32)
    row = np.searchsorted(block, at, side="right") - 1
    for k in range(len(time)):
        while at + k >= block[row + 1]:
            row += 1
        offset = time[k] - first - row * length
        if offset < 0 or offset >= length:
            return False
        out[k] = np.uint64(offset) | (np.uint64(unit[k]) << bits)
    return True


@compiled
def by_unit(
    events: Packed, block: Ticks, length: int, low: int, high: int, place: Ticks, out: NDArray[Any]
) -> None:
    """Ticks of the spikes [low, high), from the first block's start, one unit behind the other.

    Parameters
    ----------
    place : (unit,) int64
        Where the next spike of every unit goes; moved on.
    out : (spike,)
    """
    bits = np.uint64(16) if events.itemsize == 4 else np.uint64(32)
    low_bits = (np.uint64(1) << bits) - np.uint64(1)
    row = np.searchsorted(block, low, side="right") - 1
    for k in range(low, high):
        while k >= block[row + 1]:
            row += 1
        event = np.uint64(events[k])
        unit = np.int64(event >> bits)
        out[place[unit]] = row * length + np.int64(event & low_bits)
        place[unit] += 1


@compiled
def unverified(
    verified: NDArray[np.uint8],
    base: int,
    size: int,
    segment: int,
    block: Ticks,
    first: int,
    length: int,
    start: Ticks,
    span: int,
) -> int:
    """The first window that has a segment of the file not verified yet; -1 where none has.

    Parameters
    ----------
    base : int
        Byte of the file's data at which the spikes begin, of `size` bytes each.
    segment : int
        Bytes in a segment.
    start : (window,) int64
    """
    blocks = len(block) - 1
    for w in range(len(start)):
        low = min(max((start[w] - first) // length, 0), blocks)
        high = min(max((start[w] + span - 1 - first) // length + 1, 0), blocks)
        if block[low] == block[high]:
            continue
        for k in range(
            (base + block[low] * size) // segment, (base + block[high] * size - 1) // segment + 1
        ):
            if not verified[k]:
                return w
    return -1


@compiled
def count(
    events: Packed,
    block: Ticks,
    first: int,
    length: int,
    start: Ticks,
    edge: Ticks,
    column: NDArray[np.int32],
    place: Ticks,
    out: NDArray[np.int32],
) -> None:
    """Counts of the windows of one session, each into its place of a batch.

    Parameters
    ----------
    start : (window,) int64
        First tick of every window.
    edge : (bin + 1,) int64
        Edges of the bins, from the start of a window; the first is 0.
    column : (unit + 1,) int32
        Place of every row of units along the unit axis, -1 where it is not asked for, and once more
        -1 for what is no unit: nothing that a file says leads out of an array.
    place : (window,) int64
    out : (window of the batch, unit, bin) int32
        Zeros where it is written to.
    """
    bits = 16 if events.itemsize == 4 else 32
    low_bits = np.uint64((1 << bits) - 1)
    last = np.int64(len(column) - 1)
    bins, blocks = len(edge) - 1, len(block) - 1
    for w in range(len(start)):
        made = out[place[w]]
        low = (start[w] - first) // length
        high = (start[w] + edge[bins] - 1 - first) // length + 1
        bin, stop = 0, edge[1]
        for b in range(max(low, 0), min(high, blocks)):
            base = first + b * length - start[w]
            for k in range(block[b], block[b + 1]):
                event = np.uint64(events[k])
                at = base + np.int64(event & low_bits)
                if at >= stop:
                    if at >= edge[bins]:
                        break
                    while at >= edge[bin + 1]:
                        bin += 1
                    stop = edge[bin + 1]
                if at >= 0:
                    row = column[min(np.int64(event >> np.uint64(bits)), last)]
                    if row >= 0:
                        made[row, bin] += 1


@compiled
def before(events: Packed, block: Ticks, first: int, length: int, tick: int) -> int:
    """How many spikes come before a tick: those of a block ascend."""
    low_bits = np.uint64((1 << (16 if events.itemsize == 4 else 32)) - 1)
    blocks = len(block) - 1
    row = (tick - first) // length
    low, high = int(block[min(max(row, 0), blocks)]), int(block[min(max(row + 1, 0), blocks)])
    offset = tick - first - row * length
    while low < high:
        middle = (low + high) // 2
        if np.int64(np.uint64(events[middle]) & low_bits) < offset:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def held(
    events: Packed,
    block: Ticks,
    first: int,
    length: int,
    start: Ticks,
    span: int,
    column: NDArray[np.int32],
    every: bool,
) -> int:
    """The most spikes of the units asked for in any of the windows [start, start + span).

    Parameters
    ----------
    every : bool
        Whether all units are asked for.
    """
    bits = 16 if events.itemsize == 4 else 32
    low_bits = np.uint64((1 << bits) - 1)
    last = np.int64(len(column) - 1)
    blocks = len(block) - 1
    most = 0
    for w in range(len(start)):
        if every:
            ahead = before(events, block, first, length, start[w])
            most = max(most, before(events, block, first, length, start[w] + span) - ahead)
            continue
        low = max((start[w] - first) // length, 0)
        high = min((start[w] + span - 1 - first) // length + 1, blocks)
        number = 0
        for b in range(low, high):
            base = first + b * length - start[w]
            for k in range(block[b], block[b + 1]):
                event = np.uint64(events[k])
                at = base + np.int64(event & low_bits)
                if at >= span:
                    break
                if at >= 0 and column[min(np.int64(event >> np.uint64(bits)), last)] >= 0:
                    number += 1
        most = max(most, number)
    return most


@compiled
def as_product(span: int, above: float, below: float) -> bool:
    """Whether t * (below / above) is t * below / above in float32, of every tick t below `span`.

    In float64 the two differ by their last bits, so float32 tells them apart only where one of its
    midpoints lies that near. Those are odd numbers of 25 bits over powers of two: t * below is too
    small to be at one, and `above` too small to come that near to one.
    """
    return span * below < 2**24 and above < 2**26


@compiled
def listed(
    events: Packed,
    block: Ticks,
    first: int,
    length: int,
    start: Ticks,
    span: int,
    column: NDArray[np.int32],
    every: bool,
    above: float,
    below: float,
    place: Ticks,
    time: NDArray[np.float32],
    unit: NDArray[np.int64],
    reason: NDArray[np.uint8],
    padding: int,
) -> None:
    """The spikes of each window [start, start + span) as a list, into its place of a batch.

    Parameters
    ----------
    above, below : float
        The clock's rate, as `above` / `below`.
    time, unit, reason : (window of the batch, event)
        Seconds from the window's start, place along the unit axis, 0; after the last spike 0, 0,
        `padding`.
    """
    bits = 16 if events.itemsize == 4 else 32
    low_bits = np.uint64((1 << bits) - 1)
    last = np.int64(len(column) - 1)
    blocks = len(block) - 1
    product, inverse = as_product(span, above, below), below / above
    for w in range(len(start)):
        times, units, why = time[place[w]], unit[place[w]], reason[place[w]]
        low = max((start[w] - first) // length, 0)
        high = min((start[w] + span - 1 - first) // length + 1, blocks)
        made = begin = end = 0
        if every:
            begin = before(events, block, first, length, start[w])
            end = before(events, block, first, length, start[w] + span)
        for b in range(low, high):
            base = first + b * length - start[w]
            if every:  # no branch for each spike, so vectorised
                own = events[max(block[b], begin) : min(block[b + 1], end)]
                stop = made + len(own)
                seconds, rows, clear = times[made:stop], units[made:stop], why[made:stop]
                for k in range(len(own)):
                    event = np.uint64(own[k])
                    at = base + np.int64(event & low_bits)
                    seconds[k] = np.float32(at * inverse if product else at * below / above)
                    rows[k] = column[min(np.int64(event >> np.uint64(bits)), last)]
                    clear[k] = 0
                made = stop
                continue
            for k in range(block[b], block[b + 1]):
                event = np.uint64(events[k])
                at = base + np.int64(event & low_bits)
                if at >= span:
                    break
                row = column[min(np.int64(event >> np.uint64(bits)), last)]
                if at >= 0 and row >= 0:
                    times[made] = np.float32(at * below / above)
                    units[made] = row
                    why[made] = 0
                    made += 1
        times[made:], units[made:], why[made:] = 0.0, 0, padding


@compiled
def whole(starts: Ticks, stops: Ticks, pointer: Ticks, start: Ticks, span: int) -> bool:
    """Whether every window [start, start + span) lies in one interval of each of several sets.

    Parameters
    ----------
    starts, stops : (interval,) int64
        The sets behind one another, each sorted and disjoint.
    pointer : (set + 1,) int64
        Where each begins.
    """
    for w in range(len(start)):
        for one in range(len(pointer) - 1):
            own = starts[pointer[one] : pointer[one + 1]]
            row = np.searchsorted(own, start[w], side="right") - 1
            if row < 0 or stops[pointer[one] + row] < start[w] + span:
                return False
    return True


@compiled
def held_whole(
    starts: Ticks,
    stops: Ticks,
    pointer: Ticks,
    events: Packed,
    block: Ticks,
    first: int,
    length: int,
    start: Ticks,
    span: int,
    column: NDArray[np.int32],
    every: bool,
) -> int:
    """As `held`; -1 where the windows are not `whole`."""
    if not whole(starts, stops, pointer, start, span):
        return -1
    return held(events, block, first, length, start, span, column, every)
