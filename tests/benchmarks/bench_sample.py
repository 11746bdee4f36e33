"""Windows per second, alone and from workers; the first batch, cold; how long a plan takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import neurostore
from neurostore.sample.plan import permuted
from neurostore.simulate import simulate

BATCH, BATCHES = 64, 40


def best(what: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of a few calls."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        what()
        found.append(time.perf_counter() - began)
    return min(found)


def bench_windows_of_a_session_of_300_units(tmp_path: Path) -> None:
    """1 s windows at 20 ms: batches through the dataset, against the counts of a session alone."""
    store = neurostore.create(tmp_path / "lab")
    made = simulate(0, units=300, seconds=600, n_spikes=3_000_000)
    with store.transaction("one session of 300 units") as tx:
        tx.put(made.builder("d", "s"))
    window = neurostore.Window(history=0.5, horizon=0.5, stride=0.1)
    streams = {"spikes": neurostore.Spikes(bin=0.02)}

    def fresh() -> neurostore.Dataset:
        return neurostore.Dataset(store, "d/s", window=window, streams=streams)

    torch.set_num_threads(1)  # and it is imported before anything is timed
    began = time.perf_counter()
    fresh().sample(BATCH)
    cold = time.perf_counter() - began
    dataset = fresh()

    def read(shuffle: bool) -> None:
        loader = dataset.loader(BATCH, shuffle=shuffle)
        for number in range(BATCHES):
            loader[number]

    session = store.session("d/s")
    starts = np.random.default_rng(0).uniform(0, 590, 200)

    def counts() -> None:
        for start in starts:
            session.counts(round(float(start), 3), round(float(start), 3) + 1, bin=0.02)

    read(True)
    shuffled, ordered = (BATCH * BATCHES / best(lambda s=s: read(s)) for s in (True, False))
    alone = len(starts) / best(counts)
    print(
        f"\n300 units, 5,000 spikes/s, 1 s windows of 50 bins: shuffled {shuffled:,.0f} windows/s, "
        f"in order {ordered:,.0f}; session.counts {alone:,.0f}, ratio {shuffled / alone:.1f}; "
        f"first batch of {BATCH} with opening {cold * 1000:.0f} ms"
    )


def bench_order_of_a_billion_windows() -> None:
    """A place of an epoch costs the same wherever it is."""
    places = np.arange(512) + 10**9 // 2
    seconds = best(lambda: permuted(places, 10**9, 0, 1))
    whole = best(lambda: np.random.default_rng(0).permutation(10**7))
    print(
        f"\n512 places of 10^9 windows: {seconds * 1e6:,.0f} us; "
        f"numpy, a permutation of 10^7: {whole:.2f} s"
    )
