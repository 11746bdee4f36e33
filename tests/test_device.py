"""Windows made in device memory are those of the host: values, masks and reasons, to the bit."""

from __future__ import annotations

import itertools
import pickle
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from math import floor
from typing import Any

import numpy as np
import pytest
import torch
from _sampled import Recording, counts, spiking, store_of, three
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import neurostore
from neurostore import (
    Behaviour,
    DamagedError,
    Dataset,
    SessionBuilder,
    SpikeEvents,
    Spikes,
    Trials,
    UsageError,
    Window,
)
from neurostore.sample import Chosen, Stream
from neurostore.sample.device import DeviceDataset, _packed
from neurostore.sample.device._line import Line, Spans
from neurostore.sample.device._windows import Windows
from neurostore.sample.streams import Reader
from neurostore.splits import interleaved_blocks

MANY: dict[str, Stream] = {
    "spikes": Spikes(0.05),
    "events": SpikeEvents(),
    "position": Behaviour("position", rate=40, max_gap=0.05),
    "trial": Trials(("side", "score", "cue_time", "stop")),
}
CPU = torch.device("cpu")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is present"),
        ],
    ),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def lab() -> tuple[dict[str, Recording], Any]:
    recordings = three()
    return {one.id: one for one in recordings}, store_of(*recordings)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.cpu().numpy().tobytes()


def assert_same(host, device) -> None:
    """Every tensor of two batches: name, order, kind, shape and bits; and all that is said."""
    assert list(host) == list(device)
    named = [
        pair
        for name in host
        for pair in (
            (name, host[name], device[name]),
            (f"mask {name}", host.mask[name], device.mask[name]),
            (f"reason {name}", host.reason[name], device.reason[name]),
        )
    ]
    alone = ("start", "tick", "block", "trial", "unit_mask", "region")
    named += [(name, getattr(host, name), getattr(device, name)) for name in alone]
    for name, one, other in named:
        assert (one.dtype, one.shape) == (other.dtype, other.shape), name
        assert bits(one) == bits(other), name
    assert host.session == device.session
    assert dict(host.steps) == dict(device.steps)
    for one, other in zip(host.unit_ids, device.unit_ids, strict=True):
        assert one.tolist() == other.tolist()


def assert_alike(dataset: Dataset, device: str = "cpu", starts: Sequence[float] = ()) -> None:
    """All windows of a plan, in and out of order, and others at some starts."""
    moved = dataset.to(device)
    everything = np.arange(len(dataset))
    assert_same(dataset.batch(everything, seed=None), moved.batch(everything, seed=None))
    assert_same(dataset.sample(min(20, len(dataset)), 3), moved.sample(min(20, len(dataset)), 3))
    assert_same(dataset[-1], moved[-1])
    for id, start in itertools.product(dataset.session_ids, starts):
        assert_same(dataset.window(id, start), moved.window(id, start))


ENDS = (-1e6, -3.1, -3.0, 0.0, 0.31, 8.7, 11.9, 19.8, 20.0, 30.0, 1e6)
WINDOWS = {
    "a target": Window(0.4, 0.2, 0.11),
    "history alone": Window(0.6),
    "horizon alone": Window(0, 0.6, 0.2),
    "overlapping": Window(0.4, 0.2, 0.013),
    "around": Window(0.4, 0.2, around="trials.cue_time", where="score < 5"),
    "beside": Window(0.4, 0.2, 0.05, around="trials.start", before=0.5, after=0.7),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_unlike_sessions_on_three_clocks_give_the_windows_of_the_host(
    window: Window, device: str
) -> None:
    """Gaps, units observed at different times, missing tables and columns, ends and beyond."""
    _, store = lab()
    assert_alike(Dataset(store, window=window, streams=MANY), device, ENDS)


@pytest.mark.parametrize(
    "choice",
    [
        {"sessions": "demo/b"},
        {"sessions": ["demo/c", "demo/a"]},
        {"units": "region = 'LP'"},
        {"units": "region = 'CA1' OR unit = 'silent'"},
    ],
    ids=str,
)
def test_chosen_sessions_and_units_give_the_windows_of_the_host(choice: dict[str, Any]) -> None:
    _, store = lab()
    streams = MANY if choice.get("sessions") != "demo/b" else dict(list(MANY.items())[:2])
    dataset = Dataset(store, window=Window(0.4, 0.2), streams=streams, **choice)
    assert_alike(dataset, starts=(4.9, 25))


@pytest.mark.parametrize("label", ["train", "test"])
@pytest.mark.parametrize("cross", [False, True])
def test_a_split_gives_the_windows_of_the_host(label: str, cross: bool) -> None:
    _, store = lab()
    split = interleaved_blocks(
        "blocks", store.session("demo/a").timeline(), block=2, ratios={"train": 3, "test": 1}
    )
    dataset = Dataset(
        store,
        "demo/a",
        window=Window(0.4, 0.2, 0.07),
        streams=MANY,
        split=split[label],
        history_may_cross=cross,
    )
    assert_alike(dataset)
    start = float(dataset[0].start)
    assert_same(dataset.window("demo/a", start), dataset.to("cpu").window("demo/a", start))
    with pytest.raises(UsageError, match="one block"):
        dataset.to("cpu").window("demo/a", 1000)


def test_each_stream_alone_gives_the_windows_of_the_host() -> None:
    _, store = lab()
    for name, stream in MANY.items():
        assert_alike(Dataset(store, window=Window(0.4, 0.2), streams={name: stream}), starts=(0,))


def test_a_session_without_units_and_one_without_anything_else_give_the_windows_of_the_host():
    bare = SessionBuilder(dataset="demo", session="z", rate=1000)
    bare.add_behaviour("position", np.zeros((500, 2)), start=0, rate=50, units="cm")
    bare.add_observed([0.0], [10.0])
    regular = SessionBuilder(dataset="demo", session="y", rate=24_414.0625)
    values = np.random.default_rng(0).normal(size=(700, 2))
    values[40:60] = np.nan
    regular.add_behaviour("position", values, start=0.3, rate="59.94", units="cm")
    regular.add_units({"u": []})
    regular.add_observed([0.0], [10.0])
    lost = SessionBuilder(dataset="demo", session="x", rate=1000)
    lost.add_behaviour("position", np.full((500, 2), np.nan), start=0, rate=50, units="cm")
    lost.add_observed([0.0], [10.0])
    store = store_of(*three())
    with store.transaction("what lacks") as tx:
        for one in (bare, regular, lost):
            tx.put(one)
    dataset = Dataset(store, window=Window(0.4, 0.2), streams=MANY)
    assert_alike(dataset, starts=(2.0, 9.9, 100))
    alone = {"position": Behaviour("position", rate=40)}
    for id in ("demo/x", "demo/y", "demo/z"):
        dataset = Dataset(store, id, window=Window(0.4, 0.2, 0.09), streams=alone)
        assert_alike(dataset, starts=(2.0, 9.9, 100))


@pytest.mark.parametrize("kinds", [("f4", "f4"), ("i2", "f4"), ("f8", "i8"), ("u4", "u1")], ids=str)
@pytest.mark.parametrize("channels", [(), (3,)], ids=str)
def test_series_of_any_kind_of_number_give_the_windows_of_the_host(
    kinds: tuple[str, str], channels: tuple[int, ...]
) -> None:
    rng, made = np.random.default_rng(0), []
    for name, kind in zip("st", kinds, strict=True):
        one = SessionBuilder(dataset="d", session=name, rate=30_000)
        value = rng.integers(0, 120, (500, *channels)).astype(kind)
        if kind == "i8":
            value += 2**53  # beyond what float32 holds
        one.add_behaviour("wheel", value, start=0.01, rate="59.94", units="cm")
        one.add_observed([0.0], [9.0])
        made.append(one)
    store = neurostore.create(f"memory://device-{kinds}-{channels}")
    with store.transaction("series") as tx:
        for one in made:
            tx.put(one)
    streams = {"wheel": Behaviour("wheel", rate=70)}
    assert_alike(Dataset(store, window=Window(0.4, 0.2, 0.09), streams=streams), starts=(-1, 8.9))


def test_it_works_where_torch_is_told_to_be_deterministic() -> None:
    _, store = lab()
    torch.use_deterministic_algorithms(True)
    try:
        assert_alike(Dataset(store, window=Window(0.4, 0.2), streams=MANY))
    finally:
        torch.use_deterministic_algorithms(False)


@cache
def any_lab(seed: int) -> tuple[Any, dict[str, bool]]:
    """Up to three recordings on any clocks, each with what falls to it; what some of them have."""
    rng, made = random.Random(seed), []
    for name in "pqr"[: 1 + seed % 3]:
        one = Recording(f"d/{name}", rng.choice(["30000", "1000000", "24414.0625", "7"]))
        low, high = floor(rng.uniform(-9, 3) * one.hertz), floor(rng.uniform(20, 30) * one.hertz)
        one.units = {
            f"{name}{k}": spiking(rng, rng.choice([0, 1, 30, 200]), low, high)
            for k in range(rng.randint(1, 5))
        }
        one.observed = [(low, high)]
        if rng.random() < 0.6:
            cuts = [sorted(rng.sample(range(low, high), 6)) for _ in one.units]
            spans = [list(zip(own[::2], own[1::2], strict=True)) for own in cuts]
            one.observed = dict(zip(one.units, spans, strict=True))
        if rng.random() < 0.6:
            ticks = sorted(rng.sample(range(low, high), min(150, (high - low) // 2)))
            one.position = [
                (tick, [rng.gauss(0, 1e3), rng.random()], rng.random() > 0.2) for tick in ticks
            ]
        if rng.random() < 0.6:
            one.trials = sorted(tuple(sorted(rng.sample(range(low, high), 2))) for _ in range(5))
            one.columns = {"score": [rng.random() for _ in range(5)]}
        made.append(one)
    has = {"position": any(m.position for m in made), "trial": any(m.trials for m in made)}
    return store_of(*made), has


@given(
    st.integers(0, 5),
    st.sampled_from(["1", "9/7", "3/7"]),
    st.integers(0, 3),
    st.integers(1, 4),
    st.lists(st.integers(-70, 300), max_size=4),
)
@settings(max_examples=25, deadline=None)
def test_any_recordings_give_the_windows_of_the_host(
    seed: int, bin: str, past: int, future: int, sevenths: list[int]
) -> None:
    store, has = any_lab(seed)
    step = Fraction(bin)
    streams: dict[str, Stream] = {"spikes": Spikes(step), "events": SpikeEvents()}
    if has["position"]:
        streams["position"] = Behaviour("position", rate=1 / step)
    if has["trial"]:
        streams["trial"] = Trials(("score", "start"))
    window = Window(past * step, future * step)
    try:
        dataset = Dataset(store, window=window, streams=streams)
    except UsageError as refused:
        assume("longer than every interval" not in refused.line)
        raise
    assert_alike(dataset, starts=[Fraction(k, 7) for k in sevenths])


def test_counts_equal_plain_loops_over_spikes() -> None:
    known, store = lab()
    moved = Dataset(store, window=Window(0.4, 0.2), streams=MANY).to("cpu")
    batch = moved.sample(60, seed=5)
    for row, id in enumerate(batch.session):
        units = list(known[id].units)
        expected, why = counts(known[id], units, int(batch.tick[row]), Fraction(1, 20), 12)
        assert batch["spikes"][row, : len(units)].tolist() == expected
        assert batch.reason["spikes"][row, : len(units)].tolist() == why


# ---- how it lies in memory


def test_words_are_four_bytes_and_eight_where_a_clock_is_too_fast_for_them() -> None:
    one = Recording("d/s", "10000000000")
    one.units = {"u": [0, 5, 10**13 - 1], "v": [7, 7, 10**12]}
    one.observed = [(0, 10**13)]
    dataset = Dataset(store_of(one), window=Window(100), streams={"s": Spikes(10)})
    assert _packed.Layout.of(dataset.chosen, Window(100)).wide
    assert_alike(dataset, starts=(-50, 99.9999999999, 950))
    _, store = lab()
    dataset = Dataset(store, window=Window(0.4, 0.2), streams=MANY)
    layout = _packed.Layout.of(dataset.chosen, Window(0.4, 0.2))
    assert not layout.wide
    spikes = sum(len(own) for each in three() for own in each.units.values())
    moved = dataset.to("cpu")
    sizes = sum(moved.nbytes["spikes, events"].values())
    memory = moved._forms["spikes"].memory.packed
    assert memory is moved._forms["events"].memory.packed
    assert sizes == memory.word.nbytes + memory.index.nbytes
    assert memory.word.nbytes == 4 * spikes


def test_narrow_blocks_for_many_units_give_the_same_counts(monkeypatch) -> None:
    """Where few bits are left for the tick, blocks are shorter than a window asks for."""
    one = Recording("d/s", "1000000")
    rng = random.Random(3)
    one.units = {"u": spiking(rng, 300, 0, 9 * 10**6), "v": spiking(rng, 300, 0, 9 * 10**6)}
    one.observed = [(0, 9 * 10**6)]
    dataset = Dataset(store_of(one), window=Window(1), streams={"s": Spikes(0.1)})
    asked = _packed.Layout.of(dataset.chosen, Window(1))
    layout = replace(asked, length=np.array([17_000]), count=np.array([-(-9 * 10**6 // 17_000)]))
    monkeypatch.setattr(_packed.Layout, "of", classmethod(lambda *_: layout))
    assert_alike(dataset, starts=(-0.5, 8.6))


def test_windows_far_longer_than_what_holds_spikes_cost_no_more_blocks() -> None:
    one = Recording("d/s", "1000000")
    one.units, one.observed = {"u": [5, 5, 6], "v": [7]}, [(0, 10**9)]
    window = Window(900)
    dataset = Dataset(store_of(one), window=window, streams={"s": Spikes(30)})
    layout = _packed.Layout.of(dataset.chosen, window)
    assert (layout.ticks // layout.length <= 4).all()
    assert not layout.wide
    assert_alike(dataset, starts=(-1, 0, 99))
    _, store = lab()
    dataset = Dataset(store, units="region = 'LP'", window=Window(0.6), streams=MANY)
    layout = _packed.Layout.of(dataset.chosen, Window(0.6))
    assert (layout.ticks // layout.length <= 4).all()


def test_pieces_that_are_read_at_once_leave_no_trace(monkeypatch) -> None:
    monkeypatch.setattr(_packed, "PIECE", 37)
    _, store = lab()
    assert_alike(Dataset(store, window=Window(0.4, 0.2), streams=MANY))


@pytest.mark.parametrize("most", [1, 40, 1000])
def test_parts_that_are_counted_at_once_leave_no_trace(most: int, monkeypatch) -> None:
    monkeypatch.setattr(_packed, "MOST_IN_CACHE", most)
    _, store = lab()
    assert_alike(Dataset(store, window=Window(0.4, 0.2), streams=MANY), starts=(-3.1, 25))


def test_what_lies_in_memory_is_no_more_than_was_predicted(monkeypatch) -> None:
    _, store = lab()
    dataset = Dataset(store, window=Window(0.4, 0.2), streams=MANY)
    sizes = dataset.to("cpu").nbytes
    assert all(set(own) == {"demo/a", "demo/b", "demo/c"} for own in sizes.values())
    assert sizes["position"]["demo/b"] == 0
    total = sum(sum(own.values()) for own in sizes.values())
    dataset.to("cpu", max_bytes=total + 100_000)
    with monkeypatch.context() as patched:
        patched.setattr(_packed.Packed, "load", None)  # nothing is read
        with pytest.raises(UsageError, match=r"take up to [\d,]+ bytes .* and 1,000 max_bytes"):
            dataset.to("cpu", max_bytes=1000)


def test_a_table_of_units_that_counts_other_spikes_is_damage() -> None:
    _, store = lab()
    dataset = Dataset(store, "demo/a", window=Window(0.4, 0.2), streams={"s": Spikes(0.1)})
    dataset.chosen[0] = replace(dataset.chosen[0], spikes=dataset.chosen[0].spikes - 1)
    with pytest.raises(DamagedError, match=r"demo/a: .* 2,200 .* 2,199"):
        dataset.to("cpu")


# ---- the same interface


@dataclass(frozen=True)
class Elsewhere:
    """A stream of one's own, without a form for devices."""

    bin: float

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        return Spikes(self.bin).open(name, sessions, window)


@dataclass(frozen=True)
class Stricter(Spikes):
    """A stream that is a known one and more."""

    more: bool = False


def test_a_stream_without_a_form_is_read_on_the_host_and_said() -> None:
    _, store = lab()
    streams = {"one": Elsewhere(0.1), **MANY, "two": Stricter(0.1)}
    dataset = Dataset(store, window=Window(0.4, 0.2), streams=streams)
    moved = dataset.to("cpu")
    assert moved.host_streams == ("one", "two")
    assert "host      one, two: read there and moved" in repr(moved)
    assert dataset.to("cpu").host_streams
    assert_same(dataset.sample(40), moved.sample(40))
    alone = Dataset(store, window=Window(0.4, 0.2), streams={"one": Elsewhere(0.1)})
    assert alone.to("cpu").nbytes == {}
    assert_alike(alone)


def test_epochs_are_those_of_the_host_from_any_batch_on() -> None:
    _, store = lab()
    dataset = Dataset(store, window=Window(0.4, 0.2), streams=MANY)
    moved = dataset.to("cpu")
    order = {"seed": 4, "epoch": 2, "first": 3}
    pairs = zip(dataset.loader(17, **order), moved.loader(17, **order), strict=True)
    for one, other in pairs:
        assert_same(one, other)
    ordered = moved.loader(50, shuffle=False, drop_last=True)
    assert len(ordered) == len(dataset) // 50
    with pytest.raises(UsageError, match="no worker processes; found 2"):
        moved.loader(17, workers=2)


def test_it_is_a_dataset_in_all_else() -> None:
    _, store = lab()
    dataset = Dataset(store, window=Window(0.4, 0.2), streams=MANY, transform=lambda b: len(b))
    moved = dataset.to("cpu")
    assert isinstance(moved, DeviceDataset)
    assert moved.identity() == dataset.identity()
    assert moved.plan.digest == dataset.plan.digest
    assert moved.steps("spikes") == (8, 4)
    assert moved.categories == dataset.categories
    assert moved[0] == moved.sample(3) == moved.window("demo/a", 1.0) == dataset[0]
    assert next(iter(moved.loader(5))) == dataset[0]
    assert repr(moved).startswith("<DeviceDataset of 3 sessions")
    assert repr(dataset).startswith("<Dataset of 3 sessions")
    with pytest.raises(UsageError, match="takes places"):
        moved.batch(np.zeros(0, np.int64), seed=None)
    with pytest.raises(IndexError):
        moved[len(moved)]


def test_it_pickles_as_what_it_was_made_of(tmp_path) -> None:
    store = store_of(*three(), url=str(tmp_path / "lab"))
    dataset = Dataset(store, window=Window(0.4, 0.2), streams=MANY)
    moved = dataset.to("cpu", max_bytes=10**6)
    again = pickle.loads(pickle.dumps(moved))
    assert isinstance(again, DeviceDataset)
    assert_same(dataset.sample(9), again.sample(9))
    assert_same(dataset.sample(9), again.to("cpu").sample(9))


def test_draws_on_the_device_are_those_of_the_address() -> None:
    _, store = lab()
    dataset = Dataset(store, window=Window(0.4, 0.2), streams=MANY)
    address = dataset.plan.address(np.arange(20), np.arange(20), 3, 1)
    drawn = Windows.of(address, CPU).draws("mask").numpy().view(np.uint64)
    assert drawn.tolist() == address.draws("mask").tolist()


@pytest.mark.parametrize("device", ["nonsense", "meta", "mps", 1.5])
def test_what_is_no_device_for_recordings_is_refused(device) -> None:
    _, store = lab()
    dataset = Dataset(store, window=Window(0.4, 0.2), streams=MANY)
    with pytest.raises(UsageError, match=r"is no device|'cuda' or 'cpu'"):
        dataset.to(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is present")
def test_a_gpu_that_is_not_there_is_refused_with_the_way_out() -> None:
    _, store = lab()
    dataset = Dataset(store, window=Window(0.4, 0.2), streams=MANY)
    with pytest.raises(UsageError, match="not available to this torch"):
        dataset.to("cuda")


# ---- one search over many groups

_TICKS = st.integers(-(2**61), 2**61)


@given(
    st.lists(st.lists(st.integers(-50, 50), max_size=9).map(sorted), min_size=1, max_size=5),
    st.lists(_TICKS | st.integers(-60, 60), min_size=1, max_size=9),
    st.integers(-(2**40), 2**40),
)
@settings(max_examples=100, deadline=None)
def test_a_line_finds_in_each_group_what_a_search_of_it_alone_finds(groups, ticks, away) -> None:
    own = [np.array(one, dtype=np.int64) + k * away for k, one in enumerate(groups)]
    line = Line.of(own, CPU)
    for k, one in enumerate(own):
        asked = np.array(ticks) + (k * away if all(abs(t) < 100 for t in ticks) else 0)
        found = line.last(torch.tensor(k), torch.from_numpy(asked)) - line.first[k]
        assert found.tolist() == (np.searchsorted(one, asked, side="right") - 1).tolist()


def test_groups_that_reach_too_far_together_are_refused_with_both_numbers() -> None:
    far = np.array([-(2**60), 2**60])
    with pytest.raises(
        UsageError, match=r"4,611,686,018,427,387,910 ticks .* \(4,611,686,018,427,387,904\)"
    ):
        Line.of([far, far], CPU)


def test_spans_cover_what_intervals_cover() -> None:
    _, store = lab()
    chosen = Dataset(store, window=Window(0.4, 0.2), streams=MANY).chosen
    kinds = [one for each in chosen for one in each.kinds]
    spans, rng = Spans.of(kinds, CPU), np.random.default_rng(0)
    for number, one in enumerate(kinds):
        ends = np.concatenate([one.start, one.stop])
        first = np.concatenate([ends + k for k in (-1, 0, 1)] + [rng.integers(-(10**6), 10**8, 99)])
        for length in (0, 1, 30_000, 10**7):
            made = [torch.from_numpy(ticks) for ticks in (first, first + length)]
            found = spans.covers(torch.tensor(number), *made)
            assert found.tolist() == one.covers(first, first + length).tolist()
