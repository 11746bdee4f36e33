"""What is read of a repository to know its sessions: counted, however many there are."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from _damaged import flipped
from zarr.core.sync import sync

import neurostore
from neurostore.cli import main
from neurostore.store import _catalogue, _optimized
from neurostore.store._columnar import NODES, Catalogue

MANY = 12


def builder(name, units=2):
    made = neurostore.SessionBuilder(dataset="d", session=name, rate=30_000)
    made.add_units({f"u{k}": np.arange(1.0, 5.0 + k) for k in range(units)}, region=["CA1"] * units)
    return made


def add(store, *names, units=2):
    with store.transaction("more") as tx:
        for name in names:
            tx.put(builder(name, units), replace=True)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A repository of a dozen sessions, optimized."""
    store = neurostore.create(tmp_path_factory.mktemp("scale") / "lab")
    add(store, *(f"s{k:02}" for k in range(MANY)))
    store.optimize()
    return store.url


@pytest.fixture
def lab(kept, tmp_path, monkeypatch):
    """A copy of it, on a machine that has never seen it."""
    monkeypatch.setenv("NEUROSTORE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(kept, tmp_path / "lab")
    return tmp_path / "lab"


@pytest.fixture
def read(monkeypatch):
    """The sessions whose attributes are asked for from here on."""
    seen, real = [], _catalogue.read_attrs

    def counted(store, path):
        seen.append(path.rpartition("/")[2])
        return real(store, path)

    monkeypatch.setattr(_catalogue, "read_attrs", counted)
    return seen


def without_catalogue(folder):
    (folder / "neurostore" / _optimized.NAME).unlink()
    return folder


def by_rows(folder, snapshot=None):
    """What the rows of the sessions themselves say."""
    store = neurostore.open(folder, snapshot)
    found = Catalogue.of(_catalogue.read_all(store.zarr, store._total))
    return found.rows, found.table


# ---- the object beside a repository


def test_an_optimized_catalogue_is_read_instead_of_every_session(lab, read):
    store = neurostore.open(lab)
    rows, table = store.rows, store.table
    assert read == []
    assert dict(store.session("d/s03").attrs)["id"] == "d/s03"
    assert read == []
    assert (rows, table) == by_rows(lab)
    assert len(read) == MANY


def test_without_it_every_session_is_read_once(lab, read):
    store = neurostore.open(without_catalogue(lab))
    assert len(store.sessions("n_units = 2")) == MANY
    assert len(read) == MANY
    assert len(neurostore.open(lab).rows) == MANY
    assert len(read) == MANY


def test_of_a_later_snapshot_only_what_changed_is_read(lab, read, monkeypatch, tmp_path):
    writer = neurostore.open(lab)
    add(writer, "s03", units=3)
    add(writer, "new")
    with writer.transaction("gone") as tx:
        tx.delete("d/s05")
    monkeypatch.setenv("NEUROSTORE_CACHE", str(tmp_path / "another machine"))
    read.clear()
    store = neurostore.open(lab)
    rows, table = store.rows, store.table
    assert sorted(read) == ["new", "s03", "s05"]
    assert (rows, table) == by_rows(lab)
    assert "d/new" in store.ids
    assert "d/s05" not in store.ids


def test_of_an_earlier_snapshot_only_what_changed_since_is_read(lab, read, monkeypatch, tmp_path):
    writer = neurostore.open(lab)
    writer.tag("first")
    add(writer, "s03", "new", units=3)
    writer.optimize()
    monkeypatch.setenv("NEUROSTORE_CACHE", str(tmp_path / "another machine"))
    read.clear()
    store = neurostore.open(f"{lab}@first")
    rows = store.rows
    assert sorted(read) == ["new", "s03"]
    assert rows == by_rows(lab, "first")[0]


def test_own_commits_read_what_they_changed_and_no_more(lab, read):
    store = neurostore.open(without_catalogue(lab))
    assert len(store.table) == MANY
    read.clear()
    for k in range(3):
        add(store, f"new{k}")
    assert set(read) <= {f"new{k}" for k in range(3)}
    read.clear()
    assert len(store.sessions("n_units = 2")) == MANY + 3
    assert sorted(read) == ["new0", "new1", "new2"]
    assert (store.rows, store.table) == by_rows(lab)


def test_what_others_commit_is_read_alone_after_refresh(lab, read):
    store, other = (neurostore.open(lab) for _ in range(2))
    assert len(store.ids) == MANY
    add(other, "new")
    read.clear()
    assert len(store.refresh().ids) == MANY + 1
    assert read == ["new"]


@pytest.mark.parametrize("how", ["digest holds", "bits", "cut", "another form", "of nothing"])
def test_a_tampered_or_damaged_one_is_never_believed(lab, read, how):
    path = lab / "neurostore" / _optimized.NAME
    data = path.read_bytes()
    wanted = by_rows(lab)
    found = _optimized.read(neurostore.open(lab)._form.place)
    sessions = [found.catalogue().attrs(id) for id in found.catalogue().ids]
    if how == "digest holds":  # a row less, and all checksums right: the commit's sum tells
        records = Catalogue.of(sessions[1:]).records
        path.write_bytes(_optimized.encoded(found.snapshot, records))
    elif how == "of nothing":
        path.write_bytes(data.replace(found.snapshot.encode(), b"A" * 20, 1))
    else:
        bad = {"cut": data[:-3], "another form": b"neurostore catalogue 9\n"}
        path.write_bytes(bad.get(how) or flipped(data, 8 * (len(data) // 2)))
    read.clear()
    store = neurostore.open(lab)
    assert (store.rows, store.table) == wanted
    assert len(read) == MANY


def test_no_bit_of_it_that_is_turned_changes_what_is_read(lab, monkeypatch):
    monkeypatch.setenv("NEUROSTORE_CACHE", "off")
    path = lab / "neurostore" / _optimized.NAME
    data, wanted = path.read_bytes(), by_rows(lab)[0]
    rng = np.random.default_rng(0)
    for bit in (*range(0, 8 * 100, 7), *rng.integers(0, 8 * len(data), 100).tolist()):
        path.write_bytes(flipped(data, bit))
        kept = _optimized.read(neurostore.open(lab)._form.place)
        found = None if kept is None else kept.catalogue()
        assert found is None or found.rows == wanted


def test_a_commit_that_does_not_say_what_it_changed_is_read_by_rows(lab, read, monkeypatch):
    store = neurostore.open(lab)
    versions, real = type(store._versions), type(store._versions).log

    def forgetful(self, snapshot):
        for found in real(self, snapshot):
            found.metadata["sessions"] = {}
            yield found

    add(store, "new")
    monkeypatch.setattr(versions, "log", forgetful)
    read.clear()
    assert "d/new" in neurostore.open(lab).ids
    assert len(read) == MANY + 1


def test_one_in_memory_and_a_dry_run(capsys):
    store = neurostore.create("memory://optimized")
    add(store, "a")
    assert store.optimize(dry_run=True).before is None
    assert store._form.beside() is None
    first = store.optimize()
    add(store, "b")
    assert store.optimize().before == first.snapshot
    assert neurostore.open("memory://optimized").ids == ["d/a", "d/b"]


# ---- the command, and what it says of size


def test_the_command_writes_it_and_says_what_it_wrote(lab, capsys):
    path = without_catalogue(lab) / "neurostore" / _optimized.NAME
    assert main(["optimize", str(lab), "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert not path.exists()
    assert main(["optimize", str(lab), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert path.stat().st_size == said["bytes"] == done["bytes"]
    assert (said["dry_run"], done["dry_run"], done["sessions"]) == (True, False, MANY)
    assert main(["optimize", str(lab)]) == 0
    assert f"in place of that of {done['snapshot']}" in capsys.readouterr().out


def test_nodes_are_the_groups_and_arrays_that_lie_in_the_store(lab):
    store = neurostore.open(lab)

    async def documents():
        return [one async for one in store.zarr.list_prefix("sessions/") if one.count("/") > 1]

    assert store.nodes == sum(one.endswith("/zarr.json") for one in sync(documents()))


def test_a_repository_that_outgrows_its_comfort_is_told_once_a_command(lab, capsys, monkeypatch):
    assert neurostore.open(lab).outgrown() == []
    monkeypatch.setattr(_optimized, "COMFORT", 100)
    for words in (["sessions", str(lab), "--json"], ["optimize", str(lab), "--json"]):
        assert main(words) == 0
        out, err = capsys.readouterr()
        json.loads(out)
        lines = [*err.splitlines(), *(json.loads(out)["outgrown"] if "optimize" in words else [])]
        assert len(lines) == 1
        assert f"{neurostore.open(lab).nodes:,} groups and arrays" in lines[0]
        assert "neurostore.open([URL, URL])" in lines[0]
    other = neurostore.create(lab.parent / "other")
    assert neurostore.open([lab, other.url]).outgrown() == neurostore.open(lab).outgrown()


# ---- one session of many


def test_one_session_of_many_is_found_without_parsing_the_others(lab, monkeypatch):
    assert neurostore.open(lab).rows
    store, parsed, real = neurostore.open(lab), [], json.loads
    monkeypatch.setattr(json, "loads", lambda text, **more: parsed.append(text) or real(text))
    assert store.session("d/s07").attrs["row"]["n_units"] == 2
    assert sum(b"checksum" in one for one in parsed if isinstance(one, bytes)) <= 1


def test_a_query_parses_no_record_and_sees_no_column_of_ours(lab):
    assert neurostore.open(lab).rows
    store = neurostore.open(lab)
    assert len(store.sessions("n_units = 2 AND list_contains(regions, 'CA1')")) == MANY
    assert "records" not in vars(store._catalogue)
    assert NODES not in store.sessions()
    with pytest.raises(neurostore.UsageError, match="there is no column"):
        store.sessions(f"{NODES} > 3")


def test_a_release_and_a_repository_whose_history_was_let_go_read_every_row(lab, tmp_path):
    store = neurostore.open(lab)
    add(store, "new")
    store.publish(tmp_path / "release")
    assert neurostore.open(tmp_path / "release").ids == store.ids
    store.expire(keep=1)
    assert neurostore.open(lab).ids == store.ids
