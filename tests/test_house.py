import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import neurostore

ROOT = Path(__file__).parent.parent
HEAVY = {"distributed", "matplotlib", "ONE-api", "pynapple", "pynwb", "torch"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_package_says_the_version_of_pyproject(project: dict[str, Any]) -> None:
    assert neurostore.__version__ == project["version"]


def test_every_promised_extra_exists_and_all_holds_them_but_rivals(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    others = {"nwb", "ibl", "train", "figures", "pynapple", "web", "bench", "demo", "dev", "dask"}
    others |= {"http", "s3"}
    assert set(extras) == others | {"all", "peers"}
    (everything,) = extras["all"]
    assert set(everything.removeprefix("neurostore[").removesuffix("]").split(",")) == others


def test_no_heavy_library_is_a_core_dependency(project: dict[str, Any]) -> None:
    for requirement in project["dependencies"]:
        assert not requirement.startswith(tuple(HEAVY)), requirement


def test_the_measured_versions_name_every_dependency(project: dict[str, Any]) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    measured = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    wanted = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in itertools.chain.from_iterable(wanted):
        name = re.split(r"[\[<=>]", requirement)[0].lower().replace("_", "-")
        assert name in measured | {"neurostore"}, requirement


def test_importing_the_package_loads_no_library_that_is_slow_to_import() -> None:
    code = "import sys, neurostore; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    slow = {"numpy", "pandas", "pandera", "torch", "xarray", "zarr"}
    assert slow.isdisjoint(done.stdout.split())


def test_every_public_name_is_what_it_says() -> None:
    for name in neurostore.__all__:
        value = getattr(neurostore, name)
        said = getattr(value, "__name__", name)
        assert said.rpartition(".")[2] == name, (name, said)


def test_without_torch_the_names_that_need_it_say_which_extra_brings_it() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import neurostore\n"
        "for name in neurostore.__all__:\n"
        "    try: getattr(neurostore, name)\n"
        "    except neurostore.MissingExtraError as error: print(name, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    (line,) = done.stdout.splitlines()
    assert line.startswith("DeviceDataset ")
    assert "neurostore[train]" in line
