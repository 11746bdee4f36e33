"""Spikes of a window as events: times and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from neurostore.sample._chosen import Chosen, no_spikes
from neurostore.sample._compiled import compiled
from neurostore.sample.batch import Reason, Values
from neurostore.sample.dropout import PerUnit
from neurostore.sample.plan import Address, Ticks, Window
from neurostore.sample.streams._spikes import SPIKES, refuse_without_spikes
from neurostore.sample.streams._stream import Reader, by_session, reason_where, reasons


@dataclass(frozen=True)
class SpikeEvents:
    """Spikes as events: `<name>.time` and `<name>.unit` (window, event), `<name>.observed`.

    Time is float32 seconds from the start of the window, ascending; unit is a place along the unit
    axis of the batch; `observed` (window, unit) bool says whether the unit was observed throughout
    the window, so that no spike is told from no observation. A spike outside the observed time of
    its unit is masked in its place. Windows with fewer events than the longest are padded: their
    mask is False there.
    """

    per_unit: ClassVar[Mapping[str, PerUnit]] = {
        ".time": "event",
        ".unit": "unit",
        ".observed": "axis",
    }

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        """Bind it to sessions."""
        refuse_without_spikes(name, sessions)
        spans = [window.ticks(one.session.clock)[1] for one in sessions]
        return _Events(name, list(sessions), spans)


@dataclass(frozen=True)
class _Events:
    """Windows of `spans` ticks, by session."""

    name: str
    sessions: list[Chosen]
    spans: list[int]
    steps: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def tables(self) -> tuple[str, ...]:
        return SPIKES

    def missing(self, row: int) -> str | None:
        return no_spikes(self.sessions[row])

    def read(self, at: Address) -> Values:
        groups = [(row, at.start[place], place) for row, place in at.by_session]
        fast = [compiled(self.sessions[row]) for row, _, _ in groups]
        longest = [
            -1 if one is None else one.held_whole(start, self.spans[row])
            for one, (row, start, _) in zip(fast, groups, strict=True)
        ]
        if min(longest) < 0:  # read without the cache, or not observed throughout
            return by_session(at, self._windows)
        units = [len(self.sessions[row].ids) for row, _, _ in groups]
        shape, wide = (len(at.start), max(longest)), (len(at.start), max(units))
        time, unit = np.empty(shape, np.float32), np.empty(shape, np.int64)
        reason, lost = np.empty(shape, np.uint8), reasons(wide, Reason.OBSERVED)
        seen = np.ones(wide, dtype=bool)
        for one, own, (row, start, place) in zip(fast, units, groups, strict=True):
            if one is not None:
                one.listed(start, self.spans[row], place, time, unit, reason)
            if own < wide[1]:
                seen[place, own:], lost[place, own:] = False, Reason.NOT_RECORDED
        return self._named((time, reason), (unit, reason), (seen, lost))

    def _windows(self, row: int, start: Ticks) -> Values:
        chosen, stop = self.sessions[row], start + self.spans[row]
        units = (len(start), len(chosen.ids))
        if self.missing(row):
            none, lost = np.zeros((len(start), 0)), reasons(units, Reason.NOT_RECORDED)
            time, unit = none.astype(np.float32), none.astype(np.int64)
            seen = np.zeros(units, bool)
            reason = reasons(none.shape, Reason.NOT_RECORDED)
            return self._named((time, reason), (unit, reason), (seen, lost))
        seen = chosen.seen(np.stack([start, stop], axis=1))[:, :, 0]
        events = chosen.session.events(start, stop)
        column = chosen.column[events.unit]
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
