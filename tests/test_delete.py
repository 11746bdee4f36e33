"""A session is taken out by one command, and the command says the ways back and on."""

from __future__ import annotations

import json

import pytest
from _writers import session

import neurostore
from neurostore import cli, splits
from neurostore.errors import NotFoundError, UsageError


@pytest.fixture
def store(tmp_path):
    made = neurostore.create(tmp_path / "lab")
    with made.transaction("two") as tx:
        tx.put(session("d/a"))
        tx.put(session("d/b", seed=1))
    return made


def test_a_deleted_session_is_gone_from_the_next_snapshot_alone(store):
    before = store.snapshot
    planned = store.delete("d/a", dry_run=True)
    assert (planned.steps, planned.snapshot) == ((("deleted", "d/a"),), None)
    assert store.refresh().snapshot == before
    made = store.delete("d/a", "of another animal")
    assert made.snapshot == store.snapshot != before
    assert store.ids == ["d/b"]
    assert store.at(before).ids == ["d/a", "d/b"]
    assert store.log(1)[0].message == "of another animal"
    assert store.log(1)[0].words[0] == "deleted 1 session: d/a"


def test_what_is_not_there_cannot_be_deleted(store):
    with pytest.raises(NotFoundError, match="Did you mean 'd/a'"):
        store.delete("d/aa", dry_run=True)
    with pytest.raises(UsageError, match="cannot be written"):
        store.at(store.snapshot).delete("d/a")
    assert store.refresh().ids == ["d/a", "d/b"]


def test_the_words_of_a_delete_bring_the_session_back(store, capsys):
    row = store.session("d/a").attrs["row"]["digest"]
    assert cli.main(["delete", store.url, "d/a", "--message", "out"]) == 0
    out = capsys.readouterr().out
    (back,) = [line for line in out.splitlines() if line.startswith("Bring it back: neurostore ")]
    assert f"neurostore erase {store.url} d/a" in out
    assert cli.main(back.split("neurostore ", 1)[1].split()) == 0
    assert neurostore.open(store.url).session("d/a").attrs["row"]["digest"] == row


def test_a_delete_says_in_json_and_ahead_what_it_does(store, capsys):
    assert cli.main(["delete", store.url, "d/a", "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["dry_run"]
    assert said["steps"] == [{"what": "deleted", "of": "d/a"}]
    assert any("restore" in note for note in said["notes"])
    assert neurostore.open(store.url).ids == ["d/a", "d/b"]


def test_a_delete_names_the_splits_that_name_the_session(store):
    lines = [store.session(id).timeline() for id in ("d/a", "d/b")]
    ratios = {"train": 1, "test": 1}
    with store.transaction("split") as tx:
        tx.put(splits.interleaved_blocks("halves", lines, block=10, ratios=ratios))
    assert "d/a is still named by halves/v1" in str(store.delete("d/a", dry_run=True))
