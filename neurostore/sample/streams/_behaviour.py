"""Behaviour in a window: samples interpolated at a rate of the stream's own, never over a gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import floor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import MISSING, Clock, exact
from neurostore.errors import UsageError
from neurostore.sample._chosen import Chosen
from neurostore.sample.batch import Reason, Reasons, Values
from neurostore.sample.plan import Address, Number, Ticks, Window
from neurostore.sample.streams._stream import (
    Reader,
    by_session,
    reasons,
    refuse_missing_table,
    whole,
)

if TYPE_CHECKING:
    from neurostore.store import Session

_FAR = 2**62


@dataclass(frozen=True)
class Behaviour:
    """A behaviour series at a rate of its own: (window, time) or (window, time, channel) float32.

    Sample k of a window lies floor(k / rate · clock rate) ticks after its start, interpolated
    linearly between the valid samples on both sides. The history of a window with a horizon looks
    at nothing recorded from the present on: its last samples keep the last valid value before.
    At the ends of a window the sample next to it counts, so that blocks of a split without a guard
    of one sample share it.

    Parameters
    ----------
    name : str
        The series: ``"position"`` for the table ``behaviour/position``.
    rate : float
        Samples per second; history and horizon hold whole numbers of them.
    max_gap : float, optional
        Seconds between two valid samples beyond which nothing is interpolated; without it 1.5
        times the median distance of samples.
    """

    name: str
    rate: Number
    max_gap: Number | None = None

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        """Bind it to sessions."""
        if exact(self.rate) <= 0:
            raise UsageError(f"The stream {name!r} needs a rate above 0 Hz, found {self.rate}.")
        table, step = f"behaviour/{self.name}", 1 / exact(self.rate)
        past, future = (whole(name, part, step, window) for part in ("history", "horizon"))
        having = [one.session for one in sessions if table in one.session.tables]
        if not having:
            refuse_missing_table("behaviour", self.name, sessions)
        for one in having:
            one.clock.edges(0, 1, step)
        shapes = {one.id: one.table(table).columns["value"].values.shape[1:] for one in having}
        if len(set(shapes.values())) > 1:
            raise UsageError(
                f"The stream {name!r} has another number of channels in other sessions: {shapes}."
            )
        channels = next(iter(shapes.values()))
        steps = {name: (1, past, future)}
        return _Samples(name, self, list(sessions), window, past + future, channels, steps)


@dataclass(frozen=True)
class _Samples:
    name: str
    stream: Behaviour
    sessions: list[Chosen]
    window: Window
    samples: int
    channels: tuple[int, ...]
    steps: dict[str, tuple[int, int, int]]
    _series: dict[int, _Series] = field(default_factory=dict, repr=False)

    def missing(self, row: int) -> str | None:
        table = f"behaviour/{self.stream.name}"
        return None if table in self.sessions[row].session.tables else self.stream.name

    def read(self, at: Address) -> Values:
        return by_session(at, self._windows)

    def _windows(self, row: int, start: Ticks) -> Values:
        shape = (len(start), self.samples)
        if self.missing(row):
            lost = np.zeros(shape + self.channels, np.float32)
            return {self.name: (lost, reasons(shape, Reason.NOT_RECORDED))}
        if row not in self._series:
            self._series[row] = _Series.load(self.sessions[row].session, self.stream)
        clock = self.sessions[row].session.clock
        at = start[:, None] + clock.edges(0, self.samples, 1 / exact(self.stream.rate))[:-1]
        value, reason = self._series[row].at(at.ravel(), self._before(start, clock).ravel())
        return {self.name: (value.reshape(shape + self.channels), reason.reshape(shape))}

    def _before(self, start: Ticks, clock: Clock) -> Ticks:
        """The tick (window, time) from which on a sample may not know what was recorded."""
        before = np.full((len(start), self.samples), _FAR)
        _, past, horizon = self.steps[self.name]
        if horizon:
            before[:, :past] = start[:, None] + self.window.ticks(clock)[0]
        return before


@dataclass(frozen=True)
class _Series:
    """A series in memory: times in ticks and values of its valid samples; which are not valid."""

    time: Ticks
    value: NDArray[Any]
    recorded: Ticks
    valid: NDArray[np.bool_]
    max_gap: int

    @classmethod
    def load(cls, session: Session, stream: Behaviour) -> _Series:
        """Read the whole series of a session."""
        table = session.table(f"behaviour/{stream.name}")
        value = np.asarray(table.columns["value"].values[:])
        if "time" in table.columns:
            time = np.asarray(table.columns["time"].values[:])
        else:
            first, rate = int(str(table.attrs["start"])), exact(str(table.attrs["rate"]))
            time = session.clock.edges(first, len(value), 1 / rate)[:-1]
        valid = np.isfinite(value).reshape(len(value), -1).all(axis=1)
        if "valid" in table.columns:
            valid &= np.asarray(table.columns["valid"].values[:])
        there = time != MISSING
        time, value, valid = time[there], value[there], valid[there]
        if stream.max_gap is not None:
            ticks = session.clock.tick(stream.max_gap)
        else:
            ticks = floor(1.5 * float(np.median(np.diff(time)))) if len(time) > 1 else 0
        return cls(time[valid], value[valid], time, valid, ticks)

    def at(self, tick: Ticks, before: Ticks) -> tuple[NDArray[np.float32], Reasons]:
        """Values (tick, ...) at ticks (tick,) from samples before others (tick,); why if none."""
        made = np.zeros((len(tick), *self.value.shape[1:]), dtype=np.float32)
        reason = np.where(self._lost(tick, before), Reason.INVALID, Reason.OUTSIDE).astype(np.uint8)
        if not len(self.time):
            return made, reason
        low, high, known, held = _neighbours(self.time, tick, before)
        gap = np.where(known, self.time[high], tick) - self.time[low]
        good = np.flatnonzero((known | held) & (gap <= self.max_gap))
        low, gap = low[good], gap[good]
        high = np.where(known[good], high[good], low)
        part = (tick[good] - self.time[low]) / np.maximum(gap, 1)
        part = part.reshape(-1, *[1] * (self.value.ndim - 1))
        first, last = (self.value[rows].astype(np.float64) for rows in (low, high))
        made[good] = first + part * (last - first)
        reason[good] = Reason.OBSERVED
        return made, reason

    def _lost(self, tick: Ticks, before: Ticks) -> NDArray[np.bool_]:
        """Whether one of the samples next to a tick was recorded and is not valid."""
        if not len(self.recorded):
            return np.zeros(len(tick), dtype=bool)
        low, high, known, held = _neighbours(self.recorded, tick, before)
        return (known | held) & ~(self.valid[low] & (self.valid[high] | ~known))


def _neighbours(
    time: Ticks, tick: Ticks, before: Ticks
) -> tuple[Ticks, Ticks, NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows of the times on both sides of each tick (one row where they meet).

    Further, whether both exist and lie before `before`, or the left one does and the right one
    may not be known.
    """
    left = np.searchsorted(time, tick, side="right") - 1
    low = np.maximum(left, 0)
    right = np.where((left >= 0) & (time[low] == tick), left, left + 1)
    high = np.minimum(right, len(time) - 1)
    known = (left >= 0) & (right < len(time)) & (time[high] < before)
    return low, high, known, (left >= 0) & ~known & (before < _FAR)
