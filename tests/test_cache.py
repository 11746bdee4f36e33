"""The window cache: what is read was written, whoever builds, dies, evicts or flips bits."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import _cache_builders as builders
import numpy as np
import pytest

from neurostore import cache, kernels
from neurostore.cache import Cache, Checked, Entry, Fixed, _ahead, _cache
from neurostore.cache._packed import by_unit_plan, pack, packed_shapes
from neurostore.errors import CacheWarning, DamagedError, UsageError

CONTEXT = multiprocessing.get_context("forkserver")


@pytest.fixture
def held(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", bound=10**9)


def _same(entry: Entry) -> None:
    for name, expected in builders.values(entry.key).items():
        entry.check(name)
        np.testing.assert_array_equal(entry.arrays[name], expected)
        assert entry.arrays[name].dtype == expected.dtype


def test_an_entry_is_what_was_put_in(held: Cache):
    built = builders.build(held, "k")
    assert built.key == "k"
    assert built.meta == builders.META
    _same(built)
    assert held.get("k") is built
    _same(Entry.open(built.path))
    assert not built.arrays["large"].flags.writeable
    assert not [one for one in held.root.iterdir() if one.suffix == ".building"]


def test_another_key_is_not_there_and_a_bad_one_is_refused(held: Cache):
    assert held.get("other") is None
    with pytest.raises(UsageError, match=r"\.\./x"):
        held.get("../x")


def test_what_fails_to_fill_leaves_nothing(held: Cache):
    def fails(writer: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        held.build("k", builders.SHAPES, fails)
    assert held.get("k") is None
    assert [one.name for one in held.root.iterdir()] == ["room.lock"]
    _same(builders.build(held, "k"))


def test_an_entry_pickles_as_its_path(held: Cache):
    entry = builders.build(held, "k")
    sent = pickle.dumps(entry)
    assert len(sent) < 1000
    _same(pickle.loads(sent))


def test_any_flipped_byte_is_found_or_harmless(held: Cache, tmp_path: Path):
    whole = builders.build(held, "k").path.read_bytes()
    rng, path, found = random.Random(1), tmp_path / "flipped.entry", 0
    places = [rng.randrange(len(whole)) for _ in range(170)]
    places += [rng.randrange(5000) for _ in range(30)]  # what stands in front, too
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            _same(Entry.open(path))
        except DamagedError as error:
            assert str(path) in str(error)  # noqa: PT017
            found += 1
    assert found > 150


def test_any_shortened_file_is_found(held: Cache, tmp_path: Path):
    whole = builders.build(held, "k").path.read_bytes()
    for length in (0, 5, 24, 300, 4096, len(whole) // 2, len(whole) - 1):
        path = tmp_path / "short.entry"
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedError, match="short"):
            Entry.open(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DamagedError, match="bytes"):
        Entry.open(path)


def _flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def test_damage_names_its_place_and_is_built_anew(held: Cache):
    entry = builders.build(held, "k")
    _flip(entry.path, 4096 + 7 * 65536 + 5)
    entry.check("large", 0, 10)  # another segment
    with pytest.raises(DamagedError, match=r"Segment 7 of .*k\.entry, in the array 'large'"):
        entry.check("large")
    assert entry.damaged
    assert held.get("k") is None
    _same(builders.build(held, "k"))


def test_a_damaged_header_is_said_once_and_built_anew(held: Cache):
    for _ in range(2):
        path = builders.build(held, "k").path
        _flip(path, 30)
        if _ == 0:
            with pytest.warns(CacheWarning, match="header"):
                assert held.get("k") is None
        else:
            assert held.get("k") is None
        assert not path.exists()


def test_an_entry_in_the_place_of_another_is_damage_and_that_one_is_built_anew(held: Cache):
    path = builders.build(held, "k").path
    path.write_bytes(builders.build(held, "j").path.read_bytes())
    with pytest.raises(DamagedError, match=r"k\.entry is the entry of 'j'"):
        Fixed(held.root).get("k")
    with pytest.warns(CacheWarning, match="is the entry of 'j'"):
        assert held.get("k") is None
    assert not path.exists()
    np.testing.assert_array_equal(
        builders.build(held, "k").arrays["large"], builders.values("k")["large"]
    )


def test_rows_in_any_order_are_verified(held: Cache):
    entry = builders.build(held, "k")
    values, plain = Checked(entry, "large"), builders.values("k")["large"]
    rng = np.random.default_rng(0)
    keys = [3, -1, slice(None), slice(5, 2), slice(-9, None, -3), rng.integers(-9, 9, 40)]
    keys += [plain > 990, np.array([], int), Ellipsis, np.int64(4)]
    for key in keys:
        np.testing.assert_array_equal(values[key], plain[key])
    np.testing.assert_array_equal(np.asarray(values), plain)
    with pytest.raises(IndexError):
        values[np.array([10**9])]
    _flip(entry.path, 4096 + 20 * 65536)
    fresh = Checked(Entry.open(entry.path), "large")
    fresh[np.array([0, len(plain) - 1])]
    with pytest.raises(DamagedError, match="Segment 20"):
        fresh[np.array([0, 20 * 65536 // 8])]


def test_axes_are_read_each_on_its_own(held: Cache):
    entry = builders.build(held, "k")
    values, plain = Checked(entry, "table"), builders.values("k")["table"]
    rows, columns = np.array([300, 2, 2]), np.array([6, 0])
    np.testing.assert_array_equal(values[rows, columns], plain[np.ix_(rows, columns)])
    np.testing.assert_array_equal(values[5:9, columns], plain[5:9][:, columns])
    np.testing.assert_array_equal(values[4, 2:], plain[4, 2:])
    assert values[4, 2] == plain[4, 2]


# ---- many processes


def test_of_four_that_race_one_builds(held: Cache, tmp_path: Path):
    barrier, log = CONTEXT.Barrier(4), tmp_path / "log"
    racers = [
        CONTEXT.Process(target=builders.race, args=(held.root, log, barrier)) for _ in range(4)
    ]
    for one in racers:
        one.start()
    for one in racers:
        one.join(60)
    assert [one.exitcode for one in racers] == [0] * 4
    assert log.read_text() == "filled\n"


@pytest.mark.slow
def test_a_killed_builder_leaves_no_half_entry(tmp_path: Path):
    rng, root, halfway = random.Random(2), tmp_path / "cache", 0
    for _ in range(50):
        started = CONTEXT.Event()
        builder = CONTEXT.Process(target=builders.build_for_ever, args=(root, started))
        builder.start()
        assert started.wait(60)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(builder.pid, signal.SIGKILL)
        builder.join()
        assert builder.exitcode == -signal.SIGKILL
        halfway += any(root.glob("*.building"))
        for path in root.glob("*.entry"):
            _same(Entry.open(path))
    assert halfway > 10  # of the 50, so many were killed while they built
    builders.build(Cache(root, bound=10**9), "after")
    assert not list(root.glob("*.building"))


def test_a_forked_child_reads_and_lets_go_of_nothing(held: Cache):
    entry = builders.build(held, "k")
    child = multiprocessing.get_context("fork").Process(target=builders.read, args=(entry,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert held.clear() == (0, 0)  # the parent still holds its lock


def test_an_unpickled_entry_reads_in_another_process(held: Cache):
    child = CONTEXT.Process(target=builders.read, args=(builders.build(held, "k"),))
    child.start()
    child.join()
    assert child.exitcode == 0


def test_reading_needs_numpy_alone():
    code = (
        "import sys, neurostore.cache\n"
        "bad = {'zarr', 'icechunk', 'pandera', 'pydantic', 'filelock', 'xarray', 'pandas'}\n"
        "assert not bad & set(sys.modules), bad & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- the bound, the disk, the folder


def test_what_was_used_longest_ago_is_evicted(tmp_path: Path):
    held = Cache(tmp_path, bound=3 * 2_100_000)
    for k in range(3):
        builders.build(held, f"k{k}")
    for k, age in enumerate((30, 10, 20)):
        os.utime(tmp_path / f"k{k}.entry", (time.time() - age,) * 2)
    assert held.get("k0") is not None  # now the newest
    builders.build(held, "k3")
    assert sorted(one.stem for one in tmp_path.glob("*.entry")) == ["k0", "k1", "k3"]


def test_what_is_in_use_is_never_evicted(tmp_path: Path):
    held = Cache(tmp_path, bound=2 * 2_100_000)
    views = [builders.build(held, f"k{k}").arrays["large"] for k in range(2)]
    with pytest.warns(CacheWarning, match="no room"):
        assert builders.build(held, "k2") is None
    assert builders.build(held, "k3") is None  # said once
    assert sorted(one.stem for one in tmp_path.glob("*.entry")) == ["k0", "k1"]
    del views[0]
    assert builders.build(held, "k2") is not None
    assert sorted(one.stem for one in tmp_path.glob("*.entry")) == ["k1", "k2"]


def test_what_can_never_fit_evicts_nothing(tmp_path: Path):
    builders.build(Cache(tmp_path, bound=10**9), "k0")
    with pytest.warns(CacheWarning, match="1,000 bytes"):
        assert builders.build(Cache(tmp_path, bound=1000), "k1") is None
    assert (tmp_path / "k0.entry").exists()


def test_clearing_frees_what_nobody_uses(held: Cache):
    kept = builders.build(held, "used")
    builders.build(held, "free")
    count, freed = held.clear()
    assert count == 1
    assert freed >= kept.size
    _same(kept)


def test_a_full_disk_is_said_and_leaves_nothing(held: Cache, monkeypatch: pytest.MonkeyPatch):
    def full(file: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.warns(CacheWarning, match="is full.*bytes.*read directly"):
        assert builders.build(held, "k") is None
    assert [one.name for one in held.root.iterdir()] == ["room.lock"]


def test_a_file_system_that_reserves_nothing_is_filled_with_zeros(
    held: Cache, monkeypatch: pytest.MonkeyPatch
):
    def unable(file: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unable)
    _same(builders.build(held, "k"))


def test_a_disk_that_fails_while_written_is_said(held: Cache, monkeypatch: pytest.MonkeyPatch):
    def fails(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.warns(CacheWarning, match="cannot be written.*Input/output"):
        assert builders.build(held, "k") is None
    assert [one.name for one in held.root.iterdir()] == ["room.lock"]


def test_files_limited_in_size_are_a_full_disk(tmp_path: Path):
    said = CONTEXT.Queue()
    child = CONTEXT.Process(target=builders.build_on_a_small_disk, args=(tmp_path, said))
    child.start()
    nothing, messages, files = said.get(timeout=60)
    child.join()
    assert child.exitcode == 0
    assert nothing
    assert "full" in messages[0]
    assert files == [str(tmp_path / "room.lock")]


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    held = Cache(tmp_path / "file" / "cache", bound=10**9)
    with pytest.warns(CacheWarning, match="cannot be written"):
        assert builders.build(held, "k") is None
    assert builders.build(held, "k") is None


def test_a_file_left_by_the_dead_is_swept(held: Cache):
    held.root.mkdir(parents=True)
    stale = held.root / "dead.building"
    stale.write_bytes(b"half")
    builders.build(held, "k")
    assert not stale.exists()


# ---- settings


def test_the_environment_names_folder_and_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NEUROSTORE_CACHE", str(tmp_path))
    monkeypatch.setenv("NEUROSTORE_CACHE_BOUND", "20GB")
    assert cache.current() == Cache(tmp_path / "tables", 20 * 10**9)
    cache.use(None)
    assert cache.current() is None
    assert cache.folder() is None
    cache.use(tmp_path, bound="1.5 MiB")
    assert cache.current() == Cache(tmp_path / "tables", 3 << 19)
    cache.use(tmp_path)
    disk = shutil.disk_usage(tmp_path).total
    assert cache.current().bound == min(50 * 10**9, disk // 5)


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "20 potatoes"])
def test_a_bound_that_is_no_size_is_refused(text: str):
    with pytest.raises(UsageError, match="20GB"):
        cache.parse_size(text)


# ---- spikes


@pytest.mark.parametrize(("length", "units"), [(300, 4), (65_536, 70_000), (65_537, 4), (100, 0)])
def test_packed_spikes_give_time_and_unit_back(held: Cache, length: int, units: int):
    rng, first = np.random.default_rng(length), -3 * length
    count = 5000 if units else 0
    time = np.sort(rng.integers(first, first + 50 * length, count))
    unit = rng.integers(0, max(units, 1), count).astype(np.uint32)
    edges = first + np.arange(51) * length
    block = np.searchsorted(time, edges)
    meta = {"first": first, "length": length, "units": units}

    def fill(writer: cache.Writer) -> None:
        writer.arrays["block"][:] = block
        for row in range(0, count, 777):
            part = slice(row, row + 777)
            out = writer.arrays["events"][part]
            assert pack(time[part], unit[part], block, first, length, out, row)

    shapes = packed_shapes(count, len(block), length, units)
    entry = held.build("p", shapes, fill, meta)
    packed = pickle.loads(pickle.dumps(cache.Packed.of(entry)))
    found = packed.unpack(0, count)
    np.testing.assert_array_equal(found[0], time)
    np.testing.assert_array_equal(found[1], unit)
    for tick in (first - 1, first, first + 7, first + 50 * length, *time[::900].tolist()):
        assert packed.first_at(tick) == np.searchsorted(time, tick)
    shapes, meta, fill_units = by_unit_plan(packed)
    by_unit = cache.ByUnit.of(held.build("u", shapes, lambda w: fill_units(w.arrays), meta))
    for one in {*unit[:5].tolist(), *range(min(units, 3))}:
        expected = [t for t, u in zip(time.tolist(), unit.tolist(), strict=True) if u == one]
        assert by_unit.of_unit(one, -(2**62), 2**62).tolist() == expected
        some = [t for t in expected if first + length <= t < first + 9 * length]
        assert by_unit.of_unit(one, first + length, first + 9 * length).tolist() == some


def test_a_spike_outside_of_its_block_is_not_packed():
    block = np.array([0, 2, 3])
    out = np.zeros(3, np.uint32)
    unit = np.zeros(3, np.uint16)
    assert pack(np.array([0, 9, 10]), unit, block, 0, 10, out)
    assert not pack(np.array([0, 10, 11]), unit, block, 0, 10, out)


def _settled() -> bool:
    until = time.monotonic() + 20
    while _ahead._queue.pending and time.monotonic() < until:
        time.sleep(0.01)
    return not _ahead._queue.pending


def test_entries_are_verified_ahead_and_one_that_fails_holds_up_no_other(held, monkeypatch):
    monkeypatch.setattr(kernels, "ready", lambda: True)
    monkeypatch.setattr(_ahead, "_queue", _ahead._Queue())
    one, other = builders.build(held, "k"), builders.build(held, "l")
    real = Entry.verify_piece

    def failing(entry: Entry, first: int, count: int) -> bool:
        if entry is one:
            raise MemoryError
        return real(entry, first, count)

    monkeypatch.setattr(Entry, "verify_piece", failing)
    for entry in (one, other):
        _ahead.verify(entry)
        assert _settled()
    assert other.verified.all()
    assert not one.verified.all()
    read = _ahead._queue.read
    size = other.size
    del entry, other
    _cache._open.clear()
    gc.collect()
    assert _ahead._queue.read == read - size


def test_a_child_has_a_queue_of_its_own(monkeypatch):
    monkeypatch.setattr(_ahead, "_queue", _ahead._Queue())
    before = _ahead._queue
    before.lock.acquire()
    _ahead._renew()
    assert _ahead._queue is not before
    assert _ahead._queue.lock.acquire(timeout=1)
