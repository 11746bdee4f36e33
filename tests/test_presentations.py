"""Presentations in windows, against plain loops over rows with integers and fractions."""

from __future__ import annotations

import itertools
import pickle
import random
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch

import neurostore
from neurostore import tables
from neurostore.clocks import MISSING, Clock
from neurostore.errors import DamagedError, NotFoundError, RefusedError, UsageError
from neurostore.sample import Dataset, Presentation, Reason, Spikes, Window
from neurostore.schemas import Column, Table
from neurostore.store import Stimulus, Transaction

OBSERVED, NOT_RECORDED, OUTSIDE, INVALID, BLANK = 0, 1, 3, 4, 6
CLOCKS = ("30000", "1000000", "24414.0625")
FRAMES = 40
RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (FRAMES, 3, 5)).astype(np.uint8)
CLIP = RNG.normal(size=(FRAMES, 8)).astype(np.float16)
NUMBERS = itertools.count()

Row = tuple[int | None, int | None, int]
"""Start and stop in ticks, None where missing, and the row of the stimulus."""


@dataclass
class Shown:
    """Presentations of a session in plain lists."""

    id: str
    rate: str
    rows: list[Row] | None = field(default_factory=list)
    stimulus: str = "movie"
    extent: tuple[int, int] = (-3, 12)

    @property
    def hertz(self) -> Fraction:
        return Fraction(self.rate)

    def builder(self) -> neurostore.SessionBuilder:
        dataset, _, name = self.id.partition("/")
        made = neurostore.SessionBuilder(dataset=dataset, session=name, rate=self.rate)
        made.add_units({"u": np.linspace(*self.extent, 50)})
        made.add_observed([self.extent[0]], [self.extent[1]])
        if self.rows is not None:
            start, stop, row = zip(*self.rows, strict=True)
            seconds = [
                np.array([np.nan if t is None else float(t / self.hertz) for t in ticks])
                for ticks in (start, stop)
            ]
            made.add_presentations("movie", *seconds, row, stimulus=self.stimulus)
        return made


def random_rows(rng: random.Random, hertz: Fraction, over: bool = True) -> list[Row]:
    """Frames at a rate that no bin divides, with gaps, blanks, overlaps and missing ends."""
    rows: list[Row] = []
    tick = floor(-2 * hertz)
    while tick < 10 * hertz:
        length = rng.randrange(1, floor(hertz / 4))
        start: int | None = tick
        stop: int | None = tick + length
        kind = rng.random()
        if kind < 0.08:
            stop = None
        elif kind < 0.12:
            start = None
        rows.append((start, stop, rng.choice([-1] * 6 + [*range(FRAMES)])))
        tick += length
        if rng.random() < 0.15:
            tick += rng.randrange(1, floor(hertz / 3))  # a gap
        if over and rng.random() < 0.15:
            tick -= rng.randrange(1, floor(hertz / 3))  # over the one before
        if rng.random() < 0.05:
            rows.append((tick, tick, 3))  # shown for no time
    rng.shuffle(rows)
    return rows


def store_of(*shown: Shown, stimuli=None) -> neurostore.Store:
    store = neurostore.create(f"memory://presentations-{next(NUMBERS)}")
    made = Stimulus("movie", PICTURES, embeddings={"clip": CLIP})
    with store.transaction("presentations") as tx:
        for one in [made] if stimuli is None else stimuli:
            tx.put(one)
        for one in shown:
            tx.put(one.builder())
    return store


# ---- the reference


def on_screen(rows: list[Row] | None, at: Fraction) -> tuple[int, int]:
    """The row of the stimulus on the screen at an exact time in ticks, and why there is none."""
    if rows is None:
        return 0, NOT_RECORDED
    best, last = None, None
    for start, stop, row in rows:
        if start is None or start > at:
            continue
        if last is None or start >= last[0]:
            last = (start, stop)
        if stop is not None and at < stop and (best is None or start >= best[0]):
            best = (start, row)
    if best is not None:
        return (best[1], OBSERVED) if best[1] >= 0 else (0, BLANK)
    return 0, INVALID if last is not None and last[1] is None else OUTSIDE


def expected(
    shown: Shown, start: int, bin: Fraction, bins: int, lag: Fraction = Fraction(0)
) -> tuple[list[int], list[int]]:
    """Rows and reasons (bin) of one window."""
    ticks = [start + floor(k * bin * shown.hertz) for k in range(bins)]
    found = [on_screen(shown.rows, tick - lag * shown.hertz) for tick in ticks]
    return [row for row, _ in found], [why for _, why in found]


def sessions(seed: int) -> list[Shown]:
    rng = random.Random(seed)
    made = [
        Shown(f"demo/{name}", rate, random_rows(rng, Fraction(rate)))
        for name, rate in zip("abc", CLOCKS, strict=True)
    ]
    apart = Shown("demo/apart", CLOCKS[2], random_rows(rng, Fraction(CLOCKS[2]), over=False))
    return [*made, apart, Shown("demo/none", "30000", None)]


def dataset(store, *, window=None, **streams) -> Dataset:
    window = window or Window(history=0.6, horizon=0.3, stride=0.17)
    return Dataset(store, window=window, streams=streams)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("lag", [0, "0.1", "1/7", 2.5])
def test_numbers_frames_and_embeddings_are_those_of_a_slow_reference(seed, lag):
    shown = sessions(seed)
    made = dataset(
        store_of(*shown),
        number=Presentation("movie", bin="1/30", lag=lag),
        picture=Presentation("movie", "stimulus", rate=10, lag=lag),
        clip=Presentation("movie", "clip", bin=0.02, lag=lag),
    )
    by_id = {one.id: one for one in shown}
    batch = made.sample(45, seed=seed)
    assert set(batch.session) == set(by_id)
    seen = set()
    for name, bin, bins, table in (
        ("number", Fraction(1, 30), 27, np.arange(FRAMES)),
        ("picture", Fraction(1, 10), 9, PICTURES),
        ("clip", Fraction(1, 50), 45, CLIP.astype(np.float32)),
    ):
        assert made.steps(name) == (bins * 2 // 3, bins // 3)
        for k, id in enumerate(batch.session):
            start = int(batch.tick[k])
            rows, why = expected(by_id[id], start, bin, bins, Fraction(lag))
            assert batch.reason[name][k].tolist() == why, (name, id, start)
            there = np.array(why) == OBSERVED
            values = table[rows] * there.reshape(-1, *[1] * (table.ndim - 1))
            np.testing.assert_array_equal(batch[name][k].numpy(), values)
            seen |= set(why)
    assert seen == {OBSERVED, NOT_RECORDED, OUTSIDE, INVALID, BLANK}
    assert (batch["number"].dtype, batch["picture"].dtype) == (torch.int64, torch.uint8)
    assert batch["clip"].dtype == torch.float32


@pytest.mark.parametrize("rate", CLOCKS)
def test_windows_past_the_ends_and_before_zero_are_right(rate):
    (shown, *_) = [one for one in sessions(7) if one.rate == rate]
    made = dataset(store_of(shown), number=Presentation("movie", bin=0.1))
    for start in (-100, -3, -2.05, -0.3, 0, 9.7, 11, 40, 1e5):
        batch = made.window(shown.id, start)
        rows, why = expected(shown, int(batch.tick[0]), Fraction(1, 10), 9)
        assert batch["number"][0].tolist() == rows
        assert batch.reason["number"][0].tolist() == why


@pytest.mark.parametrize("rate", CLOCKS)
def test_the_first_tick_of_a_presentation_shows_it_and_its_stop_does_not(rate):
    shown = Shown("d/s", rate, [(10, 11, 1), (11, 30, 2), (40, 50, 3), (60, 90, -1)])
    store = store_of(shown)
    window = Window(history=Fraction(1) / shown.hertz)
    made = dataset(store, window=window, n=Presentation("movie", rate=shown.hertz))
    reader = made.readers["n"]
    found = {t: reader._windows(0, np.array([t]))["n"] for t in (9, 10, 11, 29, 30, 40, 49, 50, 60)}
    said = {t: (int(row[0, 0]), int(why[0, 0])) for t, (row, why) in found.items()}
    assert said == {
        9: (0, OUTSIDE),
        10: (1, OBSERVED),
        11: (2, OBSERVED),
        29: (2, OBSERVED),
        30: (0, OUTSIDE),
        40: (3, OBSERVED),
        49: (3, OBSERVED),
        50: (0, OUTSIDE),
        60: (0, BLANK),
    }


def test_a_lag_that_is_no_whole_number_of_ticks_is_exact():
    shown = Shown("d/s", "1000", [(k, k + 1, k % FRAMES) for k in range(300)])
    made = dataset(
        store_of(shown),
        window=Window(history=0.1),
        a=Presentation("movie", bin=0.001, lag="0.0021"),
        b=Presentation("movie", bin=0.001, lag="0.003"),
    )
    batch = made.window("d/s", 0.1)
    rows, _ = expected(shown, 100, Fraction(1, 1000), 100, Fraction("0.0021"))
    assert batch["a"][0].tolist() == rows
    assert torch.equal(batch["a"], batch["b"])  # 97.9 lies in the frame that began at tick 97


# ---- what may be known


@pytest.mark.parametrize("what", ["frame", "stimulus", "clip"])
@pytest.mark.parametrize("lag", [0, 0.3, "1/7"])
def test_what_is_shown_after_the_present_changes_no_history(what, lag):
    rng, (shown, *_) = random.Random(5), sessions(4)
    present = 4 * 30_000
    later = [row for row in random_rows(rng, shown.hertz) if row[0] and row[0] >= present]
    before = [row for row in shown.rows or [] if row[0] is not None and row[0] < present]
    other = Shown(shown.id, shown.rate, [*before, *later])
    cut = [(a, present + 7 if b and b > present + 7 else b, c) for a, b, c in before]
    past, future = [], []
    for one in (shown, other, Shown(shown.id, shown.rate, cut)):
        window = Window(history=2, horizon=0.3)
        stream = Presentation("movie", what, bin=0.02, lag=lag)
        batch = dataset(store_of(one), window=window, m=stream).window("demo/a", 2)
        past.append((batch.past("m"), batch.past_mask("m"), batch.reason["m"][:, :100]))
        future.append(batch.future("m"))
    for one in past[1:]:
        assert all(torch.equal(a, b) for a, b in zip(one, past[0], strict=True))
    assert past[0][1].any()
    changed = not torch.equal(future[0], future[1])
    assert changed == (lag != 0.3)  # a lag of the horizon: the target's bins know no more either


def test_a_lag_below_zero_is_refused_because_it_looks_ahead():
    store = store_of(sessions(0)[0])
    with pytest.raises(UsageError, match=r"lag of -0\.1 s: a bin would know what is shown after"):
        dataset(store, m=Presentation("movie", bin=0.1, lag=-0.1))


def test_a_lag_shifts_what_is_read_and_no_more():
    shown = sessions(2)[0]
    streams = {f"lag{k}": Presentation("movie", bin=0.1, lag=k / 10) for k in range(4)}
    made = dataset(store_of(shown), window=Window(history=1), **streams)
    batch = made.window("demo/a", 1)
    for k in range(1, 4):
        assert torch.equal(batch[f"lag{k}"][:, k:], batch["lag0"][:, :-k])
        assert torch.equal(batch.reason[f"lag{k}"][:, k:], batch.reason["lag0"][:, :-k])


# ---- nothing is expanded


def test_frames_are_read_once_a_batch_and_only_those_that_are_needed(monkeypatch):
    rows = [(3000 * k, 3000 * k + 3000, k // 10) for k in range(100)]
    store = store_of(Shown("d/a", "30000", rows), Shown("d/b", "30000", rows))
    window = Window(history=0.5, stride=0.5)
    made = dataset(store, window=window, m=Presentation("movie", "stimulus", bin=0.1))
    (source,) = made.readers["m"].sources
    asked = []
    kept = type(source.frames).__getitem__
    monkeypatch.setattr(
        type(source.frames), "__getitem__", lambda s, k: asked.append(list(k)) or kept(s, k)
    )
    batch = made.batch(
        np.flatnonzero(made.plan.address(np.arange(len(made))).start < 60_000), seed=None
    )
    assert set(batch.session) == {"d/a", "d/b"}
    assert asked == [[0, 1]]
    again = made.batch(np.arange(14), seed=None)["m"]
    assert asked == [[0, 1], [2, 3]]  # those that were read stay
    monkeypatch.setattr("neurostore.sample.streams._presentations.KEPT", 0)
    assert torch.equal(again, made.batch(np.arange(14), seed=None)["m"])
    assert len(asked[2]) == 4


def test_an_embedding_is_in_memory_once_for_all_sessions():
    shown = sessions(1)
    made = dataset(store_of(*shown), m=Presentation("movie", "clip", bin=0.1))
    made.sample(40, seed=1)
    (source,) = made.readers["m"].sources
    assert source._table.shape == CLIP.shape
    assert source._table.dtype == np.float16


def test_the_same_batch_comes_alone_shuffled_and_from_a_pickle(tmp_path):
    store = neurostore.create(tmp_path / "lab")
    with store.transaction("all") as tx:
        tx.put(Stimulus("movie", PICTURES, embeddings={"clip": CLIP}))
        for one in sessions(3):
            tx.put(one.builder())
    made = dataset(store, m=Presentation("movie", "clip", bin=0.1), s=Spikes(bin=0.1))
    batch = made.sample(20, seed=4)
    again = pickle.loads(pickle.dumps(made)).sample(20, seed=4)
    assert torch.equal(batch["m"], again["m"])
    for k in range(20):
        one = made.window(batch.session[k], Fraction(int(batch.tick[k])) / _rate(made, batch, k))
        assert torch.equal(one["m"][0], batch["m"][k])


def _rate(made: Dataset, batch, k: int) -> Fraction:
    return made.store.session(batch.session[k]).clock.rate


# ---- several stimuli


def test_sessions_of_other_stimuli_join_their_own():
    other = RNG.normal(size=(7, 8)).astype(np.float32)
    a = Shown("d/a", "30000", [(0, 90_000, 5)])
    b = Shown("d/b", "1000000", [(0, 3_000_000, 5)], "second")
    store = store_of(
        *(a, b),
        stimuli=[
            Stimulus("movie", PICTURES, embeddings={"clip": CLIP}),
            Stimulus("second", url="u", embeddings={"clip": other}),
        ],
    )
    window = Window(history=1)
    batch = dataset(store, window=window, m=Presentation("movie", "clip", bin=0.5)).read(
        dataset(store, window=window, s=Spikes(bin=0.5)).plan.address(np.array([3, 18]))
    )
    for k, table in enumerate((CLIP.astype(np.float32), other)):
        assert batch["m"][k].tolist() == [table[5].tolist()] * 2
    narrow = Stimulus("second", embeddings={"narrow": other[:, :3]})
    with store.transaction("narrow") as tx:
        tx.put(narrow)
        tx.put(Stimulus("movie", embeddings={"narrow": CLIP[:, :4]}))
    with pytest.raises(UsageError, match=r"not alike: narrow/v1 of 'movie' \(4,\) float32 and nar"):
        dataset(store, m=Presentation("movie", "narrow", bin=0.1))
    with pytest.raises(UsageError, match="keeps no frames of 'second'"):
        dataset(store, m=Presentation("movie", "stimulus", bin=0.1))


def test_numbers_need_no_stored_stimulus_and_what_is_joined_does():
    store = store_of(Shown("d/a", "30000", [(0, 90_000, 500)], "movy"))
    batch = dataset(store, window=Window(history=1), m=Presentation("movie", bin=0.5)).window(
        "d/a", 0
    )
    assert batch["m"].tolist() == [[500, 500]]
    with pytest.raises(NotFoundError, match=r"No stimulus 'movy' .*Did you mean 'movie'"):
        dataset(store, m=Presentation("movie", "clip", bin=0.1))


# ---- wrong input


def test_an_unknown_table_or_encoder_is_answered_with_the_nearest():
    store = store_of(*sessions(0))
    for stream, said in (
        (Presentation("movei", bin=0.1), "No presentations 'movei' .*Did you mean 'movie'"),
        (Presentation("movie", "clpi", bin=0.1), "No embedding 'clpi' .*Did you mean 'clip'"),
        (Presentation("movie", "clip/v2", bin=0.1), "No version 'v2' .*Did you mean 'v1'"),
    ):
        with pytest.raises(NotFoundError, match=said):
            dataset(store, m=stream)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "either rate= or bin="),
        ({"bin": 0.1, "rate": 10}, "either rate= or bin="),
        ({"rate": 0}, "rate above 0"),
        ({"bin": 0}, "steps longer than 0 s"),
        ({"bin": 0.07}, "must be a whole number"),
        ({"bin": 0.000001}, "at least one tick"),
        ({"bin": 0.1, "lag": "x"}, "no finite number"),
    ],
)
def test_a_stream_that_cannot_be_read_is_refused(arguments, said):
    store = store_of(sessions(0)[0])
    with pytest.raises(UsageError, match=said):
        dataset(store, m=Presentation("movie", **arguments))


def test_a_row_beyond_the_frames_is_named_when_opened_too(monkeypatch):
    """As a version of the package wrote it that held no links against the newest snapshot."""
    monkeypatch.setattr(Transaction, "_refuse_others", lambda *_: None)
    store = store_of(stimuli=[])
    other = neurostore.open(store.url)
    mine, theirs = store.transaction("session"), other.transaction("stimulus")
    mine.put(Shown("d/s", "30000", [(0, 9, 3), (9, 18, FRAMES)]).builder())
    theirs.put(Stimulus("movie", PICTURES, embeddings={"clip": CLIP}))
    for tx in (mine, theirs):
        with tx:
            pass
    ((finding,),) = [found for found in neurostore.open(store.url).validate().values() if found]
    assert (finding.check, finding.row) == ("presentations/v1/row/link", 1)
    for what in ("frame", "stimulus", "clip"):
        with pytest.raises(RefusedError, match=f"d/s: .* 'row' is {FRAMES} in row 1, .* 40 frames"):
            dataset(neurostore.open(store.url), m=Presentation("movie", what, bin=0.1))


def test_a_session_without_the_table_is_kept_and_said():
    made = dataset(store_of(*sessions(0)), m=Presentation("movie", "clip", bin=0.1))
    assert "movie in demo/none" in repr(made)
    batch = made.window("demo/none", 0)
    assert set(batch.reason["m"].unique().tolist()) == {NOT_RECORDED}
    assert not batch["m"].any()
    assert Reason.BLANK == BLANK


def test_presentations_that_are_all_missing_or_none_are_masked():
    store = store_of(Shown("d/s", "30000", [(None, None, 3), (None, 9, 3)]))
    window = Window(history=1)
    batch = dataset(store, window=window, m=Presentation("movie", bin=0.1)).window("d/s", 0)
    assert set(batch.reason["m"].unique().tolist()) == {OUTSIDE}
    none = np.zeros(0)
    empty = tables.intervals(
        *("movie", none, none, store.session("d/s").span),
        {"row": none.astype(np.int64)},
        kind="presentations",
        attrs={"stimulus": "movie"},
    )
    with store.transaction("none") as tx:
        tx.update("d/s", empty)
    batch = dataset(store, window=window, m=Presentation("movie", "clip", bin=0.1)).window("d/s", 0)
    assert set(batch.reason["m"].unique().tolist()) == {OUTSIDE}


def test_a_row_that_is_invalid_with_both_ends_is_unsure_until_it_stops():
    store = store_of(Shown("d/s", "1000", [(0, 100, 3)]))
    ticks = {"start": [0, 500, 2000], "stop": [100, 900, MISSING], "row": [3, 4, 5]}
    columns = {
        name: Column(("presentation",), np.array(one), {} if name == "row" else {"units": "tick"})
        for name, one in ticks.items()
    }
    columns["valid"] = Column(("presentation",), np.array([True, False, False]))
    table = Table(
        "presentations/movie",
        *("presentations/v1", columns, {"stimulus": "movie"}),
        clock=Clock("1000"),
    )
    with store.transaction("invalid") as tx:
        tx.update("d/s", table)
    made = dataset(store, window=Window(history=3), m=Presentation("movie", bin=0.1))
    why = made.window("d/s", 0).reason["m"][0].tolist()
    assert why == [OBSERVED] + [OUTSIDE] * 4 + [INVALID] * 4 + [OUTSIDE] * 11 + [INVALID] * 10


# ---- identity


def test_the_identity_of_a_dataset_says_which_stimulus_and_embedding_were_read():
    store = store_of(*sessions(0))
    by_number = dataset(store, m=Presentation("movie", bin=0.1)).identity()["streams"]["m"]
    assert by_number["stimuli"] == {}
    stream = Presentation("movie", "clip", bin=0.1)
    first = dataset(store, m=stream)
    said = first.identity()["streams"]["m"]
    found = store.stimulus("movie")
    assert (said["kind"], said["what"], said["bin"]) == ("Presentation", "clip", 0.1)
    assert said["stimuli"]["movie"] == {
        "stimulus": found.digest,
        "embedding": "clip/v1",
        "values": found.embedding("clip").digest,
    }
    with store.transaction("another version") as tx:
        tx.put(Stimulus("movie", embeddings={"clip": CLIP + np.float16(1)}))
    assert first.identity()["streams"]["m"] == said
    newer = dataset(store, m=stream).identity()["streams"]["m"]
    assert newer["stimuli"]["movie"]["embedding"] == "clip/v2"
    older = dataset(store, m=Presentation("movie", "clip/v1", bin=0.1))
    assert older.identity()["streams"]["m"]["stimuli"] == said["stimuli"]


def test_damage_of_an_embedding_is_an_error_of_the_batch(monkeypatch):
    from neurostore.store import _stimuli

    made = dataset(store_of(*sessions(0)), m=Presentation("movie", "clip", bin=0.1))
    monkeypatch.setattr(_stimuli, "content_digest", lambda values: "another")
    with pytest.raises(DamagedError, match="clip/v1 of 'movie' is not what was written"):
        made.sample(30)
