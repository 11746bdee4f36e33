"""How sure a score is: blocks drawn anew, for one model or for two on the same blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neurostore.errors import JSON, UsageError
from neurostore.metrics.null import Floats
from neurostore.metrics.scores import Chosen, metric_named
from neurostore.metrics.sufficient import SUMS, Statistics

AT_ONCE = 100
"""Draws summed at once: (draw, sum, unit) is the largest array, 24 MB for 3,000 units."""


@dataclass(frozen=True)
class Estimate:
    """A score, or a difference of two, with the interval its blocks give it.

    Attributes
    ----------
    value : float
        On the blocks as they are.
    low, high : float
        Percentile interval over the draws.
    level : float
        Of the interval, such as 0.95.
    blocks, draws : int
        Blocks resampled, and how often.
    undefined : int
        Draws without a value (no spike, say), which the interval leaves out.
    """

    value: float
    low: float
    high: float
    level: float
    blocks: int
    draws: int
    undefined: int = 0

    def to_json(self) -> dict[str, JSON]:
        """The estimate as a plain mapping."""
        return dict(self.__dict__)


def interval(
    stats: Statistics,
    metric: str = "bits_per_spike",
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A score with its bootstrap interval over blocks.

    Windows of one block are alike, so blocks are what is drawn. Which units are scored is settled
    on all blocks, before the first draw.

    Parameters
    ----------
    stats : Statistics
        Of two blocks or more.
    metric : str
        One of `METRICS`.
    draws : int
        Bootstrap samples.
    level : float
        Share of the draws inside the interval.
    seed : int
        Of the draws.

    Raises
    ------
    UsageError
        With fewer than two blocks, or where the metric has no value.
    """
    weights = _weights(stats, draws=draws, level=level, seed=seed)
    values = _values(stats, metric, weights)
    return _estimate(values, level=level, blocks=len(stats), metric=metric)


def difference(
    a: Statistics,
    b: Statistics,
    metric: str = "bits_per_spike",
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Score of `a` minus score of `b`, each draw taking the same blocks of both.

    Parameters
    ----------
    a, b : Statistics
        Of the same windows, units and null.
    metric, draws, level, seed
        As for `interval`.

    Raises
    ------
    UsageError
        Where blocks, units, recorded spikes or nulls differ; and as `interval`.
    """
    _refuse_unpaired(a, b)
    weights = _weights(a, draws=draws, level=level, seed=seed)
    values = _values(a, metric, weights) - _values(b, metric, weights)
    return _estimate(values, level=level, blocks=len(a), metric=metric)


def _weights(stats: Statistics, *, draws: int, level: float, seed: int) -> Floats:
    """(1 + draw, block) float64: how often each block is taken; the first row takes each once."""
    if len(stats) < 2:
        raise UsageError(
            f"An interval needs two blocks to draw from, found {len(stats)}. "
            "Evaluate on a split of more blocks, or pool rotations."
        )
    if draws < 1 or not 0 < level < 1:
        raise UsageError(f"An interval needs draws >= 1 and 0 < level < 1: {draws}, {level}.")
    blocks = len(stats)
    taken = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), size=draws)
    return np.concatenate([np.ones((1, blocks)), taken])


def _values(stats: Statistics, metric: str, weights: Floats) -> Floats:
    """(1 + draw,) float64: the metric of every draw, NaN where it has no value."""
    score, chosen = metric_named(metric), Chosen.of(stats)
    values: list[float | None] = []
    for some in np.array_split(weights, math.ceil(len(weights) / AT_ONCE)):
        totals = np.einsum("db,qbu->dqu", some, stats.sums, optimize=True)
        values += [score(dict(zip(SUMS, total, strict=True)), chosen) for total in totals]
    return np.array([np.nan if value is None else value for value in values])


def _estimate(values: Floats, *, level: float, blocks: int, metric: str) -> Estimate:
    drawn = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or not len(drawn):
        raise UsageError(
            f"{metric} has no value {'in any draw' if np.isfinite(values[0]) else 'here'}: units "
            "need 20 training and 20 test spikes. Score more time or more units."
        )
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(
        value=float(values[0]),
        low=float(low),
        high=float(high),
        level=level,
        blocks=blocks,
        draws=len(values) - 1,
        undefined=len(values) - 1 - len(drawn),
    )


def _refuse_unpaired(a: Statistics, b: Statistics) -> None:
    if a.units != b.units:
        found = f"{len(a.units)} and {len(b.units)} units, or another order"
    elif not (np.array_equal(a.blocks, b.blocks) and np.array_equal(a.rotations, b.rotations)):
        found = f"{len(a)} and {len(b)} blocks, or other ids"
    elif not np.array_equal(a.training_spikes, b.training_spikes):
        found = "training spikes"
    elif wrong := [name for name in ("spikes", "bins", "windows") if (a[name] != b[name]).any()]:
        found = f"{wrong[0]}, {a[wrong[0]].sum():,.0f} and {b[wrong[0]].sum():,.0f}"
    elif not np.allclose(a["null"], b["null"], rtol=1e-6):
        found = "their nulls"
    else:
        return
    raise UsageError(
        f"A paired difference needs two models on the same windows; they differ in {found}. "
        "Evaluate both on one split, stride and null."
    )
