"""Histograms of all units around a thousand events, beside numpy's searchsorted and bincount."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np

import neurostore
from neurostore.simulate import simulate
from neurostore.store import psth

UNITS, SECONDS, EVENTS, BINS = 302, 5382.0, 1000, 75


def by_numpy(times: np.ndarray, unit: np.ndarray, on: np.ndarray) -> np.ndarray:
    """Rates (unit, bin) in Hz of spikes in time order, by floats: no masks, no spread."""
    first, last = np.searchsorted(times, on - 0.5), np.searchsorted(times, on + 1.0)
    total = np.zeros(BINS * UNITS, dtype=np.int64)
    for event, low, high in zip(on, first, last, strict=True):
        bins = ((times[low:high] - (event - 0.5)) * 50).astype(np.int64)
        np.minimum(bins, BINS - 1, out=bins)
        total += np.bincount(bins * UNITS + unit[low:high], minlength=BINS * UNITS)
    return total.reshape(BINS, UNITS).T / (len(on) * 0.02)


def bench_histograms_around_a_thousand_events(tmp_path: Path) -> None:
    """Warm, taking turns: medians of wall and CPU seconds, and the ratios to numpy."""
    made = simulate(0, units=UNITS, seconds=SECONDS, n_spikes=30_600_000)
    store = neurostore.create(tmp_path / "lab")
    with store.transaction("one session of 302 units") as tx:
        tx.put(made.builder("d", "s"))
    rows = np.repeat(np.arange(UNITS, dtype=np.int32), np.diff(made.stops, prepend=0))
    order = np.argsort(made.times, kind="stable")
    times, unit = made.times[order], rows[order]
    del made, rows, order
    on = np.sort(np.random.default_rng(0).uniform(1, SECONDS - 2, EVENTS))
    session = store.session("d/s")
    known, found = by_numpy(times, unit, on), psth(session, on)
    spread = np.abs(found.rate_hz.values - known).max()
    taken: dict[str, list[tuple[float, float]]] = {"numpy": [], "psth": []}
    for _ in range(15):
        for name in taken:
            began, cpu = time.perf_counter(), time.process_time()
            by_numpy(times, unit, on) if name == "numpy" else psth(session, on)
            taken[name].append((time.perf_counter() - began, time.process_time() - cpu))
    (wall, cpu), (own, own_cpu) = (
        map(statistics.median, zip(*taken[name], strict=True)) for name in ("numpy", "psth")
    )
    print(
        f"\n{EVENTS} events, {UNITS} units, {BINS} bins: {own * 1e3:.0f} ms (CPU "
        f"{own_cpu * 1e3:.0f}); numpy {wall * 1e3:.0f} ({cpu * 1e3:.0f}), ratio {wall / own:.1f} "
        f"({cpu / own_cpu:.1f}); rates apart by at most {spread:.2f} Hz (floats at edges)"
    )
