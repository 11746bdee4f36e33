"""Random choices among the elements of a window: pure functions of one number a window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neurostore.sample.plan import Ticks, _mixed


def scores(draws: NDArray[np.uint64], element: Ticks) -> NDArray[np.uint64]:
    """A number (window, element) for every element; those of a window all differ.

    It depends on the draw of the window and on the element alone, so that a choice is the same
    whatever else is in the batch.
    """
    own = _mixed(element.astype(np.uint64) + np.uint64(1))
    return _mixed(draws[:, None] + own[None, :])


def lowest(scores: NDArray[np.uint64], count: int | Ticks) -> NDArray[np.bool_]:
    """Which elements (window, element) are the `count`, or `count` (window,), with the lowest."""
    made = np.zeros(scores.shape, dtype=bool)
    if isinstance(count, int):
        if count < 1:
            return made
        limit = np.partition(scores, count - 1, axis=1)[:, count - 1 : count]
        return scores <= limit
    some = np.flatnonzero(count > 0)
    ordered = np.sort(scores[some], axis=1)
    limit = np.take_along_axis(ordered, (count[some] - 1)[:, None], axis=1)
    made[some] = scores[some] <= limit
    return made
