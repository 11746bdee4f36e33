"""A small recording whose units share a state, and a small recipe: a run of it takes a second.

Blocks of 10 s begin with the first spike, at 1 s; of every eight, five are training, one is
validation and two are test. Each block loses its first half second.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import neurostore
import neurostore.evaluate
from neurostore.recipes import Recipe, load
from neurostore.store import Store

FIRST, LAST, BLOCK, GUARD = 1.0, 165.9, 10.0, 0.5
BIN, HISTORY, HORIZON = Fraction(1, 10), Fraction(1, 2), Fraction(1, 2)
LABELS = ["train"] * 5 + ["validation"] + ["test"] * 2
SESSION = "sim/a"

RECIPE = """
title = "Small"
architecture = "neurostore.models.glm:GLM"
[arguments]
boxcars = [0.1, 0.5]
[window]
history = 0.5
horizon = 0.5
stride = 0.1
[streams.spikes]
kind = "Spikes"
bin = 0.1
[split]
method = "interleaved_blocks"
block = 10
guard = 0.5
ratios = { train = 5, validation = 1, test = 2 }
[train]
epochs = 2
batch_size = 128
learning_rate = 0.01
"""

Spikes = dict[str, NDArray[np.float64]]


def blocks(label: str, guard: bool = False) -> list[tuple[float, float]]:
    """Seconds of the blocks of a label, or of the guards in front of them."""
    starts = [FIRST + BLOCK * k for k in range(16) if LABELS[k % 8] == label]
    if guard:
        return [(start, start + GUARD) for start in starts]
    return [(start + GUARD, start + BLOCK) for start in starts]


def spikes(seed: int = 0, units: int = 4) -> Spikes:
    """Units that are fast or slow together, one with five spikes, one that fires in test alone."""
    rng = np.random.default_rng(seed)
    fast = np.repeat(rng.random(84) < 0.4, 20)  # states of 2 s on a grid of 0.1 s
    made = {}
    for unit in range(units):
        rate = np.where(fast, 25.0, 4.0 + unit)
        counts = rng.poisson(rate / 10)
        times = (np.repeat(np.arange(len(fast)), counts) + rng.random(counts.sum())) / 10
        made[f"u{unit}"] = np.sort(times[(times > FIRST) & (times < LAST)])
    made["u0"] = np.concatenate([[FIRST], made["u0"], [LAST]])
    made["rare"] = np.array([10.0, 30.0, 50.0, 70.0, 90.0])
    late = [np.arange(start + 0.05, stop, 0.3) for start, stop in blocks("test")]
    made["late"] = np.concatenate(late)
    return made


def moved(times: Spikes, where: list[tuple[float, float]], seed: int = 1) -> Spikes:
    """Other spikes inside of some time, about half as many, and the same outside of it."""
    rng, made = np.random.default_rng(seed), {}
    for unit, old in times.items():
        inside = np.zeros(len(old), bool)
        for start, stop in where:
            inside |= (old > start) & (old < stop)
        drawn = [rng.uniform(start, stop, 1 + inside.sum() // 20) for start, stop in where]
        made[unit] = np.sort(np.concatenate([old[~inside], *drawn]))
    return made


def builder(
    times: Mapping[str, NDArray[np.float64]], session: str = "a"
) -> neurostore.SessionBuilder:
    made = neurostore.SessionBuilder(dataset="sim", session=session, rate=30_000)
    made.add_units(dict(times))
    return made


def store(folder: Path, times: Mapping[str, NDArray[np.float64]]) -> Store:
    made = neurostore.create(folder)
    with made.transaction("a session") as tx:
        tx.put(builder(times))
    return made


def file(folder: Path, text: str = RECIPE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path


def recipe(folder: Path, *words: str) -> Recipe:
    return load(file(folder), words)


@contextmanager
def quick() -> Iterator[None]:
    """One thread, and a tenth of the draws of an interval."""
    module = sys.modules["neurostore.evaluate._scores"]
    threads, draws = torch.get_num_threads(), module.DRAWS
    torch.set_num_threads(1)
    module.DRAWS = 200
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        module.DRAWS = draws
