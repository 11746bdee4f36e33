"""Spikes around events of many units at once: histograms and rasters, exact on ticks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurostore import kernels
from neurostore.clocks import MISSING, Clock, as_seconds, exact
from neurostore.errors import NotFoundError, UsageError, counted
from neurostore.intervals import Intervals
from neurostore.store.session import Session

if TYPE_CHECKING:
    import xarray as xr

    from neurostore.cache import Packed

Ticks = NDArray[np.int64]

_MANY = 2_000_000
"""Spikes from which loading numba pays."""
_EVENTS = 1024
"""Events that are worked on at once."""
_SEVERAL, _THREADS = 1_000_000, 4
"""Spikes from which threads pay, and how many there are at most."""


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of counts (bin, row) over the observed events: how many, sum, sum of squares."""

    n: Ticks
    total: Ticks
    square: Ticks


def psth(
    sessions: Session | Sequence[Session],
    events: str | ArrayLike,
    window: tuple[float, float] = (-0.5, 1.0),
    bin: float | str | Fraction = 0.02,
    *,
    units: str | Sequence[str] | None = None,
    where: str | None = None,
) -> xr.Dataset:
    """Peri-event time histograms of all units of one session or of many.

    Counts are exact on ticks; an event whose bin is not observed time as a whole does not enter
    that bin. Windows may overlap.

    Parameters
    ----------
    sessions : Session or sequence of Session
    events : str or (event,) seconds
        A column of a table of intervals, ``"trials.stim_on_time"`` (or ``"trials.start"``); or
        times, of one session. Those that are missing are left out and counted in `missing`.
    window : (float, float)
        Seconds before (negative) and after each event; whole bins only.
    bin : float, str or Fraction
        Seconds; exact as written.
    units : str or sequence of str, optional
        A SQL boolean expression on the columns of units (``"region = 'CA1'"``), or ids of one
        session, in this order.
    where : str, optional
        A SQL boolean expression on the rows of the table of intervals: ``"choice = 1"``.

    Returns
    -------
    xarray.Dataset
        rate_hz (unit, bin), its sem (NaN below two events) and n (unit, bin), the events observed
        there; rate_hz is NaN where n is 0. Coordinates: unit, session (unit), region (unit; empty
        where the source says none), time (bin): centres, in seconds from the event.

    Raises
    ------
    UsageError
        Where no bin around any event is observed time.
    """
    import xarray as xr

    chosen = [sessions] if isinstance(sessions, Session) else list(sessions)
    _refuse_many(chosen, events, units)
    width, parts, missing, found = exact(bin), [], 0, 0
    coords: dict[str, list[Any]] = {"unit": [], "session": [], "region": []}
    for session in chosen:
        ticks, lost = _event_ticks(session, events, where)
        edge = _edges(session.clock, window, bin)
        rows = _unit_rows(session, units)
        parts.append(_sums(session, ticks, edge, rows))
        missing, found = missing + lost, found + len(ticks)
        coords["unit"] += session._ids[rows].astype(object).tolist()
        coords["session"] += [session.id] * len(rows)
        coords["region"] += _regions(session, rows)
    n, total, square = (
        _joined([getattr(one, name) for one in parts]) for name in ("n", "total", "square")
    )
    if not n.any():
        raise UsageError(
            f"psth finds no observed bin: {counted(found, 'event')} ({missing:,} more are missing) "
            f"and {counted(n.shape[1], 'unit')} in {counted(len(chosen), 'session')}."
        )
    rate, sem = _rate_and_sem(n, total, square, float(width))
    centre = float(exact(window[0]) + width / 2) + np.arange(len(n)) * float(width)
    return xr.Dataset(
        {
            "rate_hz": (("unit", "bin"), rate.T, {"units": "Hz"}),
            "sem": (("unit", "bin"), sem.T, {"units": "Hz"}),
            "n": (("unit", "bin"), n.T),
        },
        {
            **{name: ("unit", np.array(value, dtype=str)) for name, value in coords.items()},
            "time": ("bin", centre, {"units": "s"}),
        },
        {"bin": float(width), "events": found, "missing": missing},
    )


def raster(
    session: Session,
    events: str | ArrayLike,
    window: tuple[float, float] = (-0.5, 1.0),
    *,
    units: str | Sequence[str] | None = None,
    where: str | None = None,
) -> xr.Dataset:
    """Spikes around events by unit and event, as a CF ragged array.

    Parameters
    ----------
    events, window, units, where
        As `psth`; the window is [before, after).

    Returns
    -------
    xarray.Dataset
        Along `spike`, by unit, then event, then time: seconds from the event `time`, and the places
        `unit_index` and `event_index`. row_size (unit, event) spikes and observed (unit, event):
        whether the whole window is observed time; a row that is not may lack spikes. Coordinates:
        unit, and event: its seconds on the session clock.
    """
    import xarray as xr

    _refuse_many([session], events, units)
    ticks, missing = _event_ticks(session, events, where)
    start, stop = (session.clock.tick(one) for one in window)
    if stop <= start:
        raise UsageError(f"A window needs its start before its stop, found {window} s.")
    rows = _unit_rows(session, units)
    column = _columns(session, rows)
    time, unit, event = _spikes_around(session, ticks, start, stop, column)
    unit = column[unit]
    order = np.argsort(unit * max(1, len(ticks)) + event, kind="stable")
    unit, event = unit[order], event[order]
    size = np.bincount(unit * len(ticks) + event, minlength=len(rows) * len(ticks))
    groups, group = _groups(session, rows)
    seen = np.array([one.covers(ticks + start, ticks + stop) for one in groups], dtype=bool)
    shape = (len(rows), len(ticks))
    return xr.Dataset(
        {
            "time": ("spike", session.clock.seconds(time[order]), {"units": "s"}),
            "unit_index": ("spike", unit, {"instance_dimension": "unit"}),
            "event_index": ("spike", event, {"instance_dimension": "event"}),
            "row_size": (("unit", "event"), size.reshape(shape), {"sample_dimension": "spike"}),
            "observed": (("unit", "event"), seen.reshape(len(groups), len(ticks))[group]),
        },
        {
            "unit": session._ids[rows].astype(object),
            "event": ("event", session.clock.seconds(ticks), {"units": "s"}),
        },
        {"session": session.id, "window": list(map(float, window)), "missing": missing},
    )


# ---- what is asked for


def _refuse_many(
    sessions: Sequence[Session], events: object, units: str | Sequence[str] | None
) -> None:
    if not sessions:
        raise UsageError("psth needs at least one session, found none.")
    for one in sessions:
        if not isinstance(one, Session):
            raise UsageError(
                f"A session is store.session('dataset/name'), found {type(one).__name__}; psth "
                "takes one or several, raster takes one."
            )
    if len(sessions) > 1 and not isinstance(events, str):
        raise UsageError(
            f"Times in seconds are of one session, found {len(sessions)} sessions. Name a column "
            "they all have: 'trials.stim_on_time'."
        )
    if len(sessions) > 1 and not (units is None or isinstance(units, str)):
        raise UsageError(
            f"Ids of units are of one session, found {len(sessions)} sessions. Give an expression: "
            "\"region = 'CA1'\"."
        )


def _event_ticks(session: Session, events: str | ArrayLike, where: str | None) -> tuple[Ticks, int]:
    """Ticks of the events that are there, and how many are missing."""
    if not isinstance(events, str):
        if where is not None:
            raise UsageError("`where` chooses rows of a table of intervals; events are times here.")
        ticks = session.clock.ticks(as_seconds(events, "events").ravel())
        there = ticks != MISSING
        return ticks[there], int(np.count_nonzero(~there))
    table, dot, name = events.rpartition(".")
    if not dot or table not in session.intervals:
        raise NotFoundError("intervals", table or events, session.intervals, session.id)
    columns = session.table(f"intervals/{table}").columns
    known = [key for key, one in columns.items() if one.attrs.get("units") == "tick"]
    if name not in known:
        raise NotFoundError("event time", name, known, f"{table} of {session.id}")
    ticks = np.asarray(columns[name].values[:], dtype=np.int64)
    own = f"{name}_valid"
    valid = "valid" if name in ("start", "stop") else own
    there = ticks != MISSING
    if valid in columns:
        there = there & np.asarray(columns[valid].values[:])
    if where is not None:
        some = np.zeros(len(ticks), dtype=bool)
        some[session.rows(f"intervals/{table}", where).index.to_numpy()] = True
        ticks, there = ticks[some], there[some]
    return ticks[there], int(np.count_nonzero(~there))


def _edges(clock: Clock, window: tuple[float, float], bin: float | str | Fraction) -> Ticks:
    """Edges (bin + 1,) in ticks from the event."""
    edge = clock.edges(clock.tick(window[0]), clock.bins(window[0], window[1], bin), bin)
    if len(edge) < 2:
        raise UsageError(f"The window {window} s holds no whole bin of {bin} s.")
    return edge


def _unit_rows(session: Session, units: str | Sequence[str] | None) -> Ticks:
    if units is None:
        return np.arange(len(session._ids))
    if not isinstance(units, str):
        return session.unit_rows(units)
    found = session.store.units(units, [session.id])
    return np.sort(session.unit_rows(found["unit"].tolist()))


def _columns(session: Session, rows: Ticks) -> Ticks:
    """Place of every unit among those asked for (unit,), -1 where it is not."""
    column = np.full(len(session._ids), -1, dtype=np.int64)
    column[rows] = np.arange(len(rows))
    if (column[rows] != np.arange(len(rows))).any():
        raise UsageError("A unit is named twice.")
    return column


def _regions(session: Session, rows: Ticks) -> list[str]:
    columns = session.table("units").columns
    if "region" not in columns:
        return [""] * len(rows)
    return [str(one) for one in np.asarray(columns["region"].values[:])[rows]]


def _groups(session: Session, rows: Ticks) -> tuple[list[Intervals], Ticks]:
    """The different observed times of units, and which of them each row has."""
    table = session._observed_table
    if "unit" not in table:
        return [session.observed()], np.zeros(len(rows), dtype=np.int64)
    found: dict[bytes, int] = {}
    groups: list[Intervals] = []
    group = np.zeros(len(rows), dtype=np.int64)
    for place, row in enumerate(rows.tolist()):
        mine = table["unit"] == row
        key = table["start"][mine].tobytes() + table["stop"][mine].tobytes()
        if key not in found:
            found[key] = len(groups)
            groups.append(session._observed(row))
        group[place] = found[key]
    return groups, group


# ---- sums


def _sums(session: Session, ticks: Ticks, edge: Ticks, rows: Ticks) -> _Sums:
    """Over the events of one session."""
    bins, column = len(edge) - 1, _columns(session, rows)
    groups, group = _groups(session, rows)
    n = np.zeros((len(groups), bins), dtype=np.int64)
    sums = np.zeros((2, bins, len(column)), dtype=np.int64)  # of counts, of their squares
    ticks = np.sort(ticks)
    packed = session.packed if "spikes" in session.tables else None
    compiled = packed is not None and _pays(packed, ticks, edge)
    own = np.zeros(len(column), dtype=np.int64)
    own[rows] = group
    for first in range(0, len(ticks), _EVENTS):
        at = ticks[first : first + _EVENTS]
        seen = _seen(groups, at, edge)
        n += seen.sum(axis=1, dtype=np.int64)
        if packed is not None and compiled:
            _add_packed(packed, session._all_ticks(), at, edge, own, seen, sums)
        else:
            _add_plain(session, at, edge, column, own, seen, sums)
    chosen = slice(None) if len(rows) == len(column) and (np.diff(rows) == 1).all() else rows
    return _Sums(n[group].T, *sums[:, :, chosen])


def _seen(groups: Sequence[Intervals], at: Ticks, edge: Ticks) -> NDArray[np.bool_]:
    """Whether the whole bin is observed time (group, event, bin)."""
    seen = np.ones((len(groups), len(at), len(edge) - 1), dtype=bool)
    for place, one in enumerate(groups):
        cut = np.flatnonzero(~one.covers(at + edge[0], at + edge[-1]))
        around = at[cut][:, None] + edge[None, :]
        seen[place, cut] = one.covers(around[:, :-1], around[:, 1:])
    return seen


def _blocks(packed: Packed, start: Ticks, stop: Ticks) -> tuple[Ticks, Ticks]:
    """First spike and the one after the last of the blocks that windows touch."""
    most = len(packed.block) - 1
    begin = np.clip((start - packed.first) // packed.length, 0, most)
    end = np.clip((stop - 1 - packed.first) // packed.length + 1, 0, most)
    return packed.block[begin], packed.block[end]


def _pays(packed: Packed, ticks: Ticks, edge: Ticks) -> bool:
    first, stop = _blocks(packed, ticks + edge[0], ticks + edge[-1])
    return kernels.ready() or int((stop - first).sum()) >= _MANY


def _add_packed(
    packed: Packed,
    ends: tuple[int, int],
    at: Ticks,
    edge: Ticks,
    group: Ticks,
    seen: NDArray[np.bool_],
    sums: Ticks,
) -> None:
    """Add what some events give to the sums (2, bin, unit) of all units."""
    kernels.load()
    from neurostore.kernels._psth import add_events, whole

    if packed.entry.fixed:  # nobody decoded it here, and the loop looks at no bounds
        packed.refuse_unknown_units()
    first, stop = _blocks(packed, at + edge[0], at + edge[-1])
    packed.entry.check_ranges("events", first, stop)
    spikes = np.array([packed.first_at(end) for end in ends])
    events, block = np.asarray(packed.events), np.asarray(packed.block)

    def add(some: slice) -> tuple[NDArray[np.uint32], Ticks | None]:
        seen_then = np.ascontiguousarray(seen[:, some]).view(np.uint8)
        where = (events, block, packed.first, packed.length, at[some], edge, spikes)
        own = np.zeros((2, *sums.shape[1:2], whole(sums.shape[2])), dtype=np.uint32)
        rest = np.zeros_like(sums)  # memory that is not touched costs nothing
        return own, rest if add_events(*where, group, seen_then, *own, *rest) else None

    threads = min(os.cpu_count() or 1, _THREADS) if int((stop - first).sum()) > _SEVERAL else 1
    cuts = np.linspace(0, len(at), threads + 1).astype(int).tolist()
    parts = [slice(*pair) for pair in pairwise(cuts)]
    others = [_threads(os.getpid()).submit(add, some) for some in parts[1:]]
    for own, rest in [add(parts[0]), *(one.result() for one in others)]:
        sums += own[:, :, : sums.shape[2]]  # integers: the order of the sums changes nothing
        if rest is not None:
            sums += rest


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """Threads of a process, which are kept: starting them takes a twentieth of a histogram."""
    return ThreadPoolExecutor(_THREADS, "psth")


def _add_plain(
    session: Session,
    at: Ticks,
    edge: Ticks,
    column: Ticks,
    group: Ticks,
    seen: NDArray[np.bool_],
    sums: Ticks,
) -> None:
    time, unit, event = _spikes_around(session, at, int(edge[0]), int(edge[-1]), column)
    where = np.searchsorted(edge, time, side="right") - 1
    kept = seen[group[unit], event, where]
    key = (event[kept] * len(edge) + where[kept]) * len(column) + unit[kept]
    key, count = np.unique(key, return_counts=True)
    cell = key % (len(edge) * len(column))
    for own, added in zip(sums, (count, count**2), strict=True):
        np.add.at(own.reshape(-1), cell, added)


def _spikes_around(
    session: Session, at: Ticks, start: int, stop: int, column: Ticks
) -> tuple[Ticks, Ticks, Ticks]:
    """Ticks from the event, row of the unit, place of the event, (spike,) each, by event."""
    if "spikes" not in session.tables:
        none = np.zeros(0, dtype=np.int64)
        return none, none, none
    found = session.events(at + start, at + stop)
    kept = column[found.unit] >= 0
    event = found.window[kept]
    return found.time[kept] - at[event], found.unit[kept], event


def _joined(parts: list[Ticks]) -> Ticks:
    """Along the units; new memory costs as much as the sums."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _rate_and_sem(
    n: Ticks, total: Ticks, square: Ticks, width: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """NaN where there is no event, or too few: there the sums are 0, and so is what divides."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = total / n
        rate /= width
        spread = n * square  # whole numbers: n² times the variance
        spread -= total * total
        sem = spread / (n - 1)
        np.sqrt(sem, out=sem)
        sem /= n
        sem /= width
    return rate, sem
