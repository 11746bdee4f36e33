"""Training is the same to the bit however often it is stopped, and reads no time it may not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import _small
import numpy as np
import pytest
import torch

import neurostore
from neurostore.errors import NeurostoreError, NotFoundError, RefusedError, UsageError
from neurostore.recipes import load
from neurostore.runs import Checkpoint, Run
from neurostore.simulate import simulate
from neurostore.train import _train, null_of, rehearse, train
from neurostore.train._prepare import Data

HERE = Path(__file__).parent
RECIPE = """
architecture = "{architecture}"
[window]
history = 0.2
horizon = 0.1
[streams.spikes]
kind = "Spikes"
bin = 0.02
[split]
method = "interleaved_blocks"
block = 5
ratios = {{train = 3, validation = 1, test = 1}}
guard = 0.5
[train]
epochs = 3
batch_size = 64
learning_rate = 0.01
[data]
same_units = true
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two sessions with the same units and one with others."""
    made = neurostore.create(tmp_path_factory.mktemp("train") / "lab")
    with made.transaction("three") as tx:
        tx.put(simulate(0, units=5, seconds=60).builder("sim", "a").build())
        tx.put(simulate(1, units=5, seconds=30).builder("sim", "b").build())
        tx.put(simulate(2, units=4, seconds=20).builder("sim", "c").build())
    return made


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    def make(*words, architecture="_networks:Noisy", sessions="id IN ('sim/a', 'sim/b')"):
        path = tmp_path_factory.mktemp("recipe") / "noisy.toml"
        text = RECIPE.format(architecture=architecture) + f'sessions = "{sessions}"\n'
        path.write_text(text, encoding="utf-8")
        return load(path, words)

    return make


@pytest.fixture(scope="module")
def whole(store, write, tmp_path_factory):
    """A run that was never stopped."""
    return train(write(), store, tmp_path_factory.mktemp("runs") / "whole", progress=False)


def same_weights(one: Run, other: Run) -> bool:
    ours, theirs = one.weights(), other.weights()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def lines(run: Run) -> list[dict[str, object]]:
    """Its metrics without what a clock said."""
    return run.metrics().drop(columns="seconds").to_dict("records")


# ---- a run


def test_a_run_has_a_line_an_epoch_weights_and_what_it_was_made_from(whole, store, write):
    run = Run.open(whole.folder)
    batches = -(-len(Data.of(write(), store, run.split).training) // 64)
    assert run.status == "done"
    assert run.recipe == write()
    assert run.metrics()["epoch"].tolist() == [0, 1, 2]
    assert run.metrics()["step"].tolist() == [batches, 2 * batches, 3 * batches]
    assert (run.metrics()["seconds"] > 0).all()
    assert run.snapshot == store.snapshot
    assert list(run.identity["sessions"]) == ["sim/a", "sim/b"]
    rates = run.metrics()["learning_rate"].tolist()
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 1e-4 < rates[0] < 0.01


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    whole, store, write, tmp_path
):
    again = train(write(), store, tmp_path / "again", progress=False)
    assert same_weights(again, whole)
    assert lines(again) == lines(whole)
    other = train(write("--seed", "1"), store, tmp_path / "other", progress=False)
    assert not same_weights(other, whole)


def test_an_untrained_glm_is_the_training_mean_and_a_trained_one_is_better(store, write, tmp_path):
    words = ["--arguments.boxcars", "0.02", "0.2", "--train.epochs", "5"]
    recipe = write(*words, architecture="neurostore.models.glm:GLM")
    run = train(recipe, store, tmp_path / "glm", progress=False)
    data = Data.of(recipe, store, run.split)
    null = null_of(data.training, 0.02)
    assert torch.allclose(run.weights()["log_rate"].exp().double(), torch.from_numpy(null.rate))
    batch = next(iter(data.training.loader(len(data.training))))
    counts, mask = batch.future("spikes").double(), batch.future_mask("spikes")
    rate = torch.from_numpy(null.rate)[None, :, None]
    mean = ((rate - counts * rate.log()) * mask).sum() / mask.sum()
    losses = run.metrics()["training_loss"]
    assert losses.iloc[-1] < mean.item()
    assert losses.iloc[-1] < losses.iloc[0]


def test_the_training_mean_counts_the_spikes_of_training_time_alone(store, write):
    recipe = write(sessions="id = 'sim/a'")
    data = Data.of(recipe, store, train_split(recipe, store))
    session = store.session("sim/a")
    part = data.split["train"].intervals("sim/a") & session.observed()
    spikes = [
        sum(
            int(((times >= start) & (times < stop)).sum())
            for start, stop in zip(part.start, part.stop, strict=True)
        )
        for times in (session.clock.ticks(session.spike_times(str(id))) for id in range(5))
    ]
    null = null_of(data.training, 0.02)
    assert null.spikes.tolist() == spikes
    bins = part.length / float(session.clock.rate) / 0.02
    assert np.abs(null.bins - bins).max() <= 1


def train_split(recipe, store):
    from neurostore.recipes import split_of

    return split_of(recipe, store)


def test_no_window_of_a_training_lies_in_test_time(store, write, tmp_path, monkeypatch):
    seen: dict[str, set[int]] = {}
    inner = _train.Fitting._loss

    def loss(self, batch):
        for session, start in zip(batch.session, batch.tick.tolist(), strict=True):
            seen.setdefault(session, set()).add(start)
        return inner(self, batch)

    monkeypatch.setattr(_train.Fitting, "_loss", loss)
    run = train(write("--train.epochs", "1"), store, tmp_path / "run", progress=False)
    for session, starts in seen.items():
        length = int(0.3 * store.session(session).clock.rate)
        test = run.split["test"].intervals(session)
        ticks = np.array(sorted(starts))
        assert not any(
            ((ticks < stop) & (ticks + length > start)).any()
            for start, stop in zip(test.start, test.stop, strict=True)
        )
        kept = run.split["train"].intervals(session) | run.split["validation"].intervals(session)
        assert kept.covers(ticks, ticks + length).all()
    assert len(seen) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["--precision", "64-true"],
        ["--precision", "bf16-mixed"],
        ["--train.clip", "0.01", "--train.schedule", "constant"],
    ],
)
def test_other_ways_to_train_end_in_finite_weights(store, write, tmp_path, words):
    run = train(write("--train.epochs", "1", *words), store, tmp_path / "run", progress=False)
    weights = run.weights()
    assert all(bool(one.isfinite().all()) for one in weights.values())
    if "64-true" in words:
        assert weights["weight.weight"].dtype == torch.float64
    if "constant" in words:
        assert run.metrics()["learning_rate"].tolist() == [0.01]


def test_a_model_without_weights_of_units_trains_on_sessions_with_others(store, write, tmp_path):
    recipe = write("--train.epochs", "1", architecture="_networks:Units", sessions="TRUE")
    assert train(recipe, store, tmp_path / "run", progress=False).status == "done"


def test_torch_has_its_threads_back_afterwards(store, write, tmp_path):
    torch.set_num_threads(2)
    seen = []
    recipe = write("--train.epochs", "1")
    inner = _train.Fitting._validate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            _train.Fitting,
            "_validate",
            lambda *all: (seen.append(torch.get_num_threads()), inner(*all))[1],
        )
        train(recipe, store, tmp_path / "run", progress=False)
    assert seen == [1]
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_without_a_terminal_each_epoch_is_a_line_on_stderr(store, write, tmp_path, capsys):
    train(write("--train.epochs", "2"), store, tmp_path / "run")
    said = capsys.readouterr()
    assert said.out == ""
    assert [line.split("  ")[0] for line in said.err.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    train(write("--train.epochs", "1"), store, tmp_path / "silent", progress=False)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_shows_loss_and_speed(store, write, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    train(write("--train.epochs", "2"), store, tmp_path / "run")
    said = capsys.readouterr().err
    assert "epoch 2/2" in said
    assert "windows/s" in said
    assert "loss" in said


# ---- the weights that are kept


@pytest.fixture(scope="module")
def best(store, write, tmp_path_factory):
    """A run on spikes without memory, steps too large, whose best weights are kept."""
    words = [
        "--train.keep",
        "best",
        "--train.learning_rate",
        "0.3",
        "--train.epochs",
        "4",
        "--train.schedule",
        "constant",
    ]
    recipe = write(*words, architecture="_networks:Noisy")
    return train(recipe, store, tmp_path_factory.mktemp("best") / "run", progress=False)


def validation(store, run: Run, weights) -> float:
    """The loss of some weights over the windows of validation."""
    fitting = _train.Fitting.of(run.recipe, Data.of(run.recipe, store, run.split))
    if weights is not None:
        fitting.module.load_state_dict(weights)
    fitting.model.eval()
    parts = list(fitting.data.validation.loader(run.recipe.train.batch_size, shuffle=False))
    with torch.no_grad():
        losses = [float(fitting._loss(batch)) * len(batch.session) for batch in parts]
    return sum(losses) / len(fitting.data.validation)


def test_the_best_weights_have_the_lowest_loss_in_validation_of_all_epochs(store, best):
    losses = [validation(store, best, None), *best.metrics()["validation_loss"]]
    kept = best.facts["weights"]["kept_epoch"]
    assert losses[kept] == min(losses)
    assert 0 < kept < 4, f"or a plain choice would do: {losses}"
    assert validation(store, best, best.weights()) == pytest.approx(min(losses), abs=1e-7)


def test_with_nothing_to_learn_the_best_is_no_worse_than_the_training_mean(tmp_path, write):
    lab = neurostore.create(tmp_path / "lab")
    rng = np.random.default_rng(0)
    times = {f"u{k}": np.sort(rng.uniform(0, 60, 300 + 60 * k)) for k in range(3)}
    with lab.transaction("Poisson") as tx:
        tx.put(_small.builder(times))
    words = ["--train.keep", "best", "--arguments.boxcars", "0.02,0.1", "--train.epochs", "3"]
    glm = {"architecture": "neurostore.models.glm:GLM", "sessions": "id = 'sim/a'"}
    run = train(write(*words, "--train.learning_rate", "0.5", **glm), lab, tmp_path / "run")
    mean = validation(lab, run, None)
    assert run.metrics()["validation_loss"].iloc[-1] > mean
    assert validation(lab, run, run.weights()) <= mean


def test_the_best_weights_are_the_same_to_the_bit_however_often_a_run_was_stopped(
    store, best, tmp_path, monkeypatch
):
    class Stop(Exception):
        pass

    inner = {name: getattr(_train.Fitting, name) for name in ("_learn", "_validate")}
    left = {}

    def stopping(name):
        def step(self, *all):
            left[name] -= 1
            if not left[name]:
                raise Stop
            return inner[name](self, *all)

        return step

    for name in inner:
        monkeypatch.setattr(_train.Fitting, name, stopping(name))
    folder = tmp_path / "run"
    for learned, validated in ((2, 9), (3, 9), (99, 2), (99, 1), (99, 2), (999, 99)):
        left.update(_learn=learned, _validate=validated)
        begun = (folder / "run.json").is_file()
        named = {"resume": begun, "progress": False, "checkpoint_seconds": 0.0}
        if validated == 99:
            run = train(best.recipe, store, folder, **named)
        else:
            with pytest.raises(Stop):
                train(best.recipe, store, folder, **named)
    assert same_weights(run, best)
    assert lines(run) == lines(best)
    assert run.facts["weights"] == best.facts["weights"]


# ---- what is refused


@pytest.mark.parametrize(
    ("words", "named", "message"),
    [
        ([], {"sessions": "TRUE"}, "sim/a has 5, sim/c has 4"),
        (["--data.same_units", "false"], {}, "is of one session, 2 are chosen (sim/a, sim/b)"),
        ([], {"architecture": "_networks:Lossless"}, "a torch.nn.Module with loss"),
        ([], {"architecture": "_architectures:Linear"}, "a torch.nn.Module with loss"),
        ([], {"architecture": "_networks:Weightless"}, "has no weights to train"),
        (["--window.horizon", "0"], {}, "forecasts the horizon"),
        (["--split.ratios", "train=3", "test=2"], {}, "No label 'validation'"),
        (["--window.history", "9"], {}, "longer than every interval"),
        (["--split.block", "90"], {}, "90 s"),
        ([], {"sessions": "id = 'sim/x'"}, "No session"),
        (["--streams.spikes.units_in", "n_spikes >= 0"], {}, "are for a loop of your own"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_no_folder(
    store, write, tmp_path, words, named, message
):
    with pytest.raises(UsageError) as caught:
        train(write(*words, **named), store, tmp_path / "run", progress=False)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_the_first_batch_would_show_is_refused_before_there_is_a_folder(
    store, write, tmp_path
):
    recipe = write("--arguments.boxcars", "1.0", architecture="neurostore.models.glm:GLM")
    for attempt in (
        lambda: train(recipe, store, tmp_path / "run", progress=False),
        lambda: rehearse(recipe, store),
    ):
        with pytest.raises(UsageError, match="longer than the history"):
            attempt()
    assert not list(tmp_path.iterdir())


def test_a_rehearsal_reads_and_writes_nothing_that_a_training_has(store, write, whole, tmp_path):
    recipe = write()
    rehearse(recipe, store)
    assert same_weights(train(recipe, store, tmp_path / "run", progress=False), whole)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_refused_with_those_that_are(store, write, tmp_path):
    with pytest.raises(UsageError, match="has no device 'cuda', it has: cpu"):
        train(write("--device", "cuda"), store, tmp_path / "run", progress=False)


def test_a_folder_that_holds_something_is_left_alone(whole, store, write):
    before = sorted(one.name for one in whole.folder.iterdir())
    with pytest.raises(UsageError, match="holds something already"):
        train(write(), store, whole.folder, progress=False)
    assert sorted(one.name for one in whole.folder.iterdir()) == before


def test_a_rehearsal_that_ends_in_no_number_is_refused_and_nothing_is_written(
    store, write, tmp_path
):
    recipe = write("--arguments.break_at", "1")
    for go in (lambda: rehearse(recipe, store), lambda: train(recipe, store, tmp_path / "run")):
        with pytest.raises(NeurostoreError, match=r"is nan in epoch 1, batch 1 .*Nothing was wri"):
            go()
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_with_epoch_batch_and_sessions(store, write, tmp_path):
    recipe = write("--arguments.break_at", "13")
    with pytest.raises(NeurostoreError) as caught:
        train(recipe, store, tmp_path / "run", progress=False)
    batches = -(-len(Data.of(recipe, store, train_split(recipe, store)).training) // 64)
    epoch, batch = divmod(12, batches)
    assert f"training loss is nan in epoch {epoch + 1}, batch {batch + 1}" in caught.value.line
    assert "windows of sim/a" in caught.value.line
    assert str(tmp_path / "run") in caught.value.line
    assert Run.open(tmp_path / "run").status == "stopped"


def test_a_run_goes_on_with_its_own_recipe_and_data_alone(whole, store, write, tmp_path):
    with pytest.raises(RefusedError, match=r"train.epochs was 3, found 4. Leave recipe and over"):
        train(write("--train.epochs", "4"), store, whole.folder, resume=True)
    with pytest.raises(RefusedError, match="session sim/b is not there"):
        train(write(sessions="id = 'sim/a'"), store, whole.folder, resume=True)
    with pytest.raises(NotFoundError, match="No run"):
        train(write(), store, tmp_path / "none", resume=True)


def test_without_a_recipe_a_run_goes_on_with_the_one_it_keeps(whole, store, tmp_path):
    again = train(None, store, whole.folder, resume=True, progress=False)
    assert (again.id, again.recipe) == (whole.id, whole.recipe)
    with pytest.raises(UsageError, match="leave the overrides out"):
        train(None, store, whole.folder, {"train.epochs": 3}, resume=True)
    with pytest.raises(UsageError, match="begins with a recipe, found None"):
        train(None, store, tmp_path / "new")


def test_later_commits_that_leave_its_data_alone_do_not_matter(whole, store, write):
    later = neurostore.open(store.url)
    with later.transaction("another session") as tx:
        tx.put(simulate(3, units=3, seconds=20).builder("sim", "d").build())
    assert later.snapshot != whole.snapshot
    before = {one.name: one.read_bytes() for one in whole.folder.iterdir()}
    again = train(write(), later, whole.folder, resume=True, progress=False)
    assert again.id == whole.id
    assert {one.name: one.read_bytes() for one in whole.folder.iterdir()} == before


# ---- stopped and continued, by processes that are really ended


def stop(step: str, call: int, name: str) -> dict[str, object]:
    return {"step": step, "call": call, "signal": name}


POINTS = {
    "ctrl-c": [
        stop("outside", 0, "SIGINT"),
        stop("loss", 5, "SIGINT"),
        stop("validate", 1, "SIGINT"),
        stop("learn", 1, "SIGINT"),
    ],
    "force": [
        stop("learn", 1, "SIGKILL"),
        stop("loss", 4, "SIGKILL"),
        stop("validate", 1, "SIGKILL"),
        stop("replace", 4, "SIGKILL"),
        stop("record", 1, "SIGKILL"),
    ],
}


@pytest.fixture(scope="module")
def ends(store, write, tmp_path_factory):
    """Runs that were ended at every point of POINTS: their folder and how each process ended."""
    place = tmp_path_factory.mktemp("stopped")
    path = place / "noisy.toml"
    text = RECIPE.format(architecture="_networks:Noisy")
    path.write_text(text + "sessions = \"id IN ('sim/a', 'sim/b')\"\n", encoding="utf-8")
    assert load(path).digest == write().digest
    plan = {str(place / name): points for name, points in POINTS.items()}
    done = subprocess.run(
        [sys.executable, str(HERE / "_stopped.py"), store.url, str(path), json.dumps(plan)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), *sys.path]),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        name: (place / name, [end for folder, end in said if folder == str(place / name)])
        for name in POINTS
    }


@pytest.mark.skipif(os.name == "nt", reason="ends processes by POSIX signals")
@pytest.mark.parametrize("name", POINTS)
def test_a_run_stopped_anywhere_ends_with_the_same_bits(whole, ends, name):
    folder, said = ends[name]
    kind = {"ctrl-c": "KeyboardInterrupt: Stopped in epoch", "force": "SIGKILL"}[name]
    assert len(said) == len(POINTS[name]) + 1
    assert all(end.startswith(kind) for end in said[:-1])
    assert all("resume=True" in end for end in said[:-1] if name == "ctrl-c")
    assert said[-1] == "done"
    run = Run.open(folder)
    assert same_weights(run, whole)
    assert lines(run) == lines(whole)
    assert not list(folder.parent.glob(f".{name}*"))


@pytest.fixture
def interruptible():
    """Ctrl-C as a terminal has it: what is started in the background may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_first_ctrl_c_waits_for_the_batch_and_a_second_does_not(store, write, tmp_path):
    calls = []

    def twice(self, batch):
        calls.append(1)
        signal.raise_signal(signal.SIGINT)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return inner(self, batch)

    inner, before = _train.Fitting._learn, signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_train.Fitting, "_learn", twice)
        with pytest.raises(KeyboardInterrupt, match="epoch 1 after batch 1; all is saved"):
            train(write(), store, tmp_path / "run", progress=False)
        assert Run.open(tmp_path / "run").checkpoint().facts["batch"] == 1
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            train(write(), store, tmp_path / "run", resume=True, progress=False)
    assert len(calls) == 2
    assert Run.open(tmp_path / "run").status == "stopped"
    assert Run.open(tmp_path / "run").checkpoint().facts["batch"] == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_a_checkpoint_of_other_code_is_refused_by_the_class_it_does_not_fit(store, write, tmp_path):
    run = train(write("--train.epochs", "1"), store, tmp_path / "run", progress=False)
    state = run.checkpoint()
    tensors = {name: one for name, one in state.tensors.items() if name != "model.weight.bias"}
    run.save(Checkpoint(tensors, state.facts))
    run.mark("stopped")
    with pytest.raises(RefusedError, match=r"does not fit _networks:Noisy: .*weight\.bias"):
        train(write("--train.epochs", "1"), store, run.folder, resume=True, progress=False)
