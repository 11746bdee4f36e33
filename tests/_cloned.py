"""A store with everything in it that a clone brings along, and all keys and bytes of a store."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from _writers import session
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

import neurostore
from neurostore import splits
from neurostore.store import Stimulus

SESSIONS = 5


def build(url: str | Path) -> neurostore.Store:
    """Five sessions of two datasets, two stimuli that two of them show, two splits."""
    rng = np.random.default_rng(0)
    store = neurostore.create(url)
    frames = rng.integers(0, 256, (90, 9, 11)).astype(np.uint8)
    clip = rng.normal(size=(90, 24)).astype(np.float32)
    with store.transaction("stimuli") as tx:
        tx.put(Stimulus("movie", frames, rate=30, embeddings={"clip_l14": clip}))
        tx.put(Stimulus("scene", frames[:40], rate=30))
    with store.transaction("sessions") as tx:
        for k in range(SESSIONS):
            builder = session(f"{'lab' if k < 3 else 'maze'}/s{k}", seed=k, spikes=3000)
            if k < 2:
                start = np.arange(80) / 30
                shown = rng.integers(-1, 40, 80)
                name = ("movie", "scene")[k]
                builder.add_presentations("shown", start, start + 1 / 30, shown, stimulus=name)
            notes = [f"trial {rng.integers(1 << 60)}, µ" for _ in range(120)]
            builder.add_intervals("trials", np.arange(120.0), np.arange(120.0) + 0.5, note=notes)
            tx.put(builder)
    lines = {id: store.session(id).timeline() for id in store.sessions()["id"]}
    with store.transaction("splits") as tx:
        tx.put(splits.interleaved_blocks("all", list(lines.values()), block=5))
        mine = [line for id, line in lines.items() if id.startswith("lab/")]
        tx.put(splits.interleaved_blocks("lab", mine, block=5))
    return store


def tree(store: neurostore.Store) -> dict[str, bytes]:
    """Every key of a snapshot, and its bytes."""

    async def read() -> dict[str, bytes]:
        found = {}
        async for key in store.zarr.list():
            value = await store.zarr.get(key, default_buffer_prototype())
            assert value is not None
            found[key] = value.to_bytes()
        return found

    return sync(read())


def clone_alone(end: Connection, source: str, target: str, tables: list[str] | None) -> None:
    """Clone, a session in a commit; says when it begins, and how many pieces are copied."""
    told = 0
    end.send(told)

    def tell(done: int, pieces: int, nbytes: int) -> None:
        nonlocal told
        if done > told:
            told = done
            end.send(told)

    neurostore.clone(source, target, tables=tables, progress=tell, at_once=1)
