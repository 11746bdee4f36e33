"""Many sessions at once: within the bounds of disk, memory and open files, with the same values."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import neurostore
from neurostore import cache
from neurostore.cache import Cache
from neurostore.errors import CacheWarning
from neurostore.store import Store, _chunks

SESSIONS, SPIKES, UNITS, SECONDS = 40, 80_000, 8, 60
PACKED = 5 << 16  # bytes of the spikes of a session in the cache, about
WINDOW = neurostore.Window(history=1.0, horizon=1.0, stride=3.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    rng = np.random.default_rng(5)
    made = neurostore.create(tmp_path_factory.mktemp("many") / "lab")
    with made.transaction("many sessions") as tx:
        for number in range(SESSIONS):
            one = neurostore.SessionBuilder(dataset="m", session=f"s{number:02}", rate="30000")
            units = rng.multinomial(SPIKES, np.full(UNITS, 1 / UNITS))
            one.add_units(
                {f"u{k}": np.sort(rng.uniform(0, SECONDS, n)) for k, n in enumerate(units)}
            )
            one.add_observed([0.0], [SECONDS - number / 100])
            tx.put(one)
    return made.refresh()


def _dataset(store: Store) -> neurostore.Dataset:
    return neurostore.Dataset(store, window=WINDOW, streams={"spikes": neurostore.Spikes(bin=0.1)})


@pytest.mark.parametrize("again", [False, True])
def test_an_epoch_over_more_than_the_bound_builds_nothing_twice_and_evicts_nothing_in_use(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
):
    monkeypatch.setenv("NEUROSTORE_CACHE", "off")
    direct = _dataset(store).loader(32, seed=1)
    built: Counter[str] = Counter()
    make = Cache._make

    def counted(held: Cache, path: Path, *rest: object) -> bool:
        done = make(held, path, *rest)
        built[path.name] += done
        return done

    monkeypatch.setattr(Cache, "_make", counted)
    monkeypatch.setenv("NEUROSTORE_CACHE", str(tmp_path / "own"))
    small = 2 * SESSIONS * (1 << 15)
    monkeypatch.setenv("NEUROSTORE_CACHE_BOUND", str(small + 10 * PACKED))
    if again:  # what an epoch of another process left, in another order
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            list(_dataset(store).loader(32, seed=2))
        gc.collect()
        built.clear()
        cache._cache._said.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = _dataset(store)
        for found, expected in zip(dataset.loader(32, seed=1), direct, strict=True):
            np.testing.assert_array_equal(found["spikes"], expected["spikes"])
            assert found.session == expected.session
    assert [one.category for one in caught] == [CacheWarning]
    assert "no room" in str(caught[0].message)
    assert max(built.values(), default=0) <= 1
    kept = [entry for one in dataset.chosen for _, entry, _ in one.session._kept.values() if entry]
    large = [entry for entry in kept if entry.size > PACKED]
    assert 10 <= len(large) < SESSIONS / 2
    assert all(entry.path.exists() for entry in large)
    held = cache.current()
    assert sum(stat.st_blocks * 512 for _, stat in held.entries()) <= held.bound


# ---- memory


def test_a_chunk_is_kept_from_the_second_time_on_that_it_is_asked_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NEUROSTORE_CACHE", "off")
    gc.collect()
    session, before = store.session(store.sessions()["id"][0]), _chunks._size
    expected = np.asarray(session.stored("spikes").columns["time"].values[:])
    for kept in (0, SPIKES * 8, SPIKES * 8):
        got = session._pieces("time", [(5, 9), (7, 7), (0, SPIKES)])
        for one, (low, high) in zip(got, [(5, 9), (7, 7), (0, SPIKES)], strict=True):
            np.testing.assert_array_equal(one, expected[low:high])
            assert one.dtype == expected.dtype
        assert _chunks._size == before + kept


def test_chunks_of_all_sessions_stay_within_one_bound_and_go_with_their_sessions(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NEUROSTORE_CACHE", "off")
    gc.collect()
    before = _chunks._size
    bound = before + 3 * SPIKES * 8
    monkeypatch.setattr(_chunks, "BOUND", bound)
    ids = store.sessions()["id"].tolist()[:6]
    expected = {id: np.asarray(store.session(id).stored("spikes").columns["time"].values[:])
                for id in ids}  # fmt: skip
    sessions = [store.session(id) for id in ids]

    def read(turn: int) -> None:
        rng = np.random.default_rng(turn)
        for _ in range(60):
            one = sessions[rng.integers(len(sessions))]
            low, high = np.sort(rng.integers(0, SPIKES, 2)).tolist()
            np.testing.assert_array_equal(one._piece("time", low, high), expected[one.id][low:high])
            assert _chunks._size <= bound

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(read, range(8)))
    assert _chunks._size == sum(one.nbytes for one in _chunks._kept.values())
    sliced = sessions[0].slice(1, 2)
    sliced._piece("time", 0, 9)
    sessions.clear()
    gc.collect()
    assert _chunks._size == before + SPIKES * 8  # the slice reads on
    del sliced
    gc.collect()
    assert _chunks._size == before


# ---- open files

_OPEN = """
import os, resource, sys
import numpy as np
from pathlib import Path
from neurostore.cache import Cache
held, size, soft, hard = Cache(Path(sys.argv[1]), 10**9), *map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
def fill(writer):
    writer.arrays["a"][:] = 7
def build(n):
    return held.build(f"k{n}", {"a": (np.uint8, (size,))}, fill)
before = len(os.listdir("/proc/self/fd"))
entries = [build(n) for n in range(80)]
assert all((one.arrays["a"] == 7).all() for one in entries)
print(len(os.listdir("/proc/self/fd")) - before, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def _open(folder: Path, size: int, soft: int, hard: int) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", _OPEN, str(folder), *map(str, (size, soft, hard))]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files by /proc")
def test_small_entries_hold_no_file_and_large_ones_raise_the_limit(tmp_path: Path):
    small = _open(tmp_path / "small", 1000, 64, 64)
    assert small.stdout.split() == ["0", "64"], small.stderr
    large = _open(tmp_path / "large", 300_000, 64, 512)
    assert large.stdout.split() == ["80", "512"], large.stderr


def test_where_the_limit_of_open_files_cannot_be_raised_it_is_named(tmp_path: Path):
    found = _open(tmp_path, 300_000, 64, 64)
    assert found.returncode == 1
    last = found.stderr.splitlines()[-1]
    assert "OpenFilesError: This process may have 64 files open" in last
    assert "ulimit" in last
    assert "NEUROSTORE_CACHE=off" in last


def test_a_small_entry_outlives_its_file_and_a_pickle(tmp_path: Path):
    import pickle

    held = Cache(tmp_path, bound=10**6)

    def fill(writer: cache.Writer) -> None:
        writer.arrays["a"][:] = np.arange(1000)

    entry = held.build("k", {"a": (np.int64, (1000,))}, fill)
    assert held.clear()[0] == 1
    again = pickle.loads(pickle.dumps(entry))
    for one in (entry, again):
        one.check("a")
        np.testing.assert_array_equal(one.arrays["a"], np.arange(1000))
        assert not one.arrays["a"].flags.writeable
    assert held.get("k") is None


def test_small_entries_stay_where_large_ones_ask_for_room(tmp_path: Path):
    held = Cache(tmp_path, bound=600_000)

    def build(key: str, size: int) -> object:
        return held.build(key, {"a": (np.uint8, (size,))}, lambda writer: None)

    for k in range(30):
        assert build(f"small{k}", 10_000) is not None  # 16 KiB of the disk each
    with pytest.warns(CacheWarning, match="no room"):
        assert build("large", 300_000) is None
    assert len(held.entries()) == 30
    for k in range(30, 60):
        assert build(f"small{k}", 10_000) is not None
    assert sum(stat.st_blocks * 512 for _, stat in held.entries()) <= held.bound
