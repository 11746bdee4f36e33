"""The catalogue at scale: opened, queried and added to, as repositories grow and become many.

Sessions are small and real; they differ in name alone, so that thousands are written in seconds.
``$NEUROSTORE_BENCH`` is a folder in which the stores stay for another time.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.abc.store import Store as ZarrStore
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync

import neurostore
from neurostore.store import Store

LARGE, ARRAYS = (100, 200, 400, 700, 1000), 50
"""Sessions of one repository, and about how many arrays each of them has."""
REPOSITORIES, EACH = 25, 400
"""Repositories opened as one, and the small sessions of each."""
WHERE = "n_units >= 3 AND list_contains(regions, 'CA1')"

FRESH = """
import json, sys, time
import duckdb, pandas, pyarrow, pyarrow.compute, neurostore, neurostore.store._several
if sys.argv[3] == "engine":
    import neurostore.store._versions
urls, where = json.loads(sys.argv[1]), sys.argv[2]
start = time.perf_counter()
store = neurostore.open(urls if len(urls) > 1 else urls[0])
opened = time.perf_counter()
found = len(store.sessions(where))
asked = time.perf_counter()
again = len(store.sessions(where))
print(json.dumps([opened - start, asked - opened, time.perf_counter() - asked, found]))
"""


def session(dataset: str, name: str, arrays: int) -> neurostore.SessionBuilder:
    """A session of four units, with behaviours until it has about so many arrays."""
    made = neurostore.SessionBuilder(dataset=dataset, session=name, subject="m", rate=30_000)
    rng = np.random.default_rng(len(name))
    regions = ["CA1", "CA1", "V1", "V1"]
    made.add_units({f"u{k}": np.sort(rng.uniform(0, 20, 30)) for k in range(4)}, region=regions)
    for number in range(max(0, arrays - 12) // 2):
        made.add_behaviour(f"b{number:02}", rng.normal(size=20), time=np.arange(20.0), units="cm")
    return made


def grown(folder: Path, dataset: str, sessions: int, arrays: int) -> Store:
    """The repository with so many sessions: more in one commit, or made anew where it has more.

    The first one is written as always; the others are its documents and chunks under their names.
    """
    if folder.exists() and len(neurostore.open(folder).ids) > sessions:
        shutil.rmtree(folder)
    store = neurostore.open(folder) if folder.exists() else neurostore.create(folder)
    if not store.ids:
        with store.transaction("the first session") as tx:
            tx.put(session(dataset, "s00000", arrays))
    missing = [f"s{k:05}" for k in range(len(store.ids), sessions)]
    if not missing:
        return store
    attrs = dict(store.session(f"{dataset}/s00000").attrs)
    entries = attrs.pop("row")["tables"]
    kept = sync(_below(store.zarr, f"sessions/{dataset}/s00000/"))
    with store.transaction("more sessions") as tx:
        for name in missing:
            id, path = f"{dataset}/{name}", f"sessions/{dataset}/{name}"
            tx._touch(id, path)
            writer = tx._draft.below(path)
            sync(_put(writer, {f"{path}/{key}": value for key, value in kept.items()}))
            own = attrs | {"id": id, "session": name}
            tx._write_row(writer, path, own, entries)
            tx._changes[id] = "put"
    return store


async def _below(store: ZarrStore, prefix: str) -> dict[str, Buffer]:
    found = {}
    async for key in store.list_prefix(prefix):
        value = await store.get(key, default_buffer_prototype())
        assert value is not None
        found[key.removeprefix(prefix)] = value
    return found


async def _put(store: ZarrStore, values: dict[str, Buffer]) -> None:
    documents = {key: value for key, value in values.items() if key.endswith("zarr.json")}
    for some in (documents, {key: values[key] for key in values.keys() - documents}):
        await asyncio.gather(*(store.set(key, value) for key, value in some.items()))


def fresh(urls: list[str], cache: Path, *, engine: bool = False) -> list[Any]:
    """Seconds to open, to ask once and again in a process of its own, and how many are found."""
    words = [json.dumps(urls), WHERE, "engine" if engine else ""]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *words],
        env=os.environ | {"NEUROSTORE_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    made: list[Any] = json.loads(done.stdout)
    return made


def index(urls: list[str], cache: Path) -> float:
    """Seconds to open and to ask once in a process that has no cache."""
    shutil.rmtree(cache, ignore_errors=True)
    opened, asked, *_ = fresh(urls, cache, engine=True)
    return float(opened + asked)


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("NEUROSTORE_BENCH")
    return Path(kept) if kept else tmp_path_factory.mktemp("catalogue")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEUROSTORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("sessions", LARGE)
def bench_one_repository_as_it_grows(place, cache, sessions):
    grown(place / "large", "large", sessions, ARRAYS).optimize()
    folder = place / "measured"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place / "large", folder)
    shutil.rmtree(folder / "neurostore")
    first = [index([str(folder)], cache)]
    shutil.copytree(place / "large" / "neurostore", folder / "neurostore")
    first.append(index([str(folder)], cache))
    best = min((fresh([str(folder)], cache) for _ in range(3)), key=lambda one: one[1])
    store = neurostore.open(folder)
    store.sessions(WHERE)
    warm = min(milliseconds(lambda: store.sessions(WHERE)) for _ in range(5))

    def add(name: str) -> float:
        made = session("more", name, ARRAYS).build()

        def put() -> None:
            with store.transaction("one more") as tx:
                tx.put(made)

        return milliseconds(put)

    one, two = add("a"), add("b")
    after = milliseconds(lambda: store.sessions(WHERE))
    assert len(store.ids) == sessions + 2
    print(
        f"\n{sessions:>5} sessions, {store.nodes:>6,} groups and arrays: first index by rows "
        f"{first[0]:.2f} s, from the optimized one {first[1]:.2f}; fresh process: open "
        f"{1e3 * best[0]:.1f} ms, query {1e3 * best[1]:.1f} ms, again {1e3 * best[2]:.1f} ms; "
        f"warm query {warm:.1f} ms; one session more {one:.0f} and {two:.0f} ms, query after "
        f"it {after:.0f} ms"
    )
    for line in store.outgrown():
        print(f"      {line}")


def bench_ten_thousand_sessions_of_many_repositories_as_one(place, cache):
    urls = [str(place / "many" / f"lab-{number:02}") for number in range(REPOSITORIES)]
    for number, url in enumerate(urls):
        Path(url).parent.mkdir(parents=True, exist_ok=True)
        grown(Path(url), f"lab-{number:02}", EACH, 12).optimize()
    first = index(urls, cache)
    best = min((fresh(urls, cache) for _ in range(3)), key=lambda one: one[0] + one[1])
    store = neurostore.open(urls)
    warm = min(milliseconds(lambda: store.sessions(WHERE)) for _ in range(5))
    opened = milliseconds(lambda: store.session("lab-07/s00123"))
    other = milliseconds(lambda: store.session("lab-19/s00321"))
    print(
        f"\n{best[3]:,} sessions of {len(urls)} repositories: first index from the optimized ones "
        f"{first:.2f} s; fresh process: open {1e3 * best[0]:.0f} ms, query "
        f"{1e3 * best[1]:.0f} ms, again {1e3 * best[2]:.0f} ms; warm query {warm:.0f} ms; "
        f"store.session {opened:.1f} and {other:.1f} ms"
    )
    assert best[3] == len(urls) * EACH
