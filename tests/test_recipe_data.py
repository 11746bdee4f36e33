"""How a recipe says that windows are given, through a run, its scores, and runs of before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _small
import numpy as np
import pytest
import torch

from neurostore import UsageError
from neurostore.errors import NotFoundError, RefusedError
from neurostore.evaluate import Scores, evaluate
from neurostore.evaluate._evaluate import _option
from neurostore.recipes import Recipe, dataset, datasets, load, split_of
from neurostore.recipes._recipe import Data as Said
from neurostore.recipes._recipe import digest
from neurostore.runs import Run
from neurostore.runs._bound import differences, settled
from neurostore.sample import All, Staggered, TimeAligned, UnitDropout, pack
from neurostore.sample.acquisition import restored
from neurostore.train import _fitting, train
from neurostore.train._prepare import Data

STAGGERED = ["--data.acquisition.kind", "Staggered", "--data.acquisition.every", "5"]
WORDS = [*STAGGERED, "--data.acquisition.seed", "3", "--window.stride", "0.5"]
DROPOUT = ["--data.dropout.min", "2", "--data.dropout.mode", "3", "--data.dropout.max", "4"]


@pytest.fixture(scope="module", autouse=True)
def quick():
    with _small.quick():
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def store(place) -> Any:
    return _small.store(place / "lab", _small.spikes())


@pytest.fixture
def write(tmp_path):
    def make(*words: str, text: str = "") -> Recipe:
        path = tmp_path / "small.toml"
        path.write_text(_small.RECIPE + text, encoding="utf-8")
        return load(path, words)

    return make


# ---- said and read


def test_a_recipe_says_nothing_and_has_the_defaults(write) -> None:
    made = write()
    said = made.data
    assert (said.acquisition, said.dropout, said.missing, said.weight) == (
        All(),
        None,
        "mask",
        None,
    )
    assert made.values()["data.acquisition.kind"] == "All"
    assert made.origins["data.acquisition.kind"][1] == "default of Data"


TABLES = """
[data]
missing = "refuse"
[data.acquisition]
kind = "Staggered"
every = 20
seed = 7
[data.dropout]
min = 1
mode = 2
max = 9
[data.weight]
"sim/a" = 1
"sim/b" = 0.5
"""


def test_tables_and_words_give_the_same_values_and_come_back_from_json(write) -> None:
    made = write(text=TABLES)
    words = [*STAGGERED[:3], "20", "--data.acquisition.seed", "7", "--data.missing", "refuse"]
    words += ["--data.dropout.min", "1", "--data.dropout.mode", "2", "--data.dropout.max", "9"]
    words += ["--data.weight.sim/a", "1", "--data.weight.sim/b", "0.5"]
    said = Said(
        acquisition=Staggered(20, 7),
        dropout=UnitDropout(1, 2, 9),
        missing="refuse",
        weight={"sim/a": 1.0, "sim/b": 0.5},
    )
    assert made.data == said
    assert write(*words).data == said
    assert made.differs(write(*words)) == {}
    again = Recipe.from_json(json.loads(json.dumps(made.to_json(), allow_nan=False)))
    assert (again, again.digest) == (made, made.digest)
    assert made.digest != write().digest


def test_the_command_line_changes_a_field_or_the_kind(write) -> None:
    changed = write("--data.acquisition.every", "30", "--data.dropout.max", "4", text=TABLES).data
    assert changed.acquisition == Staggered(30, 7)
    assert changed.dropout == UnitDropout(1, 2, 4)
    other = ["--data.acquisition.kind", "TimeAligned", "--data.acquisition.seconds", "0.4"]
    assert write(*other, text=TABLES).data.acquisition == TimeAligned(seconds=0.4)
    none = ["--data.acquisition.kind", "All", "--data.dropout", "none", "--data.weight", "units"]
    said = write(*none, text=TABLES).data
    assert (said.acquisition, said.dropout, said.weight) == (All(), None, "units")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.acquisition.kind", "Stagerred"], "'Stagerred'.*Did you mean 'Staggered'"),
        (["--data.acquisition.every", "5"], "data.acquisition.kind is not set: one of All, Time"),
        ([*STAGGERED[:2]], "data.acquisition in command line: .*`every` in steps or `seconds`"),
        ([*STAGGERED[:3], "0"], "data.acquisition in command line: .*counts steps, 1 or more"),
        ([*STAGGERED[:3], "two"], "data.acquisition.every must be a whole number or none"),
        ([*STAGGERED, "--data.acquisition.sed", "1"], "Did you mean 'data.acquisition.seed'"),
        (["--data.dropout.min", "1"], "data.dropout must be a table of min, mode, max or none"),
        ([*DROPOUT[:4]], "data.dropout must be a table of min"),
        ([*DROPOUT[:-1], "2"], "data.dropout in command line: .*1 <= min <= mode <= max"),
        (["--data.missing", "drop"], "data.missing must be one of 'mask', 'refuse'"),
        (["--data.weight", "trials"], "data.weight must be one of 'sessions', 'intervals'"),
        (["--data.weight.sim/a", "much"], "data.weight must be one of"),
        (["--data.acquisiton.kind", "All"], "Did you mean 'data.acquisition'"),
    ],
)
def test_what_is_none_is_refused_with_its_key(write, words, message) -> None:
    with pytest.raises(UsageError, match=message):
        write(*words)


def test_a_word_for_a_table_and_a_session_with_a_dot_are_refused(write) -> None:
    with pytest.raises(UsageError, match=r"a table with a kind \(All, TimeAligned, Staggered\)"):
        write(text='[data]\nacquisition = "Staggered"')
    with pytest.raises(UsageError, match=r"holds no dot, found a weight for 'sim/a\.1'"):
        Said(weight={"sim/a.1": 1.0})


# ---- in a training and an evaluation


def test_dropout_is_for_training_alone_and_the_rest_for_all_parts(store, write) -> None:
    recipe = write(*WORDS, *DROPOUT, "--data.missing", "refuse")
    split = split_of(recipe, store)
    data = Data.of(recipe, store, split)
    assert data.training.dropout == UnitDropout(2, 3, 4)
    for one in (data.validation, dataset(recipe, store, split["test"])):
        assert (one.dropout, one.missing, one.acquisition) == (None, "refuse", Staggered(5, 3))
        assert one.sample(5).unit_mask.all()


@pytest.fixture(scope="module")
def run(place, store) -> Run:
    recipe = _small.recipe(place / "staggered", *WORDS, *DROPOUT, "--data.weight", "intervals")
    return train(recipe, store, place / "run", progress=False)


def test_a_run_of_a_staggered_recipe_carries_its_phases(run, store) -> None:
    again = Run.open(run.folder)
    kept = again.identity
    acquisition = restored(kept["acquisition"])
    assert acquisition == Staggered(5, 3)
    data = Data.of(again.recipe, store, again.split)
    for id, phases in data.training.phases("spikes").items():
        units = len(kept["sessions"][id]["units"])
        assert phases.tolist() == acquisition.phases(units).tolist()
        assert list(kept["acquisition"]["draws"]) == [str(units)]
    assert kept["dropout"] == {"min": 2, "mode": 3, "max": 4}
    assert (kept["missing"], kept["weight"]) == ("mask", "intervals")
    assert again.recipe.data.weight == "intervals"


def test_it_is_scored_on_what_was_observed_and_resumed(run, store) -> None:
    scores = evaluate(run, store=store, save=False)
    data = dataset(run.recipe, store, run.split["test"], stride=0.5)
    observed = data.batch(np.arange(len(data)), seed=None).future_mask("spikes")
    assert float(observed.double().mean()) == 0.2
    assert np.isfinite(bits(scores)[0])
    assert train(None, store, run.folder, resume=True, progress=False).status == "done"
    with pytest.raises(UsageError, match="windows start on its multiples"):
        evaluate(run, store=store, stride=0.3, save=False)
    recipe = load_like(run, "--data.acquisition.seed", "4")
    with pytest.raises(RefusedError, match=r"data.acquisition.seed was 3, found 4"):
        train(recipe, store, run.folder, resume=True, progress=False)


def bits(scores: Scores) -> list[float]:
    models: Any = scores.to_json()["models"]
    return [one["bits_per_spike"] for one in models]


def load_like(run: Run, *words: str) -> Recipe:
    path = run.folder.parent / "like.toml"
    path.write_text(_small.RECIPE, encoding="utf-8")
    said = {"--data.weight": "intervals", **dict(zip(WORDS[::2], WORDS[1::2], strict=True))}
    said |= dict(zip(DROPOUT[::2], DROPOUT[1::2], strict=True))
    said |= dict(zip(words[::2], words[1::2], strict=True))
    return load(path, [word for pair in said.items() for word in pair])


def test_the_loader_of_a_training_draws_by_the_weight(store, write, monkeypatch) -> None:
    recipe = write("--data.weight.sim/a", "2", "--train.epochs", "1")
    fitting = _fitting.Fitting.of(recipe, Data.of(recipe, store, split_of(recipe, store)))
    drawn = torch.cat([batch.tick for batch in fitting._loader()])
    assert len(drawn) == len(fitting.data.training)
    assert len(drawn.unique()) < len(drawn)  # with replacement
    other = write("--data.weight.sim/z", "2")
    with pytest.raises(NotFoundError, match="sim/z"):
        train(other, store, Path("never"), progress=False)
    assert not Path("never").exists()


def test_the_command_that_goes_on_says_every_override_as_it_is_understood(write) -> None:
    words = [*WORDS, *DROPOUT, "--data.weight.sim/a", "2", "--data.same_units", "true"]
    words += ["--train.clip", "none", "--arguments.boxcars", "0.1", "0.2"]
    recipe = write(*words)
    origins = recipe.origins.items()
    said = [w for key, (one, at) in origins if at == "command line" for w in _option(key, one)]
    assert write(*said) == recipe
    assert {w for w in said if w[:2] == "--"} == {w for w in words if w[:2] == "--"}


# ---- runs of before


def as_written_before(run: Run) -> None:
    """Take from a run's files what an earlier version could not say."""
    facts = json.loads((run.folder / "run.json").read_text("utf-8"))
    document = json.loads((run.folder / "recipe.json").read_text("utf-8"))
    for part in ("values", "origins"):
        for key in ("data.acquisition.kind", "data.dropout", "data.missing", "data.weight"):
            del document[part][key]
        for key in ("mask", "units_in", "units_out"):
            del document[part][f"streams.spikes.{key}"]
    document["digest"] = facts["recipe"] = digest(document["values"])
    for key in ("dropout", "missing", "weight"):
        del facts["dataset"][key]
    facts["dataset"]["streams"] = {"spikes": {"kind": "Spikes", "bin": 0.1}}
    (run.folder / "run.json").write_text(json.dumps(facts), "utf-8")
    (run.folder / "recipe.json").write_text(json.dumps(document), "utf-8")


def test_a_run_of_an_earlier_version_is_scored_and_resumed(place, store, write) -> None:
    recipe = write()
    now = train(recipe, store, place / "now", progress=False)
    shutil.copytree(now.folder, place / "before")
    before = Run.open(place / "before")
    as_written_before(before)
    before = Run.open(before.folder)
    assert set(before.identity) == {
        *("url", "snapshot", "sessions", "window", "streams", "acquisition", "split", "label"),
        *("history_may_cross", "plan"),
    }
    ours, theirs = (evaluate(one, store=store, save=False) for one in (before, now))
    assert bits(ours) == bits(theirs)
    for again in (recipe, None):
        before.mark("stopped")
        done = train(again, store, before.folder, resume=True, progress=False)
        assert done.status == "done"
    assert all(torch.equal(done.weights()[name], one) for name, one in now.weights().items())
    with pytest.raises(RefusedError, match="streams was"):
        before.check({**now.identity, "streams": hidden(now.identity)})


def hidden(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {"spikes": {**identity["streams"]["spikes"], "units_in": "rate_hz > 1"}}


BEFORE = {
    "sessions": {},
    "window": {"history": 0.5},
    "streams": {
        "spikes": {"kind": "Spikes", "bin": 0.1},
        "wheel": {"kind": "Behaviour", "name": "wheel", "rate": 50, "max_gap": None},
        "mine": {"kind": "Mine", "depth": 3},
    },
    "acquisition": "All",
    "history_may_cross": False,
}


@pytest.mark.parametrize(
    ("part", "now", "said"),
    [
        ("streams", {"spikes": {"mask": {"kind": "bins", "share": 0.5}}}, "streams"),
        ("streams", {"wheel": {"causal": True}}, "streams"),
        ("streams", {"mine": {"depth": 4}}, "streams"),
        ("causal", True, "causal was false, found true"),
        (
            "acquisition",
            {"kind": "TimeAligned", "every": 5, "seconds": None},
            "acquisition was All",
        ),
    ],
)
def test_what_is_not_said_is_its_default_and_nothing_else(part: str, now: Any, said: str) -> None:
    whole = settled(BEFORE)
    parts = ("streams", "acquisition", "history_may_cross", "causal")
    assert whole["streams"]["spikes"] == {
        "kind": "Spikes",
        "bin": 0.1,
        "mask": None,
        "units_in": None,
        "units_out": None,
    }
    assert whole["streams"]["mine"] == {"kind": "Mine", "depth": 3}
    assert list(differences(BEFORE, whole, parts)) == []
    assert list(differences(whole, BEFORE, parts)) == []
    if part == "streams":
        (name, more), *_ = now.items()
        now = {**whole["streams"], name: {**whole["streams"][name], **more}}
    for one, other in ((BEFORE, {**whole, part: now}), ({**BEFORE, part: now}, BEFORE)):
        (line,) = differences(one, other, parts)
        assert line.startswith(said) or "was" in line


def test_a_recipe_is_packed_with_its_dropout_for_training_alone(tmp_path, store, write):
    recipe = write(*DROPOUT)
    parts = datasets(recipe, store, split_of(recipe, store))
    assert {label: one.dropout is not None for label, one in parts.items()} == {
        "train": True,
        "validation": False,
        "test": False,
    }
    bundle = pack(parts, tmp_path / "bundle")
    assert bundle.dataset("train").identity() == parts["train"].identity()
