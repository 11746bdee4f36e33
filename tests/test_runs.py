"""A run's folder is whole after every kill, and knows what it was made from."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from neurostore import runs
from neurostore.errors import (
    ConflictError,
    DamagedError,
    NotFoundError,
    RefusedError,
    StoreError,
    UsageError,
)
from neurostore.recipes import load
from neurostore.runs import Checkpoint, Run
from neurostore.splits import Split
from neurostore.store.urls import redacted

RECIPE = """
architecture = "_architectures:Linear"
[window]
history = 1
[streams.spikes]
kind = "Spikes"
bin = 0.02
[split]
stored = "blocks"
"""

SCORES = '{"label": "test", "models": [{"name": "Line", "bits_per_spike": 0.5}]}'

LINE = {"training_loss": 1.0, "validation_loss": 2.0, "seconds": 0.5, "learning_rate": 1e-3}


@pytest.fixture
def recipe(tmp_path: Path):
    path = tmp_path / "line.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return load(path)


@pytest.fixture
def split() -> Split:
    rows = {"session": ["w/1", "w/1"], "start": [0, 10], "stop": [10, 20]}
    return Split(
        "blocks",
        {"method": "by hand"},
        np.array(rows["session"]),
        np.array(rows["start"]),
        np.array(rows["stop"]),
        np.array(["train", "test"]),
    )


def identity(made: Split, **changed):
    session = {"tables": {"spikes": "a" * 64, "units": "b" * 64}, "units": ["u0", "u1"]}
    return {
        "url": "/lab",
        "snapshot": "SNAP",
        "sessions": {"w/1": session},
        "window": {"history": 1.0},
        "streams": {"spikes": {"kind": "Spikes", "bin": 0.02}},
        "acquisition": "All",
        "split": made.digest,
        "label": "train",
        "history_may_cross": False,
        **changed,
    }


@pytest.fixture
def run(tmp_path, recipe, split) -> Run:
    return Run.create(
        tmp_path / "runs" / "one", recipe=recipe, split=split, identity=identity(split)
    )


def test_a_new_run_says_what_it_is_bound_to_and_comes_back_from_its_folder(run, recipe, split):
    again = Run.open(run.folder)
    assert again.id == run.id
    assert again.id.startswith("line-")
    assert again.status == "training"
    assert again.recipe == recipe
    assert again.recipe.origins == recipe.origins
    assert again.split == split
    assert again.identity == identity(split)
    assert again.snapshot == "SNAP"
    assert again.facts["environment"]["torch"] == torch.__version__
    assert again.facts["seed"] == 0
    assert again.metrics().empty
    assert again.checkpoint() is None
    assert again.scores() is None
    with pytest.raises(UsageError, match=r"is not done \(status 'training', 0 epochs\)"):
        again.weights()


def test_a_run_begins_in_an_empty_folder_and_in_no_other(tmp_path, recipe, split):
    made = {"recipe": recipe, "split": split, "identity": identity(split)}
    (tmp_path / "empty").mkdir()
    Run.create(tmp_path / "empty", **made)
    with pytest.raises(UsageError, match=r"empty holds something already.*resume=True"):
        Run.create(tmp_path / "empty", **made)
    with pytest.raises(UsageError, match="holds something"):
        Run.create(tmp_path / "line.toml", **made)
    with pytest.raises(StoreError, match="cannot be made"):
        Run.create(tmp_path / "line.toml" / "inner", **made)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["empty", "line.toml"]


def test_a_folder_without_a_run_is_answered_with_the_nearest(run):
    with pytest.raises(NotFoundError, match="Did you mean 'one'"):
        Run.open(run.folder.parent / "onee")


def test_a_line_of_metrics_stands_for_its_epoch_once(run):
    for epoch in (0, 1, 2):
        run.record({"epoch": epoch, "step": 10 * epoch, **LINE})
    run.record({"epoch": 1, "step": 11, **LINE})
    assert run.metrics()["epoch"].tolist() == [0, 1]
    assert run.metrics()["step"].tolist() == [0, 11]
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.record({"epoch": 2, "step": 20, **LINE, "training_loss": float("nan")})
    assert run.metrics()["epoch"].tolist() == [0, 1]


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_tensors_of_every_kind_come_back_bit_by_bit(run, dtype):
    tensors = {
        "a": torch.arange(12).reshape(3, 4).to(dtype),
        "alone": torch.tensor(1).to(dtype),
        "none": torch.zeros(0, 3).to(dtype),
    }
    tensors["view"] = tensors["a"].T  # shares memory, and is not contiguous
    run.save(Checkpoint(tensors, {"epoch": 1, "loss": 0.1 + 0.2}))
    again = run.checkpoint()
    assert again.facts["loss"] == 0.1 + 0.2
    assert again.tensors.keys() == tensors.keys()
    for name, one in tensors.items():
        assert again.tensors[name].dtype == dtype
        assert torch.equal(again.tensors[name], one)


def test_a_finished_run_has_weights_and_says_when_it_ended(run):
    weight = torch.nn.Parameter(torch.randn(3, generator=torch.Generator().manual_seed(0)))
    run.finish({"weight": weight}, epoch=2, step=30)
    again = Run.open(run.folder)
    assert again.status == "done"
    assert again.facts["finished"] >= again.facts["started"]
    assert torch.equal(again.weights()["weight"], weight.detach())
    facts = json.loads((run.folder / "weights.json").read_text())
    assert (facts["epoch"], facts["step"]) == (2, 30)
    assert len(facts["sha256"]) == 64


def damage(path: Path, where: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 0x41
    path.write_bytes(content)


@pytest.mark.parametrize("where", [0.0, 0.3, 0.97, 1.0])
def test_a_damaged_file_of_tensors_is_named(run, where):
    run.finish({"weight": torch.arange(50.0)}, epoch=2)
    damage(run.folder / "weights.safetensors", where)
    with pytest.raises(DamagedError, match=r"weights\.safetensors is damaged"):
        run.weights()


@pytest.mark.parametrize(
    ("name", "old", "new", "ask"),
    [
        ("run.json", "{", "", lambda run: Run.open(run.folder)),
        ("run.json", '"seed"', '"sed"', lambda run: Run.open(run.folder)),
        ("recipe.json", "0.02", "0.03", lambda run: run.recipe),
        ("recipe.json", '"values"', '"value"', lambda run: run.recipe),
        ("recipe.json", '"train.epochs": 20', '"train.epocks": 20', lambda run: run.recipe),
        ("split.json", "test", "validation", lambda run: run.split),
        ("metrics.jsonl", '"epoch"', '"epo', lambda run: run.metrics()),
    ],
)
def test_a_damaged_file_of_facts_is_named(run, name, old, new, ask):
    run.record({"epoch": 0, "step": 1, **LINE})
    path = run.folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DamagedError) as caught:
        ask(run)
    assert f"{name} is damaged" in str(caught.value)


@pytest.mark.parametrize("name", ["recipe.json", "split.json", "metrics.jsonl"])
def test_a_missing_file_is_named(run, name):
    (run.folder / name).unlink()
    ask = {"recipe.json": "recipe", "split.json": "split"}
    with pytest.raises(NotFoundError, match=f"No file '{name}'"):
        getattr(run, ask[name]) if name in ask else run.metrics()


def test_the_same_dataset_is_accepted_at_another_snapshot_and_place(run, split, recipe):
    run.check(identity(split, snapshot="LATER", url="/elsewhere"), recipe=recipe)


def test_another_dataset_is_refused_with_everything_that_differs(run, split, recipe):
    session = {"tables": {"spikes": "c" * 64}, "units": ["u0", "u2", "u3"]}
    other = identity(split, sessions={"w/1": session, "w/2": session}, split="d" * 64)
    changed = load(run.folder.parent.parent / "line.toml", ["--train.epochs", "3"])
    with pytest.raises(RefusedError) as caught:
        run.check(other, recipe=changed)
    text = str(caught.value)
    for line in (
        "session w/2 was not there",
        "units of w/1 were 2, found 3 (gone: u1; new: u2, u3)",
        "table spikes of w/1 was aaaaaaaaaaaa, found cccccccccccc",
        "table units of w/1 was bbbbbbbbbbbb, found none",
        "split was",
        "found dddddddddddd",
        "recipe: train.epochs was 20, found 3",
    ):
        assert line in text
    assert "Leave recipe and overrides out" in caught.value.line
    with pytest.raises(RefusedError, match="Open the store at the run's snapshot SNAP"):
        run.check(other)


def test_what_is_compared_can_be_chosen(run, split):
    run.check(identity(split, label="test", window={}), parts=("sessions", "streams", "split"))
    with pytest.raises(RefusedError, match="label was train, found test"):
        run.check(identity(split, label="test"))


def test_no_secret_of_a_store_url_is_written(tmp_path, recipe, split):
    url = "s3://key:hunter2@bucket/lab?token=hunter2#hunter2"
    run = Run.create(tmp_path / "r", recipe=recipe, split=split, identity=identity(split, url=url))
    assert run.facts["store"] == "s3://bucket/lab"
    for path in run.folder.iterdir():
        assert b"hunter2" not in path.read_bytes()
    assert redacted("/lab/a?b") == "/lab/a?b"


def test_runs_are_found_and_a_damaged_one_hides_no_other(run, tmp_path, recipe, split):
    two = Run.create(
        tmp_path / "runs" / "b" / "two", recipe=recipe, split=split, identity=identity(split)
    )
    two.record({"epoch": 0, "step": 1, **LINE})
    (two.folder / "scores").mkdir()
    (two.folder / "scores" / "test.json").write_text(SCORES)
    three = Run.create(
        tmp_path / "runs" / "three", recipe=recipe, split=split, identity=identity(split)
    )
    (three.folder / "recipe.json").write_text("{")
    (tmp_path / "runs" / ".four.1.new").mkdir()
    (tmp_path / "runs" / ".four.1.new" / "run.json").write_text("{}")
    table = runs.find(tmp_path / "runs").set_index("id")
    assert set(table.index) == {run.id, two.id, "three"}
    assert table.loc["three", "status"] == "damaged"
    assert table.loc[two.id, "epochs"] == 1
    assert table.loc[two.id, "bits_per_spike"] == 0.5
    assert table.loc[run.id, "snapshot"] == "SNAP"
    assert runs.find(run.folder)["id"].tolist() == [run.id]
    assert runs.find(two.folder / "scores").empty
    with pytest.raises(NotFoundError, match="Did you mean 'runs'"):
        runs.find(tmp_path / "run")


def test_two_runs_stand_side_by_side_where_they_differ(run, tmp_path, split):
    session = {"tables": {"spikes": "c" * 64, "units": "b" * 64}, "units": ["u0", "u9"]}
    other = load(tmp_path / "line.toml", ["--train.epochs", "3"])
    two = Run.create(
        tmp_path / "two",
        recipe=other,
        split=split,
        identity=identity(split, sessions={"w/1": session}),
    )
    (two.folder / "scores").mkdir()
    (two.folder / "scores" / "test.json").write_text(SCORES)
    rows = runs.compare(run, two).values.tolist()
    assert rows == [
        ["recipe", "train.epochs", 20, 3],
        ["data", "units of w/1", "2 (with u1)", "2 (with u9)"],
        ["data", "spikes of w/1", "a" * 64, "c" * 64],
        ["score", "bits_per_spike", None, 0.5],
    ]
    assert runs.compare(run, run).empty


def test_one_process_trains_in_a_folder_at_a_time(run):
    with (
        run.alone(),
        pytest.raises(ConflictError, match="Another process is training"),
        run.alone(),
    ):
        pass
    with run.alone():
        pass


def test_a_run_that_nobody_trains_any_more_was_killed(run, monkeypatch):
    assert run.status == "training", "it was never begun: there is no lock to ask"
    with run.alone():
        assert Run.open(run.folder).status == "training"
    assert Run.open(run.folder).status == "killed"
    assert runs.find(run.folder.parent)["status"].tolist() == ["killed"]
    with run.alone():
        assert run.status == "training", "asking takes no lock away"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert run.status == "training", "where it cannot be told"
    run.mark("stopped")
    assert run.status == "stopped"


def write_for_ever(folder: str) -> None:
    run = Run.open(folder)
    epoch = 0
    while True:
        run.save(Checkpoint({"model.x": torch.full((20_000,), float(epoch))}, {"epoch": epoch}))
        run.record({"epoch": epoch, "step": epoch, **LINE})
        run.mark("training")
        epoch += 1


@pytest.mark.skipif(os.name == "nt", reason="kills by SIGKILL")
def test_a_kill_at_any_moment_leaves_a_whole_state(run):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["neurostore.runs", "torch", "safetensors.torch"])
    rng = np.random.default_rng(0)
    last = -1
    for _ in range(5):
        process = context.Process(target=write_for_ever, args=(str(run.folder),))
        process.start()
        deadline = time.monotonic() + 30
        while (state := run.checkpoint()) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.02, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        again = Run.open(run.folder)
        state = again.checkpoint()
        assert (state.tensors["model.x"] == state.facts["epoch"]).all()
        epochs = again.metrics()["epoch"].tolist()
        assert epochs == list(range(len(epochs)))
        last = max(last, state.facts["epoch"])
    assert last > 0
