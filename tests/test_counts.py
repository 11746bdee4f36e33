"""Counts, slices and histograms against a reference of Python integers."""

import itertools
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import neurostore
from neurostore.clocks import Clock
from neurostore.store import Ragged, Session, Span, layout, tables

RATES = {"30 kHz": "30000", "1 us": "1000000", "TDT": "24414.0625"}
names = itertools.count()

Ticks = Mapping[str, Sequence[int]]


def stored(ticks: Ticks, rate: str, **more: object) -> Session:
    """A session with spikes at these ticks, through a store in memory."""
    clock = Clock(rate)
    store = neurostore.create(f"memory://counts-{next(names)}")
    builder = neurostore.SessionBuilder(dataset="d", session="s", rate=rate)
    times = {unit: clock.seconds(np.array(own, dtype=np.int64)) for unit, own in ticks.items()}
    builder.add_units(times, **more)
    with store.transaction("spikes") as tx:
        tx.put(builder)
    return store.session("d/s")


def edges_of(
    rate: str, start: float | Fraction, stop: float | Fraction, bin: float | Fraction
) -> list[int]:
    hertz, width = Fraction(rate), Fraction(str(bin))
    first = round(Fraction(str(start)) * hertz)
    bins = max(0, floor((Fraction(str(stop)) - Fraction(str(start))) / width))
    return [first + floor(k * width * hertz) for k in range(bins + 1)]


def reference(ticks: Ticks, edges: Sequence[int]) -> list[list[int]]:
    """Counts (unit, bin) of sorted ticks, one bin after the other."""
    table = []
    for own in ticks.values():
        cuts = [bisect_left(own, edge) for edge in edges]
        table.append([after - before for before, after in itertools.pairwise(cuts)])
    return table


def random_ticks(seed: int, rate: str, units: int, spikes: int, length: float) -> dict:
    rng, hertz = np.random.default_rng(seed), float(Fraction(rate))
    return {
        f"u{k}": sorted(rng.integers(int(-2 * hertz), int(length * hertz), spikes).tolist())
        for k in range(units)
    }


# ---- windows


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_of_2000_windows_at_any_start_none_differs_by_one_count(rate: str) -> None:
    ticks = random_ticks(1, rate, 8, 4_000, 60.0)
    # Whole 20 ms bins share their edges with many spikes.
    beat = [round(k * Fraction(rate) / 50) for k in range(3_000)]
    ticks |= {"empty": [], "on the edges": beat}
    session = stored(ticks, rate)
    rng = np.random.default_rng(2)
    starts = [
        *rng.uniform(-3, 61, 1_000).tolist(),
        *np.round(rng.uniform(-3, 61, 500), 2).tolist(),
        *rng.choice(session.spike_times("u0"), 500).tolist(),
    ]
    wrong = 0
    for start in starts:
        stop = start + 1.0
        edges = edges_of(rate, start, stop, 0.02)
        found = session.counts(start, stop, 0.02)
        wrong += found.values.tolist() != reference(ticks, edges)
    assert wrong == 0


spikes = st.lists(st.integers(-300, 900), max_size=40).map(sorted)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["1000", "30000", "1000000", "24414.0625", "100000/3", "7"]),
    st.lists(spikes, min_size=1, max_size=4),
    st.integers(-400, 1000),
    st.integers(0, 900),
    st.integers(1, 80),
    st.integers(0, 2),
    st.data(),
)
def test_any_window_of_any_session_is_counted_exactly(
    rate: str,
    lists: list[list[int]],
    first: int,
    length: int,
    width: int,
    offset: int,
    data: st.DataObject,
) -> None:
    """Edges on exact ticks or between them, empty units and windows, windows past both ends."""
    ticks = {f"u{k}": own for k, own in enumerate(lists)}
    session = stored(ticks, rate)
    tick = 1 / Fraction(rate)
    start, bin = (first + Fraction(offset, 3)) * tick, (width + Fraction(offset, 7)) * tick
    stop = start + length * tick
    edges = edges_of(rate, start, stop, bin)
    found = session.counts(start, stop, bin)
    assert found.dims == ("unit", "bin")
    assert found.values.tolist() == reference(ticks, edges)
    assert found["unit"].values.tolist() == list(ticks)

    chosen = data.draw(st.lists(st.sampled_from(list(ticks)), max_size=5))
    some = session.counts(start, stop, bin, units=chosen)
    assert some["unit"].values.tolist() == chosen
    expected = [reference({name: ticks[name]}, edges)[0] for name in chosen]
    assert some.values.tolist() == expected

    low, high = sorted([first, data.draw(st.integers(-400, 1000))])
    if low < high:
        part = session.slice(low * tick, high * tick)
        kept = {name: [t for t in own if low <= t < high] for name, own in ticks.items()}
        assert part.counts(start, stop, bin).values.tolist() == reference(kept, edges)
        for name, own in kept.items():
            assert part.spike_times(name).tolist() == part.clock.seconds(np.array(own)).tolist()


def test_a_bin_holds_more_spikes_than_a_byte_or_two_count() -> None:
    ticks = {"burst": [5] * 300 + [6] * 70_000, "one": [5]}
    session = stored(ticks, "30000")
    found = session.counts(0, Fraction(10, 30_000), Fraction(1, 30_000))
    assert found.values.tolist() == reference(ticks, range(11))
    assert found.values.max() == 70_000
    (twice,) = session.findings
    assert (twice.check, twice.severity) == ("spikes/v1/time/twice", "suggestion")
    assert twice.count == 299 + 69_999


def test_all_spikes_in_one_tick_are_in_its_bin_alone() -> None:
    session = stored({"a": [-7] * 10}, "1000")
    assert session.counts(-0.010, 0.0, 0.001).values.tolist() == [[0, 0, 0, 10] + [0] * 6]
    assert session.counts(-0.007, -0.006, 0.001).values.tolist() == [[10]]
    assert session.counts(-0.006, 0.0, 0.001).values.sum() == 0


def test_a_session_without_any_spike_counts_nothing() -> None:
    session = stored({"a": [], "b": []}, "30000")
    assert session.counts(-1, 1, 0.5).values.tolist() == [[0] * 4] * 2
    assert session.spike_times("a").tolist() == []
    assert session.slice(0, 1).counts(-1, 1, 0.5).values.sum() == 0


def test_units_beyond_65536_keep_their_own_counts() -> None:
    units = 65_600
    clock = Clock(1000)
    spiking = np.array([0, 1, 65_534, 65_535, 65_536, 65_537, units - 1])
    per_unit = np.bincount(spiking, np.arange(1, 8), minlength=units).astype(np.int64)
    times = np.concatenate([np.arange(n) for n in per_unit]) / 1000
    ids = [f"u{k}" for k in range(units)]
    table = tables.spikes(Ragged(ids, times, np.cumsum(per_unit)), Span(clock))
    assert table.columns["unit"].values.dtype == np.uint32

    store = neurostore.create(f"memory://counts-{next(names)}")
    builder = neurostore.SessionBuilder(dataset="d", session="s", rate=1000)
    builder.add_units(Ragged(ids, times, np.cumsum(per_unit)))
    with store.transaction("many units") as tx:
        tx.put(builder)
    session = store.session("d/s")
    assert session.counts(0, 0.01, 0.01).values[:, 0].tolist() == per_unit.tolist()
    assert len(session.spike_times("u65537")) == per_unit[65_537]
    some = session.counts(0, 0.01, 0.01, units=["u65599", "u65536", "u2"])
    assert some.values[:, 0].tolist() == [7, 5, 0]


def test_exactly_65536_units_still_fit_two_bytes() -> None:
    stops = np.arange(1, 65_537)
    ragged = Ragged([str(k) for k in stops], np.zeros(65_536), stops)
    unit = tables.spikes(ragged, Span(Clock(1000))).columns["unit"].values
    assert unit.dtype == np.uint16
    assert (np.asarray(unit[:]) == np.arange(65_536)).all()


@pytest.fixture(scope="module")
def long() -> tuple[Ticks, Session]:
    """Three chunks of spikes."""
    ticks = random_ticks(3, "30000", 5, 140_000, 40.0)
    session = stored(ticks, "30000")
    assert session.stored("spikes").rows > 2 * layout.CHUNK
    return ticks, session


def test_a_window_longer_than_a_chunk_is_counted_exactly(long: tuple[Ticks, Session]) -> None:
    ticks, session = long
    for start, stop, bin in ((-3.0, 41.0, 1.0), (0.01, 39.99, 0.5), (-1.5, 38.0, Fraction(1, 7))):
        expected = reference(ticks, edges_of("30000", start, stop, bin))
        assert session.counts(start, stop, bin).values.tolist() == expected


def test_windows_across_the_border_of_two_chunks_are_counted_exactly(
    long: tuple[Ticks, Session],
) -> None:
    ticks, session = long
    time = np.sort(np.concatenate([np.array(own) for own in ticks.values()]))
    for border in (layout.CHUNK, 2 * layout.CHUNK):
        for tick in time[border - 2 : border + 2].tolist():
            start, stop, bin = (Fraction(n, 30_000) for n in (tick - 30, tick + 30, 3))
            expected = reference(ticks, edges_of("30000", start, stop, bin))
            assert session.counts(start, stop, bin).values.tolist() == expected
    assert session.spike_times("u3").tolist() == (np.array(ticks["u3"]) / 30_000).tolist()


BLOCKS = {"7": 1, "1000": 100, "24414.0625": 2441, "1000000": 65_536, "10000000": 1_000_000}


@pytest.mark.parametrize(("rate", "length"), BLOCKS.items())
def test_blocks_of_any_length_find_every_spike(rate: str, length: int) -> None:
    assert tables.block_length(Clock(rate)) == length
    ticks = random_ticks(4, rate, 3, 500, 3.0)
    # On the borders of blocks, and beside them.
    ticks["border"] = sorted(k * length + d for k in range(-3, 4) for d in (-1, 0, 1))
    session = stored(ticks, rate)
    tick = 1 / Fraction(rate)
    for first in (-3 * length - 2, -length, -1, 0, 1, length - 1, length, 2 * length + 1):
        start, stop = first * tick, (first + 2 * length) * tick
        bin = max(1, length // 3) * tick
        expected = reference(ticks, edges_of(rate, start, stop, bin))
        assert session.counts(start, stop, bin).values.tolist() == expected


def test_counts_carry_the_start_of_every_bin_and_whole_bins_only() -> None:
    session = stored({"a": [0, 10, 20]}, "1000")
    found = session.counts(0.005, 0.0299, 0.01)
    assert found["time"].values.tolist() == [0.005, 0.015]
    assert found.values.tolist() == [[1, 1]]
    assert session.counts(0.005, 0.014, 0.01).shape == (1, 0)
    assert session.counts(0.5, 0.5, 0.01).shape == (1, 0)


def test_a_stop_before_the_start_is_refused_with_both_numbers() -> None:
    session = stored({"a": [0, 10, 20]}, "1000")
    with pytest.raises(neurostore.UsageError, match=r"start 20 s, stop 10 s"):
        session.counts(20, 10, 0.02)


@pytest.mark.parametrize(
    "window",
    [
        (0, 1, 0),
        (0, 1, -0.02),
        (0, 1, 1e-9),
        (float("nan"), 1, 0.02),
        (0, float("inf"), 0.02),
        (0, 1e18, 0.02),
        (1e300, 2e300, 1e299),
        ("a", 1, 0.02),
        (None, 1, 0.02),
    ],
    ids=str,
)
def test_a_window_that_makes_no_sense_is_one_clear_error(window: tuple) -> None:
    session = stored({"a": [0, 10]}, "1000")
    with pytest.raises(neurostore.NeurostoreError) as caught:
        session.counts(*window)
    assert "\n" not in str(caught.value)


# ---- histograms


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_a_psth_is_the_counts_around_every_event(rate: str) -> None:
    ticks = random_ticks(5, rate, 2, 3_000, 30.0)
    session = stored(ticks, rate)
    events = np.random.default_rng(6).uniform(-1, 31, 60)
    found = session.psth("u1", [*events, np.nan], (-0.5, 1.0), 0.02)
    shape = edges_of(rate, -0.5, 1.0, 0.02)
    at = [round(Fraction(event) * Fraction(rate)) for event in events.tolist()]
    expected = [reference({"u1": ticks["u1"]}, [t + e for e in shape])[0] for t in at]
    assert found["count"].values.tolist() == expected
    assert found.attrs["missing"] == 1
    first, last = (pick(pick(times) for times in ticks.values()) for pick in (min, max))
    seen = [
        [t + a >= first and t + b <= last + 1 for a, b in itertools.pairwise(shape)] for t in at
    ]
    assert found["observed"].values.tolist() == seen
    rates = np.where(seen, np.array(expected) / 0.02, np.nan)
    np.testing.assert_allclose(found["rate_hz"], np.nanmean(rates, axis=0))
    spread = np.nanstd(rates, axis=0, ddof=1) / np.sqrt(np.sum(seen, axis=0))
    np.testing.assert_allclose(found["sem"], spread)
    centres = (np.array(shape[:-1]) + np.array(shape[1:])) / 2 / float(Fraction(rate))
    np.testing.assert_allclose(found["time"], centres, atol=1e-12)


# ---- what goes in comes out


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["30000", "1000000", "24414.0625", "30000000/1001"]),
    st.lists(st.lists(st.floats(-1e4, 1e4), max_size=30), min_size=1, max_size=4),
)
def test_spike_times_equal_the_input_within_half_a_tick_and_one_float_spacing(
    rate: str, lists: list[list[float]]
) -> None:
    ids = [f"u{k}" for k in range(len(lists))]
    clock = Clock(rate)
    ragged = Ragged.of(dict(zip(ids, lists, strict=True)))
    table = tables.spikes(ragged, Span(clock))
    time, unit = (np.asarray(table.columns[name].values[:]) for name in ("time", "unit"))
    assert (np.diff(time) >= 0).all()
    half = 1 / (2 * Fraction(rate))
    for row, own in enumerate(lists):
        found = clock.seconds(time[unit == row]).tolist()
        assert len(found) == len(own)
        for one, other in zip(found, sorted(own), strict=True):
            spacing = Fraction(float(np.spacing(abs(other))))
            assert abs(Fraction(one) - Fraction(other)) <= half + spacing


def test_equal_times_keep_the_order_of_the_units() -> None:
    ragged = Ragged.of({"b": [1.0, 2.0], "a": [1.0], "c": [2.0, 1.0]})
    unit = tables.spikes(ragged, Span(Clock(1000))).columns["unit"].values
    assert np.asarray(unit[:]).tolist() == [0, 1, 2, 0, 2]


def test_a_clock_so_fine_that_unit_and_tick_do_not_fit_one_key_is_sorted_all_the_same() -> None:
    rng = np.random.default_rng(8)
    times = {f"u{k}": np.sort(rng.uniform(-9e5, 9e5, 3)) for k in range(2_000)}
    ragged, span = Ragged.of(times), Span(Clock(10**10))
    low, high = span.clock.ticks(np.array([ragged.times.min(), ragged.times.max()])).tolist()
    assert (high - low) * 2_000 > 2**63
    ticks = span.clock.ticks(ragged.times)
    rows = np.repeat(np.arange(2_000), 3)
    order = np.lexsort((rows, ticks))
    time, unit, _ = tables._by_time(ticks.copy(), rows.astype(np.uint16), 2_000)
    assert (time == ticks[order]).all()
    assert (unit == rows[order]).all()


def test_far_from_zero_on_a_fine_clock_no_tick_is_lost() -> None:
    ticks = {f"u{k}": [9 * 10**16 + k, 9 * 10**16 + 3 * k + 1] for k in range(300)}
    clock = Clock(10**9)
    ragged = Ragged.of({name: clock.seconds(np.array(own)) for name, own in ticks.items()})
    table = tables.spikes(ragged, Span(clock, middle=9e7))
    expected = np.sort(clock.ticks(ragged.times))
    assert np.asarray(table.columns["time"].values[:]).tolist() == expected.tolist()


def findings_of(times: Mapping[str, Sequence[float]]) -> list[tuple[str, str, int | None, int]]:
    builder = neurostore.SessionBuilder(dataset="d", session="s")
    builder.add_units(times)
    return [(one.check, one.severity, one.row, one.count) for one in builder.build().findings]


def test_unsorted_spikes_are_sorted_with_a_finding() -> None:
    assert findings_of({"a": [1.0, 3.0, 2.0, 1.5], "b": [0.0], "c": [2.0, 1.0]}) == [
        ("spikes/v1/time/sorted", "violation", 2, 3)
    ]
    assert findings_of({"a": [3.0], "b": [2.0], "c": [1.0]}) == []
    assert findings_of({"empty": [], "a": [1.0, 2.0], "none": []}) == []


def test_spikes_that_are_not_finite_are_left_out_with_a_finding() -> None:
    found = findings_of({"e": [], "a": [1.0, np.nan, 2.0], "b": [np.inf, -np.inf, 3.0]})
    assert found == [("spikes/v1/time/finite", "violation", 1, 3)]
    builder = neurostore.SessionBuilder(dataset="d", session="s")
    builder.add_units({"e": [], "a": [1.0, np.nan, 2.0], "b": [np.inf, -np.inf, 3.0]})
    made = builder.build().tables
    assert np.asarray(made["units"].columns["n_spikes"].values[:]).tolist() == [0, 2, 1]
    assert made["spikes"].rows == 3


def test_duplicated_spikes_are_kept_with_a_suggestion() -> None:
    assert findings_of({"a": [1.0, 1.0, 1.0], "b": [1.0]}) == [
        ("spikes/v1/time/twice", "suggestion", None, 2)
    ]


def test_spikes_out_of_range_refuse_the_session_and_name_the_first() -> None:
    builder = neurostore.SessionBuilder(dataset="d", session="s")
    builder.add_units({"a": [1.0, 2.0], "b": [1.0, -1.5e9, 2.0, 1.7e9]})
    with pytest.raises(
        neurostore.RefusedError, match=r"spike 1 of unit 'b' is at -1.5e\+09 s"
    ) as e:
        builder.build()
    found = e.value.findings[0]
    assert (found.check, found.severity) == ("spikes/v1/time/range", "critical")
    assert (found.row, found.count) == (3, 2)
    assert "\n" not in str(e.value)
