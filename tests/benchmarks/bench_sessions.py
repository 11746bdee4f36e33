"""Three hundred sessions: opening, and windows per second as less and less of them is cached."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import neurostore
from neurostore import cache, kernels
from neurostore.cache import Cache
from neurostore.errors import CacheWarning

SESSIONS, SPIKES, UNITS, SECONDS = 300, 100_000, 40, 1200
TOGETHER = 50
"""Sessions of a transaction."""
BATCH, BATCHES = 32, 100


def many(folder: Path) -> neurostore.Store:
    """A store of sessions that differ in all of their tables."""
    rng = np.random.default_rng(0)
    store = neurostore.create(folder)
    for first in range(0, SESSIONS, TOGETHER):
        with store.transaction(f"sessions from {first}") as tx:
            for number in range(first, first + TOGETHER):
                tx.put(_session(number, rng))
        store.refresh()
    return store


def _session(number: int, rng: np.random.Generator) -> neurostore.SessionBuilder:
    made = neurostore.SessionBuilder(dataset="many", session=f"s{number:03}", rate="30000")
    spikes = rng.multinomial(SPIKES, np.full(UNITS, 1 / UNITS))
    made.add_units({f"u{k}": np.sort(rng.uniform(0, SECONDS, n)) for k, n in enumerate(spikes)})
    middle = SECONDS * rng.uniform(0.3, 0.7)
    made.add_observed([0.0, middle + 1], [middle, SECONDS])
    position = rng.normal(size=(SECONDS * 20, 2)).astype(np.float32)
    made.add_behaviour("position", position, start=0, rate=20, units="cm")
    return made


@dataclass(frozen=True)
class Watched:
    """How often each entry was built, and how many were evicted."""

    built: Counter[str]
    evicted: list[int]

    @classmethod
    def over(cls, monkeypatch: pytest.MonkeyPatch) -> Watched:
        """From now on, in this process."""
        watched, make, evict = cls(Counter(), []), Cache._make, Cache._evict

        def making(held: Cache, path: Path, *rest: object) -> bool:
            done = make(held, path, *rest)  # type: ignore[arg-type]
            watched.built[path.name] += done
            return done

        def evicting(held: Cache, *rest: object) -> int:
            before = len(held.entries())
            left = evict(held, *rest)  # type: ignore[arg-type]
            watched.evicted.append(before - len(held.entries()))
            return left

        monkeypatch.setattr(Cache, "_make", making)
        monkeypatch.setattr(Cache, "_evict", evicting)
        return watched


def bench_epoch_of_300_sessions_in_less_and_less_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shuffled batches of 32 windows of 1 s, counts at 20 ms and position: no entry twice."""
    torch.set_num_threads(1)
    store = many(tmp_path / "lab")
    watched = Watched.over(monkeypatch)
    cache.use(tmp_path / "all")
    for number in range(2):
        _epoch(store, "all cached" if number else "all, empty at first", watched)
    taken = sum(stat.st_blocks * 512 for _, stat in _entries())
    cache.use(tmp_path / "third", bound=taken // 3)
    for number in range(2):
        _epoch(store, "a third" if number else "a third, empty at first", watched)
    cache.use(None)
    _epoch(store, "off", watched)
    _epoch(store, "off, in order", watched, shuffle=False)


def _entries() -> list[tuple[Path, os.stat_result]]:
    held = cache.current()
    assert held is not None
    return held.entries()


def _epoch(store: neurostore.Store, name: str, watched: Watched, *, shuffle: bool = True) -> None:
    gc.collect()
    watched.built.clear()
    watched.evicted.clear()
    streams = {
        "spikes": neurostore.Spikes(bin=0.02),
        "position": neurostore.Behaviour("position", rate=20),
    }
    window = neurostore.Window(history=0.5, horizon=0.5, stride=0.5)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        dataset = neurostore.Dataset(store, window=window, streams=streams)
        opened = time.perf_counter()
        loader = dataset.loader(BATCH, shuffle=shuffle)
        loader[0]
        first = time.perf_counter()
        kernels.load()
        speed = [_speed(loader, part) for part in range(3)]
    twice = sum(times > 1 for times in watched.built.values())
    assert not twice
    print(
        f"\n{name}: opened in {opened - began:.2f} s, first batch after {first - opened:.2f} s; "
        f"windows/s {', '.join(f'{one:,.0f}' for one in speed)} in three times {BATCHES} batches; "
        f"{sum(watched.built.values())} entries built, {twice} of them twice, "
        f"{sum(watched.evicted)} evicted; {_memory()}"
    )


def _speed(loader: neurostore.Loader, part: int) -> float:
    began = time.perf_counter()
    for number in range(part * BATCHES, (part + 1) * BATCHES):
        loader[number]
    return BATCH * BATCHES / (time.perf_counter() - began)


def _memory() -> str:
    import psutil

    own = psutil.Process()
    used = own.memory_info()
    anonymous = used.rss - getattr(used, "shared", 0)
    return f"{anonymous / 1e6:,.0f} MB of its own, {own.num_fds()} files open"


def bench_command_that_caches_300_sessions(tmp_path: Path) -> None:
    """`neurostore cache`, empty and again."""
    many(tmp_path / "lab")
    environment = os.environ | {"NEUROSTORE_CACHE": str(tmp_path / "own")}
    words = [sys.executable, "-m", "neurostore", "cache", str(tmp_path / "lab"), "--json"]
    for name in ("empty", "again"):
        began = time.perf_counter()
        subprocess.run(words, env=environment, check=True, capture_output=True)
        print(f"\nneurostore cache, {name}: {time.perf_counter() - began:.1f} s")
