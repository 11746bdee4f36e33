"""Splits in the store: versions that never change, conflicts, time travel, damage."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from _damaged import flipped, replaced
from _writers import session

import neurostore
from neurostore import Split, cli, splits
from neurostore.clocks import Clock
from neurostore.errors import (
    ConflictError,
    DamagedError,
    NeurostoreError,
    NotFoundError,
    UsageError,
)
from neurostore.splits import Part
from neurostore.store import _catalogue, _splits, layout
from neurostore.store._versions import IcechunkVersions
from neurostore.store.transaction import who
from neurostore.store.urls import parse

NUMBERS = count()


def blocks(store: neurostore.Store, rotation: int = 0, name: str = "blocks", **more) -> Split:
    """Blocks of all sessions."""
    ids = store.sessions()["id"].tolist()
    lines = [store.session(id).timeline() for id in ids]
    block = more.pop("block", 5)
    return splits.interleaved_blocks(name, lines, block=block, rotation=rotation, **more)


def uneven(seed: int, name: str = "blocks", rows: int = 700) -> Split:
    """Rows that do not compress to the few bytes that need no chunk file."""
    edges = np.random.default_rng(seed).integers(1, 10**6, 2 * rows).cumsum()
    return Split(name, {}, ["d/s"] * rows, edges[::2], edges[1::2], ["train", "test"] * (rows // 2))


def put(store: neurostore.Store, split: Split) -> Split:
    with store.transaction(f"split {split.name}") as tx:
        return tx.put(split)


@pytest.fixture
def store():
    made = neurostore.create(f"memory://lab-{next(NUMBERS)}")
    with made.transaction("sessions") as tx:
        tx.put(session("d/s"))
        tx.put(session("d/t", seed=1))
    return made


# ---- versions


def test_each_put_is_the_next_version_and_every_version_comes_back_as_it_was(store):
    made = [put(store, blocks(store, rotation)) for rotation in (0, 2, 4)]
    assert [split.version for split in made] == [1, 2, 3]
    newest = neurostore.open(store.url)
    for split in made:
        back = newest.split(split.title)
        assert isinstance(back, Split)
        assert back == split
        assert (back.version, back.title) == (split.version, f"blocks/v{split.version}")
        assert back.session.tolist() == split.session.tolist()
        assert back.start.tolist() == split.start.tolist()
    assert newest.split("blocks").version == 3
    part = newest.split("blocks/v2/test")
    assert isinstance(part, Part)
    assert (part.name, part.digest) == ("blocks/v2/test", made[1].digest)
    assert newest.split("blocks/test").name == "blocks/v3/test"


def test_the_tenth_version_is_newer_than_the_ninth(store):
    for rotation in range(10):
        put(store, blocks(store, rotation, block=20))
    assert store.split("blocks").version == 10
    assert store.splits["version"].tolist() == list(range(1, 11))


def test_a_split_equal_to_the_newest_is_no_commit_and_an_older_one_is_a_new_version(store):
    first = put(store, blocks(store))
    before = store.snapshot
    with store.transaction("again") as tx:
        again = tx.put(blocks(store))
    assert (again.title, tx.snapshot, store.snapshot) == ("blocks/v1", before, before)
    put(store, blocks(store, 2))
    assert put(store, first).title == "blocks/v3"
    assert put(store, blocks(store, name="others")).title == "others/v1"


def test_a_transaction_may_put_sessions_and_several_versions_of_splits_on_them():
    store = neurostore.create("memory://stored-splits-together")
    with store.transaction("all at once") as tx:
        tx.put(session("d/s"))
        hand = Split("hand", {}, ["d/s"], np.array([0]), np.array([9]), ["train"])
        assert tx.put(hand).version == 1
        assert tx.put(hand).version == 1
        assert tx.put(Split("hand", {}, ["d/s"], np.array([0]), np.array([8]), ["a"])).version == 2
    assert store.splits["version"].tolist() == [1, 2]
    assert store.split("hand/v1") == hand
    assert not any(store.validate().values())


def test_a_refused_transaction_leaves_no_split(store):
    stranger = Split("strange", {}, ["d/z"], np.array([0]), np.array([9]), ["train"])
    with pytest.raises(NotFoundError), store.transaction("fails") as tx:
        [tx.put(one) for one in (blocks(store), stranger)]
    assert not len(neurostore.open(store.url).splits)


def test_the_table_of_splits_says_name_version_digest_rows_and_labels(store):
    assert store.splits.columns.tolist() == ["name", "version", "digest", "rows", "labels"]
    assert not len(store.splits)
    split = put(store, blocks(store))
    put(store, splits.contiguous("a", store.session("d/s").timeline()))
    found = store.splits.to_dict("records")
    assert [(one["name"], one["version"], one["rows"]) for one in found] == [
        ("a", 1, 3),
        ("blocks", 1, len(split)),
    ]
    assert found[1]["digest"] == split.digest
    assert found[1]["labels"] == ["train", "validation", "test"]


@pytest.mark.parametrize("name", ["with space", "µ", "..", "zarr.json", "c", "sessions", "x" * 150])
def test_any_name_without_a_slash_comes_back(store, name):
    put(store, blocks(store, name=name, block=20))
    put(store, blocks(store, 2, name=name, block=20))
    assert store.split(name).title == f"{name}/v2"
    assert store.split(f"{name}/v1/train").name == f"{name}/v1/train"
    assert not any(store.validate().values())


@pytest.mark.parametrize("name", ["", "a/b", "v2", "a\nb"])
def test_a_name_that_would_be_read_otherwise_is_refused(store, name):
    with pytest.raises(UsageError, match="A split needs a name without slashes"):
        blocks(store, name=name)


# ---- what is asked for and is not there


def test_an_unknown_split_version_or_label_is_answered_with_the_nearest(store):
    with pytest.raises(NotFoundError, match="There is no split at all"):
        store.split("blocks")
    put(store, blocks(store))
    for ref, said in (
        ("blokcs", r"No split 'blokcs' in .*lab-\d+\. Did you mean 'blocks'"),
        ("blocks/v2", r"No version 'v2' in split 'blocks' of .*lab-\d+\. Did you mean 'v1'"),
        ("blocks/v1/tset", "No label 'tset' in split 'blocks'. Did you mean 'test'"),
        ("blocks/tset", "No label 'tset' in split 'blocks'. Did you mean 'test'"),
        ("", "No split ''"),
    ):
        with pytest.raises(NotFoundError, match=said):
            store.split(ref)


def test_a_split_on_sessions_or_clocks_that_the_store_does_not_have_is_refused(store):
    observed = store.session("d/s").timeline().observed
    stranger = splits.Timeline("d/z", Clock(), 0, observed)
    slow = splits.Timeline("d/s", Clock(1000), 0, observed)
    for timeline, said in (
        (stranger, r"No session 'd/z' in .*lab-\d+, though split 'b' names it. There is: d/s, d/t"),
        (slow, r"'b' counts 1000 ticks a second of d/s, the store 1e\+06"),
    ):
        with pytest.raises(UsageError, match=said), store.transaction("wrong") as tx:
            tx.put(splits.interleaved_blocks("b", timeline, block=10))
    with store.transaction("deleted, then named") as tx:
        split = blocks(store)
        tx.delete("d/t")
        with pytest.raises(NotFoundError, match="No session 'd/t'"):
            tx.put(split)
    assert not len(store.splits)


def test_a_split_is_not_replaced(store):
    with pytest.raises(UsageError, match="never replaced"), store.transaction("over") as tx:
        tx.put(blocks(store), replace=True)
    with pytest.raises(UsageError, match="a Split or a Stimulus, found dict"):
        store.transaction("what").put({})


# ---- history


def test_a_store_as_it_was_shows_the_splits_it_had(store):
    put(store, blocks(store))
    store.tag("one")
    put(store, blocks(store, 2))
    older = store.at("one")
    assert older.split("blocks").version == 1
    assert older.splits["version"].tolist() == [1]
    with pytest.raises(NotFoundError, match="'v2'"):
        older.split("blocks/v2")


def test_the_log_and_validate_name_splits(store, capsys):
    put(store, blocks(store))
    assert store.log(1)[0].changes == {"/splits/blocks/v1": "put"}
    assert cli.main(["log", store.url]) == cli.DONE
    assert "        put /splits/blocks/v1\n" in capsys.readouterr().out
    assert cli.main(["log", store.url, "--json"]) == cli.DONE
    assert json.loads(capsys.readouterr().out)[0]["splits"] == {"/splits/blocks/v1": "put"}
    assert cli.main(["validate", store.url]) == cli.DONE
    out = capsys.readouterr().out
    assert re.search(
        r"^/splits/blocks/v1: holds its contracts, unchanged since its commit$", out, re.M
    )
    assert re.search(r"^d/s: .* its commit$", out, re.M)
    assert cli.main(["validate", store.url, "d/s"]) == cli.DONE
    assert "splits" not in capsys.readouterr().out


def test_a_store_from_before_splits_opens_and_takes_them():
    place = parse("memory://stored-splits-before")

    def start(zarr):
        layout.put_group(zarr, "", {"neurostore_format": layout.FORMAT})
        layout.put_group(zarr, "sessions", {})

    about = who() | {"sessions": {}, "catalogue": _catalogue.Total().to_json()}
    IcechunkVersions.create(place, start, about)
    store = neurostore.open("memory://stored-splits-before")
    assert "split_catalogue" not in store.log()[-1].metadata
    assert not len(store.splits)
    assert store.log()[-1].to_json()["splits"] == {}
    with store.transaction("a session") as tx:
        tx.put(session("d/s"))
    put(store, blocks(store))
    assert store.log(1)[0].metadata["split_catalogue"]["splits"] == 1
    assert not any(store.validate().values())
    assert store.at(store.log()[-1].snapshot).validate() == {}


# ---- two writers


def test_two_writers_of_one_name_conflict_and_the_second_writes_nothing(store):
    other = neurostore.open(store.url)
    mine, theirs = store.transaction("mine"), other.transaction("theirs")
    mine.put(blocks(store))
    theirs.put(blocks(store, 2))
    with mine:
        pass
    with (
        pytest.raises(
            ConflictError, match=r"'/splits/blocks/v1' was added by .*one split"
        ) as caught,
        theirs,
    ):
        pass
    assert "('mine'" in str(caught.value)
    newest = neurostore.open(store.url)
    assert newest.splits["version"].tolist() == [1]
    assert newest.split("blocks") == blocks(store)


def test_a_writer_who_has_not_seen_the_newest_version_is_told(store):
    other = neurostore.open(store.url)
    put(store, blocks(store))
    with pytest.raises(ConflictError, match=r"store\.refresh\(\)"):
        put(other, blocks(store, 2))
    assert put(other.refresh(), blocks(store, 2)).version == 2


def test_writers_of_different_names_and_of_sessions_merge(store):
    others = [neurostore.open(store.url) for _ in range(3)]
    open_ones = [other.transaction(f"writer {k}") for k, other in enumerate(others)]
    open_ones[0].put(blocks(store, name="one"))
    open_ones[1].put(blocks(store, name="two"))
    open_ones[2].put(session("d/u", seed=3))
    for tx in open_ones:
        with tx:
            pass
    newest = neurostore.open(store.url)
    assert newest.splits["name"].tolist() == ["one", "two"]
    assert len(newest.sessions()) == 3
    assert not any(newest.validate().values())


# ---- damage


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    store = neurostore.create(tmp_path_factory.mktemp("splits") / "lab")
    with store.transaction("sessions") as tx:
        tx.put(session("d/s"))
    before = {path.name for path in Path(store.url, "chunks").iterdir()}
    put(store, uneven(1))
    put(store, uneven(2))
    put(store, uneven(3, name="other"))
    (Path(store.url) / "of-splits").write_text(
        "\n".join({path.name for path in Path(store.url, "chunks").iterdir()} - before)
    )
    return Path(store.url)


def reading(url: Path) -> dict[str, object]:
    """The splits, by name; the error where that was the answer."""

    def read(what):
        try:
            return what()
        except NeurostoreError as error:
            return error

    store = read(lambda: neurostore.open(url))
    if isinstance(store, NeurostoreError):
        return {"open": store}
    found = {"splits": read(lambda: store.splits.to_json())}
    for name in ("blocks", "blocks/v1", "blocks/v2", "other"):
        found[name] = read(lambda name=name: store.split(name).to_json())
    return found


def judge(good: dict[str, object], found: dict[str, object]) -> str:
    for name, value in found.items():
        if isinstance(value, NeurostoreError):
            assert not isinstance(value, NotFoundError), value.line
        else:
            assert value == good[name], name
    return "error" if any(isinstance(one, NeurostoreError) for one in found.values()) else "same"


@pytest.mark.parametrize("how", ["flipped", "empty", "gone"])
def test_a_damaged_chunk_of_a_split_is_an_error_that_names_it_and_harms_no_other(url, how):
    good, names = reading(url), (url / "of-splits").read_text().split()
    assert len(names) >= 3
    for name in names:
        path = url / "chunks" / name
        data = path.read_bytes()
        damage = {"flipped": flipped(data, 4 * len(data)), "empty": b"", "gone": None}[how]
        with replaced(path, damage):
            found = reading(url)
            checked = neurostore.open(url).validate()
        assert judge(good, found) == "error"
        lines = {str(one) for one in found.values() if isinstance(one, DamagedError)}
        ((named, version),) = {
            re.search(r"splits/(\w+)/(v\d)/split/", one).groups() for one in lines
        }
        refs = {"other"} if named == "other" else {f"blocks/{version}"}
        refs |= {"blocks"} if version == "v2" else set()
        assert {ref for ref, one in found.items() if isinstance(one, DamagedError)} == refs
        wrong = {id: findings for id, findings in checked.items() if findings}
        ((id, (finding,)),) = wrong.items()
        assert (id, finding.check) == (f"/splits/{named}/{version}", "store/damage")


@pytest.mark.parametrize(("folder", "least"), [("manifests", 12), ("snapshots", 12)])
def test_a_bit_turned_above_the_chunks_is_never_another_split_nor_none(url, folder, least):
    good, rng, outcomes = reading(url), random.Random(3), Counter()
    newest = max((url / folder).iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for _ in range(40):
        data = newest.read_bytes()
        with replaced(newest, flipped(data, rng.randrange(8 * len(data)))):
            outcomes[judge(good, reading(url))] += 1
    assert outcomes["error"] >= least


@pytest.mark.parametrize("hidden", ["other", "v2"])
def test_a_split_that_is_not_found_is_damage_and_not_absence(url, monkeypatch, hidden):
    children = layout.children

    def without(zarr, path):
        return [name for name in children(zarr, path) if name != hidden]

    monkeypatch.setattr(layout, "children", without)
    for use in (
        lambda: neurostore.open(url).split("other"),
        lambda: neurostore.open(url).splits,
        lambda: put(neurostore.open(url), uneven(4)),
    ):
        with pytest.raises(DamagedError, match="names 3 versions of splits, 2 are found"):
            use()


def test_rows_that_are_not_those_of_the_digest_are_damage(store):
    made = put(store, blocks(store))
    attrs = dict(store.split_rows[0])
    with pytest.raises(DamagedError, match="Split blocks/v1 is not what was written"):
        _splits.read(store.zarr, attrs | {"digest": made.digest[::-1]})
