"""A store opens from plain files where they prove whole, and else as its engine says."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
from _damaged import flipped, replaced
from _sampled import store_of, three

import neurostore
from neurostore.errors import DamagedError, NeurostoreError, NotFoundError, StoreError
from neurostore.sample import Spikes, Window, choose
from neurostore.store import _local
from neurostore.store._format import digest
from neurostore.store._versions import IcechunkVersions
from neurostore.store.urls import parse

ENGINE = ["zarr", "icechunk", "numcodecs"]
TABLES = ["pandas", "pyarrow", "duckdb", "xarray", "pandera", "numba", "scipy"]


def ids(store):
    return [row["id"] for row in store.rows]


def content(store):
    """Rows and attributes with the order of every mapping."""
    return json.dumps([store.rows, [dict(store.session(id).attrs) for id in ids(store)]])


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    made = store_of(*three(), url=str(tmp_path_factory.mktemp("opening") / "lab"))
    assert made.rows
    return made.url


@pytest.fixture
def lab(url, tmp_path):
    """A store of its own, whose catalogue this machine has read."""
    shutil.copytree(url, tmp_path / "lab")
    store = neurostore.open(tmp_path / "lab")
    assert store.rows
    return tmp_path / "lab"


@pytest.fixture
def copies(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROSTORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "catalogue"


def in_a_process(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- what is loaded


def test_a_store_known_to_this_machine_opens_without_its_engine_and_any_library_of_tables(url):
    code = (
        "import sys, pickle, neurostore, neurostore.store, neurostore.sample\n"
        "store = neurostore.open(sys.argv[1])\n"
        "for one in (store, store.pin(), store.refresh(), pickle.loads(pickle.dumps(store))):\n"
        "    for row in one.rows:\n"
        "        session = one.session(row['id'])\n"
        "        assert session.tables and session.clock and row['id'] in one\n"
        "try: neurostore.open(sys.argv[1] + '-not')\n"
        "except neurostore.NotFoundError: pass\n"
        f"print([m for m in {ENGINE + TABLES!r} if m in sys.modules])"
    )
    assert in_a_process(code, url) == "[]"


def test_a_dataset_of_all_units_loads_no_library_of_tables(url):
    code = (
        "import sys, neurostore\n"
        "from neurostore import Dataset, Spikes, Window\n"
        "store = neurostore.open(sys.argv[1])\n"
        "for sessions in (None, 'demo/a', ['demo/a', 'demo/c']):\n"
        "    made = Dataset(store, sessions, window=Window(1.0, 0.5),\n"
        "                   streams={'spikes': Spikes(0.02)})\n"
        "    assert len(made)\n"
        f"print([m for m in {TABLES!r} if m in sys.modules])"
    )
    assert in_a_process(code, url) == "[]"


def test_a_child_forked_before_the_engine_runs_reads_the_store(url):
    code = (
        "import os, sys, warnings, neurostore\n"
        "warnings.simplefilter('ignore', DeprecationWarning)  # of fork beside threads\n"
        "store = neurostore.open(sys.argv[1])\n"
        "session = store.session('demo/a')\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    print(int(session.counts(0, 20, 1).values.sum()), flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(int(session.counts(0, 20, 1).values.sum()))"
    )
    child, parent = in_a_process(code, url).split()
    assert child == parent == str(sum(map(len, three()[0].units.values())))


# ---- the local copy


def test_what_the_local_copy_says_is_what_the_store_says_in_the_same_order(url, copies):
    before = neurostore.open(url)
    assert not copies.exists()
    wanted = json.dumps([dict(before.session(f"demo/{name}").attrs) for name in "abc"])
    assert not copies.exists()  # one session is no reason to read all of them
    first = content(before)
    assert len(list(copies.iterdir())) == 1
    after = neurostore.open(url)
    assert content(after) == content(after.pin()) == content(before) == first
    assert json.dumps(json.loads(first)[1]) == wanted
    assert content(pickle.loads(pickle.dumps(after))) == first
    assert after.sessions().to_json() == before.sessions().to_json()


def test_no_part_of_a_local_copy_with_a_bit_turned_is_used_and_it_is_written_anew(url, copies):
    store = neurostore.open(url)
    wanted, (path,) = content(store), list(copies.iterdir())
    data, rng = path.read_bytes(), random.Random(0)
    for bad in (
        *(flipped(data, bit) for bit in range(8 * 40)),
        *(flipped(data, rng.randrange(8 * len(data))) for _ in range(300)),
        *(data[: rng.randrange(len(data))] for _ in range(30)),
        *(b"", b"\n", data + b"\n", data.partition(b"\n")[2], b"[]", os.urandom(2000)),
    ):
        path.write_bytes(bad)
        found = _local.load(store.snapshot)
        if found is not None:  # one part is damaged, and it is not that of the names
            assert found.ids == ids(store)
            assert (found.records is None) != (found._read_table() is None)
    assert content(neurostore.open(url)) == wanted
    assert path.read_bytes() == data


def test_a_local_copy_of_another_snapshot_or_format_is_not_used(url, copies, monkeypatch):
    store = neurostore.open(url)
    assert store.rows
    other = store.log()[-1].snapshot
    (path,) = copies.iterdir()
    shutil.copy(path, path.with_stem(other))
    assert _local.load(store.snapshot) is not None
    assert _local.load(other) is None
    assert store.at(other).rows == []
    monkeypatch.setattr(_local, "FORMAT", 2)
    assert _local.load(store.snapshot) is None


def test_attributes_that_are_not_those_of_the_digest_are_read_from_the_store(url, copies):
    store = neurostore.open(url)
    wanted, rows = content(store), store.rows
    wrong = {"id": "demo/a", "clock": {"rate": "1", "origin": ""}}
    _local.save(store.snapshot, _local.Catalogue.of([{**wrong, "row": row} for row in rows]))
    again = neurostore.open(url)
    assert _local.load(store.snapshot).attrs("demo/a") is None
    assert content(again) == wanted


def test_local_copies_do_not_pile_up_and_the_newest_stay(tmp_path, copies, monkeypatch):
    monkeypatch.setattr(_local, "KEPT", 3)
    store = store_of(url=str(tmp_path / "many"))
    snapshots = []
    for k in range(6):
        builder = neurostore.SessionBuilder(dataset="d", session=f"s{k}")
        builder.add_units({"u": [0.0, 1.0]})
        with store.transaction("one more") as tx:
            tx.put(builder)
        snapshots.append(store.snapshot)
        assert len(store.rows) == k + 1
        if k == 1:
            (copies / f"{snapshots[-1]}.json.17.4").write_bytes(b"left by a writer that was killed")
        for age, snapshot in enumerate(reversed(snapshots)):
            for path in copies.glob(f"{snapshot}.json*"):  # clocks of file systems are coarse
                os.utime(path, (1e9 - age, 1e9 - age))
    assert {one.name for one in copies.iterdir()} == {f"{one}.json" for one in snapshots[-3:]}
    for k, snapshot in enumerate(snapshots):
        assert len(store.at(snapshot).rows) == k + 1


def test_a_store_in_memory_leaves_no_local_copy(copies):
    store = store_of(*three())
    assert len(store.rows) == 3
    assert content(store) == content(neurostore.open(store.url))
    assert not copies.exists()


# ---- the newest snapshot


def ref(folder):
    return folder / "refs" / "branch.main" / "ref.json"


ODD = {
    "another key": lambda data: data.replace(b"}", b',"more":1}'),
    "spaces": lambda data: b" " + data.replace(b":", b" : ") + b"\n",
    "lower case": lambda data: data.lower().replace(b"SNAPSHOT", b"snapshot"),
    "letters that stand for digits": lambda data: data.replace(b"0", b"O"),
    "cut": lambda data: data[:-3],
    "empty": lambda data: b"",
    "gone": lambda data: None,
    "no text": lambda data: b"\xff" + data,
    "a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "a snapshot that is not there": lambda data: b'{"snapshot":"00000000000000000000"}',
    "a short id": lambda data: data[:-4] + b'"}',
    "another name": lambda data: data.replace(b"snapshot", b"Snapshot"),
    "twice": lambda data: data.replace(b"}", b',"snapshot":"00000000000000000000"}'),
    "a path": lambda data: b'{"snapshot":"../../../../../etc/p"}',
}


@pytest.mark.parametrize("how", ODD)
def test_an_odd_ref_is_what_the_engine_makes_of_it(lab, how):
    wanted = content(neurostore.open(lab))
    with replaced(ref(lab), ODD[how](ref(lab).read_bytes())):
        said, store = by_engine(lab), opened(lab)
        if isinstance(said, str):
            assert store.snapshot == said
            assert content(store) == wanted
        else:
            assert type(store) is type(said)
            assert store.line == said.line


def by_engine(folder):
    """The newest snapshot by the engine, or its error."""
    try:
        versions = IcechunkVersions.open(parse(folder))
        versions.read(versions.head())
    except NeurostoreError as error:
        return error
    return versions.head()


def opened(folder):
    try:
        return neurostore.open(folder)
    except NeurostoreError as error:
        return error


def test_a_ref_that_is_a_folder_and_a_repository_of_the_next_format_go_to_the_engine(lab):
    data = ref(lab).read_bytes()
    ref(lab).unlink()
    ref(lab).mkdir()
    with pytest.raises(StoreError, match="The store at"):
        neurostore.open(lab)
    ref(lab).rmdir()
    ref(lab).write_bytes(data)
    (lab / "repo").write_bytes(b"refs of another format")
    with pytest.raises(StoreError, match="Icechunk v2 format"):
        neurostore.open(lab)


def test_what_others_commit_is_seen_by_the_next_open_and_by_refresh(lab):
    old, other = neurostore.open(lab), neurostore.open(lab)
    kept = pickle.dumps(old.pin())
    with other.transaction("one less") as tx:
        tx.delete("demo/b")
    assert ids(old) == ids(pickle.loads(kept)) == ["demo/a", "demo/b", "demo/c"]
    assert ids(neurostore.open(lab)) == ids(old.refresh()) == ["demo/a", "demo/c"]
    assert old.snapshot == other.snapshot
    with pytest.raises(NotFoundError, match="demo/b"):
        old.session("demo/b")
    assert ids(old.at(other.log()[1].snapshot)) == ids(pickle.loads(kept))


# ---- what is not there any more


def test_a_store_that_vanished_is_not_found_though_its_catalogue_is_known(lab):
    store = neurostore.open(lab)
    kept = pickle.dumps(store)
    shutil.rmtree(lab)
    for use in (
        lambda: neurostore.open(lab),
        lambda: pickle.loads(kept),
        lambda: store.session("demo/a").stored("spikes"),
    ):
        with pytest.raises(NotFoundError, match="No store"):
            use()
    with pytest.raises(NotFoundError, match="No store"):
        store.refresh()


def test_a_store_made_anew_at_the_same_place_is_never_taken_for_the_one_before(lab):
    before = neurostore.open(lab)
    kept = pickle.dumps(before)
    shutil.rmtree(lab)
    store_of(*three(seed=1)[:1], url=str(lab))
    assert ids(neurostore.open(lab)) == ["demo/a"]
    with pytest.raises(StoreError, match=before.snapshot):
        before.session("demo/a").stored("spikes")
    with pytest.raises(StoreError, match=before.snapshot):
        pickle.loads(kept)
    assert ids(before.refresh()) == ["demo/a"]


def test_without_the_file_of_its_snapshot_a_store_is_damaged_though_its_catalogue_is_known(lab):
    store = neurostore.open(lab)
    with replaced(lab / "snapshots" / store.snapshot, None), pytest.raises(DamagedError):
        neurostore.open(lab)
    assert content(neurostore.open(lab)) == content(store)


# ---- the units of a dataset


def plain(chosen):
    return [
        (one.session.id, *(part.tolist() for part in (one.rows, one.ids, one.regions)), one.spikes)
        for one in chosen
    ]


def test_all_units_are_those_that_a_condition_which_always_holds_chooses(tmp_path):
    store = store_of(*three(), url=str(tmp_path / "lab"))
    bare = neurostore.SessionBuilder(dataset="demo", session="no-units")
    bare.add_behaviour("wheel", np.arange(30.0), start=0, rate=9, units="rad")
    silent = neurostore.SessionBuilder(dataset="demo", session="silent")
    silent.add_units({"x": [], "µ": []}, region=["", "CA1"])
    with store.transaction("odd ones") as tx:
        tx.put(bare)
        tx.put(silent)
    every = [row["id"] for row in store.rows]
    for sessions in (None, "demo/b", "n_units > 1", ["demo/c", "demo/a", "demo/c"], every):
        found = plain(choose(store, sessions))
        assert found == plain(choose(store, sessions, "n_spikes >= 0"))
        assert all(type(text) is str for one in found for text in (*one[2], *one[3]))
    assert plain(choose(store, "demo/no-units")) == [("demo/no-units", [], [], [], 0)]
    with pytest.raises(NotFoundError, match="demo/z"):
        choose(store, ["demo/a", "demo/z"])
    dataset = neurostore.Dataset(store, window=Window(1.0), streams={"spikes": Spikes(0.02)})
    assert dataset.unit_ids["demo/silent"].tolist() == ["x", "µ"]


def test_digests_of_attributes_are_those_of_their_rows(url):
    store = neurostore.open(url)
    for row in store.rows:
        attrs = dict(store.session(row["id"]).attrs)
        assert attrs.pop("row") == row
        assert digest(attrs) == row["attributes"]
