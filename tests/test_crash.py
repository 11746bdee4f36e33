"""A process killed at any moment leaves an old or a new snapshot, never one between."""

from __future__ import annotations

import os
import random
import shutil
import time
from datetime import timedelta
from itertools import pairwise

import pytest
from _writers import (
    CONTEXT,
    create_one_alone,
    end_process,
    ingest_and_edit,
    put_where_files_stay_small,
    session,
    together,
)

import neurostore
from neurostore.simulate import simulate, write_nwb
from neurostore.store import _leases

KILLS = int(os.environ.get("NEUROSTORE_TRIALS", "8"))
ACKNOWLEDGED = [0, 1, 2, 3, 3, 4]
"""How many commits of `ingest_and_edit` are acknowledged when each of its steps begins."""
TAGGED = 4
"""The step that begins once the tag v2, on the third commit, is acknowledged."""
STATES = [
    ["old/s"],
    ["maze/s1", "maze/s2", "old/s"],
    ["maze/s1", "maze/s2", "old/s"],
    ["maze/s1", "maze/s2", "more/s1", "old/s"],
    ["maze/s1", "more/s1", "old/s"],
]
"""Sessions after each commit of `ingest_and_edit`."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maze")
    for k in (1, 2):
        recording = simulate(k, units=6, seconds=60)
        write_nwb(recording, folder / f"s{k}.nwb", session_id=f"s{k}")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A store with a session and a tag, from which every trial starts."""
    store = neurostore.create(tmp_path_factory.mktemp("before") / "lab")
    with store.transaction("first") as tx:
        tx.put(session("old/s"))
    store.tag("v1")
    return store


def run(function, *arguments, kill=None):
    """Run a process; with `kill`, end it that many seconds after it has begun that step.

    Gives how long each of its steps took.
    """
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=function, args=(theirs, *arguments))
    process.start()
    theirs.close()
    begun = []
    try:
        while ours.poll(120):
            try:
                ours.recv()
            except EOFError:  # it is at its end
                break
            begun.append(time.perf_counter())
            if kill is not None and len(begun) == kill[0] + 1:
                time.sleep(kill[1])
                process.kill()
        ended = time.perf_counter()
        process.join(30)
        assert process.exitcode == 0 or kill is not None
    finally:
        ours.close()
        end_process(process)
    return [b - a for a, b in pairwise([*begun, ended])]


def moments(undisturbed, count, seed):
    """Random moments, as many in each step; a step lasts as long as in the faster of two runs."""
    steps = [min(pair) for pair in zip(undisturbed(0), undisturbed(1), strict=True)]
    rng = random.Random(seed)
    return [(k % len(steps), rng.random() * steps[k % len(steps)]) for k in range(count)]


def check(url, states, monkeypatch, must_be_tagged=False):
    """The store is at one of the states, whole, and can be written; gives which one."""
    store = neurostore.open(url)
    log = store.log()
    state = len(log) - 2
    ids = list(store.sessions()["id"])
    assert ids == states[state]
    assert log[0].metadata["catalogue"]["sessions"] == len(ids)
    assert store.validate() == {id: [] for id in ids}
    second = state >= 2 and "behaviour/second" in store.session("maze/s1").tables
    assert second == (state >= 2)
    assert list(store.at("v1").sessions()["id"]) == ["old/s"]
    if (tagged := {one.snapshot for one in log if "v2" in one.tags}) or must_be_tagged:
        assert tagged == {log[state - 3].snapshot}  # of the third commit
        assert list(store.at("v2").sessions()["id"]) == states[3]
    with monkeypatch.context() as patch:
        patch.setattr(_leases, "SECONDS", 0.0)  # nobody writes any more
        store.gc(older_than=timedelta(0))
    assert neurostore.open(url).validate() == {id: [] for id in ids}
    with store.transaction("after the crash") as tx:
        tx.put(session("new/s"))
    again = neurostore.open(url)
    assert again.snapshot == tx.snapshot
    assert list(again.sessions()["id"]) == sorted([*ids, "new/s"])
    assert again.validate(["new/s"]) == {"new/s": []}
    return state


def test_an_ingest_killed_at_random_moments_leaves_an_old_or_a_new_snapshot(
    tmp_path, before, files, monkeypatch
):
    def trial(name, kill=None):
        url = tmp_path / f"lab-{name}"
        shutil.copytree(before.url, url)
        return run(ingest_and_edit, str(url), files, kill=kill)

    found = set()
    for k, kill in enumerate(moments(trial, KILLS, seed=1)):
        trial(f"killed-{k}", kill)
        state = check(tmp_path / f"lab-killed-{k}", STATES, monkeypatch, kill[0] >= TAGGED)
        assert state >= ACKNOWLEDGED[kill[0]], "a commit that was acknowledged is gone"
        found.add(state)
        shutil.rmtree(tmp_path / f"lab-killed-{k}")
    assert check(tmp_path / "lab-0", STATES, monkeypatch, True) == 4
    assert len(found) >= 4


def test_a_create_killed_at_random_moments_leaves_no_store_or_a_whole_one(tmp_path):
    def trial(name, kill=None):
        (tmp_path / f"{name}").mkdir()
        return run(create_one_alone, str(tmp_path / f"{name}" / "lab"), kill=kill)

    for k, kill in enumerate(moments(trial, 10, seed=2)):
        trial(f"killed-{k}", kill)
        url = tmp_path / f"killed-{k}" / "lab"
        if url.exists():
            assert neurostore.open(url).sessions().empty
            continue
        with pytest.raises(neurostore.NotFoundError, match=f"No store '{url}'") as caught:
            neurostore.open(url)
        assert caught.value.nearest == []  # what was left half-made beside it is no store
        store = neurostore.create(url)
        with store.transaction("after the crash") as tx:
            tx.put(session("new/s"))
        assert list(neurostore.open(url).sessions()["id"]) == ["new/s"]


@pytest.mark.parametrize("what", ["chunks", "snapshots"])
def test_on_a_full_disk_nothing_is_written_and_the_error_says_so(tmp_path, before, what):
    pytest.importorskip("resource")
    url = tmp_path / "lab"
    shutil.copytree(before.url, url)
    with neurostore.open(url).transaction("many") as tx:
        for k in range(20):
            tx.put(session(f"many/{k}", spikes=40))
    largest = {
        folder: max(file.stat().st_size for file in (url / folder).iterdir())
        for folder in ("chunks", "snapshots")
    }
    most = {"chunks": 1000, "snapshots": largest["snapshots"] - 10}[what]
    assert largest["chunks"] < largest["snapshots"] - 10
    (error,) = together((put_where_files_stay_small, str(url), "new/s", most))
    assert type(error) is neurostore.errors.StoreError, error
    assert "cannot be written" in error.line
    assert "os error 27" in error.line or "too large" in error.line
    store = neurostore.open(url)
    assert store.snapshot == tx.snapshot
    assert "new/s" not in store
    with store.transaction("again") as tx:
        tx.put(session("new/s"))
    assert store.validate(["new/s"]) == {"new/s": []}
