"""Which rows of a dense table a window holds: observations and their targets, or a stimulus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import UsageError
from neurostore.sample._chosen import Chosen
from neurostore.sample.acquisition import Acquisition, Staggered
from neurostore.sample.plan import Ticks
from neurostore.sample.streams._stream import refuse_missing_table

if TYPE_CHECKING:
    from neurostore.schemas import Table

Frequency: TypeAlias = Literal["every step", "hold", "interpolate", "none"]


class Rows(Protocol):
    """What a stream says of the rows it wants; see `Activity`."""

    @property
    def targets(self) -> tuple[int, ...]: ...
    @property
    def multiples(self) -> tuple[int, ...]: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def frequency(self) -> Frequency | None: ...
    @property
    def starts_with(self) -> str | None: ...


def held(frequency: Frequency, every: int, steps: int) -> tuple[Ticks, Ticks, NDArray[np.float32]]:
    """Rows (step,) before and after each step of a stimulus, and the weight (step,) of the latter.

    Value t is (1 − weight) · row[before] + weight · row[after]. Interpolation looks at row `steps`
    too, one more than it gives.

    Raises
    ------
    UsageError
        Where `every` is 1 and there is nothing to hold, or interpolated steps end between multiples
        of it.
    """
    now = np.arange(steps, dtype=np.int64)
    if frequency == "every step":
        return now, now, np.zeros(steps, dtype=np.float32)
    if every == 1:
        raise UsageError(
            f"The frequency {frequency!r} needs an acquisition with every = 2 steps or more, found "
            "1: take 'every step', or acquisition=TimeAligned(every=...) or Staggered(...)."
        )
    if frequency == "interpolate" and steps % every:
        raise UsageError(
            f"{steps} interpolated steps are no multiple of every = {every}. Take "
            f"{steps // every * every} or {(steps // every + 1) * every}."
        )
    before = now // every * every
    if frequency in ("hold", "none"):
        return before, before, np.zeros(steps, dtype=np.float32)
    weight = ((now % every) / every).astype(np.float32)
    return before, np.where(now % every, before + every, before), weight


def width_of(table: Table, where: str) -> int:
    """How many channels a table has; one at least."""
    width = int(np.prod(table.columns["value"].values.shape[1:], dtype=np.int64))
    if not width:
        raise UsageError(f"{where} has no channel to read. Leave out the session or the stream.")
    return width


@dataclass(frozen=True, eq=False)
class Shape:
    """What a window holds: rows after its first one, and which of them are past.

    Attributes
    ----------
    offsets : (step,) int64
        Rows after the window's first.
    others, weight : (step,)
        Rows to interpolate with, and by how much.
    single : bool
        Whether it holds observations: each channel at a row of its own.
    shift : mapping
        By row of the session, how many rows later than the window's first all of it is.
    """

    offsets: Ticks
    others: Ticks
    weight: NDArray[np.float32]
    past: int
    single: bool
    shift: dict[int, int] = field(default_factory=dict)


def shaped(
    name: str,
    stream: Rows,
    acquisition: Acquisition,
    past: int,
    future: int,
    sessions: Sequence[Chosen],
    widths: dict[int, int],
) -> Shape:
    """What windows of `past` and `future` steps hold of a stream.

    Raises
    ------
    UsageError
        Where that does not fit into them, or lies between what the acquisition observes.
    """
    every, total = acquisition.period, past + future
    targets = stream.targets or tuple(every * one for one in stream.multiples)
    if targets:
        return _observations(name, stream, acquisition, past, total, targets)
    count = total if stream.steps is None else stream.steps
    now = np.arange(count, dtype=np.int64)
    before, after, weight = now, now, np.zeros(count, dtype=np.float32)
    if stream.frequency is not None:
        before, after, weight = held(stream.frequency, every, count)
    shift = _shifts(stream, acquisition, sessions, widths)
    reach = max(shift.values(), default=0) + int(max(before.max(), after.max())) + 1
    if stream.frequency == "interpolate":
        reach = max(shift.values(), default=0) + count + 1
    if stream.frequency != "none" and reach > total:
        raise UsageError(
            f"The stream {name!r} reads {reach} steps from the start of a window"
            + (f" ({count}, and the next one)" if stream.frequency == "interpolate" else "")
            + f", which has {total}. Take fewer steps, or a longer window."
        )
    kept = 0 if stream.starts_with is not None else min(past, count)
    return Shape(before, after, weight, kept, False, shift)


def _observations(
    name: str,
    stream: Rows,
    acquisition: Acquisition,
    past: int,
    total: int,
    targets: tuple[int, ...],
) -> Shape:
    every = acquisition.period
    for one in targets:
        if one % every:
            raise UsageError(
                f"The target {one} of the stream {name!r} is {one % every} past a multiple of "
                f"every = {every}; nothing is observed there. Take multiples of it."
            )
    margin = every if isinstance(acquisition, Staggered) else 1
    if targets[-1] + margin > total:
        raise UsageError(
            f"The last target of the stream {name!r} needs {targets[-1] + margin} steps "
            f"({targets[-1]} and a margin of {margin}), and a window has {total}. Take fewer "
            "targets, or a longer window."
        )
    if past and not margin <= past <= targets[0]:
        raise UsageError(
            f"The first observation of the stream {name!r} lies in the first {margin} steps of a "
            f"window and its first target {targets[0]} after it; the history of {past} steps must "
            f"hold the one and end before the other. Take a history of {targets[0]} steps, or none."
        )
    offsets = np.array([0, *targets], dtype=np.int64)
    none = np.zeros(len(offsets), dtype=np.float32)
    return Shape(offsets, offsets, none, 1 if past else 0, True)


def _shifts(
    stream: Rows, acquisition: Acquisition, sessions: Sequence[Chosen], widths: dict[int, int]
) -> dict[int, int]:
    """By session, how many rows after the window's first the first observation of another lies."""
    if stream.starts_with is None:
        return {}
    other = f"activity/{stream.starts_with}"
    if not any(other in one.session.tables for one in sessions):
        refuse_missing_table("activity", stream.starts_with, sessions)
    return {
        row: int(acquisition.phases(width_of(sessions[row].session.table(other), other)).min())
        for row in widths
        if other in sessions[row].session.tables
    }
