"""Tables out of the window cache are the stored ones; what a row claims is not believed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neurostore
from neurostore.cli import main
from neurostore.errors import CacheWarning, DamagedError, NotFoundError
from neurostore.store import Session, Store, _cached, layout

UNITS, LAST = 5, 40.0


def _store(folder: Path) -> Store:
    rng = np.random.default_rng(3)
    made = neurostore.SessionBuilder(dataset="rich", session="a", subject="rat-1")
    times = {f"ü{k}": np.sort(rng.uniform(-3.0, LAST, 4000 + 50 * k)) for k in range(UNITS)}
    made.add_units({**times, "silent": np.zeros(0)}, region=["CA1", "", "CA3", "DG", "β", "x"])
    made.add_electrodes(["e1", "e2"], region=["CA1", "DG"], impedance=[1.0, 2.0])
    made.add_behaviour("wheel", rng.normal(size=(4000, 2)), start=0, rate=100, units="cm")
    made.add_behaviour(
        "lick", np.ones(3), time=[0.5, 0.25, 1.0], units="", valid=[True, False, True]
    )
    made.add_intervals(
        "trials", [0, np.nan, 2], [1, 2, 3], choice=["a", "", "é"], go_time=[0, 1, np.nan]
    )
    made.add_presentations("movie", [0.0, 1.0], [1.0, 2.0], [5, -1], stimulus="natural")
    made.add_activity("voltage", rng.normal(size=(20_000, 20)), start=0, rate=500, units="mV")
    store = neurostore.create(folder)
    with store.transaction("a rich session") as tx:
        tx.put(made.build())
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return _store(tmp_path_factory.mktemp("rich") / "lab")


@pytest.fixture
def session(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session and an empty cache of its own."""
    monkeypatch.setenv("NEUROSTORE_CACHE", str(tmp_path / "own"))
    return store.session("rich/a")


def test_every_table_is_the_stored_one(session: Session):
    for again in (session, session.store.session("rich/a")):
        for name in session.tables:
            stored, found = session.stored(name), again.table(name)
            assert (found.name, found.contract, found.attrs) == (
                name,
                stored.contract,
                stored.attrs,
            )
            assert list(found.columns) == list(stored.columns)
            for key, column in stored.columns.items():
                mapped = found.columns[key]
                assert (mapped.dims, mapped.attrs) == (column.dims, column.attrs)
                np.testing.assert_array_equal(
                    np.asarray(mapped.values[:]),
                    np.asarray(column.values[:]).astype(mapped.values.dtype),
                )
                text = isinstance(column.values.dtype, np.dtypes.StringDType)
                assert mapped.values.dtype == (object if text else column.values.dtype)


def test_packed_spikes_unpack_to_the_stored_ones(session: Session):
    packed, stored = session.packed, session.stored("spikes").columns
    assert packed is not None
    time, unit = packed.unpack(0, len(packed.events))
    np.testing.assert_array_equal(time, stored["time"].values[:])
    np.testing.assert_array_equal(unit, stored["unit"].values[:])
    np.testing.assert_array_equal(packed.block, stored["block"].values[:])


def test_spike_times_are_the_stored_ones(session: Session, monkeypatch: pytest.MonkeyPatch):
    for part in (session, session.slice(-1.5, 20.25)):
        for unit in ("ü0", "ü3", "silent"):
            with_cache = part.spike_times(unit)
            assert len(with_cache) or unit == "silent"
            with monkeypatch.context() as without:
                without.setenv("NEUROSTORE_CACHE", "off")
                np.testing.assert_array_equal(with_cache, part.spike_times(unit))


def test_a_slice_has_the_packed_spikes_of_the_whole(session: Session):
    assert session.slice(0, 5).packed is session.packed


def test_without_a_cache_tables_are_read_directly(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NEUROSTORE_CACHE", "off")
    assert session.packed is None
    values = session.table("activity/voltage").columns["value"].values
    assert type(values).__name__ == "StoredArray"


def test_a_store_in_memory_is_read_directly(session: Session, tmp_path: Path):
    store = neurostore.create("memory://cached-tables")
    made = neurostore.SessionBuilder(dataset="m", session="a")
    made.add_units({"u": [0.5, 1.0]})
    with store.transaction("one") as tx:
        tx.put(made.build())
    held = store.session("m/a")
    assert held.packed is None
    assert held.spike_times("u").tolist() == [0.5, 1.0]
    assert held.table("spikes").rows == 2
    assert not (tmp_path / "own" / "tables").exists()


def test_a_table_that_is_not_there_names_the_nearest(session: Session):
    with pytest.raises(NotFoundError, match="behaviour/wheel"):
        session.table("behaviour/whel")


def test_a_session_without_spikes_has_no_packed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NEUROSTORE_CACHE", str(tmp_path / "own"))
    made = neurostore.SessionBuilder(dataset="n", session="a")
    made.add_behaviour("x", np.arange(3.0), start=0, rate=1, units="")
    store = neurostore.create(tmp_path / "lab")
    with store.transaction("one") as tx:
        tx.put(made.build())
    assert store.session("n/a").packed is None


def _claiming(session: Session, **changes: object) -> Session:
    """The session with a row that says something else of its spikes."""
    attrs: dict[str, Any] = copy.deepcopy(dict(session.attrs))
    entry = attrs["row"]["tables"]["spikes"]
    entry["arrays"] |= {name: value for name, value in changes.items() if name != "digest"}
    parts = {name: entry[name] for name in ("contract", "rows", "arrays", "metadata")}
    entry["digest"] = changes.get("digest", layout.digest(parts))
    return Session(session.store, session.id, attrs)


def test_values_that_are_not_the_claimed_ones_are_never_cached(session: Session, tmp_path: Path):
    for name in ("time", "unit", "block"):
        liar = _claiming(session, **{name: "0" * 64})
        with pytest.raises(DamagedError, match=f"'{name}' of spikes of rich/a.*000"):
            _ = liar.packed
        with pytest.raises(DamagedError, match=name):
            liar.table("spikes")
        with pytest.raises(DamagedError, match=name):
            liar.spike_times("ü0")
    honest = _cached.key(session, "units", "table")  # by whose ids the spikes are asked for
    assert {one.stem for one in (tmp_path / "own" / "tables").iterdir()} == {honest, "room"}


def test_a_claimed_digest_must_be_the_one_of_what_is_claimed(session: Session):
    liar = _claiming(session, digest="f" * 64)
    with pytest.raises(DamagedError, match="fff"):
        _ = liar.packed


def test_over_the_bound_tables_are_read_directly_and_that_is_said_once(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NEUROSTORE_CACHE_BOUND", "20kB")
    with pytest.warns(CacheWarning, match="bound to 20,000"):
        assert session.packed is None
    assert len(session.spike_times("ü0")) == 4000
    assert session.table("activity/voltage").rows == 20_000


def test_damage_in_a_cached_table_is_found_and_mended(session: Session):
    values = session.table("activity/voltage").columns["value"].values
    with values.entry.path.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damage")
    with pytest.raises(DamagedError, match="Segment"):
        values[:]
    again = session.table("activity/voltage").columns["value"].values
    stored = session.stored("activity/voltage").columns["value"].values
    np.testing.assert_array_equal(again[:], stored[:])


def test_a_commit_that_leaves_a_table_alone_keeps_its_entry(session: Session, tmp_path: Path):
    before = session.packed.entry.path
    other = _store(tmp_path / "other").session("rich/a")  # written anew, with the same content
    assert other.packed.entry.path == before


# ---- the command


def _cache(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = main(["cache", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_command_builds_what_it_said_and_clears_it(
    session: Session, capsys: pytest.CaptureFixture[str]
):
    url = session.store.url
    code, planned = _cache(capsys, url, "--dry-run")
    assert code == 0
    assert planned["after"] == 0
    assert not any(one["cached"] for one in planned["entries"])
    code, built = _cache(capsys, url)
    assert code == 0
    assert all(one["cached"] for one in built["entries"])
    assert {one["table"] for one in built["entries"]} == set(session.tables)
    assert built["after"] == sum(one["size"] for one in built["entries"]) > 0
    code, cleared = _cache(capsys, url, "--tables", "spikes", "--clear")
    assert (code, cleared["removed"]) == (0, 2)
    code, cleared = _cache(capsys, url, "--clear")
    assert (code, cleared["after"]) == (0, 0)


def test_the_command_says_what_does_not_fit(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NEUROSTORE_CACHE_BOUND", "1MB")
    assert main(["cache", session.store.url, "--where", "n_units > 2"]) == 1
    said = capsys.readouterr()
    assert "not cached: activity/voltage" in said.out
    assert "bound to 1,000,000 bytes" in said.err
    assert main(["cache", session.store.url, "--tables", "spike"]) == 2
    assert "'spikes'" in capsys.readouterr().err
    monkeypatch.setenv("NEUROSTORE_CACHE", "off")
    assert main(["cache", session.store.url]) == 2
