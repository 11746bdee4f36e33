"""A store with every kind of table, and datasets of it that take every way of reading there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _sampled import three

import neurostore
from neurostore.sample import (
    Activity,
    Behaviour,
    Dataset,
    Mask,
    Normaliser,
    Presentation,
    SpikeEvents,
    Spikes,
    Staggered,
    TimeAligned,
    Trials,
    UnitDropout,
    Window,
)
from neurostore.splits import interleaved_blocks
from neurostore.store import Stimulus, Store

FRAMES = 30


def store(folder: Path) -> Store:
    """Three sessions that lack different things; dense tables of 1 MB and more are mapped."""
    rng = np.random.default_rng(3)
    made = neurostore.create(folder)
    pictures = rng.integers(0, 256, (FRAMES, 4, 6)).astype(np.uint8)
    clip = rng.normal(size=(FRAMES, 5)).astype(np.float16)
    with made.transaction("three sessions") as tx:
        tx.put(Stimulus("movie", pictures, embeddings={"clip": clip}))
        for one in three():
            builder = one.builder()
            if one.id != "demo/c":
                begin = np.arange(0, 12, 0.4)
                rows = np.r_[-1, rng.permutation(FRAMES)[: len(begin) - 1]]
                builder.add_presentations("movie", begin, begin + 0.35, rows, stimulus="movie")
            if one.id != "demo/b":
                wide = 700 if one.id == "demo/a" else 3
                values = rng.normal(size=(1000, wide)).astype(np.float32)
                builder.add_activity("voltage", values, start=0, rate=50, units="mV")
                builder.add_behaviour("wheel", values[:, :2], start=0, rate=50, units="cm")
            tx.put(builder)
    lines = [made.session(id).timeline() for id in ("demo/a", "demo/b", "demo/c")]
    split = interleaved_blocks("blocks", lines, block=3, ratios={"train": 2, "test": 1})
    with made.transaction("a split") as tx:
        tx.put(split)
    return made


def datasets(of: Store, *names: str) -> dict[str, Dataset]:
    """By what is particular to them; all without names."""
    free = Window(0.6, 0.3, stride=0.2)
    position = Behaviour("position", rate=50, max_gap=0.1)
    made: dict[str, dict[str, Any]] = {
        "plain": {
            "sessions": "n_units > 1",
            "units": "region = 'CA1' OR n_spikes > 250",
            "window": free,
            "streams": {
                "spikes": Spikes(bin=0.02),
                "events": SpikeEvents(),
                "position": position,
                "wheel": Behaviour("wheel", rate=100),
                "trials": Trials(("side", "score")),
                "frame": Presentation("movie", rate=30),
            },
            "dropout": UnitDropout(1, 2, 4),
        },
        "masked": {
            "window": free,
            "streams": {
                "spikes": Spikes(
                    bin="1/50",
                    mask=(Mask("bins", 0.3), Mask("spans", 0.4, 0.06)),
                    units_in="region <> 'CA3' OR region = ''",
                    units_out=("a1", "b0", "c2"),
                )
            },
        },
        "around": {
            "sessions": ["demo/a"],
            "window": Window(0.5, 0.25, around="trials.cue_time", where="side = 'left'"),
            "streams": {"spikes": Spikes(0.05), "trials": Trials(("side", "cue_time"))},
        },
        "before": {
            "window": Window(0.2, 0.1, 0.1, "trials.start", 0.5, 1.0),
            "streams": {"spikes": Spikes(0.05)},
        },
        "shown": {
            "window": free,
            "streams": {
                "picture": Presentation("movie", "stimulus", rate=10, lag=0.1),
                "clip": Presentation("movie", "clip", bin=0.05),
            },
        },
        "staggered": {
            "sessions": ["demo/a", "demo/c"],
            "window": Window(0.1, 0.4, 0.2),
            "streams": {"voltage": Activity("voltage", multiples=(1, 2))},
            "acquisition": Staggered(5, 3),
        },
        "rows": {
            "sessions": ["demo/a", "demo/c"],
            "window": Window(0.4, 0.4, 0.2),
            "streams": {
                "voltage": Activity("voltage"),
                "drive": Activity("voltage", steps=30, frequency="interpolate"),
            },
            "acquisition": TimeAligned(5),
        },
        "train": {
            "window": free,
            "streams": {"spikes": Spikes(0.02), "wheel": Behaviour("wheel", rate=50)},
            "split": "blocks/train",
        },
        "test": {
            "sessions": ["demo/a", "demo/c"],
            "window": free,
            "streams": {"spikes": Spikes(0.02), "position": position},
            "split": "blocks/test",
            "history_may_cross": True,
            "missing": "refuse",
        },
        "causal": {
            "window": free,
            "streams": {"spikes": Spikes(0.1), "wheel": Behaviour("wheel", rate=50, max_gap=0.1)},
            "causal": True,
        },
    }
    return {name: Dataset(of, **said) for name, said in made.items() if name in (names or made)}


def normalised(of: Store) -> tuple[Dataset, Normaliser]:
    """A dataset with a transform, which is code."""
    plain = datasets(of, "train")["train"]
    fitted = Normaliser.fit(plain, "wheel")
    said = {name: one for name, one in plain.made_of().items() if name != "sessions"}
    return Dataset(of, transform=fitted, **said), fitted
