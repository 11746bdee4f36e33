"""zarr's own published tests of a store, run against the ways in which a snapshot is read."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np
import pytest
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.buffer.cpu import Buffer
from zarr.core.sync import _collect_aiterator, sync
from zarr.storage import MemoryStore
from zarr.testing.store import StoreTests

import neurostore
from neurostore.errors import StoreError, UsageError
from neurostore.store._arrays import Chunks, Ends
from neurostore.store._keys import Keys
from neurostore.store._versions import Below

PUBLISHED = [
    *("test_get", "test_get_not_open", "test_get_raises", "test_get_many", "test_get_bytes"),
    *("test_get_json", "test_get_partial_values", "test_getsize", "test_getsize_prefix"),
    *("test_getsize_raises", "test_exists", "test_is_empty", "test_list", "test_list_prefix"),
    *("test_list_empty_path", "test_list_dir", "test_store_type"),
]
"""Those that read; the others write, which is refused."""


def run(test: Any) -> Any:
    """A published test, which may be a coroutine, as pytest calls it."""

    @functools.wraps(test)
    def done(self: Any, *arguments: Any, **named: Any) -> None:
        made = test(self, *arguments, **named)
        if inspect.iscoroutine(made):
            sync(made)

    return done


class Published:
    """The published tests; each class below says what is read, and how it is filled."""

    buffer_cls = Buffer
    store_cls: type[Any]

    @pytest.fixture
    def store(self) -> Any:
        return self.make(MemoryStore())

    store_not_open = store

    async def set(self, store: Any, key: str, value: Buffer) -> None:
        await store._store.set(key, value)

    async def get(self, store: Any, key: str) -> Buffer:
        return await store._store.get(key, default_buffer_prototype())

    def make(self, behind: MemoryStore) -> Any:
        raise NotImplementedError

    for _name in PUBLISHED:
        locals()[_name] = run(getattr(StoreTests, _name))


class Filled(Keys):
    """Plain keys; what a published test sets goes to the store behind."""

    async def set(self, key: str, value: Buffer) -> None:
        await self._store.set(key, value)

    async def _set_many(self, values: Any) -> None:
        await self._store._set_many(values)


class TestKeys(Published):
    store_cls = Filled

    def make(self, behind):
        return Filled(behind)


class TestChunks(Published):
    store_cls = Chunks

    def make(self, behind):
        return Chunks(behind, {"elsewhere/c/0": b"1234"})


class TestEnds(Published):
    store_cls = Ends

    def make(self, behind):
        return Ends(behind)


class Everywhere(Below):
    """A writer of all: the published tests write where they like."""

    def _inside(self, key: str) -> bool:
        return True


class TestBelow(Published):
    store_cls = Everywhere

    def make(self, behind):
        return Everywhere(behind, "anywhere")


# ---- a snapshot as it is read


@pytest.fixture(scope="module")
def snapshot():
    store = neurostore.create("memory://zarr-store")
    builder = neurostore.SessionBuilder(dataset="d", session="s")
    builder.add_behaviour("wheel", np.arange(300.0), start=0, rate=9, units="rad")
    with store.transaction("first") as tx:
        tx.put(builder)
    return store.zarr


@pytest.fixture(scope="module")
def twin(snapshot):
    """The same keys in a plain store of zarr's own."""
    made = MemoryStore()
    for key in sync(_collect_aiterator(snapshot._store.list())):
        sync(made.set(key, sync(snapshot._store.get(key, default_buffer_prototype()))))
    return made


def both(snapshot, twin, ask):
    """What a store answers, which must be what a plain one does."""
    answers = [sync(ask(one)) for one in (snapshot, twin)]
    assert answers[0] == answers[1]
    return answers[0]


CHUNK = "sessions/d/s/behaviour/wheel/value/c/0"
RANGES = [None, RangeByteRequest(1, 9), OffsetByteRequest(5), SuffixByteRequest(4)]


@pytest.mark.parametrize("key", [CHUNK, "zarr.json", "sessions/d/s/zarr.json", "no/such/zarr.json"])
@pytest.mark.parametrize("part", RANGES)
def test_a_snapshot_gives_the_bytes_of_a_key_as_a_plain_store_does(snapshot, twin, key, part):
    if isinstance(part, SuffixByteRequest) and key.endswith("zarr.json"):
        pytest.skip("Icechunk gives a document whole where its end is asked for; nobody does")

    async def ask(store):
        found = await store.get(key, default_buffer_prototype(), part)
        return None if found is None else found.to_bytes()

    found = both(snapshot, twin, ask)
    assert (found is None) == (key == "no/such/zarr.json")


@pytest.mark.parametrize("prefix", ["", "sessions", "sessions/", "sessions/d/s"])
def test_a_snapshot_lists_what_a_plain_store_does(snapshot, twin, prefix):
    async def list_dir(store):
        return sorted(await _collect_aiterator(store.list_dir(prefix)))

    async def list_prefix(store):
        return sorted(await _collect_aiterator(store.list_prefix(f"{prefix}/".lstrip("/"))))

    async def everything(store):
        return sorted(await _collect_aiterator(store.list()))

    assert both(snapshot, twin, list_dir)
    if not prefix.endswith("/"):
        both(snapshot, twin, list_prefix)
    assert CHUNK in both(snapshot, twin, everything)


@pytest.mark.parametrize("key", [CHUNK, "zarr.json", "sessions/d/zarr.json", "no/such/zarr.json"])
def test_a_snapshot_knows_whether_a_key_is_there_and_how_large(snapshot, twin, key):
    there = both(snapshot, twin, lambda store: store.exists(key))
    assert there == (key != "no/such/zarr.json")
    if there:
        assert both(snapshot, twin, lambda store: store.getsize(key)) > 0
    else:
        with pytest.raises(FileNotFoundError):
            sync(snapshot.getsize(key))


VALUE = Buffer.from_bytes(b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')
WRITES = {
    "set": lambda store: store.set("new/zarr.json", VALUE),
    "set over": lambda store: store.set("zarr.json", VALUE),
    "set a chunk": lambda store: store.set(CHUNK, VALUE),
    "set many": lambda store: store._set_many([("new/zarr.json", VALUE)]),
    "set if not there": lambda store: store.set_if_not_exists("new/zarr.json", VALUE),
    "delete": lambda store: store.delete(CHUNK),
    "delete a folder": lambda store: store.delete_dir("sessions"),
    "clear": lambda store: store.clear(),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_snapshot_refuses_to_be_written(snapshot, what):
    async def keys():
        return sorted(await _collect_aiterator(snapshot.list()))

    before = sync(keys())
    assert snapshot.read_only
    for store in (snapshot, snapshot.with_read_only(read_only=False)):
        with pytest.raises(UsageError, match="is read-only"):
            sync(WRITES[what](store))
    assert sync(keys()) == before


@pytest.mark.parametrize("what", WRITES)
def test_a_writer_of_one_session_refuses_every_other_key(what):
    behind = MemoryStore()
    sync(behind.set(CHUNK, VALUE))
    writer = Below(behind, "sessions/d/other")
    if what == "set if not there":  # zarr asks for every parent: left out without a word
        sync(WRITES[what](writer))
    else:
        with pytest.raises(UsageError, match="may not write"):
            sync(WRITES[what](writer))
    assert sync(_collect_aiterator(behind.list())) == (CHUNK,)


ESCAPES = [
    *("../../../../etc/hostname", "sessions/../../x", "/etc/hostname", "//etc", "a//b", "a/./b"),
    *(
        "a\\..\\b",
        "a/b\0c",
        "~/x",
        "file:///etc/hostname",
        "s3::x",
        "a b",
        "%2e%2e/x",
        "\uff41",
        ".",
    ),
    *("..", "__x/a", "a" * 101, "a/" * 600 + "a"),
]


@pytest.mark.parametrize("key", ESCAPES)
def test_a_key_that_could_lead_out_of_a_store_is_refused_before_it_is_read(tmp_path, key):
    class Untouched(MemoryStore):
        async def get(self, *_: object, **__: object) -> None:
            raise AssertionError("it was read")

        exists = get

        def list_dir(self, prefix: str) -> Any:
            raise AssertionError("it was listed")

        list_prefix = list_dir

    store = Keys(Untouched())
    for ask in (
        lambda: store.get(key, default_buffer_prototype()),
        lambda: store.exists(key),
        lambda: store.getsize(key),
        lambda: store.get_partial_values(default_buffer_prototype(), [(key, None)]),
        lambda: _collect_aiterator(store.list_dir(key)),
        lambda: _collect_aiterator(store.list_prefix(key)),
    ):
        with pytest.raises(StoreError, match="is none of a store"):
            sync(ask())


def test_a_name_that_a_store_lists_is_checked_before_it_is_used():
    class Listing(MemoryStore):
        async def list_dir(self, prefix: str) -> Any:
            for name in ("d", "../../etc"):
                yield name

    with pytest.raises(StoreError, match=r"'\.\./\.\./etc' is none of a store"):
        sync(_collect_aiterator(Keys(Listing()).list_dir("sessions")))
