"""A damaged store says so, names the place, and never gives a wrong value."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from _damaged import build, flip_many, flipped, judge, plain, reading, replaced

import neurostore
from neurostore import cache
from neurostore.errors import DamagedError, NeurostoreError
from neurostore.store import layout


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return Path(build(tmp_path_factory.mktemp("damage") / "lab").url)


@pytest.fixture(scope="module")
def good(url):
    found = reading(url)
    assert not any(isinstance(value, Exception) for value in found.values())
    return found


def chunk_files(url):
    files = sorted((url / "chunks").iterdir())
    assert len(files) > 12
    return files


# ---- chunks


@pytest.mark.parametrize("how", ["flipped", "cut short", "empty", "gone", "swapped"])
def test_a_damaged_chunk_file_is_an_error_that_names_array_and_chunk_and_harms_nothing_else(
    url, good, how
):
    rng = random.Random(how)
    files, arrays = chunk_files(url), set()
    chunk = re.compile(r"sessions/(\S+)/c/(\S+) ")
    for k, path in enumerate(files):
        if how != "flipped" and k % 4:
            continue
        data = path.read_bytes()
        damage = {
            "flipped": flipped(data, rng.randrange(8 * len(data))),
            "cut short": data[: rng.randrange(1, len(data))],
            "empty": b"",
            "gone": None,
            "swapped": files[k - 1].read_bytes()[: len(data)].ljust(len(data), b"\0"),
        }[how]
        with replaced(path, damage):
            found = reading(url)
        assert judge(good, found) == "error"
        errors = {name: value for name, value in found.items() if isinstance(value, Exception)}
        assert {type(one) for one in errors.values()} == {DamagedError}
        ((array, _),) = {chunk.search(one.line).groups() for one in errors.values()}
        id, table = array.removeprefix("lab/").split("/", 1)
        assert all(name == "units" or name.startswith(f"lab/{id}") for name in errors), errors
        arrays.add(f"{id}/{table}")
    if how == "flipped":
        assert {"a/spikes/time", "a/intervals/trials/note", "c/behaviour/pupil/value"} <= arrays


@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_a_damaged_chunk_is_named_in_one_plain_line_that_leads_on(url, how):
    store = neurostore.open(url)
    ends = store.session("lab/a").stored("spikes").columns["time"].values.checksums
    end = bytes.fromhex(ends)[:4]
    (path,) = [one for one in chunk_files(url) if one.read_bytes()[-4:] == end]
    with replaced(path, flipped(path.read_bytes(), 99) if how == "flipped" else None):
        shutil.rmtree(cache.folder(), ignore_errors=True)
        for damaged in (False, True):
            session = neurostore.open(url, allow_damaged=damaged).session("lab/a")
            with pytest.raises(DamagedError) as caught:
                session.spike_times("u1")
            said = str(caught.value)
            assert said.startswith(
                "Chunk 0 of spikes/time of lab/a (sessions/lab/a/spikes/time/c/0)"
            )
            assert "neurostore verify URL" in said
            assert "\n" not in said
            assert "b'" not in said
            assert "Error" not in said


# ---- what lies above the chunks


@pytest.mark.parametrize(
    ("folder", "count"),
    [("manifests", 100), ("snapshots", 100), ("refs", 30), ("transactions", 10)],
)
def test_a_bit_turned_above_the_chunks_is_an_error_or_changes_nothing(url, folder, count):
    outcomes = flip_many(url, folder, count, seed=7)
    assert outcomes.total() == count
    if folder == "transactions":  # nothing that is read depends on them
        assert outcomes["same"] == count
    else:
        assert outcomes["error"] > count / 2


def test_a_chunk_of_another_place_is_not_taken_for_the_one_asked_for(tmp_path):
    rng = np.random.default_rng(0)
    builder = neurostore.SessionBuilder(dataset="d", session="s")
    frames = rng.integers(0, 256, (64 * 8, 64)).astype("u1")
    builder.add_activity("v", frames, start=0, rate=30, units="mV")
    store = neurostore.create(tmp_path / "lab")
    with store.transaction("frames") as tx:
        tx.put(builder)
    manifest = max((tmp_path / "lab" / "manifests").iterdir(), key=lambda one: one.stat().st_size)
    data = manifest.read_bytes()
    noticed = 0
    for bit in random.Random(1).sample(range(8 * len(data)), 60):
        with replaced(manifest, flipped(data, bit)):
            array = neurostore.open(store.url).session("d/s").stored("activity/v").columns["value"]
            for k in range(8):
                try:
                    part = array.values[64 * k : 64 * k + 64]
                except DamagedError:
                    noticed += 1
                else:
                    assert (part == frames[64 * k : 64 * k + 64]).all(), bit
    assert noticed
    stored = store.session("d/s").stored("activity/v").columns["value"].values
    keys = layout.chunk_keys(stored.path, stored.shape, stored.chunks)
    ends = bytes.fromhex(stored.checksums)
    assert len(ends) == 4 * len(keys) == 32
    swapped = ends[4:8] + ends[:4] + ends[8:]  # as if two chunks stood for one another
    other = layout.StoredArray(
        stored.store, stored.path, stored.shape, stored.dtype, stored.chunks, swapped.hex()
    )
    assert plain(other[128:]) == plain(frames[128:])
    for part in (slice(0, 64), slice(64, 128)):
        with pytest.raises(
            DamagedError, match=r"activity/v/value/c/[01]/0\) is not the one that was"
        ):
            other[part]


@pytest.mark.parametrize("folder", ["manifests", "snapshots", "transactions", "chunks", "refs"])
def test_without_one_of_its_folders_a_store_says_so(url, tmp_path, folder):
    shutil.copytree(url, tmp_path / "lab")
    shutil.rmtree(tmp_path / "lab" / folder)
    found = reading(tmp_path / "lab")
    errors = [value for value in found.values() if isinstance(value, NeurostoreError)]
    assert bool(errors) == (folder != "transactions")
    assert all(one.line.endswith((".", "?")) for one in errors), errors


def test_a_damaged_cache_of_the_catalogue_is_read_anew_from_the_store(url):
    store = neurostore.open(url)
    wanted = store.sessions().to_json()
    cached = cache.folder() / "catalogue" / f"{store.snapshot}.json"
    data = cached.read_bytes()
    changed = data.replace(b"mouse-1", b"mouse-2")
    for bad in (b"", b"[", b"17", b"[17]", b"{}", b"[]", data[:-9] + b"]", changed):
        cached.write_bytes(bad)
        assert neurostore.open(url).sessions().to_json() == wanted
        assert cached.read_bytes() == data
