"""Several writers at one store: what is acknowledged is kept, and nobody overwrites anybody."""

from __future__ import annotations

import os
import threading

import filelock
import pytest
from _writers import (
    commit,
    commit_sessions,
    create_one,
    put_one,
    session,
    tag_often,
    together,
    update_one,
    wheel,
)

import neurostore
from neurostore.errors import ConflictError, StoreError, UsageError
from neurostore.store import _versions

TRIALS = int(os.environ.get("NEUROSTORE_TRIALS", "1"))


@pytest.fixture
def store(tmp_path):
    """A store with one session, d/s."""
    made = neurostore.create(tmp_path / "lab")
    with made.transaction("first") as tx:
        tx.put(session("d/s"))
    return made


@pytest.mark.parametrize("run", range(TRIALS))
def test_every_commit_of_eight_processes_is_kept_and_stands_in_the_catalogue(tmp_path, run):
    each = 20 if TRIALS > 1 else 5
    url = str(neurostore.create(tmp_path / "lab").url)
    made = together(*((commit_sessions, url, f"d{k % 3}-{k}", each) for k in range(8)))
    assert all(isinstance(one, list) for one in made), made
    snapshots = [snapshot for one in made for snapshot in one]
    store = neurostore.open(url)
    wanted = sorted(f"d{k % 3}-{k}/{i}" for k in range(8) for i in range(each))
    assert list(store.sessions()["id"]) == wanted  # held against the total in the commit
    log = store.log()
    assert {one.snapshot for one in log[:-1]} == set(snapshots)
    assert len(snapshots) == len(set(snapshots)) == len(log) - 1 == 8 * each
    assert [one.parent for one in log[:-1]] == [one.snapshot for one in log[1:]]
    assert log[0].metadata["catalogue"]["sessions"] == 8 * each
    some = wanted[run::16]
    assert store.validate(some) == {id: [] for id in some}


def test_of_two_processes_that_edit_one_session_one_wins_and_the_other_hears_of_it(store):
    url = store.url
    results = together(*((update_one, url, "d/s", seed) for seed in (1, 2)))
    (lost,) = [one for one in results if isinstance(one, Exception)]
    (won,) = [one for one in results if isinstance(one, str)]
    winner = results.index(won) + 1
    assert type(lost) is ConflictError
    assert "'behaviour/wheel' of 'd/s'" in lost.line or "behaviour/wheel of 'd/s'" in lost.line
    assert f"writer-{winner}@" in lost.line
    assert won in lost.line
    assert f"'update by {winner}'" in lost.line
    assert store.refresh().snapshot == won
    found = store.session("d/s").behaviour["wheel"].value.values
    assert (found == wheel(winner).columns["value"].values).all()
    assert len(store.log()) == 3


EDITS = {
    "update": lambda tx: tx.update("d/s", wheel(1)),
    "the same update": lambda tx: tx.update("d/s", wheel(1)),
    "another table": lambda tx: tx.update("d/s", wheel(2, "second")),
    "replace": lambda tx: tx.put(session("d/s", seed=3), replace=True),
    "replace by the same": lambda tx: tx.put(session("d/s"), replace=True),
    "delete": lambda tx: tx.delete("d/s"),
}


@pytest.mark.parametrize("later", EDITS)
@pytest.mark.parametrize("sooner", EDITS)
def test_two_edits_of_one_session_never_both_land_in_either_order(store, sooner, later):
    other = neurostore.open(store.url)
    tx = other.transaction("later")
    EDITS[later](tx)
    kept = commit(store, EDITS[sooner])
    with pytest.raises(ConflictError) as caught, tx:
        pass
    assert "d/s" in caught.value.line
    assert kept in caught.value.line
    assert ("was deleted" in caught.value.line) == (sooner == "delete")
    assert neurostore.open(store.url).snapshot == kept
    assert other.refresh().snapshot == kept
    assert not any(other.validate().values())
    assert ("d/s" in other) == (sooner != "delete")


def test_a_transaction_on_a_store_that_is_out_of_date_conflicts_where_it_matters(store):
    old = neurostore.open(store.url)
    commit(store, EDITS["update"])
    with pytest.raises(ConflictError, match="behaviour/wheel of 'd/s' was changed by "):
        commit(old, EDITS["delete"])
    commit(old, lambda tx: tx.put(session("d/other")))
    assert list(old.sessions()["id"]) == ["d/other", "d/s"]
    commit(old, EDITS["delete"])
    assert list(old.sessions()["id"]) == ["d/other"]


def test_the_first_two_sessions_of_a_new_dataset_written_at_once_both_land(tmp_path):
    url = neurostore.create(tmp_path / "lab").url
    results = together((put_one, url, "new/a", 1), (put_one, url, "new/b", 2))
    assert all(isinstance(one, str) for one in results), results
    store = neurostore.open(url)
    assert list(store.sessions()["id"]) == ["new/a", "new/b"]
    assert store.validate() == {"new/a": [], "new/b": []}


def test_of_two_writers_that_put_one_new_id_one_wins(tmp_path):
    url = neurostore.create(tmp_path / "lab").url
    results = together((put_one, url, "new/a", 1), (put_one, url, "new/a", 2))
    (lost,) = [one for one in results if isinstance(one, Exception)]
    (won,) = [one for one in results if isinstance(one, str)]
    assert type(lost) is ConflictError
    assert lost.line.startswith(f"'new/a' was added by writer-{results.index(won) + 1}@")
    store = neurostore.open(url)
    assert store.snapshot == won
    assert store.validate() == {"new/a": []}


def test_tags_made_while_others_commit_name_what_they_were_made_on(tmp_path):
    url = neurostore.create(tmp_path / "lab").url
    results = together(
        (tag_often, url, 12), (commit_sessions, url, "a", 8), (commit_sessions, url, "b", 8)
    )
    tags = results[0]
    store = neurostore.open(url)
    assert len(store.sessions()) == 16
    assert {name: store.at(name).snapshot for name in tags} == tags
    assert {name: one.snapshot for one in store.log() for name in one.tags} == tags
    with pytest.raises(UsageError, match="tags never move"):
        store.tag("tag-0")


def test_of_several_creators_at_one_place_one_wins(tmp_path):
    for k in range(3):
        url = str(tmp_path / f"lab{k}")
        results = together(*((create_one, url) for _ in range(4)))
        (won,) = [one for one in results if isinstance(one, str)]
        lost = [one for one in results if isinstance(one, Exception)]
        assert {type(one) for one in lost} == {UsageError}
        assert all("Open it instead" in one.line for one in lost)
        assert neurostore.open(url).snapshot == won
    assert sorted(one.name for one in tmp_path.iterdir()) == ["lab0", "lab1", "lab2"]


def test_threads_write_one_store_in_memory():
    url = "memory://threads"
    neurostore.create(url)
    errors: list[BaseException] = []

    def write(name: str) -> None:
        try:
            store = neurostore.open(url)
            for k in range(5):
                commit(store, lambda tx, k=k: tx.put(session(f"{name}/{k}")))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(f"d{k}",), daemon=True) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    store = neurostore.open(url)
    assert len(store.sessions()) == 20
    assert len(store.log()) == 21


def test_a_store_shows_its_own_snapshot_until_it_is_refreshed(store):
    reader = neurostore.open(store.url)
    lazy = reader.session("d/s").behaviour["wheel"]
    commit(store, EDITS["delete"])
    assert lazy.value.shape == (500,)
    assert lazy.value.values.any()
    assert "d/s" in reader
    assert "d/s" not in reader.refresh()


def test_a_transaction_that_raises_changes_nothing(store):
    before = store.snapshot
    tx = store.transaction("half")
    tx.put(session("d/half"))
    tx.delete("d/s")
    with pytest.raises(ZeroDivisionError), tx:
        raise ZeroDivisionError
    assert tx.snapshot == store.snapshot == neurostore.open(store.url).snapshot == before
    assert list(store.sessions()["id"]) == ["d/s"]
    assert len(store.log()) == 2


def hold(monkeypatch, path):
    monkeypatch.setattr(_versions, "LOCK_SECONDS", 0.2)
    return filelock.FileLock(path)


def no_lock(self):
    raise NotImplementedError("FileSystem does not appear to support flock")


@pytest.mark.parametrize("why", ["held", "impossible"])
def test_where_no_lock_can_be_had_nothing_is_written(store, monkeypatch, tmp_path, why):
    before = store.snapshot
    with monkeypatch.context() as patch:
        if why == "held":
            held = hold(patch, tmp_path / "lab" / "neurostore.lock")
            held.acquire()
        else:
            held = None
            patch.setattr(filelock.FileLock, "_acquire", no_lock)
        with pytest.raises(StoreError, match=r"neurostore\.lock.*othing was written"):
            commit(store, EDITS["delete"])
        with pytest.raises(StoreError, match=r"neurostore\.lock"):
            store.tag("v1")
        assert neurostore.open(store.url).snapshot == store.snapshot == before
        assert not [name for one in store.log() for name in one.tags]
        assert "d/s" in store  # reading needs no lock
        if held is not None:
            held.release()
    commit(store, EDITS["delete"])
    assert "d/s" not in store
