from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import neurostore
from neurostore import demo
from neurostore.errors import MissingExtraError, NeurostoreError
from neurostore.runs import Run
from neurostore.simulate import simulate, write_nwb

if not all(map(find_spec, demo.LIBRARIES)):
    pytest.skip(f"the demo needs {demo.LIBRARIES}", allow_module_level=True)


FULL = demo.SECONDS, demo.UNITS, demo.FIT


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SECONDS", 240.0)
    monkeypatch.setattr(demo, "UNITS", 12)
    monkeypatch.setattr(demo, "FIT", {**demo.FIT, "train.epochs": 1})


def test_the_demo_ends_with_a_store_and_its_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = demo.run(tmp_path / "out")
    assert page == tmp_path / "out" / "catalogue.html"
    assert page.read_text(encoding="utf-8").count("<img ") == 2
    said = capsys.readouterr().out
    assert str(page) in said.replace("\n", "")
    assert said.count("violation: ") == 3
    store = neurostore.open(tmp_path / "out" / "store")
    assert list(store.sessions()["id"]) == ["demo/mouse-1", "demo/mouse-2", "demo/mouse-3"]
    assert len(store.log()) == 4
    assert store.session("demo/mouse-1").intervals["trials"]["valid"].values.all()
    then = store.at("v1").session("demo/mouse-1")
    assert not then.intervals["trials"]["valid"].values.all()
    assert {finding.variable for finding in then.findings} == {"time", "valid", "response_time"}


@pytest.mark.slow
def test_the_demo_forecasts_above_its_baselines_and_below_its_ceiling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(("SECONDS", "UNITS", "FIT"), FULL, strict=True):
        monkeypatch.setattr(demo, name, value)
    page = demo.run(tmp_path / "out")
    run = Run.open(tmp_path / "out" / "runs" / "mouse-3")
    said = run.scores()
    assert said is not None
    bits = {one["name"]: one["bits_per_spike"] for one in said["models"]}
    assert max(bits["trailing rate"], bits["session time"], 0) < bits["GLM"] < bits["achievable"]
    assert 'href="runs/mouse-3/report.html"' in page.read_text(encoding="utf-8")
    assert (run.folder / "report.html").is_file()


def test_the_demo_does_the_same_on_a_recording_of_ones_own(tmp_path: Path) -> None:
    file = write_nwb(simulate(5, units=6, seconds=700), tmp_path / "mine.nwb", session_id="mine")
    page = demo.run(tmp_path / "out", recording=file)
    assert 'href="runs/recording/report.html"' in page.read_text(encoding="utf-8")
    assert Run.open(tmp_path / "out" / "runs" / "recording").scores() is not None


def test_a_recording_that_is_refused_ends_the_demo_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "no.nwb").write_text("no file of that kind")
    with pytest.raises(NeurostoreError, match=r"no\.nwb"):
        demo.run(tmp_path / "out", recording=tmp_path / "no.nwb")


def test_an_untouched_demo_is_replaced_and_a_changed_one_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    demo.run(out)
    first = neurostore.open(out / "store").snapshot
    assert demo.run(out) == out / "catalogue.html"
    assert "Replacing the earlier demo" in capsys.readouterr().out
    store = neurostore.open(out / "store")
    assert store.snapshot != first
    with store.transaction("my own session") as transaction:
        transaction.put(simulate(1, units=3, seconds=20).builder("mine", "s"))
    page = (out / "catalogue.html").read_bytes()
    assert demo.run(out) == tmp_path / "out-2" / "catalogue.html"
    assert "is not empty; working in" in capsys.readouterr().out
    assert "mine/s" in neurostore.open(out / "store")
    assert (out / "catalogue.html").read_bytes() == page


@pytest.mark.parametrize("mark", [None, "ABC", b"\xff\xfe"])
def test_a_folder_with_other_things_in_it_is_left_alone(
    tmp_path: Path, mark: str | bytes | None
) -> None:
    out = tmp_path / "out"
    (out / "store").mkdir(parents=True)
    (out / "store" / "thesis.txt").write_text("three years of work")
    if mark is not None:
        (out / demo.DONE).write_bytes(mark.encode() if isinstance(mark, str) else mark)
    (tmp_path / "out-2").mkdir()
    assert demo.run(out).parent == tmp_path / "out-3"
    assert (out / "store" / "thesis.txt").read_text() == "three years of work"
    assert not (out / "catalogue.html").exists()


@pytest.mark.parametrize("library", demo.LIBRARIES)
def test_without_the_extra_nothing_is_done(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        demo, "find_spec", lambda name: None if name == library else find_spec(name)
    )
    with pytest.raises(MissingExtraError, match=r"neurostore\[demo\]"):
        demo.run(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_page_is_opened_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(demo.webbrowser, "open", opened.append)
    page = demo.run(tmp_path / "out", open_page=True)
    assert opened == [page.absolute().as_uri()]


def test_spoiling_changes_three_things_and_leaves_the_rest() -> None:
    clean = simulate(1, units=3, seconds=90)
    spoiled = demo.spoil(clean)
    assert np.isfinite(clean.trials["stop"]).all()
    assert np.count_nonzero(np.isnan(spoiled.trials["stop"])) == 1
    assert np.nanmin(spoiled.trials["response_time"]) == -1.5e9
    assert np.count_nonzero(np.diff(spoiled.wheel_time) < 0) == 1
    assert np.array_equal(spoiled.times, clean.times)
    assert np.array_equal(spoiled.trials["start"], clean.trials["start"])
