"""Scores that add up: predicted and recorded counts → sums by block → scores and intervals."""

from neurostore.metrics.null import Null
from neurostore.metrics.resampling import Estimate, difference, interval
from neurostore.metrics.scores import (
    FEWEST,
    METRICS,
    NULLS,
    BitsPerSpike,
    Correlation,
    bits_per_spike,
    nlb_bits_per_spike,
    within_unit_correlation,
)
from neurostore.metrics.sufficient import SUMS, Statistics, statistics
from neurostore.metrics.summary import summary

__all__ = [
    "FEWEST",
    "METRICS",
    "NULLS",
    "SUMS",
    "BitsPerSpike",
    "Correlation",
    "Estimate",
    "Null",
    "Statistics",
    "bits_per_spike",
    "difference",
    "interval",
    "nlb_bits_per_spike",
    "statistics",
    "summary",
    "within_unit_correlation",
]
