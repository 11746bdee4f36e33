"""The code of the how-to pages, run on the recordings they speak of."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
