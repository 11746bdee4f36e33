"""Read an NWB 2 file into a session: what can be kept is kept, what cannot is named.

`NWB.read` goes through the file in five steps (session, units, electrodes, interval tables,
series). Every column or series it cannot keep leaves a note; what is wrong leaves a finding; what
makes the file unreadable, whatever library raised it, ends as one `RefusedError`.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from neurostore.errors import MissingExtraError, NeurostoreError, NotFoundError, RefusedError
from neurostore.schemas import JSON, Finding, Severity
from neurostore.store import Ragged, SessionBuilder, Source

Floats: TypeAlias = NDArray[np.float64]
Cells: TypeAlias = "NDArray[Any] | list[str]"
"""One column: (row, ...) numbers or bools, or one text a row."""

AT_ONCE = 32 << 20
"""Samples of fewer bytes are read at once, others when they are sliced."""

LONGEST = 100_000
"""Values that a ragged column may hold to be kept as text."""

REGION = ("region", "brain_region", "location", "area", "brain_area", "acronym")
SUBJECT = ("subject_id", "species", "sex", "age")
SESSION = (
    *("identifier", "session_id", "experimenter", "institution", "keywords", "notes", "protocol"),
    *("related_publications", "experiment_description", "data_collection", "pharmacology"),
    *("surgery", "virus", "slices", "stimulus_notes", "source_script"),
)
EVENTS = ("_time", "_times")
LENGTH = {"x", "y", "z", "depth"}
TAKEN = {"self", "ids", "unit", "n_spikes", "spike_times", "electrode", "interval", "name"}
TAKEN |= {"start", "stop", "valid", "description"}
"""Names a table has for its own columns; a source's column of that name becomes `source_<name>`."""


class NWB:
    """The one session of an NWB 2 file (HDF5).

    Times stay seconds from the file's `timestamps_reference_time`, which is the session's origin.

    Parameters
    ----------
    path : str or Path
        The file.
    dataset : str
        Dataset that the session belongs to.

    Raises
    ------
    RefusedError
        From `sessions` and `read`, for any file that is no readable NWB 2: one line with the cause.
    MissingExtraError
        Where pynwb is not installed.
    """

    name = "nwb"
    version = "1"

    def __init__(self, path: str | Path, dataset: str) -> None:
        self.path = Path(path).absolute()
        self.dataset = dataset

    @cached_property
    def source(self) -> Source:
        """What is read; the digest is taken once."""
        with _refusing(self.path):
            if fault := _fault(self.path):
                raise RefusedError(fault)
            with self.path.open("rb") as raw:
                sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
        return Source(self.path.as_posix(), sha256, self.name, self.version)

    def sessions(self) -> list[str]:
        """Ids of the sessions in the file: its own one, else the file's stem."""
        with _refusing(self.path), _opened(self.path) as file:
            found = file.get("general/session_id")
            return [str(_plain(found[()]) or self.path.stem) if found else self.path.stem]

    def read(self, session: str) -> SessionBuilder:
        """Everything of the file that a session can hold, large series still on disk."""
        if session not in (known := self.sessions()):
            raise NotFoundError("session", session, known, str(self.path))
        try:
            import pynwb
        except ImportError as error:
            raise MissingExtraError("reading NWB", "nwb") from error
        with _refusing(self.path), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with _opened(self.path) as file, pynwb.NWBHDF5IO(file=file, mode="r") as io:
                if fault := _index_fault(file):
                    raise RefusedError(fault)
                nwb = io.read()
                builder = self._builder(session, file, nwb)
                kept = _Reading(builder, file, io.manager).everything(nwb)
            builder.findings.extend(_warned(caught))
        if not kept:
            raise RefusedError(_nothing(self.path, builder.notes), builder.findings)
        return builder

    def _builder(self, session: str, file: Any, nwb: Any) -> SessionBuilder:
        said = {
            **{key: _text(getattr(nwb.subject, key, None)) for key in SUBJECT},
            "lab": _text(nwb.lab),
            "description": _text(nwb.session_description),
        }
        builder = SessionBuilder(
            dataset=self.dataset,
            session=session,
            subject=said["subject_id"],
            species=said["species"],
            sex=said["sex"],
            age=said["age"],
            lab=said["lab"],
            description=said["description"],
            origin=_origin(file),
            source=self.source,
            attrs=_attrs(file, nwb),
        )
        builder.findings.extend(_missing(said, nwb))
        return builder


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of one HDF5 dataset, read when sliced, as ``value * conversion + offset``.

    Parameters
    ----------
    path, name : str
        File, and dataset in it.
    shape, dtype
        Of the values as they come out; a one-dimensional dataset may be given a channel.
    conversion : float or (channel,) float64
        Factor to the unit of the series.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    conversion: float | Floats = 1.0
    offset: float = 0.0

    @property
    def ndim(self) -> int:
        """1 (time) or 2 (time, channel)."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        with _refusing(Path(self.path)), h5py.File(self.path, "r") as file:
            data = file[self.name]
            raw = np.asarray(data[rows] if data.ndim == self.ndim else data[rows][..., None])
        plain = isinstance(self.conversion, float) and (self.conversion, self.offset) == (1.0, 0.0)
        values = raw if plain else raw * self.conversion + self.offset
        return np.asarray(values if self.ndim == 1 else values[..., columns], dtype=self.dtype)


class _Unkept(Exception):
    """Why one column or series is left out; with `check` it is a fault of the file."""

    def __init__(self, reason: str, check: str = "") -> None:
        super().__init__(reason)
        self.check = check


@dataclass(frozen=True)
class _Reading:
    """One pass over an open file; every step returns how many rows it kept."""

    builder: SessionBuilder
    file: Any
    manager: Any

    def everything(self, nwb: Any) -> int:
        kept = self.units(nwb.units) + self.electrodes(nwb.electrodes)
        done = (id(nwb.units), id(nwb.electrodes))
        items = [item for item in _items(nwb) if id(item) not in done]
        paths = [self.path(item) for item in items]
        for path, name, item in zip(paths, _names(paths), items, strict=True):
            try:
                kept += self.item(path, name, item)
            except _Unkept as reason:
                self.leave("/".join(path), reason)
        return kept

    def path(self, item: Any) -> list[str]:
        """Where a pynwb object lies in the file: ``["processing", "behavior", "wheel"]``."""
        path = str(self.manager.get_builder(item).path)
        path.encode()  # a name that is no text is damage, met here rather than when it is stored
        return path.split("/")[1:]

    def leave(self, where: str, reason: _Unkept) -> None:
        self.builder.notes.append(f"{where}: {reason}")
        if reason.check:
            self.find(reason.check, "violation", where, str(reason))

    def find(self, check: str, severity: Severity, where: str, message: str, **more: Any) -> None:
        table, _, variable = where.rpartition("/")
        line = f"{where}: {message}"
        found = Finding(f"nwb/{check}", severity, table or where, variable, line, **more)
        self.builder.findings.append(found)

    # ---- tables

    def units(self, units: Any) -> int:
        if units is None or not len(units):
            return 0
        if "spike_times" not in units.colnames:
            self.leave("units", _Unkept("no column 'spike_times'", "spike_times_missing"))
            return 0
        spikes = _spikes(units)
        columns = self.columns(units, "units", skip={"spike_times", "obs_intervals"})
        if "waveform" not in columns and np.ndim(columns.get("waveform_mean", ())) in (2, 3):
            columns["waveform"] = np.asarray(columns.pop("waveform_mean"), dtype=np.float64)
        try:
            _set_region(columns, units)
        except _Unkept as reason:
            self.leave("units/region", reason)
        self.builder.add_units(spikes, **columns)
        if "obs_intervals" in units.colnames:
            self.observed(units["obs_intervals"])
        return len(spikes.ids)

    def observed(self, column: Any) -> None:
        """Observed time, once where all units share it, else with the row of each unit."""
        try:
            pieces, counts = _pieces(column)
        except _Unkept as reason:
            return self.leave("units/obs_intervals", reason)
        units = np.split(pieces, np.cumsum(counts)[:-1])
        alike = all(np.array_equal(one, units[0]) for one in units)
        pieces = units[0] if alike else pieces
        good = np.isfinite(pieces).all(axis=1) & (pieces[:, 0] <= pieces[:, 1])
        if lost := int(np.count_nonzero(~good)):
            message = f"{lost} pieces lack an end, or stop before they start: left out"
            self.find("observed_broken", "violation", "units/obs_intervals", message, count=lost)
        if good.any():
            unit = None if alike else np.repeat(np.arange(len(counts)), counts)[good]
            self.builder.add_observed(pieces[good, 0], pieces[good, 1], unit=unit)
        return None

    def electrodes(self, table: Any) -> int:
        if table is None or not len(table):
            return 0
        columns = self.columns(table, "electrodes")
        if "location" in columns and "region" not in columns:
            columns["region"] = _texts(columns.pop("location"))
        ids = [str(one) for one in table.id[:]]
        if len(set(ids)) < len(ids):
            message = "ids are there twice: the rows are the ids now, theirs in 'source_id'"
            self.find("electrode_twice", "violation", "electrodes/id", message)
            columns["source_id"], ids = ids, [str(row) for row in range(len(ids))]
        self.builder.add_electrodes(ids, **columns)
        return len(table)

    def intervals(self, name: str, table: Any) -> int:
        if not len(table):
            raise _Unkept("no rows")
        bounds = [
            np.asarray(_column(table[key], len(table)), dtype=np.float64)
            for key in ("start_time", "stop_time")
        ]
        where = f"intervals/{name}"
        columns = self.columns(table, where, skip={"start_time", "stop_time"})
        self.builder.add_intervals(name, *bounds, description=_text(table.description), **columns)
        return len(table)

    def columns(self, table: Any, where: str, skip: Collection[str] = ()) -> dict[str, Cells]:
        """Every column with one entry a row, under a name the store has free."""
        kept: dict[str, Cells] = {}
        for name in table.colnames:
            if name in skip:
                continue
            try:
                name.encode()  # as in `path`
                cells = _column(table[name], len(table))
            except _Unkept as reason:
                self.leave(f"{where}/{name}", reason)
                continue
            clash = name in TAKEN or (isinstance(cells, list) and name in LENGTH)
            kept[f"source_{name}" if clash else name] = cells
            if clash:
                self.builder.notes.append(f"{where}/{name}: kept as 'source_{name}'")
        for name in self.unlisted(table):
            self.leave(f"{where}/{name}", _Unkept("not among the columns the table lists"))
        return kept

    def unlisted(self, table: Any) -> list[str]:
        """Datasets that lie in the table's group although its `colnames` does not name them."""
        group = self.file.get("/".join(self.path(table)), ())
        known = {column.name for column in table.columns} | {"id"}
        return sorted(name for name in group if name not in known)

    # ---- series

    def item(self, path: list[str], name: str, item: Any) -> int:
        kind = type(item).__name__
        if _is(item, "TimeIntervals"):
            return self.intervals(name, item)
        if path[0] not in ("acquisition", "processing", "analysis"):
            raise _Unkept(f"{kind} in {path[0]!r} has no table in a session")
        if _is(item, "ImageSeries", "SpikeEventSeries") or not _is(item, "TimeSeries"):
            raise _Unkept(f"{kind} has no table in a session")
        return self.epochs(name, item) if _is(item, "IntervalSeries") else self.series(name, item)

    def series(self, name: str, item: Any) -> int:
        dense = _is(item, "ElectricalSeries", "RoiResponseSeries", "PatchClampSeries")
        value = _samples(item, least=2 if dense else 1)
        small = int(np.prod(value.shape)) * value.dtype.itemsize < AT_ONCE
        add = self.builder.add_activity if dense else self.builder.add_behaviour
        add(
            name,
            value[:] if small else value,
            units=_text(item.unit),
            description=_text(item.description).replace("no description", ""),
            channels=_channels(item, value.shape),
            **_timing(item, len(value)),
        )
        return len(value)

    def epochs(self, name: str, item: Any) -> int:
        """Add an IntervalSeries, where n > 0 opens an interval of kind n and -n closes it."""
        data = _samples(item)[:]
        time = _timing(item, len(data)).get("time")
        if time is None or data.ndim != 1:
            raise _Unkept(f"marks of shape {data.shape}, or without timestamps", "time_missing")
        rows = []
        for kind in np.unique(np.abs(data[data != 0])):
            opens, closes = time[data == kind], np.sort(time[data == -kind])
            found = np.searchsorted(closes, opens, side="left")
            stops = np.append(closes, np.nan)[np.minimum(found, len(closes))]
            rows += [(start, stop, int(kind)) for start, stop in zip(opens, stops, strict=True)]
        if not rows:
            raise _Unkept("no interval opens in it", "series_empty")
        start, stop, kinds = zip(*sorted(rows), strict=True)
        description = _text(item.description)
        self.builder.add_intervals(
            name, np.array(start), np.array(stop), description=description, kind=np.array(kinds)
        )
        return len(rows)


# ---- reading one thing of pynwb


def _is(item: Any, *kinds: str) -> bool:
    """By class name, so that pynwb is imported only in the call that opens a file."""
    return not {one.__name__ for one in type(item).__mro__}.isdisjoint(kinds)


def _items(item: Any) -> Iterator[Any]:
    """Every series, table and other data of a file, wherever it lies, each once."""
    for child in item.children:
        if _is(child, "TimeSeries", "DynamicTable", "LabMetaData", "Data"):
            yield child
        elif child.children:
            yield from _items(child)
        elif _is(child, "NWBDataInterface"):
            yield child


def _names(paths: Sequence[list[str]]) -> list[str]:
    """One name each: the last part where only one has it, else with the module, else all parts."""
    ways = [
        (path[-1], f"{path[min(1, len(path) - 2)]}_{path[-1]}", "_".join(path))
        if len(path) > 1
        else (path[-1], "_".join(path), "_".join(path))
        for path in paths
    ]
    seen = Counter(way for each in ways for way in set(each)) + Counter(["observed"])
    return [next((way for way in each if seen[way] == 1), each[-1]) for each in ways]


def _stops(column: Any) -> NDArray[np.int64]:
    """Where each row of a ragged column ends in its values; an index that is broken is a fault."""
    if not _is(column, "VectorIndex"):
        raise _Unkept("it has no index, so its values belong to no row", "index_broken")
    total, stops = len(column.target.data), np.asarray(column.data[:], dtype=np.int64)
    falls = np.diff(stops, prepend=0) < 0
    if falls.any():
        row = int(np.argmax(falls))
        raise _Unkept(f"its index falls at row {row}, expected it to rise", "index_broken")
    if len(stops) and stops[-1] != total:
        raise _Unkept(f"its index ends at {stops[-1]}, expected {total} values", "index_broken")
    return stops


def _flat(column: Any) -> Cells:
    if _is(column, "VectorIndex"):
        raise _Unkept("ragged twice")
    if _is(column, "TimeSeriesReferenceVectorData"):
        raise _Unkept("references to time series")
    if len(column.data) and hasattr(column.data[0], "object_id"):
        return [str(one.name) for one in column.data]
    values = np.asarray(column.data[:])
    if _is(column, "EnumData"):
        values = np.asarray(column.elements.data[:])[values]
    if values.dtype.kind in "OSU" and values.ndim == 1:
        if all(isinstance(one, str | bytes) for one in values):
            return _texts(values)
    elif values.dtype.kind in "biuf":
        return values
    raise _Unkept(f"values of type {values.dtype} in {values.ndim} dimensions")


def _column(column: Any, rows: int) -> Cells:
    """Read one entry a row; ragged ones flat where every row has as many, else as JSON text."""
    if not _is(column, "VectorIndex"):
        if len(column.data) != rows:
            raise _Unkept(f"{len(column.data)} entries, expected {rows}", "column_length")
        return _flat(column)
    if _is(column.target, "VectorIndex"):
        raise _Unkept("ragged twice")
    stops = _stops(column)
    counts = np.diff(stops, prepend=0)
    each = int(counts[0]) if (counts == counts[0]).all() else 0
    if not each and stops[-1] > LONGEST:
        raise _Unkept(f"ragged, {stops[-1]:,} values in {rows} rows")
    values = _flat(column.target)
    if each == 1:
        return values
    if each and isinstance(values, np.ndarray) and not column.target.name.endswith(EVENTS):
        return values.reshape(rows, each, *values.shape[1:])
    return [_json(values[a:b]) for a, b in zip(stops - counts, stops, strict=True)]


def _spikes(units: Any) -> Ragged:
    """All spike times in one read: no unit is read by itself."""
    index = units["spike_times"]
    try:
        stops = _stops(index)
        times = np.asarray(index.target.data[:])
        if times.dtype.kind not in "iuf" or times.ndim != 1:
            raise _Unkept(f"found {times.dtype} of shape {times.shape}, expected (spike,) float64")
    except _Unkept as reason:
        raise RefusedError(f"units/spike_times: {reason}. Export the file again.") from reason
    ids = [str(one) for one in units.id[:]]
    return Ragged(ids, times.astype(np.float64, copy=False), stops)


def _pieces(column: Any) -> tuple[Floats, NDArray[np.int64]]:
    """Observed pieces of all units (piece, 2), and how many each unit has."""
    stops = _stops(column)
    pieces = np.asarray(_flat(column.target), dtype=np.float64)
    if pieces.ndim != 2 or pieces.shape[1] != 2:
        raise _Unkept(f"found shape {pieces.shape}, expected (piece, 2)", "column_length")
    return pieces, np.diff(stops, prepend=0)


def _set_region(columns: dict[str, Cells], units: Any) -> None:
    """`region` from the units' own column of that kind, else from where their electrodes lie."""
    own = next((name for name in REGION if isinstance(columns.get(name), list)), None)
    if own is not None:
        columns["region"] = columns.pop(own)
    elif "electrodes" in units.colnames:
        index = units["electrodes"]
        table = (index.target if _is(index, "VectorIndex") else index).table
        if "location" in table.colnames:
            columns["region"] = _regions(index, len(units), _texts(_flat(table["location"])))


def _regions(column: Any, units: int, names: list[str]) -> list[str]:
    """Regions of each unit's electrodes, each once, in their order, with a slash between."""
    ragged = _is(column, "VectorIndex")
    rows = np.asarray((column.target if ragged else column).data[:], dtype=np.int64)
    if ((rows < 0) | (rows >= len(names))).any():
        raise _Unkept(f"electrodes outside the rows 0 to {len(names) - 1}", "link_broken")
    stops = _stops(column) if ragged else np.arange(1, units + 1)
    groups = np.split(rows, stops[:-1])
    return ["/".join(dict.fromkeys(names[row] for row in rows if names[row])) for rows in groups]


def _samples(item: Any, least: int = 1) -> Samples:
    """Find the values of a series, still on disk, in `least` dimensions, with their conversion."""
    data = item.data
    shape, dtype = getattr(data, "shape", None), getattr(data, "dtype", None)
    if shape is None or dtype is None or dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise _Unkept(f"values of type {dtype or type(data).__name__}")
    if len(shape) not in (1, 2):
        raise _Unkept(f"values in {len(shape)} dimensions")
    if 0 in shape:
        raise _Unkept("no samples", "series_empty")
    shape = (*shape, 1) if len(shape) < least else tuple(shape)
    factor, offset = _factor(item, shape), float(item.offset or 0.0)
    if not (np.isfinite(factor).all() and np.isfinite(offset)):
        raise _Unkept(f"conversion {factor}, offset {offset}", "conversion_not_finite")
    if isinstance(factor, np.ndarray) or (factor, offset) != (1.0, 0.0):
        dtype = np.dtype(np.float64)
    native = np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
    return Samples(data.file.filename, data.name, shape, native, factor, offset)


def _factor(item: Any, shape: tuple[int, ...]) -> float | Floats:
    """Find what takes stored values to the unit of the series: one number, or one a channel."""
    factor = 1.0 if item.conversion is None else float(item.conversion)
    each = getattr(item, "channel_conversion", None)
    if each is None:
        return factor
    each = np.asarray(each[:], dtype=np.float64)
    if shape[1:] != each.shape:
        raise _Unkept(f"{len(each)} channel conversions for shape {shape}", "column_length")
    return each * factor


def _timing(item: Any, rows: int) -> dict[str, Any]:
    """Either start and rate, or the time of every sample, in seconds."""
    if item.rate is not None:
        start = float(item.starting_time or 0.0)
        if not (np.isfinite(start) and np.isfinite(item.rate) and item.rate > 0):
            raise _Unkept(f"starting time {start}, rate {item.rate}", "rate_not_positive")
        return {"start": start, "rate": str(item.rate)}
    if item.timestamps is None:
        raise _Unkept("neither rate nor timestamps", "time_missing")
    time = np.asarray(item.timestamps[:], dtype=np.float64)
    if time.shape != (rows,):
        raise _Unkept(f"{rows} samples for {time.size} timestamps", "series_length")
    return {"time": time}


def _channels(item: Any, shape: tuple[int, ...]) -> list[str] | None:
    """Names of the columns: x, y, z of a position; ids of electrodes or of regions of interest."""
    if len(shape) < 2:
        return None
    if _is(item, "SpatialSeries"):
        return list("xyz")[: shape[1]] if shape[1] <= 3 else None
    region = getattr(item, "electrodes", None) or getattr(item, "rois", None)
    if region is None:
        return None
    rows, ids = np.asarray(region.data[:], dtype=np.int64), region.table.id[:]
    names = [str(ids[row]) for row in rows if 0 <= row < len(ids)]
    return names if len(names) == len(set(names)) == shape[1] else None


# ---- plain values


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    clean = "" if text is None else str(text).replace("\0", "").strip()
    return clean.encode("utf-8", "replace").decode()


def _texts(values: Any) -> list[str]:
    return [_text(one) for one in values]


def _json(values: Any) -> str:
    return json.dumps([_plain(one) for one in values])


def _plain(value: Any) -> JSON:
    """Turn a value into JSON; None for what is empty, not finite or no such value."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str | bytes):
        return _text(value) or None
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, datetime | timedelta):
        return value.isoformat() if isinstance(value, datetime) else value.total_seconds()
    if isinstance(value, list | tuple) or hasattr(value, "shape"):
        return [_plain(one) for one in value[:]] or None
    return None


# ---- the session


def _moment(file: Any, name: str) -> str | None:
    """Read a date-time as ISO 8601 in the time zone it names; None where it is none."""
    try:
        return datetime.fromisoformat(_text(file[name][()])).isoformat()
    except (KeyError, ValueError):
        return None


def _origin(file: Any) -> str | None:
    return _moment(file, "timestamps_reference_time") or _moment(file, "session_start_time")


def _attrs(file: Any, nwb: Any) -> dict[str, JSON]:
    """Collect what else the file says of the session, its subject and its columns."""
    said: dict[str, JSON] = {name: _plain(getattr(nwb, name, None)) for name in SESSION}
    said["nwb_version"] = _text(file.attrs["nwb_version"])
    said["session_start_time"] = _moment(file, "session_start_time")
    lag = (nwb.session_start_time - nwb.timestamps_reference_time).total_seconds()
    said["session_start_s"] = lag or None
    if nwb.subject is not None:
        said["subject_fields"] = _there({k: _plain(v) for k, v in nwb.subject.fields.items()})
    if nwb.units is not None:
        names = ("resolution", "waveform_rate", "waveform_unit")
        values = {name: _plain(getattr(nwb.units, name, None)) for name in names}
        said["units_fields"] = _there(values)
    tables = [item for item in _items(nwb) if _is(item, "DynamicTable")]
    said["column_descriptions"] = _there({one.name: _descriptions(one) for one in tables})
    return _there(said) or {}


def _descriptions(table: Any) -> dict[str, JSON] | None:
    return _there({name: _plain(table[name].description) for name in table.colnames})


def _there(said: Mapping[str, JSON]) -> dict[str, JSON] | None:
    return {name: value for name, value in said.items() if value is not None} or None


def _missing(said: dict[str, str], nwb: Any) -> list[Finding]:
    if nwb.subject is None:
        absent = ["subject", *(name for name in ("lab", "description") if not said[name])]
    else:
        absent = [name for name, value in said.items() if not value]
    return [
        Finding(f"nwb/{name}_missing", "suggestion", "session", name, f"session: no {name}")
        for name in absent
    ]


def _warned(caught: Sequence[warnings.WarningMessage]) -> list[Finding]:
    lines = Counter(_line(one.message) for one in caught)
    return [
        Finding("nwb/pynwb_warning", "suggestion", "session", "", line, count=count)
        for line, count in lines.items()
        if "cached namespace" not in line
    ]


# ---- opening, and the one place where every failure becomes a line


def _line(what: object) -> str:
    text = " ".join(_text(what).split()) or type(what).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Any bytes may lie in a file: whatever a library raises over them refuses it in one line."""
    try:
        yield
    except MissingExtraError:
        raise
    except NeurostoreError as error:
        line = error.line if error.line.startswith(str(path)) else f"{path}: {error.line}"
        raise RefusedError(line, getattr(error, "findings", ())) from error.__cause__
    except Exception as error:
        cause = f"{type(error).__name__}: {_line(error.args[-1] if error.args else '')}"
        raise RefusedError(
            f"{path}: cannot be read as NWB 2 ({cause}). Fetch or export the file again."
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open the HDF5 file, after a look at what it is."""
    if fault := _fault(path) or ("" if h5py.is_hdf5(path) else _guess(path)):
        raise RefusedError(fault)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        ends = re.search(r"eof = (\d+).*stored_eof = (\d+)", str(error))
        if ends is None:
            raise
        sizes = f"{int(ends[1]):,} bytes, expected {int(ends[2]):,}"
        raise RefusedError(f"truncated HDF5: {sizes}. Fetch the file again.") from error
    with file:
        if fault := _version_fault(file):
            raise RefusedError(fault)
        yield file


def _fault(path: Path) -> str:
    if not path.exists():
        return "no such file. Check the path."
    if path.is_dir():
        zarr = any((path / name).exists() for name in (".zgroup", ".zattrs", "zarr.json"))
        kind = "NWB in a Zarr folder" if zarr else "a folder"
        return f"{kind}, expected one HDF5 file. Name the .nwb file, exported as HDF5."
    return "" if path.stat().st_size else "an empty file (0 bytes). Fetch it again."


def _guess(path: Path) -> str:
    """Say what a file without the HDF5 signature is, and the way out."""
    with path.open("rb") as raw:
        head = raw.read(512)
    if head.startswith(b"version https://git-lfs"):
        size = re.search(rb"size (\d+)", head)
        whole = f" of {int(size[1]):,} bytes" if size else ""
        return f"a git-LFS pointer, not the file{whole} it stands for. Run `git lfs pull`."
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page (HTML), expected HDF5. Fetch the file by its download address."
    kind = "text" if re.fullmatch(rb"[\t\r\n\x20-\x7e\x80-\xff]+", head) else "no HDF5"
    return f"{kind} (begins {head[:12]!r}), expected HDF5. Fetch or export the file again."


def _version_fault(file: Any) -> str:
    said = _plain(file.attrs.get("nwb_version"))
    if said is None and "nwb_version" in file:
        said = _plain(file["nwb_version"][()])
    if said is None:
        found = ", ".join(list(file)[:5]) or "nothing"
        return f"HDF5 without NWB: no 'nwb_version', found {found}. Name an NWB 2 file."
    version = str(said).upper().removeprefix("NWB-")
    if version.startswith(("0.", "1.")):
        return f"NWB {version}, expected NWB 2. Export it again as NWB 2 from the original data."
    return ""


def _index_fault(file: Any) -> str:
    """Say what is wrong with the index of the spikes, before pynwb says it of the whole table."""
    units = file.get("units", {})
    if "spike_times" not in units:
        return ""
    if "spike_times_index" not in units:
        return "units/spike_times has no index: no spike belongs to a unit. Export the file again."
    found, rows = len(units["spike_times_index"]), len(units["id"])
    if found != rows:
        return f"units/spike_times_index has {found} entries for {rows} units. Export it again."
    return ""


def _nothing(path: Path, notes: Sequence[str]) -> str:
    left = f" Found and left out: {'; '.join(notes[:5])}." if notes else ""
    return (
        f"{path}: no units, and no electrode, interval or series with a row.{left} "
        "Name the file that holds the processed data."
    )
