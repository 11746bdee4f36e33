"""Intervals against a slow set of ticks."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostore.errors import UsageError
from neurostore.intervals import Intervals

LOW, HIGH = -30, 40
tick = st.integers(LOW, HIGH)
rows = st.lists(st.tuples(tick, st.integers(0, 12)), max_size=8)


def made(pairs: list[tuple[int, int]]) -> Intervals:
    """Intervals of (start, length)."""
    start = np.array([start for start, _ in pairs], dtype=np.int64)
    length = np.array([length for _, length in pairs], dtype=np.int64)
    return Intervals(start, start + length)


def slow(pairs: list[tuple[int, int]]) -> set[int]:
    return {tick for start, length in pairs for tick in range(start, start + length)}


def ticks(intervals: Intervals) -> set[int]:
    """The ticks inside; fails where the invariants do not hold."""
    assert (intervals.start < intervals.stop).all()
    assert (intervals.stop[:-1] < intervals.start[1:]).all(), "sorted, apart, never touching"
    assert intervals.start.dtype == intervals.stop.dtype == np.int64
    found = {tick for start, stop in intervals for tick in range(start, stop)}
    assert intervals.length == len(found)
    return found


@given(rows)
def test_rows_in_any_order_are_the_set_of_their_ticks_in_the_fewest_pieces(pairs) -> None:
    wanted = slow(pairs)
    found = made(pairs)
    assert ticks(found) == wanted
    gaps = sum(after - before > 1 for before, after in pairwise(sorted(wanted)))
    assert len(found) == (gaps + 1 if wanted else 0)


@given(rows, rows)
def test_and_or_minus_are_those_of_sets(one, other) -> None:
    a, b = made(one), made(other)
    assert ticks(a & b) == slow(one) & slow(other)
    assert ticks(a | b) == slow(one) | slow(other)
    assert ticks(a - b) == slow(one) - slow(other)


@given(rows, rows, rows)
def test_what_is_taken_out_and_put_back_is_all_again(one, other, third) -> None:
    a, b, c = made(one), made(other), made(third)
    assert (a - b) | (a & b) == a
    assert not len((a - b) & b)
    assert a & (b | c) == (a & b) | (a & c)


@given(rows, st.integers(0, 9), st.integers(0, 9))
def test_dilation_adds_ticks_before_and_after_each(pairs, before, after) -> None:
    wanted = {t + d for t in slow(pairs) for d in range(-before, after + 1)}
    assert ticks(made(pairs).dilate(before, after)) == wanted
    assert made(pairs).dilate(before) == made(pairs).dilate(before, before)


@given(rows, st.integers(0, 9), st.integers(0, 9))
def test_negative_dilation_keeps_what_is_far_enough_from_both_ends(pairs, before, after) -> None:
    inside = slow(pairs)
    wanted = {t for t in inside if all(t + d in inside for d in range(-before, after + 1))}
    assert ticks(made(pairs).dilate(-before, -after)) == wanted


@given(rows, tick, tick)
def test_between_is_what_lies_in_the_window(pairs, start, stop) -> None:
    start, stop = min(start, stop), max(start, stop)
    assert ticks(made(pairs).between(start, stop)) == slow(pairs) & set(range(start, stop))


@given(rows)
def test_contains_says_of_every_tick_whether_it_is_inside_in_the_shape_given(pairs) -> None:
    every = np.arange(LOW - 2, HIGH + 14).reshape(2, -1)
    found = made(pairs).contains(every)
    assert found.shape == every.shape
    assert set(every[found].tolist()) == slow(pairs)


@given(rows, st.lists(st.tuples(tick, st.integers(1, 15)), min_size=1, max_size=6))
def test_covers_says_whether_every_tick_of_a_window_is_inside(pairs, windows) -> None:
    start = np.array([start for start, _ in windows])
    stop = start + [length for _, length in windows]
    wanted = [set(range(a, b)) <= slow(pairs) for a, b in zip(start, stop, strict=True)]
    assert made(pairs).covers(start, stop).tolist() == wanted


def test_covers_takes_starts_and_stops_of_one_common_shape() -> None:
    window = made([(0, 10)]).covers(np.array([[0], [5]]), np.array([5, 10, 11]))
    assert window.tolist() == [[True, True, False], [True, True, False]]
    assert not made([]).covers(np.zeros((2, 3)), 1).any()


@given(rows, rows)
def test_equal_sets_and_only_those_have_one_digest_and_hash(one, other) -> None:
    same = slow(one) == slow(other)
    assert (made(one) == made(other)) is same
    assert (made(one).digest == made(other).digest) is same
    assert made(one).digest == made(one[::-1]).digest
    if same:
        assert len({made(one), made(other)}) == 1


def test_the_digest_is_that_of_the_bytes_it_says() -> None:
    said = hashlib.sha256(np.array([-3, 7, 1, 9], dtype="<i8").tobytes()).hexdigest()
    assert made([(7, 2), (-3, 4)]).digest == said
    assert made([]) != "no intervals"


def test_a_row_that_stops_before_it_starts_is_named() -> None:
    with pytest.raises(UsageError, match="Interval 1 stops at 4, before its start 5"):
        Intervals(np.array([0, 5]), np.array([1, 4]))


@pytest.mark.parametrize(
    ("start", "stop", "said"),
    [
        ([0, 1], [2], "as many stops as starts: 1, 2"),
        ([0.5], [2], r"start must be \(interval,\) integers, found float64"),
        ([0], [[2]], r"stop must be .* of shape \(1, 1\)"),
        (["a"], [2], "start must be"),
    ],
)
def test_what_is_no_list_of_ticks_is_refused(start, stop, said) -> None:
    with pytest.raises(UsageError, match=said):
        Intervals(np.array(start), np.array(stop))


def test_no_rows_are_no_ticks_and_people_read_how_many_there_are() -> None:
    assert ticks(Intervals()) == set()
    assert repr(made([(0, 5), (10, 1000)])) == "<Intervals: 2 with 1,005 ticks>"
    assert list(made([(10, 2), (0, 5)])) == [(0, 5), (10, 12)]
