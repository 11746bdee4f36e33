"""The spikes of a session, packed: 4 bytes a spike in time order, and ticks by unit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurostore import kernels
from neurostore.cache._entry import Entry
from neurostore.cache._format import Shapes
from neurostore.errors import DamagedError

PIECE = 1 << 18
"""Spikes that are worked on at once."""
_NARROW = 1 << 16
_MANY = 8_000_000
_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, eq=False)
class Packed:
    """All spikes in time order: offset in the block, and unit.

    Attributes
    ----------
    events : (spike,) uint32 or uint64
        Ticks from the start of the spike's block | row of its unit << 16 (uint64: << 32).
        Call `check` before rows are read.
    block : (block + 1,) int64
        First spike of every block, and how many there are.
    first : int
        Tick at which block 0 starts.
    length : int
        Ticks of a block.
    units : int
    entry : Entry
    """

    events: NDArray[np.unsignedinteger[Any]]
    block: NDArray[np.int64]
    first: int
    length: int
    units: int
    entry: Entry

    @classmethod
    def of(cls, entry: Entry) -> Packed:
        """What `packed_shapes` made room for."""
        said: Mapping[str, Any] = entry.meta
        entry.check("block")
        events, block = entry.arrays["events"], entry.arrays["block"]
        check_index(block, len(events), str(entry.path))
        return cls(events, block, said["first"], said["length"], said["units"], entry)

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed.of, (self.entry,)

    @property
    def bits(self) -> int:
        """Bits of an offset; the unit stands above them."""
        return 16 if self.events.dtype.itemsize == 4 else 32

    def check(self, first: int, stop: int) -> None:
        """Verify the spikes [first, stop); see `Entry.check`."""
        self.entry.check("events", first, stop)

    def refuse_unknown_units(self) -> None:
        """Refuse spikes of units that there are not, which decoding would have refused.

        Raises
        ------
        DamagedError
        """
        self.check(0, len(self.events))
        most = int(self.events.max(initial=0)) >> self.bits
        if len(self.events) and most >= self.units:
            raise DamagedError(
                f"The spikes of {self.entry.path} name a unit {most}; there are {self.units}."
            )

    def unpack(self, first: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ticks and units, (spike,) int64 each, of the spikes [first, stop)."""
        first, stop = max(first, 0), min(stop, len(self.events))
        self.check(first, stop)
        events = self.events[first:stop]
        time = block_starts(self.block, self.first, self.length, first, stop)
        time += (events & events.dtype.type((1 << self.bits) - 1)).astype(np.int64)
        return time, (events >> events.dtype.type(self.bits)).astype(np.int64)

    def between(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ticks and units, (spike,) int64 each, of the spikes in [start, stop) ticks."""
        blocks = len(self.block) - 1
        low = min(max((start - self.first) // self.length, 0), blocks)
        high = min(max(-((self.first - stop) // self.length), low), blocks)
        time, unit = self.unpack(int(self.block[low]), int(self.block[high]))
        inside = slice(*np.searchsorted(time, [start, max(start, stop)], side="left"))
        return time[inside], unit[inside]

    def first_at(self, tick: int) -> int:
        """The first spike at or after a tick."""
        number = (tick - self.first) // self.length
        if number < 0 or number >= len(self.block) - 1:
            return 0 if number < 0 else len(self.events)
        low, high = int(self.block[number]), int(self.block[number + 1])
        time, _ = self.unpack(low, high)
        return low + int(np.searchsorted(time, tick, side="left"))


@dataclass(frozen=True, eq=False)
class ByUnit:
    """The ticks of every unit, one unit after the other.

    Attributes
    ----------
    ticks : (spike,) uint32 or int64
        Ticks from `origin`, ascending within a unit.
    start : (unit + 1,) int64
        First row of every unit, and how many there are.
    origin : int
    entry : Entry
    """

    ticks: NDArray[np.integer[Any]]
    start: NDArray[np.int64]
    origin: int
    entry: Entry

    @classmethod
    def of(cls, entry: Entry) -> ByUnit:
        """What `by_unit_plan` filled."""
        said: Mapping[str, Any] = entry.meta
        entry.check("start")
        return cls(entry.arrays["ticks"], entry.arrays["start"], said["origin"], entry)

    def __reduce__(self) -> tuple[Any, ...]:
        return ByUnit.of, (self.entry,)

    def of_unit(self, unit: int, start: int, stop: int) -> NDArray[np.int64]:
        """The ticks of a unit (by its row) in [start, stop), (spike,) int64."""
        low, high = int(self.start[unit]), int(self.start[unit + 1])
        self.entry.check("ticks", low, high)
        ticks = self.ticks[low:high].astype(np.int64)
        ticks += self.origin
        first, last = np.searchsorted(ticks, [start, stop], side="left")
        return ticks[first:last]


def is_wide(length: int, units: int) -> bool:
    """Whether a spike takes 8 bytes: blocks or units that 16 bits do not count."""
    return length > _NARROW or units > _NARROW


def packed_shapes(spikes: int, blocks: int, length: int, units: int) -> Shapes:
    """The arrays of `Packed`; `blocks` counts the edges."""
    kind = np.uint64 if is_wide(length, units) else np.uint32
    return {"block": (np.int64, (blocks,)), "events": (kind, (spikes,))}


def block_starts(
    block: NDArray[np.int64], first: int, length: int, low: int, high: int
) -> NDArray[np.int64]:
    """The tick at which its block starts, of each of the spikes [low, high), int64."""
    if high <= low:
        return np.zeros(0, dtype=np.int64)
    begin = int(np.searchsorted(block, low, side="right")) - 1
    end = int(np.searchsorted(block, high, side="left"))
    edges = np.clip(block[begin : end + 1], low, high)
    starts = first + np.arange(begin, end, dtype=np.int64) * length
    return np.repeat(starts, edges[1:] - edges[:-1])


def pack(
    time: NDArray[np.int64],
    unit: NDArray[np.unsignedinteger[Any]],
    block: NDArray[np.int64],
    first: int,
    length: int,
    out: NDArray[np.unsignedinteger[Any]],
    row: int = 0,
) -> bool:
    """Pack the spikes from `row` on into `out`, (spike,) all three.

    Returns
    -------
    bool
        False where a spike does not lie in the block the index says.
    """
    if kernels.ready():
        from neurostore.kernels import _spikes

        return bool(_spikes.pack(time, unit, block, first, length, row, out))
    offset = time - block_starts(block, first, length, row, row + len(time))
    if len(offset) and not (offset.min() >= 0 and offset.max() < length):
        return False
    kind = out.dtype.type
    np.left_shift(unit.astype(out.dtype), kind(16 if out.dtype.itemsize == 4 else 32), out=out)
    np.bitwise_or(out, offset.astype(out.dtype), out=out)
    return True


def load_if_many(spikes: int) -> None:
    """Load the compiled loops where they save more than that takes."""
    if spikes >= _MANY:
        kernels.load()


def check_index(block: NDArray[np.int64], spikes: int, what: str) -> None:
    """Refuse an index of blocks that does not lead through all spikes.

    Raises
    ------
    DamagedError
    """
    good = len(block) and block[0] == 0 and block[-1] == spikes and (np.diff(block) >= 0).all()
    if not good:
        raise DamagedError(f"The index of blocks of {what} does not count its {spikes:,} spikes.")


def by_unit_plan(
    packed: Packed,
) -> tuple[Shapes, dict[str, int], Callable[[Mapping[str, NDArray[Any]]], None]]:
    """Arrays, meta and what fills them, of the `ByUnit` of packed spikes."""
    span = (len(packed.block) - 1) * packed.length
    kind: type[np.integer[Any]] = np.uint32 if span <= 1 << 32 else np.int64
    shapes = {"start": (np.int64, (packed.units + 1,)), "ticks": (kind, (len(packed.events),))}

    def fill(arrays: Mapping[str, NDArray[Any]]) -> None:
        load_if_many(len(packed.events))
        firsts = range(0, len(packed.events), max(PIECE, 4 * packed.units))
        with ThreadPoolExecutor(_THREADS) as threads:
            pieces = list(threads.map(lambda first: _counts(packed, first, firsts.step), firsts))
            counts = np.array(pieces, dtype=np.int64).reshape(len(firsts), packed.units)
            arrays["start"][0], arrays["start"][1:] = 0, np.cumsum(counts.sum(axis=0))
            begin = arrays["start"][:-1] + np.cumsum(counts, axis=0) - counts  # (piece, unit)
            spread = partial(_spread, packed, arrays["ticks"], firsts.step)
            list(threads.map(spread, firsts, counts, begin))

    return shapes, {"origin": packed.first}, fill


def _counts(packed: Packed, first: int, length: int) -> NDArray[np.int64]:
    """Spikes of every unit in a piece of them."""
    packed.check(first, first + length)
    units = packed.events[first : first + length] >> packed.events.dtype.type(packed.bits)
    return np.bincount(units.astype(np.int64), minlength=packed.units)


def _spread(
    packed: Packed,
    out: NDArray[np.integer[Any]],
    length: int,
    first: int,
    count: NDArray[np.int64],
    begin: NDArray[np.int64],
) -> None:
    """Write a piece of the spikes to their units' places, which begin there for this piece."""
    if kernels.ready():
        from neurostore.kernels import _spikes

        stop, place = min(first + length, len(packed.events)), begin.copy()
        _spikes.by_unit(packed.events, packed.block, packed.length, first, stop, place, out)
        return
    events = packed.events[first : first + length]
    unit = events >> events.dtype.type(packed.bits)
    order = np.argsort(unit.astype(np.uint16) if packed.units <= _NARROW else unit, kind="stable")
    time = block_starts(packed.block, 0, packed.length, first, first + len(events))
    time += (events & events.dtype.type((1 << packed.bits) - 1)).astype(np.int64)
    time = time[order].astype(out.dtype, copy=False)
    ends = np.cumsum(count)
    some = np.flatnonzero(count)
    rows = zip(begin[some].tolist(), ends[some].tolist(), count[some].tolist(), strict=True)
    for row, end, n in rows:
        out[row : row + n] = time[end - n : end]
