"""Spikes of all sessions in device memory: four bytes each, in blocks of each clock.

A word holds the tick inside its block, the place of the unit among the chosen ones, and whether the
unit was observed then. Most recordings fit into 32 bits; where one does not, all take 64.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurostore.errors import DamagedError
from neurostore.sample._chosen import Chosen, no_spikes
from neurostore.sample.device._windows import Windows
from neurostore.sample.plan import Ticks, Window

PIECE = 1 << 22
"""Spikes that are read and packed at once."""

MOST = 1 << 26
"""Candidates that are counted at once on a GPU: some 4 GB for a moment."""
MOST_IN_CACHE = 1 << 16
"""The same on a CPU."""

_PARTS = 4
"""Blocks that a window is cut into: what is read beyond its ends is at most two of these."""
_LEAST = 8
"""Spikes a block holds on average at least: the index stays smaller than what it indexes."""


@dataclass(frozen=True)
class Layout:
    """How the spikes of all sessions are packed; known before any is read.

    Attributes
    ----------
    origin, length, count : (session,) int64
        First tick of the first block, ticks of a block, blocks.
    ticks : (session,) int64
        Ticks of a window.
    spikes : (session,) int64
    unit_bits : int
    wide : bool
        Whether a word has 64 bits.
    """

    origin: Ticks
    length: Ticks
    count: Ticks
    ticks: Ticks
    spikes: Ticks
    unit_bits: int
    wide: bool

    @classmethod
    def of(cls, sessions: Sequence[Chosen], window: Window) -> Layout:
        """From the tables' metadata."""
        extent = [_extent(one) for one in sessions]
        origin, span = np.array(extent, dtype=np.int64).T
        ticks = np.array([window.ticks(one.session.clock)[1] for one in sessions], dtype=np.int64)
        spikes = np.array([0 if no_spikes(one) else one.spikes for one in sessions], np.int64)
        length = np.maximum(ticks // _PARTS, span // np.maximum(spikes, 1) * _LEAST)
        length = np.maximum(length, 1)
        units = max(len(one.ids) for one in sessions)
        unit_bits = max(1, (units - 1).bit_length()) if units else 1
        room, furthest = 32 - 1 - unit_bits, np.minimum(length, span)
        wide = room < 1 or bool((furthest > 16 << room).any())
        most = 1 << (62 - unit_bits if wide else room)
        length = np.where(furthest > most, most, length)
        return cls(origin, length, -(-span // length), ticks, spikes, unit_bits, wide)

    @property
    def nbytes(self) -> Ticks:
        """Bytes (session,) of the words and of the index of blocks."""
        made: Ticks = self.spikes * (8 if self.wide else 4) + (self.count + 1) * 8
        return made


def _extent(chosen: Chosen) -> tuple[int, int]:
    """First tick and ticks of the time that holds all spikes of a session, by its block index."""
    if no_spikes(chosen):
        return 0, 0
    table = chosen.session.table("spikes")
    said = table.attrs["block"]
    assert isinstance(said, dict)
    blocks = table.columns["block"].values.shape[0] - 1
    return int(str(said["start"])), int(str(said["length"])) * max(blocks, 0)


@dataclass(frozen=True)
class Packed:
    """The words of all sessions, and where the blocks of each begin.

    Attributes
    ----------
    word : (spike,) int32 or int64
    index : (block,) int64
        First spike of every block, and one more a session.
    first : (session,) int64
        Where the blocks of a session begin in `index`.
    """

    layout: Layout
    word: Tensor
    index: Tensor
    host_index: Ticks
    first: Ticks
    on_device: tuple[Tensor, ...]

    @classmethod
    def load(cls, sessions: Sequence[Chosen], layout: Layout, device: torch.device) -> Packed:
        """Read the spikes of every session, a piece at a time.

        Raises
        ------
        DamagedError
            Where a session holds not as many as its table of units says.
        """
        kind = torch.int64 if layout.wide else torch.int32
        word = torch.empty(int(layout.spikes.sum()), dtype=kind, device=device)
        indices, row = [], 0
        for number, chosen in enumerate(sessions):
            index = _load(chosen, layout, number, word[row : row + int(layout.spikes[number])])
            indices.append(index + row)
            row += int(layout.spikes[number])
        host = np.concatenate(indices)
        first = np.cumsum([0, *map(len, indices[:-1])], dtype=np.int64)
        facts = (layout.origin, layout.length, layout.count, layout.ticks, first)
        moved = tuple(torch.from_numpy(one.copy()).to(device) for one in facts)
        return cls(layout, word, torch.from_numpy(host).to(device), host, first, moved)

    def candidates(self, at: Windows) -> Candidates:
        """All spikes of the blocks that windows touch, by window, then in time order."""
        origin, length, count, ticks, first = (one[at.session] for one in self.on_device)
        start = at.start - origin
        from_block = torch.div(start, length, rounding_mode="floor")
        to_block = torch.div(start + ticks - 1, length, rounding_mode="floor")
        pairs = self._most_blocks(at)
        block = from_block[:, None] + torch.arange(pairs, device=start.device)
        low, high = (self._begin(block + k, count, first) for k in (0, 1))
        many = torch.where(block <= to_block[:, None], high - low, 0).ravel()
        total = int(self._totals(at).sum())
        pair = torch.repeat_interleave(many, output_size=total)
        row = torch.arange(total, device=start.device)
        row += (low.ravel() - (torch.cumsum(many, 0) - many))[pair]
        word = self.word[row]
        bits = self.layout.unit_bits
        mask = (1 << ((64 if self.layout.wide else 32) - 1 - bits)) - 1
        since = (block * length[:, None] - start[:, None]).ravel()[pair]
        return Candidates(
            window=torch.div(pair, pairs, rounding_mode="floor"),
            tick=((word >> (bits + 1)) & mask) + since,
            unit=(word >> 1) & ((1 << bits) - 1),
            observed=(word & 1).bool(),
        )

    def _begin(self, block: Tensor, count: Tensor, first: Tensor) -> Tensor:
        held = torch.minimum(block.clamp(min=0), count[:, None])
        return self.index[held + first[:, None]]

    def _most_blocks(self, at: Windows) -> int:
        session = at.address.session
        return int((self.layout.ticks[session] // self.layout.length[session]).max()) + 2

    def parts(self, at: Windows) -> Iterator[tuple[int, Windows]]:
        """The batch in parts, none much larger than memory for its candidates should be."""
        part = np.cumsum(self._totals(at)) // (MOST if self.word.is_cuda else MOST_IN_CACHE)
        edges = (np.flatnonzero(np.diff(part)) + 1).tolist()
        for first, stop in itertools.pairwise([0, *edges, len(at)]):
            yield first, at.part(first, stop)

    def _totals(self, at: Windows) -> Ticks:
        """Candidates (window,); by the index on the host, so that no one waits for the device."""
        own, session = self.layout, at.address.session
        start = at.address.start - own.origin[session]
        length, count, first = own.length[session], own.count[session], self.first[session]
        low = np.clip(start // length, 0, count)
        high = np.clip((start + own.ticks[session] - 1) // length + 1, low, count)
        made: Ticks = self.host_index[high + first] - self.host_index[low + first]
        return made


@dataclass(frozen=True)
class Candidates:
    """Spikes (spike,) that may lie in a window: of which, ticks from its start, unit, observed."""

    window: Tensor
    tick: Tensor
    unit: Tensor
    observed: Tensor


def _load(chosen: Chosen, layout: Layout, number: int, word: Tensor) -> Ticks:
    """Pack the spikes of a session into `word`; where each of its blocks begins (block + 1,)."""
    count, bits = int(layout.count[number]), layout.unit_bits
    many, row = np.zeros(count, dtype=np.int64), 0
    for time, column in _pieces(chosen):
        block, tick = np.divmod(time - layout.origin[number], layout.length[number])
        many += np.bincount(block, minlength=count)
        packed = (tick << (bits + 1)) | (column << 1) | chosen.saw(column, time)
        if row + len(packed) <= len(word):
            whole = packed if layout.wide else packed.astype(np.uint32).view(np.int32)
            word[row : row + len(packed)] = torch.from_numpy(whole)
        row += len(packed)
    if row != len(word):
        raise DamagedError(
            f"{chosen.session.id}: its chosen units have {row:,} spikes in the table spikes, and "
            f"{len(word):,} by n_spikes of the table units. Ingest the session again."
        )
    return np.concatenate([[0], np.cumsum(many)])


def _pieces(chosen: Chosen) -> Iterator[tuple[Ticks, NDArray[np.int64]]]:
    """Ticks and places among the chosen units of a session's spikes, in time order."""
    if no_spikes(chosen):
        return
    table, place = chosen.session.table("spikes").columns, chosen.column
    for row in range(0, table["time"].values.shape[0], PIECE):
        column = place[np.asarray(table["unit"].values[row : row + PIECE])]
        mine = column >= 0
        yield np.asarray(table["time"].values[row : row + PIECE])[mine], column[mine]
