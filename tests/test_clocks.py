import pickle
from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neurostore.clocks import (
    FASTEST,
    GRID,
    MISSING,
    MOST_BINS,
    Clock,
    as_seconds,
    choose,
    exact,
    on_grid,
)
from neurostore.errors import NeurostoreError, UsageError

RATES = {
    "30 kHz": Fraction(30_000),
    "1 us": Fraction(1_000_000),
    "TDT": Fraction("24414.0625"),
    "NTSC": Fraction(30_000_000, 1001),
    "thirds": Fraction(100_000, 3),
    "a third of a hertz": Fraction(1, 3),
    "1 ns": Fraction(10**9),
}
clocks = st.sampled_from(list(RATES.values())).map(Clock)
seconds = st.floats(-1e6, 1e6, allow_nan=False)


def spacing(time: float) -> Fraction:
    return Fraction(float(np.spacing(abs(time))))


def off(clock: Clock, time: float) -> Fraction:
    """The exact round-trip error of one time beyond half a tick, in float spacings of the time."""
    back = float(clock.seconds(clock.ticks(np.array([time])))[0])
    return (abs(Fraction(back) - Fraction(time)) - 1 / (2 * clock.rate)) / spacing(time)


# ---- there and back


@given(clocks, seconds)
@example(Clock(30_000), 0.00025)
def test_a_time_comes_back_within_half_a_tick_and_one_float_spacing(
    clock: Clock, time: float
) -> None:
    assert off(clock, time) <= 1


@given(clocks, st.integers(-(10**9), 10**9), st.integers(-2, 2))
def test_a_time_close_to_half_a_tick_comes_back_just_as_well(
    clock: Clock, tick: int, steps: int
) -> None:
    time = float((tick + Fraction(1, 2)) / clock.rate)
    for _ in range(abs(steps)):
        time = float(np.nextafter(time, np.inf if steps > 0 else -np.inf))
    assert off(clock, time) <= 1
    assert clock.ticks(np.array([time]))[0] == round(Fraction(time) * clock.rate)


@given(clocks, st.lists(seconds, max_size=30))
def test_ticks_are_the_nearest_ones_by_fractions(clock: Clock, times: list[float]) -> None:
    expected = [round(Fraction(time) * clock.rate) for time in times]
    assert clock.ticks(np.array(times, dtype=float)).tolist() == expected


@given(clocks, st.integers(-(2**50), 2**50))
def test_a_tick_comes_back_from_its_seconds(clock: Clock, tick: int) -> None:
    time = clock.seconds(np.array([tick]))
    assert clock.ticks(time)[0] == tick
    assert clock.tick(float(time[0])) == tick


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_seconds_are_the_nearest_floats(rate: Fraction) -> None:
    ticks = np.random.default_rng(0).integers(-(10**10), 10**10, 2_000)
    assert Clock(rate).seconds(ticks).tolist() == [float(int(tick) / rate) for tick in ticks]


def test_the_worst_round_trip_error_is_recorded_over_the_times_that_have_a_tick() -> None:
    clock = Clock(1000)
    assert clock.error(np.array([0.0, 0.0012, np.nan, 1e300])) == pytest.approx(0.0002)
    assert clock.error(np.zeros(0)) == clock.error(np.array([np.nan, -np.inf])) == 0


def test_arrays_longer_than_a_piece_are_like_short_ones() -> None:
    times = np.arange(3_000_001) / 30_000 - 7
    clock = Clock(30_000)
    assert (clock.ticks(times) == np.arange(3_000_001) - 210_000).all()
    assert clock.error(times) <= 1e-13
    assert on_grid(times)
    times[-1] += 1e-7
    assert not on_grid(times)


# ---- what is missing, negative, huge or nonsense


def test_times_that_are_missing_or_too_far_have_no_tick_and_come_back_as_nan() -> None:
    times = np.array([np.nan, np.inf, -np.inf, 1e308, -1e308, 1.0, -1.0])
    ticks = Clock(30_000).ticks(times)
    assert ticks.tolist() == [MISSING] * 5 + [30_000, -30_000]
    back = Clock(30_000).seconds(ticks)
    assert np.isnan(back[:5]).all()
    assert back[5:].tolist() == [1.0, -1.0]


@pytest.mark.parametrize("rate", [*RATES.values(), Fraction(FASTEST)])
def test_every_time_in_range_has_a_tick(rate: Fraction) -> None:
    times = np.array([-1.01e8, -1e6, 1e6, 1.01e8])
    assert (Clock(rate).ticks(times) != MISSING).all()


@pytest.mark.parametrize("rate", [0, -1, "0/5", FASTEST + 1, 1e300])
def test_a_clock_without_a_usable_rate_is_refused(rate: object) -> None:
    with pytest.raises(UsageError, match="ticks per second"):
        Clock(rate)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        *("", "x", "nan", "inf", "1/0", "1e400", "1e999999999", "1e-999999999", None, True, [1]),
        *(1j, float("nan"), float("-inf"), np.float32("nan"), np.array([1.0, 2.0])),
    ],
    ids=str,
)
def test_what_is_no_finite_number_is_refused_at_once(value: object) -> None:
    with pytest.raises(UsageError, match="no finite number"):
        exact(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, Fraction(1, 10)),
        (np.float32(0.1), Fraction(1, 10)),
        (np.float64(59.94), Fraction(5994, 100)),
        (np.int16(-3), Fraction(-3)),
        ("30000/1.001", None),
        ("1/3", Fraction(1, 3)),
        ("24414.0625", Fraction(390_625, 16)),
        (Fraction(2, 7), Fraction(2, 7)),
    ],
)
def test_a_number_is_the_one_a_person_wrote(value: object, expected: Fraction | None) -> None:
    if expected is None:
        with pytest.raises(UsageError):
            exact(value)  # type: ignore[arg-type]
    else:
        assert exact(value) == expected  # type: ignore[arg-type]


def test_numbers_in_any_container_are_seconds() -> None:
    import pandas as pd

    nullable = pd.Series([1, None], dtype="Int64")
    masked = np.ma.masked_equal([1, 2], 2)
    for times in ([1.0, None], [1, float("nan")], nullable, masked, np.array([1, np.nan], "f4")):
        assert as_seconds(times)[0] == 1
        assert np.isnan(as_seconds(times)[1])
    assert as_seconds([]).shape == (0,)
    assert as_seconds(np.ma.masked_array([1, 2])).tolist() == [1, 2]


@pytest.mark.parametrize(
    "times",
    [
        *(["a"], [b"1"], [True], [1j], np.array(["2020-01-01"], "M8[s]"), [[1], [1, 2]]),
        *("12", [{}], [10**400], [object()]),
    ],
    ids=range(10),
)
def test_what_are_no_times_is_one_clear_error(times: object) -> None:
    with pytest.raises(NeurostoreError, match=r"^trials must be numbers, in seconds") as caught:
        as_seconds(times, "trials")  # type: ignore[arg-type]
    assert str(caught.value).count("\n") == 0


# ---- starts, edges and bins


@pytest.mark.parametrize(
    ("start", "expected"),
    [(0.00025, 8), (0.00035, 10), ("0.00015", 4), (-0.00025, -8), ("1/60000", 0), ("1/20000", 2)],
)
def test_a_start_between_two_ticks_goes_to_the_even_one(start: float | str, expected: int) -> None:
    assert Clock(30_000).tick(start) == expected


@given(clocks, st.decimals(-1000, 1000, places=7))
def test_a_start_in_decimals_is_exact(clock: Clock, start: object) -> None:
    assert clock.tick(str(start)) == round(Fraction(str(start)) * clock.rate)


@pytest.mark.parametrize("start", [1e300, -1e300, 2.0**62])
def test_a_start_beyond_int64_is_refused(start: float) -> None:
    with pytest.raises(UsageError, match="further from 0 than a clock counts"):
        Clock(30_000).tick(start)


@given(
    st.sampled_from(list(RATES.values())),
    st.integers(-(10**12), 10**12),
    st.integers(0, 300),
    st.sampled_from([0.02, 0.001, "1/3", 1, 7.3, "0.0123456789", "1e-9", 1e5]),
)
def test_edges_are_the_floors_of_exact_products(
    rate: Fraction, start: int, bins: int, bin: float | str
) -> None:
    clock, width = Clock(rate), exact(bin) * rate
    if width < 1:
        with pytest.raises(UsageError, match="at least one tick"):
            clock.edges(start, bins, bin)
        return
    expected = [start + floor(k * exact(bin) * rate) for k in range(bins + 1)]
    assert clock.edges(start, bins, bin).tolist() == expected


def test_edges_are_exact_where_products_leave_int64() -> None:
    bin, clock = "0.012345678901234567891", Clock("24414.0625")
    expected = [floor(k * Fraction(bin) * clock.rate) for k in range(1001)]
    assert clock.edges(0, 1000, bin).tolist() == expected


@pytest.mark.parametrize("bin", [0, -0.02, 1e-9, "-1/3"])
def test_a_bin_shorter_than_a_tick_is_refused(bin: float | str) -> None:
    with pytest.raises(UsageError, match="at least one tick"):
        Clock(30_000).edges(0, 5, bin)


@pytest.mark.parametrize(("start", "bins"), [(0, MOST_BINS + 1), (2**62, 5), (0, 10**30), (0, -1)])
def test_more_bins_than_fit_are_refused_before_any_memory_is_taken(start: int, bins: int) -> None:
    with pytest.raises(UsageError, match="shorter window"):
        Clock(30_000).edges(start, bins, 0.02)


@given(
    st.decimals(-100, 100, places=4),
    st.decimals(-100, 100, places=4),
    st.sampled_from(["0.02", "0.001", "1/3", "7"]),
)
def test_bins_are_the_whole_ones_in_the_window(start: object, stop: object, bin: str) -> None:
    length = Fraction(str(stop)) - Fraction(str(start))
    expected = max(0, floor(length / Fraction(bin)))
    assert Clock().bins(str(start), str(stop), bin) == expected


def test_a_window_of_float_seconds_holds_the_bins_a_person_means() -> None:
    assert Clock().bins(0.1, 0.7, 0.02) == 30  # (0.7 - 0.1) / 0.02 is 29.999999999999996
    assert Clock().bins(0.0, 0.3, 0.1) == 3
    assert Clock().bins(1.0, 0.5, 0.1) == 0


@pytest.mark.parametrize("bin", [0, -1])
def test_a_bin_of_no_length_is_refused(bin: float) -> None:
    with pytest.raises(UsageError, match="longer than 0"):
        Clock().bins(0, 1, bin)


# ---- which clock


grid = st.lists(st.integers(-(10**9), 10**9), max_size=20).map(lambda t: np.array(t) / 30_000)


@given(st.lists(grid, max_size=4))
def test_30_khz_is_chosen_where_every_time_of_every_stream_lies_on_it(streams: list) -> None:
    assert choose(streams).rate == 30_000


@given(st.lists(grid, min_size=1, max_size=4), st.integers(0, 10**8), st.floats(0.002, 0.998))
def test_one_time_off_the_grid_is_enough_for_1_us(
    streams: list, tick: int, fraction: float
) -> None:
    streams[-1] = np.append(streams[-1], (tick + fraction) / 30_000)
    assert choose(streams).rate == 1_000_000


def test_30_khz_rounded_to_us_is_1_us() -> None:
    ticks = np.random.default_rng(0).integers(0, 10**8, 1000)
    assert choose([np.round(ticks / 30_000, 6)]).rate == 1_000_000
    assert choose([ticks / 30_000]).rate == 30_000


def test_a_time_counts_as_on_the_grid_up_to_a_thousandth_of_a_tick() -> None:
    near, far = np.array([3 + 0.9 * GRID]) / 30_000, np.array([3 + 1.1 * GRID]) / 30_000
    assert on_grid(near)
    assert not on_grid(far)


def test_times_that_are_missing_do_not_choose_the_clock() -> None:
    assert choose([np.array([np.nan, np.inf, -np.inf, 1e308, 0.5])], "2020-01-01").rate == 30_000
    assert choose([], "2020-01-01") == Clock(30_000, "2020-01-01")


@given(st.sampled_from([Fraction(30_000), Fraction(1_000_000)]), st.lists(seconds, max_size=20))
def test_a_chosen_clock_stays_within_half_a_tick(rate: Fraction, times: list[float]) -> None:
    stream = np.round(np.array(times, dtype=float) * float(rate)) / float(rate)
    clock = choose([stream])
    assert clock.error(stream) <= 0.5 / float(clock.rate) + np.spacing(1e6)


# ---- one time


def exact_tick(clock: Clock, time: float) -> int:
    return round(Fraction(str(time)) * clock.rate)


anyrate = st.fractions(Fraction(1, 10**9), FASTEST, max_denominator=10**9).map(Clock)


@given(clocks | anyrate, seconds)
@example(Clock(1), 0.5)
@example(Clock(1), 0.49999999999999994)
@example(Clock(1), -1.5)
@example(Clock(1), 2.0**50 + 0.5)
@example(Clock(1), -0.0)
@example(Clock(10**9), 5e-324)
def test_the_tick_of_a_float_is_the_exact_product_of_what_is_written(
    clock: Clock, time: float
) -> None:
    assert clock.tick(time) == exact_tick(clock, time)
    assert clock.tick(np.float64(time)) == exact_tick(clock, time)
    assert type(clock.tick(time)) is type(clock.tick(np.float64(time))) is int


@given(clocks | anyrate, st.integers(-(2**51), 2**51), st.integers(-3, 3))
def test_the_tick_of_a_float_next_to_a_half_is_on_its_side_of_it(
    clock: Clock, tick: int, steps: int
) -> None:
    time = float((tick + Fraction(1, 2)) / clock.rate)
    for _ in range(abs(steps)):
        time = float(np.nextafter(time, np.copysign(np.inf, steps)))
    assert clock.tick(time) == exact_tick(clock, time)


@pytest.mark.parametrize("rate", ["1e-320", "1e-400", "3e-308"])
def test_a_rate_that_is_hardly_a_float_counts_exactly(rate: str) -> None:
    clock = Clock(Fraction(rate))
    for time in (1e308, 1.5e308, -1.7976931348623157e308, 0.0):
        assert clock.tick(time) == exact_tick(clock, time)


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_a_float_that_no_clock_counts_is_refused(time: float) -> None:
    with pytest.raises(UsageError):
        Clock(30_000).tick(time)


def test_a_clock_that_has_counted_is_still_equal_and_pickles() -> None:
    clock = Clock(RATES["TDT"], "2020-01-01")
    clock.tick(0.1)
    fresh = Clock(RATES["TDT"], "2020-01-01")
    for one in (pickle.loads(pickle.dumps(clock)), fresh, replace(clock)):
        assert one == clock
        assert hash(one) == hash(clock)
        assert repr(one) == repr(clock)
        assert one.tick(0.1) == clock.tick(0.1)
