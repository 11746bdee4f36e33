"""Both gates over 31 million spikes: seconds a pass, and memory beyond the table."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np

from neurostore.clocks import Clock
from neurostore.schemas import Column, Table, validate
from neurostore.store import tables

N, UNITS = 31_000_000, 302


def spikes(bad: bool) -> dict[str, Table]:
    rng = np.random.default_rng(0)
    ticks = np.cumsum(rng.integers(0, 10, N))
    if bad:
        ticks = ticks[::-1].copy()
    rows = rng.integers(0, UNITS, N).astype(np.uint16)
    block, where = tables.blocks(np.sort(ticks), Clock(30_000))
    units = {
        "unit": Column(("unit",), np.array([f"u{k}" for k in range(UNITS)], "T")),
        "n_spikes": Column(("unit",), np.bincount(rows, minlength=UNITS), {"units": "1"}),
    }
    columns = {
        "time": Column(("spike",), ticks, {"units": "tick"}),
        "unit": Column(("spike",), rows),
        "block": Column(("block",), block, {"units": "1"}),
    }
    return {
        "spikes": Table("spikes", "spikes/v1", columns, {"block": where}),
        "units": Table("units", "units/v1", units),
    }


def bench_validation_of_31_million_spikes() -> None:
    """Prints seconds and peak memory of both tables, all rows right and all rows wrong."""
    for bad in (False, True):
        made = spikes(bad)
        size = sum(np.asarray(c.values[:]).nbytes for c in made["spikes"].columns.values())
        column = made["spikes"].columns["time"].values
        begin = time.perf_counter()
        bool((np.asarray(column[1:]) < np.asarray(column[:-1])).any())
        floor = time.perf_counter() - begin
        seconds, found = {}, []
        for name, table in made.items():
            begin = time.perf_counter()
            found += validate(table, made)
            seconds[name] = time.perf_counter() - begin
        tracemalloc.start()
        for table in made.values():
            validate(table, made)
        peak = tracemalloc.get_traced_memory()[1] / size
        tracemalloc.stop()
        print(
            f"\nvalidate {N:,} spikes, {sum(one.count for one in found):,} bad rows: spikes "
            f"{seconds['spikes']:.2f} s, units {seconds['units']:.2f} s "
            f"({seconds['spikes'] / floor:.1f} x one comparison of neighbours), peak "
            f"{peak:.2f} x the table"
        )
        assert bool(found) is bad
        assert peak < 1.5
        assert max(seconds.values()) < 5
