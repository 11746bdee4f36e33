"""Sessions and subjects under another name: the same tables, the splits with them or a refusal."""

from __future__ import annotations

import dataclasses
import json

import pytest
from _writers import session, wheel

import neurostore
from neurostore import cli, splits
from neurostore.errors import ConflictError, NotFoundError, RefusedError, UsageError


@pytest.fixture
def store(request):
    made = neurostore.create(f"memory://rename-{request.node.name}")
    with made.transaction("two") as tx:
        tx.put(session("d/a"))
        tx.put(session("d/b", seed=1))
    return made


def entries(store, id):
    return store.session(id).attrs["row"]["tables"]


def halves(store):
    lines = [store.session(id).timeline() for id in ("d/a", "d/b")]
    made = splits.interleaved_blocks("halves", lines, block=10, ratios={"train": 1, "test": 1})
    with store.transaction("split") as tx:
        return tx.put(made)


def test_a_renamed_session_is_the_same_by_digest(store):
    before, tables = store.snapshot, entries(store, "d/a")
    planned = store.rename("d/a", "e/new name", dry_run=True)
    assert store.snapshot == before
    assert planned.bytes > 1000
    made = store.rename("d/a", "e/new name")
    assert (made.bytes, made.steps) == (planned.bytes, (("renamed", "d/a → e/new name"),))
    assert list(store.sessions()["id"]) == ["d/b", "e/new name"]
    assert entries(store, "e/new name") == tables
    assert store.session("e/new name").dataset == "e"
    assert not any(store.validate().values())
    assert not any(neurostore.open(store.url).validate().values())
    (one,) = store.diff(before).sessions
    assert (one.what, one.was) == ("renamed", "d/a")
    assert store.log(1)[0].words == ["renamed d/a → e/new name"]
    assert store.lineage("e/new name", "spikes").message == "two"


def test_a_name_that_is_taken_or_none_is_refused(store):
    before = store.snapshot
    for old, new, error in (
        ("d/a", "d/b", UsageError),
        ("d/a", "d", UsageError),
        ("d/x", "d/y", NotFoundError),
        ("d/x", "d/x", NotFoundError),
    ):
        with pytest.raises(error):
            store.rename(old, new)
    assert store.refresh().snapshot == before


@pytest.mark.parametrize("name", ["..", ".", "../../x", "a//b", "a/", "/a", "a/../b", " ", ""])
def test_one_rule_holds_for_ids_wherever_sessions_are_made(store, name):
    before = store.snapshot
    staged = dataclasses.replace(session("d/x").build(), id=f"d/{name}")
    with pytest.raises(UsageError, match="A session id is <dataset>/<session>"):
        neurostore.SessionBuilder(dataset="d", session=name)
    with pytest.raises(UsageError, match="A session id is <dataset>/<session>"):
        store.rename("d/a", f"d/{name}", dry_run=True)
    with (
        pytest.raises(UsageError, match="A session id is <dataset>/<session>"),
        store.transaction("put") as tx,
    ):
        tx.put(staged)
    assert store.refresh().snapshot == before


@pytest.mark.parametrize("name", ["a b/c", "jen?k#1", "...", "mouse 1 / day 2", "α"])
def test_what_a_source_may_be_called_a_session_may_be_renamed_to(store, name):
    assert neurostore.SessionBuilder(dataset="d", session=name).id == f"d/{name}"
    store.rename("d/a", f"d/{name}")
    assert store.session(f"d/{name}").attrs["session"] == name


def test_a_session_renamed_to_its_own_name_has_it_already(store):
    before = store.snapshot
    with pytest.raises(UsageError, match="d/a has that name already"):
        store.rename("d/a", "d/a")
    assert store.refresh().snapshot == before


def test_a_split_that_names_a_session_refuses_or_follows(store):
    split = halves(store)
    with pytest.raises(RefusedError, match="named by halves/v1"):
        store.rename("d/a", "d/z", dry_run=True)
    with pytest.raises(RefusedError, match="named by halves/v1"):
        store.rename("d/a", "d/z")
    made = store.rename("d/a", "d/z", with_splits=True)
    assert made.steps[1] == ("made a next version of", "split halves")
    followed = store.split("halves")
    assert followed.version == 2
    assert followed.sessions == ("d/b", "d/z")
    for label in split.labels:
        old, new = split.blocks("d/a", label), followed.blocks("d/z", label)
        assert [one.tolist() for one in old[1:]] == [one.tolist() for one in new[1:]]
    assert followed.rate("d/z") == split.rate("d/a") is not None
    assert store.split("halves/v1").sessions == ("d/a", "d/b")
    assert not any(store.validate().values())


def test_what_was_changed_meanwhile_is_not_renamed(store):
    other = neurostore.open(store.url)
    with other.transaction("wheel") as tx:
        tx.update("d/a", wheel(5))
    with pytest.raises(ConflictError, match="behaviour/wheel of 'd/a' was changed"):
        store.rename("d/a", "d/z")
    assert list(neurostore.open(store.url).sessions()["id"]) == ["d/a", "d/b"]


def test_a_transaction_renames_beside_other_things(store):
    with store.transaction("more") as tx:
        tx.rename("d/a", "d/z")
        tx.update("d/b", wheel(7))
        with pytest.raises(UsageError, match="was changed in this transaction"):
            tx.rename("d/a", "d/y")
    assert list(store.sessions()["id"]) == ["d/b", "d/z"]


def test_a_subject_is_renamed_wherever_it_is(store):
    before = {id: entries(store, id) for id in ("d/a", "d/b")}
    assert len(store.rename_subject("mouse", "mouse-7", dry_run=True).steps) == 2
    assert set(store.sessions()["subject"]) == {"mouse"}
    store.rename_subject("mouse", "mouse-7")
    assert set(store.sessions()["subject"]) == {"mouse-7"}
    assert {id: entries(store, id) for id in ("d/a", "d/b")} == before
    assert not any(store.validate().values())
    with pytest.raises(NotFoundError, match="mouse-7"):
        store.rename_subject("mouse", "x")
    assert store.rename_subject("mouse-7", "mouse-7").snapshot is None


def test_the_command_renames(tmp_path, capsys):
    store = neurostore.create(tmp_path / "lab")
    with store.transaction("one") as tx:
        tx.put(session("d/a"))
    assert cli.main(["rename", store.url, "d/a", "d/b", "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["dry_run"]
    assert said["bytes"] > 1000
    assert cli.main(["rename", store.url, "d/a", "d/b"]) == 0
    assert cli.main(["rename", store.url, "mouse", "rat", "--subject"]) == 0
    assert neurostore.open(store.url).session("d/b").metadata["subject"] == "rat"
    assert cli.main(["rename", store.url, "d/a", "d/b"]) == 2
