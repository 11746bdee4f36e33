"""Stores that mean harm: refused with a clear error, in bounded memory, with nothing fetched."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import _bombs
import _hostile
import icechunk
import numpy as np
import pytest
from _writers import session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numcodecs.zstd import Zstd
from zarr.core.buffer.cpu import Buffer
from zarr.core.sync import sync

import neurostore
from neurostore import NeurostoreError, Stimulus, UsageError
from neurostore.errors import DamagedError, StoreError
from neurostore.store import _caps, _versions, layout
from neurostore.store._format import digest
from neurostore.store.builder import Source

MOST = 300
"""MiB above idle that a refused store may take."""


# ---- bombs


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What a fresh process was answered by each bomb, and how far its memory had risen by then."""
    url = tmp_path_factory.mktemp("bombs") / "lab"
    places = _bombs.lay(url)
    assert sum(one.stat().st_size for one in url.rglob("*") if one.is_file()) < 4 << 20
    done = subprocess.run(
        [sys.executable, _bombs.__file__, str(url), *places.values()],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(neurostore.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    names = {place: name for name, place in places.items()}
    return {names[place]: (place, risen, said) for place, risen, said in found}


REFUSED = {
    "zstd": "expands to 419430400 bytes",
    "zstd without a size": "cannot be read",
    "blosc": "expands to 2147483631 bytes",
    "gzip": "expands to",
    "pcodec": "does not hold 100 values",
    "pcodec below zstd": "does not hold 100 values",
    "strings": "it says 4,294,967,295 strings, expected 100",
    "strings below zstd": "expands to 419430400 bytes",
    "a chunk of 8 TiB": "chunks of 8,796,093,022,208 bytes once they are decoded",
    "strings without end": "has 16,777,216 strings a chunk",
    "2^60 values": "an array has at most 2^48",
    "2^47 values": "has 4,194,304 chunks",
    "16 GiB of nothing": "is not found",
    "2^47 chunks": "has 140,737,488,355,328 chunks",
    "shards": "uses the codecs sharding_indexed, which are never opened",
    "other keys": "only 'default' with '/'",
    "many codecs": "expected one of bytes, vlen-utf8, numcodecs.pcodec, then at most one of",
    "no checksum": "is encoded by bytes, zstd; expected",
}


@pytest.mark.parametrize("bomb", REFUSED)
def test_a_few_bytes_that_claim_gigabytes_are_refused_in_bounded_memory(answers, bomb):
    place, risen, said = answers[bomb]
    assert all(one.startswith(("StoreError: ", "DamagedError: ")) for one in said), said
    assert any(REFUSED[bomb] in one for one in said), said
    assert all(place.rpartition("/")[0] in one for one in said), said
    assert risen < MOST


def test_every_bomb_is_tried(answers):
    assert answers.keys() == REFUSED.keys()


# ---- documents


def overlaid(store, path, data):
    """The store with other bytes as a document."""
    made = neurostore.open(store.url)
    forged = _hostile.Forged(store.zarr, {f"{path}/zarr.json": data})
    made.__dict__["zarr"] = type(store.zarr)(forged)
    return made


@pytest.fixture(scope="module")
def store():
    return _hostile.build("memory://hostile")


GROUP = b'{"zarr_format": 3, "node_type": "group", "attributes": %s}'
DOCUMENTS = {
    "too large": GROUP % (b'{"a": "' + b"x" * _caps.DOCUMENT + b'"}'),
    "too deep": GROUP % (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}"),
    "far too deep": GROUP % (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "not a number": GROUP % b'{"a": NaN}',
    "infinite": GROUP % b'{"a": -Infinity}',
    "half a character": GROUP % rb'{"a": "\ud800"}',
    "a number of 5,000 digits": GROUP % (b'{"a": ' + b"9" * 5000 + b"}"),
    "no mapping": b"[]",
    "no attributes": b'{"zarr_format": 3, "node_type": "group"}',
    "attributes of another kind": GROUP % b"[]",
    "no text": b"\xff\xfe\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("what", DOCUMENTS)
@pytest.mark.parametrize("path", [_hostile.SESSION, f"{_hostile.SESSION}/behaviour/wheel"])
def test_a_document_that_is_none_is_refused_by_its_name(store, what, path):
    bad = overlaid(store, path, DOCUMENTS[what])
    with pytest.raises(DamagedError, match=f"{path}/zarr.json") as caught:
        bad.session("d/s").behaviour["wheel"]
    assert len(caught.value.line) < 500


def test_a_document_that_says_a_thing_twice_is_read_one_way_only(store):
    path = f"{_hostile.SESSION}/behaviour/wheel/value"
    text = json.dumps(_hostile.document(store.zarr, path)).encode()
    assert b'"shape": [300]' in text
    twice = text.replace(b'"shape": [300]', b'"shape": [300], "shape": [7]')
    with pytest.raises(DamagedError, match="is not what was written"):
        overlaid(store, path, twice).session("d/s").behaviour["wheel"]
    harmless = text.replace(b'"shape": [300]', b'"shape": [7], "shape": [300]')
    found = overlaid(store, path, harmless).session("d/s").behaviour["wheel"]
    assert (found.value.values == store.session("d/s").behaviour["wheel"].value.values).all()


def test_what_would_not_be_read_is_not_written(tmp_path):
    store = neurostore.create("memory://unwritten")
    builder = neurostore.SessionBuilder(dataset="d", session="s")
    deep: list[object] = []
    for _ in range(80):
        deep = [deep]
    builder.metadata["deep"] = deep
    builder.add_behaviour("wheel", np.arange(5.0), start=0, rate=9, units="rad")
    with pytest.raises(UsageError, match="nest deeper than 64"), store.transaction("x") as tx:
        tx.put(builder)
    long = neurostore.SessionBuilder(dataset="d", session="t")
    long.add_intervals("trials", np.arange(70.0), np.arange(70.0) + 1, note=["x" * (1 << 20)] * 70)
    with pytest.raises(UsageError, match="bytes of text in 70 rows"), store.transaction("y") as tx:
        tx.put(long)
    assert store.refresh().sessions().empty


def test_chunks_of_very_wide_rows_stay_below_the_cap():
    wide = (640, 1 << 22)
    assert layout.chunk_rows(wide, True, 8) * wide[1] * 8 == _caps.CHUNK_BYTES
    assert layout.chunk_rows((640, 300), True, 8) == layout.DENSE_ROWS


# ---- metadata

TRIALS = int(os.environ.get("NEUROSTORE_TRIALS", "25"))


@settings(
    max_examples=TRIALS,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_whatever_a_signed_store_says_the_answer_is_a_value_or_an_error_of_ours(store, data):
    node = data.draw(st.sampled_from(_hostile.nodes(store)), "document")
    said = _hostile.document(store.zarr, node)
    at = data.draw(st.sampled_from(list(_hostile.places(said))), "place")
    value = data.draw(st.sampled_from([*_hostile.VALUES, ...]), "value")
    try:
        bad = _hostile.forged(store, node, lambda one: _hostile.put(one, at, value))
    except UnicodeEncodeError:
        return  # half a character cannot be signed; it is a document above
    _hostile.judged(bad, node)


WRONG = {
    "a clock that stands still": (("clock", "rate"), "0"),
    "a clock of no number": (("clock", "rate"), "1e9999"),
    "a clock too fast": (("clock", "rate"), "1" + "0" * 30),
    "another id": (("id",), "d/other"),
    "an id that leads out": (("id",), "../../etc/passwd"),
    "no findings": (("findings",), None),
    "a finding of other fields": (("findings",), [{"check": "x", "run": "rm"}]),
    "units that are not there": (("row", "n_units"), 10**12),
    "a negative count": (("row", "tables", "spikes", "rows"), -1),
    "a contract that leads out": (("row", "tables", "spikes", "contract"), "../../x/v1"),
    "too many columns": (
        ("row", "tables", "spikes", "arrays"),
        {f"c{k}": "0" * 64 for k in range(5000)},
    ),
    "a text for a number": (("row", "observed"), "all day"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_lie_as_the_format_says_is_refused_where_it_is_read(store, what):
    at, value = WRONG[what]
    bad = _hostile.forged(
        store, _hostile.SESSION, lambda one: _hostile.put(one["attributes"], at, value)
    )
    refused = _hostile.judged(bad)
    assert refused
    assert any("sessions/d/s" in line or "contract" in line for line in refused.values()), refused


@pytest.mark.parametrize(
    "said",
    [
        {"sessions": {"d/s": 7}},
        {"renamed": ["a", "b"]},
        {"renamed": {"a": {}}},
        {"tables": {"d/s": "spikes"}},
        {"tables": {"d/s": [None]}},
        {"sizes": 3},
        {"sizes": {"units": [1]}},
        {"sizes": {"units": ["1", "2"]}},
        {"sizes": {"spikes": [-1, 2**60]}},
    ],
    ids=str,
)
def test_what_a_commit_says_in_another_form_is_refused_by_its_name(tmp_path, said):
    store = neurostore.create(tmp_path / "lab")
    session = store._versions.repository.writable_session("main")
    layout.put_group(session.store, "sessions/d", {})
    about = dict(store.log()[0].metadata)
    about = {k: about[k] for k in about if k not in ("checksum", "parent")} | said
    made = session.commit("odd", metadata=_versions._sealed("odd", store.snapshot, about))
    with pytest.raises(DamagedError, match=f"commit {made} does not lie as format 1 says"):
        neurostore.open(store.url).log()


# ---- URLs and references inside stores


@pytest.fixture
def nothing_opened(monkeypatch):
    """Fails where a file outside, or any address, is opened."""

    def refuse(*arguments, **named):
        raise AssertionError(f"opened: {arguments}")

    import fsspec

    for name in ("open", "open_files", "filesystem", "url_to_fs"):
        monkeypatch.setattr(fsspec, name, refuse)
    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


URLS = [
    "file:///etc/hostname",
    "simplecache::file:///etc/hostname",
    "zip://x::http://127.0.0.1:1/a.zip",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]:1/",
    "reference://::/etc/hostname",
    "/etc/hostname",
]


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_a_store_names_is_said_and_never_followed(nothing_opened, url):
    store = neurostore.create(f"memory://urls-{URLS.index(url)}")
    source = Source(url, "0" * 64, "arrays", "1")
    builder = neurostore.SessionBuilder(dataset="d", session="s", source=source)
    builder.metadata["link"] = url
    builder.add_behaviour("wheel", np.arange(9.0), start=0, rate=9, units="rad", description=url)
    stimulus = Stimulus("movie", n_frames=9, url=url, description=url)
    with store.transaction("urls") as tx:
        tx.put(stimulus)
        tx.put(builder)
    found = store.stimulus("movie")
    assert found.url == url
    with pytest.raises(UsageError, match="keeps no frames"):
        np.asarray(found.frames)
    session = store.session("d/s")
    assert session.metadata["link"] == url
    session.behaviour["wheel"].value.values.sum()
    repr(store), repr(session), session._repr_html_(), store.stimuli, store.sessions()
    assert not any(store.validate().values())


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_a_chunk_that_refers_out_of_its_repository_is_refused(tmp_path, scheme):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_bytes(b"s" * 2400)
    store = neurostore.create(tmp_path / "lab")
    builder = neurostore.SessionBuilder(dataset="d", session="s")
    builder.add_behaviour("wheel", np.arange(300.0), start=0, rate=9, units="rad")
    with store.transaction("first") as tx:
        tx.put(builder)
    prefix = f"file://{secret}/" if scheme == "file" else "http://169.254.169.254/"
    reader = (
        icechunk.local_filesystem_store(str(secret)) if scheme == "file" else icechunk.http_store()
    )
    config = icechunk.RepositoryConfig.default()
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, reader))
    repository = icechunk.Repository.open(
        icechunk.local_filesystem_storage(store.url),
        config=config,
        authorize_virtual_chunk_access={prefix: None},
    )
    repository.save_config()  # a reader's handle takes what the repository says of itself
    session = repository.writable_session("main")
    key = "sessions/d/s/behaviour/wheel/value/c/0"
    session.store.set_virtual_ref(key, f"{prefix}key", offset=0, length=2400)
    about = dict(store.log()[0].metadata)
    about = {k: about[k] for k in about if k not in ("checksum", "parent")}
    session.commit("out", metadata=_versions._sealed("out", store.snapshot, about))
    wheel = neurostore.open(store.url).session("d/s")
    for ask in (
        lambda: wheel.behaviour["wheel"].value.values,
        lambda: wheel.table("behaviour/wheel").columns["value"].values[:],
        lambda: layout.keep_chunks(
            [(wheel.stored("behaviour/wheel").columns["value"].values, 0)],
            lambda place, rows: rows,
        ),
    ):
        with pytest.raises(StoreError, match="virtual chunk") as caught:
            ask()
        assert "ssss" not in str(caught.value)


def alone(code: str, url: str) -> str:
    """What a process of its own prints of a store; it may take two minutes."""
    done = subprocess.run(
        [sys.executable, "-c", code, url],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(neurostore.__file__).parents[1])},
    )
    return done.stdout


def test_a_repository_cannot_make_its_readers_wait_for_ever(tmp_path):
    store = neurostore.create(tmp_path / "lab")
    (tmp_path / "lab" / "config.yaml").write_text(
        "get_partial_values_concurrency: 0\nmax_concurrent_requests: 0\n"
    )
    code = "import neurostore, sys; print(len(neurostore.open(sys.argv[1]).log()))"
    said = alone(code, store.url)
    assert said == "1\n"


LIMITED = """
import resource, sys
from datetime import timedelta
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
import neurostore
report = neurostore.verify(sys.argv[1])
print(*sorted(one.finding.check for one in report.faults))
calls = {"log": {}, "du": {}, "gc": {"older_than": timedelta(0)}, "expire": {"keep": 1}}
for call, options in calls.items():
    try:
        getattr(neurostore.open(sys.argv[1]), call)(**options)
    except neurostore.NeurostoreError as error:
        print(call, type(error).__name__)
"""


HEADER = 39
"""Bytes of a file of the engine before what it has compressed."""


def _lead_back(path, newest, oldest):
    """Make a newer commit the parent of one, every checksum being as it must be."""
    about = {key: value for key, value in oldest.metadata.items() if key != "checksum"}
    checksum = digest({"message": oldest.message, **about, "parent": newest.snapshot})
    held = path.read_bytes()
    text = bytes(Zstd().decode(held[HEADER:]))
    for was, now in (
        (oldest.parent.encode(), newest.snapshot.encode()),
        (_raw(oldest.parent), _raw(newest.snapshot)),
        (oldest.metadata["checksum"].encode(), checksum.encode()),
    ):
        assert text.count(was) == 1
        text = text.replace(was, now)
    path.write_bytes(held[:HEADER] + bytes(Zstd().encode(text)))


def _raw(snapshot):
    """The twelve bytes that an id in Crockford's base 32 stands for."""
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    number = 0
    for one in snapshot:
        number = number * 32 + digits.index(one)
    return (number >> 4).to_bytes(12, "big")


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("the file of another one", "store/file/transaction store/history/commit"),
        ("forged", "store/history/commit"),
    ],
)
def test_a_history_that_leads_in_a_circle_ends_in_an_error(tmp_path, how, found):
    store = neurostore.create(tmp_path / "lab")
    for k in range(3):
        with store.transaction(f"put {k}") as tx:
            tx.put(session(f"d/{k}"))
    newest, older, oldest, _ = store.log()
    folder = Path(store.url, "snapshots")
    if how == "forged":
        _lead_back(folder / oldest.snapshot, newest, oldest)
    else:
        (folder / older.snapshot).write_bytes((folder / newest.snapshot).read_bytes())
    before = {one: one.read_bytes() for one in Path(store.url).rglob("*") if one.is_file()}
    said = alone(LIMITED, store.url)
    calls = ("log", "du", "gc", "expire")
    assert said.splitlines() == [found, *(f"{one} DamagedError" for one in calls)]
    assert all(one.read_bytes() == data for one, data in before.items())


# ---- a disk that fails


class Failing(_hostile.Forged):
    """A writer of which one call fails, as where a disk is full or broken."""

    def __init__(self, store, left, error):
        super().__init__(store, {})
        self.left, self.error = left, error

    async def set(self, key, value):
        self.left -= 1
        if self.left == 0:
            raise self.error
        await self._store.set(key, value)


@pytest.mark.parametrize("number", [28, 5, 4], ids=["ENOSPC", "EIO", "EINTR"])
@pytest.mark.parametrize("at", [1, 2, 3, 5, 8])
def test_a_write_that_fails_anywhere_leaves_the_store_as_it_was_and_is_repeated(
    tmp_path, monkeypatch, number, at
):
    store = neurostore.create(f"memory://failing-{number}-{at}")
    builder = neurostore.SessionBuilder(dataset="d", session="s")
    builder.add_behaviour("wheel", np.arange(300.0), start=0, rate=9, units="rad")
    builder.add_behaviour("pupil", np.arange(300.0), start=0, rate=9, units="mm")
    before, below = store.snapshot, _versions.IcechunkDraft.below

    def failing(draft, path):
        return Failing(below(draft, path), at, OSError(number, os.strerror(number)))

    with monkeypatch.context() as patch:
        patch.setattr(_versions.IcechunkDraft, "below", failing)
        with pytest.raises((OSError, NeurostoreError)), store.transaction("fails") as tx:
            tx.put(builder)
    assert neurostore.open(store.url).snapshot == before
    with store.transaction("again") as tx:
        tx.put(builder)
    assert store.validate() == {"d/s": []}
    assert len(store.log()) == 2


def test_a_chunk_with_another_ones_checksum_is_not_taken(store):
    path = f"{_hostile.SESSION}/behaviour/wheel/value"
    bad = neurostore.open(store.url)
    chunk = Buffer.from_bytes(_bombs.signed(bytes(2400)))
    forged = _hostile.Forged(store.zarr, {f"{path}/c/0": chunk.to_bytes()})
    bad.__dict__["zarr"] = type(store.zarr)(forged)
    with pytest.raises(DamagedError, match=r"wheel/value/c/0\) is not the one that was written"):
        bad.session("d/s").behaviour["wheel"].value.values  # noqa: B018
    assert sync(bad.zarr.exists(f"{path}/c/0"))
