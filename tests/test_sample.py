"""Windows out of a store against plain loops: values, masks, reasons, and where windows may lie."""

import itertools
import json
import random
import re
from fractions import Fraction
from functools import cache
from math import floor
from pathlib import Path

import numpy as np
import pytest
import torch
from _sampled import (
    NOT_RECORDED,
    OBSERVED,
    OUTSIDE,
    Recording,
    counts,
    events,
    inside,
    position,
    spiking,
    store_of,
    three,
    trial,
    union,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import neurostore
from neurostore import (
    Behaviour,
    Dataset,
    NotFoundError,
    SessionBuilder,
    SpikeEvents,
    Spikes,
    Trials,
    UsageError,
    Window,
)
from neurostore.clocks import Clock
from neurostore.splits import Split, interleaved_blocks

RATES = {"30 kHz": "30000", "1 us": "1000000", "TDT": "24414.0625"}
COUNTS = {"spikes": Spikes(0.02)}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def lab() -> tuple[dict[str, Recording], object]:
    recordings = three()
    return {one.id: one for one in recordings}, store_of(*recordings)


def split_of(session: str, rows: list[tuple[int, int, str]], name: str = "blocks") -> Split:
    start, stop, label = zip(*rows, strict=True)
    ticks = (np.array(one, dtype=np.int64) for one in (start, stop))
    return Split(name, {}, np.array([session] * len(rows)), *ticks, np.array(label))


# ---- counts


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_of_2000_windows_at_any_start_none_differs_by_one_count(rate: str) -> None:
    """By number and by time; before, inside and past the session; starts on spikes and on bins."""
    rng, hertz = random.Random(1), Fraction(rate)
    one = Recording("d/s", rate)
    low, high = floor(-2 * hertz), floor(30 * hertz)
    one.units = {f"u{k}": spiking(rng, 500, low, high) for k in range(4)}
    one.units |= {"silent": [], "edges": [round(k * hertz / 50) for k in range(1_000)]}
    one.observed = [(low, floor(11 * hertz)), (floor(12 * hertz), high)]
    store = store_of(one)
    chosen = "unit IN ('u3', 'edges', 'silent', 'u1')"
    dataset = Dataset(store, units=chosen, window=Window(0.3, 0.1, 0.0171), streams=COUNTS)
    units = dataset.unit_ids["d/s"].tolist()
    assert sorted(units) == ["edges", "silent", "u1", "u3"]

    starts = [rng.uniform(-3, 31) for _ in range(400)]
    starts += [round(rng.uniform(-3, 31), 2) for _ in range(200)]
    starts += [float(tick / hertz) for tick in rng.sample(one.units["edges"], 100)]
    batches = [dataset.window("d/s", start) for start in starts]
    ticks = [round(Fraction(str(start)) * hertz) for start in starts]
    assert [int(batch.tick[0]) for batch in batches] == ticks
    batches += [dataset.sample(1_300, seed=1)]

    wrong = windows = 0
    for batch in batches:
        for row in range(len(batch.session)):
            expected = counts(one, units, int(batch.tick[row]), Fraction(1, 50), 20)
            found = batch["spikes"][row].tolist(), batch.reason["spikes"][row].tolist()
            wrong += found != expected
            windows += 1
    assert windows == 2_000
    assert wrong == 0


@pytest.mark.parametrize(
    ("rate", "bin", "history", "horizon"),
    [
        ("30000", "1/3000", "1/3", "1/6"),
        ("1000000", "1/3000", "1/30", "1/60"),
        ("24414.0625", "1/300", "1/5", "1/10"),
        ("1000", "0.0015", "0.15", "0.03"),
        ("100000/3", "0.0007", "0.14", "0.07"),
        ("7", "3/7", "30/7", "3/7"),
        ("7", "0.3", "3", "0.6"),
    ],
)
def test_bins_that_do_not_divide_the_clock_are_counted_exactly(
    rate: str, bin: str, history: str, horizon: str
) -> None:
    rng, hertz = random.Random(2), Fraction(rate)
    one = Recording("d/s", rate)
    stop = max(60, floor(3 * hertz))
    one.units = {f"u{k}": spiking(rng, 200, -20, stop) for k in range(2)}
    one.observed = [(-20, stop)]
    dataset = Dataset(store_of(one), window=Window(history, horizon), streams={"s": Spikes(bin)})
    bins = sum(dataset.steps("s"))
    assert bins == (Fraction(history) + Fraction(horizon)) / Fraction(bin)
    for _ in range(25):
        tick = rng.randrange(-40, stop + 20)
        batch = dataset.window("d/s", tick / hertz)
        assert batch.tick.tolist() == [tick]
        expected = counts(one, ["u0", "u1"], tick, Fraction(bin), bins)
        assert (batch["s"][0].tolist(), batch.reason["s"][0].tolist()) == expected
    json.dumps(dataset.identity())
    repr(dataset)


# ---- batches over unlike sessions


MANY = {
    "spikes": Spikes(0.05),
    "events": SpikeEvents(),
    "position": Behaviour("position", rate=40, max_gap=0.05),
    "trial": Trials(("side", "score", "cue_time", "stop")),
}


@pytest.mark.parametrize("seed", [0, 1])
def test_a_batch_over_unlike_sessions_equals_the_reference_everywhere(seed: int) -> None:
    known, store = lab()
    window = Window(0.4, 0.2, 0.11)
    dataset = Dataset(store, window=window, streams=MANY)
    batch = dataset.sample(90, seed=seed)
    assert set(batch.session) == set(known)
    drawn = [dataset.window(id, start) for id in known for start in (-3.1, 0.31, 8.7, 19.8, 30.0)]
    for one in (batch, *drawn):
        _equals_reference(one, known, dataset)


def _equals_reference(batch, known: dict[str, Recording], dataset: Dataset) -> None:
    width = max(len(known[id].units) for id in batch.session)
    assert batch["spikes"].shape == (len(batch.session), width, 12)
    assert batch["position"].shape == (len(batch.session), 24, 2)
    for row, id in enumerate(batch.session):
        one, tick = known[id], int(batch.tick[row])
        units = list(one.units)
        assert batch.start[row] == float(Clock(one.rate).seconds(np.array(tick)))
        assert batch.unit_ids[row].tolist() == units
        assert batch.unit_mask[row].tolist() == [k < len(units) for k in range(width)]
        names = [one.regions.get(unit) for unit in units] + [None] * (width - len(units))
        codes = [-1 if name is None else dataset.regions.index(name) for name in names]
        assert batch.region[row].tolist() == codes
        present = tick + floor(Fraction(2, 5) * one.hertz)
        assert int(batch.trial[row]) == trial(one, present)
        _equals_spikes(batch, row, one, tick)
        _equals_events(batch, row, one, tick)
        _equals_position(batch, row, one, tick)
        _equals_trial(batch, row, one, dataset)
    for name, tensor in batch.items():
        mask = batch.mask[name]
        assert (mask == (batch.reason[name] == OBSERVED)).all()
        assert not tensor[~mask].any()


def _equals_spikes(batch, row: int, one: Recording, tick: int) -> None:
    values, reasons = counts(one, list(one.units), tick, Fraction(1, 20), 12)
    padding = batch["spikes"].shape[1] - len(values)
    values += [[0] * 12] * padding
    reasons += [[NOT_RECORDED] * 12] * padding
    assert batch["spikes"][row].tolist() == values
    assert batch.reason["spikes"][row].tolist() == reasons


def _equals_events(batch, row: int, one: Recording, tick: int) -> None:
    stop = tick + floor(Fraction(3, 5) * one.hertz)
    expected = events(one, list(one.units), tick, stop)
    padding = batch["events.time"].shape[1] - len(expected)
    assert padding >= 0
    expected += [(Fraction(0), 0, NOT_RECORDED)] * padding
    found = batch["events.time"][row].numpy()
    assert (found == np.array([float(s) for s, _, _ in expected], np.float32)).all()
    assert batch["events.unit"][row].tolist() == [place for _, place, _ in expected]
    for name in ("events.time", "events.unit"):
        assert batch.reason[name][row].tolist() == [why for _, _, why in expected]
    seen = [inside(one.seen(unit), tick, stop) for unit in one.units]
    padding = batch["events.observed"].shape[1] - len(seen)
    reasons = [OBSERVED if good else OUTSIDE for good in seen] + [NOT_RECORDED] * padding
    assert batch["events.observed"][row].tolist() == seen + [False] * padding
    assert batch.reason["events.observed"][row].tolist() == reasons


def _equals_position(batch, row: int, one: Recording, tick: int) -> None:
    if one.position is None:
        assert (batch.reason["position"][row] == NOT_RECORDED).all()
        return
    present = tick + floor(Fraction(2, 5) * one.hertz)
    values, reasons = position(one, tick, present, Fraction(40), 24, 0.05)
    assert batch.reason["position"][row].tolist() == reasons
    expected = np.array([[float(value) for value in at] for at in values])
    np.testing.assert_allclose(batch["position"][row], expected, rtol=2e-6, atol=2e-6)


def _equals_trial(batch, row: int, one: Recording, dataset: Dataset) -> None:
    number = int(batch.trial[row])
    for column in ("side", "score", "cue_time", "stop"):
        name = f"trial.{column}"
        value, why = batch[name][row].item(), int(batch.reason[name][row])
        if one.trials is None or (column == "cue_time" and column not in one.columns):
            assert (value, why) == (0, NOT_RECORDED)
        elif number < 0:
            assert (value, why) == (0, OUTSIDE)
        elif column == "side":
            assert dataset.categories[name][value] == one.columns[column][number]
            assert why == OBSERVED
        elif column == "stop":
            seconds = (one.trials[number][1] - int(batch.tick[row])) / one.hertz
            assert (value, why) == (np.float32(float(seconds)), OBSERVED)
        elif np.isnan(one.columns[column][number]):
            assert (value, why) == (0, 4)
        elif column == "cue_time":
            cue = round(Fraction(str(one.columns[column][number])) * one.hertz)
            seconds = (cue - int(batch.tick[row])) / one.hertz
            assert (value, why) == (np.float32(float(seconds)), OBSERVED)
        else:
            assert (value, why) == (np.float32(one.columns[column][number]), OBSERVED)


def test_past_and_future_are_the_steps_before_and_from_the_present() -> None:
    _, store = lab()
    dataset = Dataset(store, window=Window(0.4, 0.2), streams=MANY)
    assert dataset.steps("spikes") == (8, 4)
    assert dataset.steps("position") == (16, 8)
    batch = dataset.sample(9)
    whole = torch.cat([batch.past("spikes"), batch.future("spikes")], dim=2)
    assert torch.equal(whole, batch["spikes"])
    whole = torch.cat([batch.past("position"), batch.future("position")], dim=1)
    assert torch.equal(whole, batch["position"])
    whole = torch.cat([batch.past_mask("position"), batch.future_mask("position")], dim=1)
    assert torch.equal(whole, batch.mask["position"])
    for wrong in ("spike", "events.time", "trial.score"):
        with pytest.raises(NotFoundError):
            batch.past(wrong)
    with pytest.raises(NotFoundError, match="'position'"):
        dataset.steps("positon")
    with pytest.raises(NotFoundError, match="'spikes'"):
        batch["spike"]


def test_a_stream_alone_reads_the_same_as_beside_others() -> None:
    _, store = lab()
    together = Dataset(store, window=Window(0.4, 0.2), streams=MANY).sample(20, seed=3)
    for name, stream in MANY.items():
        alone = Dataset(store, window=Window(0.4, 0.2), streams={name: stream}).sample(20, seed=3)
        for key in alone:
            assert torch.equal(alone[key], together[key])
            assert torch.equal(alone.reason[key], together.reason[key])


def test_a_session_without_units_or_spikes_is_served_for_what_it_has() -> None:
    builder = SessionBuilder(dataset="demo", session="z", rate=1000)
    builder.add_behaviour("position", np.zeros((500, 2)), start=0, rate=50, units="cm")
    builder.add_observed([0.0], [10.0])
    store = store_of(*three())
    with store.transaction("tracking alone") as tx:
        tx.put(builder)
    dataset = Dataset(store, window=Window(0.4, 0.2), streams=MANY)
    assert len(dataset.unit_ids["demo/z"]) == 0
    batch = dataset.window("demo/z", 2.0)
    assert batch["spikes"].shape == (1, 0, 12)
    assert batch.mask["position"].all()
    mixed = dataset.sample(len(dataset), seed=0)
    lone = torch.tensor([id == "demo/z" for id in mixed.session])
    assert lone.any()
    assert (mixed.reason["spikes"][lone] == NOT_RECORDED).all()
    assert not mixed.unit_mask[lone].any()
    said = repr(dataset)
    assert "demo/z" in said
    assert "position in demo/b" in said
    with pytest.raises(UsageError, match="none of the 1 sessions"):
        Dataset(store, "demo/z", window=Window(0.4, 0.2), streams=COUNTS)


def test_units_chosen_in_one_session_only_leave_the_other_padded() -> None:
    known, store = lab()
    dataset = Dataset(store, units="region = 'LP'", window=Window(0.4, 0.2), streams=COUNTS)
    assert {id: len(ids) for id, ids in dataset.unit_ids.items()} == {
        "demo/a": 0,
        "demo/b": 1,
        "demo/c": 0,
    }
    batch = dataset.sample(60)
    rows = torch.tensor([id == "demo/b" for id in batch.session])
    assert (batch.reason["spikes"][~rows] == NOT_RECORDED).all()
    for row in torch.nonzero(rows).ravel().tolist():
        expected, _ = counts(known["demo/b"], ["b1"], int(batch.tick[row]), Fraction(1, 50), 30)
        assert batch["spikes"][row].tolist() == expected


def test_a_column_that_is_text_here_and_numbers_there_is_refused() -> None:
    a, _, c = three()
    a.columns = {"side": ["left"] * 9}
    c.columns = {"side": list(range(15))}
    store = store_of(a, c)
    with pytest.raises(UsageError, match=r"text in demo/a.*numbers in demo/c"):
        Dataset(store, window=Window(0.4, 0.2), streams={"trial": Trials(("side",))})


# ---- where windows lie


def grid_starts(
    pieces: dict[int, list[tuple[int, int]]], before: int, length: int, step: Fraction
) -> list[tuple[int, int]]:
    """(start, block) of every window whose target begins on the grid of a piece."""
    made = []
    for block, extents in pieces.items():
        for low, high in extents:
            k = 0
            while low - before + floor(k * step) + length <= high:
                made.append((low - before + floor(k * step), block))
                k += 1
    return sorted(made)


def cut(extents: list[tuple[int, int]], low: int, high: int) -> list[tuple[int, int]]:
    parts = [(max(a, low), min(b, high)) for a, b in extents]
    return [(a, b) for a, b in parts if a < b]


extents = st.lists(
    st.tuples(st.integers(-60, 200), st.integers(1, 90)).map(lambda one: (one[0], sum(one))),
    min_size=1,
    max_size=4,
).map(union)
labels = st.sampled_from(["train", "validation", "test", "other"])


@st.composite
def rows_of_a_split(draw: st.DrawFn) -> list[tuple[int, int, str]]:
    edges = sorted(draw(st.sets(st.integers(-70, 280), min_size=3, max_size=9)))
    rows = [(a, b, draw(labels)) for a, b in itertools.pairwise(edges)]
    return [row for row in rows if draw(st.integers(0, 5))] or rows[:1]


class _Laid:
    """What `lay_session` gives for recordings that no store holds."""

    def __init__(self, observed: list[list[tuple[int, int]]]) -> None:
        from neurostore.intervals import Intervals
        from neurostore.sample import Chosen

        class Alone:
            id, clock, tables = "d/s", Clock(100), ("intervals/observed",)

        ids = np.array([f"u{k}" for k in range(len(observed))], dtype=object)
        self.chosen = Chosen(Alone(), np.arange(len(ids)), ids, ids)
        kinds = [Intervals(*np.array(own, dtype=np.int64).T) for own in observed]
        self.chosen.__dict__["_by_kind"] = kinds, np.arange(len(ids))


@settings(max_examples=250, deadline=None)
@given(
    st.lists(extents, min_size=1, max_size=3),
    st.none() | rows_of_a_split(),
    labels,
    st.integers(0, 30),
    st.integers(1, 30),
    st.fractions(min_value=Fraction(1, 100), max_value=Fraction(3, 10), max_denominator=700),
    st.booleans(),
)
def test_windows_lie_where_brute_force_over_every_grid_start_says(
    observed: list[list[tuple[int, int]]],
    rows: list[tuple[int, int, str]] | None,
    label: str,
    past: int,
    horizon: int,
    stride: Fraction,
    cross: bool,
) -> None:
    from neurostore.sample._lay import lay_session

    chosen = _Laid(observed).chosen
    window = Window(Fraction(past, 100), Fraction(horizon, 100), stride)
    split = None if rows is None else split_of("d/s", rows)
    if split is not None and label not in split.labels:
        label = split.labels[0]
    part = None if split is None else split[label]
    laid = lay_session(chosen, window, part, may_cross=cross)
    starts, block = laid.runs.starts()
    found = sorted(zip(starts.tolist(), block.tolist(), strict=True))

    anyone = union([one for own in observed for one in own])
    blocks = {-1: (-(10**6), 10**6)}
    if rows is not None:
        blocks = {k: (a, b) for k, (a, b, own) in enumerate(sorted(rows)) if own == label}
    pieces = {k: cut(anyone, *extent) for k, extent in blocks.items()}
    length = past + horizon
    candidates = grid_starts(pieces, past if cross else 0, length, stride * 100)
    hidden = [(a, b) for a, b, own in rows or [] if not _may_see(label, own)]
    expected = [
        (start, k)
        for start, k in candidates
        if inside(anyone, start, start + length)
        and any(inside(own, start, start + length) for own in observed)
        and not (cross and any(start < b and a < start + past for a, b in hidden))
    ]
    assert found == expected
    for start, k in found:
        low, high = blocks[k]
        assert low <= start + (past if cross else 0)
        assert start + length <= high


def _may_see(label: str, other: str) -> bool:
    seen = {"train": {"train"}, "validation": {"train", "validation"}, "other": {"other"}}
    return other in seen.get(label, {"train", "validation", "test"})


def test_windows_of_a_dataset_are_those_of_its_grid() -> None:
    known, store = lab()
    dataset = Dataset(store, window=Window(0.4, 0.2, "0.0333"), streams=COUNTS)
    batch = dataset.batch(np.arange(len(dataset)), seed=None)
    expected = []
    for id, one in known.items():
        length = floor(Fraction(3, 5) * one.hertz)
        step = Fraction("0.0333") * one.hertz
        for start, _ in grid_starts({0: one.seen(None)}, 0, length, step):
            own = [one.seen(unit) for unit in one.units]
            if any(inside(seen, start, start + length) for seen in own):
                expected.append((id, start))
    assert list(zip(batch.session, batch.tick.tolist(), strict=True)) == expected
    assert [dataset[k].tick.item() for k in (0, 7, -1)] == [expected[k][1] for k in (0, 7, -1)]
    assert sum(1 for _ in zip(dataset, range(3), strict=False)) == 3


# ---- around events


def test_around_events_there_is_one_window_an_event_with_its_present_on_it() -> None:
    known, store = lab()
    window = Window(0.4, 0.2, around="trials.cue_time")
    dataset = Dataset(store, window=window, streams=COUNTS)
    batch = dataset.batch(np.arange(len(dataset)), seed=None)
    one = known["demo/a"]
    cues = [round(Fraction(str(t)) * 30_000) for t in one.columns["cue_time"] if t == t]
    own = [one.seen(unit) for unit in one.units]
    expected = [
        cue - 12_000 for cue in cues if any(inside(seen, cue - 12_000, cue + 6_000) for seen in own)
    ]
    assert 4 < len(expected) < 9
    assert batch.tick.tolist() == expected
    assert set(batch.session) == {"demo/a"}
    assert "windows in demo/b" in repr(dataset)


def test_around_events_with_before_and_after_windows_follow_by_the_stride() -> None:
    known, store = lab()
    window = Window(0.4, 0.2, 0.3, around="trials.start", before=0.5, after=1, where="side='left'")
    dataset = Dataset(store, "demo/a", window=window, streams=COUNTS)
    starts = dataset.batch(np.arange(len(dataset)), seed=None).tick.tolist()
    one = known["demo/a"]
    lefts = [one.trials[k][0] for k in (0, 3, 6)]
    own = [one.seen(unit) for unit in one.units]
    wide = [at - 15_000 + k * 9_000 for at in lefts for k in range(4)]
    assert starts == [s for s in wide if any(inside(seen, s, s + 18_000) for seen in own)]
    assert starts


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (Window(0.4, 0.2, around="trial.start"), "'trials'"),
        (Window(0.4, 0.2, around="trials.cue_tim"), "'cue_time'"),
        (Window(0.4, 0.2, around="trials.side"), "time column 'side'"),
        (Window(0.4, 0.2, around="trials.start", where="sid = 'left'"), "side"),
        (Window(0.4, 0.2, around="trials.start", where="score > 100"), "of 0 events"),
        (Window(9.0, 9.0, around="trials.start"), "18 s is longer than every interval"),
        (Window(8.0, 5.0), "13 s is longer than every interval.*12 s"),
        (Window(0.4, 0.2, 1e-6), "1e-06 s is 0.03 ticks"),
    ],
)
def test_a_window_that_cannot_be_laid_is_one_clear_error(window: Window, said: str) -> None:
    _, store = lab()
    with pytest.raises(UsageError, match=said) as caught:
        Dataset(store, "demo/a", window=window, streams=COUNTS)
    assert "\n" not in caught.value.line


# ---- splits


def test_targets_lie_in_blocks_of_the_label_and_say_which() -> None:
    known, store = lab()
    second = 30_000
    rows = [(k * second, (k + 1) * second, "test" if k % 3 == 2 else "train") for k in range(19)]
    split = split_of("demo/a", rows)
    for label in ("train", "test"):
        dataset = Dataset(
            store, "demo/a", window=Window(0.4, 0.2, 0.1), streams=COUNTS, split=split[label]
        )
        for batch in dataset.loader(64, seed=1):
            for tick, block in zip(batch.tick.tolist(), batch.block.tolist(), strict=True):
                assert rows[block][2] == label
                assert rows[block][0] <= tick
                assert tick + 18_000 <= rows[block][1]
    inner = dataset.window("demo/a", 2.25)
    assert (inner.tick.item(), inner.block.item()) == (67_500, 2)
    with pytest.raises(UsageError, match=r"\[1.9, 2.5\) s of demo/a does not lie in one block"):
        dataset.window("demo/a", 1.9)
    across = Dataset(
        store,
        "demo/a",
        window=Window(0.4, 0.2, 0.1),
        streams=COUNTS,
        split=split["test"],
        history_may_cross=True,
    )
    assert across.window("demo/a", 1.9).block.item() == 2
    assert len(across) > len(dataset)
    assert "history may cross" in repr(across)
    assert known["demo/a"].id in across.session_ids


@pytest.mark.parametrize("cross", [False, True])
def test_spikes_moved_in_test_time_change_no_training_batch(cross: bool) -> None:
    """A planted leak: every spike of test time goes, and stranger ones come."""
    rng = random.Random(5)
    one = Recording("d/s", "1000")
    one.units = {f"u{k}": spiking(rng, 900, 0, 30_000) for k in range(3)}
    one.observed = [(0, 30_000)]
    rows = [(k * 1_000, k * 1_000 + 1_000, "test" if k % 3 == 2 else "train") for k in range(30)]
    held = {tick for a, b, label in rows if label == "test" for tick in range(a, b)}
    other = Recording("d/s", "1000", observed=one.observed)
    for name, own in one.units.items():
        kept = [tick for tick in own if tick not in held]
        other.units[name] = sorted(kept + rng.sample(sorted(held), 700))
    split = split_of("d/s", rows)

    def tensors(recording: Recording, label: str) -> list[torch.Tensor]:
        dataset = Dataset(
            store_of(recording),
            window=Window(0.3, 0.2, 0.05),
            streams={"spikes": Spikes(0.05), "events": SpikeEvents()},
            split=split[label],
            history_may_cross=cross,
        )
        made = list(dataset.loader(50, seed=1))
        return [batch[name] for batch in made for name in sorted(batch)] + [
            torch.from_numpy(one.spikes) for one in dataset.totals().values()
        ]

    train = [tensors(recording, "train") for recording in (one, other)]
    assert all(torch.equal(a, b) for a, b in zip(*train, strict=True))
    test = [tensors(recording, "test") for recording in (one, other)]
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(*test, strict=True))


def test_what_comes_after_the_present_changes_no_past() -> None:
    rng = random.Random(6)
    present = 10_000
    one = Recording("d/s", "1000")
    one.units = {f"u{k}": spiking(rng, 900, 0, 20_000) for k in range(3)}
    one.observed = [(0, 20_000)]
    one.position = [(k * 20, [rng.gauss(0, 1)] * 2, True) for k in range(1_000)]
    other = Recording("d/s", "1000", observed=one.observed)
    other.units = {
        name: [t for t in own if t < present] + list(range(present, 20_000, 7))
        for name, own in one.units.items()
    }
    other.position = [
        s if s[0] < present else (s[0], [99.0] * 2, s[0] % 3 > 0) for s in one.position
    ]
    streams = {"spikes": Spikes(0.02), "position": Behaviour("position", rate=50)}
    batches = [
        Dataset(store_of(each), window=Window(1.0, 0.5), streams=streams).window("d/s", 9.0)
        for each in (one, other)
    ]
    for name in streams:
        assert torch.equal(*(batch.past(name) for batch in batches))
        assert torch.equal(*(batch.past_mask(name) for batch in batches))
        assert not torch.equal(*(batch.future(name) for batch in batches))


def test_behaviour_between_samples_waits_for_none_after_the_present() -> None:
    """A past sample between two recorded ones would carry the later one into the past."""
    one = Recording("d/s", "1000")
    one.units, one.observed = {"u": [0, 900]}, [(0, 2_000)]
    one.position = [(k * 100, [float(k)], True) for k in range(20)]
    other = Recording("d/s", "1000", units=one.units, observed=one.observed)
    other.position = [s if s[0] < 1_000 else (s[0], [50.0], True) for s in one.position]
    streams = {"position": Behaviour("position", rate=100)}
    batches = [
        Dataset(store_of(each), window=Window(0.5, 0.5), streams=streams).window("d/s", 0.5)
        for each in (one, other)
    ]
    assert torch.equal(*(batch.past("position") for batch in batches))


def test_a_history_does_not_say_whether_what_comes_next_is_valid() -> None:
    """The tracker stops 200 ms before the present; whether it comes back well is yet to be seen."""
    reasons, values = [], []
    for valid in (True, False):
        one = Recording("d/s", "1000", units={"u": [0, 1_900]}, observed=[(0, 2_000)])
        one.position = [(k * 20, [1.0], True) for k in range(40)]
        one.position += [(k * 20, [2.0], valid) for k in range(50, 100)]
        streams = {"position": Behaviour("position", rate=100, max_gap=0.1)}
        dataset = Dataset(store_of(one), window=Window(0.5, 0.5), streams=streams)
        batch = dataset.window("d/s", 0.5)
        reasons.append(batch.reason["position"][:, :50])
        values.append(batch.past("position"))
    assert torch.equal(*reasons)
    assert torch.equal(*values)
    held = [OBSERVED] * 39 + [OUTSIDE] * 11
    assert reasons[0][0].tolist() == held
    assert values[0][0, :, 0].tolist() == [float(why == OBSERVED) for why in held]


def test_a_gap_of_just_max_gap_is_interpolated_and_one_tick_more_is_not() -> None:
    for gap, why in ((100, OBSERVED), (101, OUTSIDE)):
        one = Recording("d/s", "1000", units={"u": [0, 900]}, observed=[(0, 1_000)])
        times = [0, 50, 100, 100 + gap, 150 + gap, 900]
        one.position = [(t, [float(t)], True) for t in times]
        streams = {"position": Behaviour("position", rate=100, max_gap=0.1)}
        dataset = Dataset(store_of(one), window=Window(0, 0.25), streams=streams)
        batch = dataset.window("d/s", 0)
        assert set(batch.reason["position"][0, 11:20].tolist()) == {why}
        expected = [float(t) if why == OBSERVED else 0 for t in range(110, 200, 10)]
        assert batch["position"][0, 11:20, 0].tolist() == expected
        assert batch["position"][0, :11, 0].tolist() == [float(t) for t in range(0, 110, 10)]


def test_a_history_that_may_cross_sees_what_comes_before_its_label_and_no_other() -> None:
    rng = random.Random(7)
    labels = ["validation", "train", "test", "train", "validation", "test", "validation"]
    one = Recording("d/s", "1000", observed=[(0, 7_000)])
    one.units = {"u": spiking(rng, 500, 0, 7_000)}
    store = store_of(one)
    split = split_of("d/s", [(k * 1_000, k * 1_000 + 1_000, a) for k, a in enumerate(labels)])
    first = {}
    for label in ("train", "validation", "test"):
        dataset = Dataset(
            store,
            window=Window(0.3, 0.2, 0.05),
            streams=COUNTS,
            split=split[label],
            history_may_cross=True,
        )
        batch = dataset.batch(np.arange(len(dataset)), seed=None)
        for tick, block in zip(batch.tick.tolist(), batch.block.tolist(), strict=True):
            first.setdefault(block, tick)
    # train after validation and after test; validation after train and after test; test after all
    assert first == {0: 0, 1: 1_000, 3: 3_000, 4: 3_700, 6: 6_000, 2: 1_700, 5: 4_700}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_totals_are_spikes_and_seconds_of_observed_time_in_the_split(seed: int) -> None:
    known, store = lab()
    one, rng = known["demo/a"], random.Random(seed)
    edges = sorted(rng.sample(range(600_000), 6))
    rows = [(a, b, "train") for a, b in zip(edges[::2], edges[1::2], strict=True)]
    rows = [(0, edges[0], "test"), *rows] if edges[0] else rows
    try:
        dataset = Dataset(
            store,
            "demo/a",
            window=Window(0.01, 0.01),
            streams={"spikes": Spikes(0.01)},
            split=split_of("demo/a", rows)["train"],
        )
    except UsageError:
        return
    totals = dataset.totals()["demo/a"]
    for row, (unit, own) in enumerate(one.units.items()):
        seen = [
            part for a, b, label in rows if label == "train" for part in cut(one.seen(unit), a, b)
        ]
        assert totals.seconds[row] == sum(b - a for a, b in seen) / 30_000
        assert totals.spikes[row] == sum(inside(seen, tick, tick + 1) for tick in own)


# ---- refusals


def error_of(store=None, sessions="demo/a", **changed) -> str:
    arguments = {"window": Window(0.4, 0.2), "streams": COUNTS} | changed
    with pytest.raises(UsageError) as caught:
        Dataset(store or lab()[1], sessions, **arguments)
    assert "\n" not in caught.value.line
    return str(caught.value)


def test_what_is_unknown_names_the_nearest() -> None:
    assert "'demo/a'" in error_of(sessions="demo/aa")
    assert "'demo/a'" in error_of(sessions=["demo/aa"])
    assert "'position'" in error_of(streams={"p": Behaviour("positon", rate=40)})
    assert "'trials'" in error_of(streams={"t": Trials(("side",), table="trial")})
    assert "'side'" in error_of(streams={"t": Trials(("sides",))})
    assert "blocks" in error_of(split="blocks/train")


def test_an_empty_choice_is_refused_with_what_there_is() -> None:
    said = error_of(sessions="n_units > 100")
    assert "'n_units > 100'" in said
    assert "holds 3 (demo/a" in said
    assert "No session" in error_of(sessions=[])
    assert "of 5 in demo/a" in error_of(units="region = 'VISp'")
    assert "region" in error_of(units="regio = 'VISp'")
    assert "Spikes" in error_of(streams={})


def test_steps_that_are_not_whole_are_refused_with_the_number() -> None:
    assert "0.4 s is 1.33333 steps of 0.3 s" in error_of(streams={"s": Spikes(0.3)})
    assert "horizon of 0.2 s is 2.5 steps" in error_of(streams={"s": Spikes(0.08)})
    assert "0.4 s is 2.8 steps" in error_of(streams={"p": Behaviour("position", rate=7)})
    assert "longer than 0 s" in error_of(streams={"s": Spikes(0)})
    assert "above 0 Hz" in error_of(streams={"p": Behaviour("position", rate=0)})
    assert "at least one tick" in error_of(streams={"s": Spikes(1e-5)})
    assert "at least one tick" in error_of(streams={"p": Behaviour("position", rate=100_000)})


def test_a_split_that_leaves_no_target_says_so() -> None:
    far = split_of("demo/a", [(10**9, 10**9 + 30_000, "train"), (0, 90_000, "test")])
    assert "leaves no target in demo/a" in error_of(split=far["train"])
    short = split_of("demo/a", [(0, 15_000, "train"), (20_000, 90_000, "test")])
    said = error_of(split=short["train"])
    assert "0.6 s is longer than every interval" in said
    assert "0.5 s" in said
    other = split_of("demo/b", [(0, 15_000, "train")])
    assert "blocks in demo/b" in error_of(split=other["train"])
    assert "one part of the split" in error_of(split=short)


def test_a_history_longer_than_a_block_that_may_not_cross_is_refused() -> None:
    rows = [(0, 15_000, "train"), (15_000, 90_000, "test")]
    split = split_of("demo/a", rows)
    streams = {"spikes": Spikes(0.1)}
    said = error_of(split=split["train"], window=Window(0.4, 0.2), history_may_cross=True)
    assert "No window" in said
    kept = Dataset(
        lab()[1],
        "demo/a",
        window=Window(2.0, 0.2),
        streams=streams,
        split=split_of("demo/a", [(60_000, 90_000, "train"), (90_000, 120_000, "test")])["test"],
        history_may_cross=True,
    )
    assert len(kept) > 0
    assert "needs a horizon" in error_of(window=Window(0.4), history_may_cross=True)
    assert "0.5 s is longer" not in error_of(
        window=Window(0.1, 0.6), split=split["train"], history_may_cross=True
    )


def test_numbers_out_of_range_are_refused_with_both() -> None:
    dataset = Dataset(lab()[1], "demo/a", window=Window(0.4, 0.2), streams=COUNTS)
    many = len(dataset)
    for wrong in (0, many + 1):
        with pytest.raises(UsageError, match=rf"1 to {many} windows.*found {wrong}"):
            dataset.sample(wrong)
    with pytest.raises(IndexError, match=rf"{many} windows, found the index 1,000,000,000"):
        dataset[10**9]
    with pytest.raises(IndexError, match=rf"Take -{many} to {many - 1}"):
        dataset[many]
    with pytest.raises(UsageError, match="sample"):
        dataset[0:2]
    with pytest.raises(NotFoundError, match="There is: demo/a"):
        dataset.window("demo/b", 1.0)
    with pytest.raises(NotFoundError):
        dataset.observed("demo/b")


def test_a_session_that_the_split_does_not_name_has_no_window() -> None:
    split = split_of("demo/a", [(0, 90_000, "train"), (90_000, 200_000, "test")])
    for cross in (False, True):
        for window in (Window(0.4, 0.2), Window(0.4, 0.2, around="trials.start")):
            dataset = Dataset(
                lab()[1],
                window=window,
                streams=COUNTS,
                split=split["test"],
                history_may_cross=cross,
            )
            found = set(dataset.batch(np.arange(len(dataset)), seed=None).session)
            assert found == {"demo/a"}
            assert "windows in demo/b" in repr(dataset)


def test_what_does_not_go_together_is_refused() -> None:
    assert "All()" in error_of(acquisition="staggered")
    with pytest.raises(UsageError, match="tuple of columns"):
        Trials("side")
    a, _, c = three()
    c.position = [(tick, value[:1], valid) for tick, value, valid in c.position]
    streams = {"p": Behaviour("position", rate=40)}
    said = error_of(store_of(a, c), None, streams=streams)
    assert "another number of channels" in said
    assert "demo/a" in said
    dataset = Dataset(lab()[1], window=Window(0.4, 0.2), streams=COUNTS)
    with pytest.raises(UsageError, match="at least"):
        dataset.batch(np.zeros(0, np.int64), seed=None)


# ---- what it says of itself


def test_a_dataset_says_its_windows_hours_units_spikes_and_what_is_missing() -> None:
    known, store = lab()
    dataset = Dataset(store, window=Window(0.4, 0.2), streams=MANY)
    said = repr(dataset)
    units = sum(len(one.units) for one in known.values())
    spikes = sum(len(own) for one in known.values() for own in one.units.values())
    assert f"{len(dataset):,} windows" in said
    assert f"{units} with {spikes:,} spikes" in said
    assert "position in demo/b" in said
    assert "trials in demo/b" in said
    assert " h\n" in said
    assert "90" not in repr(dataset.sample(9)).splitlines()[0]


def test_the_identity_is_json_and_changes_with_what_decides_a_window() -> None:
    _, store = lab()
    split = split_of("demo/a", [(0, 90_000, "train"), (90_000, 200_000, "test")])
    moved = split_of("demo/a", [(0, 90_001, "train"), (90_001, 200_000, "test")])

    def made(**changed: object) -> str:
        arguments: dict = {"window": Window(0.4, 0.2), "streams": MANY, "split": split["train"]}
        dataset = Dataset(store, "demo/a", **(arguments | changed))
        return json.dumps(dataset.identity(), allow_nan=False)

    every = [
        made(),
        made(units="region = 'CA1'"),
        made(window=Window(0.4, 0.2, 0.3)),
        made(window=Window(0.2, 0.2)),
        made(streams=MANY | {"spikes": Spikes(0.1)}),
        made(streams=COUNTS),
        made(streams=MANY | {"trial": Trials(("side",))}),
        made(split=split["test"]),
        made(split=moved["train"]),
        made(split=None),
        made(history_may_cross=True),
    ]
    assert len(set(every)) == len(every)
    assert made() == every[0]
    assert json.loads(every[0])["streams"]["trial"]["columns"] == [
        "side",
        "score",
        "cue_time",
        "stop",
    ]


def test_a_later_commit_that_leaves_the_tables_alone_changes_the_snapshot_only() -> None:
    a, b, _ = three()
    store = store_of(a)
    window = Window(0.4, 0.2)
    first = Dataset(store, "demo/a", window=window, streams=MANY)
    before = first.identity()
    with store.transaction("another session") as tx:
        tx.put(b.builder())
    after = Dataset(store, "demo/a", window=window, streams=MANY).identity()
    assert before["snapshot"] != after["snapshot"]
    assert {k: v for k, v in before.items() if k != "snapshot"} == {
        k: v for k, v in after.items() if k != "snapshot"
    }
    assert first.identity() == before
    assert first.session_ids == ["demo/a"]


def test_a_transform_is_what_every_way_to_a_window_gives() -> None:
    _, store = lab()
    dataset = Dataset(
        store,
        "demo/a",
        window=Window(0.4, 0.2),
        streams=COUNTS,
        transform=lambda batch: int(batch["spikes"].sum()),
    )
    plain = Dataset(store, "demo/a", window=Window(0.4, 0.2), streams=COUNTS)
    assert dataset[3] == int(plain[3]["spikes"].sum())
    assert dataset.sample(5) == int(plain.sample(5)["spikes"].sum())
    assert dataset.window("demo/a", 2.0) == int(plain.window("demo/a", 2.0)["spikes"].sum())
    expected = [int(batch["spikes"].sum()) for batch in plain.loader(8, seed=4)]
    assert list(dataset.loader(8, seed=4)) == expected


# ---- real recordings


@pytest.mark.realdata
def test_windows_of_the_w_maze_hold_what_the_session_counts(data) -> None:
    session, store = w_maze(data("hippocampus_nelpy") / "w-maze")
    ids = store.units("rate_hz < 50")["unit"].tolist()
    split = interleaved_blocks(
        "blocks",
        session.timeline(ids),
        block=60,
        ratios={"train": 7, "validation": 1, "test": 2},
        guard=1,
    )
    dataset = Dataset(
        store,
        units="rate_hz < 50",
        window=Window(1.0, 0.5, 0.5),
        streams={"spikes": Spikes(0.02), "position": Behaviour("position", rate=50, max_gap=0.1)},
        split=split["test"],
    )
    assert len(ids) == 24
    batch = dataset.sample(400, seed=1)
    assert set(batch.block.tolist()) == set(split["test"].blocks("w-maze/w1")[0].tolist())
    assert batch.mask["spikes"].all()
    for row in range(0, 400, 4):
        start = Fraction(int(batch.tick[row]), 30_000)
        expected = session.counts(start, start + Fraction(3, 2), 0.02, units=ids)
        assert (batch["spikes"][row].numpy() == expected.values).all()
    first = session.timeline(ids).origin + 30_000 * (60 * 8 + 1)
    assert dataset[0].tick.item() == first
    held = batch.mask["position"]
    assert 0.2 < held.double().mean() < 0.9
    assert not batch["position"][~held].any()


def w_maze(folder: Path):
    """The recording, read as the how-to reads it."""
    page = Path(__file__).parents[1] / "docs" / "how-to" / "your-own-format.md"
    known: dict = {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(code, str(page), "exec"), known)
    session = known["keep"]("memory://sampled-w-maze", folder)
    return session, session.store


@pytest.mark.realdata
def test_trials_of_mc_maze_share_their_observed_time_and_are_laid_in_closed_form(data) -> None:
    folder = data("nwb_mc_maze_small_test_dandi000140")
    store = neurostore.create("memory://sampled-mc-maze")
    neurostore.ingest(store, sorted(folder.glob("*.nwb")), "mc-maze", message="maze")
    dataset = Dataset(store, window=Window(0.3, 0.2, 0.1), streams=COUNTS)
    (chosen,) = dataset.chosen
    assert len(chosen.ids) > 100
    assert not chosen.differs
    assert len(dataset.plan.runs[0].start) < len(dataset)
    batch = dataset.sample(64)
    assert batch.mask["spikes"].all()
    seen = chosen.session.observed()
    assert seen.covers(batch.tick.numpy(), batch.tick.numpy() + 15_000).all()
