"""Aligned and staggered observations of a dense matrix, against torch in memory and tensorstore.

A batch is 32 samples of 6 observations of 13,741 channels, 20 steps apart. It needs torch and
tensorstore; `python tests/benchmarks/bench_modes.py` runs it where pytest is not installed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from neurostore.kernels._dense import frames, gather_rows, gather_staggered

ROWS, CHANNELS, EVERY, MULTIPLES, BATCH, ROUNDS = 8192, 13_741, 20, 5, 32, 15
OFFSETS = np.arange(MULTIPLES + 1) * EVERY

Mode = Callable[[np.ndarray], Any]


def matrix(folder: Path) -> np.ndarray:
    """A row-major file of the matrix, as a memory map."""
    made = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (ROWS, CHANNELS))
    rng = np.random.default_rng(7)
    for first in range(0, ROWS, 512):
        made[first : first + 512] = rng.standard_normal((512, CHANNELS), np.float32)
    made.flush()
    return np.asarray(np.load(folder / "x.npy", mmap_mode="r"))


def ours(table: np.ndarray, phases: np.ndarray) -> dict[str, Mode]:
    """Ours, from the memory map; each with the reason of every value."""
    kept, place, nothing = frames(table, EVERY, phases), np.arange(BATCH), np.zeros(0, np.uint8)

    def rows(source: np.ndarray, row: np.ndarray) -> np.ndarray:
        out = np.empty((*row.shape, CHANNELS), np.float32)
        why = np.empty(out.shape, np.uint8)
        lost = np.zeros(row.shape, nothing.dtype)
        gather_rows(source, row, lost, 4, place, out, why)
        return out

    def dense(start: np.ndarray) -> np.ndarray:
        row = (start[:, None] + OFFSETS).ravel()
        out = np.empty((len(row), CHANNELS), np.float32)
        gather_staggered(table, row, phases, out)
        return out.reshape(BATCH, -1, CHANNELS)

    return {
        "ours aligned": lambda start: rows(table, start[:, None] + OFFSETS),
        "ours staggered": lambda start: rows(kept, (start[:, None] + OFFSETS) // EVERY),
        "ours staggered, no frames": dense,
    }


def peers(folder: Path, table: np.ndarray, phases: np.ndarray) -> dict[str, Mode]:
    """Fancy indexing of a tensor in memory; a chunked file with a row a chunk, its best layout."""
    import tensorstore
    import torch

    torch.set_num_threads(1)
    inside, phase = torch.from_numpy(np.array(table)), torch.from_numpy(phases)
    channel = torch.arange(CHANNELS)
    metadata = {
        "shape": [ROWS, CHANNELS],
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, CHANNELS]}},
    }
    place = {"driver": "file", "path": f"{folder}/rows/"}
    spec = {"driver": "zarr3", "kvstore": place, "metadata": metadata}
    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": 256_000_000}})
    chunked = tensorstore.open(spec, create=True, context=context).result()
    for first in range(0, ROWS, 512):
        chunked[first : first + 512].write(table[first : first + 512]).result()

    def torch_staggered(start: np.ndarray) -> Any:
        at = torch.from_numpy(start)[:, None] + phase[None, :]
        return torch.stack([inside[at + int(k), channel] for k in OFFSETS], dim=1)

    def chunked_aligned(start: np.ndarray) -> Any:
        out = np.empty((BATCH, len(OFFSETS), CHANNELS), np.float32)
        for window, s in enumerate(start.tolist()):
            out[window] = chunked[s : s + EVERY * MULTIPLES + 1 : EVERY].read().result()
        return torch.from_numpy(out)

    def chunked_staggered(start: np.ndarray) -> Any:
        out = np.empty((BATCH, len(OFFSETS), CHANNELS), np.float32)
        every = np.arange(CHANNELS)
        for window, s in enumerate(start.tolist()):
            read = chunked[s : s + EVERY * (MULTIPLES + 1)].read().result()
            for step, offset in enumerate(OFFSETS):
                out[window, step] = read[phases + offset, every]
        return torch.from_numpy(out)

    return {
        "torch aligned": lambda start: torch.stack(
            [inside[torch.from_numpy(start + k)] for k in OFFSETS], dim=1
        ),
        "torch staggered": torch_staggered,
        "tensorstore aligned": chunked_aligned,
        "tensorstore staggered": chunked_staggered,
    }


def bench_aligned_and_staggered_samples(tmp_path: Path) -> None:
    """Samples per second at best, in rounds that go back and forth, and the ratios."""
    try:
        import tensorstore  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        print(f"\nskipped: {error.name} is not installed")
        return
    rng = np.random.default_rng(0)
    phases = rng.integers(0, EVERY, CHANNELS)
    table = matrix(tmp_path)
    began = time.perf_counter()
    frames(table, EVERY, phases)
    built = time.perf_counter() - began
    modes = ours(table, phases) | peers(tmp_path, table, phases)
    found: dict[str, list[float]] = {name: [] for name in modes}
    last = (ROWS - EVERY * (MULTIPLES + 2)) // EVERY
    for number in range(ROUNDS + 1):
        start = rng.integers(0, last, BATCH) * EVERY
        given: dict[str, np.ndarray] = {}
        for name, mode in list(modes.items())[:: 1 if number % 2 else -1]:
            began = time.perf_counter()
            given[name] = np.asarray(mode(start))
            if number:  # the first compiles and warms
                found[name].append(BATCH / (time.perf_counter() - began))
        for kind in ("aligned", "staggered"):
            alike = [one for name, one in given.items() if kind in name]
            assert all(np.array_equal(alike[0], one) for one in alike[1:]), kind
    rate = {name: max(each) for name, each in found.items()}
    for name, each in rate.items():
        print(f"\n{name:<26}{each:>10,.0f} samples/s", end="")
    print(
        f"\naligned / torch in memory {rate['ours aligned'] / rate['torch aligned']:.2f}; "
        f"staggered / tensorstore {rate['ours staggered'] / rate['tensorstore staggered']:.1f}, "
        f"/ torch {rate['ours staggered'] / rate['torch staggered']:.1f}, "
        f"/ ours aligned {rate['ours staggered'] / rate['ours aligned']:.2f}; "
        f"frames built in {built:.2f} s"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        bench_aligned_and_staggered_samples(Path(folder))
