"""Counts as an acquisition observed them: each unit in bins of its own, the others masked.

Bins are counted from tick 0 of the session's clock: bin k starts at floor(k · bin · rate), before
tick 0 too. That is the same bin whichever units are chosen and wherever observed time begins, and
it is where a dense table that starts with the clock has its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostore.clocks import exact
from neurostore.errors import UsageError
from neurostore.sample._chosen import Chosen
from neurostore.sample.acquisition import Acquisition, Grid, observed
from neurostore.sample.batch import Reason, Values
from neurostore.sample.plan import Address, Number, Ticks, Window
from neurostore.sample.streams._dense import Axis
from neurostore.sample.streams._masked import Hidden, hide
from neurostore.sample.streams._stream import Reader

if TYPE_CHECKING:
    from fractions import Fraction


@dataclass(frozen=True)
class Watched:
    """A stream of counts as an acquisition sees it: what is hidden is hidden of that."""

    stream: Hidden
    acquisition: Acquisition

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        """Bind it to sessions."""
        said: Any = self.stream
        counts = replace(said, mask=None, units_in=None, units_out=None)
        bin = self.stream.bin
        acquisition = self.acquisition.in_steps(bin, f"bins of the stream {name!r}")
        seen = _Seen(name, counts.open(name, sessions, window), list(sessions), bin, acquisition)
        shown = hide(seen, self.stream, name, list(sessions))
        return seen if shown is seen else _Hidden(shown, seen)


@dataclass(frozen=True)
class _Seen:
    """Counts of which a bin is observed where (bin − phase of the unit) mod every = 0."""

    name: str
    counts: Reader
    sessions: list[Chosen]
    bin: Number
    acquisition: Acquisition

    @property
    def steps(self) -> Mapping[str, tuple[int, int, int]]:
        return self.counts.steps

    @property
    def tables(self) -> tuple[str, ...]:
        return self.counts.tables

    def missing(self, row: int) -> str | None:
        return self.counts.missing(row)

    @cached_property
    def phases(self) -> dict[int, Ticks]:
        """By session row: the first bin (unit,) at which each unit is observed."""
        return {
            row: self.acquisition.phases(len(one.ids))
            for row, one in enumerate(self.sessions)
            if self.missing(row) is None
        }

    def grid(self, row: int) -> Grid | None:
        """Where windows of a session may start: on bins that are multiples of `every`."""
        if row not in self.phases:
            return None
        every, seen = self.acquisition.period, self.sessions[row].any_observed
        step = self._step(row) * every
        low, high = (int(seen.start[0]), int(seen.stop[-1])) if len(seen) else (0, 0)
        nth = np.arange(-(-low // step), -(-high // step), dtype=np.int64)
        said = f"{every} bins of {float(exact(self.bin)):g} s of the stream {self.name!r}"
        return Grid(Axis(0, step, len(nth)).ticks(nth), step, said)

    def read(self, at: Address) -> Values:
        counts, why = self.counts.read(at)[self.name]
        for row, place in at.by_session:
            if row not in self.phases:
                continue
            units = len(self.sessions[row].ids)
            first = self._first(row, at.start[place])
            asked = observed(self.acquisition, first, counts.shape[2], units)
            own = why[place, :units]
            counts[place, :units] *= asked
            unasked = ~asked & (own == Reason.OBSERVED)
            why[place, :units] = np.where(unasked, np.uint8(Reason.NOT_REQUESTED), own)
        return {self.name: (counts, why)}

    def _step(self, row: int) -> Fraction:
        """Ticks from one bin to the next."""
        return exact(self.bin) * self.sessions[row].session.clock.rate

    def _first(self, row: int, start: Ticks) -> Ticks:
        """The bin (window,) that windows of some starts begin with.

        Raises
        ------
        UsageError
            Where it is no multiple of `every`, with the next ones on both sides.
        """
        every, axis = self.acquisition.period, Axis(0, self._step(row), 0)
        bin = axis.row(start)
        off = np.flatnonzero((bin % every != 0) | (axis.ticks(bin) != start))
        if not len(off):
            return bin
        clock, tick, late = self.sessions[row].session.clock, int(start[off[0]]), int(bin[off[0]])
        between = int(axis.ticks(bin)[off[0]]) != tick
        where = f"between bins {late - 1} and {late}" if between else f"at bin {late}"
        low = (late - between) // every * every
        near = axis.ticks(np.array([low, low + every]))
        said = " or ".join(
            f"tick {one} ({second:.9g} s)"
            for one, second in zip(near.tolist(), clock.seconds(near).tolist(), strict=True)
        )
        raise UsageError(
            f"A window of {self.sessions[row].session.id} starts at tick {tick}, {where} of "
            f"{float(exact(self.bin)):g} s of the stream {self.name!r}, and with this acquisition "
            f"windows start on multiples of every = {every} bins. Start at {said}."
        )


@dataclass(frozen=True)
class _Hidden:
    """The same where a part of the counts is hidden beside."""

    shown: Reader
    seen: _Seen

    @property
    def steps(self) -> Mapping[str, tuple[int, int, int]]:
        return self.shown.steps

    @property
    def tables(self) -> tuple[str, ...]:
        return self.shown.tables

    @property
    def phases(self) -> dict[int, Ticks]:
        return self.seen.phases

    def missing(self, row: int) -> str | None:
        return self.shown.missing(row)

    def grid(self, row: int) -> Grid | None:
        return self.seen.grid(row)

    def read(self, at: Address) -> Values:
        return self.shown.read(at)
