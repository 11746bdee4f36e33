"""A store to be damaged, everything that can be read of it, and ways to damage it."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import neurostore
from neurostore import NeurostoreError, cache
from neurostore.clocks import Clock
from neurostore.store import Span, tables


def build(url: Path) -> neurostore.Store:
    """Three sessions in three commits, a tag after the first; most chunks are files."""
    rng = np.random.default_rng(0)
    store = neurostore.create(url)

    def units(name: str) -> neurostore.SessionBuilder:
        builder = neurostore.SessionBuilder(dataset="lab", session=name, subject="mouse-1")
        times = {f"u{k}": np.sort(rng.uniform(0, 100, 700)) for k in range(4)}
        shape = rng.normal(size=(4, 60)).astype(np.float32)
        builder.add_units(times, region=["CA1", "CA1", "CA3", ""], waveform=shape)
        return builder

    full, second = units("a"), units("b")
    full.add_behaviour("wheel", rng.normal(size=900), start=0, rate=9, units="rad")
    frames = rng.normal(size=(150, 20)).astype(np.float32)
    full.add_activity("voltage", frames, start=0, rate=30, units="mV")
    notes = [f"trial {rng.integers(1 << 60)}, µ" for _ in range(120)]
    full.add_intervals("trials", np.arange(120.0), np.arange(120.0) + 0.5, note=notes)
    third = neurostore.SessionBuilder(dataset="lab", session="c")
    time = np.sort(rng.uniform(0, 100, 400))
    third.add_behaviour("pupil", rng.normal(size=(400, 2)), time=time, units="mm")
    with store.transaction("two sessions") as tx:
        tx.put(full)
        tx.put(second)
    store.tag("v1")
    with store.transaction("a third one") as tx:
        tx.put(third)
    wheel = tables.behaviour(
        "wheel", rng.normal(size=800), Span(Clock()), start=0, rate=8, units="rad"
    )
    with store.transaction("the wheel again") as tx:
        tx.update("lab/a", wheel)
    return store


Read = Callable[[str, Callable[[], Any]], Any]
"""Keeps by a name what a call gives, or the `NeurostoreError` where that was the answer."""


def opened(url: Path) -> tuple[dict[str, Any], Read, neurostore.Store | None]:
    """What a store says of itself, what keeps further answers beside it, and the store."""
    found: dict[str, Any] = {}

    def read(name: str, what: Callable[[], Any]) -> Any:
        try:
            found[name] = what()
        except NeurostoreError as error:
            found[name] = error
        return found[name]

    store = read("open", lambda: neurostore.open(url))
    if isinstance(store, NeurostoreError):
        return found, read, None
    found["open"] = store.snapshot
    read("repr", lambda: repr(store))
    read("sessions", lambda: store.sessions().to_json())
    read("units", lambda: store.units().to_json())
    read("log", lambda: [(one.to_json(), dict(one.metadata)) for one in store.log()])
    return found, read, store


def reading(url: Path) -> dict[str, Any]:
    """Whatever can be read, by name; the `NeurostoreError` where that was the answer.

    Arrays go by ``<id>/<table>/<column>``, with ``@v1`` behind it for the tagged snapshot.
    """
    shutil.rmtree(cache.folder(), ignore_errors=True)
    found, read, store = opened(url)
    if store is None:
        return found
    read("in", lambda: ["lab/a" in store, "lab/z" in store])
    _sessions(read, store, "", "abc")
    tagged = read("tag", lambda: store.at("v1"))
    if not isinstance(tagged, NeurostoreError):
        found["tag"] = tagged.snapshot
        read("sessions@v1", lambda: tagged.sessions().to_json())
        _sessions(read, tagged, "@v1", "a", only="behaviour/wheel")
    return found


def _sessions(
    read: Read,
    store: neurostore.Store,
    at: str,
    names: str,
    only: str = "",
) -> None:
    for id in (f"lab/{name}" for name in names):
        session = read(f"{id}{at}", lambda id=id: store.session(id))
        if isinstance(session, NeurostoreError):
            continue
        read(f"{id}{at}", lambda session=session: (dict(session.attrs), repr(session)))
        for name in [only] if only else session.tables:
            table = read(f"{id}/{name}{at}", lambda s=session, name=name: s[name])
            if isinstance(table, NeurostoreError):
                continue
            read(f"{id}/{name}{at}", lambda table=table: (dict(table.attrs), list(table.variables)))
            for key, variable in table.variables.items():
                read(f"{id}/{name}/{key}{at}", lambda v=variable: (dict(v.attrs), plain(v.values)))
        if "units" in session.tables and not only:
            read(f"{id} counts", lambda s=session: plain(s.counts(10, 20, 0.02).values))
            read(f"{id} spike_times", lambda s=session: plain(s.spike_times("u1")))
        if "activity/voltage" in session.tables:
            for k in range(0, 150, 64):  # a chunk alone
                part = slice(k, k + 64)
                read(
                    f"{id} frames {k}",
                    lambda s=session, p=part: plain(s.activity["voltage"].value[p].values),
                )


def plain(values: np.ndarray[Any, Any]) -> tuple[str, tuple[int, ...], Any]:
    """An array as what compares exactly, NaN included."""
    content = values.tobytes() if values.dtype.kind in "biuf" else values.tolist()
    return str(values.dtype), values.shape, content


@contextmanager
def replaced(path: Path, data: bytes | None) -> Iterator[None]:
    """A file with other bytes, or gone, for a while."""
    kept = path.read_bytes()
    try:
        path.unlink() if data is None else path.write_bytes(data)
        yield
    finally:
        path.write_bytes(kept)


def flipped(data: bytes, bit: int) -> bytes:
    """The bytes with one bit turned round."""
    made = bytearray(data)
    made[bit // 8] ^= 1 << (bit % 8)
    return bytes(made)


def judge(good: dict[str, Any], found: dict[str, Any]) -> str:
    """``"same"`` or ``"error"``; fails where a value differs."""
    for name, value in found.items():
        if isinstance(value, NeurostoreError):
            assert value.line
            assert not isinstance(value, neurostore.NotFoundError), (name, value.line)
        else:
            assert value == good[name], name
    errors = [value for value in found.values() if isinstance(value, NeurostoreError)]
    assert errors or found.keys() == good.keys()
    return "error" if errors else "same"


def flip_many(url: Path, kind: str, count: int, seed: int) -> Counter[str]:
    """Turn random bits in one folder of the repository, one at a time; outcomes by `judge`."""
    good, rng, outcomes = reading(url), random.Random(seed), Counter[str]()
    assert not any(isinstance(value, Exception) for value in good.values()), good
    files = sorted(path for path in (url / kind).rglob("*") if path.is_file())
    for _ in range(count):
        path = rng.choice(files)
        data = path.read_bytes()
        bit = rng.randrange(8 * len(data))
        with replaced(path, flipped(data, bit)):
            try:
                outcomes[judge(good, reading(url))] += 1
            except BaseException as error:
                error.add_note(f"bit {bit} of {kind}/{path.name} ({len(data)} bytes)")
                raise
    return outcomes
