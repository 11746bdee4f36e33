"""A grid of runs becomes one table, goes on where it was stopped, and names its mistakes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import _small
import pytest

from neurostore import _declared, experiments, recipes
from neurostore.errors import DamagedError, NotFoundError, RefusedError, UsageError
from neurostore.evaluate import Scores
from neurostore.experiments import Experiment, frame, load, plan
from neurostore.report import experiment_page
from neurostore.runs import Run, find

GRID = """
title = "Two rotations"
recipe = "small.toml"
pool = "split.rotation"
strides = [0.5, 0.25]
[set]
train.epochs = 1
[grid]
split.rotation = [0, 2]
seed = [3, 4]
"""


@pytest.fixture(scope="module", autouse=True)
def quick():
    with _small.quick():
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return _small.store(tmp_path_factory.mktemp("experiments") / "lab", _small.spikes())


def written(folder: Path, text: str = GRID) -> Path:
    _small.file(folder)
    path = folder / "grid.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return load(written(tmp_path_factory.mktemp("grid")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "grid"


@pytest.fixture(scope="module")
def table(grid, store, folder):
    return experiments.run(grid, store, folder)


# ---- the grid


def test_the_pooled_key_moves_fastest(grid):
    assert list(grid.runs()) == [
        {"seed": 3, "split.rotation": 0},
        {"seed": 3, "split.rotation": 2},
        {"seed": 4, "split.rotation": 0},
        {"seed": 4, "split.rotation": 2},
    ]


def test_a_recipe_is_named_from_the_folder_of_the_experiment(grid, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Path(grid.recipe).is_file()
    assert [recipe.seed for _, recipe in plan(grid)] == [3, 3, 4, 4]
    assert {recipe.train.epochs for _, recipe in plan(grid)} == {1}


def test_an_override_wins_and_takes_its_key_out_of_the_grid(grid):
    made = plan(grid, ["--seed", "9", "--train.epochs=2"])
    assert [values for values, _ in made] == [{"split.rotation": 0}, {"split.rotation": 2}]
    assert {(one.seed, one.train.epochs) for _, one in made} == {(9, 2)}
    ((values, recipe),) = plan(grid, ["--seed", "9", "--split.rotation", "4"])
    assert values == {}
    assert recipe.split.arguments["rotation"] == 4


@pytest.mark.parametrize(
    "path", _declared.declared("models", "experiments/*.toml"), ids=lambda p: p.stem
)
def test_every_bundled_experiment_is_whole(path):
    chosen = load(path.stem)
    made = plan(chosen)
    assert len(made) == 15
    assert chosen.pool in chosen.grid
    for _, recipe in made:
        assert min(chosen.strides) > 0
        assert chosen.strides[0] == recipe.window.horizon
        assert recipe.evaluate.stride is None  # the horizon, whatever that is set to
    rotations = [recipe.split.arguments.get("rotation") for _, recipe in made[:5]]
    assert rotations in ([0, 2, 4, 6, 8], [None] * 5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[grid]", "[gird]", "Did you mean 'grid'"),
        (
            "strides = [0.5, 0.25]",
            "strides = 0.5",
            "strides .* must be a list of seconds, found 0.5",
        ),
        ("strides = [0.5, 0.25]", "strides = ['a']", "must be a list of seconds"),
        ("strides = [0.5, 0.25]", "strides = [0.0]", "above 0 s, found 0"),
        ('pool = "split.rotation"', 'pool = "split.rotations"', "Did you mean 'split.rotation'"),
        ('pool = "split.rotation"', "pool = 3", "pool of .* is a key of the grid, found 3"),
        ("seed = [3, 4]", "seed = 3", "grid.seed of 'grid' needs a list, found 3"),
        ("seed = [3, 4]", "seed = []", "needs a list"),
        ("seed = [3, 4]", "seed = [3, 3]", "names 3 twice"),
        ("train.epochs = 1", "seed = 1", "seed of 'grid' stands in grid and in set"),
        ("train.epochs = 1", "train.epohcs = 1", "Did you mean 'train.epochs'"),
        ("train.epochs = 1", "train.epochs = 0", "train.epochs is 1 or more"),
        ("seed = [3, 4]", "sede = [3, 4]", "Did you mean 'seed'"),
        ('recipe = "small.toml"', 'recipe = "smal.toml"', "Did you mean .*small.toml"),
        ('recipe = "small.toml"', 'recipe = "gml"', "Did you mean 'glm'"),
        ('recipe = "small.toml"', "", "needs 'recipe', a text"),
        ("[set]\ntrain.epochs = 1", "", ""),
        ('title = "Two rotations"', "title = ", "is no TOML"),
    ],
)
def test_a_mistake_is_found_before_anything_is_trained(tmp_path, old, new, message):
    assert old in GRID
    path = written(tmp_path, GRID.replace(old, new))
    if not message:
        assert plan(load(path))[0][1].train.epochs == 2
        return
    with pytest.raises(UsageError, match=message):
        plan(load(path))


@pytest.mark.parametrize("name", ["set", "grid"])
def test_a_table_that_is_none_is_refused(tmp_path, name):
    lines = [line for line in GRID.split("[set]")[0].splitlines() if "pool" not in line]
    with pytest.raises(UsageError, match=f"{name} of .* must be a table, found 3"):
        load(written(tmp_path, "\n".join([f"{name} = 3", *lines])))


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(NotFoundError, match="Did you mean 'w-maze'"):
        load("w-mase")
    with pytest.raises(NotFoundError, match="No experiment"):
        load(tmp_path / "nothing.toml")


def test_runs_that_would_share_a_folder_are_refused(tmp_path):
    chosen = Experiment("same", "Same", str(_small.file(tmp_path)), grid={"title": ["a/b", "a b"]})
    with pytest.raises(UsageError, match="Two runs of 'same' would lie in 'title-a-b'"):
        plan(chosen)


def test_names_of_folders_are_such_that_any_system_takes(tmp_path):
    conditions = ["dataset = 'sim' AND id <> 'sim/b'", "dataset = 'sim' OR " * 20 + "TRUE"]
    chosen = Experiment(
        "odd", "Odd", str(_small.file(tmp_path)), grid={"data.sessions": conditions}
    )
    for values, _ in plan(chosen):
        name = experiments._path(values)
        assert not set(name) & set("/\\:*?\"<>|' ")
        assert len(name) <= 150


# ---- the runs and the table


def test_the_table_holds_a_row_a_setting_and_stride_pooled_over_rotations(table, folder):
    rows = [(one["setting"], one["stride"], len(one["runs"])) for one in table["rows"]]
    assert rows == [
        ("seed 3", 0.5, 2),
        ("seed 3", 0.25, 2),
        ("seed 4", 0.5, 2),
        ("seed 4", 0.25, 2),
    ]
    places = sorted(one.parent.name for one in folder.glob("*/run.json"))
    assert places == [f"seed-{s}_rotation-{r}" for s in (3, 4) for r in (0, 2)]
    for row in table["rows"]:
        assert row["blocks"] == 8  # two rotations of four test blocks
        assert row["models"][0]["name"] == "GLM"
    assert json.loads((folder / "table.json").read_text("utf-8")) == table
    json.dumps(table, allow_nan=False)


def test_a_pooled_row_is_the_pool_of_the_scores_of_its_runs(table, folder):
    parts = [Scores.load(folder / f"seed-3_rotation-{r}" / "scores", "test") for r in (0, 2)]
    said = Scores.pool(parts).to_json()
    assert {"setting": "seed 3", **said} == table["rows"][0]
    assert Scores.load(folder / "scores", "seed-3_test").to_json() == said
    assert Scores.load(folder / "scores", "seed-3_test-0.25s").about["stride"] == 0.25


def test_the_frame_has_a_row_a_setting_stride_and_model(table):
    made = frame(table)
    assert len(made) == 4 * 4
    first = made.iloc[1]
    assert (first["setting"], first["stride"], first["model"]) == ("seed 3", 0.5, "trailing rate")
    assert first["model_minus_it"] == table["rows"][0]["models"][1]["difference"]["bits_per_spike"]


def refuse_training(monkeypatch):
    module = sys.modules["neurostore.train._train"]

    def fit(self, saving, report):
        raise AssertionError("something was trained")

    monkeypatch.setattr(module.Fitting, "fit", fit)


def test_a_second_call_trains_nothing_and_says_the_same(
    table, grid, store, folder, monkeypatch, capsys
):
    refuse_training(monkeypatch)
    before = {one.id for one in map(Run.open, find(folder)["folder"])}
    assert experiments.run(grid, store, folder) == table
    assert {one.id for one in map(Run.open, find(folder)["folder"])} == before
    assert capsys.readouterr().err == ""


def test_a_stopped_experiment_goes_on_from_the_batch_it_was_at(
    table, grid, store, folder, tmp_path, monkeypatch, capsys
):
    module = sys.modules["neurostore.train._train"]
    inner, calls = module.Fitting._learn, []

    def learn(self, batch):
        calls.append(batch)
        inner(self, batch)
        if len(calls) == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(module.Fitting, "_learn", learn)
    grid = replace(grid, strides=(0.5,))
    with pytest.raises(KeyboardInterrupt):
        experiments.run(grid, store, tmp_path / "again")
    assert "stopped" in find(tmp_path / "again")["status"].tolist()
    assert not (tmp_path / "again" / "table.json").exists()
    said = []
    again = experiments.run(grid, store, tmp_path / "again", progress=said.append)
    assert said[0] == "run 1 of 4: seed 3, rotation 0"
    assert said[-1] == "score seed 4 on test every 0.5 s"
    assert capsys.readouterr().err == ""
    drop = ("runs",)
    for ours, theirs in zip(again["rows"], table["rows"][::2], strict=True):
        assert {k: v for k, v in ours.items() if k not in drop} == {
            k: v for k, v in theirs.items() if k not in drop
        }


def test_a_folder_with_runs_of_another_recipe_is_left_alone(table, grid, store, folder):
    before = {one: one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}
    with pytest.raises(
        UsageError, match=r"another recipe: train.epochs was 1, is 2\. Name another"
    ):
        experiments.run(grid, store, folder, overrides=["--train.epochs", "2"])
    assert {one: one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()} == before


def test_a_store_that_holds_something_else_is_refused(table, grid, folder, tmp_path, monkeypatch):
    refuse_training(monkeypatch)
    other = _small.store(tmp_path / "lab", _small.moved(_small.spikes(), [(20, 30)]))
    with pytest.raises(RefusedError, match="table spikes of sim/a was"):
        experiments.run(grid, other, folder)


def test_damaged_scores_of_a_run_are_named(table, grid, store, folder):
    path = folder / "seed-4_rotation-2" / "scores" / "test-0.25s.json"
    content = path.read_bytes()
    path.write_bytes(content[:50])
    try:
        with pytest.raises(DamagedError, match=r"test-0\.25s"):
            experiments.run(grid, store, folder)
    finally:
        path.write_bytes(content)


def test_scores_that_belong_to_another_run_are_made_anew(table, grid, store, folder):
    own, other = (folder / f"seed-4_rotation-{r}" / "scores" for r in (0, 2))
    kept = {one.name: one.read_bytes() for one in own.iterdir()}
    for one in other.iterdir():
        (own / one.name).write_bytes(one.read_bytes())
    assert experiments.run(grid, store, folder) == table
    assert {one.name: one.read_bytes() for one in own.iterdir()} == kept


def test_a_recipe_that_is_scored_on_another_part_is_kept_by_its_label(store, tmp_path):
    path = _small.file(tmp_path)
    chosen = Experiment(
        "v", "V", str(path), set={"train.epochs": 1, "evaluate.label": "validation"}
    )
    made = experiments.run(chosen, store, tmp_path / "out")
    assert [one["label"] for one in made["rows"]] == ["validation"]
    assert (tmp_path / "out" / "scores" / "validation.json").is_file()
    (row,) = frame(made)["setting"].unique()
    assert row == ""
    assert recipes.load(path).evaluate.label == "test"


def test_the_page_of_an_experiment_says_every_score_and_nothing_of_its_own(table, tmp_path):
    pytest.importorskip("matplotlib")
    hostile = {**table, "title": "<script>alert(1)</script>"}
    source = experiment_page(hostile, tmp_path / "table.html").read_text("utf-8")
    assert "<script>" not in source
    assert "default-src 'none'" in source
    for row in table["rows"]:
        for one in row["models"]:
            assert f"{one['bits_per_spike']:z.3f}".replace("-", "−") in source
    assert source.count("<img ") == len({row["stride"] for row in table["rows"]})
