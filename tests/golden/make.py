"""Writes the golden store of a format, and what it must read as, for ever.

Run once for a format, or where it gains a kind of thing, by hand: ``python tests/golden/make.py
tests/golden/format-1-splits``. A folder that is there is never written again: every later version
of the package must read it as it is.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

import neurostore
from neurostore import splits
from neurostore.store import Session, Span


def first() -> neurostore.SessionBuilder:
    """On 30 kHz, with odd names, missing ends, masks and findings."""
    rng = np.random.default_rng(1)
    made = neurostore.SessionBuilder(
        dataset="golden",
        session="first ü/1",
        subject="rat <1>",
        species="Rattus norvegicus",
        origin="2026-01-05T09:30:00+00:00",
        source=neurostore.Source("first.dat", "ab" * 32, "arrays", "1", {"option": 1}),
    )
    times = {f"unit {k}": np.sort(rng.integers(-9000, 900_000, 400)) / 30_000 for k in range(4)}
    made.add_units(
        {**times, "silent": []},
        region=["CA1", "CA1", "CA3", None, "DG"],
        quality=["good", "mua", "good", "good", "noise"],
        waveform=np.arange(5 * 8, dtype="f4").reshape(5, 8),
        **{"snr (dB)": [1.5, 2.5, 3.5, 4.5, float("nan")]},
    )
    made.add_electrodes(["e1", "e2"], region=["CA1", "DG"], impedance=[1.0, 2.0])
    made.add_behaviour("wheel", np.sin(np.arange(3000) / 50), start=-0.1, rate=100, units="rad")
    made.add_behaviour(
        "position 2D",
        rng.integers(0, 640, (900, 2)).astype("u2"),
        time=np.round(np.arange(900) / 60 * 30_000) / 30_000,
        units="pixel",
        channels=["x", "y"],
        valid=np.arange(900) % 7 > 0,
    )
    made.add_intervals(
        "trials",
        [0.0, 10.0, 20.0, math.nan],
        [5.0, 15.0, math.nan, 35.0],
        description="four trials",
        stim_on_time=np.array([1.0, math.nan, 21.0, -1.5e9]),
        choice=[1, -1, 0, 1],
        correct=[True, False, True, False],
        note=["a", "b", None, "ü"],
    )
    made.add_presentations("movie", [0.0, 1.0], [1.0, 2.0], [5, -1], stimulus="natural")
    made.add_activity("voltage", np.arange(600.0).reshape(200, 3), start=0, rate=50, units="mV")
    made.notes.append("lfp: left out")
    return made


def second() -> neurostore.SessionBuilder:
    """On a fractional clock, observed by unit."""
    rng = np.random.default_rng(2)
    made = neurostore.SessionBuilder(dataset="golden", session="second", rate="24414.0625")
    made.add_units({k: np.sort(rng.uniform(-5, 20, 300)) for k in ("a", "b")})
    made.add_observed([-5, 10, -5], [5, 20, 20], unit=[0, 0, 1])
    return made


def gone() -> neurostore.SessionBuilder:
    """Deleted in the last commit."""
    made = neurostore.SessionBuilder(dataset="golden", session="gone")
    made.add_behaviour("x", [1.0, 2.0], start=0, rate=1, units="V")
    return made


def expected(store: neurostore.Store) -> dict[str, Any]:
    """All that the public interface says of a store, as JSON."""
    frame = store.sessions()
    return {
        "log": [[one.message, sorted(one.tags)] for one in store.log()],
        "sessions": json.loads(frame.to_json(orient="records", double_precision=15)),
        "units": json.loads(store.units().to_json(orient="records", double_precision=15)),
        "of": {id: _session(store.session(id)) for id in frame["id"]},
        "splits": {name: _split(store, name) for name in _titles(store)},
    }


def _titles(store: neurostore.Store) -> list[str]:
    return [f"{row['name']}/v{row['version']}" for row in store.splits.to_dict("records")]


def _split(store: neurostore.Store, title: str) -> dict[str, Any]:
    return store.split(title).to_json()


def _session(session: Session) -> dict[str, Any]:
    said: dict[str, Any] = {
        "clock": [str(session.clock.rate), session.clock.origin],
        "metadata": session.metadata,
        "source": session.attrs["source"],
        "notes": session.notes,
        "findings": [one.to_json() for one in session.findings],
        "digest": session.attrs["row"]["digest"],
        "tables": {name: _table(session, name) for name in session.tables},
    }
    if "spikes" in session.tables:
        said["counts"] = session.counts(0.013, 9.7, 0.1).values.tolist()
        unit = str(session.units["unit"].values[0])
        said["psth"] = session.psth(unit, [1.0, 2.5, 7.0], (-0.5, 1.0), 0.1)[
            "count"
        ].values.tolist()
        said["spike_times"] = session.spike_times(unit).tolist()
    return said


def _table(session: Session, name: str) -> dict[str, Any]:
    table = session.stored(name)
    columns = {
        key: [column.dims, str(column.values.dtype), dict(column.attrs), _list(column.values[:])]
        for key, column in table.columns.items()
    }
    return {"contract": table.contract, "attrs": dict(table.attrs), "columns": columns}


def _list(values: np.ndarray) -> Any:
    return json.loads(json.dumps(values.tolist()).replace("NaN", "null"))


def main(folder: Path) -> None:
    """Write store and expectations."""
    store = neurostore.create(folder / "store")
    with store.transaction("three sessions") as tx:
        for made in (first(), second(), gone()):
            tx.put(made)
    store.tag("v1")
    clock = store.session("golden/second").clock
    with store.transaction("a wheel for the second, the third goes") as tx:
        tx.update(
            "golden/second",
            neurostore.tables.behaviour(
                "wheel", np.arange(200.0), Span(clock), start=0, rate=10, units="rad"
            ),
        )
        tx.delete("golden/gone")
    timelines = [store.session(id).timeline() for id in ("golden/first ü/1", "golden/second")]
    for rotation in (0, 1):
        with store.transaction(f"blocks, rotation {rotation}") as tx:
            tx.put(splits.interleaved_blocks("blocks ü", timelines, block=1, rotation=rotation))
    said = {"head": expected(store), "v1": expected(store.at("v1"))}
    text = json.dumps(said, ensure_ascii=False, default=list)
    (folder / "expected.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
