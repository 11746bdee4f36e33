"""What any forecast must beat: the training mean, and the rate of the last moments.

Every baseline predicts (window, unit) expected spikes a bin from the history. Probes, which read no
spikes, are in `probes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurostore.errors import UsageError
from neurostore.metrics import Null

Floats: TypeAlias = NDArray[np.float64]

TIME_CONSTANTS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
WEIGHTS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True, eq=False)
class TrainingMean:
    """The training-mean rate, whatever happened before: the null itself, at 0 bits."""

    null: Null

    def predict(self, values: ArrayLike, /) -> Floats:
        """(window, unit) expected spikes a bin, from history counts (window, unit, bin)."""
        return np.tile(self.null.rate, (len(_history(values, self.null)), 1))


@dataclass(frozen=True, eq=False)
class TrailingRate:
    """The rate of a unit's last moments, mixed with its training mean.

    Attributes
    ----------
    null : Null
        Training means.
    bins : int
        Length of the trailing boxcar.
    time_constant : float
        The same, seconds.
    weight : float
        Share of the training mean, in (0, 1].
    """

    null: Null = field(repr=False)
    bins: int
    time_constant: float
    weight: float

    @classmethod
    def choose(
        cls,
        history: ArrayLike,
        target: ArrayLike,
        *,
        null: Null,
        bin: float,
        mask: ArrayLike | None = None,
        history_mask: ArrayLike | None = None,
        time_constants: Sequence[float] | None = None,
        weights: Sequence[float] = WEIGHTS,
    ) -> TrailingRate:
        """Boxcar and weight with the highest pooled log-likelihood of validation windows.

        Parameters
        ----------
        history, target : (window, unit, bin) int
            Counts of the validation windows, before and after their start.
        null : Null
            Training means.
        bin : float
            Width of a bin, seconds.
        mask : (window, unit, bin) bool, optional
            True where the target was observed.
        history_mask : (window, unit, bin) bool, optional
            True where the history was observed.
        time_constants : sequence of float, optional
            Boxcars to try, seconds; 0.1 to 30 s and the whole history, up to its length, where
            not given.
        weights : sequence of float
            Shares of the training mean to try, in (0, 1].

        Raises
        ------
        UsageError
            Where a boxcar is longer than the history, or a weight leaves a rate of zero possible.
        """
        past = _history(history, null)
        refuse_empty(past, "validation")
        lengths = _lengths(time_constants, past.shape[-1], bin)
        if not weights or not all(0 < weight <= 1 for weight in weights):
            raise UsageError(
                f"Weights of the training mean must lie in (0, 1], found {list(weights)}: at 0 a "
                "silent history would predict a rate of zero."
            )
        spikes, bins = observed_sums(target, mask)
        tried: list[tuple[float, TrailingRate]] = []
        for length in lengths:
            trailing = _trailing(past, length, history_mask, null)
            for one in (cls(null, length, length * bin, weight) for weight in weights):
                tried.append((log_likelihood(one._mixed(trailing), spikes, bins), one))
        return max(tried, key=lambda reached: reached[0])[1]

    def predict(self, values: ArrayLike, /, *, mask: ArrayLike | None = None) -> Floats:
        """(window, unit) expected spikes a bin, from history counts.

        Parameters
        ----------
        values : (window, unit, bin) int
            Counts of the history.
        mask : (window, unit, bin) bool, optional
            True where observed. Only observed bins make the rate; a unit observed in none of the
            boxcar has its training mean.

        Raises
        ------
        UsageError
            Where the history is shorter than the boxcar.
        """
        past = _history(values, self.null)
        if past.shape[-1] < self.bins:
            raise UsageError(
                f"A trailing boxcar of {self.bins} bins is longer than the history of "
                f"{past.shape[-1]}. Choose it on windows of the same history."
            )
        return self._mixed(_trailing(past, self.bins, mask, self.null))

    def _mixed(self, trailing: Floats) -> Floats:
        return self.weight * self.null.rate + (1 - self.weight) * trailing


def _history(values: ArrayLike, null: Null) -> NDArray[np.generic]:
    past = np.asarray(values)
    if past.ndim != 3 or past.shape[1] != len(null.units):
        raise UsageError(
            f"A history must be (window, unit, bin) of {len(null.units)} units, "
            f"found shape {past.shape}."
        )
    return past


def _trailing(past: NDArray[np.generic], length: int, mask: ArrayLike | None, null: Null) -> Floats:
    """(window, unit) mean of the last bins that were observed; the training mean where none was."""
    seen = None if mask is None else np.asarray(mask)[..., -length:]
    spikes, bins = observed_sums(past[..., -length:], seen)
    return np.where(bins > 0, spikes / np.maximum(bins, 1.0), null.rate)


def refuse_empty(values: NDArray[np.generic], what: str) -> None:
    """Refuse to fit or choose on no window at all."""
    if not len(values):
        raise UsageError(f"There is no {what} window to choose on. Give the split longer blocks.")


def _lengths(time_constants: Sequence[float] | None, history: int, bin: float) -> list[int]:
    """Boxcars in bins, distinct and sorted."""
    if time_constants is None:
        tried = [round(one / bin) for one in TIME_CONSTANTS]
        return sorted({history} | {length for length in tried if 1 <= length <= history})
    if not time_constants:
        raise UsageError("There is no trailing boxcar to choose from: time_constants is empty.")
    for one in time_constants:
        if not 1 <= round(one / bin) <= history:
            raise UsageError(
                f"A trailing boxcar of {one:g} s does not fit: the history is "
                f"{history * bin:g} s in bins of {bin:g} s. Give others, or a longer history."
            )
    return sorted({round(one / bin) for one in time_constants})


def observed_sums(values: ArrayLike, mask: ArrayLike | None) -> tuple[Floats, Floats]:
    """(window, unit) spikes, and bins observed.

    Parameters
    ----------
    values : (window, unit, bin) int
        Counts.
    mask : (window, unit, bin) bool or None
        True where observed; everywhere where None.
    """
    counts = np.asarray(values, dtype=np.float64)
    seen = np.ones(counts.shape, bool) if mask is None else np.asarray(mask, dtype=bool)
    if counts.ndim != 3 or seen.shape != counts.shape:
        raise UsageError(
            f"Counts and their mask must be (window, unit, bin): {counts.shape}, {seen.shape}."
        )
    return np.where(seen, counts, 0.0).sum(-1), seen.sum(-1).astype(np.float64)


def log_likelihood(rate: Floats, spikes: Floats, bins: Floats) -> float:
    """Pooled Poisson log-likelihood of (window, unit) sums, nats, without ``log k!``."""
    return float((spikes * np.log(rate) - bins * rate).sum())
