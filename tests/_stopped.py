"""Trains in processes that end themselves, or are ended, at chosen points; run as a script."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
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
from neurostore.runs import Run, _files
from neurostore.train import _train, train


def at(point: dict[str, Any]) -> None:
    """Let this process meet a signal at the n-th call of a step."""
    place, name = {
        "learn": (_train.Fitting, "_learn"),
        "loss": (_train.Fitting, "_loss"),
        "replace": (_files.os, "replace"),
        "validate": (_train.Fitting, "_validate"),
        "record": (Run, "record"),
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
    if point is not None and point["step"] != "outside":
        at(point)
    resume = (Path(folder) / "run.json").is_file()
    try:
        opened = neurostore.open(store)
        run = train(load(recipe), opened, folder, resume=resume, checkpoint_seconds=0.0)
    except KeyboardInterrupt as asked:
        return f"KeyboardInterrupt: {asked}"
    return run.status


def main(store: str, recipe: str, plan: str) -> None:
    """By folder: one process a point, then one that ends by itself; says how each ended.

    All are forked from this one, which opens no store, so that the imports are paid once.
    """
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # imports most of torch's compiler
    for folder, points in json.loads(plan).items():
        for point in [*points, None]:
            print(json.dumps([folder, child(store, recipe, folder, point)]), flush=True)


def child(store: str, recipe: str, folder: str, point: dict[str, Any] | None) -> str:
    """How a process of its own ended that trained."""
    reads, writes = os.pipe()
    process = os.fork()
    if not process:
        torch.set_num_threads(1)
        os.write(writes, one(store, recipe, folder, point).encode())
        os._exit(0)
    os.close(writes)
    if point is not None and point["step"] == "outside":
        while not (Path(folder) / "checkpoint.json").is_file():
            time.sleep(0.002)
        os.kill(process, getattr(signal, point["signal"]))
    with os.fdopen(reads) as pipe:
        said = pipe.read()
    _, status = os.waitpid(process, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else said


if __name__ == "__main__":
    main(*sys.argv[1:])
