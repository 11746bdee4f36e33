"""Which windows there are and in which order, against enumeration."""

import time
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurostore.clocks import Clock
from neurostore.errors import UsageError
from neurostore.sample.plan import Plan, Runs, Window, join, lay, permuted, steps


def int64(values: object) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def enumerated(first: int, stop: int, length: int, step: Fraction) -> list[int]:
    """Starts of windows one after the other, until one does not fit."""
    starts: list[int] = []
    while first + floor(len(starts) * step) + length <= stop:
        starts.append(first + floor(len(starts) * step))
    return starts


# ---- windows


strides = st.fractions(min_value=1, max_value=40, max_denominator=64)
pieces = st.lists(st.tuples(st.integers(-300, 300), st.integers(0, 200)), max_size=6)


@settings(max_examples=300, deadline=None)
@given(pieces, st.integers(1, 60), strides)
def test_the_count_in_closed_form_is_that_of_windows_laid_one_after_the_other(
    pieces: list[tuple[int, int]], length: int, step: Fraction
) -> None:
    first = int64([low for low, _ in pieces])
    stop = int64([low + long for low, long in pieces])
    runs = lay(first, stop, 7, length, step)
    expected = [enumerated(low, low + long, length, step) for low, long in pieces]
    starts, block = runs.starts()
    assert runs.count.tolist() == [len(one) for one in expected if one]
    assert starts.tolist() == [start for one in expected for start in one]
    assert block.tolist() == [7] * len(starts)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(-500, 500), st.integers(0, 9)), max_size=5), max_size=4)
)
def test_a_plan_numbers_every_window_of_every_run_once_and_in_order(
    sessions: list[list[tuple[int, int]]],
) -> None:
    step = Fraction(7, 3)
    runs, expected = [], []
    for number, session in enumerate(sessions):
        start, count = int64([s for s, _ in session]), int64([n for _, n in session])
        runs.append(Runs(start, count, np.arange(len(start)), step))
        for block, (first, many) in enumerate(session):
            expected += [(number, first + floor(k * step), block) for k in range(many)]
    plan = Plan(runs)
    assert len(plan) == len(expected) == sum(plan.by_session())
    found = plan.address(np.arange(len(plan)))
    columns = (found.session.tolist(), found.start.tolist(), found.block.tolist())
    assert list(zip(*columns, strict=True)) == expected
    backwards = plan.address(np.arange(len(plan))[::-1].copy())
    assert backwards.start.tolist() == [start for _, start, _ in reversed(expected)]


def test_starts_are_exact_where_the_stride_times_the_number_leaves_int64() -> None:
    step = Fraction(10**9 + 7, 10**9 + 9) * 30_000
    nth = int64([0, 1, 10**7, 10**9, 2 * 10**9])
    assert steps(nth, step).tolist() == [floor(int(n) * step) for n in nth]


def test_no_run_at_all_is_an_empty_plan() -> None:
    assert len(Plan([])) == 0
    assert len(Plan([join([], Fraction(1))])) == 0


def test_the_digest_of_a_plan_changes_with_every_part_of_it() -> None:
    def digest(start: int = 0, count: int = 5, block: int = 1, step: int = 3) -> str:
        return Plan([Runs(int64([start]), int64([count]), int64([block]), Fraction(step))]).digest

    changed = [digest(), digest(start=1), digest(count=6), digest(block=2), digest(step=4)]
    assert len(set(changed)) == len(changed)
    assert digest() == digest()


# ---- the window itself


@pytest.mark.parametrize("rate", ["30000", "1000000", "24414.0625"])
def test_the_present_and_the_stop_are_whole_ticks_below_the_exact_time(rate: str) -> None:
    clock = Clock(rate)
    for history, horizon in ((1.0, 0.5), (0.1, 0.7), (0.0, 1e-3), (2.5, 0.0)):
        present, stop = Window(history, horizon).ticks(clock)
        past, length = Fraction(str(history)), Fraction(str(history)) + Fraction(str(horizon))
        assert (present, stop) == (floor(past * clock.rate), floor(length * clock.rate))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"history": -1.0}, "history"),
        ({"history": 1.0, "horizon": -0.1}, "horizon"),
        ({"history": 0.0}, "needs a history or a horizon"),
        ({"history": 1.0, "stride": 0.0}, "stride"),
        ({"history": 1.0, "stride": -1.0}, "stride"),
        ({"history": 1.0, "before": 1.0, "after": 2.0}, "around"),
        ({"history": 1.0, "where": "choice = 1"}, "around"),
        ({"history": 1.0, "around": "trials"}, "trials.stim_on_time"),
        ({"history": 1.0, "around": "trials.start", "before": 2.0}, "go together"),
        ({"history": 3.0, "around": "trials.start", "before": 1.0, "after": 1.5}, "2.5 s.*3 s"),
        ({"history": 3.0, "around": "trials.start", "stride": 1.0}, "before"),
        ({"history": float("nan")}, "finite"),
        ({"history": "a"}, "finite"),
    ],
)
def test_a_window_that_makes_no_sense_is_one_clear_error(arguments: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        Window(**arguments)
    assert "\n" not in str(caught.value)


def test_a_window_says_what_it_is() -> None:
    assert str(Window(1.0, 0.5)) == "1.5 s (1 s history + 0.5 s horizon) every 0.5 s"
    assert "around trials.start" in str(Window(1.0, 0.5, around="trials.start"))
    wide = Window(1.0, 0.5, 0.1, around="trials.start", before=2, after=3)
    assert str(wide).endswith("every 0.1 s from 2 s before to 3 s after trials.start")
    assert str(Window("1/3", "1/6")).startswith("0.5 s (0.333333 s history + 0.166667 s horizon)")


# ---- order


def test_every_epoch_of_1_to_300_windows_holds_each_once() -> None:
    for n in range(1, 301):
        for seed, epoch in ((0, 0), (n, 3)):
            found = permuted(np.arange(n), n, seed, epoch)
            assert sorted(found.tolist()) == list(range(n))


@pytest.mark.parametrize("n", [10**6 + 3, 2**32, 2**33 + 1, 10**15])
def test_places_of_a_long_epoch_hold_different_windows_in_range(n: int) -> None:
    rng = np.random.default_rng(1)
    places = np.unique(rng.integers(0, n, 20_000))
    found = permuted(places, n, 5, 6)
    assert 0 <= found.min() <= found.max() < n
    assert len(np.unique(found)) == len(places)
    assert permuted(places[:7], n, 5, 6).tolist() == found[:7].tolist()


def test_a_whole_epoch_of_100_003_windows_is_a_permutation_whatever_the_pieces() -> None:
    n = 100_003
    pieces = [permuted(np.arange(k, min(k + 4_096, n)), n, 2, 1) for k in range(0, n, 4_096)]
    found = np.concatenate(pieces)
    assert (np.sort(found) == np.arange(n)).all()
    assert (found == permuted(np.arange(n), n, 2, 1)).all()


def test_the_order_differs_by_seed_and_by_epoch() -> None:
    orders = {
        tuple(permuted(np.arange(50), 50, seed, epoch)) for seed in range(8) for epoch in range(8)
    }
    assert len(orders) == 64


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 12, 100, 1_000])
def test_every_window_comes_at_every_place_equally_often(n: int) -> None:
    """Chi square of (place, window); below mean + 6 standard deviations of its distribution."""
    bins, seeds = min(n, 10), 1_500
    places = np.linspace(0, n - 1, bins).astype(np.int64)
    count = np.zeros((bins, bins))
    for seed in range(seeds):
        found = permuted(places, n, seed, 0) * bins // n
        count[np.arange(bins), found] += 1
    sizes = np.bincount(np.arange(n) * bins // n, minlength=bins) / n
    expected = np.broadcast_to(seeds * sizes, count.shape)
    square, degrees = ((count - expected) ** 2 / expected).sum(), bins * (bins - 1)
    assert square < degrees + 6 * np.sqrt(2 * degrees)


def test_all_orders_of_four_windows_come_about_equally_often() -> None:
    orders = [tuple(permuted(np.arange(4), 4, seed, 0).tolist()) for seed in range(4_800)]
    _, count = np.unique(orders, axis=0, return_counts=True)
    assert len(count) == 24
    assert ((count - 200) ** 2 / 200).sum() < 23 + 6 * np.sqrt(2 * 23)


def test_neighbours_of_an_epoch_are_no_neighbours_of_the_plan() -> None:
    n = 50_000
    found = permuted(np.arange(n), n, 3, 0)
    near = np.abs(np.diff(found)) < 100
    assert near.mean() < 3 * 200 / n
    assert abs(np.corrcoef(np.arange(n), found)[0, 1]) < 0.03


def test_a_billion_windows_start_at_once_without_being_laid_out() -> None:
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        runs = [lay(int64([0]), int64([5 * 10**8 + 99]), -1, 100, Fraction(1)) for _ in range(2)]
        plan = Plan(runs)
        places = np.arange(999_999_000, 999_999_512)
        found = plan.address(plan.order(places, 1, 1))
        took.append(time.perf_counter() - begun)
        assert len(plan) == 10**9
        assert len(found.start) == 512
    assert min(took) < 0.05
