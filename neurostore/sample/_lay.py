"""Where the windows of one session lie: inside observed time, its split, and around its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import exact
from neurostore.errors import NotFoundError, UsageError
from neurostore.intervals import Intervals
from neurostore.sample._chosen import Chosen, no_spikes
from neurostore.sample.acquisition import Grid
from neurostore.sample.plan import Runs, Ticks, Window, join, lay
from neurostore.splits import SEES, Part

if TYPE_CHECKING:
    from neurostore.store import Session

REFUSED = -2
"""Stands for the block of a window that may not be; -1 for that of one without a split."""

_FAR = 2**62


@dataclass(frozen=True)
class Laid:
    """The windows of a session.

    Attributes
    ----------
    pieces : mapping
        Observed time by block of the split; all of it under -1 without a split.
    events : int
        How many events `around` named.
    grid : Grid, optional
        Where windows may start; without it, anywhere.
    """

    chosen: Chosen
    window: Window
    part: Part | None
    may_cross: bool
    pieces: Mapping[int, Intervals]
    events: int = 0
    grid: Grid | None = None

    @cached_property
    def runs(self) -> Runs:
        """All windows, as runs."""
        clock = self.chosen.session.clock
        present, length = self.window.ticks(clock)
        step = self.window.step * clock.rate
        if step < 1:
            raise UsageError(
                f"A stride of {float(self.window.step):g} s is {float(step):g} ticks of "
                f"{self.chosen.session.id}; windows lie at least one tick "
                f"({float(1 / clock.rate):g} s) apart."
            )
        if self.window.around is not None and self.grid is not None:
            raise UsageError(
                f"Windows around {self.window.around} start anywhere, and an acquisition's on "
                f"multiples of {self.grid.said}. Lay them by a stride, or read them as All()."
            )
        if self.window.around is not None:
            start = _around(self.chosen, self.window)
        else:
            before = present if self.may_cross else 0
            by = lay if self.grid is None else self.grid.lay
            laid = [
                by(piece.start - before, piece.stop, block, length, step)
                for block, piece in self.pieces.items()
            ]
            runs = join(laid, step)
            if not self.may_cross and not self.chosen.differs:
                return runs
            start = runs.starts()[0]
        block = self.admit(start)
        return Runs.single(start[block > REFUSED], block[block > REFUSED])

    def admit(self, start: Ticks) -> Ticks:
        """The block (window,) that windows of these starts lie in, `REFUSED` where they may not."""
        present, length = self.window.ticks(self.chosen.session.clock)
        target, stop = start + (present if self.may_cross else 0), start + length
        block = self._block(target, stop)
        if self.may_cross:
            seen = self.chosen.any_observed.covers(start, stop)
            block[~(seen & self._allowed.covers(start, target))] = REFUSED
        if self.chosen.differs:
            whole = [one.covers(start, stop) for one in self.chosen.kinds]
            block[~np.any(whole, axis=0)] = REFUSED
        return block

    def known(self, start: Ticks, block: Ticks) -> tuple[Ticks, Ticks]:
        """The ticks [low, high) (window,) that windows may know: their block, and their history.

        A history that may cross knows all back to the last time of a label it may not see.
        """
        assert self.part is not None
        rows, starts, stops = self._blocks
        nth = np.searchsorted(rows, block)
        if not self.may_cross:
            return starts[nth], stops[nth]
        allowed = self._allowed.start
        return allowed[np.searchsorted(allowed, start, side="right") - 1], stops[nth]

    @cached_property
    def _blocks(self) -> tuple[Ticks, Ticks, Ticks]:
        """Rows of the split, ascending, with their starts and stops (block,)."""
        assert self.part is not None
        return self.part.blocks(self.chosen.session.id)

    def interval(self, start: Ticks) -> Ticks:
        """Row of the split (window,) that windows lie in; without one, of the observed time."""
        starts, _, blocks = self._edges
        present, _ = self.window.ticks(self.chosen.session.clock)
        target = start + (present if self.may_cross else 0)
        row = np.searchsorted(starts, target, side="right") - 1
        return row if self.part is None else blocks[row]

    def _block(self, first: Ticks, stop: Ticks) -> Ticks:
        starts, stops, blocks = self._edges
        if not len(starts):
            return np.full(len(first), REFUSED, dtype=np.int64)
        which = np.searchsorted(starts, first, side="right") - 1
        inside = (which >= 0) & (stops[np.maximum(which, 0)] >= stop)
        return np.where(inside, blocks[np.maximum(which, 0)], REFUSED)

    @cached_property
    def _edges(self) -> tuple[Ticks, Ticks, Ticks]:
        """Start, stop and block of every piece, in time order."""
        rows = sorted((*edge, block) for block, piece in self.pieces.items() for edge in piece)
        made = np.array(rows, dtype=np.int64).reshape(-1, 3)
        return made[:, 0], made[:, 1], made[:, 2]

    @cached_property
    def _allowed(self) -> Intervals:
        """Where a history may lie."""
        everywhere = Intervals(np.array([-_FAR]), np.array([_FAR]))
        if self.part is None or self.chosen.session.id not in self.part.split.sessions:
            return everywhere
        seen = {self.part.label, *SEES.get(self.part.label, ())}
        for label in self.part.split.labels:
            if label not in seen:
                everywhere -= self.part.split.intervals(self.chosen.session.id, label)
        return everywhere

    @property
    def domain(self) -> Intervals:
        """All pieces as one set."""
        starts, stops, _ = self._edges
        return Intervals(starts, stops)

    @property
    def longest(self) -> int:
        """Ticks of the longest interval."""
        return max(
            (int((one.stop - one.start).max()) for one in self.pieces.values() if len(one)),
            default=0,
        )


def lay_session(
    chosen: Chosen, window: Window, part: Part | None, *, may_cross: bool, grid: Grid | None = None
) -> Laid:
    """The windows of one session."""
    pieces = {-1: chosen.any_observed}
    if part is not None and chosen.session.id not in part.split.sessions:
        pieces = {}
    elif part is not None:
        pieces = _cut(chosen.any_observed, *part.blocks(chosen.session.id))
    events = 0 if window.around is None else len(_events(chosen, window))
    return Laid(chosen, window, part, may_cross, pieces, events, grid)


def _cut(observed: Intervals, rows: Ticks, starts: Ticks, stops: Ticks) -> dict[int, Intervals]:
    """Observed time in each block (block,) that holds any, by row of the split."""
    first = np.searchsorted(observed.stop, starts, side="right")
    last = np.searchsorted(observed.start, stops, side="left")
    made = {}
    for n in np.flatnonzero(first < last).tolist():
        inside = slice(first[n], last[n])
        low = np.maximum(observed.start[inside], starts[n])
        made[int(rows[n])] = Intervals(low, np.minimum(observed.stop[inside], stops[n]))
    return made


def _around(chosen: Chosen, window: Window) -> Ticks:
    """Start ticks (window,) of the windows around the events of a session, ascending."""
    clock, event = chosen.session.clock, _events(chosen, window)
    present, length = window.ticks(clock)
    if window.before is None or window.after is None:
        return np.unique(event - present)
    low, high = clock.tick(-exact(window.before)), clock.tick(window.after)
    step = window.step * clock.rate
    runs = lay(event + low, event + high, -1, length, step)
    return np.unique(runs.starts()[0])


def _events(chosen: Chosen, window: Window) -> NDArray[np.int64]:
    """Ticks (event,) of the valid events that a window is laid around; none without the column."""
    table, _, column = str(window.around).partition(".")
    session, name = chosen.session, f"intervals/{table}"
    if name not in session.tables:
        return np.zeros(0, dtype=np.int64)
    columns, timed = session.table(name).columns, _timed(session, name)
    if column not in timed:
        return np.zeros(0, dtype=np.int64)
    valid = columns["valid" if column in ("start", "stop") else f"{column}_valid"].values[:]
    good = np.asarray(valid).copy()
    if window.where is not None:
        chosen_rows = np.zeros(len(good), dtype=bool)
        chosen_rows[session.row_numbers(name, window.where)] = True
        good &= chosen_rows
    made: Ticks = np.asarray(columns[column].values[:])[good]
    return made


def _timed(session: Session, name: str) -> list[str]:
    """Columns of an interval table that hold times."""
    columns = session.table(name).columns
    return [key for key, one in columns.items() if one.attrs.get("units") == "tick"]


def refuse_unknown_event(chosen: Sequence[Chosen], window: Window) -> None:
    """Refuse `around` where no session has its table or its column, naming the nearest."""
    if window.around is None:
        return
    table, _, column = window.around.partition(".")
    known = {
        name.removeprefix("intervals/")
        for one in chosen
        for name in one.session.tables
        if name.startswith("intervals/")
    }
    if table not in known:
        raise NotFoundError("intervals", table, known, f"any of the {len(chosen)} sessions chosen")
    name = f"intervals/{table}"
    timed = {
        one for row in chosen if name in row.session.tables for one in _timed(row.session, name)
    }
    if column not in timed:
        raise NotFoundError("time column", column, timed, f"{name} of any session chosen")


@dataclass(frozen=True)
class Totals:
    """What a dataset knows of the units (unit,) of a session before any window is made.

    Attributes
    ----------
    spikes : (unit,) int64
    seconds : (unit,) float64
        Time in which the unit was observed.
    """

    spikes: NDArray[np.int64]
    seconds: NDArray[np.float64]


def totals(laid: Laid) -> Totals:
    """Spikes and observed seconds over all pieces of a session."""
    chosen, domain = laid.chosen, laid.domain
    ticks = np.array([(domain & one).length for one in chosen.kinds], dtype=np.int64)[chosen.kind]
    spikes = np.zeros(len(chosen.ids), dtype=np.int64)
    if len(domain) and not no_spikes(chosen):
        events = chosen.session.events(domain.start, domain.stop)
        column = chosen.column[events.unit]
        mine = column >= 0
        column, time = column[mine], events.time[mine]
        spikes = np.bincount(column[chosen.saw(column, time)], minlength=len(chosen.ids))
    return Totals(spikes, ticks / float(chosen.session.clock.rate))
