"""Windows made in device memory against the host: how many a second, how long training waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

import neurostore
from neurostore import Dataset
from neurostore.models.glm import GLM
from neurostore.simulate import simulate

UNITS, SPIKES, SECONDS, BIN = 300, 3_000_000, 600, 0.02
SIZES = (32, 256, 1024, 4096)
STEPS = 10
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is present"),
        ],
    ),
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """1 s windows at 20 ms of one session of 300 units, 5,000 spikes a second."""
    store = neurostore.create(tmp_path_factory.mktemp("bench") / "lab")
    made = simulate(0, units=UNITS, seconds=SECONDS, n_spikes=SPIKES)
    with store.transaction("one session of 300 units") as tx:
        tx.put(made.builder("d", "s"))
    window = neurostore.Window(history=0.5, horizon=0.5, stride=0.1)
    return Dataset(store, "d/s", window=window, streams={"spikes": neurostore.Spikes(bin=BIN)})


@cache
def wait(device: str) -> Callable[[], None]:
    """What returns when the device is done."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None


def seconds(what: Callable[[], object], device: str, times: int = 3) -> float:
    """Of the fastest of a few calls, after one that is not counted."""
    what()
    found = []
    for _ in range(times):
        wait(device)()
        began = time.perf_counter()
        what()
        wait(device)()
        found.append(time.perf_counter() - began)
    return min(found)


def copied(device: str, size: int = 1 << 28) -> float:
    """Bytes a second that a copy reads and writes on the device."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device)


def addressed(dataset: Dataset, places: np.ndarray) -> None:
    """Work out on the host where windows lie."""
    dataset.plan.address(dataset.plan.order(places, 1, 0), places, 1, 0)


def needed(dataset: Dataset, windows: int) -> int:
    """Bytes that windows cannot be made without: their spikes read, counts and reasons written."""
    counts = windows * UNITS * sum(dataset.steps("spikes"))
    return windows * SPIKES // SECONDS * 4 + counts * (4 + 1 + 1)


@pytest.mark.parametrize("device", DEVICES)
def bench_windows_made_in_device_memory(dataset: Dataset, device: str) -> None:
    """By size of the batch: windows a second, and bytes a second against those of a copy."""
    began = time.perf_counter()
    moved = dataset.to(device)
    wait(device)()
    took = time.perf_counter() - began
    size = sum(sum(own.values()) for own in moved.nbytes.values())
    most = copied(device)
    print(
        f"\n{device}: {size / SPIKES:.2f} bytes a spike, moved in {took:.2f} s; "
        f"a copy moves {most / 1e9:,.1f} GB/s"
    )
    for windows in SIZES:
        places = np.arange(windows)
        host = seconds(lambda p=places: dataset.batch(p, seed=1).to(device), device)
        own = seconds(lambda p=places: moved.batch(p, seed=1), device)
        address = seconds(lambda p=places: addressed(dataset, p), "cpu", times=10)
        share = needed(dataset, windows) / own / most
        print(
            f"  batches of {windows:>5,}: host {windows / host:>10,.0f} windows/s, device "
            f"{windows / own:>12,.0f} (x{host / own:.1f}; {share:.1%} of a copy's bandwidth); "
            f"addresses {address * 1e6:,.0f} us, {address / own:.1%} of it"
        )


@pytest.mark.parametrize("device", DEVICES)
def bench_share_of_a_training_step_spent_waiting(dataset: Dataset, device: str) -> None:
    """Steps of the bundled GLM on batches of 256, from the host and from device memory."""
    for name, source in (("host", dataset), ("device", dataset.to(device))):
        model = GLM(UNITS, BIN, boxcars=(0.02, 0.04, 0.1, 0.2, 0.5)).to(device)
        model.start(torch.full((UNITS,), 0.3, device=device))
        optimiser = torch.optim.Adam(model.parameters())

        def step(batch: neurostore.Batch, model=model, optimiser=optimiser) -> None:
            optimiser.zero_grad()
            output = model(batch.past("spikes"))
            mask = batch.future_mask("spikes")
            model.loss(output, batch.future("spikes"), mask).backward()
            optimiser.step()

        def read(number: int, source=source) -> neurostore.Batch:
            return source.batch(np.arange(256) + 256 * number, seed=0).to(device)

        waited = seconds(lambda read=read: [read(k) for k in range(STEPS)], device) / STEPS
        batch = read(0)
        worked = seconds(lambda step=step, b=batch: [step(b) for _ in range(STEPS)], device) / STEPS
        print(
            f"\n{device}, batches from the {name}: {waited * 1e3:.2f} ms for data, "
            f"{worked * 1e3:.2f} ms for the step: {waited / (waited + worked):.1%} is waiting"
        )
