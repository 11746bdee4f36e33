"""Leases, gc and expiry: what goes is garbage, and nothing that anybody still needs."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import icechunk
import pytest
from _writers import CONTEXT, end_process, put_slowly, session, together, wheel

import neurostore
from neurostore import cli
from neurostore.errors import DamagedError, StoreError, UsageError
from neurostore.store import _leases
from neurostore.store._beside import beside

NOW = timedelta(0)


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    place = tmp_path / "lab" if request.param == "local" else f"memory://{tmp_path}"
    return filled(neurostore.create(place))


@pytest.fixture
def local(tmp_path):
    return filled(neurostore.create(tmp_path / "lab"))


def filled(store):
    """Five commits: a session each, the third one tagged, the last one changes the first."""
    for k in range(3):
        put(store, k)
    store.tag("v1")
    with store.transaction("the wheel again") as tx:
        tx.update("d/0", wheel(7))
    return store


def put(store, k):
    with store.transaction(f"put {k}") as tx:
        tx.put(session(f"d/{k}", seed=k))
    return tx.snapshot


def leases(store):
    return sorted(beside(store._form.place).list("leases"))


def contents(url):
    """Every file of a repository, but for the lock, by its digest."""
    found = sorted(one for one in Path(url).rglob("*") if one.is_file())
    return {
        str(one.relative_to(url)): hashlib.sha256(one.read_bytes()).hexdigest() for one in found
    }


# ---- leases


def test_a_transaction_holds_a_lease_until_it_is_over(store):
    for end in ("commit", "raise", "drop"):
        tx = store.transaction("one")
        (name,) = leases(store)
        said = json.loads(beside(store._form.place).read(name))
        assert said["pid"] == os.getpid()
        assert said["base"] == store.snapshot
        if end == "commit":
            with tx:
                tx.update("d/1", wheel(8))
        elif end == "raise":
            with pytest.raises(ZeroDivisionError), tx:
                raise ZeroDivisionError
        else:
            del tx
            gc.collect()
        assert leases(store) == []
    assert not [one for one in threading.enumerate() if one.name.startswith("leases/")] or _ended()


def _ended():
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not [one for one in threading.enumerate() if one.name.startswith("leases/")]:
            return True
        time.sleep(0.01)
    return False


def test_a_lease_whose_file_is_gone_refuses_to_commit(store):
    before = store.snapshot
    tx = store.transaction("late")
    tx.update("d/1", wheel(8))
    beside(store._form.place).remove(leases(store)[0])
    with pytest.raises(StoreError, match=r"lease.*its file is gone.*begin the transaction"), tx:
        pass
    assert neurostore.open(store.url).snapshot == store.snapshot == before


def test_a_lease_that_was_not_renewed_in_time_refuses_to_commit(store, monkeypatch):
    monkeypatch.setattr(_leases, "SECONDS", 0.05)
    before = store.snapshot
    tx = store.transaction("late")
    tx.update("d/1", wheel(8))
    time.sleep(0.2)
    with pytest.raises(StoreError, match=r"was not renewed for [\d,]+ s"), tx:
        pass
    assert neurostore.open(store.url).snapshot == before
    assert leases(store) == []


def test_a_lease_is_renewed_while_the_main_thread_is_busy(store, monkeypatch):
    monkeypatch.setattr(_leases, "BEAT", 0.01)
    with store.transaction("long") as tx:
        tx.update("d/1", wheel(8))
        files, (name,) = beside(store._form.place), leases(store)
        first, until = files.list("leases")[name], time.monotonic() + 60
        while files.list("leases")[name] == first and time.monotonic() < until:
            sum(range(100_000))  # no sleep: a computation
        assert files.list("leases")[name] > first
    assert store.log(1)[0].message == "long"


def test_a_child_that_is_forked_ends_no_lease(local):
    tx = local.transaction("parent")
    child = os.fork()
    if not child:
        tx._draft.end()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(leases(local)) == 1
    with tx:
        tx.update("d/1", wheel(8))
    assert local.log(1)[0].message == "parent"


# ---- gc


def test_gc_counts_and_then_removes_what_a_dropped_transaction_wrote(store):
    tx = store.transaction("dropped")
    tx.put(session("d/9", spikes=20_000))
    del tx
    gc.collect()
    assert store.gc().files == dict.fromkeys(
        ("chunks", "manifests", "snapshots", "transactions", "leftovers"), 0
    )
    said = store.gc(older_than=NOW, dry_run=True)
    done = store.gc(older_than=NOW)
    assert said.files == done.files
    assert said.bytes == done.bytes > 10_000
    assert said.files["chunks"] >= 3
    assert not any(store.gc(older_than=NOW).files.values())
    assert not any(store.validate().values())


def test_a_dry_run_of_gc_changes_nothing(local):
    tx = local.transaction("dropped")
    tx.put(session("d/9"))
    del tx
    gc.collect()
    before = contents(local.url)
    assert local.gc(older_than=NOW, dry_run=True).bytes > 0
    assert contents(local.url) == before


def test_gc_takes_what_a_killed_writer_left_half_way(local):
    root = Path(local.url)
    left = [root / kind / "ABC#1" for kind in ("chunks", "manifests", "snapshots", "refs")]
    for one in left:
        one.write_bytes(b"half")
    assert local.gc(dry_run=True).files["leftovers"] == 0
    assert local.gc(older_than=NOW).files["leftovers"] == 4
    assert not any(one.exists() for one in left)


def test_gc_takes_nothing_that_an_open_transaction_wrote(store):
    with store.transaction("slow") as tx:
        tx.put(session("d/9", spikes=20_000))
        done = store.gc(older_than=NOW)
        (held,) = done.held
        assert held.base == store.snapshot
        assert done.before < held.begun
        assert not any(done.files.values())
    assert not any(store.validate().values())


def test_without_its_lease_the_same_commit_would_be_hollow(local, monkeypatch):
    """The danger is real: what follows is what the lease keeps from happening."""
    monkeypatch.setattr(_leases.Lease, "refuse_ended", lambda self: None)
    with local.transaction("slow") as tx:
        tx.put(session("d/9", spikes=20_000))
        beside(local._form.place).remove(leases(local)[0])
        assert local.gc(older_than=NOW).files["chunks"] >= 3
    assert {one.check for one in local.validate(["d/9"])["d/9"]} == {"store/damage"}


def test_gc_beside_slow_writers_in_other_processes_keeps_their_commits(local):
    tasks = [(put_slowly, local.url, f"slow/{k}", 3) for k in range(3)]
    stop = threading.Event()
    done = []

    def collect():
        while not stop.is_set():
            done.append(local.gc(older_than=NOW))

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        made = together(*tasks)
    finally:
        stop.set()
        thread.join(60)
    assert all(isinstance(one, list) for one in made), made
    assert len(done) >= 3
    store = neurostore.open(local.url)
    assert {one.snapshot for one in store.log()} >= {id for one in made for id in one}
    assert not any(store.validate().values())


def test_a_writer_that_was_suspended_too_long_is_refused_and_never_hollow(local, monkeypatch):
    """gc ends the lease of a process that is stopped; when it goes on, its commit is refused."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=put_when_told, args=(theirs, local.url, 1.0))
    process.start()
    try:
        assert ours.poll(60)
        ours.recv()
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(1.5)
        monkeypatch.setattr(_leases, "SECONDS", 1.0)
        done = local.gc(older_than=NOW)
        assert done.held == ()
        assert done.files["chunks"] >= 3
        os.kill(process.pid, signal.SIGCONT)
        ours.send("commit")
        assert ours.poll(60)
        error = ours.recv()
    finally:
        end_process(process)
    assert isinstance(error, StoreError)
    assert "The lease of this transaction has ended" in error.line
    store = neurostore.open(local.url)
    assert "slow/s" not in store
    assert not any(store.validate().values())


def put_when_told(end, url, seconds):
    _leases.SECONDS, _leases.BEAT = seconds, 0.1
    tx = neurostore.open(url).transaction("slow")
    tx.put(session("slow/s", spikes=20_000))
    end.send("written")
    end.recv()
    try:
        with tx:
            pass
        end.send(tx.snapshot)
    except neurostore.NeurostoreError as error:
        end.send(error)


def test_gc_says_what_is_no_lease(store):
    beside(store._form.place).write("leases/other", b"no lease")
    with pytest.raises(StoreError, match="neurostore/leases/other is no lease"):
        store.gc(older_than=NOW)
    with pytest.raises(UsageError, match="grace period is negative"):
        store.gc(older_than=timedelta(days=-1))


# ---- expiry


def test_history_goes_and_what_is_tagged_or_newest_stays(store):
    before = store.log()
    lineage = {id: store.session(id).attrs["lineage"] for id in store.sessions()["id"]}
    said = store.expire(keep=1, dry_run=True)
    assert store.log() == before
    done = store.expire(keep=1)
    assert done == said
    assert [one.message for one in done.commits] == ["put 1", "put 0", "store created"]
    store = neurostore.open(store.url)
    assert [one.message for one in store.log()] == ["the wheel again"]
    assert [one.message for one in store.at("v1").log()] == ["put 2"]
    assert list(store.at("v1").sessions()["id"]) == ["d/0", "d/1", "d/2"]
    assert {id: store.session(id).attrs["lineage"] for id in lineage} == lineage
    (record,) = store.expiries
    assert record["commits"] == 3
    store.gc(older_than=NOW)
    assert not any(store.validate().values())
    assert not any(store.at("v1").validate().values())
    put(store, 5)
    assert [one.message for one in store.log()] == ["put 5", "the wheel again"]
    assert store.expire(keep=9).commits == ()


def test_what_a_branch_names_stays_and_what_it_alone_held_goes_with_it(store):
    side = store.at("v1").branch("side")
    for k in (7, 8):
        put(side, k)
    idle = store.at(store.log()[2].snapshot).branch("idle")  # its newest commit is "put 1"
    before = {name: neurostore.open(store.url, branch=name).log() for name in store.branches}
    store.gc(older_than=NOW)
    assert {
        name: neurostore.open(store.url, branch=name).log() for name in store.branches
    } == before
    put(store, 5)
    done = store.expire(keep=1)  # the date of the newest commit on main, and so for all branches
    messages = ["put 7", "the wheel again", "put 0", "store created"]
    assert sorted(one.message for one in done.commits) == sorted(messages)
    store.gc(older_than=NOW)
    histories = {"main": ["put 5"], "side": ["put 8"], "idle": ["put 1"]}
    for name, messages in histories.items():
        opened = neurostore.open(store.url, branch=name)
        assert [one.message for one in opened.log()] == messages
        assert not any(opened.validate().values())
    assert list(side.refresh().sessions()["id"]) == ["d/0", "d/1", "d/2", "d/7", "d/8"]
    put(idle, 9)
    assert [one.message for one in idle.log()] == ["put 9", "put 1"]
    store.delete_branch("side")
    assert store.gc(older_than=NOW).files["snapshots"] == 1
    for opened in (store.refresh(), store.at("v1"), idle):
        assert not any(opened.validate().values())


def test_an_open_transaction_on_a_branch_is_kept_from_gc(store):
    side = store.branch("side")
    with side.transaction("slow") as tx:
        tx.put(session("d/9", spikes=20_000))
        (held,) = store.gc(older_than=NOW).held
        assert held.base == side.snapshot
    assert not any(side.validate().values())


def test_the_bytes_a_dry_run_names_are_those_that_gc_frees(local):
    with local.transaction("large") as tx:
        tx.put(session("d/9", spikes=50_000))
    with local.transaction("gone") as tx:
        tx.delete("d/9")
    tx = local.transaction("dropped")  # garbage of its own, which is no part of it
    tx.put(session("d/8"))
    del tx
    gc.collect()
    local.gc(older_than=NOW, dry_run=True)
    before = contents(local.url)
    said = local.expire(keep=1, dry_run=True)
    assert contents(local.url) == before
    assert local.expire(keep=1).bytes == said.bytes > 50_000
    garbage = local.gc(older_than=NOW, dry_run=True)
    assert garbage.files["snapshots"] == said.files["snapshots"] == 5
    assert garbage.files["chunks"] > said.files["chunks"] >= 3
    assert garbage.bytes > said.bytes


def test_history_goes_by_date_and_more_than_once(store):
    third = store.log()[1]
    with pytest.raises(UsageError, match="says no time zone"):
        store.expire(before=datetime(2020, 1, 1))
    for wrong in ({}, {"keep": 1, "before": datetime.now(UTC)}, {"keep": 0}):
        with pytest.raises(UsageError):
            store.expire(**wrong)
    assert store.expire(before=datetime(2020, 1, 1, tzinfo=UTC)).commits == ()
    assert store.expiries == []
    done = store.expire(before=third.time)
    assert [one.message for one in done.commits] == ["put 1", "put 0", "store created"]
    assert [one.message for one in store.log()] == ["the wheel again", "put 2"]
    put(store, 5)
    assert [one.message for one in store.expire(keep=1).commits] == ["the wheel again"]
    assert [one.message for one in store.log()] == ["put 5"]
    assert [one.message for one in store.at("v1").log()] == ["put 2"]
    assert len(store.expiries) == 2


def test_what_an_open_transaction_builds_on_does_not_expire(store):
    with store.transaction("slow") as tx:
        other = neurostore.open(store.url)
        put(other, 5)
        put(other, 6)
        assert store.expire(keep=1).commits[0].message == "put 1"
        store.gc(older_than=NOW)
        tx.put(session("d/9"))
    messages = [one.message for one in store.log()]
    assert messages == ["slow", "put 6", "put 5", "the wheel again"]


def test_a_transaction_on_a_branch_that_is_gone_holds_up_no_expiry(local):
    side = local.branch("side")
    put(side, 7)
    tx = side.transaction("late").__enter__()
    tx.put(session("d/late"))
    local.delete_branch("side")
    local.gc(older_than=NOW)
    put(local, 8)
    put(local, 9)
    again = neurostore.open(local.url)  # which has nothing of the branch in memory
    assert "put 8" in [one.message for one in again.expire(keep=1).commits]
    with pytest.raises(neurostore.NeurostoreError, match="side"):
        tx.__exit__(None, None, None)
    assert not any(local.validate().values())


@pytest.mark.parametrize(
    "words",
    [
        ["du"],
        ["gc", "--dry-run"],
        ["expire", "--keep", "1"],
        ["erase", "d/1", "--dry-run"],
        ["log"],
        ["tag"],
    ],
    ids=lambda words: words[0],
)
def test_a_damaged_tag_is_one_clear_line_to_all_that_look_at_tags(local, capsys, words):
    path = Path(local.url, "refs", "tag.v1", "ref.json")
    path.write_bytes(path.read_bytes()[:-6])
    assert cli.main([words[0], local.url, *words[1:]]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert f"The store at {local.url} cannot be read" in line
    assert "neurostore verify" in line


def test_a_history_that_breaks_off_where_nothing_expired_is_damage(local):
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(local.url))
    repository.expire_snapshots(datetime.now(UTC))  # not by us: it is recorded nowhere
    with pytest.raises(DamagedError, match="breaks off"):
        neurostore.open(local.url).log()


def test_a_record_of_expiry_that_was_changed_is_damage(local):
    local.expire(keep=1)
    (path,) = Path(local.url, "neurostore", "expired").iterdir()
    path.write_text(path.read_text().replace('"commits": 3', '"commits": 2'))
    with pytest.raises(DamagedError, match=r"expired/.*\.json is not what was written"):
        neurostore.open(local.url).log()


# ---- commands


def test_the_commands_say_first_what_goes(local, capsys):
    with local.transaction("gone") as tx:
        tx.delete("d/1")
    assert cli.main(["expire", local.url, "--keep", "1", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "put 1" in said
    assert "Dry run: nothing was changed." in said
    assert cli.main(["expire", local.url, "--keep", "1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["commits"]) == 4
    assert cli.main(["log", local.url]) == 0
    assert "What was before" in capsys.readouterr().out
    assert cli.main(["gc", local.url, "--dry-run"]) == 0
    assert "would be removed" in capsys.readouterr().out
    assert cli.main(["gc", local.url, "--older-than", "0d", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"]["snapshots"] == 4
    assert cli.main(["gc", local.url, "--older-than", "soon"]) == 2
    assert "7d" in capsys.readouterr().err
    assert cli.main(["expire", local.url, "--before", "yesterday"]) == 2
    assert "'yesterday' is no date: it is not written as 2026-" in capsys.readouterr().err


def test_an_expiry_says_what_stays_and_the_log_which_tags_hold_more(local, capsys):
    first = local.log()[-2].snapshot
    local.at(first).tag("w1")
    local.tag("w2")
    head = local.snapshot
    for more in (["--dry-run"], []):
        assert cli.main(["expire", local.url, "--keep", "1", *more]) == 0
        said = capsys.readouterr().out
        assert f"stays: branch main: 1 commit, since {head} of " in said
        assert f"stays: tag w1: 1 commit, since {first} of " in said
    assert cli.main(["expire", local.url, "--keep", "1", "--dry-run", "--json"]) == 0
    names = [one["name"] for one in json.loads(capsys.readouterr().out)["stays"]]
    assert names == ["branch main", "tag v1", "tag w1", "tag w2"]
    assert cli.main(["log", local.url, "--limit", "1"]) == 0
    out = capsys.readouterr().out
    (line,) = [one for one in out.splitlines() if one.startswith("Tags hold older snapshots: ")]
    assert "w1 of " in line
    assert "w2" not in line
    assert line.endswith(f"See: neurostore log {local.url} --at v1")
    assert cli.main(["log", local.url, "--at", "w1"]) == 0
    assert "Tags hold" not in capsys.readouterr().out
