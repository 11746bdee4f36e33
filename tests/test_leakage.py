"""What may not be known: foreign addresses, what was fitted elsewhere, shared units, the future."""

import pickle
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from _sampled import Recording, names, spiking, store_of, three

import neurostore
from neurostore import Behaviour, Dataset, SpikeEvents, Spikes, Trials, UsageError, Window
from neurostore.intervals import Intervals
from neurostore.sample import (
    Activity,
    Normaliser,
    Presentation,
    Staggered,
    TimeAligned,
    fitted_on,
    refuse_shared_units,
)
from neurostore.sample.plan import Address
from neurostore.splits import Fitted, Split, interleaved_blocks, refuse_leak

WINDOW = Window(0.4, 0.2, 0.1)
STREAMS = {"spikes": Spikes(0.1), "position": Behaviour("position", rate=20, max_gap=0.1)}
ROWS = [
    ("demo/a", 0, 90_000, "train"),
    ("demo/a", 93_000, 180_000, "validation"),
    ("demo/a", 183_000, 270_000, "test"),
    ("demo/a", 420_000, 600_000, "train"),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def store():
    return store_of(*three())


def split_of(rows: list[tuple[str, int, int, str]], name: str = "blocks") -> Split:
    session, start, stop, label = (np.array(one) for one in zip(*rows, strict=True))
    definition = {"sessions": {"demo/a": {"rate": "30000", "origin": 0}}}
    return Split(name, definition, session, start, stop, label)


def part(store, label: str | None, **more) -> Dataset:
    split = None if label is None else split_of(ROWS)[label]
    arguments = {"window": WINDOW, "streams": STREAMS, "split": split, **more}
    return Dataset(store, arguments.pop("sessions", "demo/a"), **arguments)


def address(start: int, block: int, session: int = 0) -> Address:
    session, start, block = (np.array([one]) for one in (session, start, block))
    return Address(session, start, block, place=start)


# ---- targets outside their split, or in a guard


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (93_000, "validation"),
        (183_000, "test"),
        (80_000, "the guard before validation"),
        (88_000, "two blocks"),
        (300_000, "time of no label"),
        (-20_000, "before the session"),
        (10**9, "after the session"),
    ],
)
def test_an_address_outside_the_split_is_refused_by_every_way_to_a_window(
    store, start: int, what: str
) -> None:
    train = part(store, "train")
    with pytest.raises(UsageError, match=r"does not lie in one block of 'blocks/train'"):
        train.window("demo/a", Fraction(start, 30_000))
    for block in (-1, 0, 1, 3):
        with pytest.raises(UsageError, match=r"demo/a does not lie in one block"):
            train.read(address(start, block))


def test_one_foreign_address_among_good_ones_is_refused(store) -> None:
    train = part(store, "train")
    good = train.plan.address(np.arange(5))
    assert train.read(good).tick.tolist() == good.start.tolist()
    start = good.start.copy()
    start[3] = 100_000
    with pytest.raises(UsageError, match=r"\[3.33333, 3.93333\) s of demo/a"):
        train.read(Address(good.session, start, good.block, good.place))


def test_an_address_that_says_another_block_or_session_is_refused(store) -> None:
    train = part(store, "train")
    assert train.read(address(0, 0)).block.tolist() == [0]
    with pytest.raises(UsageError, match="lies in block 0 of the split, its address says 3"):
        train.read(address(0, 3))
    with pytest.raises(UsageError, match="has 1 sessions, found row 1"):
        train.read(address(0, 0, session=1))
    free = part(store, None)
    assert free.read(address(0, -1)).block.tolist() == [-1]
    with pytest.raises(UsageError, match="lies in block -1 of the split, its address says 0"):
        free.read(address(0, 0))


# ---- what was fitted


def allowed(fit: str | None, use: str) -> bool:
    """Whether what is fitted on one label may be used where another is predicted."""
    return (
        fit in {"train": {"train"}, "validation": {"train"}, "test": {"train", "validation"}}[use]
    )


@pytest.mark.parametrize("use", ["train", "validation", "test"])
@pytest.mark.parametrize("fit", ["train", "validation", "test", None])
def test_a_normaliser_is_refused_where_it_was_fitted_on_what_is_predicted(
    store, fit: str | None, use: str
) -> None:
    made = Normaliser.fit(part(store, fit), "position")
    if allowed(fit, use):
        assert isinstance(part(store, use, transform=made)[0]["position"], torch.Tensor)
        return
    with pytest.raises(UsageError, match=r"z scores of position was fitted on \[") as caught:
        part(store, use, transform=made)
    said = str(caught.value)
    assert "of demo/a, which touches the" in said
    assert f"is used in {use!r}" in said
    assert "\n" not in said


def test_the_error_of_a_leak_names_session_and_both_intervals(store) -> None:
    made = Normaliser.fit(part(store, None), "position")
    said = (
        r"fitted on \[0, 12\) s of demo/a, which touches the 'validation' block \[3.1, 6\) s of "
        r"split 'blocks', and is used in 'train'"
    )
    with pytest.raises(UsageError, match=said):
        part(store, "train", transform=made)


def test_time_of_no_label_and_other_sessions_leak_nothing() -> None:
    split = split_of(ROWS)
    gap = Intervals(np.array([90_000, 270_000]), np.array([93_000, 420_000]))
    for label in split.labels:
        refuse_leak(Fitted("it", {"demo/a": gap, "demo/z": Intervals([0], [9])}), split[label])
    one_more = gap | Intervals(np.array([92_999]), np.array([93_001]))
    with pytest.raises(UsageError, match="'validation'"):
        refuse_leak(Fitted("it", {"demo/a": one_more}), split["train"])


def test_what_was_fitted_on_another_split_is_judged_by_its_time() -> None:
    fitted = Fitted("it", {"demo/a": Intervals(np.array([0]), np.array([90_000]))}, "0" * 64, "fit")
    refuse_leak(fitted, split_of(ROWS)["test"])
    with pytest.raises(UsageError, match="'test' block"):
        refuse_leak(fitted, split_of([*ROWS[1:2], ("demo/a", 50, 60, "test")])["test"])


def test_a_transform_of_ones_own_says_on_what_it_was_fitted_and_is_judged_alike(store) -> None:
    class Mine:
        def __call__(self, batch):
            return batch

    mine = Mine()
    part(store, "test", transform=mine)
    mine.fitted = (fitted_on(part(store, "train"), "a"), fitted_on(part(store, "test"), "b"))
    with pytest.raises(UsageError, match=r"^b was fitted on"):
        part(store, "test", transform=mine)
    mine.fitted = ["train"]
    with pytest.raises(UsageError, match="is a Fitted, or several; found str"):
        part(store, "test", transform=mine)


@pytest.mark.parametrize("cross", [False, True])
def test_what_was_fitted_on_is_the_time_of_all_windows(store, cross: bool) -> None:
    train = part(store, "train", history_may_cross=cross)
    found = fitted_on(train, "it")
    starts = train.plan.address(np.arange(len(train))).start
    assert found.intervals["demo/a"] == Intervals(starts, starts + 18_000)
    assert (found.split, found.label) == (train.split.digest, "train")
    assert Fitted.from_json(found.to_json()).intervals == found.intervals
    refuse_leak(found, train.split)


@pytest.mark.parametrize("said", [{}, {"what": "x", "intervals": [], "split": None}, {"what": 1}])
def test_json_that_is_nothing_fitted_is_refused(said: dict) -> None:
    with pytest.raises(UsageError, match=r"nothing that Fitted\.to_json gives"):
        Fitted.from_json(said)


# ---- the normaliser


def test_z_scores_have_the_moments_of_plain_sums_over_what_is_observed(store) -> None:
    train = part(store, "train", sessions=None)
    made = Normaliser.fit(train, "position")
    values: list[list[Fraction]] = [[], []]
    for number in range(len(train)):
        window = train[number]
        for row in window["position"][0][window.mask["position"][0]].tolist():
            for channel, value in zip(values, row, strict=True):
                channel.append(Fraction(value))
    for channel, own in enumerate(values):
        mean = sum(own) / len(own)
        square = sum((one - mean) ** 2 for one in own) / len(own)
        assert made.mean[channel] == pytest.approx(float(mean), abs=1e-12)
        assert made.std[channel] == pytest.approx(float(square) ** 0.5, rel=1e-12)


def test_a_normalised_batch_is_centred_and_what_is_masked_stays_zero(store) -> None:
    train = part(store, "train", sessions=None)
    made = pickle.loads(pickle.dumps(Normaliser.fit(train, "position")))
    own = part(store, "train", sessions=None, transform=made)
    batch, plain = own.sample(len(own)), train.sample(len(train))
    seen = batch.mask["position"]
    assert abs(batch["position"][seen].mean()) < 1e-5
    assert batch["position"][seen].std(dim=0).numpy() == pytest.approx([1, 1], abs=1e-3)
    assert not batch["position"][~seen].any()
    assert torch.equal(batch["spikes"], plain["spikes"])
    assert not torch.equal(batch["position"], plain["position"])


def test_what_has_no_z_score_is_refused(store) -> None:
    train = part(store, "train")
    with pytest.raises(UsageError, match="'spikes' has units"):
        Normaliser.fit(train, "spikes")
    with pytest.raises(UsageError, match="Did you mean 'position'"):
        Normaliser.fit(train, "positio")
    one = Recording("d/s", "1000", units={"u": [0, 900]}, observed=[(0, 1_000)])
    one.position = [(k * 20, [float(k), 7.0], True) for k in range(50)]
    constant = Dataset(store_of(one), window=WINDOW, streams={"p": Behaviour("position", rate=20)})
    with pytest.raises(UsageError, match="Channel 1 of 'p' is constant"):
        Normaliser.fit(constant, "p")
    made = Normaliser.fit(train, "position")
    spikes = {"spikes": Spikes(0.1)}
    with pytest.raises(UsageError, match="No tensor 'position' in this batch"):
        part(store, "train", streams=spikes, transform=made)[0]


# ---- units


def test_units_that_were_fitted_and_are_evaluated_as_unseen_are_named(store) -> None:
    fit = part(store, None, sessions=["demo/a", "demo/b"])
    with pytest.raises(UsageError, match=r"5 units .* demo/a a0, demo/a a1, .*demo/a a4\. Choose"):
        refuse_shared_units(fit, part(store, None))
    with pytest.raises(UsageError, match=r"1 unit .* was fitted: demo/a a3\. Choose"):
        refuse_shared_units(
            part(store, None, units="unit IN ('a3', 'a1')"),
            part(store, None, units="unit IN ('a3', 'a2')"),
        )
    refuse_shared_units(fit, part(store, None, sessions="demo/c"))
    refuse_shared_units(
        part(store, None, units="unit = 'a0'"), part(store, None, units="unit = 'a1'")
    )


def test_units_of_a_session_without_windows_were_not_fitted(store) -> None:
    rows = [("demo/a", 0, 600_000, "train"), ("demo/c", 10**6, 20 * 10**6, "test")]
    split = split_of(rows)
    fit, test = (
        part(store, None, sessions=["demo/a", "demo/c"], split=split[label])
        for label in ("train", "test")
    )
    refuse_shared_units(fit, test)
    with pytest.raises(UsageError, match="5 units"):
        refuse_shared_units(fit, fit)


# ---- the future


EVERY = {
    "spikes": Spikes(0.05),
    "position": Behaviour("position", rate=100, max_gap=0.06),
    "events": SpikeEvents(),
}
"""Streams that causal windows may have."""
EVENTS = {"events.time", "events.unit", "events.observed"}


def disturbed(one: Recording, present: int, rng: random.Random) -> Recording:
    """The same up to a tick, and from it on other spikes, samples, trials and observed time."""
    made = Recording(one.id, one.rate, regions=one.regions)
    end = present + 200 * 30_000
    for name, own in one.units.items():
        kept = [tick for tick in own if tick < present]
        made.units[name] = kept + spiking(rng, 400, present, end)
    made.observed = {
        name: [(a, min(b, present)) for a, b in one.seen(name) if a < present]
        + ([(present + rng.randrange(1, 900), end)] if rng.random() < 0.7 else [])
        for name in one.units
    }
    before = [sample for sample in one.position if sample[0] < present]
    ticks = sorted(rng.sample(range(present, end), 300))
    made.position = before + [(t, [rng.gauss(0, 90)] * 2, rng.random() < 0.7) for t in ticks]
    made.trials = [
        (a, b if b <= present else present + rng.randrange(1, 90_000))
        for a, b in one.trials
        if a <= present
    ]
    made.trials += [(present + 1 + k * 7_000, present + k * 7_000 + 5_000) for k in range(3)]
    return made


@pytest.mark.parametrize("window", [Window(0.4, 0.2), Window(0.4)], ids=["horizon", "none"])
def test_nothing_of_a_causal_window_changes_with_what_comes_from_its_present_on(
    window: Window,
) -> None:
    rng = random.Random(8)
    one = three()[0]
    one.columns = {}
    streams, causal = EVERY, store_of(one)
    dataset = Dataset(causal, window=window, streams=streams, causal=True)
    loose = Dataset(causal, window=window, streams=streams)
    changed = 0
    for _ in range(10):
        start = rng.randrange(0, 560_000)
        present = start + 12_000
        other = store_of(disturbed(one, present, rng))
        batches = [
            Dataset(each, window=window, streams=streams, causal=True).window(
                "demo/a", Fraction(start, 30_000)
            )
            for each in (dataset.store, other)
        ]
        first, second = batches
        assert set(first) == set(second) == {"spikes", "position"} | EVENTS
        for name in first:
            if name not in EVENTS:
                axis, past, ahead = first.steps[name]
                assert (first[name].shape[axis], ahead) == (past, 0)
            assert torch.equal(first[name], second[name])
            assert torch.equal(first.reason[name], second.reason[name])
        for said in ("start", "tick", "trial", "region", "unit_mask"):
            assert torch.equal(*(getattr(batch, said) for batch in batches))
        plain = [
            Dataset(each, window=window, streams=streams).window("demo/a", Fraction(start, 30_000))
            for each in (loose.store, other)
        ]
        changed += not torch.equal(plain[0]["position"], plain[1]["position"])
    assert changed > 0  # without causal=True they do


def test_a_causal_window_is_the_history_of_the_plain_one(store) -> None:
    plain, causal = (part(store, "train", causal=causal) for causal in (False, True))
    assert causal.plan.digest == plain.plan.digest
    one, other = plain.sample(40), causal.sample(40)
    for name in STREAMS:
        assert torch.equal(other[name], one.past(name))
        assert torch.equal(other.past(name), one.past(name))
        assert torch.equal(other.past_mask(name), one.past_mask(name))
        assert other.future(name).numel() == 0
    assert causal.steps("spikes") == (4, 0)
    assert "the history alone" in repr(causal)
    assert causal.identity() != plain.identity()
    reopen, state = causal.__reduce__()
    assert reopen(*state).steps("spikes") == (4, 0)


def test_causal_events_are_those_of_the_history(store) -> None:
    streams = {"events": SpikeEvents()}
    plain, causal = (
        Dataset(store, window=WINDOW, streams=streams, causal=causal) for causal in (False, True)
    )
    for number in range(0, len(plain), 37):
        one, other = plain[number], causal[number]
        time, unit = (one[f"events.{name}"][0] for name in ("time", "unit"))
        past = time < 0.4
        past &= one.reason["events.time"][0] != 3  # outside of its unit's time, and 0 s
        held = other.reason["events.time"][0] != 3
        assert torch.equal(other["events.time"][0][held], time[past])
        assert torch.equal(other["events.unit"][0][held], unit[past])
    with pytest.raises(UsageError, match="no axis of time"):
        Dataset(store, window=WINDOW, streams={"t": Trials(("score",)), **streams}, causal=True)


def test_predictions_of_causal_windows_are_stitched_into_their_horizon(store) -> None:
    causal = part(store, "train", causal=True)
    pairs = (
        (batch, torch.ones(len(batch.tick), 5, 2)) for batch in causal.loader(9, shuffle=False)
    )
    (found,) = causal.stitch(pairs)
    assert set(found.value[:, found.mask].ravel()) == {1.0}
    assert not found.mask[:4].any()
    assert found.mask[4:20].all()


@pytest.mark.parametrize(
    ("window", "stream", "said"),
    [
        (Window(0.0, 0.2), SpikeEvents(), "this one has none"),
        (WINDOW, Trials(("score",)), "'x' .Trials. has no axis of time"),
        (WINDOW, Behaviour("position", rate=20), "max_gap from all samples"),
        (Window(0.0, 0.2), Spikes(0.1), "this one has none"),
    ],
)
def test_a_stream_that_would_look_ahead_is_refused(store, window, stream, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Dataset(store, "demo/a", window=window, streams={"x": stream}, causal=True)


def known_of_test(stream: Any, disturb: Any, window: Window, **said: Any) -> bool:
    """Whether a training batch changes with what was recorded in test time alone."""
    batches = []
    for disturbed in (False, True):
        made = disturb(disturbed)
        timeline = made.session("d/s").timeline()
        split = interleaved_blocks("b", [timeline], block=1, ratios={"train": 2, "test": 1})
        dataset = Dataset(made, window=window, streams={"p": stream}, split=split["train"], **said)
        batches.append(dataset.sample(len(dataset)))
    first, second = batches
    assert first.mask["p"].any()
    same = torch.equal(first["p"], second["p"]) and torch.equal(
        first.reason["p"], second.reason["p"]
    )
    return not same


def in_test(tick: int) -> bool:
    return tick // 1_000 % 3 == 2


def tracked(disturbed: bool) -> Any:
    """Samples every 33 ms; other values, not valid and at other times, in test time."""
    rng = random.Random(3)
    one = Recording("d/s", "1000", units={"u": [0, 29_999]}, observed=[(0, 30_000)])
    one.position = [(k * 33, [rng.gauss(0, 1)], True) for k in range(900)]
    if disturbed:
        one.position = [
            (tick + tick % 1_000 // 50, [99.0], False) if in_test(tick) else (tick, value, valid)
            for tick, value, valid in one.position
            if not in_test(tick) or tick % 1_000 < 940
        ]
    return store_of(one)


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("max_gap", [None, 0.05, 0.2, 1.0, 10.0])
def test_training_knows_no_behaviour_of_test_time(
    max_gap: float | None, causal: bool, cross: bool
) -> None:
    stream = Behaviour("position", rate=100, max_gap=max_gap, causal=causal)
    for window in (Window(0.3, 0.2, 0.1), Window(0.0, 1.0), Window(0.5)):
        may = {"history_may_cross": cross and bool(window.horizon)}
        assert not known_of_test(stream, tracked, window, **may)


def test_what_lies_beside_a_block_is_known_without_a_split_and_masked_with_one() -> None:
    store = tracked(False)
    stream = {"p": Behaviour("position", rate=100, max_gap=0.05)}
    split = interleaved_blocks(
        "b", [store.session("d/s").timeline()], block=1, ratios={"train": 2, "test": 1}
    )
    own = Dataset(store, window=Window(0.0, 1.0), streams=stream, split=split["train"])
    free = Dataset(store, window=Window(0.0, 1.0), streams=stream)
    # Block [3, 4) s has samples from 3.003 s to 3.993 s on.
    one, other = own.window("d/s", 3), free.window("d/s", 3)
    assert other.mask["p"].all()
    assert one.reason["p"][0].tolist() == [3] + [0] * 99
    assert torch.equal(one["p"][0, 1:], other["p"][0, 1:])
    # Of [4, 5) s, 4.026 s to 4.983 s; both are for training, and a window has its own block alone.
    assert own.window("d/s", 4).reason["p"][0].tolist() == [3] * 3 + [0] * 96 + [3]
    may = Dataset(
        store,
        window=Window(0.5, 0.5),
        streams=stream,
        split=split["train"],
        history_may_cross=True,
    )
    # Time of a label it may not see ends at 3 s: the history of [4, 4.5) s reaches that far.
    crossed = may.window("d/s", 3.5)
    assert crossed.reason["p"][0].tolist() == [0] * 100
    assert may.window("d/s", 3).reason["p"][0].tolist() == [3] + [0] * 99
    for dataset in (own, may):
        batch, same = dataset.sample(len(dataset)), dataset.to("cpu").sample(len(dataset))
        assert torch.equal(same["p"], batch["p"])
        assert torch.equal(same.reason["p"], batch.reason["p"])
        again = dataset.read(dataset.plan.address(np.arange(len(dataset))))
        assert torch.equal(
            again.reason["p"], dataset.batch(np.arange(len(dataset)), seed=None).reason["p"]
        )


def driven(disturbed: bool) -> Any:
    """Dense activity at 50 Hz, and what was on the screen; others in test time."""
    value = np.arange(1_500, dtype=np.float32)[:, None]
    start = np.arange(0, 30, 0.25)
    row = np.arange(120) % 7
    if disturbed:
        value[[in_test(k * 20) for k in range(1_500)]] = -1
        row[[in_test(round(1_000 * t)) for t in start]] = 3
    store = neurostore.create(f"memory://driven-{next(names)}")
    made = neurostore.SessionBuilder(dataset="d", session="s", rate=1_000)
    made.add_activity("v", value, start=0.0, rate=50, units="mV")
    made.add_presentations("movie", start, start + 0.25, stimulus="clip", row=row)
    with store.transaction("driven") as tx:
        tx.put(made)
    return store


@pytest.mark.parametrize("frequency", [None, "every step", "hold", "interpolate"])
def test_training_knows_no_dense_activity_of_test_time(frequency: Any) -> None:
    # Interpolation reads one row more than it gives, and none beyond its window.
    steps = None if frequency is None else 40
    stream = Activity("v", steps=steps, frequency=frequency)
    window = Window(0.2, 0.62, 0.1)
    for acquisition in (TimeAligned(5), Staggered(5, 1)):
        assert not known_of_test(stream, driven, window, acquisition=acquisition)


def test_training_knows_nothing_of_what_was_shown_in_test_time() -> None:
    stream = Presentation("movie", rate=20)
    assert not known_of_test(stream, driven, Window(0.2, 0.3, 0.1))
