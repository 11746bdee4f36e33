"""A bundle gives the batches of the store, and nothing else: whole, broken, copied, hostile."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import _hashed
import _packed
import _small
import numpy as np
import pytest

import neurostore
from neurostore import cli, recipes
from neurostore.errors import DamagedError, NotFoundError, StoreError, UsageError
from neurostore.sample import Bundle, Dataset, Presentation, Spikes, Window, pack
from neurostore.sample.bundle import SAID, TABLES, digest_of
from neurostore.sample.packing import rehearse
from neurostore.store import Stimulus

HERE = Path(__file__).parent
ABSENT = [
    *("zarr", "icechunk", "pandas", "pandera", "pydantic", "duckdb", "pyarrow", "xarray", "scipy"),
    *("filelock", "platformdirs", "fsspec", "rich", "tyro", "h5py", "numcodecs", "dask"),
]


@dataclass
class Lab:
    folder: Path
    store: neurostore.Store
    datasets: dict[str, Dataset]
    bundle: Bundle


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("bundle")
    store = _packed.store(folder / "lab")
    datasets = _packed.datasets(store)
    return Lab(folder, store, datasets, pack(datasets, folder / "packed"))


@pytest.fixture(scope="module")
def expected(lab: Lab) -> dict[str, list[str]]:
    return {name: _hashed.epoch(one) for name, one in lab.datasets.items()}


@pytest.fixture
def copied(lab: Lab, tmp_path: Path) -> Path:
    return Path(shutil.copytree(lab.bundle.folder, tmp_path / "copied"))


# ---- the same windows


def test_plan_and_identity_are_those_of_the_store(lab: Lab):
    assert lab.bundle.datasets == tuple(lab.datasets)
    for name, one in lab.datasets.items():
        found = lab.bundle.dataset(name)
        assert found.plan.digest == one.plan.digest
        assert found.identity() == one.identity()
        assert {id: ids.tolist() for id, ids in found.unit_ids.items()} == {
            id: ids.tolist() for id, ids in one.unit_ids.items()
        }


def test_batches_are_those_of_the_store(lab: Lab, expected: dict[str, list[str]]):
    assert _hashed.of_all(lab.bundle) == expected


def test_batches_of_two_workers_are_those_of_the_store(lab: Lab, expected):
    found = {name: _hashed.epoch(lab.bundle.dataset(name), 2) for name in ("plain",)}
    assert found == {name: expected[name] for name in found}


def test_batches_are_the_same_where_only_numpy_numba_and_torch_can_be_imported(lab, expected):
    words = [sys.executable, HERE / "_hashed.py", lab.bundle.folder, "0", *ABSENT]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["hashes"] == expected
    assert not {one.partition(".")[0] for one in said["loaded"]} & set(ABSENT)


def test_it_reads_no_store_and_no_window_cache(lab, expected, copied, tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROSTORE_CACHE", "off")
    away = lab.folder / "away"
    (lab.folder / "lab").rename(away)
    try:
        assert _hashed.of_all(Bundle.open(copied)) == expected
    finally:
        away.rename(lab.folder / "lab")


def test_it_opens_where_nothing_can_be_written(copied: Path, expected):
    for path in (copied, copied / TABLES):
        path.chmod(0o555)
    try:
        assert _hashed.epoch(Bundle.open(copied).dataset("shown")) == expected["shown"]
    finally:
        for path in (copied, copied / TABLES):
            path.chmod(0o755)


def test_reading_leaves_the_files_as_they_were(lab: Lab, copied: Path):
    before = {path: path.stat().st_mtime_ns for path in (copied / TABLES).iterdir()}
    _hashed.of_all(Bundle.open(copied))
    assert {path: path.stat().st_mtime_ns for path in (copied / TABLES).iterdir()} == before


def test_a_transform_is_given_again_where_it_is_opened(lab: Lab, tmp_path: Path):
    dataset, fitted = _packed.normalised(lab.store)
    bundle = pack({"train": dataset}, tmp_path / "b")
    found = bundle.dataset("train", transform=fitted).sample(16, seed=2)
    assert _hashed.hashed(found) == _hashed.hashed(dataset.sample(16, seed=2))
    assert _hashed.hashed(bundle.dataset("train").sample(16, seed=2)) != _hashed.hashed(found)


def test_a_pickled_dataset_of_a_bundle_gives_the_same(lab: Lab, expected):
    again = pickle.loads(pickle.dumps(lab.bundle.dataset("masked")))
    assert _hashed.epoch(again) == expected["masked"]


def test_a_store_without_a_window_cache_is_packed_alike(lab, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROSTORE_CACHE", "off")
    datasets = _packed.datasets(neurostore.open(lab.store.url), "shown", "staggered")
    bundle = pack(datasets, tmp_path / "b")
    assert _hashed.of_all(bundle) == {name: expected[name] for name in bundle.datasets}


def test_embeddings_and_frames_are_mapped_and_not_read_whole(lab: Lab):
    stimulus = lab.bundle.stimulus("movie")
    theirs = lab.store.stimulus("movie")
    assert stimulus.digest == theirs.digest
    assert (stimulus.frames[3:5] == theirs.frames[3:5]).all()
    assert (stimulus.embedding("clip").read() == theirs.embedding("clip").read()).all()
    for values in (stimulus.frames.flat, stimulus.embedding("clip").values):
        assert values.entry.path.parent == lab.bundle.folder / TABLES


# ---- what it does not hold


def test_what_was_not_packed_is_refused_with_what_there_is(lab: Lab, tmp_path: Path):
    window, bundle = Window(0.5), pack({"around": lab.datasets["around"]}, tmp_path / "b")
    with pytest.raises(NotFoundError, match="Did you mean 'around'"):
        bundle.dataset("arround")
    with pytest.raises(NotFoundError, match="demo/a"):
        bundle.session("demo/b")
    with pytest.raises(UsageError, match=r"holds no 'activity/voltage'.*Pack one"):
        bundle.session("demo/a").table("activity/voltage")
    with pytest.raises(UsageError, match="SQL"):
        Dataset(bundle, "n_units > 1", window=window, streams={"s": Spikes(0.1)})
    with pytest.raises(UsageError, match="give their ids"):
        Dataset(bundle, units="n_spikes > 1", window=window, streams={"s": Spikes(0.1)})
    around = Window(0.5, around="trials.start", where="side = 'right'")
    with pytest.raises(UsageError, match="no rows of intervals/trials"):
        Dataset(bundle, window=around, streams={"s": Spikes(0.1)})
    with pytest.raises(UsageError, match="is a bundle and holds what its datasets read"):
        _ = bundle.zarr


def test_other_windows_of_what_was_packed_can_be_taken(lab: Lab):
    said = {"window": Window(1.0), "streams": {"s": Spikes(0.1)}}
    ours, theirs = (Dataset(of, "demo/a", **said) for of in (lab.bundle, lab.store))
    assert _hashed.epoch(ours) == _hashed.epoch(theirs)


class Own(Spikes):
    """A stream of somebody's own."""


def test_code_is_refused_by_the_name_of_its_stream(lab: Lab, tmp_path: Path):
    dataset = Dataset(lab.store, window=Window(0.5), streams={"mine": Own(0.1)})
    for make in (
        lambda: pack({"train": dataset}, tmp_path / "b"),
        lambda: rehearse({"t": dataset}),
    ):
        with pytest.raises(UsageError, match=r"'mine' of .*test_bundle.Own.* cannot hold"):
            make()
    assert list(tmp_path.iterdir()) == []


def test_datasets_of_two_snapshots_or_none_are_refused(lab: Lab, tmp_path: Path):
    other = _small.store(tmp_path / "other", _small.spikes())
    theirs = Dataset(other, window=Window(0.5), streams={"s": Spikes(0.1)})
    with pytest.raises(UsageError, match="one store at one snapshot"):
        pack({"a": lab.datasets["plain"], "b": theirs}, tmp_path / "b")
    with pytest.raises(UsageError, match="found none"):
        pack({}, tmp_path / "b")
    with pytest.raises(UsageError, match="is there already"):
        pack({"b": theirs}, tmp_path / "other")


# ---- broken off


KILLED = """
import os, signal, sys
sys.path.insert(0, {here!r})
import _packed
import neurostore
from neurostore.sample import pack, packing
chosen = _packed.datasets(neurostore.open({url!r}), "plain", "shown", "staggered")
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
point = {point!r}
if point.isdigit():
    pack(chosen, {folder!r}, progress=lambda name, done, total: done == int(point) and die())
setattr(packing, point, die)
pack(chosen, {folder!r})
"""


def test_a_pack_that_was_killed_has_no_name_and_is_completed_by_the_next(lab, expected, tmp_path):
    folder = tmp_path / "b"
    for point in ("1", "9", "_write", "_refuse_another", "sync_folder"):
        code = KILLED.format(here=str(HERE), url=lab.store.url, point=point, folder=str(folder))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert not folder.exists()
    kept = {one.name: one.stat().st_ino for one in (tmp_path / "b.packing" / TABLES).iterdir()}
    names = ("plain", "shown", "staggered")
    bundle = pack({name: lab.datasets[name] for name in names}, folder)
    assert _hashed.of_all(bundle) == {name: expected[name] for name in names}
    now = {one.name: one.stat().st_ino for one in (folder / TABLES).iterdir()}
    assert now == {name: kept[name] for name in now}  # nothing was built twice
    assert set(now) == set(bundle.said["files"])
    assert [one.name for one in tmp_path.iterdir()] == ["b"]


def test_two_at_once_are_told_of_each_other(lab: Lab, tmp_path: Path):
    tried: list[str] = []

    def again(*_: Any) -> None:
        if not tried:
            with pytest.raises(UsageError, match="Another process packs"):
                pack({"a": lab.datasets["around"]}, tmp_path / "b")
            tried.append("once")

    pack({"a": lab.datasets["around"]}, tmp_path / "b", progress=again)
    assert tried == ["once"]


def test_what_is_left_of_other_datasets_is_no_part_of_it(lab: Lab, tmp_path: Path):
    left = tmp_path / "b.packing" / TABLES
    left.mkdir(parents=True)
    (left / "x.entry").write_bytes(b"what is this")
    shutil.copy(next((lab.bundle.folder / TABLES).iterdir()), left / "k.building")
    bundle = pack({"a": lab.datasets["around"]}, tmp_path / "b")
    found = {one.name for one in (bundle.folder / TABLES).iterdir()}
    assert found == set(bundle.said["files"])


def test_a_file_that_was_damaged_while_packing_is_built_anew(lab, expected, tmp_path):
    shutil.copytree(lab.bundle.folder, tmp_path / "b.packing")
    for path in (tmp_path / "b.packing" / TABLES).iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    bundle = pack({"shown": lab.datasets["shown"]}, tmp_path / "b")
    assert _hashed.of_all(bundle)["shown"] == expected["shown"]


def test_a_full_disk_is_said_and_the_next_call_completes(lab, tmp_path, monkeypatch):
    module = sys.modules["neurostore.cache._writer"]
    taken, take = [], module._take

    def full(file: int, size: int) -> None:
        taken.append(size)
        if len(taken) > 3:
            raise OSError(28, "No space left on device")
        take(file, size)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_take", full)
        with pytest.raises(
            StoreError, match=r"is full.*call again, what is packed already is kept"
        ):
            pack({"plain": lab.datasets["plain"]}, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert len(list((tmp_path / "b.packing" / TABLES).glob("*.entry"))) == 3
    assert len(pack({"plain": lab.datasets["plain"]}, tmp_path / "b").dataset("plain"))


# ---- damaged


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at, 2 if at < 0 else 0)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 255]))


def test_a_flipped_byte_is_found_when_it_is_read_and_by_verify(copied: Path):
    largest = max((copied / TABLES).iterdir(), key=lambda one: one.stat().st_size)
    _flip(largest, 2_000_000)
    bundle = Bundle.open(copied)
    for _ in range(2):  # the file stays, and so does the error
        with pytest.raises(DamagedError, match=largest.name):
            _hashed.epoch(bundle.dataset("rows"), most=10**6)
    with pytest.raises(DamagedError, match=largest.name):
        bundle.verify()
    assert largest.exists()


def test_a_file_that_is_copied_again_is_read_again(lab: Lab, expected, copied: Path):
    name = min(one.name for one in (copied / TABLES).iterdir() if one.stat().st_size > 2_000_000)
    _flip(copied / TABLES / name, 2_000_000)
    held = Bundle.open(copied).dataset("rows")
    with pytest.raises(DamagedError, match=name):
        _hashed.epoch(held, most=10**6)
    (copied / TABLES / name).unlink()
    shutil.copy(lab.bundle.folder / TABLES / name, copied / TABLES / name)
    assert _hashed.epoch(Bundle.open(copied).dataset("rows")) == expected["rows"]


def test_every_flipped_file_is_found_by_verify_by_name(copied: Path):
    for path in sorted((copied / TABLES).iterdir()):
        _flip(path, -1)
        with pytest.raises(DamagedError, match=path.name):
            Bundle.open(copied).verify()
        _flip(path, -1)
    Bundle.open(copied).verify()


@pytest.mark.parametrize("size", [None, 0, 1000, -1, "link", "folder"])
def test_a_file_that_is_gone_or_of_another_size_is_found_at_opening(copied, tmp_path, size):
    path = sorted((copied / TABLES).iterdir())[2]
    content = path.read_bytes()
    path.unlink()
    if size == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    elif size == "folder":
        path.mkdir()
    elif size is not None:
        path.write_bytes(content[:size])
    with pytest.raises(DamagedError, match=path.name):
        Bundle.open(copied)


def test_changed_words_are_found(copied: Path):
    text = (copied / SAID).read_text()
    (copied / SAID).write_text(text.replace('"horizon": 0.3', '"horizon": 0.2', 1))
    with pytest.raises(DamagedError, match="not what was written"):
        Bundle.open(copied)


# ---- hostile


def _said(folder: Path, **changes: Any) -> None:
    """Other words under the right digest."""
    said = json.loads((folder / SAID).read_text()) | changes
    said = {key: one for key, one in said.items() if one is not None}
    (folder / SAID).write_text(json.dumps(said | {"digest": digest_of(said)}))


def test_a_newer_format_is_refused(copied: Path):
    _said(copied, format=[2, 1])
    with pytest.raises(UsageError, match=r"format \[2, 1\].*opens \[1, 1\]"):
        Bundle.open(copied)


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b"null", b"\xff\xfe", b"{'a': 1}", b"[" * 200_000, b'{"format": [1, 1]}'],
)
def test_what_is_no_json_of_a_bundle_is_refused(copied: Path, text: bytes):
    (copied / SAID).write_bytes(text)
    with pytest.raises(DamagedError, match=SAID):
        Bundle.open(copied)


@pytest.mark.parametrize(
    "name", ["../../secret.entry", "/etc/passwd", "a/b.entry", "..", "", "x.entry\n", "\0.entry"]
)
def test_no_file_outside_the_folder_is_named(copied: Path, name: str):
    (copied.parent / "secret.entry").write_bytes(b"secret")
    _said(copied, files={name: {"size": 6, "sha256": "0" * 64}})
    with pytest.raises(DamagedError, match="the file"):
        Bundle.open(copied)


@pytest.mark.parametrize("size", [-1, 10**30, True, 1.5, "7", None, [1]])
def test_absurd_sizes_are_refused(copied: Path, size: Any):
    files = json.loads((copied / SAID).read_text())["files"]
    first = next(iter(files))
    _said(copied, files=files | {first: {"size": size, "sha256": ""}})
    with pytest.raises(DamagedError, match=first):
        Bundle.open(copied)


@pytest.mark.parametrize(
    "part", ["sessions", "rows", "units", "stimuli", "datasets", "files", "url"]
)
def test_parts_that_are_missing_or_of_another_kind_are_named(copied: Path, part: str):
    for value in (None, 7):
        _said(copied, **{part: value})
        with pytest.raises(DamagedError, match=part):
            Bundle.open(copied)


@pytest.mark.parametrize(
    "stream",
    [
        {"kind": "os:system", "fields": {"command": "touch /tmp/x"}},
        {"kind": "Bundle", "fields": {"folder": "/", "said": {}}},
        {"kind": "neurostore.sample.bundle:Bundle", "fields": {"folder": "/"}},
        {"kind": "Spikes", "fields": {"bin": 0.1, "more": 1}},
        {"kind": "Spikes", "fields": []},
        {"kind": "Spikes"},
        {"kind": ["Spikes"], "fields": {}},
        {"fraction": "1/0"},
        {"fraction": []},
        {"mapping": 3},
        {"split": {}, "label": "x"},
        7,
        None,
    ],
)
def test_streams_that_are_none_of_ours_are_refused(copied: Path, stream: Any):
    one = json.loads((copied / SAID).read_text())["datasets"]["causal"]
    one["made_of"]["mapping"]["streams"]["mapping"]["spikes"] = stream
    _said(copied, datasets={"causal": one})
    bundle = Bundle.open(copied)
    with pytest.raises((StoreError, UsageError)):
        bundle.dataset("causal")


@pytest.mark.parametrize("made", [None, 7, [], {}, {"mapping": {}}, {"mapping": {"sessions": 3}}])
def test_a_dataset_that_is_made_of_nothing_is_refused(copied: Path, made: Any):
    _said(
        copied, datasets={"a": {"made_of": made, "asked": [None, None], "plan": "", "identity": {}}}
    )
    with pytest.raises((StoreError, UsageError)):
        Bundle.open(copied).dataset("a")


def test_more_units_than_bytes_are_refused(copied: Path):
    sessions = json.loads((copied / SAID).read_text())["sessions"]
    sessions["demo/a"]["row"]["n_units"] = 10**12
    _said(copied, sessions=sessions)
    with pytest.raises(DamagedError, match="units of the session 'demo/a'"):
        Bundle.open(copied)


def test_other_windows_than_were_packed_are_refused(copied: Path):
    datasets = json.loads((copied / SAID).read_text())["datasets"]
    datasets["causal"]["plan"] = "0" * 64
    _said(copied, datasets=datasets)
    with pytest.raises(DamagedError, match="not those that were packed"):
        Bundle.open(copied).dataset("causal")


# ---- the command


def _run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_packs_what_it_said_it_would(tmp_path, capsys):
    store = _small.store(tmp_path / "lab", _small.spikes())
    words = ["pack", _small.file(tmp_path), tmp_path / "lab", tmp_path / "b"]
    code, out, err = _run(capsys, *words, "--dry-run")
    assert (code, err) == (0, "")
    assert "sim/a: intervals/observed, spikes, units" in out or "sim/a: spikes, units" in out
    assert "nothing was written" in out
    plan = json.loads(_run(capsys, *words, "--dry-run", "--json")[1])
    assert sorted(plan["datasets"]) == ["test", "train", "validation"]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["lab", "small.toml"]
    code, out, err = _run(capsys, *words)
    assert code == 0
    lines = (out + err).splitlines()
    assert any(line.startswith("1/") for line in lines)
    assert str(tmp_path / "b") in out
    bundle = Bundle.open(tmp_path / "b")
    assert {name: len(bundle.dataset(name)) for name in bundle.datasets} == plan["datasets"]
    assert bundle.snapshot == store.snapshot
    code, _, err = _run(capsys, *words)
    assert code == 2
    assert "is there already" in err


def test_the_command_goes_on_where_it_was_and_prints_json(tmp_path, capsys):
    _small.store(tmp_path / "lab", _small.spikes())
    words = ["pack", _small.file(tmp_path), tmp_path / "lab", tmp_path / "b", "--json"]
    code, out, err = _run(capsys, *words, "--window.stride", "0.5")
    assert (code, err) == (0, "")
    files = json.loads(out)["files"]
    (tmp_path / "b").rename(tmp_path / "b.packing")
    kept = {one.name: one.stat().st_ino for one in (tmp_path / "b.packing" / TABLES).iterdir()}
    code, out, err = _run(capsys, *words)
    assert (code, err) == (0, "")
    assert json.loads(out)["files"] == files
    assert {one.name: os.stat(one).st_ino for one in (tmp_path / "b" / TABLES).iterdir()} == kept
    assert main_ends_with_2(capsys, "pack", "gml", tmp_path / "lab", tmp_path / "c")


def main_ends_with_2(capsys: pytest.CaptureFixture[str], *words: object) -> bool:
    return _run(capsys, *words)[0] == 2 and not Path(str(words[-1])).exists()


# ---- a recipe


def test_a_recipe_is_trained_on_a_bundle_as_on_its_store(tmp_path):
    store = _small.store(tmp_path / "lab", _small.spikes())
    recipe = _small.recipe(tmp_path)
    split = recipes.split_of(recipe, store)
    parts = {label: recipes.dataset(recipe, store, split[label]) for label in split.labels}
    bundle = pack(parts, tmp_path / "b")
    assert recipes.split_of(recipe, bundle).digest == split.digest
    runs = [
        neurostore.train(recipe, of, tmp_path / name, progress=False)
        for of, name in ((store, "one"), (bundle, "two"))
    ]
    weights = [run.weights() for run in runs]
    assert weights[0].keys() == weights[1].keys()
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    other = _small.recipe(tmp_path, "--data.units", "n_spikes > 100")
    with pytest.raises(UsageError, match="was chosen by sessions None, units None; found"):
        neurostore.train(other, bundle, tmp_path / "three", progress=False)


def test_stimuli_of_the_same_bytes_are_two(tmp_path: Path):
    store = neurostore.create(tmp_path / "lab")
    black = {"wide": np.zeros((10, 4), np.uint8), "long": np.zeros((20, 2), np.uint8)}
    with store.transaction("black") as tx:
        for name, frames in black.items():
            tx.put(Stimulus(name, frames))
            made = neurostore.SessionBuilder(dataset="d", session=name)
            made.add_units({"u": np.arange(100) / 10})
            made.add_presentations("movie", [0.0], [9.0], [3], stimulus=name)
            tx.put(made)
    streams = {"seen": Presentation("movie", "stimulus", rate=10)}
    datasets = {
        name: Dataset(store, f"d/{name}", window=Window(1.0), streams=streams) for name in black
    }
    bundle = pack(datasets, tmp_path / "bundle")
    for name, frames in black.items():
        assert bundle.dataset(name)[0]["seen"].shape[2:] == frames.shape[1:]


def test_spikes_of_no_unit_in_a_bundle_are_refused_by_psth(lab: Lab, copied: Path):
    session = Bundle.open(copied).session("demo/a")
    packed = session.packed
    assert packed is not None
    with pytest.raises(DamagedError, match="name a unit"):
        replace(packed, units=1).refuse_unknown_units()
    packed.refuse_unknown_units()
