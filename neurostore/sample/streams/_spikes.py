"""Spikes of a window, as counts in bins or as events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import UsageError
from neurostore.sample._chosen import Chosen, columns, no_spikes
from neurostore.sample.batch import Reason, Values
from neurostore.sample.plan import Address, Number, Ticks, Window
from neurostore.sample.streams._stream import (
    Reader,
    by_session,
    reason_where,
    reasons,
    whole,
)


@dataclass(frozen=True)
class Spikes:
    """Spike counts (window, unit, bin) int32, exact on ticks.

    Parameters
    ----------
    bin : float
        Seconds; history and horizon are whole numbers of bins. Bin k of a window starts
        floor(k · bin · rate) ticks after the window.
    """

    bin: Number

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        """Bind it to sessions."""
        past, future = (whole(name, part, self.bin, window) for part in ("history", "horizon"))
        _refuse_without_spikes(name, sessions)
        for one in sessions:
            one.session.clock.edges(0, 1, self.bin)
        return _Counts(name, list(sessions), self.bin, past + future, {name: (2, past, future)})


@dataclass(frozen=True)
class _Counts:
    name: str
    sessions: list[Chosen]
    bin: Number
    bins: int
    steps: dict[str, tuple[int, int, int]]

    def missing(self, row: int) -> str | None:
        return no_spikes(self.sessions[row])

    def read(self, at: Address) -> Values:
        return by_session(at, self._windows)

    def _windows(self, row: int, start: Ticks) -> Values:
        chosen = self.sessions[row]
        offsets = chosen.session.clock.edges(0, self.bins, self.bin)
        shape = (len(start), len(chosen.ids), self.bins)
        if self.missing(row):
            return {self.name: (np.zeros(shape, np.int32), reasons(shape, Reason.NOT_RECORDED))}
        counts = _count(chosen, start, offsets)
        seen = chosen.seen(start[:, None] + offsets)
        counts *= seen
        return {self.name: (counts, reason_where(seen, Reason.OUTSIDE))}


def _count(chosen: Chosen, start: Ticks, offsets: Ticks) -> NDArray[np.int32]:
    """Counts (window, unit, bin) between start + offsets, by one histogram over all windows."""
    windows, units, bins = len(start), len(chosen.ids), len(offsets) - 1
    events = chosen.session.events(start, start + offsets[-1])
    column = columns(chosen)[events.unit]
    mine = column >= 0
    window, column = events.window[mine], column[mine]
    bin = np.searchsorted(offsets, events.time[mine] - start[window], side="right") - 1
    flat = (window * units + column) * bins + bin
    counts = np.bincount(flat, minlength=windows * units * bins)
    return counts.reshape(windows, units, bins).astype(np.int32)


@dataclass(frozen=True)
class SpikeEvents:
    """Spikes as events: `<name>.time` and `<name>.unit` (window, event), `<name>.observed`.

    Time is float32 seconds from the start of the window, ascending; unit is a place along the unit
    axis of the batch; `observed` (window, unit) bool says whether the unit was observed throughout
    the window, so that no spike is told from no observation. A spike outside the observed time of
    its unit is masked in its place. Windows with fewer events than the longest are padded: their
    mask is False there.
    """

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        """Bind it to sessions."""
        _refuse_without_spikes(name, sessions)
        return _Events(name, list(sessions), window)


@dataclass(frozen=True)
class _Events:
    name: str
    sessions: list[Chosen]
    window: Window
    steps: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def missing(self, row: int) -> str | None:
        return no_spikes(self.sessions[row])

    def read(self, at: Address) -> Values:
        return by_session(at, self._windows)

    def _windows(self, row: int, start: Ticks) -> Values:
        chosen = self.sessions[row]
        stop = start + self.window.ticks(chosen.session.clock)[1]
        units = (len(start), len(chosen.ids))
        if self.missing(row):
            none, lost = np.zeros((len(start), 0)), reasons(units, Reason.NOT_RECORDED)
            time, unit = none.astype(np.float32), none.astype(np.int64)
            seen = np.zeros(units, bool)
            reason = reasons(none.shape, Reason.NOT_RECORDED)
            return self._named((time, reason), (unit, reason), (seen, lost))
        seen = chosen.seen(np.stack([start, stop], axis=1))[:, :, 0]
        events = chosen.session.events(start, stop)
        column = columns(chosen)[events.unit]
        kept = column >= 0
        window, column = events.window[kept], column[kept]
        seconds = chosen.session.clock.seconds(events.time[kept] - start[window])
        count = np.bincount(window, minlength=len(start))
        place = np.arange(len(window)) - np.repeat(np.cumsum(count) - count, count)
        shape = (len(start), int(count.max(initial=0)))
        time, unit = np.zeros(shape, np.float32), np.zeros(shape, np.int64)
        saw = chosen.saw(column, events.time[kept])
        time[window, place], unit[window, place] = seconds * saw, column * saw
        reason = reasons(shape, Reason.NOT_RECORDED)
        reason[window, place] = reason_where(saw, Reason.OUTSIDE)
        observed = (seen, reason_where(seen, Reason.OUTSIDE))
        return self._named((time, reason), (unit, reason), observed)

    def _named(self, time: Any, unit: Any, observed: Any) -> Values:
        parts = {"time": time, "unit": unit, "observed": observed}
        return {f"{self.name}.{part}": values for part, values in parts.items()}


def _refuse_without_spikes(name: str, sessions: Sequence[Chosen]) -> None:
    if all(no_spikes(one) for one in sessions):
        raise UsageError(
            f"The stream {name!r} reads spikes of units, and none of the {len(sessions)} sessions "
            "chosen has both."
        )
