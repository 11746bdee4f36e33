from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import _nwb_files as made
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from pynwb import NWBFile
from pynwb.ecephys import ElectricalSeries
from pynwb.image import ImageSeries

import neurostore
from neurostore.errors import MissingExtraError, NeurostoreError, NotFoundError, RefusedError
from neurostore.ingest import nwb
from neurostore.ingest._nwb_file import Samples
from neurostore.ingest.nwb import NWB
from neurostore.store import SessionBuilder, StagedSession

DATA = Path(
    os.environ.get("NEUROSTORE_TEST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")
)
HUMAN = "nwb_human_mtl_dandi000207/sub-4_ses-4_ecephys+image.nwb"
MAZE = "nwb_mc_maze_small_test_dandi000140/sub-Jenkins_ses-small_desc-test_ecephys.nwb"
MOUSE = "nwb_mouse_A8604_phy/A8604-211122.nwb"
SUGGESTED = {"nwb/lab_missing", "nwb/subject_missing"}
NOTHING = "no units, and no electrode, interval or series with a row"


def read(path: Path) -> SessionBuilder:
    reader = NWB(path, "d")
    return reader.read(reader.sessions()[0])


def staged(path: Path) -> StagedSession:
    return read(path).build()


def real(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not there (NEUROSTORE_TEST_DATA)")
    return DATA / name


def column(session: StagedSession, table: str, name: str) -> Any:
    """A column; ticks as seconds."""
    found = session.tables[table].columns[name]
    values = np.asarray(found.values[:])
    return session.clock.seconds(values) if found.attrs.get("units") == "tick" else values


def trains(session: StagedSession) -> dict[str, NDArray[np.float64]]:
    time, unit = column(session, "spikes", "time"), column(session, "spikes", "unit")
    ids = column(session, "units", "unit")
    return {str(id): time[unit == row] for row, id in enumerate(ids)}


def checks(session: SessionBuilder | StagedSession) -> set[str]:
    return {one.check for one in session.findings}


def near(session: StagedSession, found: Any, expected: Any) -> bool:
    """Equal within half a tick and one float spacing."""
    expected = np.asarray(expected, dtype=np.float64)
    allowed = 0.5 / float(session.clock.rate) + np.spacing(np.abs(expected))
    return found.shape == expected.shape and bool((np.abs(found - expected) <= allowed).all())


@pytest.fixture
def rich(tmp_path: Path) -> Path:
    return made.write(tmp_path / "rich.nwb", made.rich)


def only(*series: Any) -> Callable[[], NWBFile]:
    """A maker of a file with these series in acquisition."""

    def make() -> NWBFile:
        file = made.empty()
        for one in series:
            file.add_acquisition(one)
        return file

    return make


# ---- real recordings


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "units", "spikes", "tables"),
    [
        (
            HUMAN,
            35,
            214_278,
            {
                "electrodes": 19,
                "intervals/encoding_table": 90,
                "intervals/recognition_table": 180,
                "intervals/timediscrimination_table": 180,
                "intervals/observed": 1,
                "behaviour/events": 1_717,
                "behaviour/experiment_ids": 1_717,
            },
        ),
        (
            MAZE,
            107,
            32_897,
            {"electrodes": 192, "intervals/trials": 100, "intervals/observed": 100},
        ),
        (MOUSE, 3, 21_354, {"electrodes": 383, "intervals/epochs": 1, "intervals/observed": 1}),
    ],
    ids=["human", "maze", "mouse"],
)
def test_a_recording_has_its_units_spikes_and_rows(
    name: str, units: int, spikes: int, tables: dict[str, int]
) -> None:
    session = staged(real(name))
    rows = {key: table.rows for key, table in session.tables.items()}
    assert rows == {"units": units, "spikes": spikes, **tables}


@pytest.mark.realdata
@pytest.mark.parametrize("name", [HUMAN, MAZE, MOUSE], ids=["human", "maze", "mouse"])
def test_spike_times_are_those_of_the_file(name: str) -> None:
    session = staged(real(name))
    with h5py.File(real(name)) as file:
        times, stops = file["units/spike_times"][:], file["units/spike_times_index"][:]
        ids = [str(one) for one in file["units/id"][:]]
    expected = dict(zip(ids, np.split(times, stops[:-1].astype(int)), strict=True))
    found = trains(session)
    assert list(found) == ids
    assert all(near(session, found[id], expected[id]) for id in ids)


@pytest.mark.realdata
def test_observed_time_shared_by_all_units_is_kept_once() -> None:
    session = staged(real(MAZE))
    with h5py.File(real(MAZE)) as file:
        pieces = file["units/obs_intervals"][:100]
    assert near(session, column(session, "intervals/observed", "start"), pieces[:, 0])
    assert near(session, column(session, "intervals/observed", "stop"), pieces[:, 1])
    assert "unit" not in session.tables["intervals/observed"].columns
    assert set(column(session, "units", "region")) == {"PMd"}  # as its electrodes column says


@pytest.mark.realdata
def test_an_event_out_of_range_loses_only_its_own_valid() -> None:
    session = staged(real(HUMAN))
    assert np.count_nonzero(~column(session, "behaviour/events", "valid")) == 1
    assert "behaviour/v1/time/range" in checks(session)
    assert session.clock.origin == "1900-01-01T00:00:00-08:00"


@pytest.mark.realdata
def test_what_is_left_out_of_a_recording_is_noted() -> None:
    notes = read(real(HUMAN)).notes
    assert [note.partition(":")[0] for note in notes] == [
        "stimulus/presentation/StimulusPresentation_encoding",
        "intervals/recognition_table/response_time",
        "intervals/timediscrimination_table/response_time",
    ]


@pytest.mark.realdata
def test_a_minimal_recording_is_kept_with_what_it_lacks() -> None:
    lacks = ("subject_id", "species", "sex", "age", "lab", "description")
    found = checks(read(real(MOUSE)))
    assert found == {f"nwb/{name}_missing" for name in lacks} | {"nwb/pynwb_warning"}


# ---- bad files: every one by name

IMAGES = "ImageSeries has no table in a session"
WARNED = SUGGESTED | {"nwb/pynwb_warning"}
KEPT: dict[str, tuple[dict[str, int], set[str]]] = {
    "1.3.3_timeseries_no_unit": ({"behaviour/test_timeseries": 1}, SUGGESTED),
    "1.3.3_ts_no_unit": ({"behaviour/ADDME": 1}, SUGGESTED),
    "1.5.1_timeintervals_non_ndtype_tsref": (
        {"behaviour/test_timeseries": 5, "intervals/test_intervals": 1},
        SUGGESTED,
    ),
    "1.5.1_timeseries_no_unit": ({"behaviour/test_timeseries": 1}, SUGGESTED),
    "2.1.0_nwbfile_with_extension": ({"behaviour/test_ts": 3}, SUGGESTED),
    "2.3.2_old_electrodes_table_basic": ({"electrodes": 2}, SUGGESTED),
    "2.3.2_old_electrodes_table_full": ({"electrodes": 2}, SUGGESTED),
    "2.6.0_DynamicTableElectrodes": (
        {"electrodes": 12},
        {"nwb/subject_missing", "nwb/pynwb_warning"},
    ),
    "older_variants/1.5.1_timeseries_no_unit__dbf1744": (
        {"behaviour/test_timeseries": 1},
        SUGGESTED,
    ),
}
REFUSED: dict[str, str] = {
    "1.0.2_nwbfile": NOTHING,
    "1.0.2_str_experimenter": NOTHING,
    "1.0.2_str_pub": NOTHING,
    "1.0.3_nwbfile": NOTHING,
    "1.0.3_str_experimenter": NOTHING,
    "1.0.3_str_pub": NOTHING,
    "1.1.0_nwbfile": NOTHING,
    "1.1.0_str_experimenter": NOTHING,
    "1.1.0_str_pub": NOTHING,
    "1.1.2_nwbfile": NOTHING,
    "1.1.2_str_experimenter": NOTHING,
    "1.1.2_str_pub": NOTHING,
    "1.2.1_extension": NOTHING,
    "1.2.1_nwbfile": NOTHING,
    "1.3.3_imageseries_no_data": IMAGES,
    "1.3.3_imageseries_no_unit": IMAGES,
    "1.3.3_timeseries_no_data": "test_timeseries: no samples",
    "1.3.3_ts_no_data": "ADDME: no samples",
    "1.5.1_imageseries_no_data": IMAGES,
    "1.5.1_imageseries_no_unit": IMAGES,
    "1.5.1_timeseries_no_data": "test_timeseries: no samples",
    "2.1.0_imageseries_no_data": IMAGES,
    "2.1.0_imageseries_non_external_format": IMAGES,
    "2.1.0_imageseries_nonmatch_starting_frame": IMAGES,
    "2.2.0_subject_no_age__reference": NOTHING,
    "older_variants/1.5.1_imageseries_no_data__298ce5b": IMAGES,
    "older_variants/1.5.1_imageseries_no_data__b7ca1dc": IMAGES,
    "older_variants/1.5.1_imageseries_no_unit__b2784c2": IMAGES,
    "older_variants/1.5.1_imageseries_no_unit__c238e5f": IMAGES,
    "older_variants/1.5.1_timeseries_no_data__f5a8bbe": "test_timeseries: no samples",
    "older_variants/2.1.0_imageseries_no_data__dfe83ee": IMAGES,
    "older_variants/2.1.0_imageseries_non_external_format__7723e0c": IMAGES,
    "older_variants/2.1.0_imageseries_nonmatch_starting_frame__8821f40": IMAGES,
}
OTHERS: dict[str, str] = {
    "nwb_bad_legacy_v1/496908818s.nwb": "NWB 1.0.5, expected NWB 2. Export it again as NWB 2",
    "nwb_bad_lfs_pointers/sub-Jenkins_ses-medium_desc-test_ecephys.nwb": (
        "a git-LFS pointer, not the file of 695,928 bytes it stands for. Run `git lfs pull`."
    ),
    "nwb_bad_lfs_pointers/sub-Jenkins_ses-small_desc-train_behavior+ecephys.nwb": (
        "a git-LFS pointer, not the file of 29,207,528 bytes it stands for. Run `git lfs pull`."
    ),
}
OLD = {f"nwb_bad_pynwb_backcompat/{name}.nwb": words for name, words in REFUSED.items()}


@pytest.mark.realdata
def test_every_bad_file_has_its_outcome_listed_here() -> None:
    there = {path.relative_to(DATA).as_posix() for path in DATA.glob("nwb_bad_*/**/*.nwb")}
    if not there:
        pytest.skip(f"no nwb_bad_* folders in {DATA} (NEUROSTORE_TEST_DATA)")
    listed = {*OLD, *OTHERS, *(f"nwb_bad_pynwb_backcompat/{name}.nwb" for name in KEPT)}
    assert there == listed
    assert len(listed) == 45


@pytest.mark.realdata
@pytest.mark.parametrize("name", KEPT)
def test_an_old_file_with_any_row_is_kept_with_findings(name: str) -> None:
    tables, found = KEPT[name]
    session = staged(real(f"nwb_bad_pynwb_backcompat/{name}.nwb"))
    assert {key: table.rows for key, table in session.tables.items()} == tables
    assert checks(session) == found


@pytest.mark.realdata
@pytest.mark.parametrize("name", [*OLD, *OTHERS])
def test_a_file_without_a_row_is_refused_in_one_line(name: str) -> None:
    path = real(name)
    with pytest.raises(RefusedError) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path.absolute()}: ")
    assert "\n" not in str(refused.value)
    assert (OLD | OTHERS)[name] in str(refused.value)
    assert name in OTHERS or NOTHING in str(refused.value)


# ---- units


def test_spikes_come_in_one_piece_with_ids_as_text(rich: Path) -> None:
    session = staged(rich)
    found = trains(session)
    assert list(found) == ["10", "11", "12"]
    assert all(near(session, found[str(id)], times) for id, times in made.SPIKES.items())


def test_every_column_of_the_units_is_kept(rich: Path) -> None:
    session = staged(rich)
    assert column(session, "units", "quality").tolist() == ["good"] * 3
    assert column(session, "units", "snr").tolist() == [0.5, 1.5, 2.5]
    assert column(session, "units", "number").dtype == np.int64
    assert column(session, "units", "electrode_group").tolist() == ["shank"] * 3
    assert (
        column(session, "units", "waveform").tolist()
        == np.repeat([0, 1, 2], 10).reshape(3, 5, 2).astype(float).tolist()
    )


def test_a_ragged_column_is_an_array_where_even_and_text_where_not(rich: Path) -> None:
    session = staged(rich)
    assert column(session, "units", "pair").tolist() == [[0, 1], [1, 2], [2, 3]]
    assert column(session, "units", "peaks").tolist() == ["[]", "[1.0]", "[1.0, 1.0]"]


def test_the_region_of_a_unit_is_where_its_electrodes_lie(rich: Path) -> None:
    assert column(staged(rich), "units", "region").tolist() == ["CA1/CA3", "CA3", "DG"]
    assert column(staged(rich), "electrodes", "region").tolist() == ["CA1", "CA3", "DG"]


def test_the_region_of_a_unit_is_its_own_where_it_says_one(tmp_path: Path) -> None:
    def make() -> NWBFile:
        file = made.rich()
        file.add_unit_column("location", "where", data=["A", "B", "C"])
        return file

    session = staged(made.write(tmp_path / "a.nwb", make))
    assert column(session, "units", "region").tolist() == ["A", "B", "C"]


def test_observed_time_that_differs_by_unit_keeps_the_unit(rich: Path) -> None:
    session = staged(rich)
    unit = column(session, "intervals/observed", "unit")
    start, stop = (column(session, "intervals/observed", name) for name in ("start", "stop"))
    rows = sorted(zip(unit.tolist(), start.tolist(), stop.tolist(), strict=True))
    assert rows == [(0, 0.0, 2.0), (0, 2.0, 3.0), (1, 0.0, 4.0), (2, 0.0, 4.0)]


def test_observed_time_is_assumed_where_the_file_has_none(tmp_path: Path) -> None:
    session = staged(made.write(tmp_path / "a.nwb", two_units))
    assert session.tables["intervals/observed"].attrs["assumed"] is True


def test_a_broken_piece_of_observed_time_is_left_out_with_a_finding(rich: Path) -> None:
    def change(file: h5py.File) -> None:
        file["units/obs_intervals"][0] = [3.0, np.nan]

    session = staged(made.spoil(rich, change))
    assert "nwb/observed_broken" in checks(session)
    assert np.isfinite(column(session, "intervals/observed", "stop")).all()


def two_units() -> NWBFile:
    file = made.empty()
    file.add_unit(spike_times=[0.5, 0.75])
    file.add_unit(spike_times=[1.0])
    return file


# ---- series


def test_conversion_and_offset_are_applied(rich: Path) -> None:
    session = staged(rich)
    value = column(session, "behaviour/scaled", "value")
    np.testing.assert_allclose(value, [1.0, 1.01, 1.03, 1.02])  # in the order of its times
    assert near(session, column(session, "behaviour/scaled", "time"), [0.0, 0.1, 0.2, 0.3])


def test_values_without_a_conversion_keep_their_type(rich: Path) -> None:
    session = staged(rich)
    assert column(session, "behaviour/behavior_wheel", "value").dtype == np.int16
    assert column(session, "behaviour/place", "value").dtype == np.float32
    assert column(session, "behaviour/acquisition_wheel", "value").tolist() == [1, 0]


def test_a_regular_series_keeps_its_start_and_rate(rich: Path) -> None:
    session = staged(rich)
    attrs = session.tables["behaviour/behavior_wheel"].attrs
    assert session.clock.seconds(np.array([attrs["start"]])).tolist() == [0.5]
    assert attrs["rate"] == "4"
    assert attrs["units"] == "m"


def test_a_rate_is_the_number_that_was_written(tmp_path: Path) -> None:
    series = made.series("eye", np.zeros(3), rate=59.94)
    session = staged(made.write(tmp_path / "a.nwb", only(series)))
    assert session.tables["behaviour/eye"].attrs["rate"] == "2997/50"


def test_linked_data_and_timestamps_are_followed(rich: Path) -> None:
    session = staged(rich)
    times = column(session, "behaviour/scaled", "time")
    assert column(session, "behaviour/linked", "time").tolist() == times.tolist()
    assert column(session, "behaviour/linked", "value").tolist() == [0.0, 1.0, 3.0, 2.0]
    assert column(session, "behaviour/shared", "value").tolist() == (
        column(session, "behaviour/scaled", "value").tolist()
    )


def test_two_series_of_one_name_are_told_apart_by_module(rich: Path) -> None:
    names = {name for name in staged(rich).tables if "wheel" in name}
    assert names == {"behaviour/acquisition_wheel", "behaviour/behavior_wheel"}


def test_voltage_is_activity_in_volts_with_its_electrodes(rich: Path) -> None:
    session = staged(rich)
    value = column(session, "activity/lfp", "value")
    np.testing.assert_allclose(value, np.arange(12).reshape(6, 2) * [0.5, 5.0])
    assert column(session, "activity/lfp", "channel").tolist() == ["2", "0"]
    assert session.tables["activity/lfp"].attrs["units"] == "volts"


def test_positions_name_their_axes(rich: Path) -> None:
    assert column(staged(rich), "behaviour/place", "channel").tolist() == ["x", "y"]


def test_voltage_of_one_channel_has_a_channel(tmp_path: Path) -> None:
    def make() -> NWBFile:
        file = made.rich()
        region = file.create_electrode_table_region([1], "")
        series = ElectricalSeries(name="one", data=np.arange(4.0), electrodes=region, rate=10.0)
        file.add_acquisition(series)
        return file

    session = staged(made.write(tmp_path / "a.nwb", make))
    assert column(session, "activity/one", "value").tolist() == [[0.0], [1.0], [2.0], [3.0]]


def test_large_series_stay_on_disk_and_read_by_slices(
    rich: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nwb, "AT_ONCE", 0)
    builder = pickle.loads(pickle.dumps(read(rich).build()))
    lazy = builder.tables["activity/lfp"].columns["value"].values
    whole = np.arange(12).reshape(6, 2) * [0.5, 5.0]
    assert isinstance(lazy, Samples)
    assert (lazy.shape, lazy.ndim, lazy.dtype, len(lazy)) == ((6, 2), 2, np.float64, 6)
    for key in (slice(1, 4), slice(None), 3, (slice(0, 2), 1), (slice(None), slice(1, 2))):
        np.testing.assert_allclose(lazy[key], whole[key])


def test_a_series_gone_from_disk_is_refused_in_one_line(
    rich: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nwb, "AT_ONCE", 0)
    lazy = read(rich).build().tables["activity/lfp"].columns["value"].values
    rich.unlink()
    with pytest.raises(RefusedError, match=r"rich\.nwb: cannot be read"):
        lazy[:2]


def test_an_interval_series_becomes_intervals(rich: Path) -> None:
    session = staged(rich)
    start, stop = (column(session, "intervals/states", name) for name in ("start", "stop"))
    assert start.tolist() == [0.0, 2.0, 4.0]
    assert stop[:2].tolist() == [1.0, 3.0]
    assert column(session, "intervals/states", "valid").tolist() == [True, True, False]
    assert column(session, "intervals/states", "kind").tolist() == [1, 2, 1]


def test_what_has_no_table_is_noted_by_name(rich: Path) -> None:
    notes = dict(note.split(": ", 1) for note in read(rich).notes)
    assert notes == {
        "acquisition/film": "values in 3 dimensions",
        "acquisition/words": "values of type object",
        "stimulus/presentation/tone": "TimeSeries in 'stimulus' has no table in a session",
        "intervals/trials/valid": "kept as 'source_valid'",
    }


def test_samples_without_as_many_times_are_left_out_with_a_finding(rich: Path) -> None:
    def change(file: h5py.File) -> None:
        del file["processing/behavior/Position/place/timestamps"]
        made.replace(file, "processing/behavior/BehavioralTimeSeries/wheel/data", np.zeros(0))
        file["processing/behavior/Position/place/timestamps"] = [0.0, 1.0]

    builder = read(made.spoil(rich, change))
    assert {"nwb/series_length", "nwb/series_empty"} <= checks(builder)
    assert not {"behaviour/place", "behaviour/behavior_wheel"} & set(builder.build().tables)


# ---- intervals


def test_every_interval_table_is_kept_with_its_columns(rich: Path) -> None:
    session = staged(rich)
    names = {name for name in session.tables if name.startswith("intervals/")}
    assert names == {f"intervals/{name}" for name in ("observed", "ripples", "states", "trials")}
    assert column(session, "intervals/trials", "valid").tolist() == [True, False, True]
    assert column(session, "intervals/trials", "source_valid").tolist() == [0, 1, 2]
    assert column(session, "intervals/trials", "choice").tolist() == ["left"] * 3
    assert column(session, "intervals/trials", "correct").tolist() == [False, True, True]
    assert column(session, "intervals/trials", "lick_times").tolist() == (
        ["[1.0]", "[]", "[2.5, 2.75]"]
    )


def test_an_event_time_far_away_loses_only_its_own_valid(rich: Path) -> None:
    session = staged(rich)
    assert column(session, "intervals/trials", "cue_time_valid").tolist() == [True, True, False]
    assert "intervals/v1/cue_time/range" in checks(session)


# ---- the session


def test_time_zero_is_the_reference_time_not_the_session_start(rich: Path) -> None:
    session = staged(rich)
    assert session.clock.origin == (made.START - timedelta(seconds=90)).isoformat()
    assert session.attrs["metadata"]["session_start_s"] == 90.0
    assert near(session, trains(session)["11"], [0.5])


def test_metadata_of_subject_and_session_are_kept(rich: Path) -> None:
    session = staged(rich)
    said = session.attrs["metadata"]
    assert session.id == "d/s-1"
    assert (said["subject"], said["species"], said["sex"]) == ("m1", "Mus musculus", "F")
    assert (said["age"], said["lab"], said["institution"]) == ("P90D", "a lab", "an institute")
    assert (said["experimenter"], said["keywords"]) == (["A. Person"], ["one", "two"])
    assert said["units_fields"]["resolution"] == 1 / 30_000
    assert said["column_descriptions"]["trials"]["choice"] == "left or right"


def test_the_source_is_the_file_and_its_digest(rich: Path) -> None:
    source = NWB(rich, "d").source
    assert (source.url, source.reader, source.version) == (rich.as_posix(), "nwb", "1")
    assert source == read(rich).source
    assert len(source.sha256) == 64


def test_a_file_without_an_id_is_named_by_its_stem(tmp_path: Path) -> None:
    assert NWB(made.write(tmp_path / "mouse-3.nwb", two_units), "d").sessions() == ["mouse-3"]


def test_missing_metadata_are_suggestions(tmp_path: Path) -> None:
    builder = read(made.write(tmp_path / "a.nwb", two_units))
    assert checks(builder) == SUGGESTED
    assert {one.severity for one in builder.findings} == {"suggestion"}


def test_what_pynwb_warns_of_is_found_once(tmp_path: Path) -> None:
    said = {"format": "external", "starting_frame": [0], "timestamps": [0.0]}
    film = ImageSeries(name="film", external_file=["a.avi"], **said)
    path = made.write(tmp_path / "a.nwb", only(film, made.series("a", np.zeros(2), rate=1.0)))

    def change(file: h5py.File) -> None:
        file["acquisition/film/external_file"].attrs["starting_frame"] = [0, 1]

    builder = read(made.spoil(path, change))  # warnings are errors here: none came through
    warned = [one for one in builder.findings if one.check == "nwb/pynwb_warning"]
    assert len(warned) == 1
    assert "starting_frame" in warned[0].message


def test_another_session_id_is_answered_with_the_nearest(rich: Path) -> None:
    with pytest.raises(NotFoundError, match="Did you mean 's-1'"):
        NWB(rich, "d").read("s-2")


def test_without_pynwb_the_extra_is_named(rich: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(MissingExtraError, match=r"neurostore\[nwb\]"):
        NWB(rich, "d").read("s-1")


# ---- made bad files


def lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1234\n")


def plain_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(3)


def old(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["nwb_version"] = "NWB-1.0.6"


def bare(path: Path) -> None:
    made.write(path, made.empty)


def broken_index(change: Callable[[NDArray[np.int64]], Any]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        def apply(file: h5py.File) -> None:
            made.replace(
                file, "units/spike_times_index", change(file["units/spike_times_index"][:])
            )

        made.spoil(made.write(path, two_units), apply)

    return make


def no_index(path: Path) -> None:
    def change(file: h5py.File) -> None:
        del file["units/spike_times_index"]

    made.spoil(made.write(path, two_units), change)


def text_times(path: Path) -> None:
    def change(file: h5py.File) -> None:
        made.replace(file, "units/spike_times", ["a", "b", "c"])
        file["units/spike_times_index"].attrs["target"] = file["units/spike_times"].ref

    made.spoil(made.write(path, two_units), change)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lfs, "a git-LFS pointer, not the file of 1,234 bytes it stands for. Run `git lfs pull`."),
        (old, "NWB 1.0.6, expected NWB 2. Export it again"),
        (plain_hdf5, "HDF5 without NWB: no 'nwb_version', found data"),
        (bare, NOTHING),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_text("time,unit\n0.5,1\n"), "text (begins b'time,unit"),
        (lambda path: path.write_text("<!DOCTYPE html><p>"), "a web page (HTML), expected HDF5"),
        (lambda path: path.write_bytes(bytes(range(256))), "no HDF5 (begins"),
        (lambda path: path.mkdir(), "a folder, expected one HDF5 file"),
        (lambda path: None, "no such file. Check the path."),
        (no_index, "units/spike_times has no index"),
        (broken_index(lambda index: index[::-1]), "units/spike_times: its index falls at row 1"),
        (broken_index(lambda index: index + 9), "its index ends at 12, expected 3 values"),
        (
            broken_index(lambda index: index[:1]),
            "units/spike_times_index has 1 entries for 2 units",
        ),
        (text_times, "units/spike_times: found object"),
    ],
    ids=[
        *("pointer", "version-1", "other-hdf5", "no-rows", "empty", "text", "html", "bytes"),
        *("folder", "missing", "no-index", "falling-index", "far-index", "short-index", "words"),
    ],
)
def test_a_bad_file_is_refused_with_its_cause(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / "bad.nwb"
    make(path)
    with pytest.raises(RefusedError) as refused:
        read(path)
    assert words in str(refused.value)
    assert str(refused.value).count(str(path)) == 1
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_file_is_refused_with_both_sizes(rich: Path, share: float) -> None:
    whole = rich.stat().st_size
    kept = int(whole * share)
    os.truncate(rich, kept)
    with pytest.raises(
        RefusedError, match=rf"truncated HDF5: {kept:,} bytes, expected {whole:,}\. Fetch"
    ):
        read(rich)


@pytest.mark.parametrize("length", [1, 7, 8, 40])
def test_the_first_bytes_of_a_file_alone_are_refused(rich: Path, length: int) -> None:
    os.truncate(rich, length)
    with pytest.raises(RefusedError, match="Fetch"):
        read(rich)


def spoiled_spikes(path: Path, times: list[float], ids: list[int]) -> Path:
    def change(file: h5py.File) -> None:
        file["units/spike_times"][:] = times
        file["units/id"][:] = ids

    return made.spoil(made.write(path, two_units), change)


@pytest.mark.parametrize(
    ("times", "check"),
    [
        ([0.5, np.nan, 1.0], "spikes/v1/time/finite"),
        ([0.75, 0.5, 1.0], "spikes/v1/time/sorted"),
    ],
    ids=["nan", "unsorted"],
)
def test_spikes_that_are_not_in_order_are_kept_with_a_finding(
    tmp_path: Path, times: list[float], check: str
) -> None:
    session = staged(spoiled_spikes(tmp_path / "a.nwb", times, [0, 1]))
    assert check in checks(session)
    assert near(session, trains(session)["0"], np.sort([t for t in times[:2] if t == t]))


@pytest.mark.parametrize(
    ("times", "ids", "check"),
    [
        ([0.5, 0.75, 1.0], [4, 4], "units/v1/unit/unique"),
        ([0.5, 0.75, -1.5e9], [0, 1], "spikes/v1/time/range"),
    ],
    ids=["ids twice", "spike far away"],
)
def test_units_that_cannot_be_trusted_are_refused_and_nothing_is_written(
    tmp_path: Path, times: list[float], ids: list[int], check: str
) -> None:
    path = spoiled_spikes(tmp_path / "a.nwb", times, ids)
    store = neurostore.create(str(tmp_path / "store"))
    report = neurostore.ingest(store, [path], "d")
    assert [one.status for one in report.outcomes] == ["refused"]
    critical = [one.check for one in report.outcomes[0].findings if one.severity == "critical"]
    assert critical == [check]
    assert len(store.sessions()) == 0


def test_electrode_ids_there_twice_give_way_to_their_rows(rich: Path) -> None:
    def change(file: h5py.File) -> None:
        file["general/extracellular_ephys/electrodes/id"][:] = [5, 5, 6]

    session = staged(made.spoil(rich, change))
    assert "nwb/electrode_twice" in checks(session)
    assert column(session, "electrodes", "electrode").tolist() == ["0", "1", "2"]
    assert column(session, "electrodes", "source_id").tolist() == ["5", "5", "6"]


def test_any_bytes_end_in_a_session_or_a_refusal(rich: Path, tmp_path: Path) -> None:
    # In a child: on damaged metadata HDF5 itself may crash or loop, which no reader can catch.
    damaged = tmp_path / "damaged.nwb"
    program = textwrap.dedent(
        """
        import random, sys
        from pathlib import Path
        from neurostore.errors import NeurostoreError
        from neurostore.ingest.nwb import NWB
        good, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
        for seed in range(int(sys.argv[3]), int(sys.argv[4])):
            draw, data = random.Random(seed), bytearray(good)
            for _ in range(draw.choice([1, 4, 20, 100])):
                data[draw.randrange(len(data) if seed % 2 else 20_000)] = draw.randrange(256)
            path.write_bytes(data)
            try:
                reader = NWB(path, "d")
                reader.read(reader.sessions()[0]).build()
            except NeurostoreError as error:
                assert "\\n" not in str(error), str(error)
        """
    )
    for first in (0, 25, 50, 75):
        files = [str(rich), str(damaged), str(first), str(first + 25)]
        try:
            child = subprocess.run(
                [sys.executable, "-c", program, *files],
                capture_output=True,
                timeout=60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            continue
        assert child.returncode <= 0, child.stderr.decode(errors="replace")


@pytest.mark.realdata
def test_a_recording_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.nwb"
    shutil.copyfile(real(MOUSE), path)
    os.truncate(path, 200_000)
    with pytest.raises(NeurostoreError, match="truncated HDF5: 200,000 bytes, expected 442,304"):
        NWB(path, "d").sessions()
