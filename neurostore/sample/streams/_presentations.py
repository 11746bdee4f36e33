"""What was on the screen in a window: numbers of frames, frames or embeddings, joined when read.

A window needs a few frames of a stimulus that all sessions share: the presentations say which, and
those alone are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.cache import Checked
from neurostore.clocks import MISSING, exact
from neurostore.errors import JSON, UsageError
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
from neurostore.sample.streams._trials import TrialTable

if TYPE_CHECKING:
    from pathlib import Path

    from neurostore.cache import Cache
    from neurostore.store import Embedding, Session
    from neurostore.store import StoredStimulus as Stimulus

FRAME, STIMULUS = "frame", "stimulus"
_FAR = 2**62
KEPT = 1 << 30
"""Bytes of frames up to which those that were read stay in memory, each once."""


@dataclass(frozen=True)
class Presentation:
    """What was on the screen at the start of every bin: (window, bin, ...).

    Bin k of a window starts floor(k · bin · rate) ticks after it, and has what a valid presentation
    with start <= tick < stop showed; of several the one that started last. A bin without is masked:
    `OUTSIDE` between presentations, `BLANK` while a blank was shown, `INVALID` from the start of a
    presentation that is not valid until its stop or the next start, `NOT_RECORDED` in a session
    without the table.

    A bin knows nothing of what is shown after its own start, so the history knows nothing of the
    horizon. The horizon's bins have what was shown in the horizon: for a model of responses that
    is its input, for a forecast it is the future. With a `lag` of the horizon or more they, too,
    have only what was shown before the present. A lag reaches back before the start of the window,
    out of the block of a split too: to the stimulus, never to activity.

    Parameters
    ----------
    name : str
        The presentations: ``"movie"`` for the table ``presentations/movie``.
    what : str
        ``"frame"`` for the number of the frame, int64; ``"stimulus"`` for the frame itself, in its
        own dtype; else an embedding, float32: ``"clip_l14"``, or ``"clip_l14/v1"`` for a version
        that is not the newest.
    rate : float, or bin : float
        Bins a second, or seconds a bin; history and horizon are whole numbers of bins.
    lag : float
        Seconds, 0 or more: what was on the screen so long before the start of the bin.
    """

    name: str
    what: str = FRAME
    rate: Number | None = None
    bin: Number | None = None
    lag: Number = 0

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        """Bind it to sessions; every row is held against the frames of its stimulus."""
        step = self._step(name)
        past, future = (whole(name, part, step, window) for part in ("history", "horizon"))
        table = f"presentations/{self.name}"
        if not any(table in one.session.tables for one in sessions):
            refuse_missing_table("presentations", self.name, sessions)
        sources: dict[str, _Source] = {}
        which = np.full(len(sessions), -1, dtype=np.int64)
        for row, one in enumerate(sessions):
            if table not in one.session.tables:
                continue
            one.session.clock.edges(0, 1, step)
            shown = _stimulus(one.session, table, needed=self.what != FRAME)
            if shown is not None and self.what != FRAME:
                if shown.name not in sources:
                    sources[shown.name] = _Source.of(shown, self.what)
                which[row] = list(sources).index(shown.name)
        found = list(sources.values())
        _refuse_unlike(name, found)
        steps = {name: (1, past, future)}
        return _Shown(name, self, list(sessions), step, past + future, steps, found, which)

    def _step(self, name: str) -> Number:
        if exact(self.lag) < 0:
            raise UsageError(
                f"The stream {name!r} has a lag of {self.lag} s: a bin would know what is shown "
                "after it, and the history what is shown after the present. Take 0 or more."
            )
        if (self.rate is None) == (self.bin is None):
            raise UsageError(f"The stream {name!r} needs either rate= or bin=, found {self}.")
        if self.bin is not None:
            return self.bin
        hertz = exact(self.rate or 0)
        if hertz <= 0:
            raise UsageError(f"The stream {name!r} needs a rate above 0 Hz, found {self.rate}.")
        return 1 / hertz


def _stimulus(session: Session, table: str, *, needed: bool) -> Stimulus | None:
    """The stimulus of a table of presentations, its rows checked; None where it is not stored."""
    shown = session.table(table)
    name, store = str(shown.attrs.get("stimulus", "")), session.store
    if not needed and all(one["stimulus"] != name for one in store.stimulus_rows):
        return None
    found = store.stimulus(name)
    found.refuse_beyond(session.id, shown)
    return found


def _refuse_unlike(name: str, sources: Sequence[_Source]) -> None:
    for one in sources[1:]:
        if (one.shape, one.dtype) != (sources[0].shape, sources[0].dtype):
            raise UsageError(
                f"The stream {name!r} joins stimuli that are not alike: {sources[0]} and {one}. "
                "Take one of them, or an embedding that both have."
            )


@dataclass(frozen=True, eq=False)
class _Source:
    """What one stimulus gives for the number of a frame, for all sessions that saw it."""

    name: str
    title: str
    digests: dict[str, JSON]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stimulus: Stimulus
    embedding: Embedding | None = None
    frames: Any = None

    @classmethod
    def of(cls, stimulus: Stimulus, what: str) -> _Source:
        said: dict[str, JSON] = {"stimulus": stimulus.digest}
        if what == STIMULUS:
            frames = stimulus.frames
            kind = (frames.shape[1:], frames.dtype, stimulus)
            return cls(stimulus.name, what, said, *kind, frames=frames)
        found = stimulus.mapped(what)
        said |= {"embedding": found.title, "values": found.digest}
        dtype = np.dtype(np.float32)
        kind = (found.shape[1:], dtype, stimulus)
        return cls(stimulus.name, found.title, said, *kind, embedding=found)

    def put(self, into: Cache) -> Path:
        """Put what is read of it into a cache; gives the file."""
        return self.stimulus.put(None if self.embedding is None else self.title, into)

    @cached_property
    def _table(self) -> Checked | NDArray[Any]:
        """The embedding once for all sessions: mapped, or in memory where there is no cache."""
        if self.embedding is None:
            return np.zeros(0)
        values = self.embedding.values
        return values if isinstance(values, Checked) else self.embedding.read()

    @cached_property
    def _decoded(self) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Room for all frames, which takes memory only where it is written, and which are there."""
        return np.zeros(self.frames.shape, self.dtype), np.zeros(len(self.frames), bool)

    def take(self, rows: Ticks) -> NDArray[Any]:
        """Frames or vectors (row, ...) of some rows, ascending and each once."""
        if self.frames is None:
            if isinstance(self._table, Checked) and self._table.entry.damaged:
                found = self.stimulus.mapped(self.title)
                self.__dict__["_table"] = replace(self, embedding=found)._table
            return np.asarray(self._table[rows], dtype=self.dtype)
        if (
            isinstance(self.frames.flat, Checked)
            or prod(self.frames.shape) * self.dtype.itemsize > KEPT
        ):
            return np.asarray(self.frames[rows])
        kept, there = self._decoded
        new = rows[~there[rows]]
        if len(new):
            kept[new] = self.frames[new]
            there[new] = True
        return kept[rows]

    def __str__(self) -> str:
        return f"{self.title} of {self.name!r} {self.shape} {self.dtype}"


@dataclass(frozen=True, eq=False)
class _Shown:
    name: str
    stream: Presentation
    sessions: list[Chosen]
    step: Number
    bins: int
    steps: dict[str, tuple[int, int, int]]
    sources: list[_Source]
    which: Ticks
    _tables: dict[int, _Timeline] = field(default_factory=dict, repr=False)

    @property
    def tables(self) -> tuple[str, ...]:
        return (f"presentations/{self.stream.name}",)

    def missing(self, row: int) -> str | None:
        table = f"presentations/{self.stream.name}"
        return None if table in self.sessions[row].session.tables else self.stream.name

    def identity(self) -> dict[str, JSON]:
        """By stimulus: digests of what is read of it."""
        return {"stimuli": {one.name: one.digests for one in self.sources}}

    def put(self, into: Cache) -> Iterator[Path]:
        """Put what is read beside tables into a cache; gives the files."""
        return (one.put(into) for one in self.sources)

    def read(self, at: Address) -> Values:
        number, reason = by_session(at, self._windows)[self.name]
        if self.stream.what == FRAME:
            return {self.name: (number, reason)}
        first = self.sources[0]
        made = np.zeros(number.shape + first.shape, first.dtype)
        for place, source in enumerate(self.sources):
            here = (reason == Reason.OBSERVED) & (self.which[at.session] == place)[:, None]
            rows, back = np.unique(number[here], return_inverse=True)
            if len(rows):
                made[here] = source.take(rows)[back]
        return {self.name: (made, reason)}

    def _windows(self, row: int, start: Ticks) -> Values:
        shape = (len(start), self.bins)
        if self.missing(row):
            return {self.name: (np.zeros(shape, np.int64), reasons(shape, Reason.NOT_RECORDED))}
        session = self.sessions[row].session
        if row not in self._tables:
            self._tables[row] = _Timeline.load(session, f"presentations/{self.stream.name}")
        lag = ceil(exact(self.stream.lag) * session.clock.rate)  # the last tick at or before it
        tick = start[:, None] + session.clock.edges(-lag, self.bins, self.step)[:-1]
        return {self.name: self._tables[row].at(tick)}


@dataclass(frozen=True, eq=False)
class _Timeline:
    """Presentations of a session in memory.

    Attributes
    ----------
    shown : TrialTable
        The valid ones.
    frame : (presentation,) int64
        The row of the stimulus, -1 for a blank; and once more -1, for no presentation.
    started, until : (presentation,) int64
        Where those with a start began, ascending; the tick up to which one that is not valid may
        be on the screen, `MISSING` for a valid one, and once more for none.
    """

    shown: TrialTable
    frame: Ticks
    started: Ticks
    until: Ticks

    @classmethod
    def load(cls, session: Session, table: str) -> _Timeline:
        """Read the presentations of a session."""
        columns = session.table(table).columns
        start, stop, valid, frame = (
            np.asarray(columns[name].values[:]) for name in ("start", "stop", "valid", "row")
        )
        there = np.flatnonzero(start != MISSING)
        there = there[np.argsort(start[there], kind="stable")]
        good = there[valid[there]]
        until = np.where(valid, MISSING, np.where(stop == MISSING, _FAR, stop))
        shown = TrialTable(session.clock, start[good], stop[good], good, {}, frozenset())
        return cls(shown, np.append(frame, -1), start[there], np.append(until[there], MISSING))

    def at(self, tick: Ticks) -> tuple[Ticks, Reasons]:
        """The row of the stimulus on the screen at each tick, in the shape of `tick`, and why."""
        place = self.shown.row(tick)
        frame = self.frame[place]
        last = np.searchsorted(self.started, tick, side="right") - 1
        unsure = tick < self.until[last]  # before all, -1: the one for none
        reason = np.where(unsure, Reason.INVALID, Reason.OUTSIDE).astype(np.uint8)
        reason[place >= 0] = Reason.OBSERVED
        reason[(place >= 0) & (frame < 0)] = Reason.BLANK
        return np.where(reason == Reason.OBSERVED, frame, 0), reason
