"""Dense activity goes in from an HDF5 file four times larger than the process may grow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import neurostore

LIMIT = 512 << 20
ROWS, CHANNELS = 32_768, 8_192  # float64: 2 GiB

WRITER = """
import resource, sys
import h5py, neurostore
resource.setrlimit(resource.RLIMIT_DATA, ({limit}, {limit}))
store = neurostore.create({store!r})
builder = neurostore.SessionBuilder(dataset="dense", session="one")
with h5py.File({file!r}) as file:
    builder.add_activity("voltage", file["voltage"], start=0, rate=50, units="V")
    with store.transaction("dense") as tx:
        tx.put(builder)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


@pytest.mark.slow
def test_activity_four_times_the_memory_limit_goes_in_from_hdf5(tmp_path: Path):
    assert ROWS * CHANNELS * 8 == 4 * LIMIT
    with h5py.File(tmp_path / "dense.h5", "w") as file:
        data = file.create_dataset("voltage", (ROWS, CHANNELS), "f8", chunks=(64, CHANNELS))
        for row in range(0, ROWS, 1024):  # the rest are zeros that the file does not hold
            data[row] = np.arange(CHANNELS) + row
    code = WRITER.format(limit=LIMIT, store=str(tmp_path / "lab"), file=str(tmp_path / "dense.h5"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    value = neurostore.open(tmp_path / "lab").session("dense/one").activity["voltage"]["value"]
    assert value.shape == (ROWS, CHANNELS)
    np.testing.assert_array_equal(value[31 * 1024].values, np.arange(CHANNELS) + 31 * 1024)
    assert not value[31 * 1024 + 1].values.any()


def test_the_limit_is_one_that_the_array_itself_would_break(tmp_path: Path):
    code = WRITER.split("store =")[0].format(limit=LIMIT) + (
        f"import numpy as np\nnp.zeros(({ROWS}, {CHANNELS}))[:] = 1"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "MemoryError" in done.stderr
