"""31 million spikes of 302 units from NWB into a store, beside what the machine can do at best."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

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
