"""Which channel was observed when, and dense activity as an acquisition saw it."""

from __future__ import annotations

import hashlib
import itertools
import json
import pickle
import sys
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import neurostore
from neurostore import cache
from neurostore.cache import Entry
from neurostore.errors import DamagedError, NotFoundError, UsageError
from neurostore.kernels._dense import frames
from neurostore.sample import (
    Activity,
    All,
    Batch,
    Dataset,
    Reason,
    Staggered,
    TimeAligned,
    Window,
    observed,
)
from neurostore.sample.acquisition import Acquisition, restored
from neurostore.sample.streams._dense import Matrix
from neurostore.sample.streams._rows import held
from neurostore.splits import Split

numbers = itertools.count()
STEP = Fraction(1, 50)
FIRST = 37


def values_of(rows: int, channels: int) -> np.ndarray:
    return (np.arange(rows * channels).reshape(rows, channels) % 9973).astype(np.float32)


def store_of(tables: dict[str, Any], rate: str | int = 30_000, url: Any = None) -> Any:
    store = neurostore.create(url or f"memory://acquisition-{next(numbers)}")
    made = neurostore.SessionBuilder(dataset="d", session="a", rate=rate)
    for name, said in tables.items():
        made.add_activity(name, **{"units": "mV", **said})
    with store.transaction("dense") as tx:
        tx.put(made)
    return store


def regular(value: np.ndarray, **more: Any) -> dict[str, Any]:
    return {"value": value, "start": FIRST * STEP, "rate": 50, **more}


@lru_cache(maxsize=64)
def plain(rows: int, channels: int) -> Any:
    return store_of({"v": regular(values_of(rows, channels))})


def seconds(steps: int) -> float:
    return float(steps * STEP)


def window(history: int, horizon: int, stride: int) -> Window:
    return Window(seconds(history), seconds(horizon), seconds(stride))


def step_of(batch: Batch) -> list[int]:
    """The step of a table that each window starts with."""
    return [int(tick) // 600 - FIRST for tick in batch.tick]


def everything(dataset: Dataset) -> Batch:
    return dataset.batch(np.arange(len(dataset)), seed=None)


def error_of(**changed: Any) -> str:
    said = {"window": window(5, 10, 5), "streams": {"v": Activity("v")}, **changed}
    with pytest.raises(UsageError) as caught:
        everything(Dataset(plain(100, 3), **said))
    return str(caught.value)


# ---- which channel, when


def test_phases_are_the_numbers_of_a_hash_and_of_nothing_else() -> None:
    drawn: list[int] = []
    for block in range(3):
        said = hashlib.sha256(f"42 phases {block}".encode()).digest()
        drawn += [int.from_bytes(said[k : k + 8], "little") for k in range(0, 32, 8)]
    assert Staggered(20, 42).phases(10).tolist() == [one % 20 for one in drawn[:10]]
    assert Staggered(20, 42).phases(4).tolist() == [one % 20 for one in drawn[:4]]
    many = np.bincount(Staggered(20, 0).phases(20_000), minlength=20)
    assert many.min() > 850
    assert many.max() < 1150


@settings(max_examples=60, deadline=None)
@given(every=st.integers(1, 25), seed=st.integers(0, 2**70), channels=st.integers(1, 30))
def test_every_channel_is_observed_once_in_every_steps_from_its_phase_on(every, seed, channels):
    for acquisition in (All(), TimeAligned(every), Staggered(every, seed)):
        period = 1 if acquisition == All() else every
        first = np.array([0, 3, every, 1000])
        seen = observed(acquisition, first, 2 * every, channels)
        phases = acquisition.phases(channels)
        assert (phases >= 0).all()
        assert (phases < period).all()
        if not isinstance(acquisition, Staggered):
            assert not phases.any()
        for window, channel, step in np.ndindex(seen.shape):
            t = int(first[window]) + step
            assert seen[window, channel, step] == ((t - int(phases[channel])) % period == 0)


def test_seconds_are_a_whole_number_of_steps_or_refused_with_both_numbers() -> None:
    assert TimeAligned(seconds=0.4).in_steps("0.02", "x") == TimeAligned(20)
    assert Staggered(seconds="2/5", seed=3).in_steps(STEP, "x") == Staggered(20, 3)
    said = error_of(acquisition=TimeAligned(seconds=0.45))
    assert "0.45 s is 22.5 steps of 0.02 s of activity/v" in said
    for wrong in (0, -1, 2.0, True, "20"):
        with pytest.raises(UsageError, match=r"counts steps.*seconds="):
            TimeAligned(wrong)
    with pytest.raises(UsageError, match="one of them"):
        Staggered()
    with pytest.raises(UsageError, match="one of them"):
        Staggered(20, 1, seconds=0.4)
    with pytest.raises(UsageError, match="above 0"):
        TimeAligned(seconds=0)
    with pytest.raises(UsageError, match="in_steps"):
        Staggered(seconds=0.4).phases(3)


def test_the_phases_come_back_from_what_a_run_keeps() -> None:
    for acquisition in (All(), TimeAligned(5), Staggered(5, 2**65), Staggered(seed=1, seconds=0.1)):
        streams = {"v": Activity("v")}
        dataset = Dataset(
            plain(100, 3), window=window(5, 5, 5), streams=streams, acquisition=acquisition
        )
        kept = json.loads(json.dumps(dataset.identity()))["acquisition"]
        again = restored(kept)
        assert again == acquisition
        assert dataset.phases("v")["d/a"].tolist() == again.in_steps(STEP, "v").phases(3).tolist()
    with pytest.raises(UsageError, match="another version"):
        restored({**kept, "draws": {"3": "0" * 64}})
    with pytest.raises(UsageError, match="No acquisition"):
        restored({"kind": "Random"})


def test_another_seed_or_every_is_another_dataset() -> None:
    said = [
        json.dumps(
            Dataset(
                plain(100, 3),
                window=window(10, 10, 10),
                streams={"v": Activity("v")},
                acquisition=acquisition,
            ).identity()["acquisition"]
        )
        for acquisition in (
            All(),
            TimeAligned(5),
            TimeAligned(10),
            Staggered(5, 1),
            Staggered(5, 2),
        )
    ]
    assert len(set(said)) == 5


# ---- observations: the index semantics


def reference(
    value: np.ndarray, start: int, targets: list[int], phases: list[int]
) -> tuple[list[int], list[list[float]]]:
    """o[b, i] = start + phase_i; x_0 = value[o, i]; targets value[o + m, i]."""
    at = [start + phase for phase in phases]
    rows = [[float(value[o + target, i]) for i, o in enumerate(at)] for target in [0, *targets]]
    return at, rows


@settings(max_examples=120, deadline=None)
@given(
    every=st.integers(1, 25),
    channels=st.integers(1, 6),
    rows=st.integers(30, 260),
    multiples=st.integers(1, 5),
    seed=st.integers(0, 5),
    mode=st.sampled_from(["all", "aligned", "staggered"]),
)
def test_observations_equal_the_plain_definition(every, channels, rows, multiples, seed, mode):
    horizon = every * multiples
    acquisition: Acquisition = {
        "all": All(),
        "aligned": TimeAligned(every),
        "staggered": Staggered(every, seed),
    }[mode]
    history = 1 if mode == "all" else every
    assume(rows >= horizon + history)
    targets = [every * m for m in range(1, multiples + 1)]
    said = {"targets": tuple(targets)} if seed % 2 or mode == "all" else {}
    stream = Activity("v", **(said or {"multiples": tuple(range(1, multiples + 1))}))
    dataset = Dataset(
        plain(rows, channels),
        window=window(history, horizon, history),
        streams={"v": stream},
        acquisition=acquisition,
    )
    value = values_of(rows, channels)
    phases = acquisition.phases(channels).tolist()
    batch = everything(dataset)
    starts = step_of(batch)
    if mode == "all":  # b ~ U{0..C−H−1}
        assert starts == list(range(rows - horizon))
    else:  # k ~ U{0..floor((C−H)/every)−1}
        assert starts == [k * every for k in range((rows - horizon) // every)]
    assert batch.mask["v"].all()
    for window_, start in enumerate(starts):
        at, expected = reference(value, start, targets, phases)
        assert batch["v.step"][window_].tolist() == at
        assert int(batch["v.first"][window_]) == min(at)
        assert batch["v"][window_].tolist() == expected
    assert batch.past("v").shape[1] == 1
    assert batch.future("v").tolist() == batch["v"][:, 1:].tolist()


@settings(max_examples=80, deadline=None)
@given(
    every=st.integers(1, 25),
    channels=st.integers(1, 6),
    rows=st.integers(26, 120),
    more=st.integers(0, 30),
    seed=st.integers(0, 5),
    mode=st.sampled_from(["all", "aligned", "staggered"]),
)
def test_rows_and_their_mask_equal_the_plain_definition(every, channels, rows, more, seed, mode):
    length = every + more
    assume(rows >= length)
    acquisition: Acquisition = {
        "all": All(),
        "aligned": TimeAligned(every),
        "staggered": Staggered(every, seed),
    }[mode]
    period = 1 if mode == "all" else every
    dataset = Dataset(
        plain(rows, channels),
        window=window(every, more, every),
        streams={"v": Activity("v")},
        acquisition=acquisition,
    )
    batch, value = everything(dataset), values_of(rows, channels)
    phases = acquisition.phases(channels)
    assert step_of(batch) == list(range(0, rows - length + 1, every))
    seen = observed(acquisition, np.array(step_of(batch)), length, channels)
    for window_, start in enumerate(step_of(batch)):
        for step, channel in np.ndindex(length, channels):
            there = (start + step - int(phases[channel])) % period == 0
            assert bool(batch.mask["v"][window_, step, channel]) == there
            expected = float(value[start + step, channel]) if there else 0.0
            assert float(batch["v"][window_, step, channel]) == expected
    assert (batch.mask["v"].numpy() == seen.transpose(0, 2, 1)).all()
    assert set(batch.reason["v"].unique().tolist()) <= {0, Reason.NOT_REQUESTED}


def test_frames_are_every_channel_at_its_phase() -> None:
    for dtype in (np.float32, np.float64, np.int16, np.uint8):
        value = values_of(23, 4).astype(dtype)
        phases = np.array([0, 4, 2, 3])
        made = frames(value, 5, phases)
        assert made.shape == (5, 4)
        for k, n in np.ndindex(made.shape):
            at = k * 5 + phases[n]
            assert made[k, n] == (value[at, n] if at < 23 else 0)


# ---- where windows start


def test_windows_start_on_the_pattern_in_every_piece_of_a_split() -> None:
    store = plain(200, 3)
    edges = [(0, 63), (66, 131), (131, 200)]
    ticks = [((low + FIRST) * 600, (high + FIRST) * 600) for low, high in edges]
    start, stop = np.array(ticks).T
    split = Split(
        "s", {"method": "by hand"}, np.array(["d/a"] * 3), start, stop, np.array(["train"] * 3)
    )
    dataset = Dataset(
        store,
        window=window(10, 20, 10),
        streams={"v": Activity("v", multiples=(1, 2))},
        acquisition=Staggered(10, 3),
        split=split["train"],
    )
    batch = everything(dataset)
    expected = [
        start
        for low, high in edges
        for start in range(-(-low // 10) * 10, high, 10)
        if start + 30 <= high
    ]
    assert step_of(batch) == expected
    assert batch.mask["v"].all()
    across = Dataset(
        store,
        window=window(10, 20, 10),
        streams={"v": Activity("v", multiples=(1, 2))},
        acquisition=Staggered(10, 3),
        split=split["train"],
        history_may_cross=True,
    )
    assert all(step % 10 == 0 for step in step_of(everything(across)))
    assert len(across) > len(dataset)


def test_a_start_that_breaks_the_pattern_is_refused_with_both_numbers() -> None:
    for stream in (Activity("v"), Activity("v", multiples=(1,))):
        for acquisition in (TimeAligned(5), Staggered(5, 1)):
            dataset = Dataset(
                plain(100, 3),
                window=window(5, 10, 5),
                streams={"v": stream},
                acquisition=acquisition,
            )
            fine = dataset.window("d/a", seconds(FIRST + 35))
            assert step_of(fine) == [35]
            with pytest.raises(UsageError, match=r"step 37 .* 2 past .* every = 5.*35 or 40"):
                dataset.window("d/a", seconds(FIRST + 37))
    said = error_of(acquisition=TimeAligned(5), window=window(5, 10, 7))
    assert "4200 ticks is 1.4 times 5 steps of activity/v, 3000 ticks" in said
    said = error_of(acquisition=Staggered(90, 0), window=window(0, 101, 90))
    assert "longer than every interval" in said
    said = error_of(
        acquisition=TimeAligned(50),
        window=window(0, 80, 50),
        split=Split(
            "s",
            {"method": "by hand"},
            np.array(["d/a"]),
            np.array([(FIRST + 10) * 600]),
            np.array([(FIRST + 95) * 600]),
            np.array(["train"]),
        )["train"],
    )
    assert "starts on a multiple of 50 steps" in said


def test_windows_outside_of_the_table_are_masked_and_say_so() -> None:
    for acquisition, stream in itertools.product(
        (All(), TimeAligned(5), Staggered(5, 1)), (Activity("v"), Activity("v", targets=(5, 10)))
    ):
        dataset = Dataset(
            plain(98, 3), window=window(5, 10, 5), streams={"v": stream}, acquisition=acquisition
        )
        value, phases = values_of(98, 3), acquisition.phases(3)
        for start in (-20, -10, -5, 85, 90, 95, 100):
            batch = dataset.window("d/a", seconds(FIRST + start))
            offsets = [0, 5, 10] if stream.targets else range(15)
            for step, channel in np.ndindex(len(offsets), 3):
                shift = int(phases[channel]) if stream.targets else 0
                at = start + offsets[step] + shift
                outside = not 0 <= at < 98
                why = int(batch.reason["v"][0, step, channel])
                assert (why == Reason.OUTSIDE) == outside
                if why:
                    assert float(batch["v"][0, step, channel]) == 0
                else:
                    assert float(batch["v"][0, step, channel]) == value[at, channel]


def test_what_is_not_valid_or_not_finite_is_masked_by_channel() -> None:
    value = values_of(60, 3)
    value[20, 1], value[31, 2], value[7, 0] = np.nan, np.inf, -np.inf
    valid = np.ones(60, bool)
    valid[[25, 26, 27, 28, 29, 40]] = False
    store = store_of({"v": regular(value, valid=valid)})
    for acquisition, stream in itertools.product(
        (All(), TimeAligned(5), Staggered(5, 4)), (Activity("v"), Activity("v", targets=(5, 10)))
    ):
        dataset = Dataset(
            store, window=window(5, 10, 5), streams={"v": stream}, acquisition=acquisition
        )
        batch, phases = everything(dataset), acquisition.phases(3)
        assert np.isfinite(batch["v"].numpy()).all()
        found = 0
        for window_, start in enumerate(step_of(batch)):
            for step, channel in np.ndindex(batch["v"].shape[1:]):
                at = start + (step * 5 + int(phases[channel]) if stream.targets else step)
                asked = (at - int(phases[channel])) % acquisition.period == 0
                bad = not valid[at] or not np.isfinite(value[at, channel])
                why = Reason.NOT_REQUESTED if not asked else Reason.INVALID if bad else 0
                assert int(batch.reason["v"][window_, step, channel]) == why
                expected = 0.0 if why else value[at, channel]
                assert float(batch["v"][window_, step, channel]) == expected
                found += why == Reason.INVALID
        assert found


def test_a_clock_whose_ticks_divide_no_step_loses_no_row() -> None:
    value = values_of(90, 2)
    for rate, frame in (("24414.0625", "30"), (1_000_000, "2.17"), (30_000, "59.94")):
        store = store_of({"v": {"value": value, "start": -3.0, "rate": frame}}, rate)
        step = 1 / Fraction(frame)
        for acquisition in (TimeAligned(4), Staggered(4, 0)):
            dataset = Dataset(
                store,
                window=Window(4 * step, 8 * step, 4 * step),
                streams={"v": Activity("v", multiples=(1, 2)), "all": Activity("v")},
                acquisition=acquisition,
            )
            batch = everything(dataset)
            phases = acquisition.phases(2)
            assert len(dataset) == (90 - 8) // 4
            assert batch.mask["v"].all()
            at = 4 * np.arange(len(dataset))[:, None] + phases
            np.testing.assert_array_equal(batch["v.step"].numpy(), at)
            for m in range(3):
                np.testing.assert_array_equal(batch["v"][:, m].numpy(), value[at + 4 * m, [0, 1]])


# ---- from the window cache


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Any:
    """A store on disk with a table that is large enough to be mapped, and a cache of its own."""
    monkeypatch.setenv("NEUROSTORE_CACHE", str(tmp_path / "cache"))
    return store_of({"v": regular(values_of(3000, 300))}, url=tmp_path / "lab")


def staggered(store: Any) -> Dataset:
    streams = {"v": Activity("v", multiples=(1, 2))}
    return Dataset(store, window=window(3, 6, 3), streams=streams, acquisition=Staggered(3, 3))


def right(batch: Batch) -> bool:
    value, step = values_of(3000, 300), batch["v.step"].numpy()
    return all(
        np.array_equal(batch["v"][:, m].numpy(), value[step + 3 * m, np.arange(300)])
        for m in range(3)
    )


def test_frames_are_kept_in_the_cache_and_built_once(lab, monkeypatch) -> None:
    built = []
    module = sys.modules["neurostore.kernels._dense"]
    monkeypatch.setattr(module, "frames", lambda *one: built.append(1) or frames(*one))
    for _ in range(3):
        assert right(staggered(neurostore.open(lab.url)).sample(300, seed=1))
    assert len(built) == 1
    monkeypatch.setenv("NEUROSTORE_CACHE", "off")
    assert right(staggered(neurostore.open(lab.url)).sample(300, seed=1))
    assert len(built) == 2


def test_damaged_frames_are_refused_and_built_anew(lab) -> None:
    assert right(staggered(lab).sample(300, seed=1))
    held = cache.current()
    assert held is not None
    path = min((one for one, _ in held.entries()), key=lambda one: one.stat().st_size)
    with open(path, "r+b") as file:
        file.seek(-50_000, 2)
        byte = file.read(1)
        file.seek(-50_000, 2)
        file.write(bytes([byte[0] ^ 255]))
    dataset = staggered(neurostore.open(lab.url))
    reader: Any = dataset.readers["v"]
    cold = cache.Checked(Entry.open(path), "frames")  # as another process would open it
    reader._frames[0] = replace(reader._framed(0), matrix=Matrix.of(cold))
    with pytest.raises(DamagedError, match="'frames'"):
        everything(dataset)
    assert right(dataset.sample(300, seed=1))


# ---- tables whose rows have times


def test_rows_at_times_are_steps_and_end_at_a_gap() -> None:
    rng = np.random.default_rng(0)
    time = np.arange(100) / 10 + rng.uniform(0, 0.01, 100)
    time[60:] += 3
    value = values_of(100, 2)
    store = store_of({"v": {"value": value, "time": time}}, 1_000_000)
    said = {"window": Window(0.3, 0.6, 0.3), "acquisition": Staggered(3, 1)}
    dataset = Dataset(store, streams={"v": Activity("v", rate=10)}, **said)
    batch = everything(dataset)
    phases = Staggered(3, 1).phases(2)
    ticks = np.rint(time * 1e6).astype(int)
    for n, tick in enumerate(batch.tick.tolist()):
        first = int(np.flatnonzero(ticks == tick)[0])
        assert first % 3 == 0
        for step, channel in np.ndindex(9, 2):
            row = first + step
            late = row >= 100 or ticks[row] >= tick + 900_000 or (first < 60 <= row)
            why = int(batch.reason["v"][n, step, channel])
            if late:
                assert why == Reason.OUTSIDE
            elif (row - phases[channel]) % 3:
                assert why == Reason.NOT_REQUESTED
            else:
                assert why == 0
                assert float(batch["v"][n, step, channel]) == value[row, channel]
    within = Dataset(store, window=Window(0.3, 0.6), streams={"v": Activity("v", rate=10)})
    assert not within.window("d/a", 7.0).mask["v"].any()
    with pytest.raises(UsageError, match="rate"):
        Dataset(store, window=Window(0.3), streams={"v": Activity("v")})


def test_a_history_holds_no_row_from_the_present_on_where_rows_come_late() -> None:
    time = np.arange(40) * 0.12  # said to be 0.1 s apart
    store = store_of({"v": {"value": values_of(40, 2), "time": time}}, 1_000_000)
    dataset = Dataset(store, window=Window(0.6, 0.6), streams={"v": Activity("v", rate=10)})
    batch = dataset.window("d/a", 0.0)
    assert batch.past_mask("v")[0, :, 0].tolist() == [True] * 5 + [False]
    assert batch.future_mask("v")[0, :, 0].tolist() == [True] * 4 + [False] * 2
    assert (batch.reason["v"][0, [5, 10, 11]] == Reason.OUTSIDE).all()


# ---- stimulus


def stimulated(frequency: Any, every: int, steps: int, **more: Any) -> Dataset:
    return Dataset(
        plain(100, 3),
        window=window(more.pop("history", every), more.pop("horizon", steps), every),
        streams={"s": Activity("v", steps=steps, frequency=frequency), **more.pop("streams", {})},
        **{"acquisition": TimeAligned(every), **more},
    )


def test_a_stimulus_is_given_at_the_frequency_asked_for() -> None:
    value, every, steps = values_of(100, 3), 5, 15
    for frequency in ("every step", "hold", "interpolate", "none"):
        dataset = stimulated(frequency, every, steps)
        batch = everything(dataset)
        assert tuple(batch["s"].shape[1:]) == (steps, 3)
        assert step_of(batch)[-1] == 80  # its last window reads the last row of the table
        for n, start in enumerate(step_of(batch)):
            for t, channel in np.ndindex(steps, 3):
                m, weight = start + t // every * every, Fraction(t % every, every)
                low = Fraction(float(value[m, channel]))
                expected = {
                    "every step": Fraction(float(value[start + t, channel])),
                    "hold": low,
                    "none": Fraction(0),
                    "interpolate": low
                    + (weight and weight * (Fraction(float(value[m + every, channel])) - low)),
                }[frequency]
                assert float(batch["s"][n, t, channel]) == pytest.approx(float(expected), rel=1e-6)
        reason = Reason.NOT_REQUESTED if frequency == "none" else 0
        assert (batch.reason["s"] == reason).all()


def test_interpolation_needs_one_row_more_than_it_gives_and_never_reads_past_the_window() -> None:
    with pytest.raises(UsageError, match=r"reads 16 steps .*15, and the next one.* has 15"):
        stimulated("interpolate", 5, 15, history=0)
    assert len(stimulated("hold", 5, 15, history=0)) == 18
    exact = stimulated("interpolate", 5, 15, history=0, horizon=16)
    assert step_of(everything(exact))[-1] == 80
    assert everything(exact).mask["s"].all()
    split = Split(
        "s",
        {"method": "by hand"},
        np.array(["d/a"] * 2),
        np.array([FIRST, FIRST + 46]) * 600,
        np.array([FIRST + 46, FIRST + 100]) * 600,
        np.array(["train", "test"]),
    )
    train = stimulated("interpolate", 5, 15, history=0, horizon=16, split=split["train"])
    assert step_of(everything(train))[-1] == 30  # rows 30..45; the test begins with row 46


def test_a_stimulus_that_was_not_valid_is_masked_in_all_it_went_into() -> None:
    valid = np.ones(40, bool)
    valid[10] = False
    store = store_of({"v": regular(values_of(40, 2), valid=valid)})
    dataset = Dataset(
        store,
        window=window(0, 16, 5),
        streams={"s": Activity("v", steps=15, frequency="interpolate")},
        acquisition=TimeAligned(5),
    )
    batch = dataset.window("d/a", seconds(FIRST))
    lost = batch.reason["s"][0, :, 0] == Reason.INVALID
    assert lost.tolist() == [6 <= t < 15 for t in range(15)]
    assert (batch["s"][batch.reason["s"] != 0] == 0).all()


def test_with_nothing_to_hold_only_every_step_is_legal() -> None:
    for acquisition in (All(), TimeAligned(1), Staggered(1, 0)):
        for frequency in ("hold", "interpolate", "none"):
            with pytest.raises(UsageError, match=r"every = 2 .* found 1.*'every step'"):
                stimulated(frequency, 1, 10, acquisition=acquisition)
        batch = everything(stimulated("every step", 1, 10, acquisition=acquisition))
        assert batch.mask["s"].all()
    with pytest.raises(UsageError, match=r"12 interpolated .* every = 5. Take 10 or 15"):
        stimulated("interpolate", 5, 12)
    before, after, weight = held("interpolate", 4, 8)
    assert before.tolist() == [0, 0, 0, 0, 4, 4, 4, 4]
    assert after.tolist() == [0, 4, 4, 4, 4, 8, 8, 8]
    assert weight.tolist() == [0, 0.25, 0.5, 0.75] * 2


def test_a_stimulus_starts_with_the_earliest_observation() -> None:
    every, seed = 7, next(s for s in range(99) if Staggered(7, s).phases(2).min() > 1)
    low = int(Staggered(every, seed).phases(2).min())
    value = values_of(100, 2)
    store = store_of({"v": regular(value), "s": regular(value + 5)})
    dataset = Dataset(
        store,
        window=window(7, 14, 7),
        streams={
            "v": Activity("v", multiples=(1, 2)),
            "s": Activity("s", steps=14, frequency="every step", starts_with="v"),
        },
        acquisition=Staggered(every, seed),
    )
    batch = everything(dataset)
    for n, first in enumerate(batch["v.first"].tolist()):
        assert first % every == low
        np.testing.assert_array_equal(batch["s"][n].numpy(), value[first : first + 14] + 5)
    with pytest.raises(UsageError, match=rf"reads {14 + low} steps .* has 14"):
        Dataset(
            store,
            window=window(0, 14, 7),
            streams={"s": Activity("s", steps=14, frequency="every step", starts_with="v")},
            acquisition=Staggered(every, seed),
        )


# ---- what does not go together


def test_targets_lie_on_the_pattern_and_inside_the_window() -> None:
    def of(acquisition: Acquisition, history: int, horizon: int, **said: Any) -> str:
        return error_of(
            acquisition=acquisition,
            window=window(history, horizon, 5),
            streams={"v": Activity("v", **said)},
        )

    assert "target 3 " in of(TimeAligned(5), 5, 10, targets=(3,))
    assert "every = 5" in of(TimeAligned(5), 5, 10, targets=(3,))
    assert "needs 15 steps (10 and a margin of 5)" in of(Staggered(5, 0), 5, 5, multiples=(2,))
    assert "has 10" in of(TimeAligned(5), 5, 5, targets=(10,))
    assert "history of 3 steps" in of(Staggered(5, 0), 3, 17, multiples=(1,))
    assert "history of 8 steps" in of(TimeAligned(5), 8, 17, multiples=(1,))
    for wrong in ({"targets": (0,)}, {"targets": (5, 5)}, {"multiples": (2, 1)}):
        with pytest.raises(UsageError, match="ascending"):
            Activity("v", **wrong)
    for both in ({"targets": (5,), "steps": 3}, {"targets": (5,), "multiples": (1,)}):
        with pytest.raises(UsageError, match="one of the three"):
            Activity("v", **both)
    with pytest.raises(UsageError, match="frequency"):
        Activity("v", starts_with="w")
    with pytest.raises(UsageError, match="frequency"):
        Activity("v", frequency="often")


def test_what_no_acquisition_can_see_is_refused() -> None:
    assert "All()" in error_of(acquisition="staggered")
    with pytest.raises(NotFoundError, match="'v'"):
        Dataset(plain(100, 3), window=window(5, 5, 5), streams={"v": Activity("vv")})
    fast = store_of({"v": {"value": values_of(50, 2), "start": 0.0, "rate": 90_000}})
    with pytest.raises(UsageError, match=r"0\.333333 ticks apart.*faster clock"):
        Dataset(fast, window=Window("1/9000"), streams={"v": Activity("v")})
    twice = store_of({"v": {"value": values_of(50, 2), "time": np.repeat(np.arange(25), 2)}})
    with pytest.raises(UsageError, match="missing or alike"):
        Dataset(twice, window=Window(2.0), streams={"v": Activity("v", rate=2)})
    two = store_of(
        {"v": regular(values_of(50, 2)), "w": regular(values_of(50, 2), start=float(40 * STEP))}
    )
    with pytest.raises(UsageError, match=r"multiples of 5 steps.*'v'.*'w'"):
        Dataset(
            two,
            window=window(5, 5, 5),
            streams={"v": Activity("v"), "w": Activity("w")},
            acquisition=TimeAligned(5),
        )
    said = "whole number"
    with pytest.raises(UsageError, match=said):
        Dataset(plain(100, 3), window=Window(0.05, 0.05), streams={"v": Activity("v")})


def test_sessions_of_other_widths_are_padded_and_one_without_the_table_is_masked() -> None:
    store = neurostore.create(f"memory://acquisition-{next(numbers)}")
    with store.transaction("three") as tx:
        for name, channels in (("a", 4), ("b", 2), ("c", 0)):
            made = neurostore.SessionBuilder(dataset="d", session=name, rate=30_000)
            if channels:
                made.add_activity("v", values_of(50, channels), start=0.0, rate=50, units="")
            else:
                made.add_units({"u": np.arange(100) / 100})
            tx.put(made)
    dataset = Dataset(
        store,
        window=window(5, 10, 5),
        streams={"v": Activity("v", multiples=(1, 2))},
        acquisition=Staggered(5, 2),
    )
    batch = dataset.sample(len(dataset), seed=3)
    assert set(batch.session) == {"d/a", "d/b", "d/c"}
    assert "v in d/c" in repr(dataset)
    phases = Staggered(5, 2).phases(4)
    for n, session in enumerate(batch.session):
        width = {"d/a": 4, "d/b": 2, "d/c": 0}[session]
        assert (batch.reason["v"][n, :, width:] == Reason.NOT_RECORDED).all()
        assert (batch["v"][n, :, width:] == 0).all()
        assert (batch.reason["v"][n, :, :width] == 0).all()
        start = int(batch.tick[n]) // 600
        for m, channel in np.ndindex(3, width):
            at = start + 5 * m + phases[channel]
            assert float(batch["v"][n, m, channel]) == values_of(50, width)[at, channel]
    assert dataset.phases("v").keys() == {"d/a", "d/b"}


def test_a_dataset_with_an_acquisition_pickles_and_reads_the_same(tmp_path) -> None:
    streams = {"v": Activity("v", multiples=(1, 2))}
    store = store_of({"v": regular(values_of(100, 3))}, url=tmp_path / "lab")
    dataset = Dataset(store, window=window(5, 10, 5), streams=streams, acquisition=Staggered(5, 2))
    assert "Staggered(every=5, seed=2" in repr(dataset)
    again = pickle.loads(pickle.dumps(dataset))
    assert again.sample(7, seed=1)["v"].tolist() == dataset.sample(7, seed=1)["v"].tolist()
    for stream in (Activity("v", multiples=(1, 2)), Staggered(5, 2), TimeAligned(seconds=0.1)):
        assert pickle.loads(pickle.dumps(stream)) == stream
