"""Counts and events of windows, out of packed spikes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from neurostore.sample._chosen import Chosen
from neurostore.sample.batch import Reason
from neurostore.sample.device._line import Line
from neurostore.sample.device._packed import Candidates, Packed
from neurostore.sample.device._units import Observed, Units
from neurostore.sample.device._windows import Rates, Windows
from neurostore.sample.plan import Number

Read = dict[str, tuple[Tensor, Tensor]]
"""By tensor name: values (window, ...) and reasons of their leading axes, on the device."""


@dataclass(frozen=True)
class Memory:
    """What every stream of spikes shares."""

    packed: Packed
    observed: Observed
    units: Units
    rates: Rates

    @cached_property
    def ticks(self) -> Tensor:
        """Ticks (session,) of a window."""
        return self.packed.on_device[3]


@dataclass(frozen=True)
class Counts:
    """Counts (window, unit, bin) int32: every spike adds one where it lies.

    Integers, so that the order in which a device adds them does not matter.
    """

    name: str
    memory: Memory
    bins: int
    edges: Line
    group: Tensor
    offsets: Tensor

    @classmethod
    def of(
        cls, name: str, memory: Memory, sessions: Sequence[Chosen], bin: Number, bins: int
    ) -> Counts:
        """Bind it to spikes in memory."""
        device = memory.packed.word.device
        offsets = np.stack([one.session.clock.edges(0, bins, bin) for one in sessions])
        unlike, group = np.unique(offsets, axis=0, return_inverse=True)
        moved = [torch.from_numpy(one).to(device) for one in (group.ravel(), offsets)]
        return cls(name, memory, bins, Line.of(list(unlike), device), *moved)

    def read(self, at: Windows) -> Read:
        """Windows of any sessions."""
        width = self.memory.units.width(at)
        counts = self._count(at, width)
        edges = at.start[:, None] + self.offsets[at.session]
        seen, reason = self.memory.observed.seen(at, edges, width)
        return {self.name: (counts.mul_(seen), reason)}

    def _count(self, at: Windows, units: int) -> Tensor:
        shape = (len(at), units, self.bins)
        none, window = len(at) * units * self.bins, units * self.bins
        counts = torch.zeros(none + 1, dtype=torch.int32, device=at.start.device)
        one = torch.ones(1, dtype=torch.int32, device=at.start.device)
        for first, part in self.memory.packed.parts(at):
            found = self.memory.packed.candidates(part)
            bin = self._bin(part, found)
            flat = torch.add(bin, found.unit, alpha=self.bins)  # in int64, as bin is
            flat.add_(found.window, alpha=window).add_(first * window)
            # What lies outside its window is counted behind all: choosing the others would wait.
            flat.masked_fill_((bin < 0) | (bin >= self.bins), none)
            counts.scatter_add_(0, flat, one.expand(len(flat)))
        return counts[:none].view(shape)

    def _bin(self, at: Windows, found: Candidates) -> Tensor:
        """Which bin of its window each spike lies in; none of them before it and after it."""
        if len(self.edges.first) == 1:
            return self.edges.last(self.edges.first, found.tick)
        group = self.group[at.session][found.window]
        return self.edges.last(group, found.tick) - self.edges.first[group]


@dataclass(frozen=True)
class Events:
    """Spikes as events: time, unit, and whether each unit was observed throughout.

    The longest window decides the shape, so that the host waits once for the device.
    """

    name: str
    memory: Memory

    def read(self, at: Windows) -> Read:
        """Windows of any sessions."""
        memory = self.memory
        edges = torch.stack([at.start, at.start + memory.ticks[at.session]], dim=1)
        seen, why = memory.observed.seen(at, edges, memory.units.width(at))
        time, unit, reason = self._events(at, memory.packed.candidates(at))
        return {
            f"{self.name}.time": (time, reason),
            f"{self.name}.unit": (unit, reason.clone()),
            f"{self.name}.observed": (seen[:, :, 0], why[:, :, 0]),
        }

    def _events(self, at: Windows, found: Candidates) -> tuple[Tensor, Tensor, Tensor]:
        inside = (found.tick >= 0) & (found.tick < self.memory.ticks[at.session][found.window])
        kept = torch.nonzero(inside).ravel()
        window, tick, saw = found.window[kept], found.tick[kept], found.observed[kept]
        many = torch.zeros(len(at), dtype=torch.int64, device=kept.device)
        many.scatter_add_(0, window, torch.ones_like(window))
        place = torch.arange(len(kept), device=kept.device)
        place -= (torch.cumsum(many, 0) - many)[window]
        shape = (len(at), int(many.max()))
        seconds = self.memory.rates.seconds(at.session[window], tick)
        time = torch.zeros(shape, dtype=torch.float32, device=kept.device)
        unit = torch.zeros(shape, dtype=torch.int64, device=kept.device)
        reason = torch.full(shape, Reason.NOT_RECORDED, dtype=torch.uint8, device=kept.device)
        time[window, place] = (seconds * saw).float()
        unit[window, place] = found.unit[kept].long() * saw
        reason[window, place] = torch.where(saw, Reason.OBSERVED, Reason.OUTSIDE).to(torch.uint8)
        return time, unit, reason
