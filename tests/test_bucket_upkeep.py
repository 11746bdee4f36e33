"""Leases, gc and expiry in a bucket, where no lock is held and times are whole seconds."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from _object_store import BUCKET, served
from _writers import put_slowly, session, together, wheel

import neurostore
from neurostore.errors import MissingExtraError, StoreError, UsageError
from neurostore.store import _beside, _leases
from neurostore.store._beside import beside

NOW = timedelta(0)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with served(tmp_path_factory.mktemp("bucket")) as made:
        yield made


@pytest.fixture
def store(bucket, request):
    """A store with one session, d/s."""
    url = f"s3://{BUCKET}/{abs(hash(request.node.name)):x}"
    made = neurostore.create(url, bucket.options())
    with made.transaction("first") as tx:
        tx.put(session("d/s"))
    return made


@pytest.fixture
def files(store):
    return beside(store._form.place)


def a_second_later():
    """The store's times are whole seconds: what is written from now on is younger."""
    time.sleep(1.05)


def test_files_beside_a_repository_are_written_read_renewed_removed_and_listed(files):
    began = datetime.now(UTC).replace(microsecond=0)
    assert files.read("leases/a") is None
    assert files.renew("leases/a") is None
    assert files.list("leases") == {}
    first = files.write("leases/a", b"one")
    assert began <= first <= datetime.now(UTC)
    assert files.write("leases/b", b"two") >= first
    files.write("other", b"three")
    assert files.list("leases").keys() == {"leases/a", "leases/b"}
    assert files.list("leases")["leases/a"] == first
    assert files.read("leases/a") == b"one"
    assert files.write("leases/a", b"four") >= first
    a_second_later()
    renewed = files.renew("leases/a")
    assert renewed > first
    assert files.list("leases")["leases/a"] == renewed
    assert files.read("leases/a") == b"four"
    files.remove("leases/a")
    files.remove("leases/a")
    assert files.renew("leases/a") is None
    assert files.list("leases").keys() == {"leases/b"}


def test_a_file_that_comes_while_an_empty_folder_is_listed_does_no_harm(files, monkeypatch):
    listed = files.files._lsdir

    async def late(path, **options):
        found = await listed(path, **options)
        if path.endswith("/leases"):
            await files.files._pipe_file(f"{path}/a", b"one")
        return found

    monkeypatch.setattr(files.files, "_lsdir", late)
    assert files.list("leases") == {}
    monkeypatch.undo()
    assert files.list("leases").keys() == {"leases/a"}


def test_a_bucket_that_is_gone_is_said_for_every_call(store, bucket):
    lost = beside(replace(store._form.place, path="s3://no-such-box/lab"))
    for call in (lambda: lost.write("a", b""), lambda: lost.list("leases")):
        with pytest.raises(StoreError, match=r"neurostore/\w+ in s3://no-such-box/lab cannot be"):
            call()
    assert lost.read("a") is None


def test_what_reaches_a_bucket_and_is_not_installed_is_named(store, monkeypatch):
    monkeypatch.setitem(_beside.LIBRARIES, "s3", "no_such_library")
    with pytest.raises(MissingExtraError, match=r"neurostore\[s3\]"):
        store.transaction("x")


def test_a_transaction_holds_a_lease_until_it_is_over(store, files):
    for end in ("commit", "raise", "drop"):
        tx = store.transaction("one")
        (held,) = _leases.live(files, _leases.clock(files))
        assert held.base == store.snapshot
        if end == "commit":
            with tx:
                tx.update("d/s", wheel(8))
        elif end == "raise":
            with pytest.raises(ZeroDivisionError), tx:
                raise ZeroDivisionError
        else:
            del tx
            gc.collect()
        assert files.list("leases") == {}


def test_a_lease_given_back_while_it_is_renewed_does_not_come_back(store, files, monkeypatch):
    tx = store.transaction("one")
    real = type(files).renew

    def slowly(self, name):
        tx._draft.end()
        return real(self, name) or self.write(name, b"{}")

    monkeypatch.setattr(type(files), "renew", slowly)
    tx._draft.lease._pulse.renew()
    assert files.list("leases") == {}


def test_what_an_open_transaction_wrote_outlives_gc_and_what_a_dropped_one_wrote_does_not(
    store, files
):
    dropped = store.transaction("dropped")
    dropped.put(session("d/9", spikes=20_000))
    del dropped
    gc.collect()
    with store.transaction("slow") as tx:
        tx.put(session("d/9", spikes=20_000))
        a_second_later()
        done = store.gc(older_than=NOW)
        assert [one.base for one in done.held] == [store.snapshot]
        assert done.before < done.held[0].begun
        assert not any(done.files.values())  # the dropped one is as young
    assert neurostore.open(store.url, storage_options=store._form.place.options).validate() == {
        "d/9": [],
        "d/s": [],
    }
    a_second_later()
    assert store.gc(older_than=timedelta(days=1)).files["chunks"] == 0
    said = store.gc(older_than=NOW, dry_run=True)
    done = store.gc(older_than=NOW)
    assert (said.files, said.bytes) == (done.files, done.bytes)
    assert done.files["chunks"] >= 3
    assert not any(store.gc(older_than=NOW).files.values())
    assert store.validate() == {"d/9": [], "d/s": []}


def test_without_its_lease_the_same_commit_would_be_hollow(store, files, monkeypatch):
    """The danger is real: what follows is what the lease keeps from happening."""
    monkeypatch.setattr(_leases.Lease, "refuse_ended", lambda self: None)
    with store.transaction("slow") as tx:
        tx.put(session("d/9", spikes=20_000))
        a_second_later()
        (name,) = files.list("leases")
        files.remove(name)
        assert store.gc(older_than=NOW).files["chunks"] >= 3
    assert {one.check for one in store.validate(["d/9"])["d/9"]} == {"store/damage"}


def test_a_dead_lease_is_ended_by_gc_and_its_transaction_refuses_to_commit(
    store, files, monkeypatch
):
    tx, before = store.transaction("late"), store.snapshot
    tx.put(session("d/9", spikes=20_000))
    assert len(files.list("leases")) == 1
    time.sleep(2.1)
    with monkeypatch.context() as patch:
        patch.setattr(_leases, "SECONDS", 1.0)
        done = store.gc(older_than=NOW)
    assert done.held == ()
    assert done.files["chunks"] >= 3
    assert files.list("leases") == {}
    with pytest.raises(StoreError, match=r"lease.*has ended: its file is gone.*othing was"), tx:
        pass
    assert store.refresh().snapshot == before
    assert store.validate() == {"d/s": []}


def test_gc_beside_slow_writers_in_other_processes_keeps_their_commits(store, bucket):
    tasks = [(put_slowly, store.url, f"slow/{k}", 2, bucket.options()) for k in range(2)]
    made = together(*tasks, (collect, store.url, bucket.options()))
    assert all(isinstance(one, list) for one in made), made
    assert any(made.pop())
    store.refresh()
    assert {one.snapshot for one in store.log()} >= {id for one in made for id in one}
    assert set(map(tuple, store.validate().values())) == {()}


def collect(barrier, url, options):
    """Gc again and again for a few seconds; how many leases each one saw."""
    store, held = neurostore.open(url, storage_options=options), []
    barrier.wait(60)
    until = time.monotonic() + 3
    while len(held) < 3 or time.monotonic() < until:
        held.append(len(store.gc(older_than=NOW).held))
    return held


def test_history_goes_and_what_tags_and_branches_name_stays(store, bucket):
    store.tag("v1")
    side = store.branch("side")
    with side.transaction("aside") as tx:
        tx.put(session("d/aside"))
    for k in range(2):
        with store.transaction(f"put {k}") as tx:
            tx.put(session(f"d/{k}"))
    a_second_later()
    done = store.expire(keep=1)
    assert [one.message for one in done.commits] == ["put 0", "store created"]
    assert done.files is None  # not known ahead in a bucket
    store.gc(older_than=NOW)
    options = bucket.options()
    store = neurostore.open(store.url, storage_options=options)
    assert [one.message for one in store.log()] == ["put 1"]
    assert store.validate() == {"d/0": [], "d/1": [], "d/s": []}
    assert store.at("v1").validate() == {"d/s": []}
    side = neurostore.open(store.url, storage_options=options, branch="side")
    assert [one.message for one in side.log()] == ["aside"]
    assert side.validate() == {"d/aside": [], "d/s": []}
    with side.transaction("more") as tx:
        tx.put(session("d/more"))
    assert side.validate() == {"d/aside": [], "d/more": [], "d/s": []}


def test_a_tag_in_a_bucket_takes_no_name_of_a_branch(store):
    store.branch("side")
    with pytest.raises(UsageError, match="There is a branch 'side'"):
        store.tag("side")


def test_erase_says_that_it_searches_local_disks_only(store):
    with pytest.raises(UsageError, match="no local disk"):
        store.erase("d/s")
