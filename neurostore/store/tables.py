"""Tables made of what people have: seconds in, ticks and masks out, oddities as findings.

Each function gives a `Table` on a given clock, ready for `Transaction.update`; `SessionBuilder`
calls them all once it has chosen the clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurostore.clocks import MISSING, REACH, Clock, as_seconds, exact
from neurostore.errors import UsageError, counted
from neurostore.schemas import JSON, Column, Finding, Severity, Table, Values, contract
from neurostore.store import _columns
from neurostore.store._columns import same_length, strings, text

__all__ = [
    "Interleaved",
    "Ragged",
    "Span",
    "activity",
    "behaviour",
    "electrodes",
    "intervals",
    "observed",
    "spikes",
    "units",
]

_PIECE = 1 << 16  # what is worked on lies in the cache of a core


@dataclass(frozen=True, eq=False)
class Ragged:
    """Spike times of all units end to end.

    Attributes
    ----------
    ids : sequence of str
        Unit ids.
    times : (spike,) float64, seconds
        The spikes of the first unit, then of the second, ...
    stops : (unit,) integer
        Where each unit's spikes end in `times`.
    """

    ids: Sequence[str]
    times: NDArray[np.float64]
    stops: NDArray[np.integer[Any]]

    def __post_init__(self) -> None:
        stops = np.atleast_1d(np.asarray(self.stops))
        if not len(stops):
            stops = stops.astype(np.int64)
        if stops.dtype.kind not in "iu" or stops.shape != (len(self.ids),):
            raise UsageError(
                f"Ragged spike times need one whole stop a unit: {len(self.ids)} units, found "
                f"{stops.dtype} of shape {stops.shape}."
            )
        stops = stops.astype(np.int64)
        if (np.diff(stops, prepend=0) < 0).any():
            raise UsageError("The stops of ragged spike times must never fall.")
        times, ends = _columns.times(self.times, "spikes", "time"), int(stops[-1:].sum())
        if ends != len(times):
            raise UsageError(f"The last unit stops at {ends}, but there are {len(times)} spikes.")
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "stops", stops)

    @classmethod
    def of(cls, spike_times: Mapping[str, ArrayLike]) -> Ragged:
        """From a mapping of unit id to spike times in seconds."""
        if not isinstance(spike_times, Mapping):
            raise UsageError(
                "Spike times come as a mapping of unit id to times, or as Ragged; found "
                f"{type(spike_times).__name__}."
            )
        arrays = [_columns.times(times, "spikes", str(unit)) for unit, times in spike_times.items()]
        stops = np.cumsum([len(times) for times in arrays], dtype=np.int64)
        joined = np.concatenate(arrays) if arrays else np.zeros(0)
        return cls([str(name) for name in spike_times], joined, stops)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each unit's spikes begin in `times`."""
        return np.concatenate([[0], self.stops[:-1]]).astype(np.int64)[: len(self.ids)]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Spikes (unit,) of every unit."""
        return np.diff(self.stops, prepend=0).astype(np.int64)

    def rows(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Row of the unit of every spike (spike,), a new array."""
        return np.repeat(np.arange(len(self.ids), dtype=dtype), self.counts)

    def place(self, row: int) -> tuple[int, int]:
        """The unit of a spike, and which of the spikes of that unit it is."""
        unit = int(np.searchsorted(self.stops, row, side="right"))
        return unit, row - int(self.starts[unit])

    def only(self, good: NDArray[np.bool_]) -> Ragged:
        """Some of the spikes (spike,) bool; every unit stays."""
        kept = np.concatenate([[0], np.cumsum(good)])[self.stops]
        return Ragged(self.ids, self.times[good], kept)


@dataclass(frozen=True, eq=False)
class Interleaved:
    """Spike times of all units in time order, with the unit of each: as ALF and Kilosort keep them.

    Attributes
    ----------
    ids : sequence of str
        Unit ids.
    times : (spike,) float64, seconds
        Ascending; what is not is sorted, with a finding.
    unit : (spike,) integer
        Row of the spike's unit in `ids`.
    """

    ids: Sequence[str]
    times: NDArray[np.float64]
    unit: NDArray[np.integer[Any]]

    def __post_init__(self) -> None:
        times = _columns.times(self.times, "spikes", "time")
        unit = np.atleast_1d(np.asarray(self.unit))
        if not len(unit):
            unit = unit.astype(np.int64)
        if unit.dtype.kind not in "iu" or unit.shape != times.shape:
            raise UsageError(
                f"Interleaved spikes need one row of a unit a spike: {len(times):,} times, found "
                f"{unit.dtype} of shape {unit.shape}."
            )
        low, high = (int(unit.min()), int(unit.max())) if len(unit) else (0, -1)
        if low < 0 or high >= len(self.ids):
            raise UsageError(
                f"Interleaved spikes name the units {low} to {high}, but there are "
                f"{len(self.ids):,} ids, rows 0 to {len(self.ids) - 1}. Give the place of each "
                "unit in ids, not its own number."
            )
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "unit", unit)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Spikes (unit,) of every unit."""
        counts = np.zeros(len(self.ids), dtype=np.int64)
        for first in range(0, len(self.unit), _PIECE):
            counts += np.bincount(self.unit[first : first + _PIECE], minlength=len(counts))
        return counts

    def rows(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Row of the unit of every spike (spike,), a new array."""
        return self.unit.astype(dtype)

    def place(self, row: int) -> tuple[int, int]:
        """The unit of a spike, and which of the spikes of that unit it is."""
        unit = int(self.unit[row])
        return unit, int(np.count_nonzero(self.unit[:row] == unit))

    def only(self, good: NDArray[np.bool_]) -> Interleaved:
        """Some of the spikes (spike,) bool; every unit stays."""
        return Interleaved(self.ids, self.times[good], self.unit[good])

    def ragged(self) -> Ragged:
        """The same spikes, unit after unit."""
        order = np.argsort(self.unit, kind="stable")
        return Ragged(self.ids, self.times[order], np.cumsum(self.counts))


@dataclass(frozen=True)
class Span:
    """The session's clock and the times that are in range on it.

    Attributes
    ----------
    clock : Clock
        Ticks.
    shift : float
        Seconds taken off every time of the source (0 unless it counts from 1970).
    middle : float
        Median time of the session, seconds on the session clock.
    error : float
        Worst round-trip error of the session's times, seconds.
    """

    clock: Clock
    shift: float = 0.0
    middle: float = 0.0
    error: float = 0.0

    def ticks(self, seconds: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Times (n,) of the source → ticks (n,) and whether each is there and in range (n,)."""
        times = as_seconds(seconds) - self.shift
        return self.clock.ticks(times), np.abs(times - self.middle) <= REACH


def _finding(
    table: str, column: str, what: str, message: str, severity: Severity = "violation", **more: Any
) -> Finding:
    kind = table.partition("/")[0]
    check = contract(kind).check(column, what)
    return Finding(check, severity, table, column, f"{table}: {message}", **more)


def spikes(
    given: Ragged | Interleaved, span: Span, *, ticks: NDArray[np.int64] | None = None
) -> Table:
    """The spikes of all units in time order, with the index of blocks (see the contract).

    Unsorted times are sorted; a time that is not finite is left out; both with a finding. A time
    out of range is a critical one. Equal times keep the order of the units.

    Parameters
    ----------
    ticks : (spike,) int64, optional
        The ticks of all the times where they are known and in range; overwritten.
    """
    given, findings = finite(given)
    findings += _backward(given)
    units = max(1, len(given.ids))
    if ticks is None:
        ticks, far = _ticks_in_range(given.times, span)
        if far.any():
            return _out_of_range(given, far, findings)
    rows = np.dtype(np.uint16 if units <= 1 << 16 else np.uint32)
    time, unit, same = _by_time(ticks, given.rows(rows), units)
    if same:
        message = f"unit and tick shared with another one by {counted(same, 'spike')}"
        findings.append(_finding("spikes", "time", "twice", message, "suggestion", count=same))
    block, where = blocks(time, span.clock)
    columns = {
        "time": Column(("spike",), time, {"units": "tick"}),
        "unit": Column(("spike",), unit),
        "block": Column(("block",), block, {"units": "1"}),
    }
    return Table("spikes", "spikes/v1", columns, {"block": where}, tuple(findings), span.clock)


def _ticks_in_range(
    times: NDArray[np.float64], span: Span
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Ticks (spike,), and which times are out of range."""
    ticks = np.empty(len(times), dtype=np.int64)
    far = np.zeros(len(times), dtype=bool)
    for first in range(0, len(times), _PIECE):
        piece = slice(first, first + _PIECE)
        ticks[piece], valid = span.ticks(times[piece])
        np.logical_not(valid, out=far[piece])
    return ticks, far


def _by_time(
    ticks: NDArray[np.int64], rows: NDArray[np.unsignedinteger[Any]], units: int
) -> tuple[NDArray[np.int64], NDArray[np.unsignedinteger[Any]], int]:
    """Ticks and units in order of time, then of unit; in place.

    Returns
    -------
    ticks, units : (spike,)
    same : int
        Spikes that share unit and tick with the one ahead.
    """
    low, bits = int(ticks.min(initial=0)), (units - 1).bit_length()
    if (int(ticks.max(initial=0)) - low + 1) << bits >= 2**62:
        order = np.lexsort((rows, ticks))
        ticks, rows = ticks[order], rows[order]
        same = (ticks[1:] == ticks[:-1]) & (rows[1:] == rows[:-1])
        return ticks, rows, int(np.count_nonzero(same))
    for first in range(0, len(ticks), _PIECE):
        piece = ticks[first : first + _PIECE]
        piece -= low
        piece <<= bits
        piece |= rows[first : first + _PIECE]  # one key to sort by
    if not _ascends(ticks):
        ticks.sort()
    same = 0
    for first in range(0, len(ticks), _PIECE):
        piece = ticks[first : first + _PIECE]
        ahead = ticks[first : first + _PIECE + 1]
        same += int(np.count_nonzero(ahead[1:] == ahead[:-1]))
        rows[first : first + _PIECE] = piece & ((1 << bits) - 1)
    ticks >>= bits
    ticks += low
    return ticks, rows, same


def _ascends(values: NDArray[Any]) -> bool:
    """Whether no value (n,) is below the one ahead of it."""
    starts = range(0, len(values), _PIECE)
    pieces = (values[first : first + _PIECE + 1] for first in starts)
    return all((piece[1:] >= piece[:-1]).all() for piece in pieces)


def blocks(time: NDArray[np.int64], clock: Clock) -> tuple[NDArray[np.int64], dict[str, JSON]]:
    """First spike of every block of the clock, and where the blocks lie (first tick, length)."""
    length = block_length(clock)
    if not len(time):
        return np.zeros(1, dtype=np.int64), {"start": 0, "length": length}
    first, last = int(time[0]) // length, int(time[-1]) // length
    edges = np.arange(first, last + 2, dtype=np.int64) * length
    found = np.searchsorted(time, edges, side="left").astype(np.int64)
    return found, {"start": first * length, "length": length}


def block_length(clock: Clock) -> int:
    """Ticks in a block: 0.1 s, at most 65,536 unless that is under 10 ms."""
    tenth = max(1, round(clock.rate / 10))
    if tenth > 65_536 and clock.rate / 100 <= 65_536:
        return 65_536
    return tenth


def _out_of_range(
    given: Ragged | Interleaved, far: NDArray[np.bool_], findings: list[Finding]
) -> Table:
    row, count = int(np.argmax(far)), int(np.count_nonzero(far))
    unit, place = given.place(row)
    more = f" ({count - 1:,} more are, too)" if count > 1 else ""
    message = (
        f"spike {place} of unit {given.ids[unit]!r} is at "
        f"{given.times[row]:g} s, more than {REACH:g} s from the median time of the session"
        f"{more}; are the times in seconds? Mend the clock of the source"
    )
    found = _finding("spikes", "time", "range", message, "critical", row=row, count=count)
    columns = {"time": Column(("spike",), np.zeros(0, dtype=np.int64), {"units": "tick"})}
    return Table("spikes", "spikes/v1", columns, {}, (*findings, found))


def _unit_of(given: Ragged | Interleaved, row: int) -> str:
    return repr(given.ids[given.place(row)[0]])


@overload
def finite(given: Ragged) -> tuple[Ragged, list[Finding]]: ...
@overload
def finite(given: Interleaved) -> tuple[Interleaved, list[Finding]]: ...


def finite(given: Ragged | Interleaved) -> tuple[Ragged | Interleaved, list[Finding]]:
    """Spike times without the ones that are not finite, and the finding about those."""
    if all_finite(given.times):
        return given, []
    good = np.isfinite(given.times)
    count = int(np.count_nonzero(~good))
    row = int(np.argmin(good))
    where = _unit_of(given, row)
    message = f"{counted(count, 'spike time')} not finite (first in unit {where}): left out"
    found = _finding("spikes", "time", "finite", message, row=row, count=count)
    return given.only(good), [found]


def all_finite(times: NDArray[np.float64]) -> bool:
    """Whether no time (n,) is missing or infinite; NaN is the least and the greatest of any."""
    return bool(np.isfinite(times.min(initial=0.0)) and np.isfinite(times.max(initial=0.0)))


def _backward(given: Ragged | Interleaved) -> list[Finding]:
    backward = np.zeros(len(given.times), dtype=bool)
    np.less(given.times[1:], given.times[:-1], out=backward[1:])
    if isinstance(given, Ragged):
        backward[given.starts[given.starts < len(backward)]] = False
    if not backward.any():
        return []
    row, count = int(np.argmax(backward)), int(np.count_nonzero(backward))
    message = (
        f"{counted(count, 'spike time')} before the one ahead (first in unit "
        f"{_unit_of(given, row)}): kept in order of time"
    )
    return [_finding("spikes", "time", "sorted", message, row=row, count=count)]


def units(given: Ragged | Interleaved, columns: Mapping[str, object]) -> Table:
    """The table of units: ids, spike counts (finite times only), and the columns given."""
    n_spikes = finite(given)[0].counts
    made = {
        "unit": Column(("unit",), strings(given.ids)),
        "n_spikes": Column(("unit",), n_spikes, {"units": "1"}),
        **_columns.columns("units", len(given.ids), columns, "units", {"n_spikes"}),
    }
    return Table("units", "units/v1", made)


def electrodes(ids: Sequence[str], columns: Mapping[str, object]) -> Table:
    """The table of electrodes."""
    made = {"electrode": Column(("electrode",), strings(ids))}
    made |= _columns.columns("electrodes", len(ids), columns, "electrodes")
    return Table("electrodes", "electrodes/v1", made)


def behaviour(
    name: str,
    value: Values,
    span: Span,
    *,
    time: ArrayLike | None = None,
    start: float | None = None,
    rate: float | str | Fraction | None = None,
    units: str,
    valid: ArrayLike | None = None,
    description: str = "",
    channels: Sequence[str] | None = None,
    kind: str = "behaviour",
) -> Table:
    """A series of samples (time,) or (time, channel), at times or regular from `start` by `rate`.

    Backward times are sorted stably, with a finding; a sample whose time is missing or out of
    range loses its own `valid`.
    """
    where = f"{kind}/{name}"
    values = _columns.samples(value, where)
    rows, unit = values.shape[0], text(units, f"{where}: units") or "unknown"
    attrs: dict[str, JSON] = {"units": unit}
    if description := text(description, f"{where}: the description"):
        attrs["description"] = description
    mask = None if valid is None else _columns.mask(valid, rows, where)
    findings: list[Finding] = []
    columns: dict[str, Column] = {}
    if time is not None and start is None and rate is None:
        seconds = _columns.times(time, where, "time")
        same_length(where, "time", len(seconds), rows)
        ticks, usable = span.ticks(seconds)
        findings += _time_findings(where, ticks, usable, span)
        mask = _narrowed(mask, usable)
        if (ticks[1:] < ticks[:-1]).any():
            order = np.argsort(ticks, kind="stable")
            ticks, values = ticks[order], _columns.in_order(values, order)
            mask = None if mask is None else mask[order]
        columns["time"] = Column(("time",), ticks, {"units": "tick"})
    elif time is None and start is not None and rate is not None:
        first, usable, more = _regular(where, start, rate, rows, span)
        mask, attrs = _narrowed(mask, usable), attrs | first
        findings += more
    else:
        raise UsageError(f"{where} needs either `time`, or `start` and `rate`.")
    dims = ("time", "channel")[: len(values.shape)]
    columns["value"] = Column(dims, values, {"units": unit})
    if mask is not None:
        columns["valid"] = Column(("time",), mask)
    if channels is not None:
        width = values.shape[1] if len(values.shape) > 1 else 0
        if len(channels) != width:
            raise UsageError(f"{where}: {len(channels)} names for {width} channels.")
        columns["channel"] = Column(("channel",), strings(channels))
    return Table(where, f"{kind}/v1", columns, attrs, tuple(findings), span.clock)


def _regular(
    where: str, start: float, rate: float | str | Fraction, rows: int, span: Span
) -> tuple[dict[str, JSON], NDArray[np.bool_], list[Finding]]:
    """Attributes of a regular series, and whether its start is in range, for every sample."""
    hertz, first = exact(rate), exact(start) - exact(span.shift)
    if hertz <= 0:
        raise UsageError(f"{where} needs a rate above 0 samples per second, found {rate}.")
    attrs: dict[str, JSON] = {"start": span.clock.tick(first), "rate": str(hertz)}
    near = abs(float(first) - span.middle) <= REACH
    if near or not rows:
        return attrs, np.ones(rows, dtype=bool), []
    found, expected = f"{float(first):.9g} s", f"within {REACH:g} s of {span.middle:.6g} s"
    finding = _finding(
        where,
        "time",
        "range",
        f"it starts out of range, at {found}: no sample is valid",
        row=0,
        found=found,
        expected=expected,
        count=rows,
    )
    return attrs, np.zeros(rows, dtype=bool), [finding]


def _narrowed(
    mask: NDArray[np.bool_] | None, usable: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    if usable.all():
        return mask
    return usable if mask is None else mask & usable


def activity(name: str, value: Values, span: Span, **more: Any) -> Table:
    """Dense activity (time, channel); as `behaviour`."""
    return behaviour(name, value, span, kind="activity", **more)


def intervals(
    name: str,
    start: ArrayLike,
    stop: ArrayLike,
    span: Span,
    columns: Mapping[str, object],
    *,
    description: str = "",
    kind: str = "intervals",
    attrs: Mapping[str, JSON] | None = None,
) -> Table:
    """Rows of [start, stop) seconds; one whose start or stop is missing is kept as not valid.

    A float column named ``*_time`` or ``*_times`` holds events: ticks and a mask of its own.
    """
    where, dim = f"{kind}/{name}", contract(kind).dim
    seconds = {"start": _columns.times(start, where, "start")}
    seconds["stop"] = _columns.times(stop, where, "stop")
    seconds |= (said := events(columns, where))
    made: dict[str, Column] = {}
    masks: dict[str, NDArray[np.bool_]] = {}
    found: list[Finding] = []
    for column, each in seconds.items():
        text(column, f"{where}: the name of a column")
        same_length(where, column, len(each), len(seconds["start"]))
        ticks, masks[column] = span.ticks(each)
        made[column] = Column((dim,), ticks, {"units": "tick"})
        found += _range_findings(where, column, masks[column], ticks, span)
    valid = masks.pop("start") & masks.pop("stop")
    made["valid"] = Column((dim,), valid)
    made |= {f"{column}_valid": Column((dim,), there) for column, there in masks.items()}
    plain = {k: v for k, v in columns.items() if k not in said}
    taken = made.keys() | ({"unit"} if kind == "intervals" else set())
    made |= _columns.columns(kind, len(valid), plain, where, taken)
    about = dict(attrs or {})
    if description := text(description, f"{where}: the description"):
        about["description"] = description
    found = [*_missing(where, valid), *found]
    return Table(where, f"{kind}/v1", made, about, tuple(found), span.clock)


def events(columns: Mapping[str, object], where: str) -> dict[str, NDArray[np.float64]]:
    """The columns of intervals that hold event times: floats, by a name that says so."""
    named = {
        name: _columns.cells(values, where, name)
        for name, values in columns.items()
        if name.endswith(("_time", "_times"))
    }
    return {k: v.astype(float) for k, v in named.items() if v.dtype.kind == "f" and v.ndim == 1}


def observed(
    start: ArrayLike, stop: ArrayLike, span: Span, unit: ArrayLike | None, *, assumed: bool
) -> Table:
    """Observed time, with the row of the unit where it differs by unit; overlaps are merged."""
    where = "intervals/observed"
    first, first_there = span.ticks(_columns.times(start, where, "start"))
    stops, last_there = span.ticks(_columns.times(stop, where, "stop"))
    same_length(where, "stop", len(stops), len(first))
    group = None if unit is None else _unit_rows(unit, len(first))
    good = first_there & last_there & (first <= stops)
    findings = []
    if not good.all():
        lost, row = int(np.count_nonzero(~good)), int(np.argmin(good))
        message = f"{lost:,} observed intervals are broken or out of range (first {row}): left out"
        findings.append(_finding(where, "start", "range", message, row=row, count=lost))
    order = np.lexsort((first,) if group is None else (first, group))
    order = order[good[order]]
    first, stops = first[order], stops[order]
    group = None if group is None else group[order]
    keep, merged = _merge(first, stops, group)
    ticks = {"units": "tick"}
    made = {
        "start": Column(("interval",), first[keep], ticks),
        "stop": Column(("interval",), merged, ticks),
        "valid": Column(("interval",), np.ones(len(merged), dtype=bool)),
    }
    if group is not None:
        made["unit"] = Column(("interval",), group[keep])
    if len(merged) < len(first):
        lost = len(first) - len(merged)
        message = f"{lost:,} observed intervals overlapped another one: merged"
        findings.append(_finding(where, "start", "merged", message, count=lost))
    attrs: dict[str, JSON] = {"assumed": bool(assumed)}
    return Table(where, "intervals/v1", made, attrs, tuple(findings), span.clock)


def _unit_rows(unit: ArrayLike, rows: int) -> NDArray[np.uint32]:
    made = np.atleast_1d(np.asarray(unit))
    if made.dtype.kind not in "iu" or (made < 0).any() or (made >= 2**32).any():
        raise UsageError("intervals/observed: 'unit' holds rows of the table of units, from 0 on.")
    same_length("intervals/observed", "unit", len(made), rows)
    return made.astype(np.uint32)


def _merge(
    start: NDArray[np.int64], stop: NDArray[np.int64], group: NDArray[np.uint32] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted intervals → rows that open a merged one, and where each of those stops."""
    keep: list[int] = []
    ends: list[int] = []
    for row in range(len(start)):
        same = bool(keep) and (group is None or group[row] == group[keep[-1]])
        if same and start[row] < ends[-1]:
            ends[-1] = max(ends[-1], int(stop[row]))
        else:
            keep.append(row)
            ends.append(int(stop[row]))
    return np.array(keep, dtype=np.int64), np.array(ends, dtype=np.int64)


# ---- findings


def _time_findings(
    where: str, ticks: NDArray[np.int64], usable: NDArray[np.bool_], span: Span
) -> list[Finding]:
    """Times of samples that are missing, out of range, or lie before the one ahead of them."""
    findings = _range_findings(where, "time", usable, ticks, span)
    missing = ticks == MISSING
    if missing.any():
        row, count = int(np.argmax(missing)), int(np.count_nonzero(missing))
        message = f"{counted(count, 'time stamp')} missing (first at row {row}): not valid"
        findings.append(_finding(where, "time", "missing", message, row=row, count=count))
    rows = np.flatnonzero(usable)
    backward = np.flatnonzero(ticks[rows[1:]] < ticks[rows[:-1]])
    if len(backward):
        row, count = int(rows[backward[0] + 1]), len(backward)
        message = f"{counted(count, 'time stamp')} before the one ahead (first {row}): "
        message += "samples are kept in order of time"
        findings.append(_finding(where, "time", "sorted", message, row=row, count=count))
    return findings


def _range_findings(
    where: str,
    column: str,
    there: NDArray[np.bool_],
    ticks: NDArray[np.int64],
    span: Span,
) -> list[Finding]:
    far = ~there & (ticks != MISSING)
    if not far.any():
        return []
    row, count = int(np.argmax(far)), int(np.count_nonzero(far))
    found = f"{float(span.clock.seconds(ticks[row : row + 1])[0]):.9g} s"
    message = (
        f"{column!r} is out of range in {counted(count, 'row')}, first at row {row}: "
        f"{found}; not valid"
    )
    expected = f"within {REACH:g} s of {span.middle:.6g} s"
    return [
        _finding(
            where, column, "range", message, row=row, found=found, expected=expected, count=count
        )
    ]


def _missing(where: str, valid: NDArray[np.bool_]) -> list[Finding]:
    if valid.all():
        return []
    row, count = int(np.argmin(valid)), int(np.count_nonzero(~valid))
    where_it_is = f"{counted(count, 'row')} (first {row})"
    message = f"start or stop is missing or out of range in {where_it_is}: not valid"
    return [_finding(where, "valid", "missing", message, row=row, count=count)]
