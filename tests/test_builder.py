"""The builder takes what people have, keeps what can be kept, and says the rest in one line."""

import itertools
import json
import pickle
from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import dask.array
import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import neurostore
from neurostore import NeurostoreError, Ragged, RefusedError, SessionBuilder, Source, UsageError
from neurostore.clocks import MISSING, Clock
from neurostore.schemas import Table
from neurostore.store import Span, StagedSession, check, tables

NAN, INF = float("nan"), float("inf")


def builder(**more: object) -> SessionBuilder:
    return SessionBuilder(dataset="d", session="s", **more)


def built(fill: Callable[[SessionBuilder], object], **more: object) -> StagedSession:
    made = builder(**more)
    fill(made)
    return made.build()


def read(table: Table, column: str) -> list:
    return np.asarray(table.columns[column].values[:]).tolist()


def ids(staged: StagedSession) -> list[str]:
    return [one.check for one in staged.findings]


# ---- which clock


def on_30_khz(made: SessionBuilder) -> None:
    """A time in every stream there is, all on the grid."""
    made.add_units({"a": np.array([0, 1, 31]) / 30_000})
    made.add_behaviour("wheel", np.zeros(2), time=np.array([7, 9]) / 30_000, units="rad")
    made.add_behaviour("run", np.zeros(2), start=1 / 30_000, rate=60, units="cm/s")
    made.add_activity("lfp", np.zeros((2, 1)), time=np.array([1, 2]) / 30_000, units="V")
    made.add_intervals("trials", [0, 1], [1, NAN], go_time=[1 / 30_000, None])
    made.add_presentations("movie", [0.5], [1.0], [3], stimulus="m")
    made.add_observed([0], [10])


OFF = 0.00012345
STREAMS: dict[str, Callable[[SessionBuilder], None]] = {
    "samples": lambda made: made.add_behaviour("x", [0.0], time=[OFF], units=""),
    "start of samples": lambda made: made.add_behaviour("x", [0.0], start=OFF, rate=1, units=""),
    "activity": lambda made: made.add_activity("x", [[0.0]], time=[OFF], units=""),
    "start of an interval": lambda made: made.add_intervals("x", [OFF], [1]),
    "stop of an interval": lambda made: made.add_intervals("x", [0], [OFF]),
    "event": lambda made: made.add_intervals("x", [0], [1], go_time=[OFF]),
    "observed": lambda made: made.add_observed([20], [20 + OFF]),
    "presentation": lambda made: made.add_presentations("x", [0], [OFF], [1], stimulus="m"),
}


def test_30_khz_is_chosen_where_every_stream_is_on_it() -> None:
    assert built(on_30_khz).clock.rate == 30_000


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_one_time_of_any_stream_off_the_grid_is_enough_for_1_us(
    stream: Callable[[SessionBuilder], None],
) -> None:
    made = builder()
    if stream is not STREAMS["observed"]:
        on_30_khz(made)
    else:
        made.add_units({"a": [0.0]})
    stream(made)
    assert made.build().clock.rate == 1_000_000


def test_a_time_out_of_range_or_missing_does_not_choose_the_clock() -> None:
    staged = built(
        lambda made: (
            made.add_units({"a": [0.0, 1.0]}),
            made.add_intervals("trials", [0, 1], [1, 2], go_time=[-1.5e9 + OFF, NAN]),
        )
    )
    assert staged.clock.rate == 30_000


def test_a_rate_that_is_known_is_kept_and_the_worst_error_recorded() -> None:
    staged = built(lambda made: made.add_units({"a": [0.0, 0.00124]}), rate="24414.0625")
    assert staged.clock.rate == Fraction(390_625, 16)
    error = staged.attrs["clock"]["error"]
    assert 0 < error <= 0.5 / 24414.0625
    assert staged.attrs["clock"]["rate"] == "390625/16"


@pytest.mark.parametrize("rate", [0, -30_000, 1e15, "x", NAN, INF, "1e400"])
def test_a_rate_that_makes_no_clock_is_refused_at_once(rate: object) -> None:
    with pytest.raises(UsageError):
        builder(rate=rate)


# ---- Unix time


def test_a_source_on_unix_time_gets_its_first_second_as_origin() -> None:
    unix = 1_700_000_000.0
    made = builder(origin="2000-01-01T00:00:00+00:00")
    made.add_units({"a": unix + np.array([5.25, 6.5, 9.0])})
    made.add_behaviour("regular", np.zeros(3), start=unix + 5, rate=10, units="m")
    made.add_behaviour("stamped", np.zeros(2), time=unix + np.array([7.0, 8.0]), units="m")
    made.add_intervals("trials", [unix + 5.5], [unix + 8.5], go_time=[unix + 6])
    staged = made.build()
    assert staged.clock.origin == "2023-11-14T22:13:25+00:00"
    assert ids(staged) == ["clock/unix_time"]
    assert ids(made.build()) == ["clock/unix_time"]  # building again says it once, too
    seconds = staged.clock.seconds
    made_tables = staged.tables
    assert seconds(np.array(read(made_tables["spikes"], "time"))).tolist() == [0.25, 1.5, 4.0]
    assert made_tables["behaviour/regular"].attrs["start"] == 0
    assert seconds(np.array(read(made_tables["behaviour/stamped"], "time"))).tolist() == [2, 3]
    assert seconds(np.array(read(made_tables["intervals/trials"], "go_time"))).tolist() == [1.0]
    observed = made_tables["intervals/observed"]
    last = read(made_tables["spikes"], "time")[-1]
    assert (read(observed, "start"), read(observed, "stop")) == (
        [read(made_tables["spikes"], "time")[0]],
        [last + 1],
    )
    check(staged)


def test_assumed_observed_time_holds_every_spike_on_a_fine_clock_that_counts_from_1970() -> None:
    staged = built(
        lambda made: made.add_units({"a": 1.7e9 + np.arange(100) * 0.1}), rate=100_000_000
    )
    time, observed = read(staged.tables["spikes"], "time"), staged.tables["intervals/observed"]
    assert read(observed, "start") == [time[0]]
    assert read(observed, "stop") == [time[-1] + 1]


SECONDS = np.linspace(0.5, 1000, 2000)


@pytest.mark.parametrize("late", ["spikes", "behaviour/wheel", "intervals/trials"])
def test_milliseconds_in_one_table_beside_seconds_are_found(late: str) -> None:
    scale = dict.fromkeys(("spikes", "behaviour/wheel", "intervals/trials"), 1.0) | {late: 1e3}
    made = SessionBuilder(dataset="d", session="s")
    made.add_units({"a": SECONDS * scale["spikes"], "b": SECONDS[:900] * scale["spikes"]})
    made.add_behaviour("wheel", SECONDS, time=SECONDS * scale["behaviour/wheel"], units="cm")
    start = SECONDS[::50] * scale["intervals/trials"]
    made.add_intervals("trials", start, start + 1)
    (found,) = [one for one in made.build().findings if one.check.startswith("clock/")]
    assert (found.check, found.severity, found.table) == ("clock/time_scale", "violation", late)
    assert f"{late} ends at " in found.message
    assert "milliseconds or samples?" in found.message


def test_a_table_that_shares_no_time_with_the_spikes_is_found_put_or_updated(caplog) -> None:
    made = SessionBuilder(dataset="d", session="s")
    made.add_units({"a": SECONDS})
    made.add_behaviour("pupil", SECONDS[:9], time=SECONDS[:9] + 1100, units="mm")
    made.add_behaviour("wheel", SECONDS[:9], time=SECONDS[:9] - 9, units="mm")
    store = neurostore.create("memory://apart")
    with store.transaction("one") as tx:
        (found,) = tx.put(made)
    assert (found.check, found.table) == ("clock/apart", "behaviour/pupil")
    assert "from 1,100.5 to 1,104.5 s, the spikes from 0.5 to 1,000.0 s" in found.message
    with store.transaction("two") as tx:
        values, span = np.arange(9.0), store.session("d/s").span
        tx.update("d/s", tables.behaviour("late", values, span, time=values + 5000, units="mm"))
    kept = store.session("d/s").findings
    assert [one.table for one in kept] == ["behaviour/pupil", "behaviour/late"]
    assert "Kept with d/s: violation: d/s: behaviour/late is from 5,000.0" in caplog.text


def test_milliseconds_in_one_unit_beside_seconds_are_found() -> None:
    made = SessionBuilder(dataset="d", session="s")
    made.add_units({"a": SECONDS, "b": SECONDS, "silent": [], "late": SECONDS * 1000})
    (found,) = [one for one in made.build().findings if one.check.startswith("clock/")]
    assert (found.check, found.row, found.count) == ("clock/unit_scale", 3, 1)
    assert "'late' end at 1,000,000.0 s, of the median unit at 1,000.0 s" in found.message


def test_one_scale_of_time_is_no_finding_whatever_is_short() -> None:
    made = SessionBuilder(dataset="d", session="s")
    made.add_units({"a": SECONDS, "b": SECONDS[:1], "c": SECONDS[-1:]})
    made.add_intervals("baseline", [0.0], [5.0])
    made.add_behaviour("wheel", SECONDS[:90], start=0.0, rate=5, units="cm")
    assert [one for one in made.build().findings if one.check.startswith("clock/")] == []


def test_a_session_clock_that_runs_for_a_month_is_not_unix_time() -> None:
    staged = built(lambda made: made.add_units({"a": [2.5e6, 2.6e6]}), origin="2020-01-01")
    assert staged.attrs["clock"] == {
        "rate": "30000",
        "origin": "2020-01-01",
        "shift": 0.0,
        "error": 0.0,
    }


# ---- observed time


def test_observed_time_is_first_to_last_spike_where_none_is_given() -> None:
    staged = built(lambda made: made.add_units({"a": [1.0], "b": [], "c": [3.0, 2.0]}), rate=1000)
    observed = staged.tables["intervals/observed"]
    assert (read(observed, "start"), read(observed, "stop")) == ([1000], [3001])
    assert observed.attrs == {"assumed": True}


def test_no_spike_leaves_nothing_to_assume() -> None:
    assert "intervals/observed" not in built(lambda made: made.add_units({"a": []})).tables


def test_observed_pieces_that_overlap_are_merged_with_a_finding_and_others_are_not() -> None:
    staged = built(
        lambda made: (
            made.add_units({"a": [1.0]}),
            made.add_observed([5, 0, 1], [6, 2, 4]),
            made.add_observed(6, 7),
        ),
        rate=1000,
    )
    observed = staged.tables["intervals/observed"]
    assert read(observed, "start") == [0, 5000, 6000]
    assert read(observed, "stop") == [4000, 6000, 7000]
    assert observed.attrs == {"assumed": False}
    assert ids(staged) == ["intervals/v1/start/merged"]
    check(staged)


def test_observed_time_by_unit_overlaps_only_within_a_unit() -> None:
    staged = built(
        lambda made: (
            made.add_units({"a": [1.0], "b": [2.0]}),
            made.add_observed([0, 1, 0], [3, 2, 3], unit=[1, 1, 0]),
        ),
        rate=1000,
    )
    observed = staged.tables["intervals/observed"]
    assert read(observed, "unit") == [0, 1]
    assert read(observed, "stop") == [3000, 3000]
    check(staged)


def test_observed_time_out_of_range_is_left_out_with_a_finding() -> None:
    staged = built(
        lambda made: (made.add_units({"a": [1.0]}), made.add_observed([0, -1.5e9], [2, 1])),
        rate=1000,
    )
    assert read(staged.tables["intervals/observed"], "start") == [0]
    assert ids(staged) == ["intervals/v1/start/range"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0, 1], [1]), "'stop' has 1 rows, the table has 2"),
        (([NAN], [1]), "finite"),
        (([2], [1]), "at or before its stop"),
        ((["a"], [1]), "must be numbers, in seconds"),
        (([[0]], [[1]]), "one dimension"),
        (([0], [1], [0, 1]), "'unit' has 2 rows"),
        (([0], [1], [-1]), "from 0 on"),
        (([0], [1], [0.5]), "from 0 on"),
        (([0], [1], ["a"]), "from 0 on"),
        (([0], [1], [2**40]), "from 0 on"),
    ],
)
def test_observed_time_that_makes_no_sense_is_one_clear_error(arguments: tuple, words: str) -> None:
    start, stop, *unit = arguments
    with pytest.raises(UsageError, match=words):
        builder().add_observed(start, stop, unit=unit[0] if unit else None)


def test_observed_time_is_of_the_session_or_of_units_never_both() -> None:
    made = builder()
    made.add_units({"a": [1.0]})
    made.add_observed([0], [1])
    made.add_observed([0], [1], unit=[0])
    with pytest.raises(UsageError, match="not both"):
        made.build()


def test_observed_time_of_a_unit_that_is_not_there_is_refused() -> None:
    staged = built(
        lambda made: (made.add_units({"a": [1.0]}), made.add_observed([0], [2], unit=[1]))
    )
    with pytest.raises(RefusedError, match="a row of 'units', 0 to 0"):
        check(staged)


# ---- intervals


def test_an_interval_without_an_end_is_kept_as_not_valid() -> None:
    staged = built(
        lambda made: made.add_intervals("trials", [0, NAN, 2, 3], [1, 1, None, INF]), rate=1000
    )
    table = staged.tables["intervals/trials"]
    assert read(table, "valid") == [True, False, False, False]
    assert read(table, "start") == [0, MISSING, 2000, 3000]
    assert read(table, "stop") == [1000, 1000, MISSING, MISSING]
    (found,) = staged.findings
    assert (found.check, found.row, found.count) == ("intervals/v1/valid/missing", 1, 3)
    check(staged)


def test_events_have_ticks_and_a_mask_of_their_own() -> None:
    staged = built(
        lambda made: made.add_intervals(
            "trials",
            [0, 1, 2, 3],
            [1, 2, 3, 4],
            go_time=[0.5, NAN, -1.5e9, 3.5],
            lick_times=pd.Series([0.1, 1.1, None, 3.1]),
            reward_time=[1, 2, 3, 4],
            note_time=["noon", None, "one", "two"],
        ),
        rate=1000,
    )
    table = staged.tables["intervals/trials"]
    assert read(table, "go_time") == [500, MISSING, -1_500_000_000_000, 3500]
    assert read(table, "go_time_valid") == [True, False, False, True]
    assert table.columns["go_time"].attrs == {"units": "tick"}
    assert read(table, "lick_times_valid") == [True, True, False, True]
    assert read(table, "valid") == [True] * 4
    assert read(table, "reward_time") == [1, 2, 3, 4]  # whole numbers are no seconds
    assert read(table, "note_time") == ["noon", "", "one", "two"]
    assert "reward_time_valid" not in table.columns
    (found,) = staged.findings
    assert (found.check, found.row, found.count) == ("intervals/v1/go_time/range", 2, 1)
    check(staged)


def test_stop_before_start_is_a_violation_that_is_kept() -> None:
    findings = check(built(lambda made: made.add_intervals("trials", [0, 5], [1, 4])))
    (found,) = findings
    assert (found.check, found.severity, found.row) == (
        "intervals/v1/stop/ordered",
        "violation",
        1,
    )


# ---- samples


def test_backward_time_stamps_are_sorted_stably_with_a_finding() -> None:
    staged = built(
        lambda made: made.add_behaviour(
            "wheel", np.arange(6), time=[0, 2, 1, 2, 1, 3], units="rad", valid=[1, 0, 1, 1, 0, 1]
        ),
        rate=10,
    )
    table = staged.tables["behaviour/wheel"]
    assert read(table, "time") == [0, 10, 10, 20, 20, 30]
    assert read(table, "value") == [0, 2, 4, 1, 3, 5]
    assert read(table, "valid") == [True, True, False, False, True, True]
    (found,) = staged.findings
    assert (found.check, found.row, found.count) == ("behaviour/v1/time/sorted", 2, 2)


def test_samples_whose_time_is_missing_or_out_of_range_lose_their_own_valid_only() -> None:
    staged = built(
        lambda made: (
            made.add_units({"a": [1.0]}),
            made.add_behaviour("w", np.arange(5), time=[0, NAN, 2, 1.7e9, 4], units="m"),
        ),
        rate=10,
    )
    table = staged.tables["behaviour/w"]
    kept = dict(zip(read(table, "value"), read(table, "valid"), strict=True))
    assert kept == {0: True, 1: False, 2: True, 3: False, 4: True}
    assert {one.check: (one.row, one.count) for one in staged.findings} == {
        "behaviour/v1/time/range": (3, 1),
        "behaviour/v1/time/missing": (1, 1),
    }
    check(staged)


def test_a_regular_series_keeps_its_start_and_exact_rate_and_no_time() -> None:
    staged = built(
        lambda made: made.add_behaviour("eye", [1.0, 2.0], start=-0.5, rate=59.94, units="px"),
        rate=1000,
    )
    table = staged.tables["behaviour/eye"]
    assert table.attrs == {"units": "px", "start": -500, "rate": "2997/50"}
    assert set(table.columns) == {"value"}


def test_a_regular_series_that_starts_out_of_range_has_no_valid_sample() -> None:
    staged = built(
        lambda made: (
            made.add_units({"a": [1.0]}),
            made.add_behaviour("w", [0.0, 0.0], start=-1.5e9, rate=10, units="m"),
        )
    )
    assert read(staged.tables["behaviour/w"], "valid") == [False, False]
    assert ids(staged) == ["behaviour/v1/time/range"]


def test_samples_come_in_a_dtype_that_is_stored() -> None:
    given = {
        "bool": (np.array([True, False]), "uint8"),
        "list": ([1, 2], "int64"),
        "big endian": (np.array([1, 2], ">i2"), "int16"),
        "long": (np.array([1, 2], np.longdouble), "float64"),
        "half": (np.array([1, 2], "f2"), "float16"),
        "series": (pd.Series([1.5, 2.5], index=[7.0, 8.0]), "float64"),
        "nullable": (pd.array([1.5, 2.5]), "float64"),
        "xarray": (xr.DataArray(np.array([1.0, 2.0], ">f4")), "float32"),
        "masked": (np.ma.masked_invalid([1.5, NAN]), "float64"),
        "lazy bool": (dask.array.from_array(np.array([True, False])), "uint8"),
        "lazy big endian": (dask.array.from_array(np.array([1, 2], ">i4")), "int32"),
    }
    made = builder()
    for name, (value, _) in given.items():
        made.add_behaviour(name, value, start=0, rate=1, units="")
    staged = made.build()
    check(staged)
    for name, (value, dtype) in given.items():
        column = staged.tables[f"behaviour/{name}"].columns["value"]
        assert str(column.values.dtype) == dtype, name
        found = np.asarray(column.values[0:2])
        assert str(found.dtype) == dtype, name
        expected = np.ma.filled(np.ma.asarray(value, dtype=float), NAN)
        np.testing.assert_array_equal(found.astype(float), expected)


class Tracked:
    """An array-like that counts how often it is read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.reads = values, 0
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, key: object) -> np.ndarray:
        self.reads += 1
        return self.values[key]


def test_lazy_samples_are_not_read_until_they_are_written() -> None:
    lazy = {kind: Tracked(np.arange(12).reshape(6, 2).astype(kind)) for kind in ("f4", ">i2", "?")}
    made = builder()
    for kind, value in lazy.items():
        made.add_behaviour(f"regular {kind}", value, start=0, rate=10, units="m")
        made.add_activity(f"timed {kind}", value, time=[0, 1, 2, 5, 4, 3], units="m")
    staged = made.build()
    check(staged)
    assert [value.reads for value in lazy.values()] == [0, 0, 0]
    for kind, value in lazy.items():
        for name, order in (
            (f"behaviour/regular {kind}", [0, 1, 2, 3, 4, 5]),
            (f"activity/timed {kind}", [0, 1, 2, 5, 4, 3]),
        ):
            column = staged.tables[name].columns["value"].values
            expected = value.values[order].astype(column.dtype)
            pieces = [np.asarray(column[k : k + 2]) for k in range(0, 6, 2)]
            np.testing.assert_array_equal(np.concatenate(pieces), expected)
            np.testing.assert_array_equal(column[2:2], expected[2:2])


def test_an_hdf5_dataset_and_a_dask_array_go_through_the_store(tmp_path: Path) -> None:
    values = np.arange(2_000, dtype=">f4").reshape(1_000, 2)
    store = neurostore.create(f"memory://{tmp_path}")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = builder()
        made.add_behaviour("h5", file.create_dataset("x", data=values), start=0, rate=9, units="m")
        chunked = dask.array.from_array(values, chunks=(300, 1))
        made.add_activity("dask", chunked, start=0, rate=9, units="m", valid=np.ones(1_000))
        with store.transaction("lazy") as tx:
            tx.put(made)
    session = store.session("d/s")
    np.testing.assert_array_equal(session.behaviour["h5"]["value"].values, values)
    np.testing.assert_array_equal(session.activity["dask"]["value"].values, values)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"value": 5.0}, "found the shape"),
        ({"value": np.zeros((2, 2, 2))}, "found the shape"),
        ({"value": [[1], [1, 2]]}, "'value' is no array"),
        ({"value": np.ma.masked_equal([1, 2], 2)}, "no NaN"),
        ({"time": [0, 1, 2]}, "'time' has 3 rows, the table has 2"),
        ({"time": ["a", "b"]}, "must be numbers, in seconds"),
        ({"time": np.zeros((2, 1))}, "one dimension"),
        ({"time": np.array(["2020", "2021"], "M8[s]")}, "must be numbers, in seconds"),
        ({}, "either `time`, or `start` and `rate`"),
        ({"start": 0}, "either `time`, or `start` and `rate`"),
        ({"start": 0, "time": [0, 1]}, "either `time`, or `start` and `rate`"),
        ({"start": 0, "rate": 0}, "rate above 0"),
        ({"start": 0, "rate": -5}, "rate above 0"),
        ({"start": 0, "rate": NAN}, "no finite number"),
        ({"start": NAN, "rate": 1}, "no finite number"),
        ({"start": 1e300, "rate": 1}, "further from 0 than a clock counts"),
        ({"start": 0, "rate": "1e400"}, "no finite number"),
        ({"start": 0, "rate": 1, "valid": [True]}, "'valid' has 1 rows"),
        ({"start": 0, "rate": 1, "valid": [NAN, 1]}, "True or False"),
        ({"start": 0, "rate": 1, "valid": ["False", "True"]}, "True or False"),
        ({"start": 0, "rate": 1, "valid": [[1], [1]]}, "True or False"),
        ({"start": 0, "rate": 1, "channels": ["x"]}, "1 names for 0 channels"),
        ({"value": np.zeros((2, 2)), "start": 0, "rate": 1, "channels": ["x"]}, "1 names for 2"),
        ({"start": 0, "rate": 1, "units": 5}, "units must be text"),
        ({"start": 0, "rate": 1, "description": ["a"]}, "description must be text"),
        ({"name": "", "start": 0, "rate": 1}, "has no name"),
        ({"name": "\ud800", "start": 0, "rate": 1}, "no valid text"),
    ],
)
def test_samples_that_make_no_sense_fail_where_they_are_given(more: dict, words: str) -> None:
    given = {"name": "wheel", "value": [1.0, 2.0], "units": "m", **more}
    made = builder()
    for add in (made.add_behaviour, made.add_activity):
        with pytest.raises(UsageError, match=words) as caught:
            add(**given)
        assert "\n" not in str(caught.value)
    with pytest.raises(RefusedError, match="nothing to keep"):
        made.build()  # nothing of them stayed


@pytest.mark.parametrize("value", [["a", "b"], np.ones(2, complex), np.zeros(2, "M8[s]")], ids=str)
def test_samples_that_are_no_numbers_are_refused_with_what_was_found(value: object) -> None:
    staged = built(lambda made: made.add_behaviour("w", value, start=0, rate=1, units=""))
    with pytest.raises(RefusedError, match=r"dtype of 'value' .* expected number"):
        check(staged)


# ---- units and columns


def test_text_columns_keep_text_and_leave_out_what_is_missing() -> None:
    words = ["CA1", None, NAN, np.float32("nan"), pd.NA, pd.NaT, b"DG", "ü", 5, "\ud800"]
    staged = built(
        lambda made: made.add_units({f"u{k}": [] for k in range(len(words))}, region=words)
    )
    expected = ["CA1", "", "", "", "", "", "DG", "ü", "5", "?"]
    assert read(staged.tables["units"], "region") == expected
    check(staged)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.5, None], [1.5, NAN]),
        (pd.array([1, None], dtype="Int64"), [1.0, NAN]),
        (pd.Series(["a", None], dtype="category"), ["a", ""]),
        (["a", NAN], ["a", ""]),
        ([True, False], [True, False]),
        (np.array([True, False], object), [True, False]),
        ([None, None], ["", ""]),
        (np.array([1, 2], ">u2"), [1, 2]),
        (np.array([b"a", b"b"]), ["a", "b"]),
        (np.array(["2020-01-01", "NaT"], "M8[s]"), ["2020-01-01T00:00:00", ""]),
        (np.ma.masked_equal([1.0, 2.0], 2.0), [1.0, NAN]),
        (xr.DataArray([1, 2]), [1, 2]),
        ((Fraction(1, 2), 3), ["1/2", "3"]),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]]),
    ],
    ids=str,
)
def test_a_column_of_the_source_is_kept_as_numbers_bools_or_text(
    values: object, expected: list
) -> None:
    staged = built(lambda made: made.add_units({"a": [], "b": [1.0]}, own=values))
    np.testing.assert_array_equal(read(staged.tables["units"], "own"), expected)
    check(staged)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"own": [1]}, "'own' has 1 rows, the table has 2"),
        ({"own": 3}, "one value a row"),
        ({"own": "text"}, "one value a row"),
        ({"own": [[1], [1, 2]]}, "'own' is no array"),
        ({"own": [{}, {}]}, "holds a dict"),
        ({"own": [["a"], ["b", "c"]]}, "'own' is no array"),
        ({"own": [["a"], ["b"]]}, "text of 2 dimensions"),
        ({"own": [1j, 2j]}, "holds complex128"),
        ({"own": np.zeros(2, "m8[s]")}, r"holds timedelta64\[s\]"),
        ({"own": np.zeros(2, "i4,f4")}, "not numbers, bools or text"),
        ({"x": ["left", "right"]}, "'x' holds text, expected float64"),
        ({"waveform": ["a", "b"]}, "'waveform' holds text, expected float32"),
        ({"unit": ["a", "b"]}, "'unit' is the store's own"),
        ({"n_spikes": [0, 1]}, "'n_spikes' is the store's own"),
        ({"": [0, 1]}, "'' is the store's own"),
        ({"\ud800": [0, 1]}, "no valid text"),
    ],
    ids=str,
)
def test_a_column_of_units_that_makes_no_sense_fails_where_it_is_given(
    columns: dict, words: str
) -> None:
    made = builder()
    with pytest.raises(UsageError, match=words) as caught:
        made.add_units({"a": [], "b": [1.0]}, **columns)
    assert "\n" not in str(caught.value)
    made.add_units({"a": [], "b": [1.0]})  # it was not added
    assert made.build().tables["units"].rows == 2


@pytest.mark.parametrize("name", ["start", "stop", "valid", "unit", "interval", "go_time_valid"])
def test_names_that_intervals_have_for_themselves_are_refused(name: str) -> None:
    columns = {"go_time": [0.5], name: ["a"]}
    with pytest.raises(UsageError, match=f"'{name}' is the store's own; rename"):
        tables.intervals("trials", [0], [1], Span(Clock()), columns)


@pytest.mark.parametrize("name", ["observed", ""])
def test_names_that_tables_have_for_themselves_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        builder().add_intervals(name, [0], [1])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"waveform": np.zeros((1, 4, 3, 2))}, "dims of 'waveform'"),
        ({"waveform": np.zeros(1)}, "dims of 'waveform'"),
        ({"x": np.zeros((1, 4))}, "dims of 'x'"),
        ({"region": np.zeros((1, 4))}, "dims of 'region'"),
    ],
)
def test_declared_columns_of_other_dimensions_are_refused_by_the_layout(
    columns: dict, words: str
) -> None:
    with pytest.raises(RefusedError, match=words):
        check(built(lambda made: made.add_units({"a": [1.0]}, **columns)))


def test_declared_columns_come_in_the_dtype_of_the_contract_where_no_value_changes() -> None:
    staged = built(
        lambda made: made.add_units(
            {"a": [1.0]}, x=[3], probe=[7], waveform=np.array([[1, 2]], "i2"), depth=[None]
        )
    )
    columns = staged.tables["units"].columns
    assert read(staged.tables["units"], "x") == [3.0]
    assert read(staged.tables["units"], "probe") == ["7"]
    assert np.isnan(read(staged.tables["units"], "depth")).all()
    assert str(columns["waveform"].values.dtype) == "float32"
    assert columns["x"].attrs == {"units": "um"}
    check(staged)


@pytest.mark.parametrize("row", [[0.5], [NAN], ["a"], [2.0**70]], ids=str)
def test_rows_of_a_stimulus_are_whole_numbers(row: list) -> None:
    with pytest.raises(UsageError, match="'row'"):
        builder().add_presentations("movie", [0], [1], row, stimulus="m")


@pytest.mark.parametrize(
    "times",
    [[[1.0]], {"a": ["x"]}, {"a": [[1.0, 2.0]]}, {"a": np.zeros(1, "M8[s]")}, {"a": [True]}, 5],
    ids=str,
)
def test_spike_times_that_are_none_fail_where_they_are_given(times: object) -> None:
    with pytest.raises(NeurostoreError) as caught:
        builder().add_units(times)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("times", "stops", "words"),
    [
        ([1.0, 2.0], [1], "one whole stop a unit"),
        ([1.0, 2.0], [1.0, 2.0], "one whole stop a unit"),
        ([1.0, 2.0], ["x", "y"], "one whole stop a unit"),
        ([1.0, 2.0], [[1], [2]], "one whole stop a unit"),
        ([1.0, 2.0], [2, 1], "never fall"),
        ([1.0, 2.0], [-1, 2], "never fall"),
        ([1.0, 2.0], [1, 3], "stops at 3, but there are 2"),
        ([[1.0, 2.0]], [1, 2], "one dimension"),
    ],
)
def test_ragged_spike_times_that_do_not_add_up_are_refused(
    times: list, stops: list, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        Ragged(["a", "b"], times, stops)


def test_ragged_lists_are_as_good_as_arrays_and_as_a_mapping() -> None:
    one = built(lambda made: made.add_units(Ragged(["a", "b"], [2.0, 1.0], [1, 2])))
    other = built(lambda made: made.add_units({"a": [2.0], "b": [1.0]}))
    for name in ("time", "unit", "block"):
        assert read(one.tables["spikes"], name) == read(other.tables["spikes"], name)
    assert Ragged([], [], []).starts.tolist() == []


@given(st.lists(st.lists(st.integers(-500, 500), max_size=20), max_size=6))
def test_every_spike_goes_in_once_with_its_unit_and_the_blocks_point_at_it(
    lists: list[list[int]],
) -> None:
    clock = Clock(100)
    times = {f"u{k}": np.array(own, dtype=float) / 100 for k, own in enumerate(lists)}
    table = tables.spikes(Ragged.of(times), Span(clock))
    time, unit, block = (read(table, name) for name in ("time", "unit", "block"))
    expected = sorted((tick, k) for k, own in enumerate(lists) for tick in own)
    assert list(zip(time, unit, strict=True)) == expected
    where = table.attrs["block"]
    for k, (first, stop) in enumerate(itertools.pairwise(block)):
        low = where["start"] + k * where["length"]
        assert all(low <= tick < low + where["length"] for tick in time[first:stop])
    assert (block[0], block[-1]) == (0, len(time))


# ---- the session


@pytest.mark.parametrize(
    "fill",
    [
        lambda made: None,
        lambda made: made.add_units({}),
        lambda made: made.add_intervals("trials", [], []),
        lambda made: made.add_behaviour("w", [], time=[], units="m"),
        lambda made: made.add_observed([0], [1]),
    ],
)
def test_a_session_without_a_unit_or_a_row_is_refused(
    fill: Callable[[SessionBuilder], None],
) -> None:
    with pytest.raises(RefusedError, match="no unit and no row") as caught:
        built(fill)
    assert "\n" not in str(caught.value)


def test_silent_units_are_units() -> None:
    assert built(lambda made: made.add_units({"a": []})).tables["units"].rows == 1


def test_a_table_is_added_once() -> None:
    made = builder()
    made.add_units({"a": []})
    with pytest.raises(UsageError, match="'units' was added already"):
        made.add_units({"b": []})


def test_unit_ids_twice_are_refused_when_the_session_is_checked() -> None:
    with pytest.raises(RefusedError, match="'unit' is not unique in 1 row, first at row 1"):
        check(built(lambda made: made.add_units({1: [1.0], "1": [2.0]})))


def test_findings_of_a_reader_are_kept_and_a_critical_one_refuses() -> None:
    made = builder()
    made.add_units({"a": [1.0]})
    kept = neurostore.Finding("x/odd", "violation", "t", "v", "odd", np.int64(3), count=np.int32(2))
    made.findings.append(kept)
    assert made.build().findings == (kept,)
    json.dumps(kept.to_json())
    made.findings.append(neurostore.Finding("x/broken", "critical", "t", "v", "broken"))
    with pytest.raises(RefusedError, match="broken") as caught:
        made.build()
    assert [one.check for one in caught.value.findings] == ["x/broken", "x/odd"]


def test_a_staged_session_pickles_with_its_values() -> None:
    made = builder(attrs={"n": 1})
    on_30_khz(made)
    lazy = dask.array.from_array(np.arange(4, dtype=">i2"))
    made.add_behaviour("lazy", lazy, time=[0, 2, 1, 3], units="m")
    staged = made.build()
    again = pickle.loads(pickle.dumps(staged))
    assert (again.id, again.clock, again.attrs) == (staged.id, staged.clock, staged.attrs)
    assert again.findings == staged.findings
    for name, table in staged.tables.items():
        assert again.tables[name].attrs == table.attrs
        for column in table.columns:
            assert read(again.tables[name], column) == read(table, column)
    assert repr(again) == repr(staged)


def test_nan_and_infinity_never_reach_an_attribute(tmp_path: Path) -> None:
    attrs = {
        "nan": NAN,
        "inf": np.float32("inf"),
        "array": np.array([1.0, NAN, -INF]),
        "nested": {"a": [NAN, {"b": np.int16(4)}], 5: (True, np.bool_(False))},
        "date": datetime(2020, 1, 2, 3, 4),
        "dates": np.array(["2020-01-02", "NaT"], "M8[D]"),
        "bytes": b"ab",
        "half a character": "\ud800",
        "none": None,
        "subject": 5,
    }
    source = Source(tmp_path / "a.nwb", "ab", "r", "1", {"nan": NAN, "n": np.int64(1)})
    made = builder(attrs=attrs, source=source, age=NAN, origin=datetime(2020, 1, 1))
    on_30_khz(made)
    made.notes.append(Path("left out"))
    staged = made.build()
    every = [staged.attrs, *(table.attrs for table in staged.tables.values())]
    every += [c.attrs for table in staged.tables.values() for c in table.columns.values()]
    for one in every:
        assert json.loads(json.dumps(one, allow_nan=False)) == one
    said = staged.attrs["metadata"]
    assert said["nested"] == {"a": [None, {"b": 4}], "5": [True, False]}
    assert (said["nan"], said["inf"], said["array"]) == (None, None, [1.0, None, None])
    assert (said["subject"], said["date"]) == ("5", "2020-01-02T03:04:00")
    assert "age" not in said
    assert staged.clock.origin == "2020-01-01T00:00:00"
    store = neurostore.create(f"memory://{tmp_path}")
    with store.transaction("attributes") as tx:
        tx.put(staged)
    assert store.session("d/s").metadata == said
    assert store.sessions()["subject"].tolist() == ["5"]


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, 1j, 2**63, lambda: 0],
    ids=["object", "set", "complex", "int64", "function"],
)
def test_an_attribute_without_json_is_refused_and_named(value: object) -> None:
    with pytest.raises(UsageError, match="d/s: the attribute 'odd'"):
        builder(attrs={"odd": {"deep": [value]}})


@pytest.mark.parametrize(
    ("dataset", "session"),
    [("", "s"), ("d", ""), ("a/b", "s"), (5, "s"), ("d", None), ("d", "\ud800"), ("d", ["s"])],
)
def test_a_session_needs_names_that_are_text(dataset: object, session: object) -> None:
    with pytest.raises(UsageError):
        SessionBuilder(dataset=dataset, session=session)
