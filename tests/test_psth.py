"""Histograms and rasters around events, and binned sessions, against slow counting in Fractions."""

from __future__ import annotations

import pickle
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neurostore
from neurostore import MissingExtraError, NotFoundError, Session, UsageError, kernels
from neurostore.store import _around
from neurostore.store._around import psth, raster

RATE = Fraction(30_000)
IDS = ["a", "b", "c", "silent"]
LAST = 40.0


def spikes(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made = {
        name: np.sort(rng.uniform(-5, LAST, n)) for name, n in zip(IDS, (900, 300, 9), strict=False)
    }
    made["a"] = np.sort(np.concatenate([made["a"], [10.0, 10.0, 10.02, 9.5, 11.0]]))  # on edges
    return {**made, "silent": np.zeros(0)}


def builder(name: str, seed: int = 0, observed: str = "session") -> neurostore.SessionBuilder:
    made = neurostore.SessionBuilder(dataset="d", session=name, rate=RATE)
    made.add_units(spikes(seed), region=["CA1", "CA3", "CA1", ""])
    on = np.array([10.0, 10.4, np.nan, 20.0, 33.333, -4.9, 39.9])
    made.add_intervals("trials", on - 0.1, on + 0.1, stim_on_time=on, choice=[1, 0, 1, 1, 0, 1, 1])
    if observed == "session":
        made.add_observed([-5, 15], [14.013, LAST])
    elif observed == "unit":
        made.add_observed([-5, 10.2, -5, -5], [10, LAST, LAST, 11], unit=[0, 0, 1, 2])
    return made


@pytest.fixture(params=["memory", "packed", "compiled"])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The three ways spikes are counted: as stored, and packed by numpy and by a kernel."""
    if request.param == "compiled":
        monkeypatch.setattr(_around, "_MANY", 0)
    elif request.param == "packed":
        monkeypatch.setattr(kernels, "ready", lambda: False)
    return str(request.param)


def session(road: str, folder: Path, **more: object) -> Session:
    url = f"memory://{folder.name}" if road == "memory" else folder / "lab"
    store = neurostore.create(url)
    with store.transaction("one") as tx:
        tx.put(builder("s", **more))
    made = store.session("d/s")
    assert (made.packed is None) == (road == "memory")
    return made


def ticks_of(session: Session, unit: str) -> list[int]:
    return [round(Fraction(t) * RATE) for t in spikes(0)[unit].tolist()]


def slow(session: Session, on: list[float], window: tuple[str, str], bin: str) -> dict:
    """Counts (unit, event, bin) and observed (unit, event, bin), one bin after another."""
    first, width = Fraction(window[0]) * RATE, Fraction(bin) * RATE
    bins = int((Fraction(window[1]) - Fraction(window[0])) / Fraction(bin))
    edges = [round(first) + (k * width) // 1 for k in range(bins + 1)]
    count = np.zeros((len(IDS), len(on), bins), dtype=object)
    seen = np.zeros(count.shape, dtype=bool)
    table = session.stored("intervals/observed").columns
    owner = np.asarray(table["unit"].values[:]).tolist() if "unit" in table else None
    spans = [np.asarray(table[name].values[:]).tolist() for name in ("start", "stop")]
    for u, unit in enumerate(IDS):
        ticks = ticks_of(session, unit)
        own = [
            span
            for row, span in enumerate(zip(*spans, strict=True))
            if owner is None or owner[row] == u
        ]
        for e, time in enumerate(on):
            at = round(Fraction(time) * RATE)
            for k in range(bins):
                low, high = at + edges[k], at + edges[k + 1]
                count[u, e, k] = sum(low <= tick < high for tick in ticks)
                seen[u, e, k] = any(low >= start and high <= stop for start, stop in own)
    return {"count": count, "seen": seen, "width": Fraction(bin)}


def mean_and_sem(counts: list[int], width: Fraction) -> tuple[float, float]:
    if not counts:
        return np.nan, np.nan
    n, mean = len(counts), Fraction(sum(counts), len(counts))
    if n < 2:
        return float(mean / width), np.nan
    variance = sum((one - mean) ** 2 for one in counts) / (n - 1)
    return float(mean / width), float(np.sqrt(float(variance / n / width**2)))


EVENTS = [10.0, 10.4, 20.0, 33.333, -4.9, 39.9]


@pytest.mark.parametrize("observed", ["session", "unit", "assumed"])
def test_rates_are_those_of_counting_by_hand(road: str, observed: str, tmp_path: Path):
    made = session(road, tmp_path, observed=observed)
    found = psth(made, "trials.stim_on_time", window=(-0.5, 0.71), bin="1/30")
    known = slow(made, EVENTS, ("-0.5", "0.71"), "1/30")
    assert found.sizes == {"unit": 4, "bin": 36}
    for u in range(4):
        for k in range(36):
            seen = known["seen"][u, :, k]
            counts = [int(c) for c in known["count"][u, seen, k]]
            rate, sem = mean_and_sem(counts, known["width"])
            assert found.n.values[u, k] == len(counts)
            np.testing.assert_allclose(found.rate_hz.values[u, k], rate, rtol=1e-14)
            np.testing.assert_allclose(found.sem.values[u, k], sem, rtol=1e-12, atol=1e-12)
    assert found.attrs == {"bin": 1 / 30, "events": 6, "missing": 1}
    assert found.region.values.tolist() == ["CA1", "CA3", "CA1", ""]


def test_one_unit_of_many_is_the_unit_alone(road: str, tmp_path: Path):
    made = session(road, tmp_path)
    many = psth(made, np.array(EVENTS), window=(-0.5, 1), bin=0.02)
    for name in IDS[:3]:
        alone = made.psth(name, EVENTS, window=(-0.5, 1), bin=0.02)
        one = many.sel(unit=name)
        np.testing.assert_allclose(one.rate_hz, alone.rate_hz, rtol=1e-12)
        np.testing.assert_allclose(one.sem, alone.sem, rtol=1e-10, atol=1e-12)
        np.testing.assert_array_equal(one.n, alone.observed.sum("trial"))
        np.testing.assert_allclose(one.time, alone.time, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    times=st.lists(st.floats(-10, 50), min_size=1, max_size=6),
    window=st.tuples(st.integers(-300, 100), st.integers(1, 200)),
    bin=st.sampled_from(["0.001", "0.05", "1/7"]),
)
def test_the_kernel_and_numpy_give_the_same_sums(
    times: list, window: tuple, bin: str, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("sums")
    made = session("packed", folder, observed="unit")
    ticks = np.sort(made.clock.ticks(times))
    start = window[0] / 100
    edge = _around._edges(made.clock, (start, start + 1 + window[1] / 100), bin)
    rows = np.array([2, 0])
    sums = []
    for limit in (0, 1 << 60):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_around, "_MANY", limit)
            patch.setattr(kernels, "ready", lambda: False)
            for one in (made, made.slice(9.99, 20.5)):
                sums.append(_around._sums(one, ticks, edge, rows))
    for one, other in ((sums[0], sums[2]), (sums[1], sums[3])):
        for name in ("n", "total", "square"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_bins_of_thousands_of_spikes_and_events_beyond_a_batch_add_up(tmp_path: Path):
    rng = np.random.default_rng(5)
    units = {name: np.sort(rng.uniform(0, 30, n)) for name, n in (("x", 400_000), ("y", 3_000))}
    made = neurostore.SessionBuilder(dataset="d", session="s", rate=RATE)
    made.add_units(units)
    made.add_observed([0, 12, 0], [10, 30, 30], unit=[0, 0, 1])  # a gap that one unit has
    store = neurostore.create(tmp_path / "lab")
    with store.transaction("one") as tx:
        tx.put(made)
    kernels.load()
    on, edge = np.arange(1100) * 0.025 + 1.0, [0, 6_000, 12_000]
    found = psth(store.session("d/s"), on, (0.0, 0.4), 0.2)
    for row, (name, times) in enumerate(units.items()):
        ticks, at = np.rint(times * 30_000), np.rint(on * 30_000)
        gap = (300_000, 360_000) if name == "x" else (0, 0)
        for k in range(2):
            low, high = at + edge[k], at + edge[k + 1]
            seen = (high <= gap[0]) | (low >= gap[1])
            count = np.diff(np.searchsorted(ticks, [low, high]), axis=0)[0][seen]
            assert found["n"].values[row, k] == seen.sum()
            assert found["rate_hz"].values[row, k] == pytest.approx(count.mean() / 0.2, rel=1e-12)
            sem = count.std(ddof=1) / np.sqrt(len(count)) / 0.2
            assert found["sem"].values[row, k] == pytest.approx(sem, rel=1e-9)
    assert np.diff(np.searchsorted(np.rint(units["x"] * 30_000), [0, 6_000]))[0] > 2048


def test_a_slice_counts_its_own_spikes_alone(road: str, tmp_path: Path):
    made = session(road, tmp_path).slice(9.8, 10.3)
    found = psth(made, [10.0], window=(-0.5, 0.5), bin=0.1)
    assert found.n.values[0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 0, 0]
    counts = made.counts(9.8, 10.3, 0.1).values
    np.testing.assert_allclose(found.rate_hz.values[:, 3:8], counts / 0.1)


def test_rows_and_units_are_chosen_by_expressions(road: str, tmp_path: Path):
    made = session(road, tmp_path)
    found = psth(made, "trials.stim_on_time", units="region = 'CA1'", where="choice = 1")
    assert found.unit.values.tolist() == ["a", "c"]
    assert (found.attrs["events"], found.attrs["missing"]) == (4, 1)
    named = psth(made, [10.0, 20.0, -4.9, 39.9], units=["c", "a"])
    np.testing.assert_array_equal(named.rate_hz.values[::-1], found.rate_hz.values)


def test_sessions_stand_below_one_another(tmp_path: Path):
    store = neurostore.create(tmp_path / "lab")
    with store.transaction("two") as tx:
        tx.put(builder("s"))
        tx.put(builder("t", seed=1, observed="unit"))
    both = [store.session("d/s"), store.session("d/t")]
    found = psth(both, "trials.start")
    assert found.session.values.tolist() == ["d/s"] * 4 + ["d/t"] * 4
    for k, one in enumerate(both):
        alone = psth(one, "trials.start")
        np.testing.assert_array_equal(found.rate_hz[4 * k : 4 * k + 4], alone.rate_hz)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda s: psth([], "trials.start"), "at least one session"),
        (lambda s: psth("d/s", "trials.start"), "A session is .*found str"),
        (lambda s: psth([s, s], [1.0]), "of one session, found 2"),
        (lambda s: psth([s, s], "trials.start", units=["a"]), "of one session, found 2"),
        (lambda s: psth(s, [1.0], where="choice = 1"), "events are times here"),
        (lambda s: psth(s, [1.0], units=["a", "a"]), "named twice"),
        (lambda s: psth(s, [1.0], window=(0, 0.01)), "no whole bin"),
        (lambda s: psth(s, [1.0], window=(1, 0)), "no whole bin"),
        (lambda s: psth(s, [14.5], window=(-0.2, 0.2)), "no observed bin: 1 event"),
        (lambda s: psth(s, [np.nan]), "no observed bin: 0 events .1 more"),
        (lambda s: psth(s, ["x"]), "must be numbers"),
        (lambda s: raster(s, [1.0], window=(1, 1)), "start before its stop"),
        (lambda s: s.binned(0.02, start=2, stop=1), "start <= stop"),
        (lambda s: s.binned(0.02, chunk=0), "at least one bin"),
    ],
)
def test_what_cannot_be_done_is_refused(ask: object, said: str, tmp_path: Path):
    with pytest.raises(UsageError, match=said):
        ask(session("packed", tmp_path))


@pytest.mark.parametrize("name", ["trials", "trial.start", "trials.choice", "trials.stim_on"])
def test_events_that_are_not_there_are_named(name: str, tmp_path: Path):
    with pytest.raises(NotFoundError):
        psth(session("packed", tmp_path), name)


# ---- rasters


@pytest.mark.parametrize("observed", ["session", "unit"])
def test_a_raster_holds_every_spike_around_every_event(road: str, observed: str, tmp_path: Path):
    made = session(road, tmp_path, observed=observed)
    found = raster(made, "trials.stim_on_time", window=(-0.5, 1))
    expected, size = [], []
    for u, unit in enumerate(IDS):
        for e, on in enumerate(EVENTS):
            at = round(Fraction(on) * RATE)
            rel = [tick - at for tick in ticks_of(made, unit)]
            own = sorted(tick for tick in rel if -RATE / 2 <= tick < RATE)
            expected += [(u, e, float(tick / RATE)) for tick in own]
            size.append(len(own))
    names = ("unit_index", "event_index", "time")
    assert list(zip(*(found[name].values.tolist() for name in names), strict=True)) == expected
    assert found.row_size.values.ravel().tolist() == size
    assert found.event.values.tolist() == pytest.approx(EVENTS)
    seen = slow(made, EVENTS, ("-0.5", "1"), "1.5")["seen"][:, :, 0]
    np.testing.assert_array_equal(found.observed.values, seen)


def test_a_raster_of_no_event_and_of_some_units(tmp_path: Path):
    made = session("packed", tmp_path)
    none = raster(made, [])
    assert none.sizes == {"spike": 0, "unit": 4, "event": 0}
    some = raster(made, [10.0], units=["c", "a"])
    every = raster(made, [10.0])
    assert some.row_size.values[:, 0].tolist() == every.row_size.values[[2, 0], 0].tolist()


# ---- a whole session


@pytest.mark.parametrize("observed", ["session", "unit"])
@pytest.mark.parametrize("chunk", [None, 1, 7, 10_000])
def test_a_binned_session_is_its_counts(road: str, observed: str, chunk: int, tmp_path: Path):
    made = session(road, tmp_path, observed=observed)
    lazy = made.binned("1/30" if chunk is None else 0.5, chunk=chunk, units=["c", "a"])
    bin = "1/30" if chunk is None else 0.5
    known = made.counts(made.start, made.stop, bin, units=["c", "a"])
    assert lazy.chunks is not None
    assert lazy.dtype == known.dtype
    assert lazy.compute().identical(known)
    for bins in (slice(3, 40, 3), slice(30, 2, -4), slice(5, 5), 17, -1):
        for which in (1, slice(None, None, -1), slice(1, 1)):
            part = lazy.isel(unit=which, bin=bins)
            assert part.compute().identical(known.isel(unit=which, bin=bins))


def test_nothing_is_counted_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made, asked = session("packed", tmp_path), []
    count = Session._bin
    monkeypatch.setattr(
        Session, "_bin", lambda s, edges: asked.append(len(edges)) or count(s, edges)
    )
    lazy = made.binned(0.1, chunk=10)
    assert not asked
    lazy.isel(bin=slice(20, 30)).compute()
    assert asked == [11]


def test_a_binned_session_is_the_same_from_threads_and_after_a_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("neurostore.store._chunks.BOUND", 1)
    made = session("memory", tmp_path)
    lazy = made.binned(0.01, chunk=5)
    known = made.counts(made.start, made.stop, 0.01)
    assert lazy.compute(scheduler="threads", num_workers=8).identical(known)
    on_disk = session("packed", tmp_path / "other")
    again = pickle.loads(pickle.dumps(on_disk.binned(0.01)))
    assert again.compute().identical(known)


def test_without_dask_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = session("packed", tmp_path)
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with pytest.raises(MissingExtraError, match=r"neurostore\[dask\]"):
        made.binned(0.1)
