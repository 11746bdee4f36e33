"""Several stores opened as one: what is read is what each of them holds, and clashes are named."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import neurostore
from neurostore import splits
from neurostore.errors import NotFoundError, UsageError
from neurostore.store.urls import redacted, several


def lab(folder, dataset, sessions, seed=0):
    store = neurostore.create(folder)
    rng = np.random.default_rng(seed)
    with store.transaction("sessions") as tx:
        for name in sessions:
            builder = neurostore.SessionBuilder(dataset=dataset, session=name, rate=30_000)
            times = {f"u{k}": np.sort(rng.uniform(0, 60, 300 + 100 * k)) for k in range(3)}
            builder.add_units(times, region=["CA1", "V1", "V1"])
            tx.put(builder)
    return store


@pytest.fixture
def labs(tmp_path):
    """Two labs, of which the first has the sessions between those of the second."""
    return [
        lab(tmp_path / "north", "m", ["b", "c"]),
        lab(tmp_path / "south", "m", ["a", "d"], seed=1),
    ]


@pytest.fixture
def both(labs):
    return neurostore.open([one.url for one in labs])


def blocks(store, name, ids):
    timelines = [store.session(id).timeline() for id in ids]
    ratios = {"train": 3, "test": 1}
    return splits.interleaved_blocks(name, timelines, block=5, ratios=ratios, guard=0.5)


# ---- what is read


def test_sessions_are_those_of_all_stores_by_id_and_each_is_of_its_own(labs, both):
    assert both.ids == ["m/a", "m/b", "m/c", "m/d"]
    assert list(both.sessions()["id"]) == both.ids
    assert [row["id"] for row in both.rows] == both.ids
    assert both.session("m/a").store.url == labs[1].url
    assert both.session("m/b").store.url == labs[0].url
    assert "m/c" in both
    assert "m/x" not in both
    assert both.row("m/d") == labs[1].row("m/d")
    with pytest.raises(NotFoundError, match="There is: m/a, m/b"):
        both.session("m/x")


def test_queries_see_one_table(labs, both):
    alone = [one.sessions("n_spikes > 900") for one in labs]
    wanted = sorted(id for frame in alone for id in frame["id"])
    assert list(both.sessions("n_spikes > 900")["id"]) == wanted
    assert list(both.sessions("n_units = (SELECT 3)")["id"]) == both.ids
    units = both.units("region = 'V1'")
    assert len(units) == 8
    assert set(units["session"]) == set(both.ids)
    assert len(both.units(sessions=["m/a", "m/b"])) == 6
    with pytest.raises(UsageError, match="Did you mean 'n_units'"):
        both.sessions("n_unit > 3")


def test_a_later_release_of_a_store_is_pinned_and_the_other_moves_on(labs):
    labs[0].tag("v1")
    with labs[0].transaction("gone") as tx:
        tx.delete("m/b")
    mixed = neurostore.open([f"{labs[0].url}@v1", labs[1].url])
    assert mixed.ids == ["m/a", "m/b", "m/c", "m/d"]
    now = neurostore.open([one.url for one in labs])
    assert now.ids == ["m/a", "m/c", "m/d"]
    with labs[1].transaction("gone too") as tx:
        tx.delete("m/d")
    assert now.ids == ["m/a", "m/c", "m/d"]
    assert now.refresh().ids == ["m/a", "m/c"]
    assert mixed.refresh().ids == ["m/a", "m/b", "m/c"]


def test_one_url_in_a_list_is_the_store_itself_and_none_is_refused(labs):
    with neurostore.open([labs[0].url]).transaction("one more") as tx:
        tx.delete("m/b")
    with pytest.raises(UsageError, match="a URL at least"):
        neurostore.open([])


# ---- who is who


def test_an_id_in_two_stores_is_an_error_at_open_that_names_both(labs, tmp_path):
    third = lab(tmp_path / "third", "m", ["c"])
    with pytest.raises(UsageError, match="m/c lies in two stores") as caught:
        neurostore.open([one.url for one in [*labs, third]])
    assert labs[0].url in str(caught.value)
    assert third.url in str(caught.value)
    with pytest.raises(UsageError, match="lies in two stores"):
        neurostore.open([labs[0].url, labs[0].url])


def test_splits_of_one_name_must_be_equal_where_they_are_asked_for(labs, tmp_path):
    stores = [lab(tmp_path / name, "n", ["s"]) for name in ("first", "second")]
    made = blocks(stores[0], "blocks", ["n/s"])
    for store in stores:
        with store.transaction("splits") as tx:
            tx.put(made)
        with store.transaction("another name") as tx:
            tx.delete("n/s")
    with labs[0].transaction("splits") as tx:
        tx.put(blocks(labs[0], "own", ["m/b"]))
    same = neurostore.open([*(one.url for one in stores), labs[0].url])
    assert same.split("blocks/train").digest == made.digest
    assert same.split("own").sessions == ("m/b",)
    assert sorted(same.splits["name"]) == ["blocks", "own"]
    with labs[0].transaction("splits") as tx:
        tx.put(blocks(labs[0], "blocks", ["m/c"]))
    other = same.refresh()
    assert len(other.splits) == 3
    with pytest.raises(UsageError, match="split 'blocks'") as caught:
        other.split("blocks/train")
    assert labs[0].url in str(caught.value)
    assert stores[0].url in str(caught.value)
    with pytest.raises(NotFoundError, match="Did you mean 'blocks'"):
        other.split("block")


def test_stimuli_of_one_name_must_be_equal_where_they_are_asked_for(labs):
    movie = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    for store in labs:
        with store.transaction("stimulus") as tx:
            tx.put(neurostore.Stimulus("movie", movie, rate=30))
            tx.put(neurostore.Stimulus(f"only-{store.url[-5:]}", movie, rate=30))
    both = neurostore.open([one.url for one in labs])
    np.testing.assert_array_equal(np.asarray(both.stimulus("movie").frames), movie)
    assert sorted(both.stimuli["name"]) == ["movie", "only-north", "only-south"]
    for store, more in zip(labs, (0, 1), strict=True):
        with store.transaction("stimulus") as tx:
            tx.put(neurostore.Stimulus("clip", movie + more, rate=30))
    with pytest.raises(UsageError, match="stimulus 'clip'"):
        both.refresh().stimulus("clip")
    with pytest.raises(NotFoundError, match="Did you mean 'movie'"):
        both.stimulus("moovie")


# ---- what it is not


def test_several_stores_are_read_only_and_say_which_store_to_open(labs, both):
    with pytest.raises(UsageError, match="cannot be written") as caught:
        both.transaction("one more")
    assert labs[0].url in str(caught.value)
    for refused in (both.log, lambda: both.tag("v1"), lambda: both.zarr, both.optimize):
        with pytest.raises(UsageError, match="belongs to one of them"):
            refused()
    with pytest.raises(AttributeError):
        both.nothing_of_the_kind  # noqa: B018


# ---- its name


def test_url_and_snapshot_bring_back_what_was_seen(labs, both):
    seen, snapshot = both.ids, both.snapshot
    assert pickle.loads(pickle.dumps(both)).snapshot == snapshot
    with labs[1].transaction("gone") as tx:
        tx.delete("m/a")
    assert neurostore.open(both.url).ids == seen[1:]
    for again in (
        neurostore.open(both.url).at(snapshot),
        neurostore.open(both.url, snapshot),
        both.pin(),
        pickle.loads(pickle.dumps(both)),
    ):
        assert again.snapshot == snapshot
        assert again.ids == seen
    assert both.pin().refresh().ids == seen
    for store in labs:
        store.tag("v2")
    assert neurostore.open(both.url, "v2").ids == seen[1:]
    for ref in (f"{snapshot}+v2", "v3"):
        with pytest.raises(NotFoundError):
            both.at(ref)


def test_urls_are_told_apart_and_hold_no_secret(tmp_path):
    assert several("a + s3://b/c + http://x/y@v1") == ["a", "s3://b/c", "http://x/y@v1"]
    assert several(["a", "b"]) == ["a", "b"]
    (tmp_path / "a + b").mkdir()
    assert several(tmp_path / "a + b") == [tmp_path / "a + b"]
    assert redacted("/a?b + s3://u:p@h/x?k=1 + http://h/z") == "/a?b + s3://h/x + http://h/z"
    with pytest.raises(UsageError, match="takes no storage options"):
        neurostore.open(["memory://a", "memory://b"], storage_options={"key": "k"})


# ---- what is built on it


def test_windows_of_several_stores_are_those_of_each_alone(labs, both):
    window = neurostore.Window(history=1.0, stride=0.5)
    streams = {"spikes": neurostore.Spikes(bin=0.1)}

    def counts(store, **more):
        dataset = neurostore.Dataset(store, window=window, streams=streams, **more)
        return dataset, dataset.batch(np.arange(len(dataset)), seed=None)

    dataset, batch = counts(both, units="region = 'V1'")
    assert [one.session.id for one in dataset.chosen] == both.ids
    seen = 0
    for store in labs:
        own, wanted = counts(store, units="region = 'V1'")
        for id in store.ids:
            ours = [k for k, one in enumerate(batch.session) if one == id]
            theirs = [k for k, one in enumerate(wanted.session) if one == id]
            np.testing.assert_array_equal(batch["spikes"][ours], wanted["spikes"][theirs])
            seen += len(ours)
        assert own.identity()["snapshot"] == store.snapshot
    assert seen == len(dataset)
    said = dataset.identity()
    assert (said["url"], said["snapshot"]) == (both.url, both.snapshot)
    assert list(said["sessions"]) == both.ids
