"""NWB files made for tests: one with a bit of everything, and ways to spoil it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import h5py
import numpy as np
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.behavior import BehavioralEpochs, BehavioralTimeSeries, Position, SpatialSeries
from pynwb.ecephys import LFP, ElectricalSeries
from pynwb.epoch import TimeIntervals
from pynwb.file import Subject
from pynwb.misc import IntervalSeries

START = datetime(2024, 3, 1, 10, 0, tzinfo=UTC)
SPIKES = {
    10: np.array([0.1, 0.25, 1.5, 2.25]),
    11: np.array([0.5]),
    12: np.array([0.2, 0.3, 3.75]),
}
"""Spike times of the units of `rich`, by id."""


def empty(**more: object) -> NWBFile:
    """Make a file that is right and says nothing."""
    said = {"session_description": "made", "identifier": "made", "session_start_time": START}
    return NWBFile(**{**said, **more})


def rich() -> NWBFile:
    """Units of all kinds of columns, electrodes, trials and series in several modules."""
    nwb = empty(
        session_id="s-1",
        lab="a lab",
        institution="an institute",
        experimenter=["A. Person"],
        keywords=["one", "two"],
        timestamps_reference_time=START - timedelta(seconds=90),
        subject=Subject(subject_id="m1", species="Mus musculus", sex="F", age="P90D"),
    )
    _units(nwb)
    _trials(nwb)
    _series(nwb)
    return nwb


def _units(nwb: NWBFile) -> None:
    device = nwb.create_device("probe")
    group = nwb.create_electrode_group("shank", description="", location="CA", device=device)
    for where in ("CA1", "CA3", "DG"):
        nwb.add_electrode(location=where, group=group, x=1.0, y=2.0, z=3.0)
    for name, text in (("quality", "label"), ("snr", "ratio"), ("number", "count")):
        nwb.add_unit_column(name, text)
    nwb.add_unit_column("peaks", "ragged", index=True)
    nwb.add_unit_column("pair", "two a unit", index=True)
    observed = {10: [[0.0, 2.0], [2.0, 3.0]], 11: [[0.0, 4.0]], 12: [[0.0, 1.0], [0.5, 4.0]]}
    for row, (key, times) in enumerate(SPIKES.items()):
        nwb.add_unit(
            id=key,
            spike_times=times,
            obs_intervals=observed[key],
            electrodes=[0, 1] if row == 0 else [row],
            electrode_group=group,
            quality="good",
            snr=row + 0.5,
            number=row,
            peaks=[1.0] * row,
            pair=[row, row + 1],
            waveform_mean=np.full((5, 2), row, dtype=np.float64),
        )
    nwb.units.resolution = 1 / 30_000


def _trials(nwb: NWBFile) -> None:
    nwb.add_trial_column("choice", "left or right")
    nwb.add_trial_column("valid", "a name that the store has taken")
    nwb.add_trial_column("cue_time", "event")
    nwb.add_trial_column("lick_times", "events", index=True)
    nwb.add_trial_column("correct", "flag")
    for row, licks in enumerate(([1.0], [], [2.5, 2.75])):
        nwb.add_trial(
            start_time=float(row),
            stop_time=np.nan if row == 1 else row + 0.5,
            choice="left",
            valid=row,
            cue_time=-1.5e9 if row == 2 else row + 0.1,
            lick_times=licks,
            correct=bool(row),
        )
    table = TimeIntervals(name="ripples", description="in a module")
    table.add_interval(start_time=0.5, stop_time=0.75)
    nwb.create_processing_module("ecephys", "").add(table)


def _series(nwb: NWBFile) -> None:
    behaviour = nwb.create_processing_module("behavior", "")
    wheel = series("wheel", np.arange(8, dtype=np.int16), rate=4.0, starting_time=0.5)
    late = [0.0, 0.1, 0.3, 0.2]
    scaled = series("scaled", np.arange(4), conversion=0.01, offset=1.0, timestamps=late)
    linked = series("linked", np.arange(4.0), timestamps=scaled)
    shared = series("shared", scaled, timestamps=scaled)
    behaviour.add(BehavioralTimeSeries(time_series=[wheel, scaled, linked, shared]))
    path = np.arange(8, dtype=np.float32).reshape(4, 2)
    place = SpatialSeries(name="place", data=path, reference_frame="", timestamps=np.arange(4.0))
    behaviour.add(Position(spatial_series=[place]))
    flips, times = np.array([1, -1, 2, -2, 1]), np.arange(5.0)
    states = IntervalSeries(name="states", data=flips, timestamps=times)
    behaviour.add(BehavioralEpochs(interval_series=[states]))
    nwb.add_acquisition(series("wheel", np.array([True, False]), rate=1.0))
    nwb.add_acquisition(series("film", np.zeros((2, 3, 3)), rate=1.0))
    nwb.add_acquisition(series("words", ["a", "b"], rate=1.0))
    nwb.add_stimulus(series("tone", np.zeros(3), rate=1.0))
    volts = ElectricalSeries(
        name="lfp",
        data=np.arange(12, dtype=np.int16).reshape(6, 2),
        electrodes=nwb.create_electrode_table_region([2, 0], ""),
        rate=1250.0,
        conversion=0.5,
        channel_conversion=[1.0, 10.0],
    )
    nwb.processing["ecephys"].add(LFP(electrical_series=volts))


def series(name: str, data: object, **more: object) -> TimeSeries:
    """One TimeSeries in metres."""
    return TimeSeries(name=name, data=data, unit="m", **more)


def write(path: Path, make: Callable[[], NWBFile]) -> Path:
    """Make and write a file; what pynwb thinks of it is not at stake."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBHDF5IO(path, "w") as io:
            io.write(make())
    return path


def spoil(path: Path, change: Callable[[h5py.File], None]) -> Path:
    """Change a written file below pynwb."""
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replace(file: h5py.File, name: str, values: object) -> None:
    """Give a dataset other values, and keep its attributes."""
    said = dict(file[name].attrs)
    del file[name]
    file.create_dataset(name, data=values).attrs.update(said)
