"""Predicted against recorded counts as sums over blocks, from which every score is made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurostore.errors import NotFoundError, UsageError
from neurostore.metrics.null import Counts, Floats, Null

Flags: TypeAlias = NDArray[np.bool_]

SUMS = ("model", "null", "spikes", "bins", "windows", "x", "y", "xx", "yy", "xy")
"""Rows of `Statistics.sums`. The log-likelihoods of model and null (nats) are Poisson's without
``log k!``, which no comparison needs; x and y are the predicted and recorded count of a window
summed over its horizon, over the windows in which the unit was observed throughout."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sufficient statistics of a prediction, by block and unit.

    Attributes
    ----------
    sums : (quantity, block, unit) float64
        What `SUMS` names.
    blocks, rotations : (block,) int64
        Id of each block, and which rotation tested it (0 where there is one).
    training_spikes : (unit,) int64
        Spikes the null was fitted on; after pooling, those of the poorest rotation.
    units : tuple of str
        Unit ids.
    """

    sums: Floats = field(repr=False)
    blocks: Counts = field(repr=False)
    rotations: Counts = field(repr=False)
    training_spikes: Counts = field(repr=False)
    units: tuple[str, ...] = field(repr=False)

    def __getitem__(self, name: str) -> Floats:
        """(block, unit) float64: one of the sums."""
        if name not in SUMS:
            raise NotFoundError("sum", name, SUMS, "statistics")
        values: Floats = self.sums[SUMS.index(name)]
        return values

    def __len__(self) -> int:
        """Blocks."""
        return len(self.blocks)

    def __add__(self, other: Statistics) -> Statistics:
        """Both as one: batches of one evaluation under one null. Sums of one block are added."""
        _same_units(self, other)
        if (differ := self.training_spikes != other.training_spikes).any():
            unit = int(np.argmax(differ))
            raise UsageError(
                f"Statistics of different nulls do not add: unit {self.units[unit]!r} had "
                f"{self.training_spikes[unit]} and {other.training_spikes[unit]} training spikes. "
                "Join rotations by Statistics.pool."
            )
        return _joined([self, other], [self.rotations, other.rotations], self.training_spikes)

    @classmethod
    def pool(cls, rotations: Sequence[Statistics]) -> Statistics:
        """Rotations of one evaluation as one; their blocks stay apart, whatever their ids.

        Each rotation was measured against its own null. The rule that leaves units out looks at
        the pooled test spikes, and at the training spikes of the rotation that had fewest.

        Raises
        ------
        UsageError
            Where there is none, or their units differ.
        """
        if not rotations:
            raise UsageError("There is nothing to pool: give the statistics of every rotation.")
        ids, after = [], 0
        for one in rotations:
            _same_units(rotations[0], one)
            ids.append(one.rotations + after)
            after = int(ids[-1].max(initial=after - 1)) + 1
        fewest = np.min([one.training_spikes for one in rotations], axis=0)
        return _joined(rotations, ids, fewest)

    def only(self, units: Sequence[int]) -> Statistics:
        """Of some units, by their places."""
        names = tuple(self.units[place] for place in units)
        sums, spikes = self.sums[:, :, list(units)], self.training_spikes[list(units)]
        return Statistics(sums, self.blocks, self.rotations, spikes, names)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The statistics as named arrays of numbers; unit ids as the bytes of a JSON list."""
        arrays: dict[str, NDArray[np.generic]] = {
            "sums": self.sums,
            "blocks": self.blocks,
            "rotations": self.rotations,
            "training_spikes": self.training_spikes,
            "units": np.frombuffer(json.dumps(list(self.units)).encode(), dtype=np.uint8),
        }
        # safetensors writes the memory of a strided view, not its values.
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Statistics:
        """The statistics that `to_arrays` wrote.

        Raises
        ------
        NotFoundError
            Where an array is missing.
        """
        for name in ("sums", "blocks", "rotations", "training_spikes", "units"):
            if name not in arrays:
                raise NotFoundError("array", name, arrays, "the statistics")
        ids = json.loads(np.asarray(arrays["units"], dtype=np.uint8).tobytes())
        return cls(
            np.asarray(arrays["sums"], dtype=np.float64),
            np.asarray(arrays["blocks"], dtype=np.int64),
            np.asarray(arrays["rotations"], dtype=np.int64),
            np.asarray(arrays["training_spikes"], dtype=np.int64),
            tuple(ids),
        )


def statistics(
    predicted: ArrayLike,
    recorded: ArrayLike,
    *,
    null: Null,
    block: ArrayLike,
    mask: ArrayLike | None = None,
) -> Statistics:
    """Sufficient statistics of predicted against recorded counts.

    Parameters
    ----------
    predicted : (window, unit, bin) or (window, unit) float
        Expected spikes a bin; without bins, one rate over the horizon.
    recorded : (window, unit, bin) int
        Spikes.
    null : Null
        Training-mean rates of the same units.
    block : (window,) int
        Block each window belongs to: what is resampled together.
    mask : (window, unit, bin) bool, optional
        True where observed; everywhere where not given.

    Raises
    ------
    UsageError
        Where shapes differ, or an observed bin has a rate that is not above zero or a count that
        is no count. Nothing is clipped: a floor makes bits out of nothing.
    """
    counts, seen, row = _recorded(recorded, mask, block, null)
    model, x = _model(np.asarray(predicted, dtype=np.float64), counts, seen, null.units)
    y, bins = np.where(seen, counts, 0.0).sum(-1), seen.sum(-1).astype(np.float64)
    whole = bins == counts.shape[-1]
    x_whole, y_whole = np.where(whole, x, 0.0), np.where(whole, y, 0.0)
    against = y * np.log(null.rate) - bins * null.rate
    values = [model, against, y, bins, whole.astype(np.float64), x_whole, y_whole]
    values += [x_whole**2, y_whole**2, x_whole * y_whole]
    blocks, which = np.unique(row, return_inverse=True)
    sums = np.zeros((len(SUMS), len(blocks), counts.shape[1]))
    for total, value in zip(sums, values, strict=True):
        np.add.at(total, which, value)
    return Statistics(sums, blocks, np.zeros_like(blocks), null.spikes, null.units)


def _recorded(
    recorded: ArrayLike, mask: ArrayLike | None, block: ArrayLike, null: Null
) -> tuple[Floats, Flags, Counts]:
    counts = np.asarray(recorded, dtype=np.float64)
    if counts.ndim != 3 or counts.shape[1] != len(null.units):
        raise UsageError(
            f"Recorded counts must be (window, unit, bin) of the null's {len(null.units)} units, "
            f"found shape {counts.shape}."
        )
    seen = np.ones(counts.shape, bool) if mask is None else np.asarray(mask, dtype=bool)
    if seen.shape != counts.shape:
        raise UsageError(
            f"The mask must have the shape of the counts: {seen.shape}, {counts.shape}."
        )
    row = np.asarray(block)
    if row.shape != counts.shape[:1] or row.dtype.kind not in "iu":
        raise UsageError(
            f"Blocks must be (window,) integers: {len(counts)} windows, "
            f"found {row.dtype} of shape {row.shape}."
        )
    if (wrong := seen & ~((counts >= 0) & np.isfinite(counts) & (counts == np.rint(counts)))).any():
        window, unit, _ = np.argwhere(wrong)[0]
        raise UsageError(
            f"Recorded counts must be whole numbers >= 0: found {counts[wrong][0]} "
            f"for unit {null.units[unit]!r} in window {window}. Mask what was not observed."
        )
    return counts, seen, row.astype(np.int64)


def _model(
    rate: Floats, counts: Floats, seen: Flags, units: tuple[str, ...]
) -> tuple[Floats, Floats]:
    """(window, unit) log-likelihood, and expected counts, of the observed bins."""
    if rate.shape not in (counts.shape, counts.shape[:2]):
        raise UsageError(
            f"Predictions must be (window, unit, bin) or (window, unit) like the counts "
            f"{counts.shape}, found {rate.shape}."
        )
    if one_rate := rate.ndim == 2:
        rate = np.broadcast_to(rate[..., None], counts.shape)
    if (wrong := seen & ~((rate > 0) & np.isfinite(rate))).any():
        window, unit, _ = np.argwhere(wrong)[0]
        raise UsageError(
            f"A predicted rate must be above zero and finite: found {rate[wrong][0]} for unit "
            f"{units[unit]!r} in window {window}, {int(wrong.sum()):,} in all. "
            "Predict log-rates, or mix with the training mean."
        )
    safe, expected = np.where(seen, rate, 1.0), np.where(seen, rate, 0.0)
    spikes = np.where(seen, counts, 0.0)
    if one_rate:  # summed as the null is, so that the training mean is at 0 bits exactly
        bins = seen.sum(-1).astype(np.float64)
        here = np.where(bins > 0, rate[..., 0], 1.0)
        return spikes.sum(-1) * np.log(here) - bins * here, bins * here
    return (spikes * np.log(safe) - expected).sum(-1), expected.sum(-1)


def _same_units(one: Statistics, other: Statistics) -> None:
    if one.units != other.units:
        raise UsageError(
            f"Statistics of different units do not join: {len(one.units)} and {len(other.units)} "
            f"units, not shared {sorted(set(one.units) ^ set(other.units))[:4]} "
            "(or in another order). Predict the same units in the same order."
        )


def _joined(
    parts: Sequence[Statistics], rotations: Sequence[Counts], training_spikes: Counts
) -> Statistics:
    ids = np.stack([np.concatenate(rotations), np.concatenate([one.blocks for one in parts])])
    distinct, which = np.unique(ids, axis=1, return_inverse=True)
    sums = np.zeros((distinct.shape[1], len(SUMS), len(parts[0].units)))
    np.add.at(
        sums, which.ravel(), np.concatenate([one.sums for one in parts], axis=1).swapaxes(0, 1)
    )
    return Statistics(
        sums.swapaxes(0, 1), distinct[1], distinct[0], training_spikes, parts[0].units
    )
