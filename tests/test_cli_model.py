"""Commands on models: what they print, in words and as JSON, and how they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import _small
import pytest

from neurostore import cli
from neurostore.evaluate import Scores
from neurostore.runs import Run


@pytest.fixture(scope="module", autouse=True)
def quick():
    with _small.quick():
        yield


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    _small.store(folder / "lab", _small.spikes())
    _small.file(folder)
    return folder


@pytest.fixture(scope="module")
def fitted(lab):
    """A folder of runs, with one that is trained and scored."""
    assert cli.main(["train", f"{lab}/small.toml", f"{lab}/lab", f"{lab}/runs/one", "--json"]) == 0
    assert cli.main(["evaluate", f"{lab}/runs/one", "--json"]) == 0
    return lab / "runs" / "one"


def run(capsys, *words: object) -> tuple[int, str, str]:
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as stop:  # how the parser of the command line ends
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def small(lab: Path, *words: object) -> list[object]:
    return ["train", lab / "small.toml", lab / "lab", *words]


# ---- train


def test_a_training_tells_each_epoch_on_stderr_and_what_comes_next(capsys, lab, tmp_path):
    code, out, err = run(capsys, *small(lab, tmp_path / "new"))
    assert code == 0
    assert [line.split("  ")[0] for line in err.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    assert "done, 2 epochs, 1 session of" in out
    assert f"neurostore evaluate {tmp_path / 'new'}" in out


def test_overrides_are_taken_wherever_they_stand_and_said_in_the_run(capsys, lab, tmp_path):
    words = small(lab, tmp_path / "new", "--train.epochs", "3", "--json", "--seed", "4")
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert (said["status"], said["seed"]) == ("done", 4)
    recipe = Run.open(tmp_path / "new").recipe
    assert recipe.origins["train.epochs"] == (3, "command line")
    assert recipe.origins["seed"] == (4, "command line")


@pytest.mark.parametrize("columns", [80, 200])
def test_a_dry_run_shows_every_value_with_its_origin(capsys, lab, tmp_path, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, err = run(capsys, *small(lab, tmp_path / "new", "--dry-run", "--seed=4"))
    assert (code, err) == (0, "")
    assert not (tmp_path / "new").exists()
    assert "nothing was trained" in out
    assert "…" not in out
    rows = [
        [cell.strip() for cell in line.split("│")[1:4]] for line in out.splitlines() if "│" in line
    ]
    keys = [key for key, *_ in rows if key]
    said, whole = run(capsys, *small(lab, tmp_path / "new", "--dry-run", "--seed=4", "--json"))[1:]
    assert whole == ""
    recipe = json.loads(said)["recipe"]
    assert keys == list(recipe["values"])
    assert ["seed", "4", "command line"] in rows
    assert recipe["origins"]["seed"] == "command line"
    assert recipe["origins"]["window.stride"].endswith("small.toml")
    parts = json.loads(said)["data"]
    assert sorted(parts) == ["test", "train", "validation"]
    assert "train, history inside its block" in out
    assert all(part["windows"] > 0 for part in parts.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train.epohcs", "3"], "Did you mean 'train.epochs'"),
        (["--tarin.epochs", "3"], "Did you mean 'train"),
        (["--train.epochs", "three"], "train.epochs"),
        (["--train.epochs"], "--train.epochs on the command line has no value"),
        (["--train.epochs", "0"], "train.epochs is 1 or more, found 0"),
        (["--seed", "1", "--seed", "2"], "--seed is given twice"),
        (["--split.method", "interleaved_block"], "Did you mean 'interleaved_blocks'"),
        (["--window.horizon", "0"], "forecasts the horizon"),
        (["--architecture", "x:Y"], ""),
    ],
)
def test_wrong_overrides_end_with_2_the_nearest_and_no_folder(capsys, lab, tmp_path, words, said):
    code, out, err = run(capsys, *small(lab, tmp_path / "new", *words))
    assert code == 2
    assert said in err + (out if not said else "")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["train", "gml", "LAB/lab", "NEW"], 2, "Did you mean 'glm'"),
        (["train", "LAB/smal.toml", "LAB/lab", "NEW"], 2, "small.toml"),
        (["train", "LAB/small.toml", "LAB/lba", "NEW"], 2, "lba"),
        (["train", "LAB/small.toml", "LAB/lab", "LAB/lab"], 2, "holds something already"),
        (["train", "LAB/small.toml", "LAB/lab", "NEW", "--resume"], 2, "No run"),
        (["train", "LAB/small.toml", "LAB/lab", "NEW", "--at", "v9"], 2, "v9"),
        (
            ["train", "--seed", "4", "LAB/small.toml", "LAB/lab", "NEW"],
            2,
            "--seed stands too early",
        ),
        (["train", "LAB/small.toml", "--train.epochs", "4", "LAB/lab", "NEW"], 2, "too early"),
        (["evaluate", "LAB/runs/on"], 2, "Did you mean 'one'"),
        (["evaluate", "LAB/runs"], 2, "Did you mean 'runs/one'"),
        (["evaluate", "LAB/runs/one", "--label", "tset"], 2, "Did you mean 'test'"),
        (["evaluate", "LAB/runs/one", "--stride", "0"], 2, "above 0 s"),
        (["report", "LAB/runs/on"], 2, "Did you mean 'one'"),
        (["report", "LAB/runs/one", "--out", "NEW.txt"], 2, ".html"),
        (["runs", "list", "LAB/rums"], 2, "Did you mean 'runs'"),
        (["runs", "compare", "LAB/runs/one"], 2, "takes 2 folders, found 1"),
        (["runs", "show", "LAB/runs/one", "LAB/runs/one"], 2, "takes 1 folder, found 2"),
        (["experiment", "w-mase", "LAB/lab", "NEW"], 2, "Did you mean 'w-maze'"),
        (["experiment", "w-maze", "LAB/lba", "NEW"], 2, "lba"),
        (["experiment", "w-maze", "LAB/lab", "NEW", "--seeed", "3"], 2, ""),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_in_the_exit_code(
    capsys, lab, fitted, tmp_path, words, code, said
):
    words = [word.replace("LAB", str(lab)).replace("NEW", str(tmp_path / "new")) for word in words]
    found, out, err = run(capsys, *words)
    assert found == code
    assert said in err
    if said:
        assert out == ""
        assert len(err.splitlines()) == 1
        assert err.startswith("neurostore: ")
    assert not list(tmp_path.iterdir())


def test_resume_of_a_run_that_is_done_gives_it_back(capsys, lab, fitted):
    before = (fitted / "run.json").read_bytes()
    code, out, _ = run(capsys, *small(lab, fitted, "--resume", "--json"))
    assert code == 0
    assert json.loads(out)["id"] == Run.open(fitted).id
    assert (fitted / "run.json").read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="ends a process by a POSIX signal")
def test_a_dry_run_finds_what_the_first_batch_would_show(capsys, lab, tmp_path):
    words = small(lab, tmp_path / "new", "--arguments.boxcars", "[0.1, 3.0]")
    for more in ([], ["--dry-run"]):
        code, _, err = run(capsys, *words, *more)
        assert code == 2
        assert "longer than the history" in err
        assert not (tmp_path / "new").exists()


def test_a_killed_run_is_listed_and_shown_as_killed(capsys, fitted, tmp_path):
    shutil.copytree(fitted, tmp_path / "runs" / "dead")
    dead = Run.open(tmp_path / "runs" / "dead")
    dead.mark("training")
    with dead.alone():
        pass
    _, out, _ = run(capsys, "runs", "list", tmp_path / "runs")
    assert "killed" in out
    _, out, _ = run(capsys, "runs", "show", dead.folder, "--json")
    assert json.loads(out)["status"] == "killed"


def test_resume_needs_no_override_again_and_refuses_another_recipe(capsys, lab, tmp_path):
    folder = tmp_path / "new"
    assert run(capsys, *small(lab, folder, "--train.epochs", "1"))[0] == 0
    Run.open(folder).mark("stopped")
    code, out, _ = run(capsys, *small(lab, folder, "--resume"))
    assert code == 0
    assert "done, 1 epoch" in out
    code, _, err = run(capsys, *small(lab, folder, "--resume", "--train.epochs", "5"))
    assert code != 0
    assert "train.epochs was 1, found 5. Leave recipe and overrides out" in err
    code, _, err = run(capsys, "train", "glm", lab / "lab", folder, "--resume")
    assert code == 2
    assert "made from recipe 'small', found 'glm'" in err


def test_ctrl_c_ends_with_130_says_how_to_go_on_and_that_works(capsys, lab, tmp_path):
    folder = tmp_path / "long"
    words = [str(word) for word in small(lab, folder, "--train.epochs", "100000")]
    code = (
        "import sys, torch; torch.set_num_threads(1); from neurostore import cli; "
        "sys.argv = ['neurostore', *sys.argv[1:]]; cli.run()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 2/"):
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    last = err.splitlines()[-1]
    assert last.startswith("neurostore: Stopped in epoch")
    assert "--resume" in last
    assert "committed" not in last
    assert Run.open(folder).status == "stopped"
    found, _, err = run(capsys, "evaluate", folder)
    assert found == 2
    assert "is not done (stopped" in err
    assert "--resume --train.epochs 100000" in err
    found, out, _ = run(capsys, "runs", "list", tmp_path)
    assert found == 0
    assert "stopped" in out


def test_ctrl_c_elsewhere_ends_with_130_too(capsys, lab, fitted, monkeypatch):
    def stop(*all, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(Scores, "to_json", stop)
    code, _, err = run(capsys, "evaluate", fitted)
    assert code == 130
    assert err == "neurostore: stopped; nothing of this command was committed.\n"


@pytest.mark.parametrize("module", ["torch", "lightning_fabric", "safetensors.torch"])
def test_without_the_extra_its_name_is_said(capsys, lab, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    for name in [one for one in sys.modules if one.startswith("neurostore.models.glm")]:
        monkeypatch.delitem(sys.modules, name)
    code, out, err = run(capsys, *small(lab, tmp_path / "new"))
    assert code == 1
    assert out == ""
    assert "neurostore[train]" in err.splitlines()[-1]


def test_an_evaluation_without_the_extra_says_its_name(capsys, fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "neurostore.models.glm", raising=False)
    monkeypatch.delitem(sys.modules, "safetensors.torch", raising=False)
    code, _, err = run(capsys, "evaluate", fitted)
    assert code == 1
    assert "neurostore[train]" in err


# ---- evaluate, report


def test_an_evaluation_shows_scores_intervals_and_who_was_left_out(capsys, fitted, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run(capsys, "evaluate", fitted)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines()[1:-1])) <= 80
    said = json.loads((fitted / "scores" / "test.json").read_text("utf-8"))
    for one in said["models"]:
        low, high = one["interval"]
        shown = f"{one['bits_per_spike']:z.3f} [{low:z.3f}, {high:z.3f}]"
        assert shown in out
    assert "model minus it" in out
    assert "4 units scored, 2 left out for want of spikes: " in out
    assert "late" in out
    assert "-0.000" not in out


def test_an_evaluation_in_json_is_the_file_it_keeps(capsys, fitted):
    code, out, err = run(capsys, "evaluate", fitted, "--json", "--stride", "0.25")
    assert (code, err) == (0, "")
    kept = json.loads((fitted / "scores" / "test-0.25s.json").read_text("utf-8"))
    assert kept.items() >= json.loads(out).items()


def test_a_report_scores_first_where_that_was_not_done(capsys, fitted, tmp_path):
    shutil.copytree(fitted, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "scores")
    code, out, err = run(capsys, "report", tmp_path / "copy")
    assert (code, err) == (0, "")
    page, data = map(Path, out.splitlines())
    assert page.name == "report.html"
    assert page.is_file()
    assert json.loads(data.read_text("utf-8"))["label"] == "test"
    assert (tmp_path / "copy" / "scores" / "test.json").is_file()
    code, out, err = run(capsys, "report", tmp_path / "copy", "--json")
    assert json.loads(out) == {"page": str(page), "data": str(data)}


def test_a_report_of_damaged_scores_says_what_to_do(capsys, fitted, tmp_path):
    shutil.copytree(fitted, tmp_path / "copy")
    (tmp_path / "copy" / "scores" / "test.safetensors").write_bytes(b"")
    code, _, err = run(capsys, "report", tmp_path / "copy")
    assert code == 3
    assert "Evaluate the run again" in err
    assert run(capsys, "evaluate", tmp_path / "copy")[0] == 0
    assert run(capsys, "report", tmp_path / "copy")[0] == 0


# ---- runs


@pytest.fixture
def many(fitted, tmp_path):
    """One run that is scored, one that is not, one that is damaged."""
    for name in ("scored", "plain", "broken"):
        shutil.copytree(fitted, tmp_path / "many" / name)
    shutil.rmtree(tmp_path / "many" / "plain" / "scores")
    (tmp_path / "many" / "broken" / "recipe.json").write_text("{", "utf-8")
    return tmp_path / "many"


def test_the_list_shows_the_score_at_80_columns(capsys, many, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run(capsys, "runs", "list", many)
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split()[:7] == ["folder", "bits", "per", "spike", "status", "epochs", "recipe"]
    assert sorted(row.split()[0] for row in rows[:3]) == ["broken", "plain", "scored"]
    bits = Run.open(many / "scored").scores()["models"][0]["bits_per_spike"]
    assert "bits per spike" in head
    assert sum(f"{bits:.3f}" in row for row in rows) == 1
    assert sum("damaged" in row for row in rows) == 1
    assert "2.0" not in out  # epochs are whole, whatever else is listed
    assert max(map(len, [head, *rows[:3]])) <= 80


def test_the_list_in_json_has_every_column_and_no_nan(capsys, many):
    code, out, _ = run(capsys, "runs", "list", many, "--json")
    assert code == 0
    rows = {Path(one["folder"]).name: one for one in json.loads(out)}
    assert rows["broken"]["status"] == "damaged"
    assert rows["plain"]["bits_per_spike"] is None
    assert rows["scored"]["bits_per_spike"] == pytest.approx(
        Run.open(many / "scored").scores()["bits_per_spike"]
    )


def test_an_empty_folder_has_no_runs(capsys, tmp_path):
    assert run(capsys, "runs", "list", tmp_path)[0] == 0
    assert json.loads(run(capsys, "runs", "list", tmp_path, "--json")[1]) == []


def test_show_tells_recipe_losses_and_score(capsys, many):
    code, out, err = run(capsys, "runs", "show", many / "scored")
    assert (code, err) == (0, "")
    run_ = Run.open(many / "scored")
    assert f"{run_.metrics()['validation_loss'].iloc[-1]:.6g}" in out
    assert "0.01" in out
    assert f"test: {run_.scores()['bits_per_spike']:.3f} [" in out
    code, out, _ = run(capsys, "runs", "show", many / "scored", "--json")
    said = json.loads(out)
    assert said["recipe"]["values"]["train.epochs"] == 2
    assert said["scores"]["bits_per_spike"] == run_.scores()["bits_per_spike"]
    assert len(said["metrics"]) == 2
    assert json.loads(run(capsys, "runs", "show", many / "plain", "--json")[1])["scores"] is None
    assert run(capsys, "runs", "show", many / "plain")[0] == 0
    assert run(capsys, "runs", "show", many / "broken")[0] == 3


@pytest.mark.parametrize("columns", [80, 160])
def test_compare_shows_both_runs_however_narrow(
    capsys, lab, fitted, tmp_path, monkeypatch, columns
):
    monkeypatch.setenv("COLUMNS", str(columns))
    boxcars = ["--arguments.boxcars", "0.2", "0.5", "--train.learning_rate", "0.004"]
    assert run(capsys, *small(lab, tmp_path / "other", *boxcars, "--json"))[0] == 0
    assert run(capsys, "evaluate", tmp_path / "other", "--json")[0] == 0
    code, out, err = run(capsys, "runs", "compare", fitted, tmp_path / "other")
    assert (code, err) == (0, "")
    assert "not shown" not in out
    for said in ("0.004", "0.01", "arguments.boxcars", "0.2", "bits_per_spike", "interval"):
        assert said in out
    mine, other = (Run.open(one).scores()["bits_per_spike"] for one in (fitted, tmp_path / "other"))
    assert f"{mine:.4g}" in out
    assert f"{other:.4g}" in out
    code, out, _ = run(capsys, "runs", "compare", fitted, tmp_path / "other", "--json")
    rows = {one["key"]: one for one in json.loads(out)}
    assert rows["train.learning_rate"]["section"] == "recipe"


# ---- experiment

GRID = """
title = "Two rotations"
recipe = "small.toml"
pool = "split.rotation"
set.train.epochs = 1
grid.split.rotation = [0, 2]
"""


def test_an_experiment_prints_its_table_and_goes_on(capsys, lab, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    path = lab / "grid.toml"
    path.write_text(GRID, encoding="utf-8")
    words = ["experiment", path, lab / "lab", tmp_path / "out"]
    code, out, err = run(capsys, *words, "--dry-run")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "split.rotation = 0",
        "split.rotation = 2",
        "Dry run: 2 runs, nothing was trained.",
    ]
    assert json.loads(run(capsys, *words, "--dry-run", "--json")[1]) == [
        {"split.rotation": 0},
        {"split.rotation": 2},
    ]
    code, _, err = run(capsys, *words, "--dry-run", "--train.epohcs", "2")
    assert code == 2
    assert "Did you mean 'train.epochs'" in err
    assert not (tmp_path / "out").exists()
    code, out, err = run(capsys, *words, "--json")
    assert code == 0
    assert err.splitlines()[0] == "run 1 of 2: rotation 0"
    table = json.loads(out)
    code, out, err = run(capsys, *words)
    assert code == 0
    assert "Two rotations" in out
    assert f"{table['rows'][0]['bits_per_spike']:z.3f} [" in out
    assert "model minus it" in out
    assert str(tmp_path / "out" / "table.json") in out
    assert max(map(len, out.splitlines()[:-2])) <= 80


def test_a_stopped_experiment_says_that_the_same_command_goes_on(
    capsys, lab, tmp_path, monkeypatch
):
    (lab / "grid.toml").write_text(GRID, encoding="utf-8")

    def stop(*all, **named):
        raise KeyboardInterrupt("Stopped in epoch 1")

    monkeypatch.setattr(sys.modules["neurostore.experiments"], "train", stop)
    code, _, err = run(capsys, "experiment", lab / "grid.toml", lab / "lab", tmp_path / "out")
    assert code == 130
    assert "The same command goes on from there." in err.splitlines()[-1]
