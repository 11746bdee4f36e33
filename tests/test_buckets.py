"""A repository in a bucket: several writers, several creators, one that is killed; few requests."""

from __future__ import annotations

import os
import pickle
import random
import time

import icechunk
import numpy as np
import pytest
from _object_store import BUCKET, served
from _writers import (
    CONTEXT,
    commit,
    commit_sessions,
    commit_until_killed,
    create_one,
    end_process,
    put_one,
    session,
    tag_one,
    together,
    update_one,
    wheel,
)

import neurostore
from neurostore.errors import ConflictError, NotFoundError, StoreError, UsageError
from neurostore.store import _bucket_versions
from neurostore.store._bucket_versions import BucketVersions

TRIALS = int(os.environ.get("NEUROSTORE_TRIALS", "1"))


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with served(tmp_path_factory.mktemp("bucket")) as made:
        yield made


@pytest.fixture
def url(request):
    return f"s3://{BUCKET}/{abs(hash(request.node.name)):x}"


@pytest.fixture
def store(bucket, url):
    """A store with one session, d/s."""
    made = neurostore.create(url, bucket.options())
    with made.transaction("first") as tx:
        tx.put(session("d/s"))
    return made


@pytest.mark.parametrize("run", range(TRIALS))
def test_every_commit_of_four_processes_is_kept_and_stands_in_the_history(bucket, url, run):
    each = 10 if TRIALS > 1 else 4
    store = neurostore.create(url, bucket.options())
    # two of them write one dataset, new to all: its group is made once
    tasks = [(commit_sessions, url, f"d{k // 2}-{k % 2}", each, bucket.options()) for k in range(4)]
    made = together(*tasks, seconds=900)
    assert all(isinstance(one, list) for one in made), made
    snapshots = [snapshot for one in made for snapshot in one]
    store.refresh()
    wanted = sorted(f"d{k // 2}-{k % 2}/{i}" for k in range(4) for i in range(each))
    assert list(store.sessions()["id"]) == wanted  # held against the total in the commit
    log = store.log()
    assert len(snapshots) == len(set(snapshots)) == 4 * each
    assert {one.snapshot for one in log[:-1]} == set(snapshots)
    assert [one.parent for one in log[:-1]] == [one.snapshot for one in log[1:]]
    assert log[0].metadata["catalogue"]["sessions"] == 4 * each
    assert store.validate(wanted[::7]) == {id: [] for id in wanted[::7]}


def test_the_first_two_sessions_of_a_new_dataset_written_at_once_both_land(bucket, url):
    neurostore.create(url, bucket.options())
    tasks = [(put_one, url, f"new/{name}", k, bucket.options()) for k, name in enumerate("ab")]
    results = together(*tasks)
    assert all(isinstance(one, str) for one in results), results
    store = neurostore.open(url, storage_options=bucket.options())
    assert list(store.sessions()["id"]) == ["new/a", "new/b"]
    assert store.validate() == {"new/a": [], "new/b": []}


def test_of_two_processes_that_edit_one_session_one_wins_and_the_other_hears_of_it(bucket, store):
    results = together(*((update_one, store.url, "d/s", k, bucket.options()) for k in (1, 2)))
    (lost,) = [one for one in results if isinstance(one, Exception)]
    (won,) = [one for one in results if isinstance(one, str)]
    winner = results.index(won) + 1
    assert type(lost) is ConflictError
    assert "behaviour/wheel of 'd/s'" in lost.line
    assert f"writer-{winner}@" in lost.line
    assert won in lost.line
    found = store.refresh().session("d/s").behaviour["wheel"].value.values
    assert (found == wheel(winner).columns["value"].values).all()
    assert len(store.log()) == 3


EDITS = {
    "update": lambda tx: tx.update("d/s", wheel(1)),
    "replace": lambda tx: tx.put(session("d/s", seed=3), replace=True),
    "delete": lambda tx: tx.delete("d/s"),
}


def test_two_edits_of_one_session_never_both_land(bucket, store):
    for sooner, later in [("update", "replace"), ("replace", "delete"), ("delete", "update")]:
        other = neurostore.open(store.url, storage_options=bucket.options())
        tx = other.transaction("later")
        EDITS[later](tx)
        kept = commit(store, EDITS[sooner])
        with pytest.raises(ConflictError) as caught, tx:
            pass
        assert "'d/s'" in caught.value.line
        assert kept in caught.value.line
        assert ("was deleted" in caught.value.line) == (sooner == "delete")
        assert store.refresh().snapshot == kept


def test_of_several_creators_at_one_place_one_wins(bucket, url):
    for k in range(2):
        results = together(*((create_one, f"{url}-{k}", bucket.options()) for _ in range(3)))
        (won,) = [one for one in results if isinstance(one, str)]
        lost = [one for one in results if isinstance(one, Exception)]
        assert {type(one) for one in lost} == {UsageError}, lost
        assert all("Open it instead" in one.line for one in lost)
        store = neurostore.open(f"{url}-{k}", storage_options=bucket.options())
        assert store.snapshot == won
        assert [one.message for one in store.log()] == ["store created"]


def test_what_a_creator_left_half_made_is_completed_by_the_next_one(bucket, url, monkeypatch):
    def killed(store):
        raise KeyboardInterrupt

    place = neurostore.store.urls.parse(url, bucket.options())
    with pytest.raises(KeyboardInterrupt):
        BucketVersions.create(place, killed, {})
    with pytest.raises(StoreError, match="create it again, which completes it"):
        neurostore.open(url, storage_options=bucket.options())
    store = neurostore.create(url, bucket.options())
    assert [one.message for one in store.log()] == ["store created"]


def test_a_prefix_that_holds_other_things_is_refused(bucket, url):
    prefix = url.removeprefix(f"s3://{BUCKET}/")
    bucket.client().put_object(Bucket=BUCKET, Key=f"{prefix}/notes.txt", Body=b"mine")
    with pytest.raises(UsageError, match="is not empty, and no store"):
        neurostore.create(url, bucket.options())
    assert bucket.keys(prefix) == [f"{prefix}/notes.txt"]
    with pytest.raises(NotFoundError, match="No store"):
        neurostore.open(url, storage_options=bucket.options())


def test_of_several_tags_of_one_name_one_is_made(bucket, store):
    results = together(*((tag_one, store.url, "v1", bucket.options()) for _ in range(4)))
    (won,) = [one for one in results if isinstance(one, str)]
    lost = [one for one in results if isinstance(one, Exception)]
    assert {type(one) for one in lost} == {UsageError}
    assert all(f"'v1' names {won} already; tags never move" in one.line for one in lost)
    commit(store, EDITS["delete"])
    then = neurostore.open(f"{store.url}@v1", storage_options=bucket.options())
    assert then.snapshot == won
    assert "d/s" in then


def test_a_writer_killed_at_random_moments_leaves_a_store_with_all_it_acknowledged(bucket, url):
    store, rng = neurostore.create(url, bucket.options()), random.Random(1)
    told: list[str] = []
    for k in range(2 * TRIALS):
        ours, theirs = CONTEXT.Pipe(duplex=False)
        target = f"{url}-{k}"
        store = neurostore.create(target, bucket.options())
        process = CONTEXT.Process(
            target=commit_until_killed, args=(theirs, target, bucket.options())
        )
        process.start()
        theirs.close()
        told = [ours.recv()]
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        process.join(30)
        while ours.poll(0.1):
            try:
                told.append(ours.recv())
            except EOFError:
                break
        ours.close()
        end_process(process)
        log = store.refresh().log()
        found = [one.snapshot for one in log[::-1]][1:]
        assert found[: len(told)] == told
        assert len(found) <= len(told) + 1
        assert store.validate() == {f"killed/{i}": [] for i in range(len(found))}
        commit(store, lambda tx: tx.put(session("new/s")))
        assert "new/s" in neurostore.open(target, storage_options=bucket.options())


def test_a_commit_whose_answer_is_lost_is_known_by_its_transaction(store, monkeypatch):
    real = icechunk.Session.commit

    def lost(self, *args, **more):
        real(self, *args, **more)
        raise icechunk.ConflictError("a", "b")

    monkeypatch.setattr(icechunk.Session, "commit", lost)
    made = commit(store, lambda tx: tx.put(session("d/t")))
    monkeypatch.undo()
    assert store.refresh().snapshot == made
    assert [one.message for one in store.log()].count("meanwhile") == 1


def test_a_writer_that_is_never_first_gives_up_after_its_time(store, monkeypatch):
    monkeypatch.setattr(_bucket_versions, "LOCK_SECONDS", 0.3)
    monkeypatch.setattr(BucketVersions, "_attempt", lambda *args: None)
    before = store.snapshot
    with pytest.raises(StoreError, match=r"without a break for 0\.3 s. Nothing was written"):
        commit(store, EDITS["delete"])
    monkeypatch.undo()
    assert store.refresh().snapshot == before


def test_a_store_in_a_bucket_opens_in_few_requests_and_its_catalogue_is_kept(bucket, store):
    def again():
        return neurostore.open(store.url, storage_options=bucket.options())

    first = again().sessions()
    with bucket.counted() as opening:
        opened = again()
    assert opening.total() <= 5, opening
    with bucket.counted() as none:
        assert opened.sessions().equals(first)
    assert none.total() == 0, none
    span = opened.session("d/s")
    expected = span.counts(10, 11, 0.02)
    with bucket.counted() as warm:
        assert again().session("d/s").counts(10, 11, 0.02).equals(expected)
    assert warm.total() == opening.total(), warm


def test_another_repository_with_the_same_snapshot_has_a_catalogue_of_its_own(bucket, store):
    prefix = store.url.removeprefix(f"s3://{BUCKET}/")
    client = bucket.client()
    for key in bucket.keys(prefix):
        copy = {"Bucket": BUCKET, "Key": key}
        client.copy_object(Bucket=BUCKET, Key=f"copy-{key}", CopySource=copy)
    other = neurostore.open(f"s3://{BUCKET}/copy-{prefix}", storage_options=bucket.options())
    assert other.snapshot == store.snapshot
    store.sessions()
    assert other._form.cached(store.snapshot) is None
    assert other.sessions().equals(store.sessions())


def test_a_store_and_a_dataset_go_to_another_process_with_their_options(bucket, store):
    again = pickle.loads(pickle.dumps(store))
    assert again.sessions().equals(store.sessions())
    torch = pytest.importorskip("torch")
    streams = {"spikes": neurostore.Spikes(bin=0.02)}
    dataset = neurostore.Dataset(store, window=neurostore.Window(1.0), streams=streams)
    batches = [list(dataset.loader(8, seed=0, workers=count)) for count in (0, 1)]
    assert len(batches[0]) == len(batches[1]) > 1
    for ours, theirs in zip(*batches, strict=True):
        assert torch.equal(ours["spikes"], theirs["spikes"])
    assert np.isfinite(batches[0][0]["spikes"].numpy()).all()
