"""A dense table of a session: which row a time is, which are missing, what was observed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurostore.cache import Cache, Checked, Entry, Writer
from neurostore.errors import UsageError
from neurostore.sample.acquisition import Grid
from neurostore.sample.batch import Reason, Reasons
from neurostore.sample.plan import Ticks, steps
from neurostore.schemas import Table, Values

_COMPILED = tuple(np.dtype(kind) for kind in ("f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4"))
_GAP = Fraction(3, 2)
"""Times further apart than so many steps have a gap between them."""


@dataclass(frozen=True, eq=False)
class Axis:
    """When the rows of a table are: every `step` ticks from `first`, or at times of their own.

    Attributes
    ----------
    step : Fraction
        Ticks from one row to the next; of rows at times, what their stream says.
    time : (row,) int64, optional
        Ticks, ascending.
    """

    first: int
    step: Fraction
    rows: int
    time: Ticks | None = None

    def row(self, tick: Ticks) -> Ticks:
        """The first row at each tick (window,), or after it; below 0 before a regular table."""
        if self.time is not None:
            return np.searchsorted(self.time, tick, side="left")
        above, below = self.step.numerator, self.step.denominator
        since = tick - self.first
        if len(since) and int(np.abs(since).max()) * below >= 2**62:
            return np.array([-(-int(one) * below // above) for one in since], dtype=np.int64)
        return -(-since * below // above)

    def ticks(self, row: Ticks) -> Ticks:
        """When rows are; of rows at times, those there are."""
        if self.time is not None:
            return self.time[row]
        return self.first + steps(row, self.step)

    def lost(self, row: Ticks, start: Ticks, stop: Ticks) -> Reasons:
        """Why rows (window, step) are not there, in windows from start (window,), 0 where they are.

        A row outside of the table, or not before the tick stop (window, step), is outside; so are
        those of a window from a gap in the times on, which would stand at steps that they are not.
        """
        inside = (row >= 0) & (row < self.rows)
        at = np.clip(row, 0, max(self.rows - 1, 0))
        if self.rows:
            inside &= self.ticks(at) < stop
        if self.time is not None and self.rows:
            first = np.minimum(self.row(start), self.rows - 1)
            near = self.time[first] - start <= floor(_GAP * self.step)
            inside &= near[:, None] & (self._piece[at] == self._piece[first][:, None])
        return np.where(inside, np.uint8(0), np.uint8(Reason.OUTSIDE))

    @cached_property
    def _piece(self) -> Ticks:
        """Number (row,) of the stretch without a gap that a row lies in."""
        assert self.time is not None
        gap = np.diff(self.time) > floor(_GAP * self.step)
        return np.concatenate([[0], np.cumsum(gap)])

    def grid(self, every: int, said: str) -> Grid:
        """Windows that start on a row that is a multiple of `every`."""
        row = np.arange(0, self.rows, every, dtype=np.int64)
        return Grid(self.ticks(row), self.step * every, said)


def axis_of(table: Table, step: Fraction, where: str) -> Axis:
    """The axis of a table whose rows are `step` ticks apart.

    Raises
    ------
    UsageError
        Where two rows share a tick.
    """
    if step < 1:
        raise UsageError(
            f"The rows of {where} are {float(step):g} ticks apart, and a tick holds one at most. "
            "Store the session on a faster clock: SessionBuilder(..., rate=...)."
        )
    if "time" not in table.columns:
        return Axis(int(str(table.attrs["start"])), step, table.rows)
    time = np.asarray(table.columns["time"].values[:])
    if (np.diff(time) <= 0).any() or (len(time) and time[0] == np.iinfo(np.int64).min):
        raise UsageError(
            f"The rows of {where} have times that are missing or alike; steps cannot be counted. "
            "Store it without those rows, or with a start and a rate."
        )
    return Axis(int(time[0]) if len(time) else 0, step, len(time), time)


@dataclass(frozen=True, eq=False)
class Matrix:
    """Values (row, channel), row-major; those of a window cache are verified as they are read."""

    values: NDArray[Any]
    kept: Checked | None = None

    @classmethod
    def of(cls, source: Values) -> Matrix:
        """A column where it lies as an array, else in memory."""
        width = int(np.prod(source.shape[1:], dtype=np.int64))
        if isinstance(source, Checked) and source.dtype in _COMPILED:
            return cls(source.array.reshape(len(source), width), source)
        values = np.asarray(source[:])
        if values.dtype not in _COMPILED:
            values = values.astype(np.float32)
        return cls(np.ascontiguousarray(values).reshape(len(values), width))

    @property
    def damaged(self) -> bool:
        """Whether what was read of it was not what had been written."""
        return self.kept is not None and self.kept.entry.damaged

    def gather(
        self, row: Ticks, lost: Reasons, place: Ticks, out: NDArray[np.float32], why: Reasons
    ) -> None:
        """Whole rows (window, step) into out[place] and why[place]; see `gather_rows`."""
        self.check(row[lost == 0])
        from neurostore.kernels._dense import gather_rows

        gather_rows(self.values, row, lost, int(Reason.INVALID), place, out, why)

    def check(self, row: Ticks | None = None) -> None:
        """Verify rows (n,) that are about to be read, or all.

        Raises
        ------
        DamagedError
            Where they are not what was written.
        """
        if self.kept is not None and row is None:
            self.kept.entry.check(self.kept.name)
        elif self.kept is not None and row is not None:
            self.kept.entry.check_rows(self.kept.name, row)


@dataclass(frozen=True, eq=False)
class Dense:
    """The values of a table with its axis, and which of its rows (row,) are valid."""

    axis: Axis
    matrix: Matrix
    valid: NDArray[np.bool_] | None

    @classmethod
    def load(cls, table: Table, axis: Axis) -> Dense:
        """Of a memory map nothing is read but what windows need."""
        valid = table.columns.get("valid")
        there = None if valid is None else np.asarray(valid.values[:])
        return cls(axis, Matrix.of(table.columns["value"].values), there)

    def lost(self, row: Ticks, start: Ticks, stop: Ticks) -> Reasons:
        """Why rows (window, step) are not there, 0 where they are."""
        why = self.axis.lost(row, start, stop)
        if self.valid is not None and len(self.valid):
            bad = ~self.valid[np.clip(row, 0, len(self.valid) - 1)]
            why[bad & (why == 0)] = Reason.INVALID
        return why

    def observed(
        self,
        row: Ticks,
        lost: Reasons,
        place: Ticks,
        out: NDArray[np.float32],
        why: Reasons,
        *,
        every: int,
        phases: Ticks,
    ) -> None:
        """Rows, with the channels that are not observed in them masked."""
        self.matrix.check(row[(lost == 0) | (lost == Reason.INVALID)])
        from neurostore.kernels._dense import gather_observed

        unasked, bad = int(Reason.NOT_REQUESTED), int(Reason.INVALID)
        of = self.matrix.values
        gather_observed(of, row, lost, bad, unasked, phases, every, place, out, why)


@dataclass(frozen=True, eq=False)
class Frames:
    """A staggered acquisition of a table, as the frames (frame, channel) that it observes."""

    dense: Dense
    every: int
    phases: Ticks
    matrix: Matrix

    @classmethod
    def of(cls, dense: Dense, every: int, phases: Ticks, digest: str, held: Cache | None) -> Frames:
        """Frames of a table, from a cache where the table lies in one.

        Parameters
        ----------
        digest : str
            Of the table.
        """
        of, made = dense.matrix, None
        if of.kept is not None and held is not None:
            made = cls.put(of, every, phases, digest, held)
        if made is not None:
            return cls(dense, every, phases, Matrix.of(Checked(made, "frames")))
        from neurostore.kernels._dense import frames

        of.check()
        return cls(dense, every, phases, Matrix(frames(of.values, every, phases)))

    @staticmethod
    def put(of: Matrix, every: int, phases: Ticks, digest: str, into: Cache) -> Entry | None:
        """Put the frames of a table into a cache; None where it has no room."""
        from neurostore.kernels._dense import frames, frames_shape

        def fill(writer: Writer) -> None:
            of.check()
            frames(of.values, every, phases, writer.arrays["frames"])

        said = f"frames 1 {digest} {every} {phases.astype('<i8').tobytes().hex()}"
        shape = {"frames": (np.float32, frames_shape(of.values, every))}
        return into.build(hashlib.sha256(said.encode()).hexdigest(), shape, fill)

    def gather(
        self,
        row: Ticks,
        start: Ticks,
        stop: Ticks,
        place: Ticks,
        out: NDArray[np.float32],
        why: Reasons,
    ) -> None:
        """Observations at row + phase, for rows (window, step) that are multiples of `every`."""
        all_of = (row[:, :, None] + np.arange(self.every)).reshape(len(row), -1)
        before = np.repeat(stop, self.every, axis=1)
        each = self.dense.lost(all_of, start, before).reshape(*row.shape, self.every)
        lost = each.min(axis=2)  # what is lost at every phase
        self.matrix.gather(row // self.every, lost, place, out, why)
        if not (each == lost[:, :, None]).all():
            own, channels = each[:, :, self.phases], len(self.phases)
            why[place, :, :channels] = np.where(own, own, why[place, :, :channels])
            out[place, :, :channels] *= own == 0
