"""What batches must hold, by plain loops over spikes and samples: integers and fractions only."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np

import neurostore
from neurostore.clocks import Clock

names = itertools.count()
CHANNELS = 2
OBSERVED, NOT_RECORDED, OUTSIDE, INVALID = 0, 1, 3, 4

Extent = tuple[int, int]
Sample = tuple[int, list[float], bool]


@dataclass
class Recording:
    """All of a session in plain lists of ticks.

    `observed` is one list of [start, stop) for all units, or one a unit; none of a list touch.
    """

    id: str
    rate: str
    units: dict[str, list[int]] = field(default_factory=dict)
    observed: list[Extent] | dict[str, list[Extent]] = field(default_factory=list)
    regions: dict[str, str] = field(default_factory=dict)
    position: list[Sample] | None = None
    trials: list[Extent] | None = None
    columns: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def hertz(self) -> Fraction:
        return Fraction(self.rate)

    def seconds(self, ticks: Sequence[int]) -> np.ndarray:
        return Clock(self.rate).seconds(np.array(ticks, dtype=np.int64))

    def seen(self, unit: str | None) -> list[Extent]:
        """Observed time of a unit; of any unit for None, as the session's own."""
        if isinstance(self.observed, list):
            return self.observed
        if unit is not None:
            return self.observed[unit]
        return union([one for own in self.observed.values() for one in own])

    def builder(self) -> neurostore.SessionBuilder:
        dataset, _, session = self.id.partition("/")
        builder = neurostore.SessionBuilder(dataset=dataset, session=session, rate=self.rate)
        if self.units:
            times = {unit: self.seconds(own) for unit, own in self.units.items()}
            more = {"region": [self.regions[u] for u in self.units]} if self.regions else {}
            builder.add_units(times, **more)
        if isinstance(self.observed, list) and self.observed:
            builder.add_observed(*(self.seconds(ends) for ends in zip(*self.observed, strict=True)))
        elif self.observed:
            rows = list(self.units)
            each = [(*one, rows.index(u)) for u, own in self.observed.items() for one in own]
            start, stop, unit = zip(*each, strict=True)
            builder.add_observed(self.seconds(start), self.seconds(stop), unit=np.array(unit))
        if self.position is not None:
            time, value, valid = zip(*self.position, strict=True)
            builder.add_behaviour(
                "position", np.array(value), time=self.seconds(time), units="cm", valid=valid
            )
        if self.trials is not None:
            start, stop = zip(*self.trials, strict=True)
            builder.add_intervals("trials", self.seconds(start), self.seconds(stop), **self.columns)
        return builder


def union(extents: Sequence[Extent]) -> list[Extent]:
    made: list[Extent] = []
    for low, high in sorted(extents):
        if made and low <= made[-1][1]:
            made[-1] = (made[-1][0], max(made[-1][1], high))
        else:
            made.append((low, high))
    return made


def store_of(*recordings: Recording, url: str | None = None) -> neurostore.Store:
    store = neurostore.create(url or f"memory://sampled-{next(names)}")
    with store.transaction("recordings") as tx:
        for one in recordings:
            tx.put(one.builder())
    return store


def inside(extents: Sequence[Extent], start: int, stop: int) -> bool:
    return any(low <= start and stop <= high for low, high in extents)


def edges(recording: Recording, start: int, bin: Fraction, bins: int) -> list[int]:
    return [start + floor(k * bin * recording.hertz) for k in range(bins + 1)]


def counts(
    recording: Recording, units: Sequence[str], start: int, bin: Fraction, bins: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Counts and reasons (unit, bin) of one window."""
    at = edges(recording, start, bin, bins)
    values, reasons = [], []
    for unit in units:
        own = recording.units[unit]
        row, why = [], []
        for low, high in itertools.pairwise(at):
            seen = inside(recording.seen(unit), low, high)
            row.append(sum(low <= tick < high for tick in own) if seen else 0)
            why.append(OBSERVED if seen else OUTSIDE)
        values.append(row)
        reasons.append(why)
    return values, reasons


def events(
    recording: Recording, units: Sequence[str], start: int, stop: int
) -> list[tuple[Fraction, int, int]]:
    """(seconds from the start, place of the unit, reason), in the order of time, then unit."""
    found = [
        (tick, list(recording.units).index(unit), place, unit)
        for place, unit in enumerate(units)
        for tick in recording.units[unit]
        if start <= tick < stop
    ]
    made = []
    for tick, _, place, unit in sorted(found):
        if inside(recording.seen(unit), tick, tick + 1):
            made.append(((tick - start) / recording.hertz, place, OBSERVED))
        else:
            made.append((Fraction(0), 0, OUTSIDE))
    return made


def position(
    recording: Recording, start: int, present: int, rate: Fraction, samples: int, max_gap: float
) -> tuple[list[list[Fraction]], list[int]]:
    """Values (time, channel), exact, and reasons (time) of one window.

    Samples before the present know nothing of what was recorded from it on.
    """
    values, reasons = [], []
    for tick in edges(recording, start, 1 / rate, samples)[:-1]:
        gap = round(Fraction(str(max_gap)) * recording.hertz)
        assert recording.position is not None
        if tick >= present:
            value, why = _between(recording.position, tick, gap)
        else:
            value, why = _history(
                [one for one in recording.position if one[0] < present], tick, gap
            )
        values.append(value)
        reasons.append(why)
    return values, reasons


def _history(samples: Sequence[Sample], tick: int, max_gap: int) -> tuple[list[Fraction], int]:
    """As between two, but where no valid one follows any more the last one is held."""
    good = [one for one in samples if one[2]]
    if not samples or any(one[0] >= tick for one in good):
        return _between(samples, tick, max_gap)
    if good and tick - good[-1][0] <= max_gap:
        return [Fraction(value) for value in good[-1][1]], OBSERVED
    before = [one for one in samples if one[0] <= tick][-1:]
    after = [one for one in samples if one[0] >= tick][:1]
    unsure = any(not one[2] for one in (*before, *after)) and before
    return [Fraction(0)] * CHANNELS, INVALID if unsure else OUTSIDE


def _between(samples: Sequence[Sample], tick: int, max_gap: int) -> tuple[list[Fraction], int]:
    lost = [Fraction(0)] * CHANNELS
    good = [one for one in samples if one[2]]
    low = max((one for one in good if one[0] <= tick), key=lambda one: one[0], default=None)
    high = min((one for one in good if one[0] >= tick), key=lambda one: one[0], default=None)
    if low and high and high[0] - low[0] <= max_gap:
        part = Fraction(tick - low[0], max(1, high[0] - low[0]))
        pairs = zip(low[1], high[1], strict=True)
        return [Fraction(a) + part * (Fraction(b) - Fraction(a)) for a, b in pairs], OBSERVED
    before = [one for one in samples if one[0] <= tick][-1:]
    after = [one for one in samples if one[0] >= tick][:1]
    unsure = before and after and not (before[0][2] and after[0][2])
    return lost, INVALID if unsure else OUTSIDE


def trial(recording: Recording, tick: int) -> int:
    """Row of the trial that holds a tick, of several the one that started last; -1 for none."""
    best = -1
    for row, (start, stop) in enumerate(recording.trials or []):
        if start <= tick < stop and (best < 0 or start >= recording.trials[best][0]):
            best = row
    return best


# ---- recordings


def spiking(rng: random.Random, spikes: int, low: int, high: int) -> list[int]:
    """Sorted ticks in [low, high), some of them twice."""
    ticks = [rng.randrange(low, high) for _ in range(spikes)]
    return sorted(ticks + ticks[: spikes // 10])


def three(seed: int = 0) -> tuple[Recording, Recording, Recording]:
    """Three sessions that lack different things; 20 s each, on three clocks.

    a: observed by unit, tracking with a gap, trials with text, numbers, an event. b: no behaviour,
    observed from before zero. c: invalid samples, a silent unit, overlapping trials, no region.
    """
    rng = random.Random(seed)
    second = 30_000
    a = Recording("demo/a", "30000")
    a.units = {f"a{k}": spiking(rng, 400, 0, 20 * second) for k in range(5)}
    a.regions = dict(zip(a.units, ("CA1", "CA3", "CA1", "DG", "CA3"), strict=True))
    early, late = [(0, 9 * second)], [(4 * second, 12 * second), (14 * second, 20 * second)]
    both = [(0, 12 * second), (13 * second, 20 * second)]
    a.observed = dict(zip(a.units, (early, late, both, both, late), strict=True))
    frames = [k * 500 for k in range(1_200) if not 300 <= k < 360]
    a.position = [(t, [rng.uniform(-9, 9), rng.gauss(0, 1)], True) for t in frames]
    a.trials = [(2 * k * second, 2 * k * second + 45_001) for k in range(9)]
    a.columns = {
        "side": ["left", "right", "none"] * 3,
        "score": [0.5, float("nan"), *range(7)],
        "cue_time": [float("nan") if k == 4 else 2.0 * k + 0.75 for k in range(9)],
    }
    b, hertz = Recording("demo/b", "24414.0625"), 24_414
    b.units = {f"b{k}": spiking(rng, 300, -3 * hertz, 18 * hertz) for k in range(2)}
    b.regions = {"b0": "CA1", "b1": "LP"}
    b.observed = [(-3 * hertz, 5 * hertz + 7), (6 * hertz, 18 * hertz)]
    c, million = Recording("demo/c", "1000000"), 10**6
    c.units = {f"c{k}": spiking(rng, 200, million, 20 * million) for k in range(6)}
    c.units["silent"] = []
    c.observed = [(million, 20 * million)]
    stamps = [million + 20_000 * k + rng.randrange(3_000) for k in range(950)]
    c.position = [
        (t, [rng.uniform(-9, 9), float(k)], rng.random() > 0.1 and not 400 < k < 460)
        for k, t in enumerate(stamps)
    ]
    c.trials = [(k * million, k * million + 1_700_000) for k in range(2, 17)]
    c.trials[3] = (5 * million, 11 * million)
    c.columns = {"side": ["right"] * 15, "score": list(range(15))}
    return a, b, c
