"""A branch takes commits of its own, under names that no tag has, and goes with what it holds."""

from __future__ import annotations

import json
import pickle

import pytest
from _writers import session

import neurostore
from neurostore import cli
from neurostore.errors import NotFoundError, UsageError


@pytest.fixture
def store(tmp_path):
    made = neurostore.create(tmp_path / "lab")
    with made.transaction("first") as tx:
        tx.put(session("d/s"))
    return made


def put(store, id, seed=0):
    with store.transaction(f"put {id}") as tx:
        tx.put(session(id, seed))
    return tx.snapshot


def test_commits_of_a_branch_leave_the_others_alone(store):
    begun = store.snapshot
    curated = store.branch("curated")
    mine, theirs = put(curated, "d/mine", 1), put(store, "d/theirs", 2)
    assert neurostore.open(store.url).snapshot == theirs
    assert neurostore.open(store.url, branch="curated").snapshot == mine
    assert list(neurostore.open(store.url, branch="curated").sessions()["id"]) == ["d/mine", "d/s"]
    assert list(neurostore.open(store.url).sessions()["id"]) == ["d/s", "d/theirs"]
    assert store.branches == {"curated": mine, "main": theirs}
    assert [one.snapshot for one in curated.log()][:2] == [mine, begun]
    assert curated.refresh().snapshot == mine
    assert store.at("curated").snapshot == store.at(mine[:8]).snapshot == mine
    assert [one.id for one in store.diff(mine).sessions] == ["d/mine", "d/theirs"]
    again = pickle.loads(pickle.dumps(curated))
    assert put(again, "d/more") == neurostore.open(store.url, branch="curated").snapshot
    assert neurostore.open(store.url).snapshot == theirs
    restored = store.restore("curated", "d/mine")
    assert restored.snapshot == neurostore.open(store.url).snapshot


def test_a_branch_in_memory_is_one_too():
    store = neurostore.create("memory://branches")
    made = store.branch("b")
    put(made, "d/s")
    assert "d/s" not in neurostore.open(store.url)
    assert "d/s" in neurostore.open(store.url, branch="b")


def test_names_of_tags_and_branches_never_clash(store):
    store.tag("v1")
    store.branch("b1")
    for name in ("v1", "b1", "main"):
        with pytest.raises(UsageError, match="There is a"):
            store.branch(name)
    with pytest.raises(UsageError, match="There is a branch 'b1'"):
        store.tag("b1")
    for name in ("", "a/b", "..", "x" * 101, "-a"):
        with pytest.raises(UsageError, match="A branch is named"):
            store.branch(name)
        with pytest.raises(UsageError, match="A branch is named"):
            neurostore.open(store.url, branch=name)
    with pytest.raises(NotFoundError, match="'b1'"):
        neurostore.open(store.url, branch="b2")


def test_a_deleted_branch_says_what_it_alone_held(store):
    one = store.branch("one")
    first, second = put(one, "d/a"), put(one, "d/b")
    one.at(first).tag("kept")
    planned = store.delete_branch("one", dry_run=True)
    assert [commit.snapshot for commit in planned] == [second]
    assert "one" in store.branches
    assert [commit.snapshot for commit in store.delete_branch("one")] == [second]
    assert store.branches.keys() == {"main"}
    assert store.at("kept").snapshot == first
    with pytest.raises(NotFoundError, match="branch 'one'"), one.transaction("late") as tx:
        tx.put(session("d/c"))
    for name, error in (("main", UsageError), ("one", NotFoundError)):
        with pytest.raises(error):
            store.delete_branch(name)


def test_the_command_makes_lists_and_deletes_branches(store, capsys):
    url = store.url
    assert cli.main(["branch", url, "b", "--at", store.snapshot[:10]]) == 0
    put(neurostore.open(url, branch="b"), "d/a")
    capsys.readouterr()
    assert cli.main(["branch", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"b", "main"}
    assert cli.main(["branch", url, "b", "--delete", "--dry-run"]) == 0
    assert (
        "b would be deleted, with 1 commit that nothing else holds. Dry run: nothing was done."
        in capsys.readouterr().out
    )
    assert cli.main(["branch", url, "--dry-run"]) == 2
    assert cli.main(["branch", url, "b", "--delete", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["alone"]) == 1
    assert neurostore.open(url).branches.keys() == {"main"}
