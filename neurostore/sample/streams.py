"""What a window holds: spikes as counts or events, behaviour, trials.

A stream is a value; `open` binds it to the chosen sessions, and what comes back reads windows of
one of them at given start ticks. A stream knows no order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import floor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import MISSING, Clock, exact
from neurostore.errors import NotFoundError, UsageError
from neurostore.intervals import Intervals
from neurostore.sample.batch import Reason, Reasons, Values
from neurostore.sample.plan import Number, Ticks, Window

_FAR = 2**62

if TYPE_CHECKING:
    from neurostore.schemas import Column
    from neurostore.store import Session


@dataclass(frozen=True, eq=False)
class Chosen:
    """One session with the units that a dataset asks for.

    Attributes
    ----------
    rows : (unit,) int64
        Rows of the units in its table of units.
    ids, regions : (unit,) arrays of str
    spikes : int
        How many they have in all.
    """

    session: Session
    rows: NDArray[np.int64]
    ids: NDArray[Any]
    regions: NDArray[Any]
    spikes: int = 0

    @cached_property
    def _by_kind(self) -> tuple[list[Intervals], NDArray[np.int64]]:
        """Observed times that differ, and which of them is each unit's (unit,)."""
        alike = np.zeros(len(self.ids), dtype=np.int64)
        if "intervals/observed" not in self.session.tables:
            row, clock = self.session.attrs["row"], self.session.clock
            if row["start"] is None:
                return [Intervals()], alike
            return [Intervals(clock.ticks([row["start"]]), clock.ticks([row["stop"]]))], alike
        columns = self.session.stored("intervals/observed").columns
        if "unit" not in columns or not len(self.ids):
            return [self.session.observed()], alike
        start, stop, unit = (
            np.asarray(columns[key].values[:]) for key in ("start", "stop", "unit")
        )
        order = np.argsort(unit, kind="stable")
        first, last = (np.searchsorted(unit[order], self.rows, side=s) for s in ("left", "right"))
        rows = [order[low:high] for low, high in zip(first, last, strict=True)]
        found: dict[Intervals, int] = {}
        kind = [found.setdefault(Intervals(start[own], stop[own]), len(found)) for own in rows]
        return list(found), np.array(kind, dtype=np.int64)

    @property
    def kinds(self) -> list[Intervals]:
        """Observed times that differ from one another; units share them."""
        return self._by_kind[0]

    @property
    def kind(self) -> NDArray[np.int64]:
        """Which of `kinds` is the observed time of each unit, (unit,)."""
        return self._by_kind[1]

    @property
    def differs(self) -> bool:
        """Whether units were observed at different times."""
        return len(self.kinds) > 1

    @cached_property
    def any_observed(self) -> Intervals:
        """When at least one of the units was observed."""
        made = Intervals()
        for one in self.kinds:
            made = made | one
        return made

    def seen(self, edges: Ticks) -> NDArray[np.bool_]:
        """Whether each bin between edges (window, bin + 1) is observed, (window, unit, bin)."""
        covered = [one.covers(edges[:, :-1], edges[:, 1:]) for one in self.kinds]
        made = np.stack(covered, axis=1)
        return made[:, self.kind] if self.differs else _repeated(made, len(self.ids))

    def saw(self, column: NDArray[np.int64], tick: Ticks) -> NDArray[np.bool_]:
        """Whether the unit in place `column` (spike,) was observed at a tick (spike,)."""
        if not self.differs:
            return self.any_observed.contains(tick)
        made, kind = np.zeros(len(tick), dtype=bool), self.kind[column]
        for number, one in enumerate(self.kinds):
            own = np.flatnonzero(kind == number)
            made[own] = one.contains(tick[own])
        return made


class Reader(Protocol):
    """A stream bound to sessions."""

    @property
    def steps(self) -> Mapping[str, tuple[int, int, int]]:
        """By tensor: its axis of time, and how many steps of it are history and horizon."""

    def missing(self, row: int) -> str | None:
        """What session `row` lacks, in words; None where it lacks nothing."""

    def read(self, row: int, start: Ticks) -> Values:
        """Windows of session `row` from start ticks (window,) on."""


class Stream(Protocol):
    """A named input that a dataset serves."""

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        """Bind it to the sessions of a dataset; nothing is read yet.

        Raises
        ------
        UsageError
            Where no session has what it reads, or the window does not divide into its steps.
        """


# ---- spikes


@dataclass(frozen=True)
class Spikes:
    """Spike counts (window, unit, bin) int32, exact on ticks.

    Parameters
    ----------
    bin : float
        Seconds; history and horizon are whole numbers of bins. Bin k of a window starts
        floor(k · bin · rate) ticks after the window.
    """

    bin: Number

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        """Bind it to sessions."""
        past, future = (_whole(name, part, self.bin, window) for part in ("history", "horizon"))
        _refuse_without_spikes(name, sessions)
        for one in sessions:
            one.session.clock.edges(0, 1, self.bin)
        return _Counts(name, list(sessions), self.bin, past + future, {name: (2, past, future)})


@dataclass(frozen=True)
class _Counts:
    name: str
    sessions: list[Chosen]
    bin: Number
    bins: int
    steps: dict[str, tuple[int, int, int]]

    def missing(self, row: int) -> str | None:
        return no_spikes(self.sessions[row])

    def read(self, row: int, start: Ticks) -> Values:
        chosen = self.sessions[row]
        offsets = chosen.session.clock.edges(0, self.bins, self.bin)
        shape = (len(start), len(chosen.ids), self.bins)
        if self.missing(row):
            return {self.name: (np.zeros(shape, np.int32), _reason(shape, Reason.NOT_RECORDED))}
        counts = _count(chosen, start, offsets)
        seen = chosen.seen(start[:, None] + offsets)
        counts *= seen
        return {self.name: (counts, _reason_where(seen, Reason.OUTSIDE))}


def _count(chosen: Chosen, start: Ticks, offsets: Ticks) -> NDArray[np.int32]:
    """Counts (window, unit, bin) between start + offsets, by one histogram over all windows."""
    windows, units, bins = len(start), len(chosen.ids), len(offsets) - 1
    events = chosen.session.events(start, start + offsets[-1])
    column = columns(chosen)[events.unit]
    mine = column >= 0
    window, column = events.window[mine], column[mine]
    bin = np.searchsorted(offsets, events.time[mine] - start[window], side="right") - 1
    flat = (window * units + column) * bins + bin
    counts = np.bincount(flat, minlength=windows * units * bins)
    return counts.reshape(windows, units, bins).astype(np.int32)


def columns(chosen: Chosen) -> NDArray[np.int64]:
    """Row of the table of units → place among the chosen ones, -1 where not chosen."""
    made = np.full(chosen.session.attrs["row"]["n_units"], -1, dtype=np.int64)
    made[chosen.rows] = np.arange(len(chosen.rows))
    return made


@dataclass(frozen=True)
class SpikeEvents:
    """Spikes as events: `<name>.time` and `<name>.unit` (window, event), `<name>.observed`.

    Time is float32 seconds from the start of the window, ascending; unit is a place along the unit
    axis of the batch; `observed` (window, unit) bool says whether the unit was observed throughout
    the window, so that no spike is told from no observation. A spike outside the observed time of
    its unit is masked in its place. Windows with fewer events than the longest are padded: their
    mask is False there.
    """

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        """Bind it to sessions."""
        _refuse_without_spikes(name, sessions)
        return _Events(name, list(sessions), window)


@dataclass(frozen=True)
class _Events:
    name: str
    sessions: list[Chosen]
    window: Window
    steps: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def missing(self, row: int) -> str | None:
        return no_spikes(self.sessions[row])

    def read(self, row: int, start: Ticks) -> Values:
        chosen = self.sessions[row]
        stop = start + self.window.ticks(chosen.session.clock)[1]
        units = (len(start), len(chosen.ids))
        if self.missing(row):
            none, lost = np.zeros((len(start), 0)), _reason(units, Reason.NOT_RECORDED)
            time, unit = none.astype(np.float32), none.astype(np.int64)
            seen = np.zeros(units, bool)
            reason = _reason(none.shape, Reason.NOT_RECORDED)
            return self._named((time, reason), (unit, reason), (seen, lost))
        seen = chosen.seen(np.stack([start, stop], axis=1))[:, :, 0]
        events = chosen.session.events(start, stop)
        column = columns(chosen)[events.unit]
        kept = column >= 0
        window, column = events.window[kept], column[kept]
        seconds = chosen.session.clock.seconds(events.time[kept] - start[window])
        count = np.bincount(window, minlength=len(start))
        place = np.arange(len(window)) - np.repeat(np.cumsum(count) - count, count)
        shape = (len(start), int(count.max(initial=0)))
        time, unit = np.zeros(shape, np.float32), np.zeros(shape, np.int64)
        saw = chosen.saw(column, events.time[kept])
        time[window, place], unit[window, place] = seconds * saw, column * saw
        reason = _reason(shape, Reason.NOT_RECORDED)
        reason[window, place] = _reason_where(saw, Reason.OUTSIDE)
        observed = (seen, _reason_where(seen, Reason.OUTSIDE))
        return self._named((time, reason), (unit, reason), observed)

    def _named(self, time: Any, unit: Any, observed: Any) -> Values:
        parts = {"time": time, "unit": unit, "observed": observed}
        return {f"{self.name}.{part}": values for part, values in parts.items()}


def no_spikes(chosen: Chosen) -> str | None:
    """What of spikes and units a session lacks; None where it has both."""
    if "spikes" not in chosen.session.tables:
        return "spikes"
    return None if len(chosen.ids) else "units"


def _refuse_without_spikes(name: str, sessions: Sequence[Chosen]) -> None:
    if all(no_spikes(one) for one in sessions):
        raise UsageError(
            f"The stream {name!r} reads spikes of units, and none of the {len(sessions)} sessions "
            "chosen has both."
        )


# ---- behaviour


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
        past, future = (_whole(name, part, step, window) for part in ("history", "horizon"))
        having = [one.session for one in sessions if table in one.session.tables]
        if not having:
            _refuse_missing_table("behaviour", self.name, sessions)
        for one in having:
            one.clock.edges(0, 1, step)
        shapes = {one.id: one.stored(table).columns["value"].values.shape[1:] for one in having}
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

    def read(self, row: int, start: Ticks) -> Values:
        shape = (len(start), self.samples)
        if self.missing(row):
            lost = np.zeros(shape + self.channels, np.float32)
            return {self.name: (lost, _reason(shape, Reason.NOT_RECORDED))}
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
        table = session.stored(f"behaviour/{stream.name}")
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


# ---- trials


@dataclass(frozen=True)
class Trials:
    """Columns of the trial that the window's present lies in: `<name>.<column>`, each (window,).

    Numbers are float32, times seconds from the start of the window, so that none says when in the
    session it lies; text is int64 codes into ``dataset.categories["<name>.<column>"]``.

    Parameters
    ----------
    columns : sequence of str
        Plain columns of the interval table.
    table : str
        The interval table.
    """

    columns: tuple[str, ...]
    table: str = "trials"

    def __post_init__(self) -> None:
        if isinstance(self.columns, str):
            raise UsageError(f"Trials takes a tuple of columns, found the text {self.columns!r}.")
        object.__setattr__(self, "columns", tuple(self.columns))

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        """Bind it to sessions."""
        having = [one for one in sessions if f"intervals/{self.table}" in one.session.tables]
        if not having:
            _refuse_missing_table("intervals", self.table, sessions)
        known = {
            column
            for one in having
            for column in one.session.stored(f"intervals/{self.table}").columns
        }
        for column in self.columns:
            if column not in known:
                raise NotFoundError("column", column, known, f"intervals/{self.table}")
        self._refuse_unlike(name, having)
        return _Rows(name, self, list(sessions), window)

    def _refuse_unlike(self, name: str, sessions: Sequence[Chosen]) -> None:
        """Refuse a column of many values a row, or of text here and numbers there."""
        tables = {one.session.id: one.session.stored(f"intervals/{self.table}") for one in sessions}
        for column in self.columns:
            found = {id: t.columns[column] for id, t in tables.items() if column in t.columns}
            for id, one in found.items():
                if len(one.dims) != 1:
                    raise UsageError(
                        f"The stream {name!r} takes columns of one value a row, found "
                        f"{self.table}.{column} of {id} with dimensions {', '.join(one.dims)}."
                    )
            kinds = {id: _is_text(one) for id, one in found.items()}
            if len(set(kinds.values())) > 1:
                text, number = (
                    next(id for id, is_text in kinds.items() if is_text is kind)
                    for kind in (True, False)
                )
                raise UsageError(
                    f"The stream {name!r} reads {self.table}.{column}, which is text in {text} and "
                    f"numbers in {number}. Take one of them, or leave out the column."
                )


@dataclass(frozen=True)
class _Rows:
    name: str
    stream: Trials
    sessions: list[Chosen]
    window: Window
    steps: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    _tables: dict[int, TrialTable | None] = field(default_factory=dict, repr=False)

    def missing(self, row: int) -> str | None:
        table = self._table(row)
        if table is None:
            return self.stream.table
        lost = [name for name in self.stream.columns if name not in table.columns]
        return f"{self.stream.table}.{lost[0]}" if lost else None

    def _table(self, row: int) -> TrialTable | None:
        if row not in self._tables:
            session = self.sessions[row].session
            self._tables[row] = TrialTable.load(session, self.stream.table, self.stream.columns)
        return self._tables[row]

    @cached_property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """By tensor: the texts that its codes stand for."""
        made: dict[str, set[str]] = {}
        for row in range(len(self.sessions)):
            table = self._table(row)
            for name, values in (table.columns if table else {}).items():
                if values.dtype.kind not in "biuf":
                    made.setdefault(f"{self.name}.{name}", set()).update(map(str, values))
        return {name: tuple(sorted(texts)) for name, texts in sorted(made.items())}

    def read(self, row: int, start: Ticks) -> Values:
        table = self._table(row)
        present = start + self.window.ticks(self.sessions[row].session.clock)[0]
        trial = table.row(present) if table else np.full(len(start), -1)
        return {
            f"{self.name}.{column}": self._read(table, column, trial, start)
            for column in self.stream.columns
        }

    def _read(
        self, table: TrialTable | None, column: str, trial: Ticks, start: Ticks
    ) -> tuple[NDArray[Any], Reasons]:
        name = f"{self.name}.{column}"
        texts = self.categories.get(name)
        made = np.zeros(len(trial), np.float32 if texts is None else np.int64)
        if table is None or column not in table.columns:
            return made, _reason(made.shape, Reason.NOT_RECORDED)
        reason = _reason_where(trial >= 0, Reason.OUTSIDE)
        inside = np.flatnonzero(trial >= 0)
        if texts is not None:
            said = [str(one) for one in table.columns[column][trial[inside]]]
            made[inside] = np.searchsorted(np.array(texts), np.array(said))
            return made, reason
        numbers = table.numbers(column, trial[inside], start[inside])
        good = np.isfinite(numbers)
        made[inside[good]] = numbers[good]
        reason[inside[~good]] = Reason.INVALID
        return made, reason


@dataclass(frozen=True)
class TrialTable:
    """Valid rows of an interval table by start, with some of its columns; times stay ticks."""

    clock: Clock
    start: Ticks
    stop: Ticks
    number: Ticks
    columns: dict[str, NDArray[Any]]
    timed: frozenset[str]

    @classmethod
    def load(cls, session: Session, table: str, columns: Sequence[str]) -> TrialTable | None:
        """Read it from a session; None where the session has no such table."""
        if f"intervals/{table}" not in session.tables:
            return None
        stored = session.stored(f"intervals/{table}").columns
        start, stop, valid = (
            np.asarray(stored[name].values[:]) for name in ("start", "stop", "valid")
        )
        rows = np.flatnonzero(valid)
        rows = rows[np.argsort(start[rows], kind="stable")]
        kept = {
            name: _plain(stored[name], stored.get(f"{name}_valid"))
            for name in columns
            if name in stored
        }
        timed = frozenset(name for name in kept if stored[name].attrs.get("units") == "tick")
        return cls(session.clock, start[rows], stop[rows], rows, kept, timed)

    def numbers(self, column: str, row: Ticks, start: Ticks) -> NDArray[np.float64]:
        """A column in some rows (window,), NaN where missing; times from start ticks (window,)."""
        values = self.columns[column][row]
        if column not in self.timed:
            return values.astype(np.float64)
        return np.where(values == MISSING, np.nan, self.clock.seconds(values - start))

    def row(self, tick: Ticks) -> Ticks:
        """Number (tick,) of the row of the table that each tick lies in; -1 in none.

        Of rows that overlap, the one that started last.
        """
        edge, number = self._flat
        return number[np.searchsorted(edge, tick, side="right")]

    @cached_property
    def _flat(self) -> tuple[Ticks, Ticks]:
        """Edges (edge,) of all rows, and the row before the first, between them, after the last."""
        edge = np.unique(np.concatenate([self.start, self.stop]))
        number = np.full(len(edge) + 1, -1, dtype=np.int64)
        first, last = (np.searchsorted(edge, ticks) + 1 for ticks in (self.start, self.stop))
        for row in range(len(self.start)):
            number[first[row] : last[row]] = self.number[row]
        return edge, number


def _is_text(column: Column) -> bool:
    return np.dtype(column.values.dtype).kind not in "biuf"


def _plain(column: Column, valid: Column | None) -> NDArray[Any]:
    """Values of a column of one value a row; ticks that are not valid as `MISSING`."""
    values = np.asarray(column.values[:])
    if column.attrs.get("units") == "tick" and valid is not None:
        return np.where(np.asarray(valid.values[:]), values, MISSING)
    return values


# ---- shared


def _repeated(one: NDArray[np.bool_], units: int) -> NDArray[np.bool_]:
    """What holds for all units (window, 1, bin), for each of them, on the same memory."""
    return np.broadcast_to(one, (len(one), units, one.shape[2]))


def _reason(shape: tuple[int, ...], reason: Reason) -> Reasons:
    return np.full(shape, reason, dtype=np.uint8)


def _reason_where(seen: NDArray[np.bool_], otherwise: Reason) -> Reasons:
    return np.where(seen, np.uint8(Reason.OBSERVED), np.uint8(otherwise))


def _whole(name: str, part: str, step: Number, window: Window) -> int:
    """How many steps the history or the horizon of a window holds; it must be a whole number."""
    seconds = exact(getattr(window, part))
    if exact(step) <= 0:
        raise UsageError(f"The stream {name!r} needs steps longer than 0 s, found {step} s.")
    count = seconds / exact(step)
    if count.denominator != 1:
        raise UsageError(
            f"The {part} of {float(seconds):g} s is {float(count):g} steps of "
            f"{float(exact(step)):g} s of the stream {name!r}; it must be a whole number of them."
        )
    return int(count)


def _refuse_missing_table(kind: str, name: str, sessions: Sequence[Chosen]) -> None:
    prefix = f"{kind}/"
    known = {
        table.removeprefix(prefix)
        for one in sessions
        for table in one.session.tables
        if table.startswith(prefix)
    }
    raise NotFoundError(kind, name, known, f"any of the {len(sessions)} sessions chosen")
