"""Units of the windows of a batch: how many, their regions, and when each was observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neurostore.intervals import Intervals
from neurostore.sample._chosen import Chosen, no_spikes
from neurostore.sample.batch import Reason
from neurostore.sample.device._line import Spans
from neurostore.sample.device._windows import Windows
from neurostore.sample.plan import Ticks


@dataclass(frozen=True)
class Units:
    """How many units each session has, on the host, and codes of their regions (session, unit)."""

    count: Ticks
    region: Tensor

    @classmethod
    def of(cls, codes: Sequence[Ticks], device: torch.device) -> Units:
        """From the codes (unit,) of every session."""
        count = np.array([len(one) for one in codes], dtype=np.int64)
        region = np.full((len(codes), int(count.max(initial=0))), -1, dtype=np.int64)
        for row, own in enumerate(codes):
            region[row, : len(own)] = own
        return cls(count, torch.from_numpy(region).to(device))

    def width(self, at: Windows) -> int:
        """Units of the widest session of a batch."""
        return int(self.count[at.address.session].max(initial=0))

    def read(self, at: Windows) -> tuple[Tensor, Tensor]:
        """Which places (window, unit) are units, and the codes of their regions."""
        width, device = self.width(at), self.region.device
        many = at.moved(self.count[at.address.session])
        there = torch.arange(width, device=device) < many[:, None]
        return there, self.region[at.session, :width]


@dataclass(frozen=True)
class Observed:
    """When the units of every session were observed: few times, which units share.

    Attributes
    ----------
    spans : Spans
        A group for each time of each session that differs from the others.
    kinds : (session,) int64
        How many of them a session has, on the host.
    first : (session,) int64
        The group of the first.
    units : (session,) int64
        How many units have spikes, on the host.
    kind : (session, unit) int64
        Which of its session's each unit has; -1 for padding, and where there are no spikes.
    """

    spans: Spans
    kinds: Ticks
    units: Ticks
    first: Tensor
    kind: Tensor

    @classmethod
    def load(cls, sessions: Sequence[Chosen], device: torch.device) -> Observed:
        """Read when units were observed."""
        own = [[Intervals()] if no_spikes(one) else one.kinds for one in sessions]
        kinds = np.array([len(one) for one in own], dtype=np.int64)
        kind = np.full((len(own), max(len(one.ids) for one in sessions)), -1, dtype=np.int64)
        for row, one in enumerate(sessions):
            if not no_spikes(one):
                kind[row, : len(one.ids)] = one.kind
        first = torch.from_numpy(np.cumsum([0, *kinds[:-1]])).to(device)
        spans = Spans.of([each for one in own for each in one], device)
        units = (kind >= 0).sum(axis=1)
        return cls(spans, kinds, units, first, torch.from_numpy(kind).to(device))

    def seen(self, at: Windows, edges: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Whether bins between edges (window, bin + 1) are observed, and why (window, unit, bin).

        Why is of `Reason`: padding, and units of a session without spikes, are not recorded.
        """
        most = int(self.kinds[at.address.session].max())
        many = at.moved(self.kinds[at.address.session])
        nth = torch.minimum(torch.arange(most, device=edges.device), many[:, None] - 1)
        group = (self.first[at.session][:, None] + nth)[:, :, None]
        covered = self.spans.covers(group, edges[:, None, :-1], edges[:, None, 1:])
        kind = self.kind[at.session, :width][:, :, None]
        reason = (~covered).to(torch.uint8) * Reason.OUTSIDE
        if most > 1:
            reason = reason.gather(1, kind.clamp(min=0).expand(-1, -1, reason.shape[2]))
        if int(self.units[at.address.session].min()) == width:
            reason = reason.expand(-1, width, -1).contiguous()
        else:
            reason = reason.expand(-1, width, -1).masked_fill(kind < 0, Reason.NOT_RECORDED)
        return reason == Reason.OBSERVED, reason
