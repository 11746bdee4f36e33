"""A behaviour series of one session, read where it lies: values at ticks, never over a gap."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import MISSING, exact
from neurostore.sample.batch import Reason, Reasons
from neurostore.sample.plan import Number, Ticks

if TYPE_CHECKING:
    from neurostore.store import Session

FAR = 2**62
"""A tick that nothing reaches: before it, all is known."""

_PIECE = 1 << 20


@dataclass(frozen=True)
class Series:
    """The samples of a session, on the memory of its table wherever that holds floats.

    Attributes
    ----------
    value : (sample, channel) float32 or float64
    time : (sample,) int64
        Ticks; empty where the samples lie on `grid`.
    grid : (first, above, below)
        Sample k lies at first + floor(k · above / below) ticks.
    lost_start, lost_stop : (run,) int64
        Rows [start, stop) that are not valid.
    max_gap : int
        Ticks.
    """

    value: NDArray[Any]
    time: Ticks
    grid: tuple[int, int, int]
    lost_start: Ticks
    lost_stop: Ticks
    max_gap: int

    @classmethod
    def load(cls, session: Session, name: str, max_gap: Number | None) -> Series:
        """The series of a session; every value is looked at once, none is copied but integers."""
        columns = session.table(f"behaviour/{name}").columns
        value = _floats(columns["value"].values[:])
        value = value.reshape(len(value), int(np.prod(value.shape[1:], dtype=np.int64)))
        said = columns.get("valid")
        valid = None if said is None else np.asarray(said.values[:])
        time, grid = np.zeros(0, np.int64), (0, 1, 1)
        if "time" in columns:
            time = np.ascontiguousarray(np.asarray(columns["time"].values[:]))
            there = time != MISSING
            if not there.all():
                time, value = time[there], value[there]
                valid = None if valid is None else valid[there]
        else:
            attrs = session.table(f"behaviour/{name}").attrs
            step = session.clock.rate / exact(str(attrs["rate"]))
            grid = (int(str(attrs["start"])), step.numerator, step.denominator)
            if (len(value) + 1) * grid[1] + grid[2] >= FAR:  # products of rows would not fit
                edges = session.clock.edges(grid[0], len(value), 1 / exact(str(attrs["rate"])))
                time, grid = edges[:-1], (0, 1, 1)
        start, stop = _lost(value, valid)
        made = cls(value, time, grid, start, stop, 0)
        ticks = floor(1.5 * made._distance()) if max_gap is None else session.clock.tick(max_gap)
        return cls(value, time, grid, start, stop, ticks)

    def _distance(self) -> float:
        """The median distance of two samples, in ticks."""
        if len(self.time):
            return float(np.median(np.diff(self.time))) if len(self.time) > 1 else 0.0
        count, (_, above, below) = len(self.value) - 1, self.grid
        if count < 1:
            return 0.0
        short = above // below  # each distance is this, or one more
        longer = count * above // below - count * short
        two = [short + (nth >= count - longer) for nth in ((count - 1) // 2, count // 2)]
        return sum(two) / 2

    def _when(self, row: Ticks) -> Ticks:
        first, above, below = self.grid
        return self.time[row] if len(self.time) else first + row * above // below

    def _last(self, tick: Ticks) -> Ticks:
        """Row (tick,) of the last sample at or before each tick, -1 for none."""
        if len(self.time):
            return np.searchsorted(self.time, tick, side="right") - 1
        first, above, below = self.grid
        end = int(self._when(np.array([len(self.value) - 1]))[0])
        ahead = np.clip(tick, first - 1, end) - first + 1
        made: Ticks = (ahead * below - 1) // above
        return made

    def _run(self, row: Ticks) -> tuple[Ticks, NDArray[np.bool_]]:
        """The run of lost rows that begins last at or before each row, and whether it holds it."""
        run = np.searchsorted(self.lost_start, row, side="right") - 1
        if not len(self.lost_start):
            return run, np.zeros(len(row), dtype=bool)
        return run, (run >= 0) & (row < self.lost_stop[run])

    def at(
        self, tick: Ticks, before: Ticks, known: tuple[Ticks, Ticks] | None = None
    ) -> tuple[NDArray[np.float32], Reasons]:
        """Values (tick, channel) at ticks (tick,) from samples before others (tick,); why if none.

        Where the next valid sample may not be known, the last one is held. With `known`, samples
        outside of ticks [low, high), (tick,) each, are as if they were not recorded.
        """
        made = np.zeros((len(tick), self.value.shape[1]), dtype=np.float32)
        reason = np.full(len(tick), Reason.OUTSIDE, dtype=np.uint8)
        if not len(self.value):
            return made, reason
        left = self._last(tick)
        right = np.where((left >= 0) & (self._when(np.maximum(left, 0)) == tick), left, left + 1)
        (left_run, left_lost), (right_run, right_lost) = self._run(left), self._run(right)
        span = (np.full(len(tick), -FAR), np.full(len(tick), FAR)) if known is None else known
        both, held = self._sides(left, right, before, span)
        reason[(both | held) & (left_lost | (both & right_lost))] = Reason.INVALID
        low, high = left, right
        if len(self.lost_start):
            low = np.where(left_lost, self.lost_start[left_run] - 1, left)
            meets = (low >= 0) & (self._when(np.maximum(low, 0)) == tick)
            high = np.where(right_lost, self.lost_stop[right_run], right)
            high = np.where(left_lost, np.where(meets, low, self.lost_stop[left_run]), high)
        both, held = self._sides(low, high, before, span)
        upper = self._when(np.minimum(high, len(self.value) - 1))
        gap = np.where(both, upper, tick) - self._when(np.maximum(low, 0))
        good = np.flatnonzero((both | held) & (gap <= self.max_gap))
        low, high, gap = low[good], np.where(both[good], high[good], low[good]), gap[good]
        part = ((tick[good] - self._when(low)) / np.maximum(gap, 1))[:, None]
        one, two = (self.value[rows].astype(np.float64) for rows in (low, high))
        made[good] = one + part * (two - one)
        reason[good] = Reason.OBSERVED
        return made, reason

    def _sides(
        self, low: Ticks, high: Ticks, before: Ticks, span: tuple[Ticks, Ticks]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether both rows exist in `span` and before `before`; or the left, and the other not."""
        upper = self._when(np.minimum(high, len(self.value) - 1))
        there = (low >= 0) & (self._when(np.maximum(low, 0)) >= span[0])
        both = there & (high < len(self.value)) & (upper < np.minimum(before, span[1]))
        return both, there & ~both & (before < FAR)


def _floats(values: Any) -> NDArray[Any]:
    """Values as float32 or float64 of this machine, on the same memory where they are that."""
    array = np.asarray(values)
    kind = array.dtype if array.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    return np.ascontiguousarray(array, dtype=kind.newbyteorder("="))


def _lost(value: NDArray[Any], valid: NDArray[np.bool_] | None) -> tuple[Ticks, Ticks]:
    """Runs [start, stop) of rows that hold no number in a channel, or are said not to be valid."""
    found = []
    for first in range(0, len(value), _PIECE):
        piece = slice(first, first + _PIECE)
        good = np.isfinite(value[piece]).all(axis=1)
        if valid is not None:
            good &= valid[piece]
        found.append(np.flatnonzero(~good) + first)
    rows = np.concatenate([*found, np.zeros(0, np.int64)])
    ends = np.flatnonzero(np.diff(rows) > 1) + 1
    begin, end = np.append(0, ends), np.append(ends, len(rows)) - 1
    return (rows[begin], rows[end] + 1) if len(rows) else (rows, rows)
