"""Spikes of a window as counts in bins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import UsageError
from neurostore.sample._chosen import Chosen, no_spikes
from neurostore.sample._compiled import compiled
from neurostore.sample.acquisition import Acquisition, All
from neurostore.sample.batch import Reason, Reasons, Values
from neurostore.sample.dropout import PerUnit
from neurostore.sample.plan import Address, Number, Ticks, Window
from neurostore.sample.streams._acquired import Watched
from neurostore.sample.streams._masked import hide
from neurostore.sample.streams._masks import Mask
from neurostore.sample.streams._stream import Reader, Stream, reason_where, reasons, whole

SPIKES = ("spikes", "units", "intervals/observed")
"""Tables that counts and events are read from."""


@dataclass(frozen=True)
class Spikes:
    """Spike counts (window, unit, bin) int32, exact on ticks.

    Parameters
    ----------
    bin : float
        Seconds; history and horizon are whole numbers of bins. Bin k of a window starts
        floor(k · bin · rate) ticks after the window.
    mask : Mask or sequence of Mask, optional
        What of the history is hidden, in every window anew; of several, what any of them hides.
    units_in, units_out : str or sequence of str, optional
        SQL over ``store.units()``, or ids of units: those that the input holds, and those that are
        predicted. Without `units_in` all, or all but `units_out`; without `units_out` all.

    Notes
    -----
    With any of the last three, `<name>` is an input: the history of `units_in` less what is
    masked. All else in it is 0, with the reason EXCLUDED where a mask hides it and NOT_REQUESTED
    for other units and for the horizon. `<name>.target` holds all counts, and
    `<name>.target_mask` is True where the loss counts: what is hidden of `units_out`, and was
    observed. So without a horizon the window is masked or co-smoothed all through; with one, its
    units are forecast too. A mask depends on seed, epoch and place in it alone, and hides nothing
    in another stream. Under an acquisition other than `All` a mask hides a part of what was
    observed, and `<name>.target_mask` is False where nothing was.
    """

    per_unit: ClassVar[Mapping[str, PerUnit]] = {
        "": "axis",
        ".target": "axis",
        ".target_mask": "axis",
    }

    bin: Number
    mask: Mask | tuple[Mask, ...] | None = None
    units_in: str | tuple[str, ...] | None = None
    units_out: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("mask", "units_in", "units_out"):
            said, single = getattr(self, name), Mask if name == "mask" else str
            if said is None or isinstance(said, single):
                continue
            if not isinstance(said, list | tuple) or not all(isinstance(s, single) for s in said):
                one = "a Mask" if name == "mask" else "a text"
                raise UsageError(f"{name} of Spikes is {one} or several, found {said!r}.")
            object.__setattr__(self, name, tuple(said))

    def observed_by(self, acquisition: Acquisition) -> Stream:
        """The stream as an acquisition sees it."""
        return self if isinstance(acquisition, All) else Watched(self, acquisition)

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        """Bind it to sessions."""
        past, future = (whole(name, part, self.bin, window) for part in ("history", "horizon"))
        refuse_without_spikes(name, sessions)
        for one in sessions:
            one.session.clock.edges(0, 1, self.bin)
        steps = {name: (2, past, future)}
        counts = _Counts(name, list(sessions), self.bin, past + future, steps)
        return hide(counts, self, name, list(sessions))


@dataclass(frozen=True)
class _Counts:
    name: str
    sessions: list[Chosen]
    bin: Number
    bins: int
    steps: dict[str, tuple[int, int, int]]
    _bound: dict[int, _Session] = field(default_factory=dict, repr=False)

    @property
    def tables(self) -> tuple[str, ...]:
        return SPIKES

    def missing(self, row: int) -> str | None:
        return no_spikes(self.sessions[row])

    def read(self, at: Address) -> Values:
        sessions = [self._session(row) for row, _ in at.by_session]
        units = max(one.units for one in sessions)
        shape = (len(at.start), units, self.bins)
        counts, padded = np.zeros(shape, np.int32), any(not one.fills(units) for one in sessions)
        reason = reasons(shape, Reason.NOT_RECORDED if padded else Reason.OBSERVED)
        for one, (_, place) in zip(sessions, at.by_session, strict=True):
            if not one.missing:
                one.read(at.start[place], place, counts, reason, padded=padded)
        return {self.name: (counts, reason)}

    def _session(self, row: int) -> _Session:
        if row not in self._bound:
            chosen, missing = self.sessions[row], self.missing(row) is not None
            edge = chosen.session.clock.edges(0, self.bins, self.bin)
            self._bound[row] = _Session(chosen, len(chosen.ids), missing, edge)
        return self._bound[row]


@dataclass(frozen=True, eq=False)
class _Session:
    """One session, with the edges (bin + 1,) of the bins in ticks from the start of a window."""

    chosen: Chosen
    units: int
    missing: bool
    edge: Ticks

    def fills(self, units: int) -> bool:
        """Whether it has something to say of so many units."""
        return self.units == units and not self.missing

    def read(
        self,
        start: Ticks,
        place: Ticks,
        counts: NDArray[np.int32],
        reason: Reasons,
        *,
        padded: bool,
    ) -> None:
        """Windows from start ticks (window,) on into their places of a batch.

        Where the batch is not `padded`, its reasons say "observed" already.
        """
        fast, span = compiled(self.chosen), int(self.edge[-1])
        if fast is None:
            counts[place, : self.units] = _count(self.chosen, start, self.edge)
            whole = self.chosen.whole(start, span)
        else:
            fast.count(start, self.edge, place, counts)
            whole = fast.whole(start, span)
        if whole and padded:
            reason[place, : self.units] = Reason.OBSERVED
        elif not whole:
            seen = self.chosen.seen(start[:, None] + self.edge)
            counts[place, : self.units] *= seen
            reason[place, : self.units] = reason_where(seen, Reason.OUTSIDE)


def _count(chosen: Chosen, start: Ticks, edge: Ticks) -> NDArray[np.int32]:
    """Counts (window, unit, bin) between start + edge."""
    units, bins = len(chosen.ids), len(edge) - 1
    made, numbers = np.empty((len(start), units, bins), np.int32), np.arange(bins)
    for window, (time, unit) in enumerate(chosen.session.pieces(start, start + edge[-1])):
        column = chosen.column[unit]
        bin = np.repeat(numbers, np.diff(np.searchsorted(time, start[window] + edge)))
        if not chosen.every:
            mine = column >= 0
            column, bin = column[mine], bin[mine]
        flat = np.bincount(column * bins + bin, minlength=units * bins)
        made[window] = flat.reshape(units, bins)
    return made


def refuse_without_spikes(name: str, sessions: Sequence[Chosen]) -> None:
    """Refuse sessions of which none has both spikes and units."""
    if all(no_spikes(one) for one in sessions):
        raise UsageError(
            f"The stream {name!r} reads spikes of units, and none of the {len(sessions)} sessions "
            "chosen has both."
        )
