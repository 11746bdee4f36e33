"""Which windows there are and in which order: pure functions of intervals, window, seed and epoch.

A plan knows no bytes. It keeps runs of windows (the first start of each and how many follow by the
stride) and a permutation that is computed where it is asked for, so that an epoch of any length
starts, and starts again in its middle, at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil, floor
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import Clock, exact
from neurostore.errors import UsageError

Ticks = NDArray[np.int64]
Number: TypeAlias = float | str | Fraction
ROUNDS = 6
"""Rounds of the Feistel network; from four on it passes for a random permutation (Luby 1988)."""


@dataclass(frozen=True)
class Window:
    """How long a window is, and where windows lie; seconds are exact as written: 0.1 is 1/10.

    Parameters
    ----------
    history : float
        Seconds before the present.
    horizon : float
        Seconds from the present on, the target; with 0 the whole window is the target.
    stride : float, optional
        Seconds from one window to the next; the horizon without it (the history where that is 0).
    around : str, optional
        ``"<interval table>.<column>"``: one window an event, with its present on the event;
        events at the same tick share one.
    before, after : float, optional
        With `around`: windows by the stride, inside [event − before, event + after) seconds.
    where : str, optional
        With `around`: a SQL expression that chooses the rows of the interval table.
    """

    history: float
    horizon: float = 0.0
    stride: float | None = None
    around: str | None = None
    before: float | None = None
    after: float | None = None
    where: str | None = None

    def __post_init__(self) -> None:
        for name in ("history", "horizon"):
            if exact(getattr(self, name)) < 0:
                raise UsageError(f"The {name} of a window is 0 s or more, found {self}.")
        if not self.length > 0:
            raise UsageError(f"A window needs a history or a horizon, found {self}.")
        if self.stride is not None and exact(self.stride) <= 0:
            raise UsageError(f"The stride of a window is above 0 s, found {self.stride}.")
        self._check_around()

    def _check_around(self) -> None:
        around = [name for name in ("before", "after", "where") if getattr(self, name) is not None]
        if self.around is None and around:
            raise UsageError(f"{' and '.join(around)} of a window needs `around`, an event column.")
        if self.around is not None and self.around.count(".") != 1:
            raise UsageError(
                "`around` names an interval table and a time column of it, as "
                f"'trials.stim_on_time'; found {self.around!r}."
            )
        if (self.before is None) != (self.after is None):
            raise UsageError("`before` and `after` of a window go together; found one of them.")
        if self.before is not None and self.after is not None:
            reach = exact(self.before) + exact(self.after)
            if reach < self.length:
                raise UsageError(
                    f"{float(reach):g} s around an event are shorter than a window of "
                    f"{float(self.length):g} s."
                )
        elif self.around is not None and self.stride is not None:
            raise UsageError(
                "Around an event there is one window; a stride needs `before` and `after`."
            )

    @property
    def length(self) -> Fraction:
        """History and horizon together, in seconds, exact."""
        return exact(self.history) + exact(self.horizon)

    @property
    def step(self) -> Fraction:
        """The stride in seconds, exact."""
        if self.stride is not None:
            return exact(self.stride)
        return exact(self.horizon) or exact(self.history)

    def ticks(self, clock: Clock) -> tuple[int, int]:
        """Ticks from the start to the present, and to the stop."""
        return floor(exact(self.history) * clock.rate), floor(self.length * clock.rate)

    def __str__(self) -> str:
        history, horizon = float(exact(self.history)), float(exact(self.horizon))
        what = f"{float(self.length):g} s ({history:g} s history + {horizon:g} s horizon)"
        if self.around is None:
            return f"{what} every {float(self.step):g} s"
        if self.before is None or self.after is None:
            return f"{what} around {self.around}"
        before, after = float(exact(self.before)), float(exact(self.after))
        return (
            f"{what} every {float(self.step):g} s from {before:g} s before to {after:g} s after "
            f"{self.around}"
        )


@dataclass(frozen=True)
class Runs:
    """Windows of one session: runs of `count` windows by the stride, each from its first start.

    Attributes
    ----------
    start, count, block : (run,) int64
        First tick, number of windows, row of the split (-1 without one).
    step : Fraction
        Ticks from one window to the next.
    """

    start: Ticks
    count: Ticks
    block: Ticks
    step: Fraction

    def starts(self) -> tuple[Ticks, Ticks]:
        """Start tick (window,) and block (window,) of every window."""
        which = np.repeat(np.arange(len(self.count)), self.count)
        nth = np.arange(len(which)) - np.repeat(np.cumsum(self.count) - self.count, self.count)
        return self.start[which] + steps(nth, self.step), self.block[which]

    @classmethod
    def single(cls, start: Ticks, block: Ticks) -> Runs:
        """Windows that lie at no stride."""
        return cls(start, np.ones(len(start), dtype=np.int64), block, Fraction(1))


def steps(nth: Ticks, step: Fraction) -> Ticks:
    """Ticks floor(n · step) of the n-th window, exact."""
    if len(nth) and int(nth.max()) * step.numerator >= 2**62:
        return np.array([int(n) * step.numerator // step.denominator for n in nth], dtype=np.int64)
    return nth * step.numerator // step.denominator


def lay(first: Ticks, stop: Ticks, block: int, length: int, step: Fraction) -> Runs:
    """Windows of `length` ticks by `step` in each [first, stop) (run,), the first at its start."""
    room = stop - first - length
    fits = room >= 0
    count = [ceil((int(ticks) + 1) / step) for ticks in room[fits]]
    made = np.array(count, dtype=np.int64)
    return Runs(first[fits], made, np.full(len(made), block, dtype=np.int64), step)


def join(runs: Sequence[Runs], step: Fraction) -> Runs:
    """Runs of one session and stride as one."""
    if not runs:
        none = np.zeros(0, dtype=np.int64)
        return Runs(none, none, none, step)
    start, count, block = (
        np.concatenate([getattr(one, name) for one in runs]) for name in ("start", "count", "block")
    )
    return Runs(start, count, block, step)


@dataclass(frozen=True, eq=False)
class Address:
    """Where windows lie: row of the session, start tick and row of the split, each (window,).

    Attributes
    ----------
    place : (window,) int64
        Place of each window in its epoch; with seed and epoch it decides what is random in it.
    reach : callable, optional
        What a split lets windows of a session know: row, start and block (window,) → `known`.
    """

    session: Ticks
    start: Ticks
    block: Ticks
    place: Ticks
    seed: int = 0
    epoch: int = 0
    reach: Callable[[int, Ticks, Ticks], tuple[Ticks, Ticks]] | None = None

    @cached_property
    def known(self) -> tuple[Ticks, Ticks] | None:
        """Ticks [low, high) (window,) that alone may show in a window; None without a split."""
        if self.reach is None:
            return None
        low, high = np.empty_like(self.start), np.empty_like(self.start)
        for row, place in self.by_session:
            low[place], high[place] = self.reach(row, self.start[place], self.block[place])
        return low, high

    @cached_property
    def by_session(self) -> list[tuple[int, Ticks]]:
        """Rows of the sessions, each with its windows (window,) in the order of their starts."""
        first = int(self.session[0])
        if len(self.session) == 1:
            return [(first, np.zeros(1, np.int64))]
        order = np.lexsort((self.start, self.session))
        groups = np.split(order, np.flatnonzero(np.diff(self.session[order])) + 1)
        return [(int(self.session[group[0]]), group) for group in groups]

    def draws(self, name: str) -> NDArray[np.uint64]:
        """A number (window,) of each window's own, for what `name` draws at random in it."""
        return drawn(self.place, self.seed, self.epoch, name)


class Plan:
    """All windows of some sessions, by number, and their order in an epoch."""

    def __init__(self, runs: Sequence[Runs]) -> None:
        self.runs = list(runs)
        lengths = [len(one.count) for one in runs]
        self._session = np.repeat(np.arange(len(runs)), lengths)
        self._within = np.concatenate([np.arange(n) for n in lengths] or [np.zeros(0, np.int64)])
        counts = np.concatenate([one.count for one in runs] or [np.zeros(0, np.int64)])
        self._last = np.cumsum(counts, dtype=np.int64)
        self.windows = int(self._last[-1]) if len(self._last) else 0

    def __len__(self) -> int:
        return self.windows

    def by_session(self) -> list[int]:
        """How many windows each session has."""
        return [int(one.count.sum()) for one in self.runs]

    def by_interval(self, interval: Sequence[Callable[[Ticks], Ticks]]) -> Ticks:
        """How many windows (interval,) lie in each interval of time, in the order of the plan.

        A function a session says which interval windows of some starts lie in.
        """
        made = []
        for runs, which in zip(self.runs, interval, strict=True):
            if len(runs.start):
                own = which(runs.start)
                begins = np.flatnonzero(np.r_[True, own[1:] != own[:-1]])
                made.append(np.add.reduceat(runs.count, begins))
        return np.concatenate([np.zeros(0, dtype=np.int64), *made])

    def address(
        self, index: Ticks, place: Ticks | None = None, seed: int = 0, epoch: int = 0
    ) -> Address:
        """Where windows (window,) lie, by their numbers in [0, len); see `Address` for the rest."""
        run = np.searchsorted(self._last, index, side="right")
        nth = index - np.where(run > 0, self._last[np.maximum(run - 1, 0)], 0)
        session, row = self._session[run], self._within[run]
        start, block = np.empty(len(index), np.int64), np.empty(len(index), np.int64)
        for one in np.unique(session):
            here, runs = session == one, self.runs[one]
            start[here] = runs.start[row[here]] + steps(nth[here], runs.step)
            block[here] = runs.block[row[here]]
        return Address(session, start, block, index if place is None else place, seed, epoch)

    def order(self, index: Ticks, seed: int, epoch: int) -> Ticks:
        """Numbers (window,) of the windows that come at places `index` of a shuffled epoch."""
        return permuted(index, self.windows, seed, epoch)

    @property
    def digest(self) -> str:
        """sha256 of every run."""
        made = hashlib.sha256()
        for runs in self.runs:
            made.update(f"{runs.step} {len(runs.start)}".encode())
            for ticks in (runs.start, runs.count, runs.block):
                made.update(ticks.astype("<i8").tobytes())
        return made.hexdigest()


def drawn(place: Ticks, seed: int, epoch: int, name: str) -> NDArray[np.uint64]:
    """A number (window,) for each place of an epoch, of its own for what `name` draws there."""
    said = hashlib.sha256(f"{seed} {epoch} {name}".encode()).digest()
    key = np.frombuffer(said, dtype="<u8")[0]
    return _mixed(_mixed(place.astype(np.uint64)) + key)


def permuted(index: Ticks, n: int, seed: int, epoch: int) -> Ticks:
    """A random permutation of [0, n) at some places (window,), without making it.

    A Feistel network over the next power of four, walked on until it lands in range (Black &
    Rogaway 2002).
    """
    half = max(1, ceil((n - 1).bit_length() / 2)) if n > 1 else 1
    said = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
    keys = np.frombuffer(said, dtype="<u4").astype(np.uint64)[:ROUNDS]
    values = _feistel(index.astype(np.uint64), half, keys)
    while (outside := values >= n).any():
        values[outside] = _feistel(values[outside], half, keys)
    return values.astype(np.int64)


def _feistel(values: NDArray[np.uint64], half: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    low = np.uint64((1 << half) - 1)
    left, right = values >> np.uint64(half), values & low
    for key in keys:
        left, right = right, left ^ (_mixed(right + (key << np.uint64(32))) & low)
    return (left << np.uint64(half)) | right


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele 2014), modulo 2^64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
