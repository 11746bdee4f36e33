"""The README's lines run as they stand, on a recording of the name they use."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from neurostore import cli
from neurostore.simulate import simulate, write_nwb

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    for k in (1, 2):
        made = simulate(k, units=24, seconds=900)
        write_nwb(made, folder / f"sub-1_ses-{k}.nwb", session_id=f"ses-{k}")
    return folder


def test_the_shell_and_python_of_the_readme_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    lines = [line for line in blocks("sh")[1].splitlines() if line.startswith("neurostore ")]
    assert len(lines) == 9
    for line in lines:
        assert cli.main(shlex.split(line, comments=True)[1:]) == 0, line
    names: dict[str, object] = {}
    exec(compile(blocks("python")[0], "README.md", "exec"), names)
    counts = names["counts"]
    assert tuple(names["batch"]["spikes"].shape) == (32, 24, 75)  # type: ignore[index]
    assert names["scores"].table()["bits_per_spike"].notna().all()  # type: ignore[attr-defined]
    assert counts.sizes == {"unit": 24, "bin": 50}  # type: ignore[attr-defined]
    assert int(counts.sum()) > 0  # type: ignore[call-overload]
    assert len(blocks("python")[0].strip().splitlines()) <= 10


def test_the_readme_and_the_changelog_name_every_command():
    changes = (Path(__file__).parents[1] / "CHANGELOG.md").read_text("utf-8")
    for text in (README, changes):
        (found,) = re.findall(r"commands:? `(create[^`]*)`", text)
        assert found.split() == list(cli.COMMANDS)
