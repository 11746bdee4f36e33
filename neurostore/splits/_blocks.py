"""Splits by the clock alone: interleaved blocks, and contiguous pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from itertools import accumulate
from math import floor

import numpy as np

from neurostore.clocks import exact
from neurostore.errors import JSON, UsageError
from neurostore.splits._ratios import BLOCKS, SHARES, Number, cycle, guard_ticks, said, weights
from neurostore.splits._split import Split
from neurostore.splits._timeline import Timeline, checked

Rows = list[tuple[int, int, str]]
"""Start, stop and label of every row of one session."""


def interleaved_blocks(
    name: str,
    timelines: Timeline | Iterable[Timeline],
    *,
    block: Number,
    ratios: Mapping[str, Number] = BLOCKS,
    guard: Number = 0,
    rotation: int = 0,
) -> Split:
    """Blocks of equal length, labelled in turn.

    Block k is [origin + floor(k · block · rate), origin + floor((k + 1) · block · rate)) ticks of
    its session, exactly, and has the label of place (k − rotation) modulo the sum of the ratios. A
    last block that ends after the last observed tick is dropped; so is one without observed time.

    Parameters
    ----------
    name : str
        Of the split.
    timelines : Timeline or iterable of Timeline
        One a session; see `neurostore.Session.timeline`.
    block : float
        Seconds; exact as written.
    ratios : mapping of str to int
        How many blocks of each label follow one another: ``{"train": 7, "validation": 1, "test":
        2}`` labels every ten. With these, rotations 0, 2, 4, 6, 8 make each block test once.
    guard : float
        Seconds that each block loses at its start.
    rotation : int
        By how many blocks the labels are shifted to later ones.

    Raises
    ------
    UsageError
        Where no whole block fits into a session, the guard leaves nothing of one, or the ratios
        are no whole numbers of 0 or more.
    """
    labels = cycle(ratios)
    definition: dict[str, JSON] = {"made_by": "interleaved_blocks", "block": str(exact(block))}
    definition |= {"ratios": said(ratios), "guard": str(exact(guard)), "rotation": int(rotation)}

    def rows(timeline: Timeline) -> Rows:
        edges = timeline.clock.edges(timeline.origin, _whole_blocks(timeline, block), block)
        lost = guard_ticks(timeline.clock, guard, int(np.diff(edges).min()), "a block")
        starts, stops = (edges[:-1] + lost).tolist(), edges[1:].tolist()
        turn = [labels[(k - rotation) % len(labels)] for k in range(len(starts))]
        return list(zip(starts, stops, turn, strict=True))

    return _made(name, timelines, definition, rows)


def _whole_blocks(timeline: Timeline, block: Number) -> int:
    """How many blocks from the origin end at or before the last observed tick."""
    if exact(block) <= 0:
        raise UsageError(f"A block must be longer than 0 s, found {block} s.")
    length, width = timeline.stop - timeline.origin, exact(block) * timeline.clock.rate
    blocks = int(-(-(length + 1) // width)) - 1  # the largest k with floor(k · width) ≤ length
    if blocks < 1:
        raise UsageError(
            f"No block of {float(exact(block)):g} s fits into {timeline.session}, which holds "
            f"{timeline.seconds(max(0, length)):g} s from its origin. Take shorter blocks, or "
            "leave this session out."
        )
    return blocks


def contiguous(
    name: str,
    timelines: Timeline | Iterable[Timeline],
    *,
    ratios: Mapping[str, Number] = SHARES,
    guard: Number = 0,
) -> Split:
    """One piece of each session a label, in the order of the ratios.

    The pieces divide the time from the first observed tick to the last one; each piece after the
    first loses its first `guard` seconds.

    Parameters
    ----------
    name, timelines
        As for `interleaved_blocks`.
    ratios : mapping of str to float
        Shares of the time: ``{"train": 0.7, "validation": 0.1, "test": 0.2}``.
    guard : float
        Seconds.

    Raises
    ------
    UsageError
        Where the guard leaves nothing of a piece, or the ratios are no numbers of 0 or more.
    """
    shares = {label: share for label, share in weights(ratios).items() if share}
    definition: dict[str, JSON] = {"made_by": "contiguous", "ratios": said(ratios)}
    definition |= {"guard": str(exact(guard))}

    def rows(timeline: Timeline) -> Rows:
        first = int(timeline.observed.start[0])
        length = timeline.stop - first
        reached = accumulate(shares.values(), initial=Fraction(0))
        edges = [first + floor(share * length) for share in reached]
        made: Rows = []
        for label, start, stop in zip(shares, edges, edges[1:], strict=False):
            piece = f"the piece {label!r} of {timeline.session}"
            lost = guard_ticks(timeline.clock, guard if made else 0, stop - start, piece)
            made.append((start + lost, stop, label))
        return made

    return _made(name, timelines, definition, rows)


def _made(
    name: str,
    timelines: Timeline | Iterable[Timeline],
    definition: Mapping[str, JSON],
    rows: Callable[[Timeline], Rows],
) -> Split:
    """A split of the rows of every session that hold observed time."""
    chosen = checked(timelines)
    made = []
    for timeline in chosen:
        for start, stop, label in rows(timeline):
            if len(timeline.observed.between(start, stop)):
                made.append((timeline.session, start, stop, label))
    return assembled(name, chosen, definition, made)


def assembled(
    name: str,
    timelines: Iterable[Timeline],
    definition: Mapping[str, JSON],
    rows: Iterable[tuple[str, int, int, str]],
) -> Split:
    """A split of these rows; its definition names clock and origin of every session."""
    sessions: dict[str, JSON] = {
        one.session: {"rate": str(one.clock.rate), "origin": one.origin} for one in timelines
    }
    columns = list(zip(*rows, strict=True))
    if not columns:
        raise UsageError(f"No block of split {name!r} holds observed time; take longer blocks.")
    session, start, stop, label = columns
    return Split(
        name,
        {**definition, "sessions": sessions},
        np.array(session, dtype=np.dtypes.StringDType()),
        np.array(start, dtype=np.int64),
        np.array(stop, dtype=np.int64),
        np.array(label, dtype=np.dtypes.StringDType()),
    )
