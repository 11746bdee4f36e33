"""Masked modelling and co-smoothing: what is hidden, what is asked for, and that nothing leaks."""

import itertools
import pickle
import random

import numpy as np
import pytest
import torch
from _sampled import NOT_RECORDED, OBSERVED, Recording, counts, spiking, store_of, three
from hypothesis import given, settings
from hypothesis import strategies as st

from neurostore import Dataset, NotFoundError, Spikes, UsageError, Window
from neurostore.clocks import exact
from neurostore.sample import Batch, Mask
from neurostore.sample.batch import Reason

BINS, WHOLE = 25, Window(0.5)
AHEAD = Window(0.5, 0.2)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory):
    known = three()
    store = store_of(*known, url=str(tmp_path_factory.mktemp("masked") / "lab"))
    return {one.id: one for one in known}, store


def dataset(store, window: Window = WHOLE, sessions=None, **said) -> Dataset:
    return Dataset(store, sessions, window=window, streams={"spikes": Spikes(0.02, **said)})


def hidden(batch: Batch) -> torch.Tensor:
    """What a mask hides."""
    return batch.reason["spikes"] == Reason.EXCLUDED


MASKS = {
    "bins": Mask("bins", 0.25),
    "spans": Mask("spans", 0.3, length=0.06),
    "units": Mask("units", 0.4),
    "regions": Mask("regions", 0.5),
    "entries": Mask("entries", 0.1),
    "several": (Mask("bins", 0.1), Mask("units", 0.2), Mask("spans", 0.2, length=0.04)),
}


@pytest.mark.parametrize("window", [WHOLE, AHEAD], ids=["whole", "ahead"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_inputs_targets_and_where_the_loss_counts_are_of_the_recorded_counts(
    lab, window: Window, mask
) -> None:
    known, store = lab
    batch = dataset(store, window, mask=mask).sample(24, seed=1)
    bins = batch["spikes"].shape[2]
    for row, id in enumerate(batch.session):
        units = [str(unit) for unit in batch.unit_ids[row]]
        tick = int(batch.tick[row])
        values, why = counts(known[id], units, tick, exact(0.02), bins)
        n, target = len(units), batch["spikes.target"][row]
        assert target[:n].tolist() == values
        assert batch.reason["spikes.target"][row, :n].tolist() == why
        given, reason = batch["spikes"][row], batch.reason["spikes"][row]
        wanted = batch["spikes.target_mask"][row]
        assert (reason[n:] == NOT_RECORDED).all()
        assert not wanted[n:].any()
        for unit, bin in itertools.product(range(n), range(bins)):
            said, seen = int(reason[unit, bin]), why[unit][bin] == OBSERVED
            if bin >= BINS:
                assert said == (Reason.NOT_REQUESTED if seen else why[unit][bin])
            elif said != Reason.EXCLUDED:
                assert said == why[unit][bin]
            assert int(given[unit, bin]) == (values[unit][bin] if said == OBSERVED else 0)
            assert bool(wanted[unit, bin]) == (seen and said != OBSERVED)


def test_a_mask_hides_its_share_and_no_more(lab) -> None:
    _, store = lab
    for name, share in (("bins", 0.25), ("units", 0.4), ("regions", 0.5), ("entries", 0.1)):
        batch = dataset(store, sessions="demo/a", mask=Mask(name, share)).sample(20, seed=2)
        lost = hidden(batch) | (batch.reason["spikes.target"] != OBSERVED)
        seen = batch.reason["spikes.target"] == OBSERVED
        assert (hidden(batch) & ~seen).sum() == 0
        for row in range(20):
            whole = {"bins": lost[row].all(0), "units": lost[row].all(1)}
            if name == "entries":
                assert int(lost[row].sum()) >= 13  # of 125
                assert int(hidden(batch)[row].sum()) <= 13  # of 125
            elif name == "regions":
                regions = np.array(["CA1", "CA3", "CA1", "DG", "CA3"])
                some = {r for r, out in zip(regions, hidden(batch)[row].any(1), strict=True) if out}
                assert len(some) <= 2
                for region in some:
                    assert lost[row][torch.from_numpy(regions == region)].all()
            else:
                expected = {"bins": 6, "units": 2}[name]
                assert int(whole[name].sum()) >= expected
                other = hidden(batch)[row].any(0 if name == "bins" else 1)
                assert int(other.sum()) <= expected


@settings(max_examples=200, deadline=None)
@given(
    st.integers(2, 40), st.integers(1, 8), st.sampled_from([0.05, 0.3, 0.5, 0.95]), st.integers(0)
)
def test_spans_are_whole_runs_that_leave_a_bin(bins: int, span: int, share: float, seed) -> None:
    mask = Mask("spans", share, length=span)
    if span >= bins:
        with pytest.raises(UsageError, match="leaves nothing"):
            mask.check("spikes", bins, 1)
        return
    mask.check("spikes", bins, 1)
    draws = np.random.default_rng(seed).integers(0, 2**64, 5, dtype=np.uint64)
    made = mask.hide(draws, np.ones(3, bool), np.zeros(3, np.int64), bins, span)
    assert made.shape == (5, 1, bins)
    wanted = max(1, int(share * bins / span + 0.5))
    for row in made[:, 0]:
        lengths = [len(list(run)) for said, run in itertools.groupby(row) if said]
        assert all(length % span == 0 for length in lengths)
        assert sum(lengths) == min(wanted, (bins - 1) // span) * span


def test_every_place_of_a_span_and_every_unit_is_drawn_as_often() -> None:
    draws = np.random.default_rng(0).integers(0, 2**64, 20_000, dtype=np.uint64)
    pool, region = np.ones(8, bool), np.zeros(8, np.int64)
    two = Mask("spans", 0.6, length=3).hide(draws, pool, region, 10, 3)[:, 0]
    ways = {tuple(row) for row in two.tolist()}
    slots = list(itertools.combinations(range(6), 2))
    assert len(ways) == len(slots)
    assert min(np.unique(two, axis=0, return_counts=True)[1]) > 0.9 * len(draws) / len(slots)
    units = Mask("units", 0.5).hide(draws, pool, region, 10, 0)[:, :, 0]
    assert (units.sum(axis=1) == 4).all()
    assert np.abs(units.mean(axis=0) - 0.5).max() < 0.015


def test_of_a_single_one_nothing_is_hidden_and_of_two_one() -> None:
    for count, expected in ((0, 0), (1, 0), (2, 1), (3, 2)):
        assert Mask("units", 0.9).of(count) == expected
    assert Mask("units", 0.01).of(40) == 1


def test_units_without_a_region_are_hidden_by_no_mask_of_regions(lab) -> None:
    _, store = lab
    mask = Mask("regions", 0.9)
    batch = dataset(store, mask=mask).sample(30, seed=0)
    rows = [k for k, id in enumerate(batch.session) if id == "demo/c"]
    assert rows
    assert not hidden(batch)[rows].any()
    assert not batch["spikes.target_mask"][rows].any()
    with pytest.raises(UsageError, match="no unit of the sessions has one"):
        dataset(store, sessions="demo/c", mask=mask)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(MASKS)), st.booleans(), st.integers(0, 10**6))
def test_spikes_moved_where_they_are_hidden_change_no_input(
    name: str, ahead: bool, seed: int
) -> None:
    """All spikes of a hidden bin of a unit are thrown away, or more are put there."""
    rng, window = random.Random(seed), Window(0.5, 0.2, stride=0.7) if ahead else WHOLE
    one = Recording("d/s", "1000", observed=[(0, 4_000)])
    one.units = {f"u{k}": spiking(rng, 200, 0, 4_000) for k in range(5)}
    one.regions = {f"u{k}": f"r{k % 3}" for k in range(5)}
    said = {"mask": MASKS[name], "units_in": ("u0", "u1", "u2", "u4")}
    before = dataset(store_of(one), window, **said).sample(3, seed=seed)
    shown = before.mask["spikes"]
    for row in range(3):  # windows of a plan without overlap
        for unit, bin in (~shown[row]).nonzero().tolist():
            low = int(before.tick[row]) + 20 * bin
            own = [t for t in one.units[f"u{unit}"] if not low <= t < low + 20]
            more = [rng.randrange(low, low + 20) for _ in range(rng.randrange(4))]
            one.units[f"u{unit}"] = sorted(own + more)
    after = dataset(store_of(one), window, **said).sample(3, seed=seed)
    assert torch.equal(before.tick, after.tick)
    for part in ("tensors", "reason", "mask"):
        assert torch.equal(getattr(before, part)["spikes"], getattr(after, part)["spikes"])
    assert torch.equal(before["spikes.target_mask"], after["spikes.target_mask"])
    assert not torch.equal(before["spikes.target"], after["spikes.target"])


def test_a_window_has_its_mask_whoever_reads_it_and_beside_whatever_else(lab) -> None:
    _, store = lab
    made = dataset(store, mask=MASKS["several"])
    whole = next(iter(made.loader(16, seed=3, epoch=2)))
    for size, workers in ((16, 2), (1, 0), (5, 0)):
        again = itertools.islice(
            made.loader(size, seed=3, epoch=2, workers=workers), -(-16 // size)
        )
        row = 0
        for batch in again:
            for nth in range(min(len(batch.session), 16 - row)):
                n = len(batch.unit_ids[nth])
                for name in ("spikes", "spikes.target_mask"):
                    assert torch.equal(batch[name][nth, :n], whole[name][row, :n])
                row += 1
        assert row == 16
    same = pickle.loads(pickle.dumps(made))
    assert torch.equal(next(iter(same.loader(16, seed=3, epoch=2)))["spikes"], whole["spikes"])


def test_another_epoch_seed_stream_or_mask_is_another_draw(lab) -> None:
    _, store = lab
    mask = Mask("bins", 0.4)
    streams = {"spikes": Spikes(0.02, mask=mask), "again": Spikes(0.02, mask=mask)}
    made = Dataset(store, "demo/a", window=WHOLE, streams=streams)
    places = np.arange(8)
    at = {(s, e): made.plan.address(places, places, s, e) for s in (0, 1) for e in (0, 1)}
    drawn = [made.read(one)["spikes.target_mask"] for one in at.values()]
    drawn.append(made.read(at[0, 0])["again.target_mask"])
    for one, other in itertools.combinations(drawn, 2):
        assert not torch.equal(one, other)
    twice = dataset(store, sessions="demo/a", mask=(mask, mask)).read(at[0, 0])
    assert twice["spikes.target_mask"].sum() > drawn[0].sum()


# ---- co-smoothing


@pytest.mark.parametrize("window", [WHOLE, AHEAD], ids=["whole", "ahead"])
@pytest.mark.parametrize(
    ("said", "shown", "asked"),
    [
        ({"units_in": ("a0", "a3")}, "a0 a3", "a0 a1 a2 a3 a4"),
        ({"units_out": ["a1"]}, "a0 a2 a3 a4", "a1"),
        ({"units_in": "region = 'CA1'", "units_out": "region = 'CA3'"}, "a0 a2", "a1 a4"),
    ],
)
def test_inputs_hold_units_in_and_targets_what_is_hidden_of_units_out(
    lab, window: Window, said, shown: str, asked: str
) -> None:
    _, store = lab
    batch = dataset(store, window, sessions="demo/a", **said).sample(12, seed=0)
    ids = [f"a{k}" for k in range(5)]
    given = torch.tensor([[one in shown.split() for one in ids]] * 12)[:, :, None]
    past = torch.arange(batch["spikes"].shape[2]) < BINS
    seen = batch.reason["spikes.target"] == OBSERVED
    assert torch.equal(batch.mask["spikes"], seen & given & past)
    expected = batch["spikes.target"] * (given & past)
    assert torch.equal(batch["spikes"], expected)
    wanted = torch.tensor([[one in asked.split() for one in ids]] * 12)[:, :, None]
    assert torch.equal(batch["spikes.target_mask"], seen & wanted & ~(given & past))
    kept = batch.reason["spikes"][seen & ~(given & past)]
    assert (kept == Reason.NOT_REQUESTED).all()


def test_units_in_both_are_targets_where_a_horizon_or_a_mask_hides_them(lab) -> None:
    _, store = lab
    both = {"units_in": ("a0", "a1"), "units_out": ("a1", "a2"), "sessions": "demo/a"}
    with pytest.raises(UsageError, match="1 units of units_in are in units_out too"):
        dataset(store, **both)
    ahead = dataset(store, AHEAD, **both).sample(6)["spikes.target_mask"]
    assert not ahead[:, 1, :BINS].any()
    assert ahead[:, 1, BINS:].any()
    masked = dataset(store, mask=Mask("bins", 0.5), **both).sample(6)
    assert torch.equal(masked["spikes.target_mask"][:, 1], hidden(masked)[:, 1])
    assert not masked["spikes.target_mask"][:, 0].any()


def test_a_mask_hides_a_share_of_the_units_that_are_shown(lab) -> None:
    _, store = lab
    said = {"units_in": ("c0", "c1", "c2", "c3"), "mask": Mask("units", 0.5)}
    batch = dataset(store, sessions="demo/c", **said).sample(10)
    assert (hidden(batch).all(2).sum(1) == 2).all()
    assert not hidden(batch)[:, 4:].any()


def test_a_session_without_a_unit_that_is_shown_says_so_and_is_masked(lab) -> None:
    _, store = lab
    made = dataset(store, units_in="region = 'DG'", units_out="region <> 'DG'")
    assert "units_in in demo/b" in repr(made)
    batch = made.window("demo/b", 0)
    assert not batch.mask["spikes"].any()
    assert batch["spikes.target_mask"].any()


def test_a_session_without_spikes_is_not_recorded_in_all_three() -> None:
    one = Recording("d/s", "1000", units={"u": [5], "v": [7]}, observed=[(0, 2_000)])
    other = Recording("d/t", "1000", observed=[(0, 2_000)])
    other.position = [(0, [1.0], True), (1_000, [1.0], True)]
    made = dataset(store_of(one, other), mask=MASKS["several"])
    for batch in (made.sample(8), made.window("d/t", 0)):
        for row in [k for k, id in enumerate(batch.session) if id == "d/t"]:
            for name in ("spikes", "spikes.target", "spikes.target_mask"):
                assert not batch[name][row].any()
                assert (batch.reason[name][row] == NOT_RECORDED).all()


# ---- what is refused


@pytest.mark.parametrize(
    ("kind", "share", "length", "said"),
    [
        ("bin", 0.2, None, "Did you mean 'bins'"),
        ("bins", 0, None, "above 0 and below 1"),
        ("bins", 1.0, None, "above 0 and below 1"),
        ("bins", 0.5, 0.1, "belongs to a mask of spans"),
        ("spans", 0.5, None, "belongs to a mask of spans"),
        ("spans", 0.5, 0, "above 0 s"),
    ],
)
def test_a_mask_that_says_nothing_sensible_is_refused(kind, share, length, said) -> None:
    with pytest.raises(UsageError, match=said):
        Mask(kind, share, length)


@pytest.mark.parametrize(
    ("window", "said", "message"),
    [
        (WHOLE, {"mask": Mask("spans", 0.5, length=0.03)}, "1.5 bins of 0.02 s"),
        (WHOLE, {"mask": Mask("spans", 0.5, length=0.5)}, "leaves nothing of the history"),
        (Window(0, 0.5), {"mask": Mask("bins", 0.5)}, "the window has none"),
        (WHOLE, {"mask": 0.25}, "mask of Spikes is a Mask or several"),
        (WHOLE, {"mask": "bins"}, "mask of Spikes is a Mask or several"),
        (WHOLE, {"units_in": 3}, "units_in of Spikes is a text or several"),
        (WHOLE, {"units_in": "region = 'none'"}, "units_in of the stream 'spikes' chooses no unit"),
        (WHOLE, {"units_out": ()}, "units_out of the stream 'spikes' chooses no unit"),
        (WHOLE, {"units_in": "true"}, "none is hidden"),
        (WHOLE, {"units_in": "regon = 'CA1'"}, "there is no column 'regon'"),
    ],
)
def test_what_hides_nothing_or_cannot_is_refused(lab, window, said, message) -> None:
    _, store = lab
    with pytest.raises(UsageError, match=message):
        dataset(store, window, **said)


def test_an_id_that_no_unit_has_is_named_with_the_nearest(lab) -> None:
    _, store = lab
    with pytest.raises(NotFoundError, match=r"units_in of the stream 'spikes'.*Did you mean 'a1'"):
        dataset(store, units_in=("a0", "a11"))
