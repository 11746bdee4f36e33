"""Splits: blocks, pieces and trials, by what must hold for any of them."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_how_to import code

import neurostore
from neurostore import Split, splits
from neurostore.clocks import Clock
from neurostore.errors import NotFoundError, UsageError
from neurostore.intervals import Intervals
from neurostore.splits import Timeline, TrialRows
from neurostore.store import layout

RATIOS = {"train": 7, "validation": 1, "test": 2}
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}


def pieces(*pairs: tuple[int, int]) -> Intervals:
    return Intervals(np.array([a for a, _ in pairs]), np.array([b for _, b in pairs]))


def timeline(seconds: float = 100, rate: object = 1000, session: str = "d/s", **more) -> Timeline:
    clock = Clock(Fraction(str(rate)))
    origin = more.pop("origin", 0)
    observed = more.pop("observed", pieces((origin, origin + clock.tick(seconds))))
    return Timeline(session, clock, origin, observed, **more)


def trials(count: int, *, every: int = 10, length: int = 8, **columns) -> TrialRows:
    start = np.arange(count, dtype=np.int64) * every
    return TrialRows(start, start + length, np.ones(count, bool), columns)


rates = st.sampled_from(["1000", "30000", "24414.0625", "1/3", "7"])


# ---- interleaved blocks


@given(rates, st.integers(-(10**6), 10**6), st.integers(12, 3000), st.fractions(3, 200), st.data())
def test_block_k_lies_between_exact_edges_counted_from_the_origin(
    rate, origin, length, block, data
):
    clock = Clock(Fraction(rate))
    width = block * clock.rate
    if width < 1 or floor(width) > length:
        return
    rotation = data.draw(st.integers(-12, 12))
    one = timeline(rate=clock.rate, origin=origin, observed=pieces((origin, origin + length)))
    made = splits.interleaved_blocks("b", one, block=block, ratios=RATIOS, rotation=rotation)
    blocks = max(k for k in range(length + 2) if floor(k * width) <= length)
    edges = [origin + floor(k * width) for k in range(blocks + 1)]
    assert made.start.tolist() == edges[:-1]
    assert made.stop.tolist() == edges[1:]
    order = ["train"] * 7 + ["validation"] + ["test"] * 2
    assert made.label.tolist() == [order[(k - rotation) % 10] for k in range(blocks)]


@given(st.integers(10, 90))
@settings(max_examples=40)
def test_five_rotations_make_each_block_test_exactly_once(blocks):
    one = timeline(seconds=blocks)
    tested = Counter[int]()
    for rotation in (0, 2, 4, 6, 8):
        made = splits.interleaved_blocks("b", one, block=1, ratios=RATIOS, rotation=rotation)
        tested.update(made.start[made.label == "test"].tolist())
    assert tested == {1000 * k: 1 for k in range(blocks)}


def test_a_last_block_is_kept_when_it_ends_at_the_last_observed_tick_and_dropped_one_tick_later():
    for ticks, blocks in ((3000, 3), (2999, 2), (3001, 3)):
        made = splits.interleaved_blocks("b", timeline(observed=pieces((0, ticks))), block=1)
        assert len(made) == blocks


def test_the_guard_takes_the_start_of_every_block_and_nothing_else():
    plain = splits.interleaved_blocks("b", timeline(), block=10)
    guarded = splits.interleaved_blocks("b", timeline(), block=10, guard=0.5)
    assert (guarded.start - plain.start).tolist() == [500] * 10
    assert guarded.stop.tolist() == plain.stop.tolist()


def test_a_block_in_a_gap_is_left_out_and_one_with_a_gap_inside_stays_one_row():
    observed = pieces((0, 10_200), (10_400, 25_000), (40_100, 60_000))
    made = splits.interleaved_blocks("b", timeline(observed=observed), block=10, guard=0.1)
    assert made.start.tolist() == [100, 10_100, 20_100, 40_100, 50_100]
    assert made.label.tolist() == ["train"] * 5
    row, start, stop = made.blocks("d/s", "train")
    assert (row[1], start[1], stop[1]) == (1, 10_100, 20_000)


def test_a_block_whose_observed_time_is_all_guard_is_left_out():
    observed = pieces((0, 10_000), (10_000, 10_100), (20_000, 30_000))
    made = splits.interleaved_blocks("b", timeline(observed=observed), block=10, guard=0.1)
    assert made.start.tolist() == [100, 20_100]


def test_every_session_counts_from_its_own_origin_on_its_own_clock():
    two = [timeline(20, 30_000, "d/b", origin=7), timeline(20, 1000, "d/a", origin=-5)]
    made = splits.interleaved_blocks("b", two, block=10)
    assert made.session.tolist() == ["d/a", "d/a", "d/b", "d/b"]
    assert made.start.tolist() == [-5, 9_995, 7, 300_007]
    assert made == splits.interleaved_blocks("b", two[::-1], block="10")
    assert made.definition["sessions"] == {
        "d/a": {"rate": "1000", "origin": -5},
        "d/b": {"rate": "30000", "origin": 7},
    }


BLOCKS_REFUSED = {
    "no block fits": ({"block": 101}, r"No block of 101 s fits into d/s, which holds 100 s"),
    "no length": ({"block": 0}, "longer than 0 s, found 0 s"),
    "guard": ({"block": 10, "guard": 10}, "guard of 10 s leaves nothing of a block, .* 10 s"),
    "negative guard": ({"block": 10, "guard": -1}, "0 s or longer, found -1 s"),
    "no ratios": ({"block": 10, "ratios": {}}, "at least one label .* found {}"),
    "all nothing": ({"block": 10, "ratios": {"train": 0}}, "share above 0, found"),
    "negative": ({"block": 10, "ratios": {"train": -2}}, "ratio of 'train' .* found -2"),
    "parts": ({"block": 10, "ratios": {"train": 0.7, "test": 0.3}}, "'train' .* whole .* 0.7"),
    "a name": ({"block": 10, "ratios": {"a/b": 1}}, "label .* without slashes .* 'a/b'"),
    "a version": ({"block": 10, "ratios": {"v2": 1}}, "label .* no version.* 'v2'"),
}


@pytest.mark.parametrize(("said", "match"), BLOCKS_REFUSED.values(), ids=BLOCKS_REFUSED)
def test_blocks_that_make_no_sense_are_refused_with_what_was_found(said, match):
    with pytest.raises(UsageError, match=match):
        splits.interleaved_blocks("b", timeline(), **said)


def test_no_session_or_one_twice_or_one_unobserved_is_refused():
    for given_, match in (
        ([], "at least one timeline"),
        ([timeline(), timeline()], "d/s is given twice"),
        ([timeline(observed=Intervals())], "d/s has no observed time"),
    ):
        with pytest.raises(UsageError, match=match):
            splits.interleaved_blocks("b", given_, block=1)
    gaps = timeline(observed=pieces((0, 10), (1995, 1999)))
    with pytest.raises(UsageError, match="No block of split 'b' holds observed time"):
        splits.interleaved_blocks("b", gaps, block=1, guard=0.5)


# ---- contiguous pieces


@given(rates, st.integers(-1000, 1000), st.integers(10, 10**6))
def test_contiguous_pieces_divide_the_observed_extent_in_the_order_of_the_ratios(
    rate, start, length
):
    one = timeline(rate=rate, observed=pieces((start, start + length)))
    made = splits.contiguous("c", one, ratios=SHARES)
    assert made.label.tolist() == ["train", "validation", "test"]
    assert made.start[0] == start
    assert made.stop[-1] == start + length
    assert (made.start[1:] == made.stop[:-1]).all()
    wanted = [start + 7 * length // 10, start + 8 * length // 10]
    assert made.stop[:-1].tolist() == wanted


def test_a_contiguous_piece_after_the_first_loses_the_guard():
    made = splits.contiguous("c", timeline(), ratios={"a": 1, "none": 0, "b": 1}, guard=2)
    rows = list(zip(made.start.tolist(), made.stop.tolist(), made.label, strict=True))
    assert rows == [(0, 50_000, "a"), (52_000, 100_000, "b")]
    with pytest.raises(UsageError, match="guard of 10 s leaves nothing of the piece 'validation'"):
        splits.contiguous("c", timeline(), guard=10)


# ---- trials


def by_trial(one: Timeline, fold: int = 0, **more) -> Split:
    return splits.by_trial("t", one, ratios=more.pop("ratios", SHARES), fold=fold, **more)


@given(st.integers(5, 60), st.integers(0, 3), st.integers(1, 4))
@settings(max_examples=40)
def test_over_the_folds_each_trial_is_test_once_and_strata_are_spread_evenly(count, seed, kinds):
    kind = np.arange(count) * 7 % kinds
    one = timeline(trials=trials(count, kind=kind))
    tested = Counter[int]()
    for fold in range(5):
        made = by_trial(one, fold, seed=seed, stratify=["kind"])
        assert made.start.tolist() == [10 * k for k in range(count)]
        test = made.label == "test"
        tested.update(made.start[test].tolist())
        assert abs(test.sum() - count / 5) < 1
        assert abs((made.label == "validation").sum() - (~test).sum() / 8) < 1
        for one_kind in range(kinds):
            mine = kind == one_kind
            assert abs(test[mine].sum() - mine.sum() / 5) < 1
    assert tested == {10 * k: 1 for k in range(count)}


def test_trials_are_cut_to_observed_time_and_left_out_without():
    rows = trials(6)
    rows.valid[5] = False
    observed = pieces((0, 15), (17, 24), (30, 32), (34, 36), (48, 90))
    made = by_trial(timeline(observed=observed, trials=rows), folds=2, ratios={"a": 1, "test": 1})
    extents = list(zip(made.start.tolist(), made.stop.tolist(), strict=True))
    assert extents == [(0, 8), (10, 18), (20, 24), (30, 36)]


def test_another_seed_deals_otherwise_and_other_sessions_change_nothing():
    one = timeline(trials=trials(40))
    other = timeline(session="d/t", trials=trials(40))
    assert by_trial(one).label.tolist() != by_trial(one, seed=1).label.tolist()
    both = splits.by_trial("t", [other, one], ratios=SHARES)
    alone = by_trial(one)
    assert both.label[both.session == "d/s"].tolist() == alone.label.tolist()
    assert both.label[both.session == "d/t"].tolist() != alone.label.tolist()


def overlapping() -> TrialRows:
    rows = trials(10)
    rows.stop[3] = 45
    return rows


TRIALS_REFUSED = {
    "none": ({}, None, r"d/s has no trials: session.timeline\(trials='trials'\)"),
    "not one": ({}, trials(0), "of 0 trials 0 are valid"),
    "overlap": (
        {},
        overlapping(),
        r"trial 3 \[0.03, 0.045\) s and trial 4 \[0.04, 0.048\) s, 1 pair in",
    ),
    "column": ({"stratify": ["kin"]}, trials(5, kind=np.zeros(5)), "Did you mean 'kind'"),
    "fold": ({"fold": 5}, trials(5), "0 to folds - 1, found fold 5 of 5"),
    "folds": ({"folds": 10}, trials(5), "1/10 of the trials test, the ratios say 1/5. .*folds=5"),
    "test": ({"ratios": {"tst": 1, "a": 4}}, trials(5), "No label 'test'.* mean 'tst'"),
    "seed": ({"seed": -1}, trials(5), "0 or more, found -1"),
}


@pytest.mark.parametrize(("said", "rows", "match"), TRIALS_REFUSED.values(), ids=TRIALS_REFUSED)
def test_trials_that_cannot_be_split_are_refused_with_what_was_found(said, rows, match):
    with pytest.raises(UsageError, match=match):
        by_trial(timeline(trials=rows), **said)


def test_columns_of_trials_of_another_length_are_refused():
    with pytest.raises(UsageError, match="one length, found start 3, stop 3, valid 3, kind 2"):
        trials(3, kind=np.zeros(2))


# ---- a split


def whole() -> Split:
    two = [timeline(45, session="d/b"), timeline(100, session="d/a")]
    return splits.interleaved_blocks("blocks", two, block=10)


def test_a_row_that_overlaps_another_of_its_session_is_refused_naming_both():
    def made(start: list[int], stop: list[int], session: list[str]) -> Split:
        label = np.array(["train", "test"])
        return Split("s", {}, np.array(session), np.array(start), np.array(stop), label)

    with pytest.raises(UsageError) as caught:
        made([5, 0], [9, 6], ["d/s", "d/s"])
    assert "Row 0 of split 's' (test, [0, 6) ticks of d/s) and Row 1" in str(caught.value)
    assert "(train, [5, 9) ticks of d/s) overlap" in str(caught.value)
    assert len(made([5, 0], [9, 6], ["d/s", "d/t"])) == 2
    assert len(made([6, 0], [9, 6], ["d/s", "d/s"])) == 2
    with pytest.raises(UsageError, match=r"Row 0 .* is empty"):
        made([5, 9], [5, 12], ["d/s", "d/s"])
    with pytest.raises(UsageError, match="one length, found"):
        made([5], [6], ["d/s", "d/s"])
    with pytest.raises(UsageError, match="integer ticks, found float64"):
        made([0.5, 2], [1, 3], ["d/s", "d/s"])


def test_rows_that_touch_stay_apart_as_blocks_and_join_as_intervals():
    split = whole()
    row, start, stop = split.blocks("d/a", "train")
    assert row.tolist() == list(range(7))
    assert start.tolist() == list(range(0, 70_000, 10_000))
    assert stop.tolist() == list(range(10_000, 80_000, 10_000))
    assert split.intervals("d/a", "train") == pieces((0, 70_000))
    assert split.blocks("d/b")[0].tolist() == [10, 11, 12, 13]
    part = split["test"]
    assert (part.name, part.digest, part.sessions) == ("blocks/test", split.digest, ("d/a",))
    assert part.blocks("d/a")[0].tolist() == [8, 9]
    assert part.intervals("d/a") == pieces((80_000, 100_000))
    assert not len(part.intervals("d/b"))


def test_an_unknown_label_or_session_is_answered_with_the_nearest():
    split = whole()
    for use in (lambda: split["trian"], lambda: splits.Part(split, "trian")):
        with pytest.raises(NotFoundError, match=r"'trian' in split 'blocks'\. .* 'train'"):
            use()
    with pytest.raises(NotFoundError, match="Did you mean 'd/b'"):
        split.blocks("d/bb")
    with pytest.raises(NotFoundError, match="No session 'x/y'"):
        split.only(["d/a", "x/y"])


def test_only_some_sessions_are_another_split_that_says_so():
    split = whole()
    made = split.only("d/b")
    assert made.sessions == ("d/b",)
    assert made.blocks("d/b")[1].tolist() == split.blocks("d/b")[1].tolist()
    assert made.definition["only"] == ["d/b"]
    assert made.digest != split.digest


def test_a_split_comes_back_from_json_and_pickle_equal_and_a_changed_one_is_refused():
    split = by_trial(timeline(trials=trials(20)), stratify=())
    said = json.loads(json.dumps(split.to_json()))
    for back in (Split.from_json(said), pickle.loads(pickle.dumps(split))):
        assert back == split
        assert hash(back) == hash(split)
        assert back.labels == ("train", "validation", "test")
    said["rows"][0][1] += 1
    with pytest.raises(UsageError, match="it was changed"):
        Split.from_json(said)
    with pytest.raises(UsageError, match=r"no split as Split\.to_json gives it"):
        Split.from_json({"name": "x"})
    with pytest.raises(UsageError, match="is no JSON"):
        Split("x", {"at": float("nan")}, split.session, split.start, split.stop, split.label)


@given(st.integers(0, 9), st.integers(10, 20))
@settings(max_examples=20)
def test_any_row_or_setting_that_differs_is_another_digest(rotation, block):
    one = timeline(300)
    made = [
        splits.interleaved_blocks("a", one, block=block, rotation=rotation),
        splits.interleaved_blocks("a", one, block=block, rotation=rotation + 10),
        splits.interleaved_blocks("a", one, block=block, rotation=rotation + 1),
        splits.interleaved_blocks("a", one, block=block, rotation=rotation, guard=0.001),
        splits.contiguous("a", one),
    ]
    assert len({split.digest for split in made}) == len(made)
    assert (
        made[0].digest
        == splits.interleaved_blocks(
            "other", one, block=float(block), rotation=rotation, guard=0
        ).digest
    )


def test_the_rows_of_a_split_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        whole().start[0] = 3


def test_people_read_rows_and_seconds_of_every_label():
    lines = repr(whole()).splitlines()
    assert re.match(r"<Split blocks: 14 rows of 2 sessions, digest [0-9a-f]{12}>", lines[0])
    assert "interleaved_blocks  block 10, ratios train 7 : validation 1 : test 2" in lines[1]
    assert [line.split() for line in lines[2:]] == [
        ["train", "11", "rows", "110.0", "s"],
        ["validation", "1", "row", "10.0", "s"],
        ["test", "2", "rows", "20.0", "s"],
    ]
    hand = Split("h", {}, ["d/s"], np.array([0]), np.array([5000]), ["train"])
    assert repr(hand).endswith("1 row  5,000 ticks")
    assert repr(whole()["test"]) == "<Part blocks/test: 2 rows, 20.0 s>"


def test_the_same_arguments_give_the_same_split_in_another_process():
    program = (
        "from test_splits import *\n"
        "one = timeline(trials=trials(50, kind=np.arange(50) % 3))\n"
        "print(by_trial(one, 2, stratify=['kind']).digest, whole().digest)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7"},
    )
    one = timeline(trials=trials(50, kind=np.arange(50) % 3))
    assert done.stdout.split() == [by_trial(one, 2, stratify=["kind"]).digest, whole().digest]
    assert done.stdout.split() == KNOWN


KNOWN = [
    "9f610914548181987f497045889a18379927f8cd9eea59ebe4f332908418656e",
    "158292eb9bf20dc003798a26f7e886b291fccf511fbf1725191efc54c785da11",
]


# ---- timelines of sessions


def recorded(**spikes: list[float]) -> neurostore.SessionBuilder:
    made = neurostore.SessionBuilder(dataset="d", session="s", rate=1000)
    if spikes:
        made.add_units(spikes)
    made.add_behaviour("wheel", np.ones(200), start=1, rate=10, units="m")
    made.add_intervals("trials", [2, 4, 6], [3, 5, float("nan")], kind=["a", "b", "a"])
    return made


def stored(name: str, made: neurostore.SessionBuilder) -> neurostore.Session:
    store = neurostore.create(f"memory://splits-{name}")
    with store.transaction("one") as tx:
        tx.put(made)
    return store.session("d/s")


def test_a_timeline_begins_at_the_first_spike_of_the_units_and_ends_after_their_last():
    made = recorded(a=[0.5, 9.0], b=[3.0, 4.25], c=[])
    made.add_observed([0, 5], [4, 30])
    session = stored("units", made)
    for units, origin, observed in (
        (None, 500, pieces((500, 4000), (5000, 9001))),
        (["b"], 3000, pieces((3000, 4000))),
        (["b", "c"], 3000, pieces((3000, 4000))),
        (["a", "b"], 500, pieces((500, 4000), (5000, 9001))),
    ):
        found = session.timeline(units)
        assert (found.session, found.clock.rate, found.origin) == ("d/s", 1000, origin)
        assert found.observed == observed
        assert found.trials is None
    with pytest.raises(UsageError, match="No spike of d/s is of the 1 unit chosen"):
        session.timeline(["c"])
    with pytest.raises(NotFoundError, match="No unit 'bb' in d/s"):
        session.timeline(["bb"])
    assert session.slice(2, 4).timeline().origin == 3000


def test_the_first_and_last_spike_of_a_unit_are_found_in_whatever_chunk_they_lie(monkeypatch):
    times = np.arange(1, 41) / 2
    units = {
        "a": times[:37:3],
        "b": times[13:14],
        "c": times[[k % 3 > 0 and k != 13 for k in range(40)]],
    }
    session = stored("chunks", recorded(**{name: list(each) for name, each in units.items()}))
    monkeypatch.setattr(layout, "CHUNK", 4)
    for name, each in units.items():
        one = session.timeline([name])
        assert (one.origin, one.stop) == (1000 * each[0], 1000 * each[-1] + 1)


def test_a_session_without_spikes_is_taken_whole():
    found = stored("no-spikes", recorded()).timeline()
    assert (found.origin, found.stop) == (1000, 20_901)
    silent = stored("silent", recorded(a=[], b=[])).timeline()
    assert (silent.origin, silent.observed) == (1000, pieces((1000, 20_901)))
    assert stored("silent too", recorded(a=[])).timeline(["a"]).stop == 20_901
    empty = neurostore.SessionBuilder(dataset="d", session="s", rate=1000)
    empty.add_units({"a": []})
    with pytest.raises(UsageError, match="d/s holds no times"):
        stored("empty", empty).timeline()


def test_a_timeline_carries_the_ticks_and_columns_of_its_trials():
    session = stored("trials", recorded(a=[0.5, 9.0]))
    rows = session.timeline(trials="trials").trials
    assert rows.start.tolist() == [2000, 4000, 6000]
    assert rows.stop[:2].tolist() == [3000, 5000]
    assert rows.valid.tolist() == [True, True, False]
    assert rows.columns["kind"].tolist() == ["a", "b", "a"]
    with pytest.raises(NotFoundError, match=r"No intervals 'trial' in d/s\. Did you mean 'trials'"):
        session.timeline(trials="trial")


@pytest.mark.realdata
def test_the_w_maze_has_71_blocks_of_which_five_rotations_test_each_once(data):
    folder = data("hippocampus_nelpy") / "w-maze"
    session = code("your-own-format.md")["keep"]("memory://splits-w-maze", folder)
    units = session.store.units("rate_hz < 50")["unit"].tolist()
    assert len(units) == 24
    one = session.timeline(units)
    assert one.origin / 30_000 == pytest.approx(64.4427, abs=1e-9)
    made = [
        splits.interleaved_blocks("blocks", one, block=60, ratios=RATIOS, guard=1, rotation=turn)
        for turn in (0, 2, 4, 6, 8)
    ]
    assert [len(split) for split in made] == [71] * 5
    assert len({tuple(split.start.tolist()) for split in made}) == 1
    tested = np.concatenate([split["test"].blocks(session.id)[0] for split in made])
    assert sorted(tested.tolist()) == list(range(71))
    assert made[0].start[0] == one.origin + 30_000
    assert (np.diff(made[0].start) == 60 * 30_000).all()
    assert made[0].digest == W_MAZE


W_MAZE = "df78ec5d16a06ff721dc47b4137a3470e0b1fd3c51d822c7dd4092015d5ed7e5"


def test_a_trial_that_begins_or_ends_in_silence_keeps_it():
    store = neurostore.create("memory://silent-ends")
    made = neurostore.SessionBuilder(dataset="d", session="s")
    made.add_units({"u": np.arange(1.3, 9.5, 0.1)})
    made.add_intervals("trials", np.arange(1.0, 9.0), np.arange(2.0, 10.0))
    made.add_observed([1.0], [10.0])
    with store.transaction("trials") as tx:
        tx.put(made)
    timeline = store.session("d/s").timeline(trials="trials")
    split = splits.by_trial("folds", [timeline], ratios={"train": 0.75, "test": 0.25}, folds=4)
    _, start, stop = split.blocks("d/s")
    assert set((stop - start) / float(timeline.clock.rate)) == {1.0}
