"""31 million spikes of 302 units from NWB into a store, beside what the machine can do at best."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import neurostore
from neurostore.simulate import simulate, write_nwb

INGEST = """
import json, resource, sys, time
import neurostore
begin = time.perf_counter()
store = neurostore.create({store!r})
report = neurostore.ingest(store, [{file!r}], "bench")
seconds = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([seconds, peak, report.outcomes[0].tables["spikes"]]))
"""


def bench_ingest_of_31_million_spikes(tmp_path: Path) -> None:
    """Prints seconds, peak memory, bytes a spike, and the ratio to sorting and copying alone."""
    made = simulate(0, units=302, seconds=5382.0, n_spikes=31_100_000)
    file = write_nwb(made, tmp_path / "a.nwb", session_id="a")
    begin = time.perf_counter()
    np.sort(np.rint(made.times * 30_000).astype(np.int64))
    floor = time.perf_counter() - begin
    del made
    code = INGEST.format(store=str(tmp_path / "lab"), file=str(file))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    seconds, peak, spikes = json.loads(done.stdout)
    size = sum(path.stat().st_size for path in (tmp_path / "lab").rglob("*") if path.is_file())
    print(
        f"\ningest {spikes:,} spikes: {seconds:.1f} s ({seconds / floor:.1f} x rounding and "
        f"sorting alone), peak {peak / 1e9:.2f} GB, {size / spikes:.2f} bytes a spike on disk "
        f"(file {file.stat().st_size / spikes:.2f})"
    )
    assert seconds < 40
    assert peak < 3e9
    assert size / spikes <= 2


def bench_arrays_of_31_million_spikes(tmp_path: Path) -> None:
    """From spikes in order of time, with the unit of each, to a commit; then its window cache.

    Prints medians of five rounds: spikes a second, seconds of the build, and the slowest of all
    units' spike times, read from that cache.
    """
    made = simulate(0, units=302, seconds=5382.0, n_spikes=31_100_000)
    unit = np.repeat(np.arange(302, dtype=np.int32), np.diff(made.stops, prepend=0))
    order = np.argsort(made.times, kind="stable")
    times, unit = made.times[order], unit[order]
    del made, order
    ids = [str(row) for row in range(302)]
    taken: list[tuple[float, float, float]] = []
    for round in range(5):
        begin = time.perf_counter()
        store = neurostore.create(tmp_path / f"lab{round}")
        builder = neurostore.SessionBuilder(dataset="d", session=f"s{round}")
        builder.add_units(neurostore.Interleaved(ids, times, unit))
        with store.transaction("from arrays") as tx:
            tx.put(builder)
        stored = time.perf_counter()
        neurostore.cache.use(tmp_path / f"cache{round}")
        session = store.session(f"d/s{round}")
        packed = session.packed
        built = time.perf_counter()
        assert packed is not None
        slowest = 0.0
        for id in ids:
            session.spike_times(id)
            began = time.perf_counter()
            session.spike_times(id)
            slowest = max(slowest, time.perf_counter() - began)
        taken.append((stored - begin, built - stored, slowest))
        shutil.rmtree(tmp_path / f"lab{round}")
    wrote, built, slowest = map(statistics.median, zip(*taken, strict=True))
    print(
        f"\n{len(times):,} spikes from arrays: {len(times) / wrote / 1e6:.1f} M a second (first "
        f"{len(times) / taken[0][0] / 1e6:.1f}); window cache built in {built:.2f} s; slowest "
        f"spike_times of a unit {slowest * 1e3:.1f} ms"
    )
