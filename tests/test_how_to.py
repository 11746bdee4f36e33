"""The code of the how-to pages, run on the recordings they speak of."""

from __future__ import annotations

import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _object_store import BUCKET, open_to_all, served

import neurostore
from neurostore.simulate import simulate

PAGES = Path(__file__).parents[1] / "docs" / "how-to"


def code(page: str) -> dict[str, Any]:
    """What the python blocks of a page define, run in order."""
    text = (PAGES / page).read_text("utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(compile(block, page, "exec"), names)
    return names


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    return code("your-own-format.md")


@pytest.mark.realdata
def test_w_maze_goes_in_whole_and_comes_back_on_its_clock(page, data):
    folder = data("hippocampus_nelpy") / "w-maze"
    session = page["keep"]("memory://w-maze-how-to", folder)
    row = session.attrs["row"]
    assert (row["n_units"], row["n_spikes"]) == (25, 518_352)
    assert session.clock.rate == Fraction(30_000)
    assert session.attrs["clock"]["error"] < 1e-9
    position = session.behaviour["position"]
    assert position.sizes == {"time": 261_995, "channel": 2}
    assert list(position["channel"].values) == ["x", "y"]


@pytest.mark.realdata
def test_w_maze_spikes_and_positions_equal_the_files(page, data):
    folder = data("hippocampus_nelpy") / "w-maze"
    session = page["keep"]("memory://w-maze-equal", folder)
    units = page["read_spikes"](folder / "spikes.mat")
    assert len(units) == 25
    for unit, times in units.items():
        np.testing.assert_allclose(session.spike_times(unit), np.sort(times), rtol=0, atol=1e-9)
    time, position, clock = page["read_tracking"](folder / "trajectory.videoPositionTracking")
    stored = session.behaviour["position"]
    np.testing.assert_array_equal(stored["value"].values, position)
    np.testing.assert_array_equal(np.rint(stored["time"].values * clock), np.rint(time * clock))


@pytest.mark.realdata
def test_w_maze_frozen_tracking_is_masked_and_said(page, data):
    folder = data("hippocampus_nelpy") / "w-maze"
    session = page["keep"]("memory://w-maze-frozen", folder)
    valid = session.behaviour["position"]["valid"].values
    seconds = (~valid).sum() / 60
    assert 2_050 < seconds < 2_100
    found = [one for one in session.findings if one.check == "w-maze/frozen_tracking"]
    assert len(found) == 1
    assert found[0].count == (~valid).sum()


@pytest.mark.realdata
def test_the_reader_of_the_page_is_ingested_once(page, data):
    folder = data("hippocampus_nelpy") / "w-maze"
    store = neurostore.create("memory://w-maze-reader")
    for status in ("written", "unchanged"):
        report = neurostore.ingest(store, [page["WMaze"](folder)])
        assert [one.status for one in report.outcomes] == [status]
    assert store.session("w-maze/w1").attrs["source"]["reader"] == "w-maze"


@pytest.mark.realdata
def test_the_lines_of_the_page_run_in_order_and_print_what_it_shows(
    page, data, tmp_path, monkeypatch, capsys
):
    (tmp_path / "w-maze").symlink_to(data("hippocampus_nelpy") / "w-maze")
    monkeypatch.chdir(tmp_path)
    text = (PAGES / "your-own-format.md").read_text("utf-8")
    blocks, names = re.findall(r"```pycon\n(.*?)```", text, re.S), dict(page)
    for block in blocks:
        for line in re.findall(r"^>>> (.*)", block, re.M):
            exec(compile(line, "your-own-format.md", "single"), names)
    shown = re.findall(r"^(?!>>> )(.+)", blocks[-1], re.M)
    assert capsys.readouterr().out.splitlines()[-len(shown) :] == shown


def test_a_table_is_added_as_the_page_says():
    store = neurostore.create("memory://add-pupil")
    with store.transaction("spikes") as tx:
        made = neurostore.SessionBuilder(dataset="d", session="s")
        made.add_units({"u": np.arange(100) / 10})
        tx.put(made)
    diameter = np.where(np.arange(50) % 10 == 3, np.nan, 1.5)
    session = code("add-to-a-session.md")["add_pupil"](store, "d/s", diameter, np.arange(50) / 5)
    pupil = session.behaviour["pupil"]
    assert pupil["valid"].values.sum() == 45
    np.testing.assert_allclose(pupil["time"].values, np.arange(50) / 5)


def test_a_store_is_tidied_as_the_page_says(tmp_path):
    store = neurostore.create(tmp_path / "lab")
    names = code("upkeep.md")
    for name in "ab":
        made = neurostore.SessionBuilder(dataset="d", session=name)
        made.add_behaviour("wheel", np.arange(500.0), start=0, rate=5, units="rad")
        with store.transaction(name) as tx:
            tx.put(made)

    def half(wheel):
        value, span = wheel["value"].values / 2, store.session("d/b").span
        return neurostore.tables.behaviour("half", value, span, start=0, rate=5, units="rad")

    names["made_from"](store, "d/a", "d/b", half)
    wheel = store.session("d/a").attrs["row"]["tables"]["behaviour/wheel"]["digest"]
    assert store.lineage("d/b", "behaviour/half").inputs == {"d/a:behaviour/wheel": wheel}
    assert names["tidy"](store, keep=1) == 0  # younger than a week
    assert len(store.log()) == 1


@pytest.mark.realdata
def test_a_session_is_split_into_blocks_as_the_page_says(page, data):
    folder = data("hippocampus_nelpy") / "w-maze"
    store = page["keep"]("memory://w-maze-splits", folder).store
    names = code("split-a-session.md")
    kept = names["keep"](store, names["five_rotations"](store, "w-maze/w1"))
    assert [split.title for split in kept] == [f"rotation-{k}/v1" for k in (0, 2, 4, 6, 8)]
    text = (PAGES / "split-a-session.md").read_text("utf-8")
    assert f'>>> keep(store, five_rotations(store, "w-maze/w1"))[0]\n{kept[0]!r}\n' in text
    assert f"version\n{store.split('rotation-0/test')!r}\n" in text


def test_trials_are_split_into_folds_as_the_page_says():
    store = neurostore.create("memory://page-folds")
    made = neurostore.SessionBuilder(dataset="d", session="s")
    made.add_units({"u": np.arange(1000) / 10})
    start = np.arange(90.0)
    made.add_intervals("trials", start, start + 0.5, condition=[f"c{k % 3}" for k in range(90)])
    with store.transaction("trials") as tx:
        tx.put(made)
    names = code("split-a-session.md")
    kept = names["keep"](store, names["folds_of_trials"](store, "d/s", ["condition"]))
    tested = np.concatenate([split["test"].blocks("d/s")[0] for split in kept])
    assert sorted(tested.tolist()) == list(range(90))


@pytest.fixture(scope="module")
def demo_store(tmp_path_factory: pytest.TempPathFactory) -> neurostore.Store:
    store = neurostore.create(tmp_path_factory.mktemp("how-to") / "lab")
    with store.transaction("two sessions") as tx:
        for row, units in enumerate((8, 12), 1):
            made = simulate(row, units=units, seconds=400, latents=2)
            tx.put(made.builder("demo", f"mouse-{row}"))
    return store


def test_windows_are_what_the_page_says(demo_store):
    names = code("windows.md")
    dataset = names["windows"](demo_store)
    batch = dataset.sample(32, seed=0)
    assert tuple(batch["spikes"].shape) == (32, 12, 75)
    assert batch["wheel"].shape[1] == 75
    for name in ("events.time", "events.unit", "trials.contrast", "trials.choice"):
        assert len(batch[name]) == 32
    spikes, wheel = next(iter(names["epoch"](dataset)))
    assert (spikes.shape[0], len(wheel)) == (32, 32 * 75)
    assert sum(names["why"](batch, "spikes").values()) == batch["spikes"].numel()
    events = names["around_the_stimulus"](demo_store, "demo/mouse-1")
    session = demo_store.session("demo/mouse-1")
    rows = session.rows("intervals/trials", "choice <> 0")
    assert 0 < len(events) <= len(rows)


def test_stimuli_are_kept_and_joined_as_the_page_says():
    names, rng = code("stimuli.md"), np.random.default_rng(0)
    store = neurostore.create("memory://page-stimuli")
    frames = rng.integers(0, 256, (90, 6, 8)).astype(np.uint8)
    vectors = rng.normal(size=(90, 12)).astype(np.float32)
    stimulus = names["keep"](store, frames, vectors)
    np.testing.assert_array_equal(stimulus.frames[12:15], frames[12:15])
    names["add"](store, "clip_l14", vectors.astype(np.float16))
    assert store.stimulus("natural_movie_one").embedding("clip_l14").title == "clip_l14/v2"
    made = neurostore.SessionBuilder(dataset="d", session="s")
    made.add_units({"u": np.arange(1000) / 10})
    frame = np.r_[np.arange(90), -1]
    start = np.r_[np.arange(90) / 30, 3.0]
    names["shown"](made, start, np.r_[start[1:], 4.0], frame)
    with store.transaction("a session") as tx:
        tx.put(made)
    batch = names["windows"](store).window("d/s", 2)
    assert batch["frame"][0, :5].tolist() == [60, 60, 61, 61, 62]
    np.testing.assert_array_equal(batch["picture"][0, 3], frames[69])
    np.testing.assert_array_equal(batch["clip"][0, 0], vectors[58].astype(np.float16))
    assert names["blank"](batch)[0].tolist() == [False] * 50 + [True] * 25


def test_masks_held_out_units_and_fewer_units_are_what_the_page_says(demo_store):
    names = code("windows.md")
    for make in (names["masked"], names["held_out"]):
        batch = make(demo_store, "demo/mouse-1").sample(8, seed=0)
        rate = torch.ones_like(batch["spikes.target"], dtype=torch.float32)
        counted = batch["spikes.target_mask"]
        assert 0 < int(counted.sum()) < counted.numel()
        assert float(names["loss"](rate, batch)) == 1.0
        assert not batch["spikes"][counted].any()
    regions = demo_store.units(sessions=["demo/mouse-1"])["region"].to_numpy()
    outside = torch.from_numpy(regions != "CA1")
    assert torch.equal(batch.mask["spikes"][0, :, 0], outside)
    assert batch["spikes.target_mask"][:, :, 50:].all()
    units = [names["fewer"](demo_store)[k].unit_mask.sum() for k in range(6)]
    assert all(3 <= count <= 12 for count in units)


def test_order_and_time_line_are_what_the_page_says(demo_store):
    names = code("windows.md")
    dataset = names["windows"](demo_store)
    whole = [batch.tick.tolist() for batch, _ in names["go_on"](dataset, batches=5)]
    (first, state), *_ = names["go_on"](dataset, batches=1)
    rest = [batch.tick.tolist() for batch, _ in names["go_on"](dataset, state, batches=4)]
    assert [first.tick.tolist(), *rest] == whole
    alike = names["every_session_alike"](dataset)
    assert len(alike) == -(-10_000 // 32)
    lines = list(names["on_the_time_line"](dataset, lambda batch: batch.future("spikes")))
    assert [session for session, *_ in lines] == dataset.session_ids
    for _, start, value, count in lines:
        assert value.shape[1] == len(start) == len(count)
        assert (np.isnan(value).all(axis=0) == (count == 0)).all()


def test_subjects_are_left_out_and_fitted_values_kept_apart_as_the_page_says():
    store, names = neurostore.create("memory://page-subjects"), code("split-a-session.md")
    with store.transaction("three subjects") as tx:
        for row in range(3):
            made = neurostore.SessionBuilder(dataset="d", session=f"s{row}", subject=f"rat-{row}")
            made.add_units({"u": np.arange(1000) / 10 + 0.01})
            time = np.arange(5000) / 50
            made.add_behaviour("speed", np.sin(time) * row + row, time=time, units="cm/s")
            tx.put(made)
    kept = names["keep"](store, names["each_subject_left_out"](store))
    assert [one["test"].sessions for one in kept] == [("d/s0",), ("d/s1",), ("d/s2",)]

    def open_part(label, **more):
        streams = {"speed": neurostore.Behaviour("speed", rate=20)}
        window = neurostore.Window(0.5, 0.5)
        split = f"subject-0/{label}"
        return neurostore.Dataset(store, window=window, streams=streams, split=split, **more)

    train, test = names["normalised"](open_part, "speed")
    assert abs(float(train.sample(len(train))["speed"].mean())) < 0.01
    assert names["unseen_units"](train, test) == (train, test)
    elsewhere = names["Normaliser"].fit(open_part("validation"), "speed")
    with pytest.raises(neurostore.UsageError, match="is used in 'train'"):
        open_part("train", transform=elsewhere)


def test_a_model_is_trained_and_scored_as_the_page_says(demo_store, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    text = (PAGES / "train-and-score.md").read_text("utf-8")
    blocks = re.findall(r"```(\w+)\n(.*?)```", text, re.S)
    (model,) = [body for kind, body in blocks if kind == "python" and "class LastBins" in body]
    (recipe,) = [body for kind, body in blocks if kind == "toml" and "LastBins" in body]
    (tmp_path / "my_models.py").write_text(model)
    (tmp_path / "last_bins.toml").write_text(recipe)
    names = code("train-and-score.md")
    run = neurostore.train(
        tmp_path / "last_bins.toml", demo_store, tmp_path / "own", {"data.sessions": "demo/mouse-2"}
    )
    table = names["beside"](neurostore.evaluate(run))
    assert table["model"][0] == "LastBins"
    assert table["bits_per_spike"][0] > 0
    run, scores = names["first_model"](demo_store, "demo/mouse-2", tmp_path / "first")
    assert run.status == "done"
    assert scores.to_json()["models"][0]["difference"] is None
    again = names["with_the_history_mean"](run)
    assert "history mean" in again.table()["model"].tolist()


def test_dense_activity_is_observed_as_the_page_says():
    store = neurostore.create("memory://page-acquisition")
    voltage = np.random.default_rng(0).standard_normal((400, 7)).astype(np.float32)
    made = neurostore.SessionBuilder(dataset="d", session="s", rate=30_000)
    made.add_activity("voltage", voltage, start=0.0, rate=50, units="mV")
    made.add_activity("stimulus", voltage[:, :2], start=0.0, rate=50, units="")
    with store.transaction("dense") as tx:
        tx.put(made)
    names = code("acquisition.md")
    ways = names["three_acquisitions"]()
    for kind in ("aligned", "staggered"):
        dataset = names["observations"](store, ways[kind])
        batch = dataset.sample(8, seed=0)
        assert tuple(batch["voltage"].shape) == (8, 6, 7)
        assert tuple(batch["stimulus"].shape) == (8, 100, 2)
        step = batch["voltage.step"].numpy()
        assert (step % 20 == dataset.phases("voltage")["d/s"]).all()
        for m in range(6):
            found = batch["voltage"][:, m].numpy()
            np.testing.assert_array_equal(found, voltage[step + 20 * m, np.arange(7)])
        share = names["rows"](store, ways[kind]).sample(4)
        assert float(share.mask["voltage"].double().mean()) == 1 / 20
    assert names["rows"](store, ways["whole"]).sample(4).mask["voltage"].all()


def test_windows_on_a_device_are_what_the_page_says(demo_store):
    names = code("on-the-gpu.md")
    dataset = names["on_device"](demo_store, "cpu")
    host = code("windows.md")["windows"](demo_store)
    assert (dataset.sample(32)["spikes"] == host.sample(32)["spikes"]).all()
    assert set(dataset.nbytes["spikes"]) == {"demo/mouse-1", "demo/mouse-2"}
    assert dataset.host_streams == ()
    expected = sum(int((b["spikes"] * b.mask["spikes"]).sum()) for b in host.loader(256))
    assert names["spikes_seen"](dataset) == expected


def test_the_cache_is_moved_and_windows_are_asked_for_at_once_as_the_page_says(
    demo_store, tmp_path, monkeypatch
):
    for name in ("NEUROSTORE_CACHE", "NEUROSTORE_CACHE_BOUND"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # brings back what the page sets
    names = code("fast-windows.md")
    held = names["on_this_node"](tmp_path / "fast", bound="2GB")
    assert (held.root, held.bound) == (tmp_path / "fast" / "tables", 2 * 10**9)
    dataset = code("windows.md")["windows"](demo_store)
    times = [10.0, 12.345, 99.9]
    batch = names["responses"](dataset, "demo/mouse-2", times)
    assert len(held.entries()) > 0
    for k, time in enumerate(times):
        alone = dataset.window("demo/mouse-2", time)["spikes"][0]
        assert torch.equal(batch["spikes"][k], alone)


def test_rates_rasters_and_binned_sessions_are_what_the_page_says(demo_store):
    names, ids = code("psth.md"), ["demo/mouse-1", "demo/mouse-2"]
    rates = names["stimulus_responses"](demo_store, ids)
    assert set(rates["region"].values) == {"CA1"}
    for id in ids:
        rows = demo_store.session(id).rows("intervals/trials", "choice = 1")
        assert (rates["n"].values[rates["session"].values == id] == len(rows)).all()
    assert np.isfinite(names["modulated"](rates)).all()
    session = demo_store.session("demo/mouse-2")
    time, event = names["raster_of"](session, "4")
    events = session.intervals["trials"]["stim_on_time"].values
    found = [np.sum((time > 0) & (time < 0.5) & (event == k)) for k in range(len(events))]
    of = session.spike_times("4")
    assert found == [np.sum((of > at) & (of < at + 0.5)) for at in events]
    means = names["mean_rates"](session)
    spikes = [len(session.spike_times(str(unit))) for unit in means["unit"].values]
    np.testing.assert_allclose(means, np.array(spikes) / 400)
    same = names["correlations"](session, 0, 100)
    np.testing.assert_allclose(np.diag(same), 1)


def test_a_bundle_is_packed_and_trained_from_as_the_page_says(demo_store, tmp_path):
    names = code("pack-for-a-cluster.md")
    datasets, bundle = names["parts"](demo_store), names["keep"](demo_store, tmp_path / "b")
    assert sorted(bundle.datasets) == ["train", "validation"]
    for label, one in datasets.items():
        ours, theirs = bundle.dataset(label).sample(8, seed=1), one.sample(8, seed=1)
        assert torch.equal(ours["spikes"], theirs["spikes"])
    torch.manual_seed(0)
    _, first = names["fit"](tmp_path / "b", epochs=1)
    torch.manual_seed(0)
    model, last = names["fit"](tmp_path / "b", epochs=3)
    assert last < first
    assert model.weight.shape == (12, 12)


def test_a_release_is_published_and_read_as_the_page_says(demo_store, tmp_path):
    names = code("publish.md")
    said = names["publish"](demo_store, tmp_path / "mice")
    assert said.snapshot == demo_store.snapshot
    found = names["responses"](tmp_path / "mice", "demo/mouse-2")
    expected = demo_store.session("demo/mouse-2").counts(0, 10, 0.02)
    assert found.identical(expected)


def test_a_store_is_brought_home_as_the_page_says(demo_store, tmp_path):
    names = code("clone.md")
    assert names["how_much"](demo_store, tmp_path / "all") > 10_000
    made = names["bring"](demo_store, tmp_path / "copy")
    copy = neurostore.open(tmp_path / "copy")
    assert made.sessions == list(demo_store.sessions("n_units >= 2")["id"])
    for id in made.sessions:
        there = {"spikes", "intervals/trials", "units", "intervals/observed"}
        assert set(copy.session(id).tables) == there & set(demo_store.session(id).tables)


def test_the_history_is_read_and_things_come_back_as_the_page_says():
    names, store = code("history.md"), neurostore.create("memory://page-history")

    def put(units):
        made = neurostore.SessionBuilder(dataset="d", session="s")
        made.add_units({f"u{k}": np.arange(100) / 10 + k for k in range(units)})
        made.add_behaviour("wheel", np.sin(np.arange(200) / 10), start=0, rate=20, units="rad")
        with store.transaction(f"{units} units") as tx:
            tx.put(made, replace=True)

    put(2)
    store.tag("v1")
    put(4)
    assert names["units_that_came"](store, "v1") == {"d/s": ("u2", "u3")}
    assert len(names["units_then"](store, "2999-01-01")) == 4
    made = names["add_speed"](store, "d/s", 0.2)
    assert (made.parameters, set(made.inputs)) == ({"sigma": 0.2}, {"behaviour/wheel"})
    wheel = neurostore.tables.behaviour(
        "wheel", np.zeros(9), store.session("d/s").span, start=0, rate=1, units="rad"
    )
    with store.transaction("wheel") as tx:
        tx.update("d/s", wheel)
    assert names["undo_wheel"](store, "d/s", "v1").snapshot == store.snapshot
    assert len(store.session("d/s").behaviour["wheel"].value) == 200
    assert len(names["curated"](store, "d/s").sessions()) == 0
    assert len(neurostore.open(store.url).sessions()) == 1


def test_a_store_in_a_bucket_is_made_filled_and_pinned_as_the_page_says(tmp_path):
    names, url = code("object-stores.md"), f"s3://{BUCKET}/lab"
    made = neurostore.SessionBuilder(dataset="d", session="s")
    made.add_units({"u": np.arange(100) / 10})
    with served(tmp_path) as bucket:
        options = bucket.options()
        store = names["start"](url, options)
        assert list(names["add"](store, made)["id"]) == ["d/s"]
        store.tag("v1")
        with store.transaction("without") as tx:
            tx.delete("d/s")
        assert "d/s" in names["at_a_tag"](url, "v1", options)
        endpoint, key, secret = options["endpoint_url"], options["key"], options["secret"]
        assert "d/s" not in names["of_ones_own"](url, endpoint, key, secret)
        open_to_all(bucket)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", endpoint)
            assert names["public"](url).snapshot == store.snapshot


def test_many_repositories_open_as_one_and_their_catalogues_are_written(tmp_path):
    many = code("many-repositories.md")
    urls = []
    for name in ("north", "south"):
        made = neurostore.create(tmp_path / name)
        with made.transaction("a session") as tx:
            builder = neurostore.SessionBuilder(dataset=name, session="a", rate=30_000)
            builder.add_units({"u0": [1.0, 2.0], "u1": [1.5]})
            tx.put(builder)
        urls.append(made.url)
        sessions, size = many["write_catalogue"](made.url)
        written = tmp_path / name / "neurostore" / "catalogue" / "newest"
        assert (sessions, size) == (1, written.stat().st_size)
    store, found = many["together"](urls)
    assert list(found["id"]) == store.ids == ["north/a", "south/a"]
