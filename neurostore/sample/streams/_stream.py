"""What a stream is, and what all of them do alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import exact
from neurostore.errors import NotFoundError, UsageError
from neurostore.sample._chosen import Chosen
from neurostore.sample.batch import Reason, Reasons, Values, pad
from neurostore.sample.plan import Address, Number, Ticks, Window


class Reader(Protocol):
    """A stream bound to sessions."""

    @property
    def steps(self) -> Mapping[str, tuple[int, int, int]]:
        """By tensor: its axis of time, and how many steps of it are history and horizon."""

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


def by_session(at: Address, read: Callable[[int, Ticks], Values]) -> Values:
    """Windows of any sessions by a function that reads those of one: row, starts (window,)."""
    order = np.lexsort((at.start, at.session))  # so that chunks are read once
    groups = np.split(order, np.flatnonzero(np.diff(at.session[order])) + 1)
    parts = [read(int(at.session[group[0]]), at.start[group]) for group in groups]
    back = np.argsort(order, kind="stable")
    joined = {name: pad([one[name] for one in parts]) for name in parts[0]}
    return {name: (values[back], reason[back]) for name, (values, reason) in joined.items()}


def reasons(shape: tuple[int, ...], reason: Reason) -> Reasons:
    """One reason everywhere."""
    return np.full(shape, reason, dtype=np.uint8)


def reason_where(seen: NDArray[np.bool_], otherwise: Reason) -> Reasons:
    """Observed where seen, one reason otherwise."""
    return np.where(seen, np.uint8(Reason.OBSERVED), np.uint8(otherwise))


def whole(name: str, part: str, step: Number, window: Window) -> int:
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
