"""Spike counts as an acquisition saw them: which bins, and where windows may start."""

import itertools
import json
import random
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
import pytest
import torch
from _sampled import Recording, counts, names, spiking, store_of, three
from hypothesis import given, settings
from hypothesis import strategies as st

import neurostore
from neurostore import Behaviour, Dataset, SpikeEvents, Spikes, UsageError, Window
from neurostore.sample import (
    Activity,
    Batch,
    Mask,
    Reason,
    Staggered,
    TimeAligned,
    UnitDropout,
    observed,
)
from neurostore.sample.acquisition import Acquisition, restored

BIN = Fraction(1, 20)
UNASKED = int(Reason.NOT_REQUESTED)


@pytest.fixture(scope="module")
def sessions() -> Any:
    recordings = {one.id: one for one in three()}
    return recordings, store_of(*recordings.values())


def window(past: int, future: int, stride: int) -> Window:
    return Window(*(str(one * BIN) for one in (past, future, stride)))


def everything(dataset: Dataset) -> Batch:
    return dataset.batch(np.arange(len(dataset)), seed=None)


def acquisition_of(mode: str, every: int, seed: int) -> Acquisition:
    return TimeAligned(every) if mode == "aligned" else Staggered(every, seed)


# ---- which unit, in which bin


@settings(max_examples=25)
@given(
    session=st.sampled_from(["demo/a", "demo/b", "demo/c"]),
    mode=st.sampled_from(["aligned", "staggered"]),
    every=st.integers(1, 25),
    seed=st.integers(0, 5),
    nth=st.integers(0, 400),
)
def test_counts_equal_the_plain_definition(sessions, session, mode, every, seed, nth) -> None:
    recordings, store = sessions
    acquisition = acquisition_of(mode, every, seed)
    dataset = Dataset(
        store,
        session,
        window=window(every, 7, every),
        streams={"spikes": Spikes(str(BIN))},
        acquisition=acquisition,
    )
    one, batch = recordings[session], dataset[nth % len(dataset)]
    tick, step = int(batch.tick[0]), BIN * one.hertz
    first = ceil(tick / step)
    assert (tick, first % every) == (floor(first * step), 0)
    phases = dataset.phases("spikes")[session].tolist()
    assert phases == acquisition.phases(len(one.units)).tolist()
    value, why = counts(one, list(one.units), tick, BIN, every + 7)
    for unit, bin in itertools.product(range(len(phases)), range(every + 7)):
        if (first + bin - phases[unit]) % every and not why[unit][bin]:
            value[unit][bin], why[unit][bin] = 0, UNASKED
    assert batch["spikes"][0].tolist() == value
    assert batch.reason["spikes"][0].tolist() == why
    seen = observed(acquisition, np.array([first]), every + 7, len(phases))
    assert not (batch.mask["spikes"].numpy() & ~seen).any()


@settings(max_examples=25)
@given(every=st.integers(1, 25), stride=st.integers(1, 3), past=st.integers(1, 30))
def test_windows_start_on_every_multiple_in_observed_time(sessions, every, stride, past) -> None:
    recordings, store = sessions
    dataset = Dataset(
        store,
        "demo/b",
        window=window(past, 2, stride * every),
        streams={"spikes": Spikes(str(BIN))},
        acquisition=TimeAligned(every),
    )
    one = recordings["demo/b"]
    step, length = BIN * one.hertz, floor((past + 2) * BIN * one.hertz)
    expected = []
    for low, high in one.seen(None):  # from before tick 0
        grid = [floor(n * every * step) for n in range(-400, 2_000)]
        expected += [tick for tick in grid if low <= tick <= high - length][::stride]
    assert everything(dataset).tick.tolist() == expected


def test_bins_are_the_same_whichever_units_are_chosen(sessions) -> None:
    _, store = sessions
    said = {"window": window(5, 5, 5), "streams": {"spikes": Spikes(str(BIN))}}
    for units in ("unit = 'a1'", "unit = 'a0'", None):
        dataset = Dataset(store, "demo/a", units=units, acquisition=Staggered(5, 1), **said)
        assert {tick % 7_500 for tick in everything(dataset).tick.tolist()} == {0}


def test_seconds_are_whole_bins_or_refused_with_both_numbers(sessions) -> None:
    _, store = sessions

    def of(acquisition: Acquisition, stride: int = 5) -> Dataset:
        streams = {"spikes": Spikes(str(BIN))}
        return Dataset(store, window=window(5, 5, stride), streams=streams, acquisition=acquisition)

    said = r"every 0.11 s is 2.2 steps of 0.05 s of bins of the stream 'spikes'"
    with pytest.raises(UsageError, match=said):
        of(TimeAligned(seconds=0.11))
    two = of(TimeAligned(seconds=0.25)), of(TimeAligned(5))
    assert torch.equal(two[0].sample(50)["spikes"], two[1].sample(50)["spikes"])
    with pytest.raises(UsageError, match=r"stride of 9000 ticks is 1.2 times 5 bins of 0.05 s"):
        of(TimeAligned(5), stride=6)


def test_a_window_off_the_grid_is_refused_with_the_starts_beside_it(sessions) -> None:
    _, store = sessions
    streams = {"spikes": Spikes(str(BIN))}
    dataset = Dataset(store, window=window(5, 5, 5), streams=streams, acquisition=Staggered(5, 1))
    assert int(dataset.window("demo/a", 1.25).tick[0]) == 37_500
    with pytest.raises(UsageError, match=r"tick 39000, at bin 26 of 0.05 s.*every = 5 bins. Start"):
        dataset.window("demo/a", 1.3)
    said = r"between bins 25 and 26 .*Start at tick 37500 \(1.25 s\) or tick 45000 \(1.5 s\)\."
    with pytest.raises(UsageError, match=said):
        dataset.window("demo/a", 1.26)
    with pytest.raises(UsageError, match=r"between bins -2 and -1 .*tick -7500 .*or tick 0"):
        dataset.window("demo/a", -0.06)
    assert (dataset.window("demo/a", -100).reason["spikes"] == Reason.OUTSIDE).all()


# ---- beside other streams


def both(start: float, rate: float = 50) -> Any:
    """Spikes from 0 s on and dense activity from `start` s on."""
    store = neurostore.create(f"memory://both-{next(names)}")
    made = neurostore.SessionBuilder(dataset="d", session="s", rate=30_000)
    made.add_units({"u": np.arange(1, 900) / 90, "v": np.arange(1, 500) / 50})
    made.add_observed([0.0], [10.0])
    made.add_activity("v", np.arange(400.0)[:, None], start=start, rate=rate, units="mV")
    with store.transaction("both") as tx:
        tx.put(made)
    return store


def test_counts_and_dense_activity_share_their_starts_or_are_refused() -> None:
    said = {
        "window": Window(0.2, 0.2, 0.2),
        "streams": {"spikes": Spikes("0.02"), "v": Activity("v")},
        "acquisition": Staggered(5, 1),
    }
    dataset = Dataset(both(0.0), **said)
    batch = everything(dataset)
    assert batch.tick.tolist() == [6_000 * n for n in range(len(dataset))]
    assert batch.tick[-1] == 6_000 * 39  # the rows of the table end at 8 s
    # Channel 0 of either has the same phase.
    same = batch.mask["spikes"][:-2, 0] == batch.mask["v"][:-2, :, 0]
    assert same.all()
    later = Dataset(both(0.2), **said)
    assert everything(later).tick[0] == 6_000
    with pytest.raises(UsageError, match=r"5 bins of 0.02 s .*from tick 0 .*5 steps of activity/v"):
        Dataset(both(0.04), **said)
    streams = {"spikes": Spikes("0.1"), "v": Activity("v")}
    with pytest.raises(UsageError, match=r"Windows start on multiples of 5 bins of 0.1 s"):
        Dataset(both(0.0), **{**said, "streams": streams})
    seconds = {**said, "streams": streams, "acquisition": TimeAligned(seconds=0.2)}
    assert len(Dataset(both(0.0), **seconds))


def test_events_have_no_steps_to_be_observed_at(sessions) -> None:
    _, store = sessions
    streams = {"spikes": Spikes(str(BIN)), "events": SpikeEvents()}
    with pytest.raises(
        UsageError, match=r"events \(SpikeEvents\) has spikes at times of their own"
    ):
        Dataset(store, window=window(5, 5, 5), streams=streams, acquisition=TimeAligned(5))
    with pytest.raises(UsageError, match=r"streams of channels.*found position"):
        Dataset(
            store,
            window=window(5, 5, 5),
            streams={"position": Behaviour("position", rate=20)},
            acquisition=TimeAligned(5),
        )


def test_a_session_without_spikes_is_masked_and_has_no_phases(sessions) -> None:
    recordings, _ = sessions
    bare = Recording("demo/z", "30000", observed=[(0, 300_000)])
    bare.position = [(k * 600, [0.0, 1.0], True) for k in range(500)]
    store = store_of(recordings["demo/a"], bare)
    dataset = Dataset(
        store,
        window=window(5, 5, 5),
        streams={"spikes": Spikes(str(BIN))},
        acquisition=Staggered(5, 1),
    )
    batch = everything(dataset)
    assert set(dataset.phases("spikes")) == {"demo/a"}
    for row, session in enumerate(batch.session):
        if session == "demo/z":
            assert (batch.reason["spikes"][row] == Reason.NOT_RECORDED).all()


# ---- what is done to windows of it


def test_a_mask_hides_a_part_of_what_was_observed(sessions) -> None:
    _, store = sessions
    said = {"window": window(10, 5, 5), "acquisition": Staggered(5, 1)}
    plain = Dataset(store, "demo/c", streams={"x": Spikes(str(BIN))}, **said)
    hidden = Dataset(
        store, "demo/c", streams={"x": Spikes(str(BIN), mask=Mask("units", 0.4))}, **said
    )
    assert hidden.phases("x")["demo/c"].tolist() == plain.phases("x")["demo/c"].tolist()
    assert hidden.plan.digest == plain.plan.digest
    one, other = plain.sample(60, seed=2), hidden.sample(60, seed=2)
    assert torch.equal(other["x.target"], one["x"])
    assert torch.equal(other.reason["x.target"], one.reason["x"])
    excluded = other.reason["x"] == Reason.EXCLUDED
    assert excluded.any()
    assert one.mask["x"][excluded].all()
    wanted = other["x.target_mask"]
    assert torch.equal(wanted, one.mask["x"] & ~other.mask["x"])
    assert torch.equal(other["x"], one["x"] * other.mask["x"])
    with pytest.raises(UsageError, match="every = 5"):
        hidden.window("demo/c", 1.3)


def test_dropout_causality_pickles_and_devices_go_with_it(sessions) -> None:
    _, store = sessions
    said = {"window": window(10, 5, 5), "streams": {"x": Spikes(str(BIN))}}
    plain = Dataset(store, acquisition=Staggered(5, 1), **said)
    one = plain.sample(40, seed=4)
    causal = Dataset(store, acquisition=Staggered(5, 1), causal=True, **said).sample(40, seed=4)
    assert torch.equal(causal["x"], one.past("x"))
    assert torch.equal(causal.mask["x"], one.past_mask("x"))
    dropped = Dataset(store, acquisition=Staggered(5, 1), dropout=UnitDropout(1, 2, 3), **said)
    other = dropped.sample(40, seed=4)
    assert torch.equal(other.mask["x"], one.mask["x"] & other.unit_mask[:, :, None])
    reopen, state = plain.__reduce__()
    for again in (reopen(*state), plain.to("cpu")):
        batch = again.sample(40, seed=4)
        assert torch.equal(batch["x"], one["x"])
        assert torch.equal(batch.reason["x"], one.reason["x"])


def test_the_phases_come_back_from_what_a_run_keeps(sessions) -> None:
    _, store = sessions
    streams = {"x": Spikes(str(BIN))}
    for acquisition in (TimeAligned(5), Staggered(5, 3), Staggered(seed=9, seconds="1/4")):
        dataset = Dataset(store, window=window(5, 5, 5), streams=streams, acquisition=acquisition)
        again = restored(json.loads(json.dumps(dataset.identity()))["acquisition"])
        assert again == acquisition
        for id, phases in dataset.phases("x").items():
            units = len(dataset.unit_ids[id])
            assert phases.tolist() == again.in_steps(BIN, "x").phases(units).tolist()


def test_a_grid_of_fractional_ticks_is_the_one_of_exact_products() -> None:
    one = Recording("d/s", "24414.0625", units={}, observed=[(-70_000, 900_000)])
    one.units = {f"u{k}": spiking(random.Random(k), 900, -70_000, 900_000) for k in range(3)}
    dataset = Dataset(
        store_of(one),
        window=Window("0.07", "0.07", "0.07"),
        streams={"x": Spikes("0.01")},
        acquisition=Staggered(7, 2),
    )
    batch = everything(dataset)
    step = Fraction("0.07") * one.hertz
    assert batch.tick.tolist() == [
        tick
        for n in range(-60, 600)
        if -70_000 <= (tick := floor(n * step)) <= 900_000 - floor(2 * step)
    ]
