"""What other processes do to a window cache in the tests: build, race, die."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np

from neurostore.cache import Cache, Writer

ROWS = 120_000
SHAPES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "large": (np.int64, (2 * ROWS,)),
    "table": (np.float32, (301, 7)),
    "none": (np.int16, (0, 4)),
    "flag": (np.bool_, (5,)),
}
META = {"named": "ü", "list": [1, 2.5, None]}


def values(key: str) -> dict[str, np.ndarray]:
    """What an entry of this key holds."""
    rng = np.random.default_rng(sum(map(ord, key)))
    return {
        name: rng.integers(0, 2 if dtype is np.bool_ else 1000, shape).astype(dtype)
        for name, (dtype, shape) in SHAPES.items()
    }


def fill(writer: Writer, key: str) -> None:
    for name, array in values(key).items():
        for first in range(0, len(array), 50_000):
            writer.arrays[name][first : first + 50_000] = array[first : first + 50_000]


def build(cache: Cache, key: str):
    return cache.build(key, SHAPES, lambda writer: fill(writer, key), META)


def build_for_ever(root: Path, started: Any) -> None:
    """Build one entry after the other, each key again once it is evicted."""
    cache = Cache(root, bound=6_000_000)
    started.set()
    for turn in range(10_000):
        build(cache, f"k{turn % 7}")


def race(root: Path, log: Path, barrier: Any) -> None:
    """Build the same entry as others, at once; a line in the log for each filling."""
    cache = Cache(root, bound=10**9)

    def slowly(writer: Writer) -> None:
        with log.open("a") as lines:
            lines.write("filled\n")
        fill(writer, "same")

    barrier.wait(30)
    entry = cache.build("same", SHAPES, slowly, META)
    entry.check("large")
    assert np.array_equal(entry.arrays["large"], values("same")["large"])


def build_on_a_small_disk(root: Path, said: Any) -> None:
    """With files limited to a size below the entry's, as a full disk would."""
    import warnings

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        entry = build(Cache(root, bound=10**9), "k")
    said.put((entry is None, [str(one.message) for one in caught], [*map(str, root.iterdir())]))


def read(entry: Any) -> None:
    """Verify and read an entry that came by pickle or by fork."""
    entry.check("large")
    assert np.array_equal(entry.arrays["large"], values(entry.key)["large"])
