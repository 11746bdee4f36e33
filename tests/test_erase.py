"""A session that is erased is gone from every file, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from _writers import session, wheel

import neurostore
from neurostore import cache, cli
from neurostore.errors import NotFoundError, StoreError, UsageError
from neurostore.store import _erase, _traces

GONE = "lab/withdrawn"
CHUNKS = 11
"""Different ones of that session: one of each of its 10 arrays, and that of its second wheel."""


@pytest.fixture
def store(tmp_path):
    """Three sessions, one of them edited; a tag before, one with and a split over it."""
    made = neurostore.create(tmp_path / "lab")
    with made.transaction("one") as tx:
        tx.put(session("lab/a", seed=1))
    made.tag("before")
    with made.transaction("two") as tx:
        tx.put(session(GONE, seed=2, spikes=20_000))
        tx.put(session("lab/withdrawn-2", seed=3))  # a longer name, which is no trace
    made.tag("with")
    with made.transaction("the wheel again") as tx:
        tx.update(GONE, wheel(4))
    return made


def split_of(store, *ids):
    lines = [store.session(id).timeline() for id in ids]
    return neurostore.splits.interleaved_blocks(
        "blocks", lines, block=10, ratios={"train": 1, "test": 1}
    )


def values(store, id):
    found = store.session(id)
    return {name: found[name].to_dict() for name in found.tables}


def stored(url):
    return {str(one): one.read_bytes() for one in Path(url).rglob("*") if one.is_file()}


def test_an_erased_session_is_in_no_file_and_the_others_are_as_they_were(store):
    store.session(GONE).counts(0, 10, 0.1)  # into the window cache
    keys = [*_erase._cache_keys(store, store.snapshot, GONE)]
    assert any(cache.current()._path(key).exists() for key in keys)
    with store.transaction("a split") as tx:
        tx.put(split_of(store, "lab/a", GONE))
    kept = {id: repr(values(store, id)) for id in ("lab/a", "lab/withdrawn-2")}
    before = stored(store.url)
    said = store.erase(GONE, dry_run=True)
    assert {k: v for k, v in stored(store.url).items() if v != before.get(k)} == {}
    assert said.tags == ("with",)
    assert said.splits == ("/splits/blocks/v1",)
    assert [one.message for one in said.commits] == [
        "a split",
        "the wheel again",
        "two",
        "store created",
    ]
    with pytest.raises(UsageError, match="lab/withdrawn stands in /splits/blocks/v1"):
        store.erase(GONE)
    done = store.erase(GONE, with_splits=True)
    assert done.found == ()
    assert done.files == len(stored(store.url))
    assert done.chunks == CHUNKS
    again = neurostore.open(store.url)
    assert list(again.sessions()["id"]) == ["lab/a", "lab/withdrawn-2"]
    assert {id: repr(values(again, id)) for id in kept} == kept
    assert not any(again.validate().values())
    assert list(again.at("before").sessions()["id"]) == ["lab/a"]
    assert [one.message for one in again.log()] == [_erase.MESSAGE]
    assert again.split("blocks").sessions == ("lab/a",)
    assert list(again.splits["version"]) == [2]
    assert not any(cache.current()._path(key).exists() for key in keys)
    assert not any(b"withdrawn/" in data for data in stored(store.url).values())
    with pytest.raises(NotFoundError, match="No session 'lab/withdrawn'"):
        again.erase(GONE)
    with again.transaction("it goes on") as tx:
        tx.put(session("lab/b"))
    assert len(again.log()) == 2


def test_no_local_copy_of_it_stays_even_of_history_that_expired_before(store):
    before = {path for path, _ in cache.current().entries()}
    for _ in range(2):
        store.sessions()
        store.session(GONE).counts(0, 10, 0.1)
        with store.transaction("further on") as tx:
            tx.put(session(GONE, seed=5, spikes=300), replace=True)
    store.expire(keep=1)
    folder, names = cache.folder(), _traces.Traces(GONE, {}).names
    entries = {path for path, _ in cache.current().entries()} - before

    def naming():
        return [
            one for one in folder.rglob("*") if one.is_file() and names.search(one.read_bytes())
        ]

    assert naming()
    assert entries
    assert store.erase(GONE).found == ()
    assert naming() == []
    assert not any(path.exists() for path in entries)


def test_the_search_finds_names_and_chunks_before_they_are_erased(store):
    plan = _erase._plan(store, store._versions, GONE)
    found = _traces.search(Path(store.url), plan.traces)
    kinds = {Path(where).parts[0] for where, _ in found.hits}
    assert kinds >= {"chunks", "manifests", "snapshots"}
    assert {what for _, what in found.hits} == {"name", *plan.traces.chunks}  # each one of them


def test_a_session_deleted_long_ago_is_erased_from_the_history(store):
    with store.transaction("consent withdrawn") as tx:
        tx.delete(GONE)
    done = store.erase(GONE)
    assert done.found == ()
    assert done.tags == ("with",)
    assert [one.message for one in store.log()] == [_erase.MESSAGE]


@pytest.mark.parametrize("step", ["_drop", "_clear", "_proven"])
def test_an_erasure_that_was_stopped_goes_on_when_it_is_repeated(store, monkeypatch, step):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_erase, step, stop)
        with pytest.raises(KeyboardInterrupt):
            store.erase(GONE)
    again = neurostore.open(store.url)
    done = again.erase(GONE)
    assert done.found == ()
    assert done.chunks == CHUNKS
    assert not list(Path(store.url, "neurostore").glob("erasing-*"))
    assert not any(again.validate().values())


def test_what_would_keep_a_trace_refuses_the_erasure_by_name(store):
    with store.transaction("made from it") as tx:
        tx.update("lab/a", wheel(9, "second"), inputs=[(GONE, "behaviour/wheel")])
    before = store.snapshot
    with pytest.raises(UsageError, match=r"lab/a names lab/withdrawn in its attributes"):
        store.erase(GONE)
    tx = store.transaction("open")
    with pytest.raises(StoreError, match="1 transaction of other writers are open"):
        store.erase(GONE)
    del tx
    assert neurostore.open(store.url).snapshot == before
    other = neurostore.create("memory://erase")
    with pytest.raises(UsageError, match="no local disk"):
        other.erase(GONE)


def test_a_branch_that_holds_it_refuses_the_erasure_and_another_one_stays(store):
    empty = store.at("before").branch("empty")
    with empty.transaction("aside") as tx:
        tx.put(session("lab/aside", seed=7))
    tip = empty.snapshot
    with pytest.raises(UsageError, match="is open on the branch 'empty'"):
        empty.erase(GONE)
    store.branch("full")
    for dry_run in (True, False):
        with pytest.raises(UsageError, match="The branch 'full' holds the session too"):
            store.erase(GONE, dry_run=dry_run)
    store.delete_branch("full")
    said, done = store.erase(GONE, dry_run=True), store.erase(GONE)
    assert said.commits == done.commits
    assert tip not in [one.snapshot for one in done.commits]
    assert done.found == ()
    empty = neurostore.open(store.url, branch="empty")
    assert empty.snapshot == tip
    assert [one.message for one in empty.log()] == ["aside"]
    assert empty.validate() == {"lab/a": [], "lab/aside": []}
    with empty.transaction("more") as tx:
        tx.put(session("lab/b"))
    assert store.validate() == {"lab/a": [], "lab/withdrawn-2": []}


def test_a_trace_that_is_left_is_said(store):
    Path(store.url, "notes.txt").write_text(f"see {GONE}, and lab/withdrawn-2")
    done = store.erase(GONE)
    assert done.found == ("notes.txt: name",)
    assert np.all([id != GONE for id in store.sessions()["id"]])


def test_the_command_asks_first_and_prints_its_proof(store, capsys):
    assert cli.main(["erase", store.url, GONE]) == 2
    assert "--dry-run" in capsys.readouterr().err
    assert cli.main(["erase", store.url, GONE, "--dry-run"]) == 0
    assert "would be deleted: tag with" in capsys.readouterr().out
    assert cli.main(["erase", store.url, GONE, "--yes", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["found"] == []
    assert said["files"] > 10
