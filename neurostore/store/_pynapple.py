"""A session as pynapple objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from types import ModuleType

    from neurostore.store.session import Session


def convert(session: Session, nap: ModuleType) -> dict[str, Any]:
    """Tables by name as pynapple objects; what pynapple has no type for is left out."""
    support = _support(session, nap)
    made: dict[str, Any] = {}
    if "units" in session.tables:
        made["units"] = _units(session, nap, support)
    for name, dataset in session.behaviour.items():
        made[name] = _series(dataset, nap)
    for name in session.intervals:
        made[name] = _intervals(session, name, nap)
    return made


def _intervals(session: Session, name: str, nap: ModuleType) -> Any:
    """Valid rows with their columns as metadata; a frame where rows meet, which pynapple joins."""
    frame = session.to_pandas()[f"intervals/{name}"]
    frame = frame[frame["valid"]].sort_values("start", ignore_index=True)
    start, stop = frame["start"].to_numpy(), frame["stop"].to_numpy()
    if (start[1:] <= stop[:-1]).any() or (stop <= start).any():
        return frame
    more = frame.drop(columns=["start", "stop", "valid"])
    return nap.IntervalSet(start, stop, metadata=more if len(more.columns) else None)


def _support(session: Session, nap: ModuleType) -> Any:
    if "intervals/observed" not in session.tables:
        return None
    observed = session.intervals["observed"]
    return nap.IntervalSet(observed["start"].values, observed["stop"].values)


def _units(session: Session, nap: ModuleType, support: Any) -> Any:
    frame = session.to_pandas()["units"]
    trains = {row: nap.Ts(session.spike_times(str(unit))) for row, unit in enumerate(frame["unit"])}
    scalar = [name for name in frame if name != "n_spikes"]
    group = nap.TsGroup(trains, time_support=support)
    group.set_info(**{str(name): frame[name].to_numpy() for name in scalar})
    return group


def _series(dataset: Any, nap: ModuleType) -> Any:
    """The valid samples; what lies between two runs of them is outside of the time support."""
    time = dataset["time"].values
    valid = dataset["valid"].values if "valid" in dataset else np.ones(len(time), bool)
    value, support = dataset["value"].values[valid], _runs(time, valid, nap)
    if value.ndim == 1:
        return nap.Tsd(time[valid], value, time_support=support)
    columns = [str(name) for name in dataset["channel"].values] if "channel" in dataset else None
    return nap.TsdFrame(time[valid], value, columns=columns, time_support=support)


def _runs(time: NDArray[np.float64], valid: NDArray[np.bool_], nap: ModuleType) -> Any:
    """First to last time of every run of valid samples; None where no two times differ."""
    edges = np.diff(valid.astype(np.int8), prepend=0, append=0)
    start, stop = time[np.flatnonzero(edges == 1)], time[np.flatnonzero(edges == -1) - 1]
    steps = np.diff(time)
    if not len(start) or not (steps > 0).any():
        return None
    # pynapple drops an interval without length: half of the least step reaches no other sample
    stop = np.where(stop > start, stop, start + steps[steps > 0].min() / 2)
    apart = start[1:] > stop[:-1]  # two samples of one time may lie in two runs
    return nap.IntervalSet(start[np.append(True, apart)], stop[np.append(apart, True)])
