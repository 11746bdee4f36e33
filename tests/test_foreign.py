"""What another writer may have left in a store: refused by name, never opened, never empty."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest
from _damaged import build

import neurostore
from neurostore.errors import DamagedError, StoreError
from neurostore.store import _catalogue, _local, layout
from neurostore.store._format import session_path, table_path


def unsigned(store):
    """What the newest commit carries, to be signed anew."""
    return {key: value for key, value in store._commit.metadata.items() if key != "checksum"}


def rewritten(store, id, change):
    """The store with the document of a node changed, and everything signed anew around it."""
    versions, path = store._versions, session_path(id)
    draft = versions.begin()
    attrs = _catalogue.read_attrs(draft.store, path)
    old = attrs.pop("row")
    entries = {name: dict(entry) for name, entry in old["tables"].items()}
    change(draft.store, path, entries)
    for name, entry in entries.items():
        where = f"{path}/{table_path(name)}"
        there = [
            one for one in entry["arrays"] if layout.get_document(draft.store, f"{where}/{one}")
        ]
        entry["metadata"] = layout.metadata_digest(draft.store, where, there)
    new = _catalogue.make_row(attrs, entries, "f" * 32)
    layout.put_group(draft.store, path, {**attrs, "row": new})
    total = _catalogue.Total(store._total).plus([old], -1).plus([new])
    about = {"author": "x", "time": "2020-01-01T00:00:00+00:00", "sessions": {}}
    versions.commit(draft, "signed", lambda head: about | {"catalogue": total.to_json()})
    return neurostore.open(store.url)


def with_array(**changes):
    def change(zarr, path, entries):
        where = f"{path}/behaviour/wheel/value"
        layout._put_document(zarr, where, layout.get_document(zarr, where) | changes)

    return change


def without_array(zarr, path, entries):
    entries["behaviour/wheel"]["arrays"]["valid"] = "0" * 64


FOREIGN = {
    "an unknown codec": (
        with_array(codecs=[{"name": "bytes"}, {"name": "pickle"}]),
        "behaviour/wheel/value uses the codecs pickle, which are never opened",
    ),
    "a codec inside shards": (
        with_array(
            codecs=[
                {
                    "name": "sharding_indexed",
                    "configuration": {"codecs": [{"name": "numcodecs.pickle"}], "index_codecs": []},
                }
            ]
        ),
        "uses the codecs numcodecs.pickle",
    ),
    "an object dtype": (
        with_array(data_type={"name": "object", "configuration": {}}),
        "behaviour/wheel/value has the data type {'name': 'object'",
    ),
    "no names of dimensions": (
        with_array(dimension_names=None),
        "behaviour/wheel does not lie as format 1 says",
    ),
    "a row that names a missing array": (
        without_array,
        "behaviour/wheel/valid is named by its session but is not found",
    ),
}


@pytest.fixture
def lab():
    name = f"memory://foreign-{random.random()}"
    store = neurostore.create(name)
    builder = neurostore.SessionBuilder(dataset="d", session="s")
    builder.add_behaviour("wheel", np.arange(300.0), start=0, rate=9, units="rad")
    builder.add_behaviour("other", np.arange(300.0), start=0, rate=9, units="rad")
    with store.transaction("first") as tx:
        tx.put(builder)
    return store


@pytest.mark.parametrize("what", FOREIGN)
def test_what_format_1_does_not_allow_is_refused_by_name(lab, what):
    change, said = FOREIGN[what]
    session = rewritten(lab, "d/s", change).session("d/s")
    with pytest.raises(StoreError) as caught:
        session.behaviour["wheel"]
    assert said in caught.value.line
    assert session.behaviour["other"].value.values[7] == 7.0


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return build(tmp_path_factory.mktemp("foreign") / "lab").url


def root(store, document):
    """The store with another document at its root."""
    about = unsigned(store)
    draft = store._versions.begin()
    layout._put_document(draft.store, "", document)
    store._versions.commit(draft, "root", lambda head: about)
    return neurostore.open(store.url)


def test_a_newer_format_asks_for_a_newer_version(lab):
    document = {"zarr_format": 3, "node_type": "group", "attributes": {"neurostore_format": 2}}
    with pytest.raises(StoreError, match=r"is of format 2, this version reads 1\. Install a newer"):
        root(lab, document)


@pytest.mark.parametrize("attributes", [{}, {"neurostore_format": None}])
def test_a_root_without_a_format_is_damaged_not_empty(lab, attributes):
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    with pytest.raises(DamagedError, match="carries no neurostore_format"):
        root(lab, document)


def test_a_session_that_the_commit_counts_but_is_not_found_is_damage(lab):
    about = unsigned(lab)
    draft = lab._versions.begin()
    layout.sync(draft.below("sessions/d/s").delete_dir("sessions/d/s"))
    lab._versions.commit(draft, "lost", lambda head: about)
    store = neurostore.open(lab.url)
    for read in (store.sessions, store.units, store.validate, lambda: store.session("d/s")):
        with pytest.raises(DamagedError, match="names 1 sessions, 0 are found"):
            read()


def test_a_session_that_the_catalogue_names_but_is_not_found_is_damage(url, tmp_path):
    shutil.copytree(url, tmp_path / "lab")
    store = neurostore.open(tmp_path / "lab")
    about = unsigned(store)
    draft = store._versions.begin()
    layout.sync(draft.below("sessions/lab/b").delete_dir("sessions/lab/b"))
    store._versions.commit(draft, "lost", lambda head: about)
    store.refresh()
    rows = neurostore.open(url).rows  # read before it was lost
    _local.save(store.snapshot, _local.Catalogue.of([{"row": row} for row in rows]))
    with pytest.raises(DamagedError, match="lab/b stands in the catalogue but is not found"):
        store.session("lab/b")


@pytest.mark.parametrize("method", ["get", "list_dir"])
def test_a_panic_of_the_engine_is_one_clear_error(monkeypatch, method):
    class PanicException(BaseException):
        """As native code raises it: no `Exception`."""

    def panic(*_: object, **__: object) -> None:
        raise PanicException("index out of bounds")

    store = neurostore.create(f"memory://panic-{method}")
    monkeypatch.setattr(type(store.zarr), method, panic)
    with pytest.raises(neurostore.StoreError, match="PanicException"):
        store.session("d/s")
