"""How often sessions or intervals are drawn: groups of windows, each with a probability."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import exact
from neurostore.errors import NotFoundError, UsageError
from neurostore.sample.plan import Number, Ticks, drawn

if TYPE_CHECKING:
    from neurostore.sample.dataset import Dataset

Weight: TypeAlias = str | Mapping[str, Number]
"""``"sessions"``, ``"intervals"``, ``"units"``, or a weight by session id."""

KINDS = ("sessions", "intervals", "units")


@dataclass(frozen=True, eq=False)
class Weights:
    """Groups of windows that follow one another in the plan; windows of a group are drawn alike.

    Attributes
    ----------
    first, count : (group,) int64
        Number of the first window, and how many follow.
    limit : (group - 1,) uint64
        The part of 2^64 that groups up to this one have together, rounded down.
    """

    first: Ticks
    count: Ticks
    limit: NDArray[np.uint64]

    @classmethod
    def of(cls, weight: Weight, dataset: Dataset) -> Weights:
        """What a loader of a dataset was told, over its plan.

        Raises
        ------
        UsageError
            Where it is none of the kinds, or names no session that can be drawn from.
        """
        per_session = np.array(dataset.plan.by_session(), dtype=np.int64)
        if not isinstance(weight, str):
            return cls.grouped(per_session, _said(weight, dataset))
        if weight not in KINDS:
            raise NotFoundError("weight", weight, KINDS)
        if weight == "intervals":
            count = dataset.plan.by_interval([laid.interval for laid in dataset.laid])
            return cls.grouped(count, [Fraction(1)] * len(count))
        units = [Fraction(len(ids)) for ids in dataset.unit_ids.values()]
        return cls.grouped(
            per_session, units if weight == "units" else [Fraction(1)] * len(per_session)
        )

    @classmethod
    def grouped(cls, count: Ticks, weight: list[Fraction]) -> Weights:
        """Groups of so many windows (group,), one after the other in the plan, and their weights.

        Raises
        ------
        UsageError
            Where no group with a window has a weight above 0.
        """
        kept = [k for k, many in enumerate(count.tolist()) if many and weight[k] > 0]
        if not kept:
            raise UsageError("Nothing can be drawn: no session with windows has a weight above 0.")
        reached = list(accumulate(weight[k] for k in kept))
        limit = [int(one * 2**64 / reached[-1]) for one in reached[:-1]]
        first = np.cumsum(count) - count
        return cls(first[kept], count[kept], np.array(limit, dtype=np.uint64))

    def draw(self, place: Ticks, seed: int, epoch: int) -> Ticks:
        """Numbers (window,) of the windows at some places of an epoch, drawn with replacement."""
        group = np.searchsorted(self.limit, drawn(place, seed, epoch, "weight.group"), side="right")
        within = drawn(place, seed, epoch, "weight.window") % self.count[group].astype(np.uint64)
        return self.first[group] + within.astype(np.int64)

    @property
    def digest(self) -> str:
        """sha256 of groups and probabilities."""
        made = hashlib.sha256()
        for column in (self.first, self.count, self.limit):
            made.update(column.astype("<u8").tobytes())
        return made.hexdigest()


def _said(weight: Mapping[str, Number], dataset: Dataset) -> list[Fraction]:
    """The weight of every session, as a person gave it."""
    known = dataset.session_ids
    for id in weight:
        if id not in known:
            raise NotFoundError("session", id, known, "this dataset")
    made = []
    for id, windows in zip(known, dataset.plan.by_session(), strict=True):
        if id not in weight:
            raise UsageError(
                f"The weights name {len(weight)} of {len(known)} sessions and not {id}; give it 0 "
                "to leave it out."
            )
        one = exact(weight[id])
        if one < 0:
            raise UsageError(f"The weight of {id} must be 0 or more, found {float(one):g}.")
        if one and not windows:
            raise UsageError(
                f"{id} has the weight {float(one):g} and no window in this dataset; give it 0."
            )
        made.append(one)
    return made
