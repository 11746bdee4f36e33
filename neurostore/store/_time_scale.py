"""Times of one session that do not go together: on two scales, or far apart, as findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from neurostore.clocks import Clock
from neurostore.errors import Finding, counted
from neurostore.schemas import Table
from neurostore.store._catalogue import summary
from neurostore.store.tables import Interleaved, Ragged, finite

Extent = Sequence[Any]
"""First tick, and the one behind the last."""
FACTOR = 100
"""How many times later one thing ends than another one before it is said."""
NEAR = 10.0
"""Seconds that a table may lie away from all spikes."""
_LEAST = 1.0  # second; whatever ends sooner says nothing of a scale
_ROWS = 10  # a few rows may well lie at the beginning alone (one baseline epoch)


def extents(tables: Iterable[Table], clock: Clock) -> dict[str, Extent]:
    """From the first to the last tick, by table; those without any time are not there."""
    found = {table.name: summary(table, clock).get("extent") for table in tables}
    return {name: one for name, one in found.items() if isinstance(one, list)}


def between_tables(
    id: str, extents: Mapping[str, Extent], rows: Mapping[str, int], clock: Clock
) -> list[Finding]:
    """The table that ends last, where another one ends more than `FACTOR` times sooner."""
    others = {name: one for name, one in extents.items() if name != "intervals/observed"}
    ends = {name: _seconds(one, clock) for name, one in others.items()}
    if not ends:
        return []
    origin = min(first for first, _ in ends.values())
    late = max(ends, key=lambda name: ends[name][1])
    far = (ends[late][1] - origin) / FACTOR
    soon = [k for k in ends if _LEAST <= ends[k][1] - origin < far and rows[k] >= _ROWS]
    if not soon:
        return []
    other = min(soon, key=lambda name: ends[name][1])
    message = (
        f"{id}: {late} ends at {ends[late][1]:,.1f} s, {other} at {ends[other][1]:,.1f} s, more "
        f"than {FACTOR} times sooner; is one of them in milliseconds or samples? Give seconds"
    )
    return [Finding("clock/time_scale", "violation", late, "time", message, count=len(soon))]


def apart(id: str, extents: Mapping[str, Extent], clock: Clock) -> list[Finding]:
    """Tables that end before, or begin after all spikes by over `NEAR`; none without spikes."""
    if "spikes" not in extents:
        return []
    first, last = _seconds(extents["spikes"], clock)
    found = []
    for name, extent in extents.items():
        start, stop = _seconds(extent, clock)
        if start <= last + NEAR and first <= stop + NEAR:
            continue
        message = (
            f"{id}: {name} is from {start:,.1f} to {stop:,.1f} s, the spikes from {first:,.1f} to "
            f"{last:,.1f} s; is it on another clock, or of another session? Give seconds on the "
            "session's clock"
        )
        found.append(Finding("clock/apart", "violation", name, "time", message))
    return found


def _seconds(extent: Extent, clock: Clock) -> tuple[float, float]:
    first, last = clock.seconds(np.array(extent, dtype=np.int64)).tolist()
    return first, last


def between_units(id: str, given: Ragged | Interleaved) -> list[Finding]:
    """Units whose middle spike is `FACTOR` times later than the last of the median unit."""
    if isinstance(given, Interleaved):
        if _near_enough(given):
            return []
        given = given.ragged()
    ragged, _ = finite(given)
    spiking = np.flatnonzero(ragged.stops > ragged.starts)
    if not len(spiking):
        return []
    starts, stops = ragged.starts[spiking], ragged.stops[spiking]
    origin = ragged.times.min()
    median = float(np.median(ragged.times[stops - 1])) - origin
    middle = ragged.times[(starts + stops - 1) // 2]
    far = np.flatnonzero(middle - origin > FACTOR * median)
    if median < _LEAST or not len(far):
        return []
    row, last = int(spiking[far[0]]), ragged.times[stops[far[0]] - 1]
    message = (
        f"{id}: spikes of unit {ragged.ids[row]!r} end at {last:,.1f} s, of the median unit at "
        f"{median + origin:,.1f} s ({counted(len(far), 'unit')} over {FACTOR} times later); is "
        "one of them in milliseconds or samples? Give seconds"
    )
    return [
        Finding("clock/unit_scale", "violation", "spikes", "time", message, row, count=len(far))
    ]


def _near_enough(spikes: Interleaved) -> bool:
    """Whether no spike at all lies `FACTOR` times later than the last of the median unit."""
    spikes, _ = finite(spikes)
    if not len(spikes.times):
        return True
    last = np.full(len(spikes.ids), np.nan)
    last[spikes.unit] = spikes.times  # the last one of a unit stays
    origin = spikes.times.min()
    median = float(np.nanmedian(last)) - origin
    return bool(spikes.times.max() - origin <= FACTOR * median)
