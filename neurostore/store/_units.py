"""The units of a session as a table, and those of many sessions as one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from neurostore.store import _catalogue
from neurostore.store.session import Session

FIRST = ["session", "dataset", "unit", "region", "n_spikes", "observed", "rate_hz"]
"""The columns that stand first, those of them that there are."""


def joined(parts: Iterable[pd.DataFrame], where: str | None) -> pd.DataFrame:
    """One table of several, or the rows of it for which a SQL boolean expression holds."""
    frames = list(parts)
    if not frames:
        return _catalogue.query(pd.DataFrame({name: [] for name in FIRST}), where, "units")
    return _catalogue.query(pd.concat(frames, ignore_index=True), where, "units")


def frame(session: Session) -> pd.DataFrame:
    """One row a unit, with the seconds that it was observed and its rate in them."""
    table = session._pandas("units", wide=False)
    seconds = _observed(session, len(table))
    table.insert(0, "session", session.id)
    table.insert(1, "dataset", session.dataset)
    table["observed"] = seconds
    table["rate_hz"] = table["n_spikes"] / table["observed"].where(table["observed"] > 0)
    front = [name for name in FIRST if name in table]
    return table[front + [name for name in table if name not in front]]


def _observed(session: Session, units: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if "intervals/observed" not in session.tables:
        return np.zeros(units)
    columns = session.stored("intervals/observed").columns
    ticks = np.asarray(columns["stop"].values[:]) - np.asarray(columns["start"].values[:])
    seconds = ticks / float(session.clock.rate)
    if "unit" not in columns:
        return np.full(units, seconds.sum())
    rows = np.asarray(columns["unit"].values[:])
    return np.bincount(rows, seconds, minlength=units).astype(np.float64)
