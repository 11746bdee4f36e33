"""What a split needs to know of a session: its clock, where it begins, what was observed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import Clock
from neurostore.errors import UsageError
from neurostore.intervals import Intervals, Ticks


@dataclass(frozen=True, eq=False)
class TrialRows:
    """The trials of a session, as its table of intervals holds them.

    Attributes
    ----------
    start, stop : (trial,) int64
        First tick, and first tick after.
    valid : (trial,) bool
        Whether both are known.
    columns : mapping of str to (trial,) arrays
        What trials may be stratified on.
    """

    start: Ticks
    stop: Ticks
    valid: NDArray[np.bool_]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {"start": len(self.start), "stop": len(self.stop), "valid": len(self.valid)}
        lengths |= {name: len(values) for name, values in self.columns.items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
            raise UsageError(f"Columns of trials need one length, found {said}.")


@dataclass(frozen=True, eq=False)
class Timeline:
    """One session as a split sees it; see `neurostore.Session.timeline`.

    Attributes
    ----------
    session : str
        Its id, ``<dataset>/<session>``.
    clock : Clock
        What its ticks count.
    origin : int
        The tick from which blocks are counted.
    observed : Intervals
        Observed time in ticks, cut to what the split is about.
    trials : TrialRows, optional
        For splits by trial.
    subject : str
        For splits by subject; empty where none is said.
    """

    session: str
    clock: Clock
    origin: int
    observed: Intervals
    trials: TrialRows | None = None
    subject: str = ""

    @property
    def stop(self) -> int:
        """First tick after the observed time."""
        return int(self.observed.stop[-1]) if len(self.observed) else self.origin

    def seconds(self, ticks: int) -> float:
        """How long so many ticks are."""
        return float(ticks / self.clock.rate)


def checked(timelines: Timeline | Iterable[Timeline]) -> Sequence[Timeline]:
    """The timelines by session id; one alone stands for a list of one.

    Raises
    ------
    UsageError
        Where there is none, one is given twice, or one has no observed time.
    """
    given = [timelines] if isinstance(timelines, Timeline) else list(timelines)
    if not given:
        raise UsageError("A split needs at least one timeline: session.timeline().")
    made = sorted(given, key=lambda one: one.session)
    for one, after in pairwise(made):
        if one.session == after.session:
            raise UsageError(f"Session {one.session} is given twice; give each timeline once.")
    for one in made:
        if not len(one.observed):
            raise UsageError(f"{one.session} has no observed time to split; leave it out.")
    return made
