"""Sorted, disjoint sets of ``[start, stop)`` in ticks, with the algebra of sets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurostore.errors import UsageError

Ticks = NDArray[np.int64]


def _none() -> Ticks:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Intervals:
    """Ticks as a set: disjoint, sorted ``[start, stop)`` that neither overlap nor touch.

    Rows may be given in any order; those that overlap or touch are joined, empty ones vanish.

    Parameters
    ----------
    start, stop : (interval,) int64
        First tick, and first tick after.

    Raises
    ------
    UsageError
        Where one stops before it starts, or the lengths differ.
    """

    start: Ticks = field(default_factory=_none)
    stop: Ticks = field(default_factory=_none)

    def __post_init__(self) -> None:
        start, stop = _ticks(self.start, "start"), _ticks(self.stop, "stop")
        if len(start) != len(stop):
            raise UsageError(f"Intervals need as many stops as starts: {len(stop)}, {len(start)}.")
        if (bad := stop < start).any():
            row = int(np.argmax(bad))
            raise UsageError(f"Interval {row} stops at {stop[row]}, before its start {start[row]}.")
        start, stop = _joined(start[stop > start], stop[stop > start])
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "stop", stop)

    def __len__(self) -> int:
        return len(self.start)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self.start.tolist(), self.stop.tolist(), strict=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Intervals) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __and__(self, other: Intervals) -> Intervals:
        """Ticks in both."""
        return _counted(self, other, at_least=2)

    def __or__(self, other: Intervals) -> Intervals:
        """Ticks in one or both."""
        return _counted(self, other, at_least=1)

    def __sub__(self, other: Intervals) -> Intervals:
        """Ticks in this one and not in the other."""
        if not len(self):
            return self
        low, high = int(self.start[0]), int(self.stop[-1])
        edges = np.clip(np.r_[low, np.c_[other.start, other.stop].ravel(), high], low, high)
        return self & Intervals(edges[::2], edges[1::2])

    def dilate(self, before: int, after: int | None = None) -> Intervals:
        """Every interval longer by `before` and `after` ticks (shorter where negative)."""
        start = self.start - before
        stop = np.maximum(self.stop + (before if after is None else after), start)
        return Intervals(start, stop)

    def between(self, start: int, stop: int) -> Intervals:
        """The part in [start, stop)."""
        return self & Intervals(np.array([start]), np.array([stop]))

    def contains(self, ticks: ArrayLike) -> NDArray[np.bool_]:
        """Whether each tick lies inside, in the shape of `ticks`."""
        at = np.asarray(ticks, dtype=np.int64)
        return self.covers(at, at + 1)

    def covers(self, start: ArrayLike, stop: ArrayLike) -> NDArray[np.bool_]:
        """Whether each [start, stop) lies inside as a whole, in their common shape.

        An empty one does where its tick lies inside, or at a stop.
        """
        first, last = np.broadcast_arrays(
            np.asarray(start, dtype=np.int64), np.asarray(stop, dtype=np.int64)
        )
        if not len(self):
            return np.zeros(first.shape, dtype=bool)
        which = np.searchsorted(self.start, first, side="right") - 1
        return (which >= 0) & (self.stop[np.maximum(which, 0)] >= last)

    @property
    def length(self) -> int:
        """Ticks inside, in all."""
        return int((self.stop - self.start).sum())

    @property
    def digest(self) -> str:
        """sha256 of the starts and stops; equal for equal sets."""
        content = np.concatenate([self.start, self.stop]).astype("<i8")
        return hashlib.sha256(content.tobytes()).hexdigest()

    def __repr__(self) -> str:
        return f"<Intervals: {len(self)} with {self.length:,} ticks>"


def _ticks(values: ArrayLike, name: str) -> Ticks:
    array = np.atleast_1d(np.asarray(values))
    if array.ndim != 1 or (len(array) and array.dtype.kind not in "iu"):
        raise UsageError(
            f"Intervals count ticks: {name} must be (interval,) integers, "
            f"found {array.dtype} of shape {array.shape}."
        )
    return array.astype(np.int64)


def _joined(start: Ticks, stop: Ticks) -> tuple[Ticks, Ticks]:
    if not len(start):
        return start, stop
    order = np.argsort(start, kind="stable")
    start, reached = start[order], np.maximum.accumulate(stop[order])
    apart = start[1:] > reached[:-1]
    return start[np.r_[True, apart]], reached[np.r_[apart, True]]


def _counted(one: Intervals, other: Intervals, *, at_least: int) -> Intervals:
    """Where at least so many of two sets are; by how many are open at every edge."""
    edges = np.concatenate([one.start, other.start, one.stop, other.stop])
    steps = np.repeat([1, -1], [len(one) + len(other)] * 2)
    order = np.lexsort((-steps, edges))
    edges, inside = edges[order], np.cumsum(steps[order]) >= at_least
    return Intervals(edges[:-1][inside[:-1]], edges[1:][inside[:-1]])
