"""Behaviour in windows, interpolated on the device between samples that lie there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from neurostore.clocks import MISSING, exact
from neurostore.sample._chosen import Chosen
from neurostore.sample.batch import Reason
from neurostore.sample.device._line import Line
from neurostore.sample.device._spikes import Read
from neurostore.sample.device._windows import Windows
from neurostore.sample.plan import Ticks, Window
from neurostore.sample.streams import Behaviour

_FAR = 2**62
_EXACT = (np.float16, np.int8, np.uint8, np.int16, np.uint16)
"""Kinds of numbers of which float32 holds every one, beside itself."""


@dataclass(frozen=True)
class _Series:
    """Samples of a session as the table holds them: ticks, values, which are valid."""

    time: Ticks
    value: NDArray[Any]
    valid: NDArray[np.bool_]
    max_gap: int

    @classmethod
    def load(cls, chosen: Chosen, stream: Behaviour) -> _Series | None:
        session, name = chosen.session, f"behaviour/{stream.name}"
        if name not in session.tables:
            return None
        table = session.table(name)
        value = np.asarray(table.columns["value"].values[:])
        if "time" in table.columns:
            time = np.asarray(table.columns["time"].values[:])
        else:
            first, rate = int(str(table.attrs["start"])), exact(str(table.attrs["rate"]))
            time = session.clock.edges(first, len(value), 1 / rate)[:-1]
        valid = np.isfinite(value).reshape(len(value), -1).all(axis=1)
        if "valid" in table.columns:
            valid &= np.asarray(table.columns["valid"].values[:])
        there = time != MISSING
        time = time[there]
        if stream.max_gap is not None:
            ticks = session.clock.tick(stream.max_gap)
        else:
            ticks = floor(1.5 * float(np.median(np.diff(time)))) if len(time) > 1 else 0
        return cls(time, value[there], valid[there], ticks)


@dataclass(frozen=True)
class _Beside:
    """Samples on both sides of ticks: their rows, whether both may be known, or the left alone."""

    low: Tensor
    high: Tensor
    known: Tensor
    held: Tensor


@dataclass(frozen=True)
class Samples:
    """A series of all sessions at the stream's own rate: (window, time, ...) float32.

    Computed as on the host, in float64, one rounding after another.

    Attributes
    ----------
    good, recorded : Line
        Ticks of the valid samples, and of all.
    value : (good sample + 1, ...)
    valid : (recorded sample + 1,) bool
    offsets : (session, time) int64
        Ticks from the start of a window to its samples.
    present, max_gap : (session,) int64
    there : (session,) bool
    past : int
        Samples of the history, where there is a horizon.
    sizes : tuple of int
        Bytes of every session.
    """

    name: str
    good: Line
    recorded: Line
    value: Tensor
    valid: Tensor
    offsets: Tensor
    present: Tensor
    max_gap: Tensor
    there: Tensor
    past: int
    sizes: tuple[int, ...]

    @classmethod
    def load(
        cls,
        name: str,
        stream: Behaviour,
        sessions: Sequence[Chosen],
        window: Window,
        steps: tuple[int, int, int],
        device: torch.device,
    ) -> Samples:
        """Read the whole series of every session."""
        series = [_Series.load(one, stream) for one in sessions]
        clocks = [one.session.clock for one in sessions]
        _, past, horizon = steps
        step = 1 / exact(stream.rate)
        offsets = np.stack([one.edges(0, past + horizon, step)[:-1] for one in clocks])
        none: Ticks = np.zeros(0, dtype=np.int64)
        time = [none if one is None else one.time for one in series]
        good = [none if one is None else one.time[one.valid] for one in series]
        value = _values([one for one in series if one is not None])
        valid = np.concatenate([*(one.valid for one in series if one is not None), [False]])
        recorded, whole = Line.of(time, device), bool(valid[:-1].all())
        each = value[0].nbytes + (0 if whole else 8)
        pairs = zip(time, good, strict=True)

        def moved(values: ArrayLike) -> Tensor:
            return torch.from_numpy(np.asarray(values)).to(device)

        return cls(
            name,
            recorded if whole else Line.of(good, device),
            recorded,
            moved(value),
            moved(valid),
            moved(offsets),
            present=moved([window.ticks(one)[0] for one in clocks]),
            max_gap=moved([0 if one is None else one.max_gap for one in series]),
            there=moved([one is not None for one in series]),
            past=past if horizon else 0,
            sizes=tuple(len(every) * (8 + 1) + len(own) * each for every, own in pairs),
        )

    def read(self, at: Windows) -> Read:
        """Windows of any sessions."""
        tick = at.start[:, None] + self.offsets[at.session]
        before = torch.full_like(tick, _FAR)
        before[:, : self.past] = (at.start + self.present[at.session])[:, None]
        session = at.session[:, None]
        span = self._span(at, tick)
        reason = self._lost(session, tick, before, span)
        value, good = self._between(session, tick, before, span)
        reason = torch.where(good, Reason.OBSERVED, reason)
        reason = torch.where(self.there[session], reason, Reason.NOT_RECORDED)
        return {self.name: (value, reason.to(torch.uint8))}

    def _span(self, at: Windows, tick: Tensor) -> tuple[Tensor, Tensor]:
        """Ticks [low, high) (window, time) outside of which no sample counts."""
        if at.address.known is None:
            return torch.full_like(tick, -_FAR), torch.full_like(tick, _FAR)
        low, high = (at.moved(one)[:, None].expand_as(tick) for one in at.address.known)
        return low, high

    def _between(
        self, session: Tensor, tick: Tensor, before: Tensor, span: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Values (window, time, ...) and where there are any (window, time)."""
        own = self._beside(self.good, session, tick, before, span)
        left, right = (self._tick(self.good, session, row) for row in (own.low, own.high))
        gap = torch.where(own.known, right, tick) - left
        good = (own.known | own.held) & (gap <= self.max_gap[session])
        high = torch.where(own.known, own.high, own.low)
        # Of integers torch would make float32.
        part = (tick - left).double() / gap.clamp(min=1).double()
        part = part.reshape(*part.shape, *[1] * (self.value.ndim - 1))
        first, last = (self.value[row].double() for row in (own.low, high))
        made = (first + part * (last - first)).float()
        return torch.where(good.reshape(part.shape), made, 0.0), good

    def _lost(
        self, session: Tensor, tick: Tensor, before: Tensor, span: tuple[Tensor, Tensor]
    ) -> Tensor:
        """`Reason.INVALID` where a sample next to a tick was recorded and is not valid."""
        own = self._beside(self.recorded, session, tick, before, span)
        both = self.valid[own.low] & (self.valid[own.high] | ~own.known)
        return torch.where((own.known | own.held) & ~both, Reason.INVALID, Reason.OUTSIDE)

    def _beside(
        self,
        line: Line,
        session: Tensor,
        tick: Tensor,
        before: Tensor,
        span: tuple[Tensor, Tensor],
    ) -> _Beside:
        first, stop = line.first[session], line.stop[session]
        left = line.last(session, tick)
        low = torch.maximum(left, first)
        below = self._tick(line, session, low)
        some = (left >= first) & (below >= span[0])
        on = some & (below == tick)
        right = torch.where(on, left, left + 1)
        high = torch.maximum(torch.minimum(right, stop - 1), first)
        above = self._tick(line, session, high)
        known = some & (right < stop) & (above < torch.minimum(before, span[1]))
        return _Beside(low, high, known, some & ~known & (before < _FAR))

    def _tick(self, line: Line, session: Tensor, row: Tensor) -> Tensor:
        return line.axis[row] - line.shift[session]


def _values(series: Sequence[_Series]) -> NDArray[Any]:
    """Valid values of all sessions and one behind them; float32 where it holds each exactly."""
    small = all(one.value.dtype in (np.float32, *_EXACT) for one in series)
    kind = np.float32 if small else np.float64
    good = [one.value[one.valid].astype(kind) for one in series]
    return np.concatenate([*good, np.zeros((1, *good[0].shape[1:]), kind)])


def predicted(chosen: Chosen, stream: Behaviour) -> int:
    """Bytes that a session takes at most, from metadata alone."""
    name = f"behaviour/{stream.name}"
    if name not in chosen.session.tables:
        return 0
    value = chosen.session.table(name).columns["value"].values
    small = value.dtype in (np.float32, *_EXACT)
    each = int(np.prod(value.shape[1:], dtype=np.int64)) * (4 if small else 8)
    return int(value.shape[0]) * (8 + 8 + 1 + each)
