"""What a transaction relies on without writing it: a change meanwhile is a conflict by name."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from _writers import session, wheel

import neurostore
from neurostore.errors import ConflictError, NotFoundError, RefusedError, UsageError
from neurostore.store import Stimulus

NUMBERS = count()
FRAMES = np.random.default_rng(0).integers(0, 256, (90, 9, 11)).astype(np.uint8)


@pytest.fixture
def store(monkeypatch):
    """A store with two sessions; whoever commits to it through `commit` is "other"."""
    made = neurostore.create(f"memory://relied-{next(NUMBERS)}")
    with made.transaction("first") as tx:
        tx.put(session("d/s"))
        tx.put(session("d/t", seed=1))
    return made


def commit(url, what, monkeypatch, message="meanwhile"):
    """A commit of another writer; gives its snapshot."""
    with monkeypatch.context() as patch:
        patch.setenv("NEUROSTORE_AUTHOR", "other")
        with neurostore.open(url).transaction(message) as tx:
            what(tx)
    return tx.snapshot


def shown(rows, name="p", stimulus="movie", rate=1_000_000) -> neurostore.SessionBuilder:
    made = neurostore.SessionBuilder(dataset="d", session=name, rate=rate)
    start = np.arange(len(rows)) / 30
    made.add_presentations("movie", start, start + 1 / 30, rows, stimulus=stimulus)
    return made


def conflict(store, mine, theirs, monkeypatch) -> str:
    """The conflict that `mine` meets where `theirs` was committed meanwhile; nothing is written."""
    tx = store.transaction("mine")
    mine(tx)
    kept = commit(store.url, theirs, monkeypatch)
    with pytest.raises(ConflictError) as caught, tx:
        pass
    assert "other@" in caught.value.line
    assert kept in caught.value.line
    assert "'meanwhile'" in caught.value.line
    now = neurostore.open(store.url)
    assert now.snapshot == kept
    assert not any(now.validate().values())
    return caught.value.line


def test_a_table_made_from_another_one_that_changed_meanwhile_is_refused(store, monkeypatch):
    line = conflict(
        store,
        lambda tx: tx.update("d/t", wheel(1, "second"), inputs=[("d/s", "behaviour/wheel")]),
        lambda tx: tx.update("d/s", wheel(2)),
        monkeypatch,
    )
    assert "behaviour/wheel of 'd/s' was changed by other@" in line
    assert "'behaviour/second' of 'd/t' was made from it" in line


def test_a_table_made_from_one_that_stayed_lands_beside_other_commits(store, monkeypatch):
    with store.transaction("mine") as tx:
        tx.update("d/t", wheel(1, "second"), inputs=[("d/s", "behaviour/wheel")])
        commit(store.url, lambda tx: tx.update("d/s", wheel(2, "third")), monkeypatch)
    entry = store.session("d/s").attrs["row"]["tables"]["behaviour/wheel"]
    said = store.session("d/t").attrs["lineage"]["behaviour/second"]["inputs"]
    assert said == {"d/s:behaviour/wheel": entry["digest"]}
    assert "behaviour/third" in store.session("d/s").tables


@pytest.mark.parametrize("how", ["changed", "deleted"])
def test_a_table_read_and_then_changed_meanwhile_is_a_conflict(store, monkeypatch, how):
    def mine(tx):
        assert tx.read("d/s", "behaviour/wheel")["value"].values.any()
        tx.update("d/t", wheel(3))

    theirs = {
        "changed": lambda tx: tx.update("d/s", wheel(2)),
        "deleted": lambda tx: tx.delete("d/s"),
    }[how]
    line = conflict(store, mine, theirs, monkeypatch)
    assert f"behaviour/wheel of 'd/s' was {how} by other@" in line
    assert "this transaction read it" in line


def test_what_was_read_of_an_older_snapshot_is_held_against_the_newest(store, monkeypatch):
    commit(store.url, lambda tx: tx.update("d/s", wheel(2)), monkeypatch)
    tx = store.transaction("mine")
    tx.read("d/s", "behaviour/wheel")
    tx.update("d/t", wheel(3))
    with pytest.raises(ConflictError, match="behaviour/wheel of 'd/s' was changed"), tx:
        pass


def test_a_table_read_and_written_by_one_transaction_is_no_conflict(store):
    with store.transaction("mine") as tx:
        value = tx.read("d/s", "behaviour/wheel")["value"].values
        tx.update("d/s", wheel(int(abs(value[0]) * 1000)))
    assert store.log(1)[0].changes == {"d/s": "update"}


def test_an_input_that_is_not_there_is_named(store):
    tx = store.transaction("mine")
    with pytest.raises(NotFoundError, match=r"behaviour/whel.*Did you mean 'behaviour/wheel'"):
        tx.update("d/t", wheel(1), inputs=[("d/s", "behaviour/whel")])


def test_a_table_into_a_session_deleted_meanwhile_is_refused(store, monkeypatch):
    line = conflict(
        store, lambda tx: tx.update("d/s", wheel(1)), lambda tx: tx.delete("d/s"), monkeypatch
    )
    assert line.startswith("'d/s' was deleted by other@")


def test_presentations_and_a_shorter_stimulus_never_both_land(store, monkeypatch):
    long, short = shown(np.arange(80)), Stimulus("movie", FRAMES[:40])
    line = conflict(store, lambda tx: tx.put(long), lambda tx: tx.put(short), monkeypatch)
    assert "d/p: presentations/movie: 'row' is 40 in row 40" in line
    assert "'/stimuli/movie' is by other@" in line


def test_a_shorter_stimulus_after_presentations_put_meanwhile_is_refused(store, monkeypatch):
    long, short = shown(np.arange(80)), Stimulus("movie", FRAMES[:40])
    line = conflict(store, lambda tx: tx.put(short), lambda tx: tx.put(long), monkeypatch)
    assert "d/p: presentations/movie: 'row' is 40 in row 40" in line
    assert "'d/p' is by other@" in line


def test_presentations_and_a_stimulus_that_fits_both_land(store, monkeypatch):
    with store.transaction("mine") as tx:
        tx.put(shown(np.arange(80)))
        commit(store.url, lambda tx: tx.put(Stimulus("movie", FRAMES)), monkeypatch)
    assert list(store.stimuli["name"]) == ["movie"]
    assert "d/p" in store


def test_presentations_of_a_stimulus_deleted_meanwhile_are_refused(store, monkeypatch):
    commit(store.url, lambda tx: tx.put(Stimulus("movie", FRAMES)), monkeypatch)
    store.refresh()
    line = conflict(
        store,
        lambda tx: tx.put(shown(np.arange(80))),
        lambda tx: tx.delete("/stimuli/movie"),
        monkeypatch,
    )
    assert line.startswith("'/stimuli/movie' was deleted by other@")
    assert "this transaction presents it" in line


def test_a_stimulus_presented_meanwhile_is_not_deleted(store, monkeypatch):
    commit(store.url, lambda tx: tx.put(Stimulus("movie", FRAMES)), monkeypatch)
    store.refresh()
    line = conflict(
        store,
        lambda tx: tx.delete("/stimuli/movie"),
        lambda tx: tx.put(shown(np.arange(80))),
        monkeypatch,
    )
    assert "d/p: presentations/movie presents the stimulus 'movie', which would be deleted" in line


def test_a_stimulus_and_embeddings_put_meanwhile_conflict_either_way(store, monkeypatch):
    commit(store.url, lambda tx: tx.put(Stimulus("movie", FRAMES)), monkeypatch)
    store.refresh()
    values = iter([0.0, 1.0])

    def put(tx):
        clip = np.full((90, 3), next(values), np.float32)
        tx.put(Stimulus("movie", embeddings={"clip": clip}))

    def delete(tx):
        tx.delete("/stimuli/movie")

    line = conflict(store, delete, put, monkeypatch)
    assert "'/stimuli/movie/embeddings/clip/v1' was added by other@" in line
    line = conflict(store.refresh(), put, delete, monkeypatch)
    assert "'/stimuli/movie' was deleted by other@" in line


def test_a_stimulus_goes_with_its_embeddings_where_nothing_presents_it(store):
    embeddings = {"clip": np.zeros((90, 3), np.float32)}
    with store.transaction("both") as tx:
        tx.put(Stimulus("movie", FRAMES, embeddings=embeddings))
        tx.put(shown(np.arange(80)))
    with (
        pytest.raises(RefusedError, match="d/p: presentations/movie presents the stimulus"),
        store.transaction("too early") as tx,
    ):
        tx.delete("/stimuli/movie")
    with store.transaction("both go") as tx:
        tx.delete("d/p")
        tx.delete("/stimuli/movie")
    assert store.stimuli.empty
    assert not any(store.validate().values())
    with (
        pytest.raises(NotFoundError, match="No stimulus '/stimuli/movie'"),
        store.transaction("again") as tx,
    ):
        tx.delete("/stimuli/movie")


def split_of(store, id):
    timeline = store.session(id).timeline()
    return neurostore.splits.interleaved_blocks(
        "blocks", [timeline], block=10, ratios={"train": 1, "test": 1}
    )


@pytest.mark.parametrize("how", ["deleted", "changed"])
def test_a_split_over_a_session_changed_meanwhile_is_refused(store, monkeypatch, how):
    split = split_of(store, "d/s")
    again = neurostore.SessionBuilder(dataset="d", session="s", rate=30_000)
    again.add_units({"u": np.arange(1, 900) / 10})
    theirs = {
        "deleted": lambda tx: tx.delete("d/s"),
        "changed": lambda tx: tx.put(again, replace=True),
    }[how]
    line = conflict(store, lambda tx: tx.put(split), theirs, monkeypatch)
    assert f"the clock of 'd/s' was {how} by other@" in line
    assert "split 'blocks' names it" in line


def test_a_split_lands_beside_an_edit_that_leaves_the_clock(store, monkeypatch):
    with store.transaction("mine") as tx:
        tx.put(split_of(store, "d/s"))
        commit(store.url, lambda tx: tx.update("d/s", wheel(2)), monkeypatch)
    assert list(store.splits["name"]) == ["blocks"]


def test_a_transaction_cannot_delete_what_its_own_split_names(store):
    before = store.snapshot
    tx = store.transaction("mine")
    tx.put(split_of(store, "d/s"))
    tx.delete("d/s")
    with pytest.raises(UsageError, match="the clock of 'd/s' was deleted by this transaction"), tx:
        pass
    assert neurostore.open(store.url).snapshot == before
