"""A store as somebody means it who wants harm: signed right, and wrong in any place one likes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from zarr.core.buffer import default_buffer_prototype
from zarr.core.buffer.cpu import Buffer
from zarr.core.sync import sync
from zarr.storage import WrapperStore

import neurostore
from neurostore import NeurostoreError, Stimulus, splits
from neurostore.store import _catalogue
from neurostore.store._format import digest

SESSION = "sessions/d/s"
SPLIT = "splits/halves/v1"
STIMULUS = "stimuli/movie"
EMBEDDING = "stimuli/movie/embeddings/clip/v1"


def build(url: Any) -> neurostore.Store:
    """A session with a table of every kind, a split, a stimulus and an embedding."""
    rng = np.random.default_rng(0)
    store = neurostore.create(url)
    builder = neurostore.SessionBuilder(dataset="d", session="s", subject="m", species="Mus")
    times = {f"u{k}": np.sort(rng.uniform(0, 50, 200)) for k in range(3)}
    builder.add_units(times, region=["CA1", "CA3", ""])
    builder.add_behaviour("wheel", rng.normal(size=300), start=0, rate=9, units="rad")
    builder.add_behaviour("pupil", rng.normal(size=90), time=np.arange(90.0) / 2, units="mm")
    builder.add_activity("v", rng.normal(size=(130, 4)), start=0, rate=9, units="mV")
    builder.add_intervals("trials", np.arange(20.0), np.arange(20.0) + 0.5, note=["go"] * 20)
    builder.add_presentations(
        "shown", np.arange(9.0), np.arange(9.0) + 1, stimulus="movie", row=np.arange(9)
    )
    frames = rng.integers(0, 255, (12, 4, 3)).astype("u1")
    movie = Stimulus("movie", frames, rate=30, embeddings={"clip": np.zeros((12, 5), "f4")})
    with store.transaction("all of it") as tx:
        tx.put(movie)
        tx.put(builder)
    with store.transaction("a split") as tx:
        tx.put(splits.contiguous("halves", store.session("d/s").timeline()))
    return store


# ---- forging


class Forged(WrapperStore[Any]):
    """A store that answers some keys with other bytes."""

    def __init__(self, store: Any, other: dict[str, bytes]) -> None:
        super().__init__(store)
        self.other = other

    def _with_store(self, store: Any) -> Forged:
        return Forged(store, self.other)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if key in self.other:
            return Buffer.from_bytes(self.other[key])
        return await self._store.get(key, prototype, byte_range)


def document(store: Any, path: str) -> dict[str, Any]:
    """A zarr.json, unchecked."""
    return json.loads(sync(store.get(f"{path}/zarr.json", default_buffer_prototype())).to_bytes())


def forged(store: neurostore.Store, path: str, change: Callable[[dict[str, Any]], Any]) -> Any:
    """The store with the document at a path changed, and everything that vouches for it signed."""
    documents = {path: copy.deepcopy(document(store.zarr, path))}
    change(documents[path])
    top = next(one for one in (EMBEDDING, STIMULUS, SPLIT, SESSION) if path.startswith(one))
    if top != path:
        documents[top] = document(store.zarr, top)
        row = documents[top]["attributes"]["row"]
        for name, entry in row["tables"].items():
            where = f"{top}/{name}"
            if path.startswith(where):
                said = {
                    key: documents.get(at) or document(store.zarr, at)
                    for key in ("", *entry["arrays"])
                    for at in [f"{where}/{key}".rstrip("/")]
                }
                entry["metadata"] = digest(said)
                entry["digest"] = digest({k: entry[k] for k in entry if k not in DERIVED})
    sign(documents[top])
    made = neurostore.open(store.url)
    other = {f"{at}/zarr.json": json.dumps(said).encode() for at, said in documents.items()}
    made.__dict__["zarr"] = type(store.zarr)(Forged(store.zarr, other))
    commit = store._versions.about(store.snapshot)
    about = dict(commit.metadata) | _totals(made.zarr)
    made.__dict__["_commit"] = type(commit)(
        commit.snapshot, commit.parent, commit.time, commit.message, about
    )
    return made


DERIVED = ("digest", "extent", "seconds", "regions")


def sign(said: dict[str, Any]) -> None:
    """Digests of attributes and row as they are now, where there is something to sign."""
    attrs = said.get("attributes")
    row = attrs.get("row") if isinstance(attrs, dict) else None
    if not isinstance(row, dict):
        return
    row.pop("checksum", None)
    if "attributes" in row:
        row["attributes"] = digest({key: attrs[key] for key in attrs if key != "row"})
    row["checksum"] = digest(row)


def _totals(zarr: Any) -> dict[str, Any]:
    rows: dict[str, list[Any]] = {"sessions": [], "splits": [], "stimuli": []}
    for path in (SESSION, SPLIT, STIMULUS, EMBEDDING):
        attrs = document(zarr, path).get("attributes")
        row = attrs.get("row") if isinstance(attrs, dict) else None
        if isinstance(row, dict) and {"id", "checksum"} <= row.keys():
            rows[path.partition("/")[0]].append(row)

    def total(of: str) -> dict[str, Any]:
        return _catalogue.Total(of=of).plus(rows[of]).to_json()

    return {
        "catalogue": total("sessions"),
        "split_catalogue": total("splits"),
        "stimulus_catalogue": total("stimuli"),
    }


# ---- what can be asked


def asked(store: neurostore.Store, near: str = "") -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is read of the store of `build`, by name; where `near` is said, of that path alone."""
    below = near.removeprefix(f"{SESSION}/")
    some = {
        "splits": not near or near.startswith(SPLIT),
        "stimuli": not near or near.startswith(STIMULUS),
        "spikes": not below
        or below == SESSION
        or below.startswith(("unit", "spikes", "intervals")),
    }
    yield "repr", lambda: repr(store) + store._repr_html_()
    yield "sessions", lambda: store.sessions("n_units >= 0").to_json()
    yield "in", lambda: "d/s" in store
    if some["splits"]:
        yield "splits", lambda: store.splits.to_json()
        yield "split", lambda: store.split("halves/train").split.sessions
        yield "validate splits", store.validate_splits
    if some["stimuli"]:
        yield "stimuli", lambda: repr(store.stimuli)
        yield "stimulus", lambda: [repr(store.stimulus("movie")), store.stimulus("movie").rate]
        yield "frames", lambda: np.asarray(store.stimulus("movie").frames[3])
        yield "embedding", lambda: store.stimulus("movie").embedding("clip").read()
        yield "validate stimuli", store.validate_stimuli
    if near and not near.startswith(SESSION):
        return
    try:
        session = store.session("d/s")
    except NeurostoreError:
        return
    yield "session", lambda: [repr(session), session._repr_html_(), session.clock, session.notes]
    yield "facts", lambda: [session.metadata, session.findings, session.start, session.stop]
    if some["spikes"]:
        yield "span", lambda: session.span
        yield "units of the store", lambda: store.units("rate_hz >= 0").to_json()
        yield "timeline", session.timeline
        yield "counts", lambda: session.counts(0, 20, "0.5").observed.values
        yield "spike_times", lambda: session.spike_times("u1")
        yield "psth", lambda: session.psth("u1", [5.0, 7.0]).rate_hz.values
        yield "rows", lambda: session.rows("intervals/trials", "start > 3")
        yield "frame of spikes", lambda: session._pandas("spikes")
    for name in session.tables:
        if not below or below.startswith(name):
            yield (
                name,
                lambda name=name: {
                    key: np.asarray(one.values) for key, one in session[name].variables.items()
                },
            )
    if not near:
        yield "validate", lambda: store.validate(["d/s"])
        yield "to_xarray", session.to_xarray


def judged(store: neurostore.Store, near: str = "") -> dict[str, str]:
    """What was refused, by name; fails where something else happened."""
    found = {}
    for name, ask in asked(store, near):
        try:
            ask()
        except NeurostoreError as error:
            found[name] = error.line
        except Exception as error:
            error.add_note(f"while {name} was asked for")
            raise
    assert all(0 < len(line) < 3000 for line in found.values()), found
    return found


# ---- values nobody expects

VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 0.5, 2**63, -(2**63), 2**200, 1e308, 10**15),
    *("", "x", "../../x", "a" * 5000, "1e9999", "9" * 5000, "-1", "2026-13-45", "nan", "\0"),
    *([], {}, [None], {"": None}, [[]], [-1], [2**63], {"a": {"b": []}}, "\ud800"),
]
"""What is put into one place of a document; some are no UTF-8, as JSON may well say."""


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything within a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in inner:
        yield (*at, key)
        if isinstance(one, dict | list):
            yield from places(one, (*at, key))


def put(said: Any, at: tuple[Any, ...], value: Any) -> None:
    """Put a value at a place, or take what is there away (with ``...``)."""
    for key in at[:-1]:
        said = said[key]
    if value is ...:
        del said[at[-1]]
    else:
        said[at[-1]] = copy.deepcopy(value)


def nodes(store: neurostore.Store) -> list[str]:
    """The paths of all documents that belong to what is kept."""
    found = []
    for top in (SESSION, SPLIT, STIMULUS, EMBEDDING):
        found.append(top)
        for name, entry in document(store.zarr, top)["attributes"]["row"]["tables"].items():
            found += [f"{top}/{name}", *(f"{top}/{name}/{key}" for key in entry["arrays"])]
    return found
