"""Behaviour in a window: samples interpolated at a rate of the stream's own, never over a gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neurostore import kernels
from neurostore.clocks import exact
from neurostore.errors import UsageError
from neurostore.sample._chosen import Chosen
from neurostore.sample.batch import Reason, Reasons, Values
from neurostore.sample.plan import Address, Number, Ticks, Window
from neurostore.sample.streams._series import FAR, Series
from neurostore.sample.streams._stream import Reader, reasons, refuse_missing_table, whole

_REASONS = (int(Reason.OUTSIDE), int(Reason.INVALID))
_ALL = (np.zeros(0, np.int64), np.zeros(0, np.int64))


@dataclass(frozen=True)
class Behaviour:
    """A behaviour series at a rate of its own: (window, time) or (window, time, channel) float32.

    Sample k of a window lies floor(k / rate · clock rate) ticks after its start, interpolated
    linearly between the valid samples on both sides. The history of a window with a horizon looks
    at nothing recorded from the present on: its last samples keep the last valid value before.
    At the ends of a window the recorded sample next to it counts. With a split that is one of the
    block, or of what the history may reach; where it would be another, it is as if it were not
    recorded, and what lies between is masked as outside.

    Parameters
    ----------
    name : str
        The series: ``"position"`` for the table ``behaviour/position``.
    rate : float
        Samples per second; history and horizon hold whole numbers of them.
    max_gap : float, optional
        Seconds between two valid samples beyond which nothing is interpolated; without it 1.5
        times the median distance of all samples of the session, whatever the split: when samples
        were taken tells nothing of their values.
    causal : bool
        Give each sample the last valid value at or before it, not older than `max_gap`, instead:
        none knows what came after its own time.
    """

    name: str
    rate: Number
    max_gap: Number | None = None
    causal: bool = False

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
    _bound: dict[int, _Bound | None] = field(default_factory=dict, repr=False)

    @property
    def tables(self) -> tuple[str, ...]:
        return (f"behaviour/{self.stream.name}",)

    def missing(self, row: int) -> str | None:
        table = f"behaviour/{self.stream.name}"
        return None if table in self.sessions[row].session.tables else self.stream.name

    def read(self, at: Address) -> Values:
        shape = (len(at.start), self.samples)
        made = np.zeros((*shape, *self.channels), np.float32)
        why = reasons(shape, Reason.NOT_RECORDED)
        flat = made.reshape(*shape, int(np.prod(self.channels, dtype=np.int64)))
        for row, place in at.by_session:
            bound = self._bind(row)
            if bound is None:
                continue
            known = None if at.known is None else (at.known[0][place], at.known[1][place])
            if kernels.ready():
                bound.fill(at.start[place], place, flat, why, known)
            else:
                flat[place], why[place] = bound.plain(at.start[place], known)
        return {self.name: (made, why)}

    def _bind(self, row: int) -> _Bound | None:
        if row not in self._bound:
            self._bound[row] = None if self.missing(row) else self._load(row)
        return self._bound[row]

    def _load(self, row: int) -> _Bound:
        session, said = self.sessions[row].session, self.stream
        series = Series.load(session, said.name, said.max_gap)
        offset = session.clock.edges(0, self.samples, 1 / exact(said.rate))[:-1]
        _, past, horizon = self.steps[self.name]
        present = self.window.ticks(session.clock)[0]
        return _Bound(series, offset, past if horizon else 0, present, said.causal)


@dataclass(frozen=True)
class _Bound:
    """The series of one session and where the samples of a window lie, in ticks from its start.

    The first `past` samples know nothing that was recorded `present` ticks after it or later.
    """

    series: Series
    offset: Ticks
    past: int
    present: int
    causal: bool

    def plain(
        self, start: Ticks, known: tuple[Ticks, Ticks] | None = None
    ) -> tuple[NDArray[np.float32], Reasons]:
        """Values (window, time, channel) and reasons (window, time) of windows by start.

        With `known`, samples outside of ticks [low, high), (window,) each, do not count.
        """
        at = start[:, None] + self.offset
        before = self._before(start, at).ravel()
        if known is not None:
            known = np.repeat(known[0], at.shape[1]), np.repeat(known[1], at.shape[1])
        value, reason = self.series.at(at.ravel(), before, known)
        return value.reshape(*at.shape, value.shape[1]), reason.reshape(at.shape)

    def _before(self, start: Ticks, at: Ticks) -> Ticks:
        """The tick (window, time) from which on a sample may not know what was recorded."""
        if self.causal:
            return at + 1
        before = np.full(at.shape, FAR)
        before[:, : self.past] = start[:, None] + self.present
        return before

    def fill(
        self,
        start: Ticks,
        place: Ticks,
        out: NDArray[np.float32],
        why: NDArray[np.uint8],
        known: tuple[Ticks, Ticks] | None = None,
    ) -> None:
        """The same, compiled, into the rows `place` (window,) of a batch."""
        from neurostore.kernels._behaviour import interpolate

        series = self.series
        interpolate(
            series.value,
            series.time,
            series.grid,
            series.lost_start,
            series.lost_stop,
            place,
            start,
            *(_ALL if known is None else known),
            self.offset,
            self.past,
            self.present,
            series.max_gap,
            self.causal,
            _REASONS,
            out,
            why,
        )
