"""All scores of an evaluation as one JSON value, with what was left out and why."""

from __future__ import annotations

import numpy as np

from neurostore.errors import JSON
from neurostore.metrics.resampling import interval
from neurostore.metrics.scores import (
    FEWEST,
    METRICS,
    NULLS,
    Chosen,
    bits_per_spike,
    within_unit_correlation,
)
from neurostore.metrics.sufficient import SUMS, Statistics


def summary(
    stats: Statistics, *, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> dict[str, JSON]:
    """Every score of `METRICS`, the interval of the headline, and a table of units.

    A score that has no value is None, with the reason under ``"reasons"``; there is no NaN.

    Parameters
    ----------
    stats : Statistics
        Of one evaluation, or of rotations pooled.
    draws, level, seed
        Of the headline's bootstrap over blocks, see `interval`.
    """
    chosen = Chosen.of(stats)
    total = dict(zip(SUMS, stats.sums.sum(axis=1), strict=True))
    reasons: dict[str, JSON] = {}
    found: dict[str, JSON] = {name: metric(total, chosen) for name, metric in METRICS.items()}
    for name, value in found.items():
        if value is None:
            reasons[name] = f"no unit scored has {FEWEST} training and test spikes (and windows)"
    found["bits_per_spike_interval"] = None
    if len(stats) < 2:
        reasons["bits_per_spike_interval"] = f"{len(stats)} block; an interval needs two"
    elif chosen.top is not None:
        drawn = interval(stats, "bits_per_spike", draws=draws, level=level, seed=seed)
        found["bits_per_spike_interval"] = drawn.to_json()
    found |= _ceiling(stats, reasons)
    return found | _counts(stats, chosen) | {"per_unit": _per_unit(stats), "reasons": reasons}


def _ceiling(stats: Statistics, reasons: dict[str, JSON]) -> dict[str, JSON]:
    names = ("within_unit_correlation_ceiling", "correlation_units", "correlation_ceilings_at_zero")
    if not Chosen.of(stats).correlated.any():
        reasons[names[0]] = f"no unit has {FEWEST} test spikes and two whole windows"
        return dict.fromkeys(names)
    found = within_unit_correlation(stats)
    return dict(zip(names, (found.ceiling, len(found.units), found.at_zero), strict=True))


def _counts(stats: Statistics, chosen: Chosen) -> dict[str, JSON]:
    left_out = [unit for unit, kept in zip(stats.units, chosen.scored, strict=True) if not kept]
    return {
        "null": dict(NULLS),
        "top_unit": None if chosen.top is None else stats.units[chosen.top],
        "units": len(stats.units),
        "units_scored": int(chosen.scored.sum()),
        "left_out": list(left_out),
        "fewest_spikes": FEWEST,
        "blocks": len(stats),
        "windows": int(stats["windows"].sum(axis=0).max(initial=0)),
        "spikes": int(stats["spikes"].sum()),
    }


def _per_unit(stats: Statistics) -> list[JSON]:
    """One row a unit: spikes, bits and correlation, None where a unit has no such score."""
    bits, correlation, ceiling = {}, {}, {}
    chosen = Chosen.of(stats)
    if chosen.top is not None:
        scored = bits_per_spike(stats)
        bits = dict(zip(scored.units, scored.unit.tolist(), strict=True))
    if chosen.correlated.any():
        found = within_unit_correlation(stats)
        correlation = dict(zip(found.units, found.unit.tolist(), strict=True))
        ceiling = dict(zip(found.units, found.unit_ceiling.tolist(), strict=True))
    test = stats["spikes"].sum(axis=0).astype(np.int64).tolist()
    rows = zip(stats.units, stats.training_spikes.tolist(), test, strict=True)
    return [
        {
            "unit": unit,
            "training_spikes": training,
            "test_spikes": tested,
            "bits_per_spike": bits.get(unit),
            "correlation": correlation.get(unit),
            "correlation_ceiling": ceiling.get(unit),
        }
        for unit, training, tested in rows
    ]
