"""A process killed at any moment leaves an old or a new snapshot, never one between."""

from __future__ import annotations

import random
import shutil
import time
from functools import partial

import pytest

import neurostore
from _writers import CONTEXT, create_and_stay, end_process, ingest_and_edit, session
from neurostore.simulate import simulate, write_nwb

KILLS = 30
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
        recording = simulate(k, units=8, seconds=120)
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


def killed(function, *arguments, after=None):
    """Begin a process, kill it some seconds after it has begun; gives how long it ran."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=function, args=(theirs, *arguments))
    process.start()
    theirs.close()
    try:
        assert ours.poll(120)
        assert ours.recv() == "begun"
        begun = time.perf_counter()
        if after is None:
            process.join(120)
            assert process.exitcode == 0
        else:
            time.sleep(after)
            process.kill()
        return time.perf_counter() - begun
    finally:
        ours.close()
        end_process(process)


def moments(run, count, seed):
    """Random moments, one in each of `count` equal parts of the longer of two undisturbed runs."""
    seconds = max(run(k) for k in range(2))
    rng = random.Random(seed)
    return [seconds * (k + rng.random()) / count for k in range(count)]


def check(url, states):
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
    with store.transaction("after the crash") as tx:
        tx.put(session("new/s"))
    again = neurostore.open(url)
    assert again.snapshot == tx.snapshot
    assert list(again.sessions()["id"]) == sorted([*ids, "new/s"])
    assert again.validate(["new/s"]) == {"new/s": []}
    return state


def test_an_ingest_killed_at_random_moments_leaves_an_old_or_a_new_snapshot(
    tmp_path, before, files
):
    def run(name, after=None):
        url = tmp_path / f"lab-{name}"
        shutil.copytree(before.url, url)
        return killed(ingest_and_edit, str(url), files, after=after)

    found = set()
    for k, after in enumerate(moments(run, KILLS, seed=1)):
        run(f"killed-{k}", after)
        found.add(check(tmp_path / f"lab-killed-{k}", STATES))
        shutil.rmtree(tmp_path / f"lab-killed-{k}")
    assert check(tmp_path / "lab-0", STATES) == 4
    assert len(found) > 1, "all kills came before the first commit, or after the last"


def test_a_create_killed_at_random_moments_leaves_no_store_or_a_whole_one(tmp_path):
    run = partial(_create, tmp_path)
    for k, after in enumerate(moments(run, 10, seed=2)):
        run(f"killed-{k}", after)
        url = tmp_path / f"killed-{k}" / "lab"
        if url.exists():
            assert neurostore.open(url).sessions().empty
            continue
        with pytest.raises(neurostore.NeurostoreError, match=f"No store '{url}'") as caught:
            neurostore.open(url)
        assert "Did you mean" not in caught.value.line  # not what was left half-made beside it
        store = neurostore.create(url)
        with store.transaction("after the crash") as tx:
            tx.put(session("new/s"))
        assert list(neurostore.open(url).sessions()["id"]) == ["new/s"]


def _create(folder, name, after=None):
    (folder / str(name)).mkdir()
    return killed(create_and_stay, str(folder / str(name) / "lab"), after=after)
