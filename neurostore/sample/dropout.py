"""Units left out at random in every window, so that a model learns to do with fewer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import UsageError
from neurostore.sample._draws import lowest, scores
from neurostore.sample.batch import Reason, Values
from neurostore.sample.plan import Address, Ticks

if TYPE_CHECKING:
    from neurostore.sample.streams import Stream

PerUnit: TypeAlias = Literal["axis", "unit", "event"]
"""What a tensor has: units along axis 1, the unit of every event, or a value of these events."""


@dataclass(frozen=True)
class UnitDropout:
    """How many units of a window are kept: triangular from `min` over `mode` to `max`.

    The number drawn is capped at the number there is, so that a session of `min` units or fewer
    keeps them all. Which ones is as likely for all. Both depend on seed, epoch and place of the
    window alone. The units dropped are dropped from every stream alike, in their place:
    masked with the reason EXCLUDED, and False in ``batch.unit_mask``; ``batch.unit_ids`` still
    names them. Targets of units are dropped with them.

    Parameters
    ----------
    min, mode, max : int
        Units, 1 <= min <= mode <= max. POYO is trained with 30, 80 and 200 (Azabou et al. 2023,
        NeurIPS).
    """

    min: int
    mode: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.mode <= self.max:
            raise UsageError(f"Unit dropout needs 1 <= min <= mode <= max, found {self}.")

    def check(self, streams: dict[str, Stream]) -> None:
        """Refuse to drop units where no stream has any.

        Raises
        ------
        UsageError
        """
        if not any(getattr(one, "per_unit", None) for one in streams.values()):
            said = ", ".join(f"{name}={one}" for name, one in streams.items())
            raise UsageError(f"{self} drops units, and no stream has units: {said}.")

    def count(self, draws: NDArray[np.uint64]) -> Ticks:
        """How many units (window,) are kept where there are enough."""
        part = draws.astype(np.float64) / 2.0**64
        width = float(self.max - self.min)
        if not width:
            return np.full(len(draws), self.min)
        rise, fall = self.mode - self.min, self.max - self.mode
        # The inverse of its distribution function, on either side of the mode.
        low = self.min + np.sqrt(part * width * rise)
        high = self.max - np.sqrt((1 - part) * width * fall)
        made: Ticks = np.rint(np.where(part * width < rise, low, high)).astype(np.int64)
        return made

    def kept(self, at: Address, units: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of the units (window, unit), True where there is one, are kept."""
        number, which = at.draws("dropout number"), at.draws("dropout units")
        drawn = scores(which, np.arange(units.shape[1]))
        drawn[~units] = np.iinfo(np.uint64).max
        count = np.minimum(self.count(number), units.sum(axis=1))
        return lowest(drawn, count) & units


def without(read: Values, kept: NDArray[np.bool_], name: str, stream: Stream) -> Values:
    """What a stream has read under a name, less the units that are not kept (window, unit)."""
    per_unit: Mapping[str, PerUnit] = getattr(stream, "per_unit", {})
    made, rows = dict(read), np.arange(len(kept))[:, None]
    for part, kind in per_unit.items():
        if name + part not in read:
            continue
        values, why = read[name + part]
        if kind == "axis":
            lost = ~kept[:, : why.shape[1]].reshape(*why.shape[:2], *[1] * (why.ndim - 2))
        else:
            unit, there = read[name + next(p for p, kind in per_unit.items() if kind == "unit")]
            lost = there == Reason.OBSERVED
            if lost.any():
                lost &= ~kept[rows, unit]
        gone = lost.reshape(*lost.shape, *[1] * (values.ndim - lost.ndim))
        excluded = lost & (why == Reason.OBSERVED)
        made[name + part] = (
            np.where(gone, values.dtype.type(0), values),
            np.where(excluded, np.uint8(Reason.EXCLUDED), why),
        )
    return made
