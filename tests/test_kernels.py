"""The compiled loops over packed spikes against exact integer arithmetic in plain Python."""

from __future__ import annotations

import zlib
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neurostore.clocks import Clock
from neurostore.kernels import _spikes, _sums
from neurostore.store.tables import block_length

CLOCKS = [Fraction(30_000), Fraction(1_000_000), Fraction("24414.0625"), Fraction(1, 3) * 100]


def packed(
    time: NDArray[np.int64], unit: NDArray[Any], length: int, *, wide: bool = False
) -> tuple[Any, ...]:
    """Events, block index, first tick and ticks of a block, as the cache keeps them."""
    first = int(time[0]) // length * length if len(time) else 0
    blocks = (int(time[-1]) - first) // length + 1 if len(time) else 0
    block = np.searchsorted(time, first + np.arange(blocks + 1) * length).astype(np.int64)
    events = np.zeros(len(time), np.uint64 if wide else np.uint32)
    _spikes.pack(time, unit, block, first, length, 0, events)
    return events, block, first, length


def spikes(
    seed: int, units: int, number: int, low: int, high: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    time = np.sort(random.integers(low, high, number))
    return time, random.integers(0, units, number)


def slow_count(
    time: NDArray[np.int64], unit: NDArray[Any], start: int, edge: NDArray[np.int64], units: int
) -> NDArray[np.int32]:
    made = np.zeros((units, len(edge) - 1), np.int32)
    for tick, row in zip(time.tolist(), unit.tolist(), strict=True):
        for bin in range(len(edge) - 1):
            if start + edge[bin] <= tick < start + edge[bin + 1]:
                made[row, bin] += 1
    return made


def by_numpy(
    time: NDArray[np.int64], unit: NDArray[Any], start: int, edge: NDArray[np.int64], units: int
) -> NDArray[np.int64]:
    first, last = np.searchsorted(time, [start, start + edge[-1]])
    bins = len(edge) - 1
    bin = np.searchsorted(edge, time[first:last] - start, side="right") - 1
    flat = np.bincount(unit[first:last].astype(np.int64) * bins + bin, minlength=units * bins)
    return flat.reshape(units, bins)


@pytest.mark.parametrize("rate", CLOCKS)
@pytest.mark.parametrize("wide", [False, True])
def test_of_ten_thousand_windows_none_differs_from_integer_binning(
    rate: Fraction, wide: bool
) -> None:
    clock, units = Clock(rate), 40
    length = 200_000 if wide else block_length(clock)
    low, high = -3 * clock.tick(10), clock.tick(30)
    time, unit = spikes(1, units, 30_000, low, high)
    unit[unit == 7] = 8  # a unit without a spike
    burst = np.full(700, int(time[500]))  # hundreds of spikes in one tick
    time, unit = np.concatenate([time, burst]), np.concatenate([unit, np.full(700, 3)])
    order = np.argsort(time, kind="stable")
    time, unit = time[order], unit[order]
    events, block, first, _ = packed(time, unit, length, wide=wide)
    edge = clock.edges(0, 25, Fraction(1, 50) if rate > 1000 else Fraction(1, 5))
    random = np.random.default_rng(2)
    start = random.integers(low - 2 * edge[-1], high + edge[-1], 1250)
    start[:4] = [time[0], time[-1], time[0] - edge[-1], time[-1] + 1]
    start[4:20] = time[500] - random.integers(0, edge[-1], 16)
    column = np.append(np.arange(units), -1).astype(np.int32)
    out = np.zeros((len(start), units, 25), np.int32)
    place = random.permutation(len(start))
    _spikes.count(events, block, first, length, start, edge, column, place, out)
    differ = [
        not np.array_equal(out[place[w]], by_numpy(time, unit, int(start[w]), edge, units))
        for w in range(len(start))
    ]
    assert not any(differ)
    assert out.max() > 255
    assert (out.sum(axis=(1, 2)) == 0).any()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 5),
    st.integers(0, 60),
    st.sampled_from(CLOCKS),
    st.integers(1, 400),
    st.data(),
)
def test_counts_equal_a_loop_over_spikes_and_bins(
    seed: int, units: int, number: int, rate: Fraction, length: int, data: st.DataObject
) -> None:
    clock = Clock(rate)
    time, unit = spikes(seed, units, number, -500, 500)
    events, block, first, _ = packed(time, unit, length)
    width = Fraction(data.draw(st.integers(1, 90)), 7) + 1
    edge = clock.edges(0, data.draw(st.integers(1, 12)), width / rate)
    start = np.array(data.draw(st.lists(st.integers(-900, 900), min_size=1, max_size=6)))
    asked = np.array(data.draw(st.permutations(range(units)))[: data.draw(st.integers(0, units))])
    column = np.full(units + 1, -1, np.int32)
    column[asked.astype(np.int64)] = np.arange(len(asked))
    out = np.zeros((len(start), units, len(edge) - 1), np.int32)
    place = np.arange(len(start))[::-1].copy()
    _spikes.count(events, block, first, length, start, edge, column, place, out)
    for w, at in enumerate(start.tolist()):
        expected = slow_count(time, unit, at, edge, units)[asked.astype(np.int64)]
        np.testing.assert_array_equal(out[place[w], : len(asked)], expected)
        assert not out[place[w], len(asked) :].any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 80), st.booleans(), st.data())
def test_lists_hold_every_spike_of_the_units_asked_for_in_order(
    seed: int, units: int, number: int, wide: bool, data: st.DataObject
) -> None:
    time, unit = spikes(seed, units, number, -500, 500)
    events, block, first, length = packed(time, unit, data.draw(st.integers(1, 300)), wide=wide)
    span = data.draw(st.integers(1, 700))
    start = np.array(data.draw(st.lists(st.integers(-900, 900), min_size=1, max_size=6)))
    every = data.draw(st.booleans())
    column = np.append(np.arange(units), -1).astype(np.int32)
    if not every:
        column[data.draw(st.integers(0, units - 1))] = -1
    rows = [
        [(t - at, int(column[u])) for t, u in zip(time.tolist(), unit.tolist(), strict=True)
         if at <= t < at + span and column[u] >= 0]
        for at in start.tolist()
    ]  # fmt: skip
    most = _spikes.held(events, block, first, length, start, span, column, every)
    assert most == max(len(row) for row in rows)
    shape = (len(start), most)
    made, who = np.full(shape, 9, np.float32), np.full(shape, 9, np.int64)
    why, place = np.full(shape, 9, np.uint8), np.arange(len(start))[::-1].copy()
    _spikes.listed(
        *(events, block, first, length, start, span, column, every, 30_000.0, 1.0),
        *(place, made, who, why, 1),
    )
    for w, row in enumerate(rows):
        got = slice(None, len(row))
        expected = np.array([tick / 30_000 for tick, _ in row]).astype(np.float32)
        np.testing.assert_array_equal(made[place[w], got], expected)
        np.testing.assert_array_equal(who[place[w], got], [u for _, u in row])
        np.testing.assert_array_equal(why[place[w]], [0] * len(row) + [1] * (most - len(row)))
        assert not made[place[w], len(row) :].any()
        assert not who[place[w], len(row) :].any()


@pytest.mark.parametrize(
    ("above", "below"),
    [(30_000, 1), (10**6, 1), (65_536, 1), (390_625, 16), (3 * 2**20, 7), (2**26 - 5, 1)],
)
def test_seconds_by_a_product_are_those_by_a_division(above: int, below: int) -> None:
    span = (2**24 - 1) // below
    assert _spikes.as_product(span, float(above), float(below))
    assert not _spikes.as_product(span + below, float(above), float(below))
    assert not _spikes.as_product(span, 2.0**26, float(below))
    tick = np.arange(span, dtype=np.float64)
    product = (tick * (below / above)).astype(np.float32)
    assert (product == (tick * below / above).astype(np.float32)).all()


def test_unit_rows_beyond_16_bits_are_counted_in_64() -> None:
    time = np.array([0, 5, 5, 200_000], np.int64)
    unit = np.array([70_000, 65_536, 1, 99_999], np.uint32)
    events, block, first, length = packed(time, unit, 100_000, wide=True)
    out = np.zeros((1, 100_000, 1), np.int32)
    column, place = np.append(np.arange(100_000), -1).astype(np.int32), np.zeros(1, np.int64)
    start, edge = np.array([-1]), np.array([0, 300_000])
    _spikes.count(events, block, first, length, start, edge, column, place, out)
    assert np.flatnonzero(out[0, :, 0]).tolist() == [1, 65_536, 70_000, 99_999]


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 6),
    st.integers(0, 100),
    st.integers(1, 50),
    st.booleans(),
)
def test_spikes_by_unit_are_those_of_each_unit_in_order(
    seed: int, units: int, number: int, cut: int, wide: bool
) -> None:
    time, unit = spikes(seed, units, number, -500, 500)
    events, block, first, length = packed(time, unit, 37, wide=wide)
    each = np.bincount(unit, minlength=units)
    place, out = np.cumsum(each) - each, np.zeros(number, np.uint32)
    for low in range(0, number, cut):
        _spikes.by_unit(events, block, length, low, min(low + cut, number), place, out)
    for row in range(units):
        own = slice(place[row] - each[row], place[row])
        np.testing.assert_array_equal(out[own].astype(np.int64) + first, time[unit == row])


def test_a_spike_of_no_unit_is_counted_nowhere() -> None:
    time, unit = np.array([0, 1, 2]), np.array([0, 60_000, 1])
    events, block, first, length = packed(time, unit, 10)
    column = np.array([0, 1, -1], np.int32)
    out, place, start = np.zeros((1, 2, 1), np.int32), np.zeros(1, np.int64), np.array([0])
    _spikes.count(events, block, first, length, start, np.array([0, 5]), column, place, out)
    assert out.ravel().tolist() == [1, 1]
    assert _spikes.held(events, block, first, length, start, 5, column, False) == 2


def test_a_spike_outside_its_block_is_not_packed() -> None:
    time, unit = np.array([0, 5, 12]), np.array([0, 0, 0])
    for block in ([0, 2, 3], [0, 3, 3], [0, 1, 3]):
        out = np.zeros(3, np.uint32)
        good = _spikes.pack(time, unit, np.array(block), 0, 10, 0, out)
        assert good == (block == [0, 2, 3])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=100))
def test_the_checksum_is_that_of_zlib(data: bytes) -> None:
    made = _sums.crc32(np.frombuffer(data, np.uint8), _sums.TABLES)
    assert made == zlib.crc32(data)


def test_segments_are_verified_where_they_are_what_was_written() -> None:
    data = np.random.default_rng(0).integers(0, 256, 1000).astype(np.uint8)
    sums = np.array([zlib.crc32(data[k : k + 100].tobytes()) for k in range(0, 1000, 100)])
    data[345] ^= 1
    verified = np.zeros(10, np.uint8)
    _sums.verify(data, 100, sums.astype(np.uint32), verified, _sums.TABLES)
    assert verified.tolist() == [1, 1, 1, 0, 1, 1, 1, 1, 1, 1]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_windows_are_whole_where_every_set_covers_every_tick(data: st.DataObject) -> None:
    sets = []
    for _ in range(data.draw(st.integers(1, 3))):
        edges = data.draw(st.lists(st.integers(-20, 20), max_size=8, unique=True))
        edges = sorted(edges)[: len(edges) // 2 * 2]
        sets.append((edges[::2], edges[1::2]))
    start = np.array(data.draw(st.lists(st.integers(-25, 25), min_size=1, max_size=3)))
    span = data.draw(st.integers(1, 15))
    pointer = np.cumsum([0, *(len(one) for one, _ in sets)])
    starts, stops = (np.array([tick for one in sets for tick in one[k]], np.int64) for k in (0, 1))
    expected = all(
        any(low <= at and at + span <= high for low, high in zip(*one, strict=True))
        for one in sets
        for at in start.tolist()
    )
    assert _spikes.whole(starts, stops, pointer, start, span) == expected
