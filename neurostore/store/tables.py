"""Tables made of what people have: seconds in, ticks and masks out, oddities as findings.

Each function gives a `Table` on a given clock, ready for `Transaction.update`; `SessionBuilder`
calls them all once it has chosen the clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurostore.clocks import MISSING, REACH, Clock, exact
from neurostore.errors import UsageError
from neurostore.schemas import JSON, Column, Finding, Severity, Table, Values, contract

_STRING = np.dtypes.StringDType()


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
        stops = np.asarray(self.stops)
        ends = int(stops[-1]) if len(stops) else 0
        if len(stops) != len(self.ids) or (np.diff(stops, prepend=0) < 0).any():
            raise UsageError(
                f"Ragged spike times need one rising stop a unit: {len(self.ids)} units, "
                f"{len(stops)} stops."
            )
        if ends != len(self.times):
            raise UsageError(f"The last unit stops at {ends}, but there are {len(self.times)}.")

    @classmethod
    def of(cls, spike_times: Mapping[str, ArrayLike]) -> Ragged:
        """From a mapping of unit id to spike times in seconds."""
        arrays = [np.asarray(times, dtype=np.float64).ravel() for times in spike_times.values()]
        stops = np.cumsum([len(times) for times in arrays], dtype=np.int64)
        joined = np.concatenate(arrays) if arrays else np.zeros(0)
        return cls([str(name) for name in spike_times], joined, stops)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each unit's spikes begin in `times`."""
        return np.concatenate([[0], np.asarray(self.stops)[:-1]]).astype(np.int64)[: len(self.ids)]


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
        times = np.asarray(seconds, dtype=np.float64) - self.shift
        with np.errstate(invalid="ignore"):
            valid = np.abs(times - self.middle) <= REACH
        return self.clock.ticks(times), valid


def _finding(
    table: str, column: str, what: str, message: str, severity: Severity = "violation", **more: Any
) -> Finding:
    kind = table.partition("/")[0]
    check = contract(kind).check(column, what)
    return Finding(check, severity, table, column, f"{table}: {message}", **more)


def spikes(ragged: Ragged, span: Span) -> Table:
    """The spikes of all units in time order, with the index of blocks (see the contract).

    Unsorted times are sorted; a time that is not finite is left out; both with a finding. A time
    out of range is a critical one. Equal times keep the order of the units.
    """
    ragged, findings = finite(ragged)
    findings += _sorted_by_unit(ragged)
    units = max(1, len(ragged.ids))
    keys = np.empty(len(ragged.times), dtype=np.int64)
    for unit, (first, stop) in enumerate(zip(ragged.starts, ragged.stops, strict=True)):
        ticks, valid = span.ticks(ragged.times[first:stop])
        if not valid.all():
            return _out_of_range(ragged, unit, int(np.argmin(valid)), findings)
        keys[first:stop] = ticks * units + unit  # one key to sort by, time first
    keys.sort()
    same = int(np.count_nonzero(keys[1:] == keys[:-1]))
    if same:
        message = f"{same:,} spikes share unit and tick with another one"
        findings.append(_finding("spikes", "time", "twice", message, "suggestion", count=same))
    time = keys // units
    np.subtract(keys, time * units, out=keys)
    rows = keys.astype(np.uint16 if units <= 1 << 16 else np.uint32)
    block, where = blocks(time, span.clock)
    columns = {
        "time": Column(("spike",), time, {"units": "tick"}),
        "unit": Column(("spike",), rows),
        "block": Column(("block",), block, {"units": "1"}),
    }
    return Table("spikes", "spikes/v1", columns, {"block": where}, tuple(findings))


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


def _out_of_range(ragged: Ragged, unit: int, row: int, findings: list[Finding]) -> Table:
    time = ragged.times[int(ragged.starts[unit]) + row]
    message = (
        f"spike {row} of unit {ragged.ids[unit]!r} is at {time:g} s, more than {REACH:g} s from "
        "the median time of the session; mend the clock of the source"
    )
    findings.append(_finding("spikes", "time", "range", message, "critical", row=row))
    columns = {"time": Column(("spike",), np.zeros(0, dtype=np.int64), {"units": "tick"})}
    return Table("spikes", "spikes/v1", columns, {}, tuple(findings))


def finite(ragged: Ragged) -> tuple[Ragged, list[Finding]]:
    """Spike times without the ones that are not finite, and the finding about those."""
    good = np.isfinite(ragged.times)
    if good.all():
        return ragged, []
    count = int(np.count_nonzero(~good))
    row = int(np.argmin(good))
    unit = int(np.searchsorted(ragged.stops, row, side="right"))
    message = f"{count:,} spike times are not finite (first in unit {ragged.ids[unit]!r}): left out"
    kept = np.concatenate([[0], np.cumsum(good)])[np.asarray(ragged.stops)]
    found = _finding("spikes", "time", "finite", message, row=row, count=count)
    return Ragged(ragged.ids, ragged.times[good], kept), [found]


def _sorted_by_unit(ragged: Ragged) -> list[Finding]:
    bad = [
        unit
        for unit, (first, stop) in enumerate(zip(ragged.starts, ragged.stops, strict=True))
        if (np.diff(ragged.times[first:stop]) < 0).any()
    ]
    if not bad:
        return []
    message = (
        f"spike times of {len(bad)} units were not in order (first {ragged.ids[bad[0]]!r}): sorted"
    )
    return [_finding("spikes", "time", "sorted", message, row=bad[0], count=len(bad))]


def units(ragged: Ragged, columns: Mapping[str, object]) -> Table:
    """The table of units: ids, spike counts (finite times only), and the columns given."""
    counted, _ = finite(ragged)
    n_spikes = np.diff(counted.stops, prepend=0).astype(np.int64)
    made = {
        "unit": Column(("unit",), strings(ragged.ids)),
        "n_spikes": Column(("unit",), n_spikes, {"units": "1"}),
        **_columns("units", len(ragged.ids), columns),
    }
    return Table("units", "units/v1", made)


def electrodes(ids: Sequence[str], columns: Mapping[str, object]) -> Table:
    """The table of electrodes."""
    made = {"electrode": Column(("electrode",), strings(ids))}
    return Table(
        "electrodes", "electrodes/v1", {**made, **_columns("electrodes", len(ids), columns)}
    )


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
    values = _plain(value)
    rows = values.shape[0]
    attrs: dict[str, JSON] = {"units": units or "unknown"}
    if description:
        attrs["description"] = description
    mask = None if valid is None else _mask(valid, rows, where)
    findings: list[Finding] = []
    columns: dict[str, Column] = {}
    if time is not None and start is None and rate is None:
        ticks, usable = span.ticks(time)
        _same_length(where, "time", len(ticks), rows)
        findings += _range_findings(where, "time", usable, ticks, span)
        if not usable.all():
            mask = usable if mask is None else mask & usable
        ticks, values, mask, moved = _in_order(where, ticks, values, mask)
        findings += moved
        columns["time"] = Column(("time",), ticks, {"units": "tick"})
    elif time is None and start is not None and rate is not None:
        if exact(rate) <= 0:
            raise UsageError(f"{where} needs a rate above 0 samples per second, found {rate}.")
        attrs |= {
            "start": span.clock.tick(exact(start) - exact(span.shift)),
            "rate": str(exact(rate)),
        }
    else:
        raise UsageError(f"{where} needs either `time`, or `start` and `rate`.")
    dims = ("time", "channel")[: len(values.shape)]
    columns["value"] = Column(dims, values, {"units": units or "unknown"})
    if mask is not None:
        columns["valid"] = Column(("time",), mask)
    if channels is not None:
        columns["channel"] = Column(("channel",), strings(channels))
    return Table(where, f"{kind}/v1", columns, attrs, tuple(findings))


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
    first, first_there = span.ticks(start)
    last, last_there = span.ticks(stop)
    _same_length(where, "stop", len(last), len(first))
    valid = first_there & last_there
    made = {
        "start": Column((dim,), first, {"units": "tick"}),
        "stop": Column((dim,), last, {"units": "tick"}),
        "valid": Column((dim,), valid),
    }
    findings = _missing(where, valid)
    findings += _range_findings(where, "start", first_there, first, span)
    findings += _range_findings(where, "stop", last_there, last, span)
    plain = {}
    for column, values in columns.items():
        if column.endswith(("_time", "_times")) and np.asarray(values).dtype.kind == "f":
            ticks, there = span.ticks(np.asarray(values))
            _same_length(where, column, len(ticks), len(first))
            made[column] = Column((dim,), ticks, {"units": "tick"})
            made[f"{column}_valid"] = Column((dim,), there)
            findings += _range_findings(where, column, there, ticks, span)
        else:
            plain[column] = values
    made |= _columns(kind, len(first), plain, where)
    about: dict[str, JSON] = {"description": description} if description else {}
    return Table(where, f"{kind}/v1", made, about | dict(attrs or {}), tuple(findings))


def observed(
    start: ArrayLike, stop: ArrayLike, span: Span, unit: ArrayLike | None, *, assumed: bool
) -> Table:
    """Observed time, with the row of the unit where it differs by unit; overlaps are merged."""
    first, stops = span.ticks(start)[0], span.ticks(stop)[0]
    group = None if unit is None else np.asarray(unit, dtype=np.uint32)
    order = np.lexsort((first,) if group is None else (first, group))
    first, stops = first[order], stops[order]
    group = None if group is None else group[order]
    keep, merged = _merge(first, stops, group)
    columns: dict[str, object] = {} if group is None else {"unit": group[keep]}
    table = intervals("observed", np.zeros(0), np.zeros(0), span, {}, attrs={"assumed": assumed})
    ticks = {"units": "tick"}
    made = {
        "start": Column(("interval",), first[keep], ticks),
        "stop": Column(("interval",), merged, ticks),
        "valid": Column(("interval",), np.ones(len(merged), dtype=bool)),
        **_columns("intervals", len(merged), columns, "intervals/observed"),
    }
    findings = []
    if len(merged) < len(first):
        lost = len(first) - len(merged)
        message = f"{lost:,} observed intervals overlapped another one: merged"
        findings.append(_finding("intervals/observed", "start", "merged", message, count=lost))
    return Table(table.name, table.contract, made, table.attrs, tuple(findings))


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


# ---- columns


def strings(values: Sequence[object] | NDArray[Any]) -> NDArray[Any]:
    """Anything text-like as a numpy string array; None and NaN become the empty string."""
    texts = ["" if value is None or value != value else _text(value) for value in values]
    return np.array(texts, dtype=_STRING)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _columns(
    kind: str, rows: int, columns: Mapping[str, object], where: str = ""
) -> dict[str, Column]:
    made = {}
    spec = contract(kind)
    for name, values in columns.items():
        array = _array(values)
        _same_length(where or kind, name, len(array), rows)
        attrs: dict[str, JSON] = {}
        said = spec.columns.get(name)
        if said is not None:
            if said.dtype == ("string",) and array.dtype != _STRING:
                array = strings(array.ravel())
            elif len(said.dtype) == 1 and said.dtype[0] not in ("number", "string"):
                array = array.astype(said.dtype[0])
            attrs = {"units": said.units} if said.units else {}
        if said is not None and array.ndim > 1:
            dims = said.all_dims[: array.ndim]
        else:
            dims = (spec.dim, *(f"{name}_{k}" for k in range(1, array.ndim)))
        made[name] = Column(dims, array, attrs)
    return made


def _array(values: object) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind in "OUS" or isinstance(array.dtype, np.dtypes.StringDType):
        if array.ndim != 1:
            raise UsageError(f"A text column has one dimension, found {array.ndim}.")
        return strings(array)
    if array.dtype.kind == "M":
        return strings(np.datetime_as_string(array))
    if array.dtype.kind not in "iufb":
        raise UsageError(f"A column holds numbers, bools or text, found {array.dtype}.")
    if array.dtype in (np.dtype(np.longdouble),):
        array = array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _plain(values: Any) -> Values:
    """Samples as they are if lazy; numpy ones in a dtype that is stored."""
    if not hasattr(values, "shape") or isinstance(values, np.ndarray):
        values = np.asarray(values)
        if values.dtype == bool:
            values = values.astype(np.uint8)
        elif values.dtype.kind in "iuf":
            values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if not values.shape:
        raise UsageError("A series needs samples (time,) or (time, channel), found one number.")
    made: Values = values
    return made


def _mask(valid: ArrayLike, rows: int, where: str) -> NDArray[np.bool_]:
    mask = np.asarray(valid, dtype=bool)
    _same_length(where, "valid", len(mask), rows)
    return mask


def _same_length(where: str, column: str, found: int, expected: int) -> None:
    if found != expected:
        raise UsageError(f"{where}: {column!r} has {found:,} rows, the table has {expected:,}.")


def _in_order(
    where: str, ticks: NDArray[np.int64], values: Values, mask: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int64], Values, NDArray[np.bool_] | None, list[Finding]]:
    backward = ticks[1:] < ticks[:-1]
    if not backward.any():
        return ticks, values, mask, []
    order = np.argsort(ticks, kind="stable")
    count, row = int(np.count_nonzero(backward)), int(np.argmax(backward)) + 1
    message = f"{count:,} time stamps lie before the one ahead of them (first at row {row}): sorted"
    found = _finding(where, "time", "sorted", message, row=row, count=count)
    reordered = np.asarray(values[:])[order]
    return ticks[order], reordered, None if mask is None else mask[order], [found]


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
        f"{column!r} is out of range in {count:,} rows, first at row {row}: {found}; not valid"
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
    message = f"start or stop is missing or out of range in {count:,} rows (first {row}): not valid"
    return [_finding(where, "valid", "missing", message, row=row, count=count)]
