"""Units dropped at random, and what a dataset does about sessions that lack something."""

import itertools
import json
import pickle

import numpy as np
import pytest
import torch
from _sampled import NOT_RECORDED, OBSERVED, Recording, store_of, three
from hypothesis import given, settings
from hypothesis import strategies as st

from neurostore import Behaviour, Dataset, SpikeEvents, Spikes, Trials, UsageError, Window
from neurostore.sample import Mask, UnitDropout
from neurostore.sample._draws import lowest, scores
from neurostore.sample.batch import Reason

WINDOW = Window(0.5)
STREAMS = {
    "spikes": Spikes(0.05, mask=Mask("bins", 0.3)),
    "plain": Spikes(0.1),
    "events": SpikeEvents(),
    "position": Behaviour("position", rate=50),
    "trials": Trials(("side", "score")),
}
FEW = UnitDropout(1, 2, 4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    return store_of(*three(), url=str(tmp_path_factory.mktemp("dropout") / "lab"))


def dataset(store, dropout: UnitDropout | None = FEW, **said) -> Dataset:
    return Dataset(store, window=WINDOW, streams=STREAMS, dropout=dropout, **said)


def test_dropped_units_are_excluded_in_every_stream_and_the_others_are_as_without(store) -> None:
    batch = dataset(store).sample(40, seed=4)
    whole = dataset(store, None).sample(40, seed=4)
    gone = whole.unit_mask & ~batch.unit_mask
    assert gone.any()
    for name in ("spikes", "spikes.target", "spikes.target_mask", "plain", "events.observed"):
        lost = gone[:, :, None] if batch[name].ndim == 3 else gone
        assert not (batch[name].bool() & lost).any()
        was = whole.reason[name]
        expected = torch.where(lost & (was == OBSERVED), int(Reason.EXCLUDED), was)
        assert torch.equal(batch.reason[name], expected.to(torch.uint8))
        assert torch.equal(batch[name], whole[name] * ~lost)
    row = torch.arange(40)[:, None]
    lost = gone[row, whole["events.unit"]] & whole.mask["events.unit"]
    for name in ("events.time", "events.unit"):
        assert torch.equal(batch[name], whole[name] * ~lost)
        assert (batch.reason[name][lost] == Reason.EXCLUDED).all()
        assert torch.equal(batch.reason[name][~lost], whole.reason[name][~lost])
    for name in ("position", "trials.side", "trials.score"):
        assert torch.equal(batch[name], whole[name])
        assert torch.equal(batch.reason[name], whole.reason[name])
    assert torch.equal(batch.region, whole.region)
    for one, other in zip(batch.unit_ids, whole.unit_ids, strict=True):
        assert one.tolist() == other.tolist()


def test_no_spike_of_a_dropped_unit_changes_anything(store) -> None:
    """All that is read but its target: dropped units are as good as silent."""
    known = three()
    batch = dataset(store, sessions="demo/a").sample(1, seed=1)
    dropped = [k for k in range(5) if not batch.unit_mask[0, k]]
    assert dropped
    for unit in dropped:
        known[0].units[f"a{unit}"] = [7 * k for k in range(80_000)]
    again = dataset(store_of(*known), sessions="demo/a").sample(1, seed=1)
    for name in ("spikes", "spikes.target", "plain", "events.observed"):
        assert torch.equal(batch[name], again[name])
    for name in ("events.time", "events.unit"):
        assert torch.equal(batch[name][batch.mask[name]], again[name][again.mask[name]])


def test_a_window_keeps_its_units_whoever_reads_it_and_beside_whatever_else(store) -> None:
    made = dataset(store)
    whole = next(iter(made.loader(12, seed=5, epoch=1))).unit_mask
    for size, workers in ((12, 2), (1, 0), (5, 0)):
        batches = made.loader(size, seed=5, epoch=1, workers=workers)
        row = 0
        for batch in itertools.islice(batches, -(-12 // size)):
            for nth in range(min(len(batch.session), 12 - row)):
                n = len(batch.unit_ids[nth])
                assert torch.equal(batch.unit_mask[nth, :n], whole[row, :n])
                row += 1
    same = pickle.loads(pickle.dumps(made))
    assert torch.equal(next(iter(same.loader(12, seed=5, epoch=1))).unit_mask, whole)
    other = next(iter(made.loader(12, seed=5, epoch=2))).unit_mask
    assert other.shape != whole.shape or not torch.equal(other, whole)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=3, max_size=3), st.integers(0))
def test_the_number_kept_is_triangular_and_in_its_range(said: list[int], seed: int) -> None:
    low, mode, high = sorted(said)
    draws = np.random.default_rng(seed).integers(0, 2**64, 4_000, dtype=np.uint64)
    count = UnitDropout(low, mode, high).count(draws)
    assert count.min() >= low
    assert count.max() <= high
    for number in range(low, high + 1):
        expected = below(number + 0.5, low, mode, high) - below(number - 0.5, low, mode, high)
        assert abs((count == number).mean() - expected) < 0.04


def below(x: float, low: int, mode: int, high: int) -> float:
    """The triangular distribution function."""
    if x <= low:
        return 0.0
    if x >= high:
        return 1.0
    if x <= mode:
        return (x - low) ** 2 / ((high - low) * (mode - low))
    return 1 - (high - x) ** 2 / ((high - low) * (high - mode))


def test_the_ends_of_the_draws_are_the_ends_of_the_range() -> None:
    ends = np.array([0, 2**64 - 1], dtype=np.uint64)
    for said in ((3, 5, 9), (3, 3, 9), (3, 9, 9), (4, 4, 4)):
        assert UnitDropout(*said).count(ends).tolist() == [said[0], said[2]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0))
def test_so_many_are_chosen_and_the_same_beside_more(count: list[int], seed: int) -> None:
    draws = np.random.default_rng(seed).integers(0, 2**64, len(count), dtype=np.uint64)
    found = lowest(scores(draws, np.arange(9)), np.array(count))
    assert found.sum(axis=1).tolist() == count
    for row, number in enumerate(count):
        alone = lowest(scores(draws[row : row + 1], np.arange(9)), number)
        assert alone[0].tolist() == found[row].tolist()


def test_sessions_with_no_more_units_than_the_least_keep_them_all(store) -> None:
    batch = dataset(store, UnitDropout(5, 6, 7)).sample(30)
    for row, id in enumerate(batch.session):
        kept, there = int(batch.unit_mask[row].sum()), len(batch.unit_ids[row])
        assert kept == there if id in ("demo/a", "demo/b") else 5 <= kept <= 7
    assert {"demo/c", "demo/a"} <= set(batch.session)


def test_every_unit_is_dropped_as_often(store) -> None:
    draws = np.random.default_rng(1).integers(0, 2**64, 20_000, dtype=np.uint64)
    kept = lowest(scores(draws, np.arange(10)), np.full(len(draws), 3))
    assert np.abs(kept.mean(axis=0) - 0.3).max() < 0.015


def test_a_dropout_that_makes_no_sense_is_refused(store) -> None:
    for said in ((0, 1, 2), (3, 2, 4), (1, 5, 4)):
        with pytest.raises(UsageError, match="1 <= min <= mode <= max"):
            UnitDropout(*said)
    with pytest.raises(UsageError, match="no stream has units"):
        Dataset(store, window=WINDOW, streams={"x": Behaviour("position", 50)}, dropout=FEW)


def test_the_identity_says_masks_and_dropout(store) -> None:
    one, other = dataset(store).identity(), dataset(store, None).identity()
    assert json.loads(json.dumps(one, allow_nan=False)) == one
    assert (one["dropout"], other["dropout"]) == ({"min": 1, "mode": 2, "max": 4}, None)
    assert one["streams"]["spikes"]["mask"] == {"kind": "bins", "share": 0.3, "length": None}
    assert "UnitDropout(min=1, mode=2, max=4)" in repr(dataset(store))


# ---- what a session lacks


def lacking() -> tuple[Recording, ...]:
    """d/full has everything; the others have one thing each, or units that never fire."""
    full = Recording("d/full", "1000", units={"u": [5, 900], "v": [8]}, observed=[(0, 4_000)])
    full.position = [(k * 10, [float(k), 1.0], True) for k in range(400)]
    full.trials, full.columns = [(0, 4_000)], {"side": ["left"], "score": [1]}
    made = [full]
    for id in ("units", "position", "trials"):
        one = Recording(f"d/{id}", "30000", observed=[(0, 120_000)])
        if id == "units":
            one.units = {"w": [30, 60_000]}
        elif id == "position":
            one.position = [(k * 300, [float(k), 1.0], True) for k in range(400)]
        else:
            one.trials, one.columns = [(0, 120_000)], {"side": ["right"], "score": [2]}
        made.append(one)
    return tuple(made)


OWN = {
    "d/units": ("spikes", "plain", "events"),
    "d/position": ("position",),
    "d/trials": ("trials",),
}


@pytest.mark.parametrize("dropout", [None, FEW], ids=["all", "dropout"])
def test_what_a_session_lacks_comes_masked_in_union_and_in_batches_of_its_own(dropout) -> None:
    made = dataset(store_of(*lacking()), dropout)
    assert set(made.plan.by_session()) == {8}  # none is dropped
    full = made.window("d/full", 0)
    alone = {id: made.window(id, 0) for id in OWN}
    for batch in (*alone.values(), made.sample(32, seed=0)):
        assert set(batch) == set(full)
        for name, tensor in batch.items():
            assert tensor.dtype == full[name].dtype
            assert tensor.ndim == full[name].ndim
            for row, id in enumerate(batch.session):
                if id == "d/full" or name.split(".")[0] in OWN[id]:
                    continue
                assert not tensor[row].any()
                assert (batch.reason[name][row] == NOT_RECORDED).all()
                assert not batch.mask[name][row].any()
    assert alone["d/position"].mask["position"].all()
    assert alone["d/trials"].mask["trials.score"].all()
    assert alone["d/units"].mask["plain"].all()


def test_a_strict_dataset_names_sessions_and_streams_and_takes_those_that_have_all() -> None:
    store = store_of(*lacking())
    with pytest.raises(UsageError) as caught:
        dataset(store, None, missing="refuse")
    for said in (
        "3 of 4 sessions lack",
        "d/units: position (no position), trials (no trials)",
        "d/trials: spikes (no spikes), plain (no spikes), events (no spikes), position",
    ):
        assert said in str(caught.value)
    assert "d/full" not in str(caught.value)
    strict = dataset(store, None, sessions="d/full", missing="refuse")
    assert len(strict) == 8
    with pytest.raises(UsageError, match="'mask' or 'refuse', found 'drop'"):
        dataset(store, missing="drop")


def test_a_strict_dataset_is_the_same_as_one_that_masks_nothing(store) -> None:
    said = {"window": WINDOW, "streams": {"plain": Spikes(0.1)}}
    strict = Dataset(store, **said, missing="refuse")
    assert strict.identity() == Dataset(store, **said).identity()
    assert len(pickle.loads(pickle.dumps(strict))) == len(strict)
