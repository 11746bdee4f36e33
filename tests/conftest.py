"""Where the real recordings are, and a cache that no test leaves behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing about what is tested.
# The same examples every time, so that a red run says something of the change; others by night.
settings.register_profile("neurostore", deadline=None, derandomize=True)
settings.register_profile(
    "nightly",
    deadline=None,
    max_examples=500,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "neurostore"))

DATA = Path(
    os.environ.get("NEUROSTORE_TEST_DATA")
    or Path(__file__).resolve().parents[2] / "shared" / "data"
)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the tests' own."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["NEUROSTORE_CACHE"] = str(folder)
    return folder


@pytest.fixture
def data():
    """The folder of a real recording by name; skips, and says so, where it is not present."""

    def find(name: str) -> Path:
        folder = DATA / name
        if not folder.is_dir():
            pytest.skip(f"real recording {name} is not present (NEUROSTORE_TEST_DATA={DATA})")
        return folder

    return find
