"""A damaged or hostile release says so, names the file, and never gives a wrong value."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _damaged import build, flipped, judge, reading, replaced
from _released import publish_alone
from hypothesis import given
from hypothesis import strategies as st
from test_crash import moments, run

import neurostore
from neurostore.errors import DamagedError, NeurostoreError, NotFoundError
from neurostore.store._format import canonical
from neurostore.store.release import _manifest
from neurostore.store.release._manifest import (
    CATALOGUE,
    RELEASE,
    About,
    Bytes,
    Listing,
    Manifest,
    check_key,
)

TRIALS = int(os.environ.get("NEUROSTORE_TRIALS", "20"))
NODE = "sessions/lab/a"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> neurostore.Store:
    return build(tmp_path_factory.mktemp("whole") / "lab")


@pytest.fixture(scope="module")
def folder(store, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("damaged") / "mice"
    store.publish(folder, title="Mice")
    return folder


def read_all(folder: Path) -> dict[str, Any]:
    found = reading(folder)
    found.pop("tag", None)  # a release has none
    return found


@pytest.fixture(scope="module")
def good(folder) -> dict[str, Any]:
    found = read_all(folder)
    assert not any(isinstance(value, Exception) for value in found.values())
    return found


KINDS: dict[str, Callable[[str], bool]] = {
    "release": lambda name: name == RELEASE,
    "catalogue": lambda name: name == CATALOGUE,
    "manifests": lambda name: name.startswith("manifests/"),
    "chunks": lambda name: "/c/" in name and not name.endswith("zarr.json"),
    "documents": lambda name: name.endswith("zarr.json"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_flipped_cut_or_gone_is_an_error_that_names_it_or_changes_nothing(
    folder, good, kind
):
    rng = random.Random(kind)
    names = sorted(
        name
        for path in folder.rglob("*")
        if path.is_file() and KINDS[kind](name := path.relative_to(folder).as_posix())
    )
    for trial in range(max(4, TRIALS // len(KINDS))):
        name = rng.choice(names)
        data = (folder / name).read_bytes()
        damage = [
            flipped(data, rng.randrange(8 * len(data))),
            data[: rng.randrange(len(data))],
            data + rng.randbytes(9),
            None,
        ][(0, 0, 1, 0, 2, 3)[trial % 6]]
        with replaced(folder / name, damage):
            found = read_all(folder)
        if kind == "documents":  # what readers need of them stands in the manifests
            assert judge(good, found) == "same"
            continue
        if damage is None and kind == "release":
            assert isinstance(found["open"], NotFoundError)
            continue
        assert judge(good, found) == "error"
        errors = [value for value in found.values() if isinstance(value, NeurostoreError)]
        assert {type(one) for one in errors} == {DamagedError}
        assert all(name in one.line for one in errors), errors


def test_a_publish_killed_at_random_moments_ends_in_the_same_bytes(store, folder, tmp_path):
    def trial(name, kill=None):
        return run(publish_alone, store.url, str(tmp_path / f"{name}"), kill=kill)

    expected = contents(folder)
    halves = 0
    for k, kill in enumerate(moments(trial, TRIALS, seed=5)):
        target = tmp_path / f"killed-{k}"
        trial(target.name, kill)
        there = contents(target)
        if RELEASE in there:
            assert there.items() >= expected.items()
        else:
            halves += len(there) > 1
            with pytest.raises(NotFoundError):
                neurostore.open(target)
        said = store.publish(target, title="Mice")
        assert said.keys - said.written <= len(there)
        assert contents(target) == expected
        shutil.rmtree(target)
    assert contents(tmp_path / "0") == expected
    assert halves


def contents(folder: Path) -> dict[str, bytes]:
    files = (one for one in folder.rglob("*") if one.is_file())
    return {one.relative_to(folder).as_posix(): one.read_bytes() for one in files}


# ---- hostile


def forge(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change the catalogue and the manifest of a session, with digests that fit again."""
    listing = json.loads((folder / CATALOGUE).read_bytes())
    path = folder / "manifests" / f"{NODE}.json"
    manifest = json.loads(path.read_bytes())
    change(listing, manifest)
    data = canonical(manifest)
    path.write_bytes(data)
    listing["nodes"][NODE] = Bytes.of(data).to_json()
    seal(folder, canonical(listing), listing)


def seal(folder: Path, catalogue: bytes, listing: dict[str, Any]) -> None:
    said = json.loads((folder / RELEASE).read_bytes())
    (folder / CATALOGUE).write_bytes(catalogue)
    own = Bytes.of(catalogue)
    kinds = ("nodes", "files")
    held = [{key: Bytes(*one) for key, one in listing[kind].items()} for kind in kinds]
    root = Listing("", {}, {}, *held).merkle_root(own)
    names = ("snapshot", "title", "licence", "citation", "time", "version")
    about = About(merkle_root=root, catalogue=own, **{name: said[name] for name in names})
    (folder / RELEASE).write_bytes(about.to_bytes())


@pytest.fixture
def copy(folder, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("NEUROSTORE_CACHE", "off")  # what lies there is not read from the release
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


CHUNK = "spikes/time/c/0"
BAD_KEYS = [
    *("../../../../etc/hostname", "/etc/hostname", "spikes//time", "spikes\\time", "a/../b", "."),
    *("__x/c/0", "x" * 101, "a/", "", "a b", "zip::file", "file:///etc/hostname", "a\n", "é"),
]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_could_lead_elsewhere_is_refused_wherever_it_stands(copy, key):
    with pytest.raises(DamagedError, match="a key is segments of letters"):
        check_key(key, "x")
    forge(copy, lambda _, manifest: manifest["keys"].update({key: manifest["keys"][CHUNK]}))
    release = neurostore.open(copy)
    with pytest.raises(DamagedError, match=r"a\.json names .*a key is segments of letters"):
        release.session("lab/a").spike_times("u1")
    forge(copy, lambda listing, _: listing["nodes"].update({key: listing["nodes"][NODE]}))
    with pytest.raises(DamagedError, match=r"catalogue\.json names .*a key is segments"):
        neurostore.open(copy)


def entry(said: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda _, manifest: manifest["keys"].update({CHUNK: said})


@pytest.mark.parametrize(
    "said",
    [[-1, "0" * 64], [True, "0" * 64], [1 << 40, "0" * 64], [9, "Z" * 64], [9], "9", None, [9, 9]],
)
def test_a_size_or_digest_that_is_none_is_refused(copy, said):
    forge(copy, entry(said))
    with pytest.raises(DamagedError, match=r"spikes/time/c/0 in .* has no size up to"):
        neurostore.open(copy).session("lab/a").spike_times("u1")


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_deep_large_and_many_valued_json_is_refused_before_it_is_parsed(copy):
    text = (copy / CATALOGUE).read_text()
    listing = json.loads(text)
    for depth in (_manifest._DEPTH + 1, 200_000):
        deep = text.replace('"message":', f'"deep":{nested(depth)},"message":', 1)
        seal(copy, deep.encode(), listing)
        with pytest.raises(DamagedError, match="deep, at most 64 is read"):
            neurostore.open(copy)
    many = text.replace('"message":', f'"many":[{"[]," * (1 << 20)}[]],"message":', 1)
    seal(copy, many.encode(), listing)
    with pytest.raises(DamagedError, match="values, at most"):
        neurostore.open(copy)
    (copy / RELEASE).write_bytes(b" " * (_manifest.RELEASE_BYTES + 1))
    with pytest.raises(DamagedError, match=r"release\.json has more than 1,048,576 bytes"):
        neurostore.open(copy)


def test_a_document_nested_too_deep_is_refused(copy):
    def change(_: dict[str, Any], manifest: dict[str, Any]) -> None:
        text = nested(99)
        manifest["documents"]["units/zarr.json"] = text
        manifest["keys"]["units/zarr.json"] = Bytes.of(text.encode()).to_json()

    forge(copy, change)
    with pytest.raises(DamagedError, match=r"units/zarr\.json in .* is nested 99 deep"):
        neurostore.open(copy).session("lab/a").spike_times("u1")


@pytest.mark.parametrize("name", [RELEASE, CATALOGUE, f"manifests/{NODE}.json", f"{NODE}/{CHUNK}"])
def test_a_link_is_not_followed_even_to_the_right_bytes(copy, tmp_path, name):
    (copy / name).rename(tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedError, match="is a link"):
        neurostore.open(copy).session("lab/a").spike_times("u1")


def test_a_folder_that_is_a_link_is_not_followed_but_the_way_to_a_release_may_be_one(
    copy, tmp_path
):
    (tmp_path / "way").symlink_to(copy)
    neurostore.open(tmp_path / "way").session("lab/a").spike_times("u1")
    (copy / NODE).rename(tmp_path / "a")
    (copy / NODE).symlink_to(tmp_path / "a")
    with pytest.raises(DamagedError, match="is a link, or lies behind one"):
        neurostore.open(copy).session("lab/a").spike_times("u1")


def test_a_body_that_never_ends_is_not_read_to_its_end():
    server = socket.create_server(("127.0.0.1", 0))
    sent = [0]

    def answer() -> None:
        try:
            end, _ = server.accept()
        except OSError:
            return
        with end:
            end.recv(1 << 16)
            try:
                end.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
                while sent[0] < 1 << 30:
                    sent[0] += end.send(b" " * (1 << 16))
            except OSError:
                return

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        with pytest.raises(DamagedError, match="has more than 1,048,576 bytes"):
            neurostore.open(f"http://127.0.0.1:{server.getsockname()[1]}/lab")
    finally:
        server.close()
        thread.join(30)
    assert not thread.is_alive()
    assert sent[0] < 1 << 26


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["node", "keys", "documents", "nodes", "files", "commit", "snapshot", "a"]),
        inner, max_size=6,
    ),
).map(canonical))  # fmt: skip
def test_whatever_stands_in_a_file_is_answered_by_an_error_of_ours(data):
    about = About("snapshot", "0" * 64, Bytes.of(data), "", "", "", "", "")
    for parse in (
        lambda: About.parse(data, "x"),
        lambda: Listing.parse(data, about, "x"),
        lambda: Manifest.parse(data, "a", Bytes.of(data), "x"),
    ):
        with contextlib.suppress(NeurostoreError):
            parse()
