"""Scores follow the protocol, nothing of them has seen test time, and they come from the run's own
snapshot."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import _small
import numpy as np
import pytest
import torch

import neurostore
from neurostore import cli
from neurostore.errors import (
    DamagedError,
    MissingExtraError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from neurostore.evaluate import Forecaster, Scores, evaluate
from neurostore.evaluate._evaluate import _Evaluation
from neurostore.models.probes import SessionTime
from neurostore.recipes import dataset
from neurostore.runs import Run
from neurostore.train import null_of, train


@pytest.fixture(scope="module", autouse=True)
def quick():
    with _small.quick():
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def store(place):
    return _small.store(place / "lab", _small.spikes())


@pytest.fixture(scope="module")
def run(place, store):
    recipe = _small.recipe(place / "recipe", "--train.epochs", "15")
    return train(recipe, store, place / "run", progress=False)


@pytest.fixture(scope="module")
def scores(run):
    return evaluate(run, save=False)


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the run, to be damaged."""
    shutil.copytree(run.folder, tmp_path / "run")
    return Run.open(tmp_path / "run")


def named(scores: Scores, name: str) -> dict[str, object]:
    return next(one for one in scores.to_json()["models"] if one["name"] == name)


def evaluation(run: Run, store, label: str = "test") -> _Evaluation:
    return _Evaluation(run.recipe, run, store, run.split, label, 0.5)


# ---- by the protocol


def ids(session) -> list[str]:
    return [str(one) for one in session.counts(1, 2, 1)["unit"].values]


def slow_windows(run, session):
    """Every test window by plain arithmetic: (history counts, target counts), and its block."""
    horizon, history = _small.HORIZON, _small.HISTORY
    for row, start, stop in zip(*run.split.blocks(session.id, "test"), strict=True):
        at = Fraction(int(start), 30_000)
        while at + history + horizon <= Fraction(int(stop), 30_000):
            counts = session.counts(at, at + history + horizon, _small.BIN).values
            yield counts[:, :5], counts[:, 5:], int(row)
            at += horizon


def slow_null(run, session) -> tuple[np.ndarray, np.ndarray]:
    """Training spikes, and (n + 0.5) / (bins + 1)."""
    n, ticks = np.zeros(len(ids(session)), int), 0
    for _, start, stop in zip(*run.split.blocks(session.id, "train"), strict=True):
        ticks += int(stop - start)
        for unit, name in enumerate(ids(session)):
            times = session.clock.ticks(session.spike_times(str(name)))
            n[unit] += int(((times >= start) & (times < stop)).sum())
    bins = int(ticks / 30_000 / 0.1 + 1e-9)
    return n, (n + 0.5) / (bins + 1)


def test_the_scores_are_those_of_a_slow_computation(run, store, scores):
    session = store.session(_small.SESSION)
    trained, null = slow_null(run, session)
    weights = {name: one.double().numpy() for name, one in run.weights().items()}
    gained, spikes, windows = np.zeros(len(null)), np.zeros(len(null)), 0
    for history, target, _ in slow_windows(run, session):
        sums = np.stack([history[:, -1:].sum(1), history[:, -5:].sum(1)], axis=1)
        log = weights["log_rate"] + weights["weight.weight"] @ np.log1p(sums).ravel()
        log += weights["weight.bias"]
        y = target.sum(1)
        gained += y * (log - np.log(null)) - 5 * (np.exp(log) - null)
        spikes += y
        windows += 1
    kept = (trained >= 20) & (spikes >= 20)
    bits = gained[kept].sum() / spikes[kept].sum() / np.log(2)
    said = scores.to_json()
    assert scores.model.statistics.training_spikes.tolist() == trained.tolist()
    assert said["windows"] == windows
    assert said["spikes"] == spikes.sum()
    assert said["bits_per_spike"] == pytest.approx(bits, abs=1e-6)
    by_unit = {one["unit"]: one["bits_per_spike"] for one in said["units"]}
    each = gained[kept] / spikes[kept] / np.log(2)
    assert by_unit == pytest.approx(
        dict(zip(np.array(ids(session))[kept].tolist(), each.tolist(), strict=True)), abs=1e-6
    )
    assert bits > 0.05  # the units share a state: there is something to be found


def test_the_null_is_that_of_training_time_alone(run, store):
    session = store.session(_small.SESSION)
    null = null_of(dataset(run.recipe, store, run.split["train"]), 0.1)
    assert np.allclose(null.rate, slow_null(run, session)[1], rtol=1e-12)
    assert np.allclose(evaluation(run, store).null.rate, null.rate, rtol=0)


def test_targets_begin_after_guard_and_history_and_never_overlap(run, store):
    data = dataset(run.recipe, store, run.split["test"], stride=0.5)
    batch = data.batch(np.arange(len(data)), seed=None)
    targets = batch.tick.numpy() / 30_000 + float(_small.HISTORY)
    assert (np.diff(targets) > float(_small.HORIZON) - 1e-9).all()
    firsts = [targets[batch.block.numpy() == block].min() for block in np.unique(batch.block)]
    expected = [start + float(_small.HISTORY) for start, _ in _small.blocks("test")]
    assert firsts == pytest.approx(expected)
    assert (targets + 0.5 <= np.repeat([stop for _, stop in _small.blocks("test")], 18)).all()


def test_units_with_few_spikes_are_left_out_named_and_leave_all_finite(scores):
    said = scores.to_json()
    assert sorted(said["left_out"]) == ["late", "rare"]
    assert said["scored"] == 4
    assert "late" not in {one["unit"] for one in said["units"]}
    for one in said["models"]:
        for key in ("bits_per_spike", "without_top_unit", "median_unit", "mean_unit"):
            assert np.isfinite(one[key])
        assert -2 < one["nlb_bits_per_spike"] < 2


def test_the_training_mean_scores_exactly_nothing(scores):
    mean = named(scores, "training mean")
    assert mean["bits_per_spike"] == 0
    assert mean["interval"] == [0, 0]
    assert mean["difference"]["bits_per_spike"] == pytest.approx(
        scores.to_json()["bits_per_spike"], abs=1e-12
    )


def test_a_model_whose_weights_are_zero_is_the_training_mean(copy, store):
    weights = copy.weights()
    weights["weight.weight"].zero_()
    weights["weight.bias"].zero_()
    copy.finish(weights)
    bits = evaluate(copy, store=store, save=False).to_json()["bits_per_spike"]
    assert bits == pytest.approx(0, abs=1e-6)


def test_the_best_baseline_is_the_training_mean_where_the_other_is_worse_than_nothing(scores):
    first, trailing, mean, *_ = scores.models
    assert scores.baseline == 1  # here the trailing rate is above zero
    worse = trailing.statistics.sums.copy()
    worse[0] -= 50.0
    bad = replace(trailing, statistics=replace(trailing.statistics, sums=worse))
    assert Scores(scores.about, (first, bad, mean)).baseline == 2


def test_the_drawn_windows_name_the_baseline_that_they_hold(scores):
    best = scores.to_json()["models"][scores.baseline]["name"]
    assert [one["beside"] for one in scores.examples] == [best] * 3
    for one in scores.examples:
        assert len(one["recorded"]) == len(one["predicted"]) == len(one["baseline"]) == 6


def test_rules_say_whether_windows_overlap(run, scores):
    assert "every 0.5 s do not overlap" in scores.to_json()["rules"]
    closer = evaluate(run, stride=0.1, save=False).to_json()
    assert "every 0.1 s overlap" in closer["rules"]
    assert closer["windows"] > 4 * scores.about["windows"]


def test_another_forecaster_is_scored_on_the_same_windows(run, store):
    rate = evaluation(run, store).null.rate
    known = Forecaster(
        "mean", "again", "ceiling", lambda batch: np.tile(rate, (len(batch.start), 1))
    )
    scores = evaluate(run, beside=[known], save=False)
    assert named(scores, "mean")["bits_per_spike"] == 0
    assert named(scores, "mean")["kind"] == "ceiling"


def test_a_rate_for_every_bin_is_scored_and_drawn_like_one_over_the_horizon(run, store):
    ours = evaluation(run, store)
    model = ours.forecasters()[0]
    each = Forecaster(
        "each bin", "", "model", lambda batch: np.repeat(model.predict(batch)[..., None], 5, -1)
    )
    one, many = (ours._examples(which, which) for which in (model, each))
    for a, b in zip(one, many, strict=True):
        assert a["predicted"] == pytest.approx(b["predicted"])


# ---- planted leaks


@pytest.fixture(scope="module")
def trained(place):
    """Train and score the recording with other spikes in some time."""

    def make(name, where=None, *words):
        times = _small.spikes()
        if where is not None:
            times = _small.moved(times, where)
        store = _small.store(place / name, times)
        run = train(
            _small.recipe(place / "recipe", *words), store, place / f"{name}-run", progress=False
        )
        return run, evaluate(run, store=store, save=False)

    return make


@pytest.fixture(scope="module")
def plain(trained):
    return trained("plain")


def weights(run: Run) -> dict[str, list[float]]:
    return {name: one.tolist() for name, one in run.weights().items()}


def losses(run: Run) -> list[list[float]]:
    return run.metrics()[["training_loss", "validation_loss"]].values.tolist()


def constants(scores: Scores) -> list[str]:
    return [one.about for one in scores.models]


@pytest.mark.parametrize("cross", ["false", "true"])
def test_spikes_in_test_time_change_nothing_that_was_fitted_or_chosen(trained, plain, cross):
    words = ["--data.history_may_cross", cross]
    before = trained(f"before-{cross}", None, *words) if cross == "true" else plain
    run, scores = trained(f"test-{cross}", _small.blocks("test"), *words)
    assert weights(run) == weights(before[0])
    assert losses(run) == losses(before[0])
    assert constants(scores) == constants(before[1])
    ours, theirs = (one.model.statistics.training_spikes for one in (scores, before[1]))
    assert ours.tolist() == theirs.tolist()
    assert scores.to_json()["bits_per_spike"] != before[1].to_json()["bits_per_spike"]


def test_spikes_in_guard_time_change_nothing_at_all(trained, plain):
    where = [one for label in set(_small.LABELS) for one in _small.blocks(label, guard=True)]
    run, scores = trained("guard", where)
    assert weights(run) == weights(plain[0])
    assert losses(run) == losses(plain[0])
    apart = {"runs"}
    ours, theirs = (
        {k: v for k, v in one.to_json().items() if k not in apart} for one in (scores, plain[1])
    )
    assert ours == theirs


def test_spikes_in_validation_time_change_constants_and_never_weights(trained, plain):
    run, scores = trained("validation", _small.blocks("validation"))
    assert weights(run) == weights(plain[0])
    assert run.metrics()["training_loss"].equals(plain[0].metrics()["training_loss"])
    assert not run.metrics()["validation_loss"].equals(plain[0].metrics()["validation_loss"])
    assert constants(scores) != constants(plain[1])
    model, mean = (named(one, "GLM") for one in (scores, plain[1]))
    assert model == mean | {"difference": None}


def test_spikes_in_training_time_do_change_weights(trained, plain):
    run, _ = trained("training", _small.blocks("train"))
    assert weights(run) != weights(plain[0])


def test_the_future_changes_no_prediction(run, store, place):
    start, stop = _small.blocks("test")[1]
    present = start + 4.0
    later = _small.store(place / "later", _small.moved(_small.spikes(), [(present, stop)]))
    found = []
    for one in (store, later):
        ours = evaluation(run, one)
        batch = ours._test.window(_small.SESSION, Fraction(str(present)) - _small.HISTORY)
        forecasters = ours.forecasters()
        found.append((batch.future("spikes"), [each.predict(batch) for each in forecasters]))
    (target, before), (other, after) = found
    assert not torch.equal(target, other)
    assert len(before) == 4
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


# ---- the run's own snapshot


def test_later_commits_change_no_score(place, plain):
    run, scores = plain
    url = run.identity["url"]
    lab = neurostore.open(url)
    times = _small.moved(_small.spikes(), _small.blocks("test"))
    with lab.transaction("another session") as tx:
        tx.put(_small.builder(times, "b"))
    with lab.transaction("a split") as tx:
        tx.put(run.split)
    with lab.transaction("the very session") as tx:
        tx.put(_small.builder(times), replace=True)
    assert evaluate(run, save=False).to_json() == scores.to_json()
    assert evaluate(run, store=lab, save=False).to_json() == scores.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("a unit is gone", "units of sim/a were 6, found 5 (gone: u1; new: none)"),
        ("spikes moved", "table spikes of sim/a was"),
        ("no session", "a store without sessions"),
        ("another session", "session sim/a is not there"),
    ],
)
def test_a_store_that_holds_something_else_is_refused_with_what_differs(
    run, tmp_path, change, message
):
    times = _small.spikes()
    if change == "a unit is gone":
        del times["u1"]
    else:
        times = _small.moved(times, [(20, 30)])
    lab = neurostore.create(tmp_path / "other")
    if change != "no session":
        with lab.transaction("other") as tx:
            tx.put(_small.builder(times, "b" if change == "another session" else "a"))
    with pytest.raises(RefusedError) as caught:
        evaluate(run, store=lab, save=False)
    if change == "no session":
        assert str(lab.url) in caught.value.line
    elif change != "another session":
        assert message in str(caught.value)
    else:
        assert "sim/a" in str(caught.value)


def test_a_rebuilt_store_that_holds_the_same_is_as_good(run, scores, tmp_path):
    again = _small.store(tmp_path / "again", _small.spikes())
    assert again.snapshot != run.snapshot
    assert evaluate(run, store=again, save=False).to_json() == scores.to_json()


def test_a_recipe_that_was_edited_is_damaged(copy):
    path = copy.folder / "recipe.json"
    text = path.read_text("utf-8")
    path.write_text(text.replace('"train.learning_rate": 0.01', '"train.learning_rate": 0.02'))
    with pytest.raises(DamagedError, match=r"recipe\.json is damaged"):
        evaluate(copy)


def test_a_recipe_of_another_run_is_damaged(copy, tmp_path):
    other = _small.recipe(tmp_path / "r", "--arguments.boxcars", "0.2", "0.5")
    (copy.folder / "recipe.json").write_text(json.dumps(other.to_json()), encoding="utf-8")
    with pytest.raises(DamagedError, match=r"recipe\.json is damaged"):
        evaluate(copy)


def test_weights_that_do_not_fit_the_class_are_refused(copy):
    weights = copy.weights()
    weights["weight.weight"] = weights["weight.weight"][:, :3]
    copy.finish(weights)
    with pytest.raises(RefusedError, match=r"do not fit neurostore\.models\.glm:GLM"):
        evaluate(copy)


@pytest.mark.parametrize("name", ["weights.safetensors", "split.json"])
def test_a_damaged_file_of_the_run_is_named(copy, name):
    path = copy.folder / name
    content = bytearray(path.read_bytes())
    at = content.index(b'"test"') + 1 if name == "split.json" else len(content) - 3
    content[at] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DamagedError, match=name.replace(".", r"\.")):
        evaluate(copy)


def test_a_run_that_is_not_done_says_the_command_that_goes_on(copy, capsys):
    (copy.folder / "weights.safetensors").unlink()
    copy.mark("stopped")
    with pytest.raises(UsageError, match=r"not done \(stopped, 15 of 15 epochs\)") as caught:
        evaluate(copy)
    words = shlex.split(str(caught.value).split("Go on with it first: ")[1])
    assert words[:2] == ["neurostore", "train"]
    assert words[-2:] == ["--train.epochs", "15"]
    assert cli.main(words[1:]) == 0
    assert Run.open(copy.folder).status == "done"


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"label": "tset"}, NotFoundError, "Did you mean 'test'"),
        ({"label": ""}, NotFoundError, "There is"),
        ({"stride": 0.0}, UsageError, "above 0 s, found 0 s"),
        ({"stride": -1.0}, UsageError, "above 0 s, found -1 s"),
        ({"stride": float("nan")}, UsageError, "above 0 s, found nan s"),
    ],
)
def test_wrong_questions_are_answered_with_the_way_out(run, store, asked, error, message):
    with pytest.raises(error, match=message):
        evaluate(run, store=store, save=False, **asked)


def test_a_run_that_is_not_there_is_answered_with_the_nearest(run):
    with pytest.raises(NotFoundError, match="Did you mean 'run'"):
        evaluate(run.folder.with_name("rum"))


# ---- scores as values and files


def no_nan(value: object) -> bool:
    json.dumps(value, allow_nan=False)
    return True


def test_scores_come_back_from_their_files(scores, tmp_path):
    path = scores.save(tmp_path / "new" / "scores", "test")
    assert path.name == "test.json"
    again = Scores.load(tmp_path / "new" / "scores", "test")
    assert again.to_json() == scores.to_json()
    assert no_nan(json.loads(path.read_text("utf-8")))
    assert json.loads(path.read_text("utf-8")).items() >= scores.to_json().items()


def test_evaluate_keeps_the_scores_by_label_and_stride(copy, store):
    evaluate(copy, store=store)
    evaluate(copy, store=store, stride=0.25)
    evaluate(copy, store=store, label="validation", stride=0.5)
    names = sorted(one.name for one in (copy.folder / "scores").glob("*.json"))
    assert names == ["test-0.25s.json", "test.json", "validation.json"]
    assert copy.scores()["label"] == "test"


@pytest.mark.parametrize("what", ["json cut", "json edited", "sums flipped", "sums gone", "a list"])
def test_damaged_score_files_are_named(scores, tmp_path, what):
    path = scores.save(tmp_path, "test")
    sums = path.with_suffix(".safetensors")
    if what == "json cut":
        path.write_bytes(path.read_bytes()[:100])
    elif what == "json edited":
        path.write_text(path.read_text("utf-8").replace('"examples"', '"exmaples"'), "utf-8")
    elif what == "a list":
        path.write_text("[]", "utf-8")
    elif what == "sums flipped":
        content = bytearray(sums.read_bytes())
        content[-9] ^= 1
        sums.write_bytes(bytes(content))
    else:
        sums.unlink()
    with pytest.raises(
        DamagedError, match=r"scores 'test' .* are damaged: .*Evaluate the run again"
    ):
        Scores.load(tmp_path, "test")


def test_scores_that_are_not_there_are_answered_with_the_nearest(scores, tmp_path):
    scores.save(tmp_path, "test")
    with pytest.raises(NotFoundError, match="Did you mean 'test'"):
        Scores.load(tmp_path, "tests")


def test_scores_without_the_extra_say_its_name(scores, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    with pytest.raises(MissingExtraError, match=r"neurostore\[train\]"):
        scores.save(tmp_path, "test")


def test_pooled_rotations_hold_every_block_and_the_sums_of_all(place, store, plain):
    each = []
    for rotation in (0, 2):
        recipe = _small.recipe(place / "recipe", "--split.rotation", str(rotation))
        made = train(recipe, store, place / f"rotation-{rotation}", progress=False)
        each.append(evaluate(made, store=store, save=False))
    pooled = Scores.pool(each)
    said, parts = pooled.to_json(), [one.to_json() for one in each]
    for key in ("blocks", "windows", "spikes"):
        assert said[key] == sum(one[key] for one in parts)
    assert said["runs"] == [run for one in parts for run in one["runs"]]
    for key in ("model", "null", "spikes"):
        total = sum(one.model.statistics[key].sum() for one in each)
        assert pooled.model.statistics[key].sum() == pytest.approx(total)
    assert no_nan(said)
    with pytest.raises(UsageError, match="nothing to pool"):
        Scores.pool([])


def test_scores_of_unlike_windows_or_models_are_not_pooled(run, scores):
    closer = evaluate(run, stride=0.25, save=False)
    with pytest.raises(UsageError, match=r"unlike stride .*0\.25, 0\.5"):
        Scores.pool([scores, closer])
    fewer = Scores(scores.about, scores.models[:-1])
    with pytest.raises(UsageError, match="other models"):
        Scores.pool([scores, fewer])


def test_a_difference_is_that_of_the_scores_and_lies_in_its_interval(scores):
    first, *others = scores.to_json()["models"]
    assert first["difference"] is None
    for one in others:
        gain = one["difference"]
        low, high = gain["interval"]
        assert gain["bits_per_spike"] == pytest.approx(
            first["bits_per_spike"] - one["bits_per_spike"]
        )
        assert low <= gain["bits_per_spike"] <= high
    frame = scores.table()
    assert frame["model"].tolist() == [one["name"] for one in scores.to_json()["models"]]
    assert frame["difference_low"].tolist()[1:] == [
        one["difference"]["interval"][0] for one in others
    ]


def test_one_block_gives_scores_and_differences_without_intervals_and_says_why(place, run, store):
    split = run.split
    keep = (split.label != "test") | (
        np.arange(len(split)) == np.flatnonzero(split.label == "test")[0]
    )
    from neurostore.splits import Split

    rows = [column[keep] for column in (split.session, split.start, split.stop, split.label)]
    lab = neurostore.open(store.url)
    with lab.transaction("one test block") as tx:
        tx.put(Split("one", {"made_by": "hand"}, *rows))
    text = _small.RECIPE.split("[split]")[0] + '[split]\nstored = "one"\n[train]\nepochs = 1\n'
    path = _small.file(place / "one", text)
    made = train(neurostore.recipes.load(path), lab, place / "one-run", progress=False)
    said = evaluate(made, store=lab).to_json()
    assert said["blocks"] == 1
    assert "an interval needs two" in said["reasons"]["bits_per_spike_interval"]
    assert said["models"][1]["interval"] is None
    assert said["models"][1]["difference"]["interval"] is None
    assert np.isfinite(said["models"][1]["difference"]["bits_per_spike"])
    again = Scores.load(made.folder / "scores", "test")
    assert len(again.table()) == len(again.shown()) == 4
    assert no_nan(said)


def test_a_state_that_is_observed_or_not_is_a_probe(place, tmp_path):
    times = _small.spikes()
    made = _small.builder(times)
    here = np.arange(0, 166, 0.05)
    here = here[(here // 4) % 2 == 0]
    made.add_behaviour("position", np.ones(len(here)), time=here, units="cm")
    lab = neurostore.create(tmp_path / "lab")
    with lab.transaction("with a position") as tx:
        tx.put(made)
    recipe = _small.recipe(tmp_path / "recipe", "--evaluate.state", "position")
    scores = evaluate(train(recipe, lab, tmp_path / "run", progress=False), store=lab)
    state = named(scores, "state mean")
    assert state["kind"] == "probe"
    assert "position observed or not" in state["about"]
    assert np.isfinite(state["bits_per_spike"])


def test_no_minus_stands_in_front_of_zero():
    from neurostore.evaluate import said

    assert said(-0.0004, (-0.0001, 0.0)) == "0.000 [0.000, 0.000]"
    assert said(None) == "-"
    assert said(-0.0006) == "-0.001"


def test_a_path_is_as_good_as_a_run(run: Run, scores: Scores) -> None:
    assert evaluate(Path(run.folder), save=False).to_json() == scores.to_json()


def test_a_unit_that_was_not_observed_all_the_time_is_scored_where_it_was(tmp_path, monkeypatch):
    times = _small.spikes()
    # u3 is observed in the first of the two pairs of test blocks and in training around it.
    times["u3"] = times["u3"][times["u3"] < 100]
    made = _small.builder(times)
    units = list(times)
    stops = [100.0 if unit == "u3" else 166.0 for unit in units]
    made.add_observed([1.0] * len(units), stops, unit=np.arange(len(units)))
    lab = neurostore.create(tmp_path / "lab")
    with lab.transaction("in part") as tx:
        tx.put(made)
    run = train(_small.recipe(tmp_path / "recipe"), lab, tmp_path / "run", progress=False)
    masks, choose = [], SessionTime.choose.__func__

    def spy(cls, *windows, **named):
        masks.extend(named["masks"])
        return choose(cls, *windows, **named)

    monkeypatch.setattr(SessionTime, "choose", classmethod(spy))
    scores = evaluate(run, store=lab)
    place = scores.model.statistics.units.index("u3")
    for mask in masks:  # time that was not observed holds no silence
        assert 0 < mask[:, place].mean() < 1
        assert np.delete(mask, place, axis=1).all()
    bins = scores.model.statistics["bins"].sum(0)
    others = np.delete(bins, place)
    assert 2 * bins[place] == others[0] == others.max() == others.min()
    seconds = sum(min(stop, 100) - start for start, stop in _small.blocks("train") if start < 100)
    rate = evaluation(run, lab).null.rate[place]
    spikes = scores.model.statistics.training_spikes[place]
    assert rate == pytest.approx((spikes + 0.5) / (round(seconds / 0.1) + 1), rel=0.01)
    assert "u3" in {one["unit"] for one in scores.to_json()["units"]}


def test_the_time_of_one_session_says_nothing_about_another(tmp_path):
    """Two sessions drift in opposite directions: joined by their clocks, the probe sees none."""
    rng = np.random.default_rng(3)
    grid = np.arange(1, 165, 0.1)
    lab = neurostore.create(tmp_path / "lab")
    with lab.transaction("two sessions") as tx:
        for name, slope in (("a", 1), ("b", -1)):
            rate = 5 + slope * (grid - 83) / 21  # the mean of both is 5 at any time
            drawn = np.repeat(grid, rng.poisson(rate)) + rng.uniform(0, 0.1, 1)
            drawn = np.sort(
                np.concatenate([[1.0], drawn + rng.uniform(0, 1e-3, len(drawn)), [165.9]])
            )
            tx.put(_small.builder({"u0": drawn, "u1": drawn + 1e-4}, name))
    recipe = _small.recipe(tmp_path / "recipe", "--data.same_units", "true")
    run = train(recipe, lab, tmp_path / "run", progress=False)
    assert named(evaluate(run, store=lab), "session time")["bits_per_spike"] > 0.05


def test_a_stream_called_state_is_still_the_models_own():
    from neurostore.evaluate import _forecasters

    assert not _forecasters.STATE.isidentifier()
