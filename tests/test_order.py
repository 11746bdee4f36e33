"""Weighted draws, and predictions of overlapping windows back on the time line of their session."""

import itertools
import random
import time
from collections import Counter
from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from _sampled import Recording, spiking, store_of, three
from hypothesis import given, settings
from hypothesis import strategies as st
from test_loader import addresses, digest

from neurostore import Behaviour, Dataset, NotFoundError, Spikes, UsageError, Window
from neurostore.sample._weights import Weights
from neurostore.sample.plan import Plan, Runs
from neurostore.splits import Split, interleaved_blocks

LIGHT = {"spikes": Spikes(0.2)}
WINDOW = Window(0.4, 0.2, 0.11)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return Dataset(store_of(*three()), window=WINDOW, streams=LIGHT)


@pytest.mark.parametrize("places", [[-1], [10**6], [], [0.5], [[0]], 3])
@pytest.mark.parametrize("seed", [0, None])
def test_places_outside_an_epoch_are_refused(dataset: Dataset, places, seed) -> None:
    with pytest.raises(UsageError, match=f"from 0 to {len(dataset) - 1:,}; found"):
        dataset.batch(places, seed=seed)


def test_places_come_as_lists_too(dataset: Dataset) -> None:
    one, two = dataset.batch([1, 0], seed=3), dataset.batch(np.array([1, 0]), seed=3)
    assert digest(one) == digest(two)


def test_a_step_that_is_not_quite_a_fraction_is_named(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match=r"30 steps of .* as text, '1/60', not 0.01666"):
        Dataset(dataset.store, window=Window(0.5), streams={"s": Spikes(bin=1 / 60)})
    with pytest.raises(UsageError, match=r"12.5 steps .* Take 0.24 s or 0.26 s"):
        Dataset(dataset.store, window=Window(0.25), streams={"s": Spikes(bin=0.02)})
    with pytest.raises(UsageError, match="takes streams by name"):
        Dataset(dataset.store, window=Window(0.4), streams=[Spikes(0.2)])


def square(found: Counter, expected: dict) -> tuple[float, int]:
    """Chi square, and its degrees of freedom."""
    total = sum(found.values())
    assert set(found) <= {key for key, share in expected.items() if share}
    terms = [(found[k] - total * p) ** 2 / float(total * p) for k, p in expected.items() if p]
    return sum(float(one) for one in terms), len(terms) - 1


def draws(dataset: Dataset, weight, windows: int = 20_000) -> list[tuple[str, int]]:
    """Session and block of every window of an epoch, without reading one."""
    weights = Weights.of(weight, dataset)
    found = dataset.plan.address(weights.draw(np.arange(windows), 5, 0))
    ids = dataset.session_ids
    return [(ids[row], int(b)) for row, b in zip(found.session, found.block, strict=True)]


# ---- weights


WEIGHTS = {
    "sessions": ("sessions", {"demo/a": 1, "demo/b": 1, "demo/c": 1}),
    "units": ("units", {"demo/a": 5, "demo/b": 2, "demo/c": 7}),
    "numbers": (
        {"demo/a": 0.1, "demo/b": "1/3", "demo/c": 0},
        {"demo/a": Fraction(1, 10), "demo/b": Fraction(1, 3), "demo/c": 0},
    ),
}


@pytest.mark.parametrize(("weight", "shares"), WEIGHTS.values(), ids=WEIGHTS)
def test_sessions_come_as_often_as_they_weigh(dataset: Dataset, weight, shares: dict) -> None:
    found = Counter(session for session, _ in draws(dataset, weight))
    total = sum(shares.values())
    value, degrees = square(found, {id: Fraction(one) / total for id, one in shares.items()})
    assert value < degrees + 6 * np.sqrt(2 * degrees)


def test_every_block_of_a_split_comes_equally_often_however_long(dataset: Dataset) -> None:
    rows = [("demo/a", 0, 100_000), ("demo/a", 100_000, 270_000), ("demo/c", 10**6, 12 * 10**6)]
    rows += [("demo/c", 13 * 10**6, 14 * 10**6)]
    session, start, stop = zip(*rows, strict=True)
    ticks = (np.array(one, dtype=np.int64) for one in (start, stop))
    split = Split("uneven", {}, np.array(session), *ticks, np.array(["train"] * 4))
    own = Dataset(dataset.store, window=WINDOW, streams=LIGHT, split=split["train"])
    per_block = Counter(own.batch(np.arange(len(own)), seed=None).block.tolist())
    assert max(per_block.values()) > 5 * min(per_block.values())
    found = Counter(block for _, block in draws(own, "intervals"))
    value, degrees = square(found, dict.fromkeys(per_block, Fraction(1, 4)))
    assert value < degrees + 6 * np.sqrt(2 * degrees)


@pytest.mark.parametrize("around", [None, "trials.start"])
def test_without_a_split_every_interval_of_observed_time_comes_equally_often(around) -> None:
    one = three()[0]
    one.observed = [(0, 90_000), (100_000, 450_000), (455_000, 600_000)]
    window = Window(0.1, 0.1, 0.1) if around is None else Window(0.1, 0.1, around=around)
    own = Dataset(store_of(one), window=window, streams={"spikes": Spikes(0.1)})
    starts = own.plan.address(Weights.of("intervals", own).draw(np.arange(9_000), 1, 2)).start
    found = Counter(np.searchsorted([0, 100_000, 455_000], starts, side="right").tolist())
    value, degrees = square(found, dict.fromkeys(found, Fraction(1, len(found))))
    assert value < degrees + 6 * np.sqrt(2 * degrees)
    assert len(found) == 3


def test_windows_of_a_session_are_drawn_alike_and_with_replacement(dataset: Dataset) -> None:
    weights = Weights.of({"demo/a": 1, "demo/b": 0, "demo/c": 0}, dataset)
    windows = dataset.plan.by_session()[0]
    found = Counter(weights.draw(np.arange(50 * windows), 3, 1).tolist())
    value, degrees = square(found, dict.fromkeys(range(windows), Fraction(1, windows)))
    assert value < degrees + 6 * np.sqrt(2 * degrees)
    assert max(found.values()) > 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.fractions(0, 5, max_denominator=7)), min_size=1, max_size=9
    ),
    st.integers(0, 2**64 - 1),
)
def test_groups_divide_all_draws_exactly_by_their_weights(
    groups: list[tuple[int, Fraction]], draw: int
) -> None:
    """A draw u of 2^64 falls in the first group whose share of the whole is above u / 2^64."""
    count, weight = (list(one) for one in zip(*groups, strict=True))
    total = sum(w for n, w in groups if n)
    if not total:
        with pytest.raises(UsageError, match="Nothing can be drawn"):
            Weights.grouped(np.array(count), weight)
        return
    made = Weights.grouped(np.array(count), weight)
    reached, expected = Fraction(0), None
    for k, (n, w) in enumerate(groups):
        reached += w if n else 0
        if n and w and expected is None and draw < floor(reached / total * 2**64):
            expected = sum(count[:k])
    found = np.searchsorted(made.limit, np.array([draw], dtype=np.uint64), side="right")[0]
    assert made.first[found] == expected


def test_a_weighted_batch_depends_on_seed_epoch_and_place_alone(dataset: Dataset) -> None:
    whole = addresses(dataset.loader(503, seed=1, epoch=2, weight="units"))
    assert addresses(dataset.loader(40, seed=1, epoch=2, weight="units")) == whole
    assert addresses(dataset.loader(503, seed=1, epoch=3, weight="units")) != whole
    assert addresses(dataset.loader(503, seed=2, epoch=2, weight="units")) != whole
    loader = dataset.loader(40, seed=1, epoch=2, weight="units")
    assert digest(loader[7]) == digest(dataset.loader(40, seed=1, epoch=2, weight="units")[7])


def test_an_epoch_is_as_long_as_the_plan_or_as_it_was_told(dataset: Dataset) -> None:
    assert len(addresses(dataset.loader(64, weight="sessions"))) == len(dataset)
    assert len(addresses(dataset.loader(64, weight="sessions", windows=1_234))) == 1_234
    short = addresses(dataset.loader(64, windows=100))
    assert len(set(short)) == 100
    assert short == addresses(dataset.loader(64))[:100]


def test_a_billion_windows_are_drawn_from_at_once() -> None:
    runs = [
        Runs(np.array([0]), np.array([5 * 10**8]), np.array([-1]), Fraction(3)) for _ in range(2)
    ]
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        plan = Plan(runs)
        weights = Weights.grouped(np.array(plan.by_session()), [Fraction(1), Fraction(3)])
        found = plan.address(weights.draw(np.arange(512), 1, 1))
        took.append(time.perf_counter() - begun)
    assert 300 < found.session.sum() < 470
    assert min(took) < 0.05


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"weight": "session"}, "No weight 'session'. Did you mean 'sessions'"),
        ({"weight": {"demo/x": 1}}, "No session 'demo/x' in this dataset"),
        ({"weight": {"demo/a": 1}}, "name 1 of 3 sessions and not demo/b; give it 0"),
        ({"weight": {"demo/a": -1, "demo/b": 1, "demo/c": 1}}, "demo/a must be 0 or more, .* -1"),
        ({"weight": dict.fromkeys(("demo/a", "demo/b", "demo/c"), 0)}, "Nothing can be drawn"),
        ({"weight": {"demo/a": float("nan"), "demo/b": 1, "demo/c": 1}}, "finite"),
        ({"weight": "sessions", "shuffle": False}, "need shuffle=True"),
        ({"windows": 10**6}, "1 to 503 windows, found windows=1,000,000"),
        ({"windows": 0}, "found windows=0"),
        ({"windows": 0, "weight": "units"}, "found windows=0"),
    ],
)
def test_weights_that_make_no_sense_are_refused(
    dataset: Dataset, arguments: dict, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        dataset.loader(8, **arguments)


def test_a_weight_of_a_session_without_windows_is_refused(dataset: Dataset) -> None:
    session = dataset.store.session("demo/a")
    split = interleaved_blocks("b", [session.timeline()], block=5, ratios={"train": 1})
    own = Dataset(dataset.store, window=WINDOW, streams=LIGHT, split=split["train"])
    with pytest.raises(UsageError, match=r"demo/b has the weight 2 and no window"):
        own.loader(8, weight={"demo/a": 1, "demo/b": 2, "demo/c": 0})
    assert {id for id, _ in draws(own, "sessions", 100)} == {"demo/a"}
    with pytest.raises(NotFoundError):
        own.loader(8, weight={"a": 1})


# ---- stitch


def recording(observed: list[tuple[int, int]], rate: str = "30000") -> Recording:
    rng = random.Random(3)
    one = Recording("d/s", rate)
    one.units = {f"u{k}": spiking(rng, 100, *observed[0]) for k in range(3)}
    one.observed = observed
    return one


def stitched(own: Dataset, predict, size: int = 13) -> list:
    loader = own.loader(size, shuffle=False)
    return list(own.stitch((batch, predict(batch)) for batch in loader))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("window", "bin"),
    [
        (Window(0.4, 0.2, 0.1), Fraction(1, 50)),
        (Window(0.4, 0.2, 0.02), Fraction(1, 50)),
        (Window(0.4, 0.2, 0.8), Fraction(1, 10)),
        (Window(0.0, 0.5, 0.1), Fraction(1, 20)),
        (Window(0.5, 0.0, 0.25), Fraction(1, 20)),
    ],
)
def test_the_mean_of_all_predictions_of_a_bin_is_that_of_plain_sums(
    window: Window, bin: Fraction, whole: bool
) -> None:
    """Predictions differ by window, unit and bin; sums by tick, unit and bin start, in a dict."""
    one = recording([(0, 100_000), (120_001, 180_000), (180_010, 190_000)])
    own = Dataset(store_of(one), window=window, streams={"spikes": Spikes(bin)})
    past, horizon = own.steps("spikes")
    skipped = 0 if whole or not horizon else past
    sums: dict[tuple[int, int], list[Fraction]] = {}

    def predict(batch) -> torch.Tensor:
        made = torch.zeros(len(batch.tick), 3, past + horizon - skipped, dtype=torch.float64)
        for w, u, k in itertools.product(*map(range, made.shape)):
            tick = int(batch.tick[w])
            value = Fraction((tick * 7 + u * 31 + k * k) % 64, 4)
            made[w, u, k] = float(value)
            sums.setdefault((u, tick + floor((k + skipped) * bin * 30_000)), []).append(value)
        return made

    (found,) = stitched(own, predict)
    assert (np.diff(found.tick) > 0).all()
    assert found.start.tolist() == (found.tick / 30_000).tolist()
    seen = set()
    for u, (j, tick) in itertools.product(range(3), enumerate(found.tick.tolist())):
        given = sums.get((u, tick), [])
        assert found.count[j] == len(given)
        assert bool(found.mask[j]) is bool(given)
        if given:
            assert found.value[u, j] == pytest.approx(float(sum(given) / len(given)), abs=1e-12)
            seen.add((u, tick))
        else:
            assert np.isnan(found.value[u, j])
    assert seen == set(sums)


def test_what_predicts_the_recorded_counts_gives_the_counts_of_the_session_back() -> None:
    """On every clock, with bins that are no whole ticks and one window a horizon."""
    for rate in ("30000", "24414.0625", "1000000"):
        hertz = Fraction(rate)
        one = recording([(17, floor(9 * hertz))], rate)
        own = Dataset(store_of(one), window=Window(0.4, 0.2), streams={"spikes": Spikes(0.02)})
        (found,) = stitched(own, lambda batch: batch.future("spikes").numpy())
        assert not found.mask[:20].any()
        assert (found.count[20:] == 1).all()
        for u, unit in enumerate(found.unit_ids.tolist()):
            ticks = np.array(one.units[unit])
            edges = [17 + floor(k * hertz / 50) for k in range(20, len(found.tick) + 1)]
            for j in range(20, len(found.tick)):
                low, high = edges[j - 20 : j - 18]
                near = np.abs(ticks[:, None] - [low, high]).min(initial=9) <= 1
                counted = ((ticks >= low) & (ticks < high)).sum()
                assert found.value[u, j] == counted or near


def test_sessions_come_one_by_one_with_their_own_units(dataset: Dataset) -> None:
    own = Dataset(dataset.store, window=Window(0.4, 0.2, 0.1), streams={"spikes": Spikes(0.1)})
    found = stitched(own, lambda batch: batch.past("spikes")[:, :, :2] + batch.start[:, None, None])
    assert [one.session for one in found] == ["demo/a", "demo/b", "demo/c"]
    for one in found:
        assert one.value.shape == (len(own.unit_ids[one.session]), len(one.tick))
        assert one.unit_ids.tolist() == own.unit_ids[one.session].tolist()
    again = stitched(
        own, lambda batch: batch.past("spikes")[:, :, :2] + batch.start[:, None, None], size=400
    )
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.value, other.value)


def test_bins_of_a_split_are_those_of_its_blocks_and_say_which(dataset: Dataset) -> None:
    timeline = dataset.store.session("demo/c").timeline()
    split = interleaved_blocks("b", [timeline], block=2, ratios={"train": 2, "test": 1}, guard=0.1)
    for cross in (False, True):
        own = Dataset(
            dataset.store,
            "demo/c",
            window=Window(0.4, 0.2, 0.1),
            streams={"spikes": Spikes(0.1)},
            split=split["test"],
            history_may_cross=cross,
        )
        (found,) = stitched(own, lambda batch: torch.zeros(len(batch.tick), 7, 2))
        rows, start, stop = split["test"].blocks("demo/c")
        for row, low, high in zip(rows, start, stop, strict=True):
            ticks = found.tick[found.block == row]
            assert ticks[0] == low
            assert (ticks < high).all()
            skipped = 0 if cross else 4
            assert not found.mask[found.block == row][:skipped].any()
            assert found.mask[found.block == row][skipped:].all()
    with pytest.raises(UsageError, match="stitch the bins of the horizon alone"):
        stitched(own, lambda batch: batch["spikes"])


def test_a_stride_of_no_whole_bins_is_refused_with_both_numbers() -> None:
    store = store_of(recording([(0, 100_000)]))
    own = Dataset(store, window=Window(0.4, 0.2, 0.03), streams={"spikes": Spikes(0.02)})
    with pytest.raises(UsageError, match=r"every 0.03 s are 1.5 bins of 0.02 s"):
        stitched(own, lambda batch: batch["spikes"])


def test_what_cannot_be_stitched_is_refused() -> None:
    one = three()[0]
    store = store_of(one)
    streams = {"spikes": Spikes(0.1), "position": Behaviour("position", rate=20)}
    own = Dataset(store, window=Window(0.4, 0.2), streams=streams)
    with pytest.raises(UsageError, match=r"\(5, 5, 2\) or \(5, 5, 6\) .*, found \(5, 5, 3\)"):
        stitched(own, lambda batch: batch["spikes"][:, :, :3], size=5)
    with pytest.raises(UsageError, match="by unit and bin, which 'position' has not"):
        next(own.stitch([], "position"))
    with pytest.raises(NotFoundError, match="spike"):
        next(own.stitch([], "spike"))
    around = Dataset(store, window=Window(0.4, 0.2, around="trials.start"), streams=streams)
    with pytest.raises(UsageError, match=r"around trials\.start follow no stride"):
        next(around.stitch([]))
    assert list(own.stitch([])) == []
    off = own.window("demo/a", 0.001)
    with pytest.raises(UsageError, match="at tick 30 is none of the plan"):
        list(own.stitch([(off, off["spikes"])]))


def test_batches_that_are_out_of_order_are_refused(dataset: Dataset) -> None:
    own = Dataset(dataset.store, window=Window(0.4, 0.2), streams=LIGHT)
    with pytest.raises(UsageError, match=r"comes after those of .*plan order"):
        list(own.stitch((batch, batch["spikes"]) for batch in own.loader(20, seed=1)))
