"""What a stream is, and what all of them do alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import ceil, floor
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import exact
from neurostore.errors import NotFoundError, UsageError
from neurostore.sample._chosen import Chosen
from neurostore.sample.batch import Reason, Reasons, Values, pad
from neurostore.sample.plan import Address, Number, Ticks, Window

if TYPE_CHECKING:
    from neurostore.sample.acquisition import Acquisition, Grid


class Reader(Protocol):
    """A stream bound to sessions.

    One that reads more than the tables of its sessions (a stimulus they share) also has
    ``identity() -> dict[str, JSON]``, which says so by digest in the identity of the dataset.
    """

    @property
    def steps(self) -> Mapping[str, tuple[int, int, int]]:
        """By tensor: its axis of time, and how many steps of it are history and horizon."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables of a session that it reads."""

    def missing(self, row: int) -> str | None:
        """What session `row` lacks, in words; None where it lacks nothing."""

    def read(self, at: Address) -> Values:
        """Windows of any sessions, in the order of their addresses, padded to the largest."""


class Stream(Protocol):
    """A named input that a dataset serves."""

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        """Bind it to the sessions of a dataset; nothing is read yet.

        Raises
        ------
        UsageError
            Where no session has what it reads, or the window does not divide into its steps.
        """


@runtime_checkable
class Acquired(Protocol):
    """A stream of channels that an acquisition observes, each at its own steps."""

    def observed_by(self, acquisition: Acquisition) -> Stream:
        """The stream as an acquisition sees it."""


@runtime_checkable
class Gridded(Protocol):
    """A reader of such a stream."""

    @property
    def phases(self) -> Mapping[int, Ticks]:
        """By session row: the first step (channel,) at which each channel is observed."""

    def grid(self, row: int) -> Grid | None:
        """Where windows of session `row` may start; None for anywhere."""


def by_session(at: Address, read: Callable[[int, Ticks], Values]) -> Values:
    """Windows of any sessions by a function that reads those of one: row, starts (window,)."""
    parts = [read(row, at.start[place]) for row, place in at.by_session]
    back = np.argsort(np.concatenate([place for _, place in at.by_session]), kind="stable")
    joined = {name: pad([one[name] for one in parts]) for name in parts[0]}
    return {name: (values[back], reason[back]) for name, (values, reason) in joined.items()}


def reasons(shape: tuple[int, ...], reason: Reason) -> Reasons:
    """One reason everywhere."""
    if reason == Reason.OBSERVED:
        return np.zeros(shape, dtype=np.uint8)
    made = np.empty(shape, dtype=np.uint8)
    made.fill(int(reason))  # which numpy does at once; of an enum it makes an array first
    return made


def reason_where(seen: NDArray[np.bool_], otherwise: Reason) -> Reasons:
    """Observed where seen, one reason otherwise."""
    return np.where(seen, np.uint8(Reason.OBSERVED), np.uint8(otherwise))


def whole(name: str, part: str, step: Number, window: Window) -> int:
    """How many steps the history or the horizon of a window holds; it must be a whole number."""
    seconds = exact(getattr(window, part))
    if exact(step) <= 0:
        raise UsageError(f"The stream {name!r} needs steps longer than 0 s, found {step} s.")
    count = seconds / exact(step)
    if count.denominator == 1:
        return int(count)
    said = (
        f"The {part} of {float(seconds):g} s is {float(count):g} steps of "
        f"{float(exact(step)):g} s of the stream {name!r}; it must be a whole number of them."
    )
    if abs(count - round(count)) < Fraction(1, 10**6):
        plain = exact(step).limit_denominator(10**6)
        raise UsageError(f"{said} It is not quite: write the step as text, '{plain}', not {step}.")
    below, above = (float(one * exact(step)) for one in (floor(count), ceil(count)))
    raise UsageError(f"{said} Take {below:g} s or {above:g} s.")


def refuse_missing_table(kind: str, name: str, sessions: Sequence[Chosen]) -> None:
    """Refuse a table that no session has, naming the nearest."""
    prefix = f"{kind}/"
    known = {
        table.removeprefix(prefix)
        for one in sessions
        for table in one.session.tables
        if table.startswith(prefix)
    }
    raise NotFoundError(kind, name, known, f"any of the {len(sessions)} sessions chosen")
