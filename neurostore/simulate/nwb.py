"""Writes a simulated session as an NWB file, as an acquisition system would have left it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostore.errors import MissingExtraError
from neurostore.simulate.spikes import GRID_HZ, Simulated

if TYPE_CHECKING:
    from pynwb import NWBFile

STARTED = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
"""When every simulated session began."""

RAD_PER_COUNT = 2 * np.pi / 4096
"""The wheel's encoder: its position is written in whole counts, with this conversion."""

RAD_PER_DEGREE = np.pi / 180
"""The wheel's velocity is written in degrees per second, with this conversion."""

TRIAL_COLUMNS = {
    "stim_on_time": "When the grating appeared, seconds; NaN where it did not",
    "response_time": "When the wheel reached its threshold, seconds; NaN where it did not",
    "contrast": "Contrast of the grating, negative on the left",
    "choice": "-1 left, 1 right, 0 none",
    "reward": "Whether water was given",
}


def write_nwb(
    simulated: Simulated,
    path: str | Path,
    *,
    subject: str = "mouse-1",
    session_id: str | None = None,
    species: str = "Mus musculus",
) -> Path:
    """Write `simulated` to `path`; columns are written whole, so that 31 M spikes take seconds.

    Spike times in the units table with a region by way of the electrodes, trials, position of the
    wheel in encoder counts (regular) and its velocity in degrees per second (with time stamps),
    both with the conversion to rad and rad/s.

    Parameters
    ----------
    subject : str
        Id of the animal.
    session_id : str, optional
        Else the stem of `path`.

    Returns
    -------
    Path
        Where the file lies.

    Raises
    ------
    MissingExtraError
        Where pynwb is not installed.
    """
    try:
        from pynwb import NWBHDF5IO, NWBFile
        from pynwb.file import Subject
    except ImportError as error:
        raise MissingExtraError("Writing NWB files", "nwb") from error
    path = Path(path)
    file = NWBFile(
        session_description="Simulated: a mouse turns a wheel towards a grating",
        identifier=f"simulated/{session_id or path.stem}",
        session_start_time=STARTED,
        session_id=session_id or path.stem,
        lab="simulated",
        subject=Subject(subject_id=subject, species=species, sex="U", age="P90D"),
    )
    _add_units(file, simulated)
    _add_trials(file, simulated)
    _add_wheel(file, simulated)
    with NWBHDF5IO(str(path), "w") as io:
        io.write(file)
    return path


def _add_units(file: NWBFile, simulated: Simulated) -> None:
    """Electrodes, one a unit, and the units table."""
    from hdmf.common import DynamicTableRegion, VectorData, VectorIndex
    from pynwb.misc import Units

    device = file.create_device("probe")
    group = file.create_electrode_group("probe", "One shank", "brain", device)
    for region in simulated.regions:
        file.add_electrode(location=region, group=group)
    rows = np.arange(len(simulated.ids))
    times = VectorData(name="spike_times", description="Seconds", data=simulated.times)
    sites = DynamicTableRegion(
        name="electrodes", description="Largest channel", data=rows, table=file.electrodes
    )
    ragged = [
        (VectorIndex(name="spike_times_index", data=simulated.stops, target=times), times),
        (VectorIndex(name="electrodes_index", data=rows + 1, target=sites), sites),
    ]
    plain = {
        "quality": ("Label of the curator", list(simulated.quality)),
        "depth": ("Micrometres along the probe", simulated.depth),
    }
    file.units = Units(
        name="units",
        description="Simulated units",
        id=rows,
        resolution=1 / simulated.rate_clock,
        columns=[column for pair in ragged for column in pair]
        + [VectorData(name=k, description=text, data=v) for k, (text, v) in plain.items()],
        colnames=["spike_times", "electrodes", *plain],
    )


def _add_trials(file: NWBFile, simulated: Simulated) -> None:
    from hdmf.common import VectorData
    from pynwb.epoch import TimeIntervals

    names = {"start": "start_time", "stop": "stop_time"}
    columns = [
        VectorData(
            name=names.get(name, name),
            description=TRIAL_COLUMNS.get(name, f"{name.title()} of the trial, seconds"),
            data=values,
        )
        for name, values in simulated.trials.items()
    ]
    file.trials = TimeIntervals(
        name="trials",
        description="One trial a grating",
        id=np.arange(len(simulated.trials["start"])),
        columns=columns,
        colnames=[column.name for column in columns],
    )


def _add_wheel(file: NWBFile, simulated: Simulated) -> None:
    from pynwb.base import TimeSeries
    from pynwb.behavior import Position, SpatialSeries

    behavior = file.create_processing_module("behavior", "The wheel")
    position = SpatialSeries(
        name="wheel",
        description="Position of the wheel",
        data=np.rint(simulated.wheel_position / RAD_PER_COUNT).astype(np.int32),
        unit="rad",
        conversion=RAD_PER_COUNT,
        reference_frame="0 is where the wheel stood at the start; right turns are positive",
        starting_time=0.0,
        rate=float(GRID_HZ),
    )
    velocity: dict[str, Any] = {
        "name": "wheel_velocity",
        "description": "Velocity of the wheel",
        "data": (simulated.wheel_velocity / RAD_PER_DEGREE).astype(np.float32),
        "unit": "rad/s",
        "conversion": RAD_PER_DEGREE,
    }
    stamps = np.arange(len(simulated.wheel_velocity)) / GRID_HZ
    velocity["timestamps"] = stamps if simulated.wheel_time is None else simulated.wheel_time
    behavior.add(Position(spatial_series=position))
    behavior.add(TimeSeries(**velocity))
