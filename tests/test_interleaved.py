"""Spikes in time order with a unit each become the tables that the same spikes by unit become."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostore import SessionBuilder, UsageError
from neurostore.clocks import MISSING, Clock, on_grid
from neurostore.store import Interleaved, Ragged, Span, StagedSession, tables

IDS = ["a", "b", "c", "silent"]
MANY = (1 << 16) + 7
"""More spikes than are worked on at once."""


def staged(spikes: Ragged | Interleaved, **more: object) -> StagedSession:
    made = SessionBuilder(dataset="d", session="s", **more)
    made.add_units(spikes)
    return made.build()


def assert_same(one: StagedSession, other: StagedSession) -> None:
    assert one.clock == other.clock
    assert one.attrs == other.attrs
    assert one.tables.keys() == other.tables.keys()
    for name, table in one.tables.items():
        assert table.attrs == other.tables[name].attrs
        assert table.columns.keys() == other.tables[name].columns.keys()
        for key, column in table.columns.items():
            values = other.tables[name].columns[key].values
            assert column.values.dtype == values.dtype
            np.testing.assert_array_equal(column.values[:], values[:])


def by_unit(times: np.ndarray, unit: np.ndarray) -> Ragged:
    return Ragged.of({name: times[unit == row] for row, name in enumerate(IDS)})


TIMES = st.floats(-1e3, 1e3) | st.integers(-9, 9).map(float) | st.just(float("nan"))


@given(st.lists(st.tuples(TIMES, st.integers(0, 2)), min_size=1, max_size=40), st.booleans())
def test_interleaved_spikes_are_stored_as_the_same_spikes_by_unit(spikes: list, sort: bool):
    times = np.array([one[0] for one in spikes])
    unit = np.array([one[1] for one in spikes], dtype=np.uint32)
    if sort:
        order = np.argsort(times)
        times, unit = times[order], unit[order]
    one, other = staged(Interleaved(IDS, times, unit)), staged(by_unit(times, unit))
    assert_same(one, other)
    said = [[(f.check, f.count) for f in made.findings] for made in (one, other)]
    left = [[each for each in some if each[0] != "spikes/v1/time/sorted"] for some in said]
    assert left[0] == left[1]


@pytest.mark.parametrize("rate", [None, 30_000, "24414.0625", 10**9])
def test_a_long_session_is_the_same_by_unit_and_in_time_order(rate: object):
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(-50, 2_000, 3 * MANY))
    times[1000:1010] = times[1000]  # equal times keep the order of the units
    unit = rng.integers(0, 3, len(times))
    one = staged(Interleaved(IDS, times, unit), rate=rate)
    assert_same(one, staged(by_unit(times, unit), rate=rate))
    ticks = np.array([round(Fraction(t) * one.clock.rate) for t in times.tolist()])
    order = np.lexsort((unit, ticks))
    columns = one.tables["spikes"].columns
    np.testing.assert_array_equal(columns["time"].values, ticks[order])
    np.testing.assert_array_equal(columns["unit"].values, unit[order])


def test_spikes_from_1970_are_the_same_by_unit_and_in_time_order():
    times = 1.6e9 + np.sort(np.random.default_rng(1).uniform(0, 100, 1000))
    unit = np.arange(1000) % 3
    one = staged(Interleaved(IDS, times, unit))
    assert_same(one, staged(by_unit(times, unit)))
    assert one.attrs["clock"]["shift"] == 1.6e9


def test_unsorted_interleaved_spikes_are_sorted_with_a_finding():
    made = staged(Interleaved(IDS, np.array([1.0, 3.0, 2.0]), np.array([0, 1, 0])))
    found = next(one for one in made.findings if one.check.endswith("sorted"))
    assert (found.row, found.count) == (2, 1)
    assert made.tables["spikes"].columns["unit"].values.tolist() == [0, 0, 1]


def test_the_spike_out_of_range_is_named_by_its_unit():
    times = np.array([0.0, 1.0, 2.0, 3.0, 5e6])
    table = tables.spikes(Interleaved(IDS, times, np.array([0, 1, 1, 0, 1])), Span(Clock()))
    assert "spike 2 of unit 'b' is at 5e+06 s" in table.findings[0].message


def test_a_unit_on_another_scale_is_found_in_interleaved_spikes():
    times = np.concatenate([np.arange(100.0), np.arange(100.0) * 1000])
    unit = np.repeat([0, 1, 2], [50, 50, 100])
    order = np.argsort(times, kind="stable")
    spikes = Interleaved(IDS[:3], times[order], unit[order])
    said = [one.check for one in staged(spikes).findings]
    assert "clock/unit_scale" in said
    assert said == [one.check for one in staged(spikes.ragged()).findings]


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ([0, 4], "name the units 0 to 4, but there are 4 ids, rows 0 to 3"),
        ([-1, 0], "name the units -1 to 0"),
        ([0.0, 1.0], "found float64"),
        ([0], "2 times, found int64 of shape"),
    ],
)
def test_units_that_are_no_rows_are_refused(unit: list, said: str):
    with pytest.raises(UsageError, match=said):
        Interleaved(IDS, np.array([0.0, 1.0]), np.array(unit))


def test_no_spike_at_all_is_a_session_of_silent_units():
    made = staged(Interleaved(IDS, [], []))
    assert made.tables["units"].columns["n_spikes"].values.tolist() == [0] * 4
    assert made.tables["spikes"].rows == 0


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20),
    st.sampled_from([Fraction(30_000), Fraction(10**6), Fraction("24414.0625")]),
)
def test_ticks_and_error_in_one_pass_are_those_of_two(times: list, rate: Fraction):
    clock, seconds = Clock(rate), np.array(times, dtype=np.float64)
    ticks, error = clock.measured(seconds)
    exact = [
        round(Fraction(t) * rate) if np.isfinite(t) and abs(t * float(rate)) < 2**62 else MISSING
        for t in times
    ]
    assert ticks.tolist() == exact
    assert clock.ticks(seconds).tolist() == exact
    there = ticks != MISSING
    far = np.abs(clock.seconds(ticks[there]) - seconds[there])
    assert error == clock.error(seconds) == far.max(initial=0.0)


@pytest.mark.parametrize("place", [0, MANY - 1])
@pytest.mark.parametrize("missing", [[], [np.nan], [np.inf, -np.inf]])
def test_one_time_off_the_grid_is_found_wherever_it_lies(place: int, missing: list):
    times = np.concatenate([missing, np.arange(MANY) / 30_000])
    assert on_grid(times)
    times[len(missing) + place] += 1e-6
    assert not on_grid(times)
