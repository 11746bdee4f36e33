"""Gathers of a dense matrix (row, channel), straight into the tensors of a batch.

Every gather writes values and the reason why one is not there in the same pass: what is not finite
is 0 and invalid. They run on one thread, without the GIL: the threads of numba may not be entered
from two threads at once on every platform, and a loader's are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurostore.kernels._ready import compiled


@compiled
def gather_rows(
    table: NDArray[Any],
    row: NDArray[np.int64],
    lost: NDArray[np.uint8],
    invalid: int,
    place: NDArray[np.int64],
    out: NDArray[np.float32],
    why: NDArray[np.uint8],
) -> None:
    """Whole rows of a table into out[place] and why[place].

    Parameters
    ----------
    table : (row, channel)
    row : (window, step) int64
        Read where `lost` is 0.
    lost : (window, step) uint8
        Why a row is not there; 0 where it is.
    invalid : int
        The reason of values that are not finite.
    place : (window,) int64
        Where the windows lie in `out` and `why`.
    out : (place, step, channel or more) float32
    why : (place, step, channel or more) uint8
    """
    channels = table.shape[1]
    bad = np.uint8(invalid)
    for window in range(row.shape[0]):
        for step in range(row.shape[1]):
            to, reason = out[place[window], step], why[place[window], step]
            if lost[window, step]:
                to[:channels] = 0
                reason[:channels] = lost[window, step]
                continue
            source = table[row[window, step]]
            for n in range(channels):
                value = np.float32(source[n])
                finite = value - value == 0
                to[n] = value if finite else np.float32(0)
                reason[n] = np.uint8(0) if finite else bad


@compiled
def gather_observed(
    table: NDArray[Any],
    row: NDArray[np.int64],
    lost: NDArray[np.uint8],
    invalid: int,
    not_requested: int,
    phases: NDArray[np.int64],
    every: int,
    place: NDArray[np.int64],
    out: NDArray[np.float32],
    why: NDArray[np.uint8],
) -> None:
    """As `gather_rows`, but of each row only the channels observed in it.

    Parameters
    ----------
    not_requested : int
        The reason of channels that are not.
    phases : (channel,) int64
        Channel n is observed in the rows r with (r − phases[n]) mod every = 0; in others it is
        not requested, in a row that is not valid as in one that is.
    """
    channels = table.shape[1]
    bad, unasked = np.uint8(invalid), np.uint8(not_requested)
    for window in range(row.shape[0]):
        for step in range(row.shape[1]):
            to, reason = out[place[window], step], why[place[window], step]
            invalid_row = lost[window, step] == bad
            if lost[window, step] and not invalid_row:
                to[:channels] = 0
                reason[:channels] = lost[window, step]
                continue
            source, now = table[row[window, step]], row[window, step] % every
            for n in range(channels):
                value = np.float32(source[n])
                finite = value - value == 0 and not invalid_row
                asked = phases[n] == now
                to[n] = value if asked and finite else np.float32(0)
                reason[n] = unasked if not asked else np.uint8(0) if finite else bad


@compiled
def gather_staggered(
    table: NDArray[Any],
    row: NDArray[np.int64],
    phases: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """Every channel at its own row: out[.., n] = table[row + phases[n], n], 0 past the end.

    Parameters
    ----------
    table : (row, channel)
    row : (frame,) int64
        0 or more.
    phases : (channel,) int64
        0 or more.
    out : (frame, channel) float32
    """
    rows = table.shape[0]
    for frame in range(row.shape[0]):
        first, to = row[frame], out[frame]
        for n in range(table.shape[1]):
            at = first + phases[n]
            to[n] = np.float32(table[at, n]) if at < rows else np.float32(0)


def frames_shape(table: NDArray[Any], every: int) -> tuple[int, int]:
    """How many frames begin inside a table (row, channel), and its channels."""
    return -(-len(table) // every), table.shape[1]


def frames(
    table: NDArray[Any],
    every: int,
    phases: NDArray[np.int64],
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """What a staggered acquisition observes: x[k, n] = table[k · every + phases[n], n].

    A sample of it is a contiguous row, and it is `every` times smaller than the table.

    Parameters
    ----------
    out : (frame, channel) float32, optional
        Of `frames_shape`.

    Returns
    -------
    (frame, channel) float32
        0 where the last one reaches past the end of the table.
    """
    made = np.empty(frames_shape(table, every), dtype=np.float32) if out is None else out
    gather_staggered(table, np.arange(len(made), dtype=np.int64) * every, phases, made)
    return made
