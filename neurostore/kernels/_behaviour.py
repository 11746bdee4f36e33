"""Samples of a series at the ticks of windows, straight into a batch."""

from __future__ import annotations

from functools import partial

import numpy as np
from numba import types
from numpy.typing import NDArray

from neurostore.kernels._ready import compiled

_FAR = 2**62

_ticks = types.Array(types.int64, 1, "C", readonly=True)
_three = types.UniTuple(types.int64, 3)  # type: ignore[no-untyped-call]
_two = types.UniTuple(types.uint8, 2)  # type: ignore[no-untyped-call]
_out = types.Array(types.float32, 3, "C")
_why = types.Array(types.uint8, 2, "C")
_TAKES = [
    types.void(
        types.Array(kind, 2, "C", readonly=True),
        *(_ticks, _three, *[_ticks] * 7),
        *(types.int64, types.int64, types.int64, types.boolean, _two),
        *(_out, _why),
    )
    for kind in (types.float32, types.float64)
]


@partial(compiled, takes=types.int64(_ticks, types.int64, types.int64))
def _last(ordered: NDArray[np.int64], tick: int, known: int) -> int:
    """Row of the last one at or before a tick, from a row on that is known to be; -1 for none."""
    count, low, step = len(ordered), known, 1
    high = low + 1
    while high < count and ordered[high] <= tick:
        low, step = high, 2 * step
        high = low + step
    high = min(high, count)
    while high - low > 1:
        middle = (low + high) // 2
        if ordered[middle] <= tick:
            low = middle
        else:
            high = middle
    return low


@partial(compiled, takes=types.int64(_three, types.int64))
def _when(grid: tuple[int, int, int], row: int) -> int:
    first, above, below = grid
    return first + row * above if below == 1 else first + row * above // below


@partial(compiled, takes=_TAKES, error_model="numpy")
def interpolate(
    value: NDArray[np.floating],
    time: NDArray[np.int64],
    grid: tuple[int, int, int],
    lost_start: NDArray[np.int64],
    lost_stop: NDArray[np.int64],
    place: NDArray[np.int64],
    start: NDArray[np.int64],
    since: NDArray[np.int64],
    until: NDArray[np.int64],
    offset: NDArray[np.int64],
    past: int,
    present: int,
    max_gap: int,
    causal: bool,
    reasons: tuple[int, int],
    out: NDArray[np.float32],
    why: NDArray[np.uint8],
) -> None:
    """What `Series.at` says, for the windows of one session; the same to the bit.

    Parameters
    ----------
    value : (sample, channel) float32 or float64
    time : (sample,) int64
        Ticks of the samples; empty where they lie on `grid`: first + row · above // below.
    lost_start, lost_stop : (run,) int64
        Rows [start, stop) that are not valid.
    place, start : (window,) int64
        Rows of the batch to write to, and first ticks.
    since, until : (window,) int64
        Ticks [since, until) outside of which no sample counts; empty where all do.
    offset : (time,) int64
        Ticks of the samples of a window from its start; the first `past` of them know nothing that
        was recorded `present` ticks after it or later.
    reasons : (outside, invalid)
    out, why : (batch, time, channel) float32 and (batch, time) uint8
        Written to where `place` says.
    """
    outside, invalid = reasons
    regular, samples, channels = len(time) == 0, *value.shape
    first, above, below = grid
    end = _when(grid, samples - 1)
    for window in range(len(start)):
        row, left, run, run_next = place[window], -1, -1, -1
        begin, end_known = -_FAR, _FAR
        if len(since):
            begin, end_known = since[window], until[window]
        for at in range(len(offset)):
            tick = start[window] + offset[at]
            before = tick + 1 if causal else _FAR
            if not causal and at < past:
                before = start[window] + present
            # The recorded samples on both sides: the last one at or before, and from there on.
            if not regular:
                left = _last(time, tick, left)
                left_tick = time[left] if left >= 0 else 0
            elif samples == 0 or tick < first:
                left, left_tick = -1, 0
            else:
                ahead = min(tick, end) - first + 1
                left = (ahead - 1) // above if below == 1 else (ahead * below - 1) // above
                left_tick = _when(grid, left)
            meets = left >= 0 and left_tick == tick
            right = left if meets else left + 1
            # The valid ones: over the run of lost rows that they lie in.
            low, low_tick, high, left_lost, right_lost = left, left_tick, right, False, False
            if len(lost_start):
                run = _last(lost_start, left, run)
                run_next = _last(lost_start, right, max(run, run_next))
                left_lost = run >= 0 and left < lost_stop[run]
                right_lost = run_next >= 0 and right < lost_stop[run_next]
                if left_lost:
                    low = lost_start[run] - 1
                    low_tick = 0 if low < 0 else (_when(grid, low) if regular else time[low])
                    meets = low >= 0 and low_tick == tick
                    high = low if meets else lost_stop[run]
                elif right_lost:
                    high = lost_stop[run_next]
            known, high_tick = False, 0
            there = low >= 0 and low_tick >= begin
            if there and high < samples:
                high_tick = _when(grid, high) if regular else time[high]
                known = high_tick < min(before, end_known)
            held = there and not known and before < _FAR
            gap = (high_tick if known else tick) - low_tick
            if (known or held) and gap <= max_gap:
                part = (tick - low_tick) / max(gap, 1)
                last = high if known else low
                for channel in range(channels):
                    one = np.float64(value[low, channel])
                    two = np.float64(value[last, channel])
                    out[row, at, channel] = one + part * (two - one)
                why[row, at] = 0
                continue
            for channel in range(channels):
                out[row, at, channel] = 0
            # Whether one of the recorded samples on both sides is there and not valid.
            seen = False
            there = left >= 0 and left_tick >= begin
            if there and right < samples:
                right_tick = _when(grid, right) if regular else time[right]
                seen = right_tick < min(before, end_known)
            counts = there and (seen or before < _FAR)
            why[row, at] = invalid if counts and (left_lost or (seen and right_lost)) else outside
