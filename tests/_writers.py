"""Several processes at one store: what they do, and how they are begun, waited for and ended."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import neurostore
from neurostore.clocks import Clock
from neurostore.store import Span, tables

try:  # one warm process that holds no store forks the others: the imports are paid once
    CONTEXT: Any = multiprocessing.get_context("forkserver")
    CONTEXT.set_forkserver_preload(
        ["neurostore.store._versions", "neurostore.ingest.nwb", "pandas", "zarr"]
    )
except ValueError:
    CONTEXT = multiprocessing.get_context("spawn")


def session(id: str, seed: int = 0, spikes: int = 2000) -> neurostore.SessionBuilder:
    """A small session with real chunk files (more than 512 bytes) of spikes and of a wheel."""
    rng = np.random.default_rng(seed)
    dataset, _, name = id.partition("/")
    builder = neurostore.SessionBuilder(dataset=dataset, session=name, subject="mouse")
    times = {f"u{k}": np.sort(rng.uniform(0, 100, spikes // 2)) for k in range(2)}
    builder.add_units(times, region=["CA1", "CA3"])
    builder.add_behaviour("wheel", rng.normal(size=500), start=0, rate=5, units="rad")
    return builder


def wheel(seed: int, name: str = "wheel", span: Span | None = None) -> neurostore.Table:
    """Another table `behaviour/<name>` for such a session, which counts microseconds."""
    value = np.random.default_rng(seed).normal(size=400)
    return tables.behaviour(name, value, span or Span(Clock()), start=0, rate=5, units="rad")


def together(*tasks: tuple[Any, ...], seconds: float = 120) -> list[Any]:
    """Run each (function, argument, ...) in a process of its own, all at once.

    A function is called with a barrier ahead of its arguments. Gives what each one returned, or
    the `NeurostoreError` it raised; fails where one ends otherwise or takes too long.
    """
    barrier = CONTEXT.Barrier(len(tasks))
    ends, processes = [], []
    try:
        for function, *arguments in tasks:
            ours, theirs = CONTEXT.Pipe(duplex=False)
            process = CONTEXT.Process(target=_report, args=(theirs, barrier, function, arguments))
            process.start()
            theirs.close()
            ends.append(ours)
            processes.append(process)
        deadline = time.monotonic() + seconds
        return [_result(end, deadline) for end in ends]
    finally:
        for end in ends:
            end.close()
        for process in processes:
            end_process(process)


def _report(
    end: Connection, barrier: Any, function: Callable[..., Any], arguments: Sequence[Any]
) -> None:
    try:
        end.send(function(barrier, *arguments))
    except neurostore.NeurostoreError as error:
        end.send(error)
    end.close()


def _result(end: Connection, deadline: float) -> Any:
    assert end.poll(max(0.0, deadline - time.monotonic())), "a process did not finish in time"
    return end.recv()


def end_process(process: Any) -> None:
    """Wait a little for a process, else kill it."""
    process.join(5)
    if process.is_alive():
        process.kill()
        process.join(30)
    process.close()


# ---- what the processes do

Options: TypeAlias = dict[str, Any] | None
"""Storage options."""


def commit_sessions(
    barrier: Any, url: str, dataset: str, count: int, options: Options = None
) -> list[str]:
    """Put `count` sessions, each in a commit of its own; gives the snapshots."""
    store = neurostore.open(url, storage_options=options)
    snapshots = []
    barrier.wait(60)
    for k in range(count):
        with store.transaction(f"{dataset}/{k}") as tx:
            tx.put(session(f"{dataset}/{k}", seed=k))
        snapshots.append(tx.snapshot)
    return snapshots


def put_slowly(barrier: Any, url: str, id: str, count: int, options: Options = None) -> list[str]:
    """Put sessions of real chunks, with a pause between the chunks and each commit."""
    store = neurostore.open(url, storage_options=options)
    snapshots = []
    barrier.wait(60)
    for k in range(count):
        with store.transaction(f"{id}-{k}") as tx:
            tx.put(session(f"{id}-{k}", seed=k, spikes=20_000))
            time.sleep(0.3)
        snapshots.append(tx.snapshot)
    return snapshots


def put_one(barrier: Any, url: str, id: str, seed: int, options: Options = None) -> str:
    """Put one session; all writers meet before they commit."""
    os.environ["NEUROSTORE_AUTHOR"] = f"writer-{seed}"
    store = neurostore.open(url, storage_options=options)
    with store.transaction(f"put by {seed}") as tx:
        tx.put(session(id, seed=seed))
        barrier.wait(60)
    return tx.snapshot


def update_one(barrier: Any, url: str, id: str, seed: int, options: Options = None) -> str:
    """Replace the wheel of a session; all writers meet before they commit."""
    os.environ["NEUROSTORE_AUTHOR"] = f"writer-{seed}"
    store = neurostore.open(url, storage_options=options)
    with store.transaction(f"update by {seed}") as tx:
        tx.update(id, wheel(seed))
        barrier.wait(60)
    return tx.snapshot


def put_where_files_stay_small(barrier: Any, url: str, id: str, most: int) -> str:
    """Put one session where no file may grow beyond `most` bytes, as on a disk that is full."""
    import resource

    store = neurostore.open(url)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    with store.transaction("full") as tx:
        tx.put(session(id))
    return tx.snapshot


def create_one(barrier: Any, url: str, options: Options = None) -> str:
    """Create a store when all are ready to."""
    barrier.wait(60)
    return neurostore.create(url, options).snapshot


def tag_often(barrier: Any, url: str, count: int) -> dict[str, str]:
    """Tag whatever is the newest snapshot, again and again."""
    store = neurostore.open(url)
    made = {}
    barrier.wait(60)
    for k in range(count):
        store.refresh().tag(f"tag-{k}")
        made[f"tag-{k}"] = store.snapshot
        time.sleep(0.02)
    return made


def ingest_and_edit(end: Connection, url: str, files: Sequence[Path]) -> None:
    """Ingest, replace a table, put a session, tag, delete one, collect; says when each begins."""
    end.send("ingest")
    store = neurostore.open(url)
    neurostore.ingest(store, files, dataset="maze")
    end.send("update")
    with store.transaction("update") as tx:
        tx.update("maze/s1", wheel(1, "second", store.session("maze/s1").span))
    end.send("put")
    with store.transaction("put") as tx:
        tx.put(session("more/s1"))
    end.send("tag")
    store.tag("v2")
    end.send("delete")
    with store.transaction("delete") as tx:
        tx.delete("maze/s2")
    end.send("gc")
    dropped = store.transaction("dropped")
    dropped.put(session("more/dropped", spikes=20_000))
    del dropped
    store.gc(older_than=timedelta(0))


def create_one_alone(end: Connection, url: str) -> None:
    """Create a store."""
    end.send("create")
    neurostore.create(url)


def tag_one(barrier: Any, url: str, name: str, options: Options = None) -> str:
    """Tag the newest snapshot when all are ready to; gives it."""
    store = neurostore.open(url, storage_options=options)
    barrier.wait(60)
    store.tag(name)
    return store.snapshot


def commit_until_killed(end: Connection, url: str, options: Options = None) -> None:
    """Put sessions, each in a commit of its own, and say the snapshot of each."""
    store = neurostore.open(url, storage_options=options)
    for k in range(1000):
        with store.transaction(f"killed/{k}") as tx:
            tx.put(session(f"killed/{k}", seed=k))
        end.send(tx.snapshot)


def commit(store: neurostore.Store, what: Callable[[neurostore.Transaction], object]) -> str:
    """A commit that comes in between; its snapshot."""
    with store.transaction("meanwhile") as tx:
        what(tx)
    return tx.snapshot
