"""A bit turned, a file cut short, gone or swapped: an error that names the place, or no change.

Every kind of file that a store has, and those kept beside it: the local catalogue and the window
cache. ``NEUROSTORE_TRIALS`` says how many trials each kind gets.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _damaged import flipped, judge, opened, plain, replaced
from _hostile import build

import neurostore
from neurostore import All, Dataset, NeurostoreError, Spikes, Window, cache
from neurostore.cache import _cache
from neurostore.errors import CacheWarning, DamagedError

TRIALS = int(os.environ.get("NEUROSTORE_TRIALS", "3"))
KINDS = ["chunks", "manifests", "snapshots", "transactions", "refs", "tags", "config.yaml"]
DAMAGES = ["flip", "cut", "flip", "gone", "empty", "flip", "swapped", "longer"]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    store = build(tmp_path_factory.mktemp("flips") / "lab")
    store.tag("v1")
    more = neurostore.SessionBuilder(dataset="d", session="t")
    more.add_units({"u0": np.sort(np.random.default_rng(1).uniform(0, 50, 900))})
    with store.transaction("another one") as tx:
        tx.put(more)
    config = Path(store.url, "config.yaml")
    store._versions.repository.save_config()
    assert config.is_file()
    return Path(store.url)


def files(url: Path, kind: str) -> list[Path]:
    """The files of a kind."""
    below = {"refs": "refs/branch.*/*", "tags": "refs/tag.*/*", "config.yaml": "config.yaml"}
    found = sorted(one for one in url.glob(below.get(kind, f"{kind}/*")) if one.is_file())
    assert found, kind
    return found


@contextmanager
def without_cache():
    """Nothing is kept: every value is read from the store itself, and spikes by direct reads."""
    before = os.environ["NEUROSTORE_CACHE"]
    cache.use(None)
    try:
        yield
    finally:
        os.environ["NEUROSTORE_CACHE"] = before


def everything(url: Path, *, fresh: bool = True) -> dict[str, Any]:
    """Whatever the public calls give, by name; the `NeurostoreError` where that was the answer."""
    if fresh and cache.folder() is not None:
        shutil.rmtree(cache.folder(), ignore_errors=True)
    found, read, store = opened(url)
    if store is None:
        return found
    read("splits", lambda: store.splits.to_json())
    read("split", lambda: store.split("halves").digest)
    read("stimuli", lambda: store.stimuli.astype(str).to_json())
    read("frames", lambda: plain(np.asarray(store.stimulus("movie").frames[:])))
    read("embedding", lambda: plain(store.stimulus("movie").embedding("clip").read()))
    read("batch", lambda: batch(store))
    tagged = read("tag", lambda: store.at("v1"))
    if not isinstance(tagged, NeurostoreError):
        found["tag"] = tagged.snapshot
        read("sessions@v1", lambda: tagged.sessions().to_json())
    for id in ("d/s", "d/t"):
        session = read(id, lambda id=id: store.session(id))
        if isinstance(session, NeurostoreError):
            continue
        found[id] = dict(session.attrs)
        read(f"{id} counts", lambda s=session: plain(s.counts(0, 40, "0.5").values))
        read(f"{id} spike_times", lambda s=session: plain(s.spike_times("u0")))
        for name in session.tables:
            read(f"{id}/{name}", lambda s=session, name=name: values(s[name]))
            read(f"{id}/{name} kept", lambda s=session, name=name: kept(s.table(name)))
    return found


def values(table: Any) -> dict[str, Any]:
    return {key: (dict(one.attrs), plain(one.values)) for key, one in table.variables.items()}


def kept(table: Any) -> dict[str, Any]:
    """As the window cache has it, or else the store."""
    found = {key: np.asarray(one.values[:]) for key, one in table.columns.items()}
    text = {key: [str(x) for x in one] for key, one in found.items() if one.dtype.kind in "OT"}
    return {key: plain(one) for key, one in found.items() if key not in text} | text


def batch(store: neurostore.Store) -> Any:
    dataset = Dataset(
        store,
        sessions="session = 's'",
        window=Window(history=1.0, stride=1.0),
        streams={"spikes": Spikes(bin=0.1)},
        acquisition=All(),
    )
    return plain(np.asarray(dataset.sample(4, seed=0)["spikes"]))


@pytest.fixture(scope="module")
def good(url):
    found = everything(url)
    bad = {name: one for name, one in found.items() if isinstance(one, Exception)}
    assert not bad, bad
    with without_cache():
        assert everything(url) == found
    return found


def damaged(rng: random.Random, how: str, data: bytes, others: list[bytes]) -> bytes | None:
    """The bytes of a file after some damage; None where it is gone."""
    if how == "gone":
        return None
    if how == "empty" or not data:
        return b""
    if how == "cut":
        return data[: rng.randrange(len(data))]
    if how == "swapped":
        return rng.choice(others)
    if how == "longer":
        return data + rng.randbytes(16)
    return flipped(data, rng.randrange(8 * len(data)))


def try_all(url: Path, good: dict[str, Any], kind: str, trials: int, seed: int) -> Counter[str]:
    """Damage files of a kind one at a time; outcomes by `judge`, which fails on a wrong value.

    `verify` reports whatever any reader is refused; what it calls whole reads as it was.
    """
    rng, outcomes = random.Random(seed), Counter[str]()
    found = files(url, kind)
    data = {path: path.read_bytes() for path in found}
    for k in range(trials):
        path, how = rng.choice(found), DAMAGES[(k + seed) % len(DAMAGES)]
        if kind == "tags" and how == "gone":
            continue  # nothing else knows that there was one
        bad = damaged(rng, how, data[path], list(data.values()))
        if bad == data[path]:
            continue
        with replaced(path, bad):
            try:
                answers = everything(url)
                outcome = judge(good, answers)
                named(answers)
                report = neurostore.verify(url)
                pointed(report, kind, path)
                outcomes[f"{outcome}, {'harmless' if report.whole else 'reported'}"] += 1
                assert outcome == "same" or not report.whole, [
                    one.line for one in answers.values() if isinstance(one, NeurostoreError)
                ]
                # what was added behind a chunk is never read; anything else is reported
                assert kind != "chunks" or report.whole == (how == "longer")
            except BaseException as error:
                error.add_note(f"{how} of {kind}/{path.name}, trial {k} of seed {seed}")
                raise
    return outcomes


def named(answers: dict[str, Any]) -> None:
    """Every error says which array, file, commit or store it is of."""
    for name, one in answers.items():
        if isinstance(one, NeurostoreError):
            places = ("sessions/", "splits/", "stimuli/", "lab", "ommit", "d/s", "d/t", "tag")
            assert any(place in one.line for place in places), (name, one.line)


def pointed(report: neurostore.store.Report, kind: str, path: Path) -> None:
    """What is reported says which file it is of, or which array, commit, branch or tag needs it."""
    own = {"refs": "branch main", "tags": "tag v1", "config.yaml": str(path.parent)}
    things = ("sessions/", "splits/", "stimuli/", "d/s", "d/t", "snapshot")
    said = [f"{one.path}: {one.finding.message}" for one in report.faults]
    places = (own.get(kind, path.name), *things)
    assert not said or any(place in one for one in said for place in places), said


@pytest.mark.parametrize("direct", [False, True], ids=["cached", "direct"])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_to_any_file_of_a_repository_never_gives_a_wrong_value(url, good, kind, direct):
    with without_cache() if direct else nullcontext():
        outcomes = try_all(url, good, kind, TRIALS, seed=11 if direct else 8)
    print(f"{kind} {'direct' if direct else 'cached'}: {dict(outcomes)}")
    if kind == "transactions":
        assert all(outcome.startswith("same") for outcome in outcomes)


@pytest.mark.parametrize("kind", ["catalogue", "windows"])
def test_damage_to_what_is_kept_beside_a_store_is_mended_or_an_error(url, good, kind, monkeypatch):
    monkeypatch.setattr(_cache, "_said", set())
    told = pytest.warns(CacheWarning, match="built anew") if kind == "windows" else nullcontext()
    with told:
        damage_what_is_kept(url, good, kind)


def damage_what_is_kept(url: Path, good: dict[str, Any], kind: str) -> None:
    rng, outcomes = random.Random(3), Counter[str]()
    everything(url)
    kept_files = sorted(
        path
        for path in cache.folder().rglob("*")
        if path.is_file() and (path.parent.name == "catalogue") == (kind == "catalogue")
    )
    assert kept_files
    for k in range(TRIALS):
        everything(url, fresh=False)
        there = [path for path in kept_files if path.is_file() and path.stat().st_size]
        path, how = rng.choice(there), DAMAGES[k % len(DAMAGES)]
        data = path.read_bytes()
        bad = damaged(rng, how, data, [one.read_bytes() for one in there])
        path.unlink()
        if bad is not None:
            path.write_bytes(bad)
        try:
            outcomes[judge(good, everything(url, fresh=False))] += 1
        except BaseException as error:
            error.add_note(f"{how} of {path.name}, trial {k}")
            raise
    print(f"{kind}: {dict(outcomes)}")


def test_a_link_a_pipe_or_a_device_in_place_of_a_file_is_refused(url, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 4096)
    for kind in ("chunks", "manifests", "snapshots", "refs", "tags"):
        path = files(url, kind)[0]
        data = path.read_bytes()
        for how in ("link", "pipe", "folder"):
            path.unlink()
            if how == "pipe":
                os.mkfifo(path)
            else:
                path.symlink_to(secret if how == "link" else tmp_path)
            try:
                found = everything(url)
            finally:
                path.unlink()
                path.write_bytes(data)
            errors = [one for one in found.values() if isinstance(one, NeurostoreError)]
            assert errors, (kind, how)
            assert any("is no plain file" in one.line and path.name in one.line for one in errors)
            assert not any(isinstance(one, DamagedError) for one in errors), (kind, how)


def test_a_link_that_stays_inside_its_repository_is_followed(url, good, tmp_path):
    copy = tmp_path / "lab"
    shutil.copytree(url, copy)
    (copy / "chunks").rename(copy / "elsewhere")
    (copy / "chunks").symlink_to(copy / "elsewhere")
    with without_cache():
        assert everything(copy)["d/s spike_times"] == good["d/s spike_times"]
