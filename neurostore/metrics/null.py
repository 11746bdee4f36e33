"""What a unit does on average in training: the null every score in bits is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurostore.errors import UsageError, counted

Floats: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Null:
    """The training-mean rate of every unit, ``(n + 0.5) / (bins + 1)``.

    Half a spike keeps the rate of a unit that is silent in training above zero.

    Attributes
    ----------
    spikes : (unit,) int64
        Training spikes; units with fewer than 20 are left out of scores.
    bins : (unit,) int64
        Observed training bins.
    units : tuple of str
        Unit ids.
    """

    spikes: Counts
    bins: Counts
    units: tuple[str, ...] = field(repr=False)

    @classmethod
    def fit(cls, counts: ArrayLike, bins: ArrayLike, *, units: Sequence[str] | None = None) -> Null:
        """The null of training counts.

        Parameters
        ----------
        counts : (unit,) int
            Spikes of each unit in training time.
        bins : (unit,) int, or int
            Bins in which each unit was observed in training time.
        units : sequence of str, optional
            Unit ids; their numbers where not given.

        Raises
        ------
        UsageError
            Where a count is negative or no integer, a unit has no observed bin, or lengths differ.
        """
        spikes = _whole(counts, "Training spikes")
        ids = tuple(str(unit) for unit in (range(len(spikes)) if units is None else units))
        if len(ids) != len(spikes):
            raise UsageError(f"A null needs one id a unit: {len(spikes)} counts, {len(ids)} ids.")
        observed = np.broadcast_to(np.asarray(bins), spikes.shape) if np.ndim(bins) == 0 else bins
        total = _whole(observed, "Training bins")
        if total.shape != spikes.shape:
            raise UsageError(
                f"A null needs the bins of every unit: {len(spikes)} counts, {len(total)} bins."
            )
        if (empty := total == 0).any():
            raise UsageError(
                f"{counted(int(empty.sum()), 'unit')} of {len(ids)} observed in no training bin, "
                f"first {ids[int(np.argmax(empty))]!r}. Leave them out, or train on more."
            )
        return cls(spikes, total, ids)

    @property
    def rate(self) -> Floats:
        """(unit,) float64: expected spikes a bin."""
        rate: Floats = (self.spikes + 0.5) / (self.bins + 1.0)
        return rate


def _whole(values: ArrayLike, what: str) -> Counts:
    array = np.asarray(values)
    if array.ndim != 1:
        raise UsageError(f"{what} must be (unit,), found shape {array.shape}.")
    if (wrong := ~((array >= 0) & np.isfinite(array) & (array == np.rint(array)))).any():
        row = int(np.argmax(wrong))
        raise UsageError(f"{what} must be whole numbers >= 0, found {array[row]} for unit {row}.")
    return array.astype(np.int64)
