"""What a dataset says of itself, against counts by hand; and what stands behind one window."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any

import _packed
import _sampled
import _small
import numpy as np
import pytest

import neurostore
from neurostore import cli, figures
from neurostore.errors import UsageError
from neurostore.sample import (
    Activity,
    Behaviour,
    Dataset,
    SpikeEvents,
    Spikes,
    Trials,
    Window,
    pack,
)
from neurostore.simulate import simulate

WINDOW = Window(0.6, 0.3, stride=0.3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> neurostore.Store:
    return _packed.store(tmp_path_factory.mktemp("described") / "lab")


def nbytes(batch: Any) -> dict[str, int]:
    """Of the tensors with their masks and reasons."""
    return {
        name: sum(
            one.numel() * one.element_size()
            for one in (batch.tensors[name], batch.reason[name], batch.mask[name])
        )
        for name in batch.tensors
    }


# ---- numbers by hand


def test_hours_windows_units_and_spikes_are_those_counted_by_hand():
    recordings = _sampled.three()[:2]
    streams = {"spikes": Spikes(0.1), "position": Behaviour("position", rate=10)}
    dataset = Dataset(_sampled.store_of(*recordings), window=WINDOW, streams=streams)
    found = dataset.describe(8)
    for one, recording in zip(found.sessions, recordings, strict=True):
        seen = _sampled.union(recording.seen(None))
        hours = sum(Fraction(stop - start) for start, stop in seen) / recording.hertz / 3600
        length, stride = floor(WINDOW.length * recording.hertz), Fraction(3, 10) * recording.hertz
        windows = sum(
            sum(start + floor(k * stride) + length <= stop for k in range(200))
            for start, stop in seen
        )
        assert one.session == recording.id
        assert one.hours == pytest.approx(float(hours), rel=1e-12)
        assert one.windows == windows
        assert one.units == len(recording.units)
        assert one.spikes == sum(map(len, recording.units.values()))
    assert [dict(one.missing) for one in found.sessions] == [{}, {"position": "position"}]
    assert sum(one.windows for one in found.sessions) == len(dataset)


def test_two_simulated_sessions_are_counted_within_a_split_and_chosen_units(tmp_path: Path):
    store = neurostore.create(tmp_path / "lab")
    with store.transaction("two") as tx:
        for row, units in enumerate((5, 9), 1):
            tx.put(simulate(row, units=units, seconds=60).builder("demo", f"m{row}"))
    lines = [store.session(f"demo/m{row}").timeline() for row in (1, 2)]
    made = neurostore.splits.interleaved_blocks("b", lines, block=5, ratios={"train": 2, "test": 1})
    part = made["train"]
    chosen = {
        f"demo/m{row}": store.session(f"demo/m{row}").units["unit"].values[:3] for row in (1, 2)
    }
    dataset = Dataset(
        store,
        units={id: [str(unit) for unit in own] for id, own in chosen.items()},
        window=Window(0.5, stride=0.25),
        streams={"spikes": Spikes(0.05)},
        split=part,
    )
    for one in dataset.describe().sessions:
        session = store.session(one.session)
        _, start, stop = part.blocks(one.session)
        ticks = sum(
            max(0, min(b, d) - max(a, c))
            for (a, b), (c, d) in itertools.product(
                zip(start, stop, strict=True), session.observed()
            )
        )
        assert one.hours == pytest.approx(ticks / float(session.clock.rate) / 3600)
        assert one.units == 3
        assert one.spikes == sum(len(session.spike_times(str(u))) for u in chosen[one.session])
        starts = dataset.sample(len(dataset))
        assert one.windows == starts.session.count(one.session)


# ---- memory


@pytest.mark.parametrize("name", ["masked", "shown", "staggered", "rows", "causal", "around"])
def test_predicted_bytes_are_those_of_a_batch_of_the_largest_session(store, name: str):
    dataset = _packed.datasets(store, name)[name]
    found = dataset.describe(6)
    units = [one.units if one.windows else -1 for one in found.sessions]
    first = sum(one.windows for one in found.sessions[: int(np.argmax(units))])
    windows = min(6, found.sessions[int(np.argmax(units))].windows)
    batch = dataset.read(dataset.plan.address(np.arange(first, first + windows)))
    assert {k: size * 6 // windows for k, size in nbytes(batch).items()} == found.batch_bytes


def test_no_batch_is_larger_than_predicted_and_one_is_as_large(store):
    """With events, whose number differs from window to window."""
    dataset = _packed.datasets(store, "plain")["plain"]
    found = dataset.describe(1).batch_bytes
    most = dict.fromkeys(found, 0)
    for k in range(len(dataset)):
        most = {name: max(most[name], size) for name, size in nbytes(dataset[k]).items()}
    assert most == found
    for batch in dataset.loader(32, seed=1):
        sizes = nbytes(batch)
        assert all(size <= found[name] * len(batch.tick) for name, size in sizes.items())


def test_the_busiest_window_is_found_across_pieces(store, monkeypatch: pytest.MonkeyPatch):
    streams = {"events": SpikeEvents()}
    whole = Dataset(store, window=WINDOW, streams=streams).describe().batch_bytes
    monkeypatch.setattr("neurostore.sample._describe._PIECE", 1)
    assert Dataset(store, window=WINDOW, streams=streams).describe().batch_bytes == whole


# ---- how it is said


def test_it_reads_as_a_table_as_json_and_as_words(store):
    found = _packed.datasets(store, "train")["train"].describe(4)
    table = found.table()
    assert table["session"].tolist() == [one.session for one in found.sessions]
    assert table["missing"].tolist() == ["", "wheel", ""]
    said = json.loads(json.dumps(found.to_json()))
    assert said["sessions"][1]["missing"] == {"wheel": "wheel"}
    assert said["batch_bytes"] == dict(found.batch_bytes)
    text = repr(found)
    for one in found.sessions:
        assert f"{one.session}" in text
        assert f"{one.spikes:,}" in text
    assert "in all" in text
    assert "4 windows" in text
    assert "<table" in found._repr_html_()


def test_a_dataset_of_a_bundle_is_described_alike(store, tmp_path: Path):
    datasets = _packed.datasets(store, "plain", "shown")
    bundle = pack(datasets, tmp_path / "b")
    for name, one in datasets.items():
        assert bundle.dataset(name).describe(5) == one.describe(5)


def test_the_command_prints_what_describe_finds_and_draws_it(tmp_path: Path, capsys):
    _small.store(tmp_path / "lab", _small.spikes())
    words = ["describe", str(_small.file(tmp_path)), str(tmp_path / "lab")]
    assert cli.main([*words, "--json", "--batch-size", "16"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert sorted(said) == ["test", "train", "validation"]
    assert said["train"]["batch_size"] == 16
    assert said["train"]["sessions"][0]["units"] == 6
    assert cli.main([*words, "--picture", str(tmp_path / "p.svg")]) == 0
    out = capsys.readouterr().out
    assert f"{said['train']['sessions'][0]['windows']:,}" in out
    assert "<svg" in (tmp_path / "p.svg").read_text()
    assert cli.main([*words, "--at", "v9"]) == 2


def test_the_picture_says_what_every_session_brings_and_lacks(store):
    parts = {name: one.describe() for name, one in _packed.datasets(store, "train", "test").items()}
    drawn = figures.dataset(parts)
    assert drawn.data.lstrip().startswith(b"<?xml")
    total = sum(one.windows for part in parts.values() for one in part.sessions)
    assert drawn.caption == f"3 sessions with {total:,} windows in all."


# ---- behind one window


def _ticks(store: neurostore.Store, found: Any) -> tuple[int, int]:
    clock = store.session(found.session).clock
    assert clock.seconds(np.array([found.ticks[0]]))[0] == found.start
    return found.ticks


def _stored(store: neurostore.Store, session: str, table: str) -> dict[str, np.ndarray]:
    columns = store.session(session).stored(table).columns
    return {name: np.asarray(column.values[:]) for name, column in columns.items()}


def test_rows_bytes_and_chunks_are_those_of_the_tables(store):
    streams = {
        "spikes": Spikes(0.1),
        "events": SpikeEvents(),
        "position": Behaviour("position", rate=50),
        "wheel": Behaviour("wheel", rate=50),
        "voltage": Activity("voltage"),
        "trials": Trials(("side",)),
    }
    dataset = Dataset(store, ["demo/a", "demo/c"], window=WINDOW, streams=streams)
    for index in (0, 17, len(dataset) - 1):
        found = dataset.explain(index)
        first, stop = _ticks(store, found)
        session = store.session(found.session)
        reads = {one.table: one for one in found.reads}
        time = _stored(store, found.session, "spikes")["time"]
        low, high = (int((time < tick).sum()) for tick in (first, stop))
        assert reads["spikes"].rows == (low, high)
        assert reads["spikes"].bytes == (high - low) * 4
        assert reads["spikes"].streams == ("spikes", "events")
        stamps = _stored(store, found.session, "behaviour/position")["time"]
        low, high = (int((stamps < tick).sum()) for tick in (first, stop))
        assert reads["behaviour/position"].rows == (low, high)
        step = session.clock.rate / 50
        rows = tuple(min(max(ceil(tick / step), 0), 1000) for tick in (first, stop))
        for table in ("behaviour/wheel", "activity/voltage"):
            assert reads[table].rows == rows
            width = _stored(store, found.session, table)["value"].shape[1]
            each = sum(
                (rows[1] - rows[0]) * one[0].nbytes if len(one) == 1000 else one.nbytes
                for name, one in _stored(store, found.session, table).items()
                if one.dtype.kind in "fbiu"
            )
            assert reads[table].bytes >= each
            assert width * (rows[1] - rows[0]) * 4 <= reads[table].bytes
        assert reads["intervals/trials"].rows is None
        for one in found.reads:
            entry = session.attrs["row"]["tables"][one.table]
            assert (one.digest, one.contract) == (entry["digest"], entry["contract"])
            if one.chunks is not None:
                size = session.chunk_rows(one.table)
                assert one.chunks == (one.rows[0] // size, ceil(one.rows[1] / size))
        assert found.snapshot == store.snapshot
        batch = dataset[index]
        assert found.trial == int(batch.trial[0])
        assert found.tensors["spikes"][0] == tuple(batch["spikes"].shape)
        assert found.tensors["spikes"][1] == pytest.approx(
            float(batch.mask["spikes"].double().mean())
        )


def test_it_says_what_the_cache_serves_and_what_is_read_directly(store, monkeypatch):
    streams = {"spikes": Spikes(0.1)}
    cached = Dataset(store, "demo/a", window=WINDOW, streams=streams).explain(0)
    monkeypatch.setenv("NEUROSTORE_CACHE", "off")
    again = neurostore.open(store.url)
    direct = Dataset(again, "demo/a", window=WINDOW, streams=streams).explain(0)
    spikes = [
        next(one for one in found.reads if one.table == "spikes") for found in (cached, direct)
    ]
    assert [one.cache for one in spikes] == ["cached", "direct"]
    assert spikes[0].rows == spikes[1].rows
    assert [one.bytes // (one.rows[1] - one.rows[0]) for one in spikes] == [4, 12]


def test_blocks_of_a_split_and_pieces_of_observed_time_are_named(store):
    dataset = _packed.datasets(store, "train")["train"]
    part = store.split("blocks/train")
    for index in range(0, len(dataset), 13):
        found = dataset.explain(index)
        rows, start, stop = part.blocks(found.session)
        at = rows.tolist().index(found.block)
        first, last = found.ticks
        assert start[at] <= first < last <= stop[at]
        assert found.label == "train"
        low, high = found.interval
        assert low <= found.start < found.stop <= high
        assert f"block {found.block} of 'train'" in repr(found)
    plain = Dataset(store, window=WINDOW, streams={"s": Spikes(0.1)}).explain(-1)
    assert (plain.block, plain.label) == (-1, "")
    assert plain.interval[0] <= plain.start < plain.stop <= plain.interval[1]


def test_stimuli_are_named_by_digest_where_the_session_was_shown_them(store):
    dataset = _packed.datasets(store, "shown")["shown"]
    found, lacking = dataset.explain(0), dataset.explain(-1)
    stimulus = store.stimulus("movie")
    clip = stimulus.embedding("clip")
    assert found.stimuli == {
        "picture": {"movie": {"stimulus": stimulus.digest}},
        "clip": {
            "movie": {"stimulus": stimulus.digest, "embedding": "clip/v1", "values": clip.digest}
        },
    }
    assert f"movie ({stimulus.digest[:12]}, clip/v1 {clip.digest[:12]}) for clip" in repr(found)
    assert lacking.session == "demo/c"
    assert lacking.stimuli == {}
    assert set(lacking.missing) == {"picture", "clip"}
    assert [one.table for one in found.reads] == ["presentations/movie"]
    assert json.loads(json.dumps(found.to_json()))["stimuli"]["clip"]["movie"]["values"]


def test_a_window_that_is_not_there_is_refused_with_how_many_are(store):
    dataset = _packed.datasets(store, "around")["around"]
    with pytest.raises(IndexError, match="has 2 windows"):
        dataset.explain(2)
    with pytest.raises(UsageError, match="a number"):
        dataset.explain(slice(0, 1))  # type: ignore[arg-type]


def test_a_window_of_a_bundle_is_explained_by_the_same_rows(store, tmp_path: Path):
    datasets = _packed.datasets(store, "plain", "rows")
    bundle = pack(datasets, tmp_path / "b")
    for name, one in datasets.items():
        ours, theirs = bundle.dataset(name).explain(5), one.explain(5)
        assert (ours.ticks, ours.tensors, ours.stimuli) == (
            theirs.ticks,
            theirs.tensors,
            theirs.stimuli,
        )
        assert [(r.table, r.digest, r.rows, r.bytes) for r in ours.reads] == [
            (r.table, r.digest, r.rows, r.bytes) for r in theirs.reads
        ]
        assert {r.chunks for r in ours.reads} == {None}
