import ast
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
    assert set(extras) == others | {"all", "peers", "az", "gs"}
    (everything,) = extras["all"]
    assert set(everything.removeprefix("neurostore[").removesuffix("]").split(",")) == others


def test_no_heavy_library_is_a_core_dependency(project: dict[str, Any]) -> None:
    for requirement in project["dependencies"]:
        assert not requirement.startswith(tuple(HEAVY)), requirement


def test_the_measured_versions_name_every_dependency(project: dict[str, Any]) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    unmeasured = {"adlfs", "gcsfs"}  # they need an account to say anything
    measured = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    wanted = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in itertools.chain.from_iterable(wanted):
        name = re.split(r"[\[<=>]", requirement)[0].lower().replace("_", "-")
        assert name in measured | unmeasured | {"neurostore"}, requirement


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


# ---- nothing that is read is ever run

BANNED = {
    "pickle": ("load", "loads", "Unpickler"),
    "cPickle": ("load", "loads"),
    "dill": ("load", "loads"),
    "cloudpickle": ("load", "loads"),
    "joblib": ("load",),
    "marshal": ("load", "loads"),
    "shelve": ("open", "Shelf"),
    "yaml": ("load", "load_all", "full_load", "unsafe_load"),
    "os": ("system", "popen"),
    "jsonpickle": ("decode",),
}
"""What turns bytes of a file into code, by module."""
OPTIONS = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}
"""Calls that are safe with one value of one argument alone; it must be written out."""
EXTRACTING = {"extract", "extractall", "unpack_archive"}
"""Nothing is unpacked: what leads out of an archive has nowhere to go."""


def trees() -> list[tuple[Path, ast.Module]]:
    files = sorted((ROOT / "neurostore").rglob("*.py"))
    assert len(files) > 100
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in files]


def unsafe(tree: ast.Module) -> list[tuple[int, str]]:
    """Lines of a module that could run what they read."""
    names = {}  # what a name in this module stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(one.asname or one.name): one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {(one.asname or one.name): f"{node.module}.{one.name}" for one in node.names}
    banned = {f"{module}.{name}" for module, found in BANNED.items() for name in found}
    found = [(0, name) for name in names.values() if name in banned or name in EXTRACTING]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        written = ast.unparse(node.func)
        head, dot, rest = written.partition(".")
        said = names.get(head, head) + dot + rest
        options = {one.arg: ast.unparse(one.value) for one in node.keywords}
        wanted = OPTIONS.get(said) or OPTIONS.get(written)
        if (
            said in banned | {"eval", "exec", "compile", "__import__"}
            or (wanted and options.get(wanted[0]) != str(wanted[1]))
            or ("shell" in options and options["shell"] != "False")
            or said.rpartition(".")[2] in EXTRACTING
            or options.get("allow_pickle", "False") != "False"
        ):
            found.append((node.lineno, said))
    return found


def test_nothing_in_the_package_runs_what_it_reads_or_unpacks_an_archive() -> None:
    found = {str(path.relative_to(ROOT)): unsafe(tree) for path, tree in trees()}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle\npickle.loads(x)",
        "import pickle as p\np.load(f)",
        "from pickle import loads as read\nread(x)",
        "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import numpy as np\nnp.load(f)",
        "import yaml\nyaml.load(f)",
        "eval(x)",
        "exec(x)",
        "import subprocess\nsubprocess.run(x, shell=True)",
        "import os\nos.system(x)",
        "import tarfile\ntarfile.open(f).extractall()",
        "import zipfile\nzipfile.ZipFile(f).extract('a')",
        "import shutil\nshutil.unpack_archive(f)",
        "import shelve\nshelve.open(f)",
        "import marshal\nmarshal.loads(x)",
    ],
)
def test_the_search_for_what_runs_what_it_reads_finds_it(code: str) -> None:
    assert unsafe(ast.parse(code))


@pytest.mark.parametrize("name", ["pickle", "json2", "msgpack2", "numcodecs.pickle", "object"])
def test_no_codec_that_makes_objects_is_opened(name: str) -> None:
    from neurostore.store import _caps

    document: dict[str, Any] = {
        "codecs": [{"name": "bytes"}, {"name": name, "configuration": {}}, {"name": "crc32c"}]
    }
    with pytest.raises(neurostore.StoreError, match=f"uses the codecs {name}, which are never"):
        _caps.array_layout("a/b", document)
    assert not any("pickle" in one or "json" in one for one in _caps.CODECS)
