"""Sorted ticks of many groups on one axis, so that one search serves windows of any sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neurostore.errors import UsageError
from neurostore.intervals import Intervals
from neurostore.sample.plan import Ticks

_FAR = 2**62


@dataclass(frozen=True)
class Line:
    """Sorted ticks (row,) of groups (a session, a session's unit, ...) laid end to end.

    Each group has a stretch of the axis to itself, one tick wider than its ticks on both sides: a
    tick from further away is searched for at the end of the stretch, where it finds the same.

    Attributes
    ----------
    axis : (row + 1,) int64
        Places on the axis, ascending, and one behind all.
    first, stop : (group,) int64
        Rows of each group.
    low, high, shift : (group,) int64
        First and last tick of each stretch, and what takes a tick to its place.
    """

    axis: Tensor
    first: Tensor
    stop: Tensor
    low: Tensor
    high: Tensor
    shift: Tensor

    @classmethod
    def of(cls, groups: Sequence[Ticks], device: torch.device) -> Line:
        """Ascending ticks (row,) of every group on a device.

        Raises
        ------
        UsageError
            Where they reach further than int64 together.
        """
        low = np.array([own[0] - 1 if len(own) else 0 for own in groups], dtype=np.int64)
        high = np.array([own[-1] + 1 if len(own) else 0 for own in groups], dtype=np.int64)
        reach = [int(last) - int(first) + 1 for first, last in zip(low, high, strict=True)]
        if sum(reach) >= _FAR:
            raise UsageError(
                f"{len(groups)} sessions or units reach over {sum(reach):,} ticks together, more "
                f"than a device counts ({_FAR:,}). Choose fewer, or make windows on the host."
            )
        shift = np.cumsum([0, *reach[:-1]], dtype=np.int64)[: len(groups)] - low
        rows = np.cumsum([0, *map(len, groups)], dtype=np.int64)
        placed = [own + by for own, by in zip(groups, shift, strict=True)]
        axis = np.concatenate([*placed, [np.iinfo(np.int64).max]]).astype(np.int64)
        made = (axis, rows[:-1], rows[1:], low, high, shift)
        return cls(*(torch.from_numpy(one).to(device) for one in made))

    def last(self, group: Tensor, tick: Tensor) -> Tensor:
        """Row of the last tick of a group at or before each tick; ``first - 1`` where none is.

        `group` and `tick` broadcast.
        """
        if len(self.first) == 1:
            place = (tick + self.shift).contiguous()
            return torch.searchsorted(self.axis, place, right=True).sub_(1)
        held = torch.minimum(torch.maximum(tick, self.low[group]), self.high[group])
        place = (held + self.shift[group]).contiguous()
        return torch.searchsorted(self.axis, place, right=True) - 1


@dataclass(frozen=True)
class Spans:
    """Disjoint intervals of many groups."""

    start: Line
    stop: Tensor

    @classmethod
    def of(cls, groups: Sequence[Intervals], device: torch.device) -> Spans:
        """The intervals of every group on a device."""
        stop = np.concatenate([*(one.stop for one in groups), [0]]).astype(np.int64)
        return cls(
            Line.of([one.start for one in groups], device), torch.from_numpy(stop).to(device)
        )

    def covers(self, group: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """Whether each [first, last) lies inside one interval of its group, as a whole."""
        which = self.start.last(group, first)
        return (which >= self.start.first[group]) & (self.stop[which.clamp(min=0)] >= last)
