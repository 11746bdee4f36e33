"""Reading needs no lock, no folder that can be written, and no cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from _damaged import build

READ = """
import os, sys
import neurostore
url, uid = sys.argv[1:]
lab = neurostore.create("memory://warm")  # loads what is loaded late, while it may be read
b = neurostore.SessionBuilder(dataset="d", session="s")
b.add_units({"u": [0.0, 1.0]})
with lab.transaction("warm") as tx:
    tx.put(b)
lab.units("n_spikes > 0")
lab.session("d/s").counts(0, 1, 0.5)
if os.geteuid() == 0:
    os.setuid(int(uid))
store = neurostore.open(url)
for one in (store, neurostore.open(url), store.at("v1")):
    counts = one.session("lab/a").counts(0, 100, 1)
    print(*one.sessions()["id"], len(one.units()), counts.values.sum())
assert not any(store.validate().values())
try:
    with store.transaction("no") as tx:
        tx.put(b)
except neurostore.errors.StoreError as error:
    print(type(error).__name__, error.line)
try:
    store.tag("no")
except neurostore.errors.StoreError as error:
    print(type(error).__name__, error.line)
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return build(tmp_path_factory.mktemp("read-only") / "lab").url


def test_a_store_is_read_from_a_folder_and_with_a_cache_that_cannot_be_written(url):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        lab, cache = Path(folder, "lab"), Path(folder, "cache")
        shutil.copytree(url, lab)
        (lab / "neurostore.lock").unlink()
        cache.mkdir()
        paths = [*lab.rglob("*"), lab, cache]
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            done = subprocess.run(
                [
                    sys.executable,
                    "-W",
                    "error",
                    "-W",
                    "always:The window cache",
                    "-c",
                    READ,
                    str(lab),
                    "65534",
                ],
                env={**os.environ, "NEUROSTORE_CACHE": str(cache), "HOME": folder},
                capture_output=True,
                text=True,
                timeout=120,
            )
        finally:
            for path in reversed(paths):
                path.chmod(0o755)
        assert done.returncode == 0, done.stderr
        said = done.stdout.splitlines()
        assert said[0] == said[1] == "lab/a lab/b lab/c 8 2800"
        assert said[2] == "lab/a lab/b 8 2800"
        for line in said[3:]:
            assert line.startswith("StoreError")
            assert "ermission denied" in line
        assert len(said) == 5
        warnings = [line for line in done.stderr.splitlines() if "cannot be written" in line]
        assert len(warnings) == 2, done.stderr
        for what in ("cache %s/catalogue", "window cache %s/tables"):
            assert sum(f"The {what % cache} cannot be written" in line for line in warnings) == 1
        assert list(cache.iterdir()) == []
