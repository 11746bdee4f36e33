"""A release holds what its repository holds, bit for bit, wherever it lies."""

from __future__ import annotations

import json
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from _released import LONG, build, http, s3, zipped

import neurostore
from neurostore import cli
from neurostore.errors import NotFoundError, StoreError, UsageError
from neurostore.store._format import canonical, digest
from neurostore.store.release import _read
from neurostore.store.release._files import Folder
from neurostore.store.release._manifest import CATALOGUE, RELEASE, Bytes

SAID = {"title": "Mice", "licence": "CC-BY-4.0", "citation": "Mouse 2026"}
KINDS = ("file", "memory", "zip", "http", "s3", "simplecache")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> neurostore.Store:
    return build(str(tmp_path_factory.mktemp("published") / "lab"))


@pytest.fixture(scope="module")
def folder(store, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "mice"
    store.publish(folder, **SAID, files={"cards/mice.toml": b"title = 'Mice'\n"})
    return folder


@pytest.fixture(autouse=True)
def no_cache(monkeypatch) -> None:
    monkeypatch.setenv("NEUROSTORE_CACHE", "off")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "dummy-key")


@pytest.fixture
def opened(request, store, folder, tmp_path):
    kind = request.param
    if kind == "file":
        yield neurostore.open(folder)
    elif kind == "memory":
        store.publish("memory://mice", **SAID)
        yield neurostore.open("memory://mice")
    elif kind == "zip":
        yield neurostore.open(f"zip::{zipped(folder, tmp_path / 'mice.zip')}")
    elif kind == "s3":
        with s3() as options:
            store.publish("s3://lab/mice", options, **SAID)
            yield neurostore.open("s3://lab/mice", storage_options=options)
    else:
        with http(folder) as (url, _):
            if kind == "http":
                yield neurostore.open(url)
            else:
                said = {"simplecache": {"cache_storage": str(tmp_path / "kept")}}
                yield neurostore.open(f"simplecache::{url}", storage_options=said)


def batches(store: neurostore.Store) -> list[torch.Tensor]:
    dataset = neurostore.Dataset(
        store,
        window=neurostore.Window(history=0.5, horizon=0.5),
        streams={
            "spikes": neurostore.Spikes(bin=0.02),
            "wheel": neurostore.Behaviour("wheel", rate=10),
        },
        split="blocks/train",
    )
    batch = dataset.sample(24, seed=3)
    return [batch["spikes"], batch["wheel"], batch.mask["spikes"], batch.tick]


@pytest.mark.parametrize("opened", KINDS, indirect=True)
def test_batches_and_tables_equal_those_of_the_repository_bit_for_bit(opened, store):
    assert opened.snapshot == store.snapshot
    for ours, theirs in zip(batches(opened), batches(store), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(torch.nan_to_num(ours, nan=-9.0), torch.nan_to_num(theirs, nan=-9.0))
    assert opened.sessions().to_json() == store.sessions().to_json()
    assert opened.units().to_json() == store.units().to_json()
    assert opened.splits.to_json() == store.splits.to_json()
    assert opened.split("blocks").digest == store.split("blocks").digest
    ours, theirs = opened.stimulus("movie"), store.stimulus("movie")
    np.testing.assert_array_equal(ours.frames[:], theirs.frames[:])
    for id in store.sessions()["id"]:
        assert opened.session(id).attrs == store.session(id).attrs
    notes = [one.session("lab/short")["intervals/trials"]["note"].values for one in (opened, store)]
    assert notes[0].tolist() == notes[1].tolist()


def test_a_release_validates_and_knows_the_commit_that_made_it(folder, store):
    release = neurostore.open(folder)
    assert not any(release.validate().values())
    ours, theirs = release.log(), store.log()
    assert [one.to_json() for one in ours] == [one.to_json() for one in theirs[:1]]
    assert release.at(store.snapshot[:8]).snapshot == store.snapshot
    assert release.refresh().snapshot == store.snapshot
    with pytest.raises(NotFoundError, match="No snapshot 'v1'"):
        release.at("v1")
    again = pickle.loads(pickle.dumps(release))
    assert again.session("lab/short").spike_times("u0").tolist() == (
        store.session("lab/short").spike_times("u0").tolist()
    )
    with pytest.raises(NotFoundError, match="Did you mean 'lab/short'"):
        release.session("lab/shirt")


def test_a_release_is_never_written_and_says_how_to_go_on(folder):
    release, way_out = neurostore.open(folder), "read only; clone it.*neurostore clone URL FOLDER"
    with pytest.raises(UsageError, match=way_out), release.transaction("more") as tx:
        tx.delete("lab/short")
    with pytest.raises(UsageError, match=way_out):
        release.tag("v1")
    buffer = zarr.core.buffer.default_buffer_prototype().buffer.from_bytes(b"1")
    for work in (release.zarr.set("zarr.json", buffer), release.zarr.delete("zarr.json")):
        with pytest.raises(UsageError, match=way_out):
            zarr.core.sync.sync(work)


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
def test_plain_zarr_opens_the_tree(folder, store):
    tree = zarr.open_group(folder, mode="r", zarr_format=3)
    time = tree["sessions/lab/long/spikes/time"]
    expected = store.session("lab/long").stored("spikes").columns["time"].values[:]
    np.testing.assert_array_equal(time[:], expected)
    assert tree["sessions/lab/long"].attrs["id"] == "lab/long"
    assert sorted(tree["sessions/lab"].group_keys()) == ["long", "short"]


def test_the_files_hash_to_what_the_format_says(folder, store):
    release = neurostore.open(folder)._form
    said, listing = json.loads((folder / RELEASE).read_bytes()), release.listing
    told = ["croissant.json", "ro-crate-metadata.json", "sessions.json", "units.json"]
    named = [CATALOGUE, "cards/mice.toml", *told]
    named += [f"manifests/{node}.json" for node in listing.nodes]
    assert len(listing.nodes) == 5
    found = sorted([path, Bytes.of((folder / path).read_bytes()).sha256] for path in named)
    assert said["merkle_root"] == digest(found)
    assert {key: said[key] for key in SAID} == SAID
    assert said["snapshot"] == store.snapshot
    keys = {RELEASE, *named}
    for node in listing.nodes:
        manifest = json.loads((folder / "manifests" / f"{node}.json").read_bytes())
        for key, expected in manifest["keys"].items():
            keys.add(f"{node}/{key}")
            assert Bytes.of((folder / node / key).read_bytes()).to_json() == expected
    for path, text in listing.documents.items():
        keys.add(f"{path}/zarr.json".lstrip("/"))
        assert (folder / path / "zarr.json").read_text() == text
    there = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()}
    assert keys == there
    assert release.file("cards/mice.toml") == b"title = 'Mice'\n"
    with pytest.raises(NotFoundError, match="cards/mouse"):
        release.file("cards/mouse.toml")


def test_the_tree_lists_as_the_snapshot_does(folder, store):
    async def keys(tree, prefix):
        return sorted([key async for key in tree.list_prefix(prefix)])

    async def names(tree, path):
        return sorted([name async for name in tree.list_dir(path)])

    ours, theirs = neurostore.open(folder).zarr, store.zarr
    sync = zarr.core.sync.sync
    for prefix in ("", "sessions/lab/short/", "stimuli/", "splits/blocks/v1/split/start/"):
        assert sync(keys(ours, prefix)) == sync(keys(theirs, prefix))
    for path in ("", "sessions", "sessions/lab", "sessions/lab/short/spikes", "stimuli/movie"):
        assert sync(names(ours, path)) == sync(names(theirs, path)), path
    for key in ("zarr.json", "sessions/lab/short/spikes/time/c/0", "sessions/lab/short/x/c/0"):
        assert sync(ours.exists(key)) == sync(theirs.exists(key))
    assert sync(ours.getsize("sessions/lab/long/spikes/time/c/1")) > 1000


# ---- requests


def test_opening_takes_two_requests_and_a_cold_window_three_or_five(folder, store):
    with http(folder) as (url, asked):
        release = neurostore.open(url)
        assert asked == [f"/{RELEASE}", f"/{CATALOGUE}"]
        assert len(release.sessions()) == 2
        assert len(asked) == 2
        session, ours = release.session("lab/long"), store.session("lab/long")
        session._spikes  # noqa: B018
        assert asked[2:] == ["/manifests/sessions/lab/long.json"]
        time = ours.stored("spikes").columns["time"].values[:]
        chunk = ours.chunk_rows("spikes")
        assert chunk < LONG
        edge = int(time[chunk])
        for start, requests in ((edge // 2, 3), (edge - 500_000, 5)):
            cold = release.session("lab/long")
            before = len(asked)
            found = cold.between(start, start + 1_000_000)
            assert len(asked) - before == requests, asked[before:]
            for one, other in zip(found, ours.between(start, start + 1_000_000), strict=True):
                np.testing.assert_array_equal(one, other)
                assert len(one) > 1000


def test_time_and_unit_of_a_window_are_asked_for_at_once(folder, monkeypatch):
    release = neurostore.open(folder)
    session = release.session("lab/long")
    session._blocks  # noqa: B018
    both, plain = threading.Barrier(4, timeout=30), Folder._read

    def together(self, key, most):
        both.wait()  # breaks where fewer than four reads are under way
        return plain(self, key, most)

    monkeypatch.setattr(Folder, "_read", together)
    edge = 87_381_000
    time, unit = session.between(edge - 10_000_000, edge + 10_000_000)
    assert len(time) == len(unit) > 50_000


# ---- publishing


def test_a_dry_run_says_how_much_and_writes_nothing(store, folder, tmp_path):
    said = store.publish(tmp_path / "new", dry_run=True)
    assert not (tmp_path / "new").exists()
    tree = [folder / path for path in ("sessions", "splits", "stimuli")]
    files = [one for path in tree for one in path.rglob("*") if one.is_file()]
    files.append(folder / "zarr.json")
    assert said.keys == said.written == len(files)
    assert said.bytes == said.written_bytes == sum(one.stat().st_size for one in files)
    there = store.publish(folder, dry_run=True)
    assert (there.keys, there.written, there.written_bytes) == (len(files), 0, 0)


def test_publishing_again_mends_what_is_damaged_and_writes_nothing_else(store, folder, tmp_path):
    target, files = tmp_path / "again", {"cards/mice.toml": b"title = 'Mice'\n"}
    shutil.copytree(folder, target)
    chunk = target / "sessions/lab/long/spikes/time/c/1"
    chunk.write_bytes(chunk.read_bytes()[::-1])
    done = []
    said = store.publish(
        target, **SAID, files=files, progress=lambda now, total: done.append((now, total))
    )
    assert said.written == 1
    assert done[-1] == (said.bytes, said.bytes)
    assert contents(target) == contents(folder)
    other = store.publish(target, **{**SAID, "title": "Rats"}, files=files)
    assert other.written == 0
    assert json.loads((target / RELEASE).read_bytes())["title"] == "Rats"
    store.publish(target, **SAID, files=files)
    assert contents(target) == contents(folder)


def test_publishing_again_keeps_what_was_said_and_given_and_says_where_the_root_changes(
    store, tmp_path
):
    target, card = tmp_path / "mice", tmp_path / "lab.toml"
    card.write_text('title = "Labs"\nlicence = "CC0-1.0"\nauthors = ["Ada"]\n')
    first = store.publish(target, **SAID, cards=[card], files={"README.md": b"# Mice"})
    before = contents(target)
    again = store.publish(target)
    assert contents(target) == before
    assert (again.merkle_root, again.replaced) == (first.merkle_root, "")
    other = store.publish(target, title="Rats")
    assert other.replaced == first.merkle_root
    said = json.loads((target / RELEASE).read_bytes())
    assert (said["title"], said["licence"]) == ("Rats", SAID["licence"])
    assert json.loads((target / "croissant.json").read_bytes())["creator"][0]["name"] == "Ada"
    (target / "README.md").write_bytes(b"# Rats")
    with pytest.raises(UsageError, match=r"README\.md of the release .* Give it again"):
        store.publish(target)
    store.publish(target, **SAID, files={"README.md": b"# Mice"})
    assert contents(target) == before
    with pytest.raises(UsageError, match=r"nowhere\.toml cannot be read"):
        store.publish(tmp_path / "new", cards=["nowhere.toml"])
    assert not (tmp_path / "new").exists()


def contents(folder: Path) -> dict[str, bytes]:
    files = (one for one in folder.rglob("*") if one.is_file())
    return {one.relative_to(folder).as_posix(): one.read_bytes() for one in files}


def test_a_release_of_a_release_is_the_same_release(folder, tmp_path):
    files = {"cards/mice.toml": b"title = 'Mice'\n"}
    neurostore.open(folder).publish(tmp_path / "mirror", **SAID, files=files)
    assert contents(tmp_path / "mirror") == contents(folder)


def test_what_is_there_already_is_never_overwritten(store, folder, tmp_path):
    other = store.at(store.log()[-1].snapshot)
    before = contents(folder)
    with pytest.raises(UsageError, match=f"holds the release of snapshot {store.snapshot}"):
        other.publish(folder)
    assert contents(folder) == before
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("...")
    with pytest.raises(UsageError, match="is not empty"):
        store.publish(tmp_path / "home")
    with pytest.raises(UsageError, match="There is a store at"):
        other.publish(store.url)
    for url in ("zip::/tmp/x.zip", "https://host/lab", "simplecache::s3://lab/x"):
        with pytest.raises(UsageError, match="Publish to a folder, and copy or zip"):
            store.publish(url)
    with pytest.raises(UsageError, match="no further file"):
        store.publish(tmp_path / "x", files={"sessions/lab/x": b""})
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "publishing.json").write_bytes(canonical({"snapshot": other.snapshot}))
    with pytest.raises(UsageError, match="not the beginning of a release"):
        store.publish(begun)


def test_a_target_that_reads_otherwise_than_it_was_written_is_an_error(
    store, tmp_path, monkeypatch
):
    plain = Folder._write

    def lose(self, key, data):
        plain(self, key, data[:-1] if key.endswith("unit/c/0") else data)

    monkeypatch.setattr(Folder, "_write", lose)
    with pytest.raises(StoreError, match=r"unit/c/0 reads otherwise than it was written"):
        store.publish(tmp_path / "new")
    assert not (tmp_path / "new" / RELEASE).exists()
    with pytest.raises(NotFoundError):
        neurostore.open(tmp_path / "new")


def test_errors_name_the_place_and_hold_no_secret(folder):
    with http(folder) as (url, _):
        with pytest.raises(NotFoundError, match="No release"):
            neurostore.open(f"{url}/elsewhere")
        host = url.removeprefix("http://")
    with pytest.raises(StoreError, match=r"release\.json cannot be read") as caught:
        neurostore.open(f"http://me:hidden-word@{host}/lab?token=hidden-word")
    assert "hidden-word" not in str(caught.value)
    assert caught.value.__cause__ is None
    with s3() as options, pytest.raises(NotFoundError, match="No store 's3://lab/nothing'"):
        neurostore.open("s3://lab/nothing", storage_options=options)


def test_the_command_publishes_what_a_tag_names(tmp_path, capsys):
    store = build(str(tmp_path / "lab"))
    store.at(store.log()[1].snapshot).tag("v1")
    words = ["publish", f"{store.url}@v1", str(tmp_path / "out"), "--licence", "CC0-1.0"]
    assert cli.main([*words, "--dry-run"]) == cli.DONE
    assert "would be written" in capsys.readouterr().out
    assert cli.main([*words, "--json"]) == cli.DONE
    said = json.loads(capsys.readouterr().out)
    assert said["snapshot"] == store.log()[1].snapshot
    assert said["written"] == said["keys"] > 50
    assert cli.main(words) == cli.DONE
    assert f"Merkle root {said['merkle_root']}" in capsys.readouterr().out
    assert cli.main(["publish", store.url, str(tmp_path / "out")]) == cli.USAGE
    assert "never overwritten" in capsys.readouterr().err
    assert cli.main(["sessions", str(tmp_path / "out")]) == cli.DONE


def test_parts_of_a_key_are_cut_from_the_whole(folder):
    from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest

    data = bytes(range(20))
    assert _read._cut(data, RangeByteRequest(3, 7)) == data[3:7]
    assert _read._cut(data, OffsetByteRequest(15)) == data[15:]
    assert _read._cut(data, SuffixByteRequest(4)) == data[-4:]
    assert _read._cut(data, SuffixByteRequest(99)) == data
    assert _read._cut(data, None) == data
