"""Dense activity in a window: rows of a table as an acquisition observed them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import exact
from neurostore.errors import StoreError, UsageError
from neurostore.sample._chosen import Chosen
from neurostore.sample.acquisition import Acquisition, All, Grid, Staggered
from neurostore.sample.batch import Reason, Reasons, Values
from neurostore.sample.plan import Address, Number, Ticks, Window
from neurostore.sample.streams._dense import Axis, Dense, Frames, axis_of
from neurostore.sample.streams._rows import Frequency, Shape, shaped, width_of
from neurostore.sample.streams._stream import Reader, Stream, refuse_missing_table, whole

if TYPE_CHECKING:
    from pathlib import Path

    from neurostore.cache import Cache
    from neurostore.schemas import Table


@dataclass(frozen=True)
class Activity:
    """Dense activity (window, step, channel) float32, as the dataset's acquisition observed it.

    A window's rows are those from the first at its start, or after it. Its mask is
    (window, step, channel): a channel that the acquisition does not observe at a step is 0 there
    and not requested; a row out of the table or the window is outside, one that is not valid or not
    finite invalid.

    With `targets` or `multiples` it holds observations alone: of each channel the first one of the
    window, at the step o of the table, and those at o + target. ``<name>.step`` (window, channel)
    int64 is o, ``<name>.first`` (window,) the earliest of them; with a history, the first one is
    the past and the targets are the future.

    Parameters
    ----------
    name : str
        The table: ``"voltage"`` for ``activity/voltage``.
    targets : tuple of int
        Steps after the first observation; where an acquisition has an `every`, multiples of it.
    multiples : tuple of int
        The same in units of `every`.
    steps : int, optional
        How many rows from the window's start; all of the window without it.
    frequency : {"every step", "hold", "interpolate", "none"}, optional
        For what drives the activity, a stimulus: it is known at every step whatever the acquisition
        is, and is given as recorded, with the value at each multiple of `every` held until the next
        one, interpolated between the two, or not at all (zeros, not requested). Without an `every`
        of 2 or more it is given at every step.
    starts_with : str, optional
        With `frequency`: the dense table whose earliest first observation the rows begin with,
        instead of the window's start; they differ where no channel has phase 0. All of it is the
        future then: it drives what follows that observation.
    rate : float, optional
        Rows per second, of tables whose rows have times. A step is a row then, and rows from a gap
        in the times on (1.5 steps) are outside.
    """

    name: str
    targets: tuple[int, ...] = ()
    multiples: tuple[int, ...] = ()
    steps: int | None = None
    frequency: Frequency | None = None
    starts_with: str | None = None
    rate: Number | None = None

    def __post_init__(self) -> None:
        for name in ("targets", "multiples"):
            value = tuple(getattr(self, name))
            object.__setattr__(self, name, value)
            if any(one < 1 for one in value) or sorted(set(value)) != list(value):
                raise UsageError(f"{name} of Activity are 1 or more, ascending, found {value}.")
        if bool(self.targets) + bool(self.multiples) + bool(self.frequency or self.steps) > 1:
            raise UsageError(
                "Activity takes targets, multiples, or rows (steps, frequency), one of the three; "
                f"found {self}."
            )
        if self.starts_with is not None and self.frequency is None:
            raise UsageError("`starts_with` of Activity is for a stimulus; it needs a frequency.")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"`steps` of Activity are 1 or more, found {self.steps}.")
        known = (None, "every step", "hold", "interpolate", "none")
        if self.frequency not in known:
            raise UsageError(f"A frequency is one of {known[1:]}, found {self.frequency!r}.")

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        """Bind it to sessions, every channel observed at every step."""
        return _opened(name, self, sessions, window, All())

    def observed_by(self, acquisition: Acquisition) -> Stream:
        """The stream as an acquisition sees it."""
        return _Acquired(self, acquisition)


@dataclass(frozen=True)
class _Acquired:
    stream: Activity
    acquisition: Acquisition

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        return _opened(name, self.stream, sessions, window, self.acquisition)


def _opened(
    name: str, stream: Activity, sessions: Sequence[Chosen], window: Window, said: Acquisition
) -> Reader:
    table = f"activity/{stream.name}"
    having = [one for one in sessions if table in one.session.tables]
    if not having:
        refuse_missing_table("activity", stream.name, sessions)
    tables = {one.session.id: one.session.table(table) for one in having}
    step = _step(name, stream, tables)
    past, future = (whole(name, part, step, window) for part in ("history", "horizon"))
    acquisition = said.in_steps(step, table)
    axes, widths = {}, {}
    for row, one in enumerate(sessions):
        if one.session.id in tables:
            found, clock = tables[one.session.id], one.session.clock
            axes[row] = axis_of(found, step * clock.rate, f"{table} of {one.session.id}")
            widths[row] = width_of(found, f"{table} of {one.session.id}")
    shape = shaped(name, stream, acquisition, past, future, sessions, widths)
    return _Read(name, stream, list(sessions), window, acquisition, axes, widths, shape)


def _step(name: str, stream: Activity, tables: dict[str, Table]) -> Fraction:
    """Seconds from one row to the next, the same in all sessions."""
    found = {}
    for id, table in tables.items():
        if "rate" in table.attrs:
            found[id] = 1 / exact(str(table.attrs["rate"]))
        elif stream.rate is None:
            raise UsageError(
                f"The rows of activity/{stream.name} of {id} have times of their own; the stream "
                f"{name!r} needs the rate they were recorded at: Activity(..., rate=...)."
            )
        else:
            found[id] = 1 / exact(stream.rate)
    values = set(found.values()) | ({1 / exact(stream.rate)} if stream.rate is not None else set())
    if len(values) > 1:
        rates = {id: f"{float(1 / one):g} Hz" for id, one in found.items()}
        raise UsageError(
            f"The stream {name!r} has steps of one length in all sessions, found {rates}"
            + ("." if stream.rate is None else f" and rate={stream.rate}.")
        )
    return values.pop()


@dataclass(frozen=True, eq=False)
class _Read:
    name: str
    stream: Activity
    sessions: list[Chosen]
    window: Window
    acquisition: Acquisition
    axes: dict[int, Axis]
    widths: dict[int, int]
    shape: Shape
    _dense: dict[int, Dense] = field(default_factory=dict, repr=False)
    _frames: dict[int, Frames] = field(default_factory=dict, repr=False)

    @property
    def steps(self) -> dict[str, tuple[int, int, int]]:
        past = self.shape.past
        return {self.name: (1, past, len(self.shape.offsets) - past)}

    @cached_property
    def phases(self) -> dict[int, Ticks]:
        """By session row: the first step (channel,) at which each channel is observed."""
        if self.stream.frequency is not None:
            return {}
        return {row: self.acquisition.phases(width) for row, width in self.widths.items()}

    @property
    def tables(self) -> tuple[str, ...]:
        return (f"activity/{self.stream.name}",)

    def missing(self, row: int) -> str | None:
        return None if row in self.axes else self.stream.name

    def grid(self, row: int) -> Grid | None:
        """Where windows of a session may start; None for anywhere."""
        if row not in self.axes or row not in self.phases or isinstance(self.acquisition, All):
            return None
        every = self.acquisition.period
        return self.axes[row].grid(every, f"{every} steps of activity/{self.stream.name}")

    def read(self, at: Address) -> Values:
        windows, width = len(at.start), max(self.widths.values())
        size = (windows, len(self.shape.offsets), width)
        out, why = np.empty(size, np.float32), np.empty(size, np.uint8)
        for row, place in at.by_session:
            own = self.widths.get(row, 0)
            if own < width:
                out[place, :, own:], why[place, :, own:] = 0, Reason.NOT_RECORDED
            if own:
                self._fill(row, at.start[place], place, out, why)
        made: Values = {self.name: (out, why)}
        return made | (self._observed(at, width) if self.shape.single else {})

    def _observed(self, at: Address, width: int) -> Values:
        """The step of the first observation of each channel, and of the first of all."""
        step = np.zeros((len(at.start), width), np.int64)
        why = np.full(step.shape, Reason.NOT_RECORDED, np.uint8)
        earliest = np.zeros(len(at.start), np.int64)
        known = np.full(len(at.start), Reason.NOT_RECORDED, np.uint8)
        for row, place in at.by_session:
            if row not in self.axes:
                continue
            phases = self.phases[row]
            first = self.axes[row].row(at.start[place])
            step[place, : len(phases)] = first[:, None] + phases
            why[place, : len(phases)] = Reason.OBSERVED
            earliest[place], known[place] = first + phases.min(), Reason.OBSERVED
        return {f"{self.name}.step": (step, why), f"{self.name}.first": (earliest, known)}

    def _fill(
        self, row: int, start: Ticks, place: Ticks, out: NDArray[np.float32], why: Reasons
    ) -> None:
        first = self.axes[row].row(start)
        stop = self._stop(row, start)
        at = first[:, None] + self.shape.offsets + self.shape.shift.get(row, 0)
        if self.stream.frequency == "none":
            out[place], why[place] = 0, Reason.NOT_REQUESTED
            return
        if self.stream.frequency is None:
            self._refuse_off_grid(row, first)
        staggered = isinstance(self.acquisition, Staggered) and self.stream.frequency is None
        dense = self._loaded(row)
        if staggered and self.shape.single:
            self._framed(row).gather(at, start, stop, place, out, why)
            return
        lost = dense.lost(at, start, stop)
        every = self.acquisition.period
        if staggered:
            dense.observed(at, lost, place, out, why, every=every, phases=self.phases[row])
            return
        if self.stream.frequency is None:
            lost = np.where(
                (lost != Reason.OUTSIDE) & (at % every != 0), Reason.NOT_REQUESTED, lost
            )
        dense.matrix.gather(at, lost.astype(np.uint8), place, out, why)
        if self.stream.frequency == "interpolate":
            self._interpolate(row, at, start, stop, place, out, why)

    def _interpolate(
        self,
        row: int,
        at: Ticks,
        start: Ticks,
        stop: Ticks,
        place: Ticks,
        out: NDArray[np.float32],
        why: Reasons,
    ) -> None:
        """Mix in the rows after; a step is lost where one of the two is."""
        after = at - self.shape.offsets + self.shape.others
        size = (len(place), *out.shape[1:])
        other, lost = np.zeros(size, np.float32), np.zeros(size, np.uint8)
        dense, nth = self._dense[row], np.arange(len(place))
        dense.matrix.gather(after, dense.lost(after, start, stop), nth, other, lost)
        weight = self.shape.weight[None, :, None]
        mixed, reason = (1 - weight) * out[place] + weight * other, why[place]
        reason = np.where(reason, reason, lost)
        out[place], why[place] = mixed * (reason == 0), reason

    def _stop(self, row: int, start: Ticks) -> Ticks:
        """The tick (window, step) that what is observed for a step lies before.

        The history knows nothing from the present on; a stimulus is known.
        """
        present, length = self.window.ticks(self.sessions[row].session.clock)
        past = np.arange(len(self.shape.offsets)) < self.shape.past
        early = past & (self.stream.frequency is None)
        return start[:, None] + np.where(early, present, length)

    def _refuse_off_grid(self, row: int, first: Ticks) -> None:
        every = self.acquisition.period
        off = np.flatnonzero(first % every)
        if len(off):
            step = int(first[off[0]])
            raise UsageError(
                f"A window of {self.sessions[row].session.id} starts at step {step} of "
                f"activity/{self.stream.name}, {step % every} past a multiple of every = {every}; "
                f"the acquisition is broken there. Start at step {step - step % every} or "
                f"{step - step % every + every}."
            )

    def _loaded(self, row: int) -> Dense:
        if row not in self._dense or self._dense[row].matrix.damaged:
            table = self.sessions[row].session.table(f"activity/{self.stream.name}")
            self._dense[row] = Dense.load(table, self.axes[row])
        return self._dense[row]

    def _framed(self, row: int) -> Frames:
        if row not in self._frames or self._frames[row].matrix.damaged:
            said = (self.acquisition.period, self.phases[row], self._digest(row))
            held = self.sessions[row].session.store.cache
            self._frames[row] = Frames.of(self._loaded(row), *said, held)
        return self._frames[row]

    def _digest(self, row: int) -> str:
        tables = self.sessions[row].session.attrs["row"]["tables"]
        return str(tables[self.tables[0]]["digest"])

    def put(self, into: Cache) -> Iterator[Path]:
        """Put the frames of a staggered acquisition, if any, into a cache; gives the files."""
        staggered = isinstance(self.acquisition, Staggered) and self.stream.frequency is None
        for row in self.axes if staggered and self.shape.single else ():
            said = (self.acquisition.period, self.phases[row], self._digest(row))
            made = Frames.put(self._loaded(row).matrix, *said, into)
            if made is None:
                raise StoreError(f"Frames of {self.tables[0]} cannot be written to {into.root}.")
            yield made.path
