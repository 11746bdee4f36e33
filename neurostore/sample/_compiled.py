"""A session's packed spikes, as the compiled functions take them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neurostore import kernels
from neurostore.cache import SEGMENT, verify_ahead
from neurostore.errors import CacheWarning, DamagedError
from neurostore.sample._chosen import Chosen, no_spikes
from neurostore.sample.batch import Reason
from neurostore.sample.plan import Ticks

if TYPE_CHECKING:
    from neurostore.cache import Packed
    from neurostore.store import Session


@dataclass(eq=False)
class Compiled:
    """The spikes of a session, the units that are asked for, and when they were observed.

    Attributes
    ----------
    column : (unit + 1,) int32
        See `kernels._spikes.count`.
    starts, stops, pointer : int64
        The observed times that differ, behind one another (see `kernels._spikes.whole`).
    rate : (float, float)
        Ticks per second, as a quotient.
    kernel : module
        `kernels._spikes`, which is loaded when it pays.
    """

    session: Session
    packed: Packed
    column: NDArray[np.int32]
    every: bool
    starts: Ticks
    stops: Ticks
    pointer: Ticks
    rate: tuple[float, float]
    kernel: ModuleType
    _sure: bool = False

    @classmethod
    def of(cls, chosen: Chosen) -> Compiled | None:
        """None where the session is read without the cache."""
        from neurostore.kernels import _spikes

        packed = None if no_spikes(chosen) else chosen.session.packed
        if packed is None:
            return None
        verify_ahead(packed.entry)
        kinds = chosen.kinds
        pointer = np.cumsum([0, *(len(one) for one in kinds)], dtype=np.int64)
        starts, stops = (
            np.concatenate([getattr(one, side) for one in kinds]) for side in ("start", "stop")
        )
        rate = chosen.session.clock.rate
        above, below = float(rate), 1.0
        if rate.numerator < 2**53:  # as `Clock.seconds` divides
            above, below = float(rate.numerator), float(rate.denominator)
        column = chosen.column.astype(np.int32)
        seen = (starts, stops, pointer)
        return cls(
            chosen.session, packed, column, chosen.every, *seen, (above, below), kernel=_spikes
        )

    def count(self, start: Ticks, edge: Ticks, place: Ticks, out: NDArray[np.int32]) -> None:
        """See `kernels._spikes.count`."""
        one = self._verified(start, int(edge[-1]))
        self.kernel.count(
            one.events, one.block, one.first, one.length, start, edge, self.column, place, out
        )

    def _verified(self, start: Ticks, span: int) -> Packed:
        """The packed spikes, of which those of some windows are what was written.

        Where the cache is damaged there, it is built anew from the store.
        """
        if self._sure:
            return self.packed
        try:
            self._verify(start, span)
        except DamagedError as error:
            warnings.warn(f"{error.line} It is built anew now.", CacheWarning, stacklevel=2)
            packed = self.session.packed
            if packed is None:
                raise
            self.packed, self._sure = packed, False
            self._verify(start, span)
        return self.packed

    def _verify(self, start: Ticks, span: int) -> None:
        one, entry = self.packed, self.packed.entry
        cold = self.kernel.unverified(
            entry.verified,
            entry.offset("events"),
            one.events.itemsize,
            SEGMENT,
            one.block,
            one.first,
            one.length,
            start,
            span,
        )
        if cold >= 0:
            blocks = len(one.block) - 1
            low = np.clip((start - one.first) // one.length, 0, blocks)
            high = np.clip((start + span - 1 - one.first) // one.length + 1, low, blocks)
            entry.check_ranges("events", one.block[low], one.block[high])
        self._sure = bool(entry.verified.all())

    def held_whole(self, start: Ticks, span: int) -> int:
        """The most spikes in any of the windows; -1 where one is not observed throughout."""
        one = self._verified(start, span)
        most: int = self.kernel.held_whole(
            self.starts,
            self.stops,
            self.pointer,
            one.events,
            one.block,
            one.first,
            one.length,
            start,
            span,
            self.column,
            self.every,
        )
        return most

    def whole(self, start: Ticks, span: int) -> bool:
        """Whether all units asked for are observed throughout all windows."""
        return bool(self.kernel.whole(self.starts, self.stops, self.pointer, start, span))

    def listed(
        self,
        start: Ticks,
        span: int,
        place: Ticks,
        time: NDArray[np.float32],
        unit: NDArray[np.int64],
        reason: NDArray[np.uint8],
    ) -> None:
        """See `kernels._spikes.listed`."""
        one = self.packed
        self.kernel.listed(
            one.events,
            one.block,
            one.first,
            one.length,
            start,
            span,
            self.column,
            self.every,
            *self.rate,
            place,
            time,
            unit,
            reason,
            int(Reason.NOT_RECORDED),
        )


def compiled(chosen: Chosen) -> Compiled | None:
    """The session for the compiled functions; None until they are loaded, and without the cache."""
    return chosen.compiled if kernels.ready() else None
