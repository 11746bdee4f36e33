"""Sums over blocks → scores: bits per spike against a named null, and within-unit correlation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from neurostore.errors import NotFoundError, UsageError
from neurostore.metrics.null import Floats
from neurostore.metrics.sufficient import SUMS, Flags, Statistics

FEWEST = 20
"""Spikes, in training and in test, below which a unit is left out of scores."""

# Sums of squares carry about 1e-16 of their size a term: a variance below this is rounding.
_ROUNDING = 1e-10


@dataclass(frozen=True, eq=False)
class BitsPerSpike:
    """Gain in log-likelihood over the training mean, in bits a spike of the units scored.

    Attributes
    ----------
    population : float
        The headline: bits of all units over spikes of all units.
    without_top_unit : float or None
        The same without the unit that contributes most; None where it is the only one.
    median_unit, mean_unit : float
        Over units, each by its own spikes.
    top_unit : str
        The unit that contributes most bits.
    unit : (scored unit,) float64
        Bits per spike of each unit.
    units, left_out : tuple of str
        Units scored; units with fewer than 20 training or 20 test spikes.
    """

    population: float
    without_top_unit: float | None
    median_unit: float
    mean_unit: float
    top_unit: str
    unit: Floats = field(repr=False)
    units: tuple[str, ...] = field(repr=False)
    left_out: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Correlation:
    """Correlation over windows of predicted and recorded count, median over units.

    Attributes
    ----------
    median_unit, ceiling : float
        Correlation, and the highest one a perfect rate could have were the counts Poisson:
        ``sqrt(var(rate) / var(count))`` with ``var(rate) = max(0, var(count) - mean(count))``.
    unit, unit_ceiling : (counted unit,) float64
        Of each unit; 0 where predictions or counts do not vary.
    units : tuple of str
        Units with at least 20 test spikes, and two windows observed throughout.
    at_zero : int
        Units whose ceiling is 0; they are counted in the medians.
    """

    median_unit: float
    ceiling: float
    unit: Floats = field(repr=False)
    unit_ceiling: Floats = field(repr=False)
    units: tuple[str, ...] = field(repr=False)
    at_zero: int


@dataclass(frozen=True, eq=False)
class Chosen:
    """Which units a score is about, settled on all blocks before any are resampled."""

    scored: Flags
    correlated: Flags
    top: int | None

    @classmethod
    def of(cls, stats: Statistics) -> Chosen:
        """The units the rule of 20 spikes keeps, and the one that contributes most bits."""
        total = _total(stats)
        enough = total["spikes"] >= FEWEST
        scored = enough & (stats.training_spikes >= FEWEST)
        correlated = enough & (total["windows"] >= 2)
        gain = np.where(scored, total["model"] - total["null"], -np.inf)
        return cls(scored, correlated, int(np.argmax(gain)) if scored.any() else None)


def _total(stats: Statistics) -> dict[str, Floats]:
    return dict(zip(SUMS, stats.sums.sum(axis=1), strict=True))


def bits_per_spike(stats: Statistics) -> BitsPerSpike:
    """Bits per spike against the training mean (`Null`).

    Raises
    ------
    UsageError
        Where no unit has 20 training and 20 test spikes.
    """
    chosen, total = Chosen.of(stats), _total(stats)
    if chosen.top is None:
        raise UsageError(
            f"No unit of {len(stats.units)} has {FEWEST} training and {FEWEST} test spikes: "
            f"at most {int(stats.training_spikes.max(initial=0))} and "
            f"{int(total['spikes'].max(initial=0))}. Score more time or more units."
        )
    unit = _unit_bits(total, chosen)
    return BitsPerSpike(
        population=_gain(total, chosen.scored),
        without_top_unit=_without_top(total, chosen),
        median_unit=float(np.median(unit)),
        mean_unit=float(np.mean(unit)),
        top_unit=stats.units[chosen.top],
        unit=unit,
        units=_named(stats, chosen.scored),
        left_out=_named(stats, ~chosen.scored),
    )


def within_unit_correlation(stats: Statistics) -> Correlation:
    """Correlation within units, and its Poisson ceiling.

    Raises
    ------
    UsageError
        Where no unit has 20 test spikes and two windows in which it was observed throughout.
    """
    chosen, total = Chosen.of(stats), _total(stats)
    kept = chosen.correlated
    if not kept.any():
        raise UsageError(
            f"No unit of {len(kept)} has {FEWEST} test spikes and two windows observed throughout: "
            f"at most {int(total['spikes'].max(initial=0))} spikes and "
            f"{int(total['windows'].max(initial=0))} windows. Score more time or more units."
        )
    unit, ceiling = _correlations(total, kept)
    at_zero = int((ceiling == 0).sum())
    middle = float(np.median(unit)), float(np.median(ceiling))
    return Correlation(*middle, unit, ceiling, _named(stats, kept), at_zero)


def nlb_bits_per_spike(stats: Statistics) -> float:
    """Bits per spike against the mean of the *evaluated* time, as the Neural Latents Benchmark.

    Over every unit, none left out; with held-out units predicted it is the benchmark's co-bps.
    Lower than `bits_per_spike` wherever rates drift, because its null has seen the test. Pei et
    al. 2021, arXiv:2109.04463; ``nlb_tools.evaluation.bits_per_spike``.

    Raises
    ------
    UsageError
        Where there is no spike.
    """
    value = _nlb(_total(stats), Chosen.of(stats))
    if value is None:
        raise UsageError("Bits per spike need a spike: the evaluated time holds none.")
    return value


def _gain(total: Mapping[str, Floats], kept: Flags) -> float:
    """Bits of some units over their spikes."""
    gain = (total["model"] - total["null"])[kept].sum()
    return float(gain / total["spikes"][kept].sum() / np.log(2))


def _unit_bits(total: Mapping[str, Floats], chosen: Chosen) -> Floats:
    """Bits per spike of the units scored that have a spike."""
    kept = chosen.scored & (total["spikes"] > 0)
    gain = total["model"][kept] - total["null"][kept]
    bits: Floats = gain / total["spikes"][kept] / np.log(2)
    return bits


def _population(total: Mapping[str, Floats], chosen: Chosen) -> float | None:
    return _gain(total, chosen.scored) if total["spikes"][chosen.scored].any() else None


def _without_top(total: Mapping[str, Floats], chosen: Chosen) -> float | None:
    rest = chosen.scored & (np.arange(len(chosen.scored)) != chosen.top)
    return _gain(total, rest) if total["spikes"][rest].any() else None


def _median_unit(total: Mapping[str, Floats], chosen: Chosen) -> float | None:
    bits = _unit_bits(total, chosen)
    return float(np.median(bits)) if len(bits) else None


def _mean_unit(total: Mapping[str, Floats], chosen: Chosen) -> float | None:
    bits = _unit_bits(total, chosen)
    return float(np.mean(bits)) if len(bits) else None


def _nlb(total: Mapping[str, Floats], chosen: Chosen) -> float | None:
    spikes, bins = total["spikes"], total["bins"]
    if not spikes.any():
        return None
    rate = np.where(spikes > 0, spikes, 1.0) / np.maximum(bins, 1.0)
    null = spikes * np.log(rate) - spikes
    return float((total["model"] - null).sum() / spikes.sum() / np.log(2))


def _correlation(total: Mapping[str, Floats], chosen: Chosen) -> float | None:
    # A draw may take none of the blocks in which a unit was observed.
    kept = chosen.correlated & (total["windows"] >= 2)
    return float(np.median(_correlations(total, kept)[0])) if kept.any() else None


def _correlations(total: Mapping[str, Floats], kept: Flags) -> tuple[Floats, Floats]:
    n, x, y, xx, yy, xy = (total[name][kept] for name in ("windows", *SUMS[5:]))
    var_x, var_y = _variance(n, x, xx), _variance(n, y, yy)
    varies = (var_x > 0) & (var_y > 0)
    scale = np.sqrt(np.where(varies, var_x * var_y, 1.0))
    unit = np.where(varies, (xy / n - x * y / n**2) / scale, 0.0)
    rate = np.maximum(0.0, var_y - y / n)
    ceiling = np.sqrt(rate / np.where(var_y > 0, var_y, 1.0))
    return np.clip(unit, -1.0, 1.0), ceiling


def _variance(n: Floats, total: Floats, squares: Floats) -> Floats:
    mean_square = squares / n
    variance = mean_square - (total / n) ** 2
    return np.where(variance > _ROUNDING * mean_square, variance, 0.0)


def _named(stats: Statistics, which: Flags) -> tuple[str, ...]:
    return tuple(unit for unit, kept in zip(stats.units, which, strict=True) if kept)


METRICS: dict[str, Callable[[Mapping[str, Floats], Chosen], float | None]] = {
    "bits_per_spike": _population,
    "bits_per_spike_without_top_unit": _without_top,
    "bits_per_spike_median_unit": _median_unit,
    "bits_per_spike_mean_unit": _mean_unit,
    "nlb_bits_per_spike": _nlb,
    "within_unit_correlation": _correlation,
}
"""Metrics by name: of total sums (unit,) and the units chosen; None where there is no value."""

NULLS = {
    "bits_per_spike": "training mean, (n + 0.5) / (bins + 1)",
    "nlb_bits_per_spike": "mean of the evaluated time (nlb_tools)",
}
"""What a score in bits is measured against."""


def metric_named(name: str) -> Callable[[Mapping[str, Floats], Chosen], float | None]:
    """The metric of a name.

    Raises
    ------
    NotFoundError
        With the nearest name.
    """
    if name not in METRICS:
        raise NotFoundError("metric", name, METRICS)
    return METRICS[name]
