"""How many spikes of the units of two snapshots have the same unit and tick, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.store.difference import Moved

if TYPE_CHECKING:
    from neurostore.store.session import Session

Spikes = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Ticks (spike,), ascending, and which of the shared units each is of (spike,)."""


def moved(before: Session, after: Session, old: Sequence[str], new: Sequence[str]) -> Moved | None:
    """The spikes of the units that both have; None where they are all the same.

    Chunks that are alike on both sides are left out ahead: what they add to the spikes of one side
    they add to the other and to what is in both. The rest is swept in the order of time, so that
    a chunk or two of each side is held at once.

    Parameters
    ----------
    old, new : sequence of str
        Unit ids of each, by row.
    """
    if _digest(before) == _digest(after) and list(old) == list(new):
        return None
    if before.clock.rate != after.clock.rate:
        rates = (_number(one.clock.rate) for one in (before, after))
        return Moved(why_not=f"the clock counts {' → '.join(rates)} ticks a second")
    columns = [session.stored("spikes").columns for session in (before, after)]
    times, units = ([one[name].values for one in columns] for name in ("time", "unit"))
    both = sorted(set(old) & set(new))
    shared = {id: place for place, id in enumerate(both)}
    maps = [np.array([shared.get(id, -1) for id in ids], dtype=np.int64) for ids in (old, new)]
    rows = min(len(old), len(new))
    skip = _alike(times, units) if list(old[:rows]) == list(new[:rows]) else {}
    old_side, new_side = (
        _Side(_pieces(*one, skip), len(both)) for one in zip(times, units, maps, strict=True)
    )
    same = _in_both(old_side, new_side, len(both))
    gone, new_ones = old_side.counts - same, new_side.counts - same
    differ = {both[k]: (int(gone[k]), int(new_ones[k])) for k in np.flatnonzero(gone + new_ones)}
    kept = int(same.sum()) + sum(skip.values())
    return Moved(kept, int(gone.sum()), int(new_ones.sum()), len(both), by_unit=differ)


def _number(rate: Fraction) -> str:
    return f"{int(rate):,}" if rate.denominator == 1 else f"{float(rate):,}"


def _digest(session: Session) -> Any:
    return session.attrs["row"]["tables"]["spikes"]["digest"]


def _alike(times: Sequence[Any], units: Sequence[Any]) -> dict[int, int]:
    """Chunks that both sides have at the same place, by number, and their spikes."""
    for pair in (times, units):
        if pair[0].chunks != pair[1].chunks or pair[0].dtype != pair[1].dtype:
            return {}
    if times[0].chunks != units[0].chunks:
        return {}
    rows, found = int(times[0].chunks[0]), {}
    for number in range(-(-min(times[0].shape[0], times[1].shape[0]) // rows)):
        lengths = {min(rows, one.shape[0] - number * rows) for one in times}
        ends = [
            [one.checksums[8 * number : 8 * number + 8] for one in pair] for pair in (times, units)
        ]
        if len(lengths) == 1 and all(a == b != "" for a, b in ends):
            found[number] = lengths.pop()
    return found


def _pieces(
    times: Any, units: Any, shared: NDArray[np.int64], skip: dict[int, int]
) -> Iterator[Spikes]:
    """The spikes of shared units, a chunk at a time."""
    rows = int(times.chunks[0])
    for number in range(-(-times.shape[0] // rows)):
        if number not in skip:
            piece = slice(number * rows, (number + 1) * rows)
            unit = shared[np.asarray(units[piece])]
            kept = unit >= 0
            yield np.asarray(times[piece])[kept], unit[kept]


class _Side:
    """The spikes of one side that are not compared yet; more are read as they run out.

    Its `counts` are of all spikes that were read, by unit.
    """

    def __init__(self, pieces: Iterator[Spikes], units: int) -> None:
        self._pieces = pieces
        self.time, self.unit = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.over, self.counts = False, np.zeros(units, np.int64)

    def more(self) -> None:
        """Read on: another piece behind what is held."""
        piece = next(self._pieces, None)
        if piece is None:
            self.over = True
            return
        self.time = np.concatenate([self.time, piece[0]])
        self.unit = np.concatenate([self.unit, piece[1]])
        self.counts += np.bincount(piece[1], minlength=len(self.counts))

    def fill(self) -> None:
        """Read until something is held."""
        while not len(self.time) and not self.over:
            self.more()

    def take(self, stop: int | None) -> Spikes:
        """Give away the spikes ahead of a tick, or all of them."""
        cut = len(self.time) if stop is None else int(np.searchsorted(self.time, stop))
        taken = self.time[:cut], self.unit[:cut]
        self.time, self.unit = self.time[cut:], self.unit[cut:]
        return taken


def _in_both(a: _Side, b: _Side, units: int) -> NDArray[np.int64]:
    """Spikes that both sides have, by unit; one that is there twice in both counts twice."""
    found = np.zeros(units, np.int64)
    while True:
        a.fill()
        b.fill()
        if not len(a.time) or not len(b.time):
            break
        ends = [int(side.time[-1]) for side in (a, b) if not side.over]
        stop = min(ends, default=None)  # what comes next lies there or later
        if stop is not None and min(a.time[0], b.time[0]) >= stop:
            for side in (a, b):
                if not side.over and side.time[-1] == stop:
                    side.more()
            continue
        found += _common(a.take(stop), b.take(stop), units)
    for side in (a, b):  # the rest is counted, and is in one alone
        while not side.over:
            side.take(None)
            side.more()
    return found


def _common(a: Spikes, b: Spikes, units: int) -> NDArray[np.int64]:
    found = np.zeros(units, np.int64)
    if not len(a[0]) or not len(b[0]):
        return found
    low = min(int(a[0][0]), int(b[0][0]))
    keys = ((time - low) * units + unit for time, unit in (a, b))
    (one, ones), (two, twos) = (np.unique(key, return_counts=True) for key in keys)
    shared, left, right = np.intersect1d(one, two, assume_unique=True, return_indices=True)
    np.add.at(found, shared % units, np.minimum(ones[left], twos[right]))
    return found
