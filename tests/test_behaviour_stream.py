"""Behaviour at the ticks of windows: plain loops over fractions, numpy and the compiled loop."""

from fractions import Fraction
from math import floor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from _sampled import INVALID, OBSERVED, OUTSIDE, Recording, Sample, store_of
from hypothesis import given, settings
from hypothesis import strategies as st

import neurostore
from neurostore import Behaviour, Dataset, Window, kernels
from neurostore.clocks import MISSING, Clock
from neurostore.sample.streams._behaviour import _Bound
from neurostore.sample.streams._series import Series


@pytest.fixture(params=["plain", "compiled"])
def path(request, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(kernels, "ready", lambda: request.param == "compiled")
    return request.param


def session(value, *, clock: Clock, time=None, start=0, rate="1", valid=None):
    """What a series is loaded from."""
    columns = {"value": value, "time": time, "valid": valid}
    said = {k: SimpleNamespace(values=v) for k, v in columns.items() if v is not None}
    attrs = {} if time is not None else {"start": start, "rate": rate}
    table = SimpleNamespace(columns=said, attrs=attrs)
    return SimpleNamespace(clock=clock, table=lambda name: table)


def reference(
    samples: list[Sample], tick: int, present: int | None, gap: int, causal: bool, width: int
) -> tuple[list[Fraction], int]:
    """Value and reason of one sample, by looking at all that may be known."""
    lost = [Fraction(0)] * width
    if causal:
        known = [one for one in samples if one[0] <= tick]
    else:
        known = [one for one in samples if present is None or one[0] < present]
    good = [one for one in known if one[2]]
    low = next((one for one in reversed(good) if one[0] <= tick), None)
    high = next((one for one in good if one[0] >= tick), None)
    if low and low[0] == tick:
        high = low
    around = [next((one for one in reversed(known) if one[0] <= tick), None)]
    if around[0] and around[0][0] != tick:
        around.append(next((one for one in known if one[0] > tick), None))
    may_hold = causal or present is not None
    reason = OUTSIDE
    if around[0] and (may_hold or None not in around):
        reason = INVALID if any(one and not one[2] for one in around) else OUTSIDE
    if low and high and high[0] - low[0] <= gap:
        part = Fraction(tick - low[0], max(1, high[0] - low[0]))
        pairs = zip(low[1], high[1], strict=True)
        return [Fraction(a) + part * (Fraction(b) - Fraction(a)) for a, b in pairs], OBSERVED
    if low and not high and may_hold and tick - low[0] <= gap:
        return [Fraction(one) for one in low[1]], OBSERVED
    return lost, reason


@st.composite
def series(draw: st.DrawFn) -> tuple[Series, list[Sample]]:
    """A series on a grid or at times of its own, some of it lost, and the same as plain samples."""
    count, channels = draw(st.integers(1, 14)), draw(st.sampled_from([(), (1,), (2,)]))
    number = st.floats(-1e6, 1e6, width=32)
    width = channels[0] if channels else 1
    value = np.array(draw(st.lists(number, min_size=count * width, max_size=count * width)))
    value = value.astype(draw(st.sampled_from(["f4", "f8", ">f4", "f8"])))
    valid = draw(st.none() | st.lists(st.booleans(), min_size=count, max_size=count))
    value = value.reshape(count, *channels)
    if draw(st.booleans()):
        value[draw(st.integers(0, count - 1))] = np.nan
    clock, start = Clock(draw(st.sampled_from(["100", "24414.0625", "7"]))), draw(ticks)
    if draw(st.booleans()):
        rate = draw(st.sampled_from(["7", "3", "2.5"]))
        one = session(value, clock=clock, start=start, rate=rate, valid=valid)
        step = clock.rate / Fraction(rate)
        time = [start + floor(k * step) for k in range(count)]
    else:
        steps = draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))
        time = (start + np.cumsum(steps)).tolist()
        stored = np.array(time)
        if draw(st.booleans()):  # a time that is not known, where the value is not valid either
            place = draw(st.integers(0, count))
            stored = np.insert(stored, place, MISSING)
            value = np.insert(value, place, 1.0, axis=0)
            valid = None if valid is None else [*valid[:place], False, *valid[place:]]
        one = session(value, clock=clock, time=stored, valid=valid)
        if len(stored) > len(time):
            value = np.delete(value, place, axis=0)
            valid = None if valid is None else [*valid[:place], *valid[place + 1 :]]
    gap = draw(st.none() | st.sampled_from(["0", "0.01", "0.5", "2"]))
    rows = value.reshape(count, -1).astype(float)
    good = np.isfinite(rows).all(axis=1) & (True if valid is None else np.array(valid))
    listed = [(t, row.tolist(), bool(ok)) for t, row, ok in zip(time, rows, good, strict=True)]
    return Series.load(one, "x", gap), listed


ticks = st.integers(-40, 40) | st.sampled_from([-(2**61), 2**61])


@settings(max_examples=200, deadline=None)
@given(series(), st.data())
def test_numpy_and_the_compiled_loop_equal_the_reference_everywhere(made, data) -> None:
    one, samples = made
    offset = np.cumsum([0, *data.draw(st.lists(st.integers(1, 9), max_size=8))])
    near = st.sampled_from([s[0] for s in samples])
    start = np.array(data.draw(st.lists(ticks | near, min_size=1, max_size=4)))
    past, causal = data.draw(st.integers(0, len(offset))), data.draw(st.booleans())
    present = int(offset[past]) if past < len(offset) else int(offset[-1]) + 3
    bound = _Bound(one, offset, past, present, causal)
    reach = st.lists(st.integers(0, 12), min_size=len(start), max_size=len(start)).map(np.array)
    stop = max(present, int(offset[-1]) + 1)  # no sample of a window lies behind what it may know
    low, high = start - data.draw(reach), start + stop + data.draw(reach)
    known = (low, high) if data.draw(st.booleans()) else None
    value, why = bound.plain(start, known)
    width = value.shape[2]
    place = np.array(data.draw(st.permutations(range(len(start) + 2))))[: len(start)]
    out = np.full((len(start) + 2, *value.shape[1:]), 7.0, np.float32)
    reason = np.full(out.shape[:2], 9, np.uint8)
    bound.fill(start, place, out, reason, known)
    np.testing.assert_array_equal(out[place].view(np.uint32), value.view(np.uint32))
    np.testing.assert_array_equal(reason[place], why)
    rest = np.setdiff1d(np.arange(len(out)), place)
    assert (out[rest] == 7).all()
    assert (reason[rest] == 9).all()
    for window, first in enumerate(start.tolist()):
        for nth, add in enumerate(offset.tolist()):
            until = first + present if nth < past else None
            there = [s for s in samples if known is None or low[window] <= s[0] < high[window]]
            exact, said = reference(there, first + add, until, one.max_gap, causal, width)
            assert why[window, nth] == said
            expected = np.array([float(number) for number in exact])
            np.testing.assert_allclose(value[window, nth], expected, rtol=1e-6, atol=1e-3)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 40), st.sampled_from(["7", "3", "2.5", "29.97", "1/3"]))
def test_the_usual_distance_of_a_grid_is_the_median_of_its_distances(count: int, rate: str) -> None:
    clock = Clock("24414.0625")
    one = session(np.zeros(count, np.float32), clock=clock, start=5, rate=rate)
    found = Series.load(one, "x", None)
    time = clock.edges(5, count, 1 / Fraction(rate))[:-1]
    median = float(np.median(np.diff(time))) if count > 1 else 0.0
    assert found.max_gap == floor(1.5 * median)
    assert not len(found.time)


def test_a_grid_too_long_for_products_of_ticks_has_its_times_written_out() -> None:
    clock = Clock(Fraction(2**61 - 1, 2**30))
    one = session(np.arange(5.0), clock=clock, start=0, rate="1e-3")
    found = Series.load(one, "x", None)
    np.testing.assert_array_equal(found.time, clock.edges(0, 5, 1000)[:-1])


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_a_series_of_floats_stays_where_it_lies(kind: str, tmp_path: Path) -> None:
    stored = np.memmap(tmp_path / "x", dtype=kind, mode="w+", shape=(1_000, 2))
    stored[:] = np.arange(2_000).reshape(1_000, 2)
    stored[100:120] = np.nan
    stored.flush()
    mapped = np.memmap(tmp_path / "x", dtype=kind, mode="r", shape=(1_000, 2))
    one = session(mapped, clock=Clock("1000"), start=0, rate="100")
    found = Series.load(one, "x", None)
    assert np.shares_memory(found.value, mapped)
    assert (found.lost_start.tolist(), found.lost_stop.tolist()) == ([100], [120])
    bound = _Bound(found, np.arange(3) * 10, 0, 0, False)
    out, why = np.ones((1, 3, 2), np.float32), np.ones((1, 3), np.uint8)
    bound.fill(np.array([980]), np.array([0]), out, why)
    assert out[0].tolist() == [[196, 197], [198, 199], [0, 0]]
    assert why[0].tolist() == [OBSERVED, OBSERVED, INVALID]


def test_integers_are_interpolated_as_the_numbers_they_are(path: str) -> None:
    time = np.arange(50) / 10
    builder = neurostore.SessionBuilder(dataset="d", session="s", rate=1000)
    builder.add_behaviour("x", np.arange(50, dtype=np.int16) * 10, time=time, units="cm")
    store = neurostore.create(f"memory://integers-{path}")
    with store.transaction("x") as tx:
        tx.put(builder.build())
    streams = {"x": Behaviour("x", rate=20)}
    dataset = Dataset(store, window=Window(1.0), streams=streams)
    assert dataset.window("d/s", 1)["x"][0, :5].tolist() == [100, 105, 110, 115, 120]


def recording(times: list[int], values: list[float], valid: list[bool] | None = None) -> Recording:
    one = Recording("d/s", "1000", units={"u": [0, 1_999]}, observed=[(0, 2_000)])
    valid = valid or [True] * len(times)
    one.position = [(t, [v], ok) for t, v, ok in zip(times, values, valid, strict=True)]
    return one


def test_a_causal_sample_is_the_last_valid_one_and_not_older_than_max_gap(path: str) -> None:
    one = recording([100, 200, 300, 700], [1, 2, 3, 4], [True, True, False, True])
    streams = {"x": Behaviour("position", rate=20, max_gap=0.2, causal=True)}
    batch = Dataset(store_of(one), window=Window(1.0), streams=streams).window("d/s", 0)
    values = [0, 0, 1, 1, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 0]
    assert batch["x"][0, :, 0].tolist() == values
    lost = [OUTSIDE] * 2 + [OBSERVED] * 7 + [INVALID] * 5 + [OBSERVED] * 5 + [OUTSIDE]
    assert batch.reason["x"][0].tolist() == lost


@pytest.mark.parametrize("horizon", [0.0, 0.5])
def test_what_comes_after_a_causal_sample_changes_neither_value_nor_reason(
    path: str, horizon: float
) -> None:
    rng = np.random.default_rng(3)
    times = np.unique(rng.integers(0, 2_000, 150))
    cut = 900
    made = []
    for seed in (0, 1):
        later = np.random.default_rng(seed)
        drawn = [later.random() if t > cut else float(t) for t in times]
        valid = [bool(later.random() < 0.5) if t > cut else t % 7 > 0 for t in times]
        streams = {"x": Behaviour("position", rate=100, max_gap=0.05, causal=True)}
        store = store_of(recording(times.tolist(), drawn, valid))
        window = Window(1.0 - horizon, horizon)
        made.append(Dataset(store, window=window, streams=streams).window("d/s", 0.5))
    known = 41  # samples at 500, 510, ..., 900 ms
    for part in ("tensors", "reason"):
        one, other = (getattr(batch, part)["x"][0] for batch in made)
        assert (one[:known] == other[:known]).all()
        assert not (one[known:] == other[known:]).all()


def test_a_session_that_lacks_the_series_is_masked_in_a_batch_of_its_own_too(path: str) -> None:
    one = recording([0, 1_000], [1, 2])
    other = Recording("d/t", "30000", units={"u": [0, 59_999]}, observed=[(0, 60_000)])
    streams = {"x": Behaviour("position", rate=10)}
    dataset = Dataset(store_of(one, other), window=Window(1.0), streams=streams)
    for batch in (dataset.window("d/t", 0), dataset.sample(2)):
        row = batch.session.index("d/t")
        assert batch["x"].shape[1:] == (10, 1)
        assert (batch["x"][row] == 0).all()
        assert (batch.reason["x"][row] == 1).all()
