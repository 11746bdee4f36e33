"""Trains in processes that end themselves, or are ended, at chosen points; run as a script."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import _networks  # noqa: F401  (what every process would import anew is imported before the fork)
import lightning_fabric  # noqa: F401
import pandas  # noqa: F401
import safetensors.torch  # noqa: F401
import torch

import neurostore
import neurostore.sample
import neurostore.splits
import neurostore.store
from neurostore.recipes import load
from neurostore.runs import _files
from neurostore.train import _train, train


def at(point: dict[str, Any]) -> None:
    """Let this process meet a signal at the n-th call of a step."""
    place, name = {
        "learn": (_train._Fitting, "_learn"),
        "loss": (_train._Fitting, "_loss"),
        "replace": (_files.os, "replace"),
        "validate": (_train._Fitting, "_validate"),
    }[point["step"]]
    inner, calls = getattr(place, name), 0

    def outer(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == point["call"]:
            os.kill(os.getpid(), getattr(signal, point["signal"]))
        return inner(*arguments, **named)

    setattr(place, name, outer)


def one(store: str, recipe: str, folder: str, point: dict[str, Any] | None) -> str:
    """Train once, or go on; says how it ended."""
    if point is not None:
        at(point)
    resume = (Path(folder) / "run.json").is_file()
    try:
        opened = neurostore.open(store)
        run = train(load(recipe), opened, folder, resume=resume, checkpoint_seconds=0.0)
    except KeyboardInterrupt as asked:
        return f"KeyboardInterrupt: {asked}"
    return run.status


def main(store: str, recipe: str, folder: str, points: str) -> None:
    """One process a point, then one that ends by itself; each is forked before a store is open."""
    for point in [*json.loads(points), None]:
        child = os.fork()
        if not child:
            torch.set_num_threads(1)
            print(one(store, recipe, folder, point), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            print(signal.Signals(os.WTERMSIG(status)).name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
