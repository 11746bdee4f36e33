"""Columns and series of an open NWB file as arrays, or the reason why one is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import RefusedError
from neurostore.ingest._nwb_file import Floats, Samples, json_text, texts_of
from neurostore.store import Ragged

Cells: TypeAlias = "NDArray[Any] | list[str]"
"""One column: (row, ...) numbers or bools, or one text a row."""

LONGEST = 100_000
"""Values that a ragged column may hold to be kept as text."""

REGION = ("region", "brain_region", "location", "area", "brain_area", "acronym")
EVENTS = ("_time", "_times")


class Unkept(Exception):
    """Why one column or series is left out; with `check` it is a fault of the file."""

    def __init__(self, reason: str, check: str = "") -> None:
        super().__init__(reason)
        self.check = check


def is_a(item: Any, *kinds: str) -> bool:
    """By class name, so that pynwb is imported only in the call that opens a file."""
    return not {one.__name__ for one in type(item).__mro__}.isdisjoint(kinds)


def items_of(item: Any) -> Iterator[Any]:
    """Every series, table and other data of a file, wherever it lies, each once."""
    for child in item.children:
        if is_a(child, "TimeSeries", "DynamicTable", "LabMetaData", "Data"):
            yield child
        elif child.children:
            yield from items_of(child)
        elif is_a(child, "NWBDataInterface"):
            yield child


def names_of(paths: Sequence[list[str]]) -> list[str]:
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
    if not is_a(column, "VectorIndex"):
        raise Unkept("it has no index, so its values belong to no row", "index_broken")
    total, stops = len(column.target.data), np.asarray(column.data[:], dtype=np.int64)
    falls = np.diff(stops, prepend=0) < 0
    if falls.any():
        row = int(np.argmax(falls))
        raise Unkept(f"its index falls at row {row}, expected it to rise", "index_broken")
    if len(stops) and stops[-1] != total:
        raise Unkept(f"its index ends at {stops[-1]}, expected {total} values", "index_broken")
    return stops


def _flat(column: Any) -> Cells:
    if is_a(column, "VectorIndex"):
        raise Unkept("ragged twice")
    if is_a(column, "TimeSeriesReferenceVectorData"):
        raise Unkept("references to time series")
    if len(column.data) and hasattr(column.data[0], "object_id"):
        return [str(one.name) for one in column.data]
    values = np.asarray(column.data[:])
    if is_a(column, "EnumData"):
        values = np.asarray(column.elements.data[:])[values]
    if values.dtype.kind in "OSU" and values.ndim == 1:
        if all(isinstance(one, str | bytes) for one in values):
            return texts_of(values)
    elif values.dtype.kind in "biuf":
        return values
    raise Unkept(f"values of type {values.dtype} in {values.ndim} dimensions")


def column_of(column: Any, rows: int) -> Cells:
    """Read one entry a row; ragged ones flat where every row has as many, else as JSON text."""
    if not is_a(column, "VectorIndex"):
        if len(column.data) != rows:
            raise Unkept(f"{len(column.data)} entries, expected {rows}", "column_length")
        return _flat(column)
    if is_a(column.target, "VectorIndex"):
        raise Unkept("ragged twice")
    stops = _stops(column)
    counts = np.diff(stops, prepend=0)
    each = int(counts[0]) if (counts == counts[0]).all() else 0
    if not each and stops[-1] > LONGEST:
        raise Unkept(f"ragged, {stops[-1]:,} values in {rows} rows")
    values = _flat(column.target)
    if each == 1:
        return values
    if each and isinstance(values, np.ndarray) and not column.target.name.endswith(EVENTS):
        return values.reshape(rows, each, *values.shape[1:])
    return [json_text(values[a:b]) for a, b in zip(stops - counts, stops, strict=True)]


def spike_times(units: Any) -> Ragged:
    """All spike times in one read: no unit is read by itself."""
    index = units["spike_times"]
    try:
        stops = _stops(index)
        times = np.asarray(index.target.data[:])
        if times.dtype.kind not in "iuf" or times.ndim != 1:
            raise Unkept(f"found {times.dtype} of shape {times.shape}, expected (spike,) float64")
    except Unkept as reason:
        raise RefusedError(f"units/spike_times: {reason}. Export the file again.") from reason
    ids = [str(one) for one in units.id[:]]
    return Ragged(ids, times.astype(np.float64, copy=False), stops)


def pieces_of(column: Any) -> tuple[Floats, NDArray[np.int64]]:
    """Observed pieces of all units (piece, 2), and how many each unit has."""
    stops = _stops(column)
    pieces = np.asarray(_flat(column.target), dtype=np.float64)
    if pieces.ndim != 2 or pieces.shape[1] != 2:
        raise Unkept(f"found shape {pieces.shape}, expected (piece, 2)", "column_length")
    return pieces, np.diff(stops, prepend=0)


def set_region(columns: dict[str, Cells], units: Any) -> None:
    """`region` from the units' own column of that kind, else from where their electrodes lie."""
    own = next((name for name in REGION if isinstance(columns.get(name), list)), None)
    if own is not None:
        columns["region"] = columns.pop(own)
    elif "electrodes" in units.colnames:
        index = units["electrodes"]
        table = (index.target if is_a(index, "VectorIndex") else index).table
        if "location" in table.colnames:
            columns["region"] = _regions(index, len(units), texts_of(_flat(table["location"])))


def _regions(column: Any, units: int, names: list[str]) -> list[str]:
    """Regions of each unit's electrodes, each once, in their order, with a slash between."""
    ragged = is_a(column, "VectorIndex")
    rows = np.asarray((column.target if ragged else column).data[:], dtype=np.int64)
    if ((rows < 0) | (rows >= len(names))).any():
        raise Unkept(f"electrodes outside the rows 0 to {len(names) - 1}", "link_broken")
    stops = _stops(column) if ragged else np.arange(1, units + 1)
    groups = np.split(rows, stops[:-1])
    return ["/".join(dict.fromkeys(names[row] for row in rows if names[row])) for rows in groups]


def samples_of(item: Any, least: int = 1) -> Samples:
    """Find the values of a series, still on disk, in `least` dimensions, with their conversion."""
    data = item.data
    shape, dtype = getattr(data, "shape", None), getattr(data, "dtype", None)
    if shape is None or dtype is None or dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise Unkept(f"values of type {dtype or type(data).__name__}")
    if len(shape) not in (1, 2):
        raise Unkept(f"values in {len(shape)} dimensions")
    if 0 in shape:
        raise Unkept("no samples", "series_empty")
    shape = (*shape, 1) if len(shape) < least else tuple(shape)
    factor, offset = _factor(item, shape), float(item.offset or 0.0)
    if not (np.isfinite(factor).all() and np.isfinite(offset)):
        raise Unkept(f"conversion {factor}, offset {offset}", "conversion_not_finite")
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
        raise Unkept(f"{len(each)} channel conversions for shape {shape}", "column_length")
    return each * factor


def timing_of(item: Any, rows: int) -> dict[str, Any]:
    """Either start and rate, or the time of every sample, in seconds."""
    if item.rate is not None:
        start = float(item.starting_time or 0.0)
        if not (np.isfinite(start) and np.isfinite(item.rate) and item.rate > 0):
            raise Unkept(f"starting time {start}, rate {item.rate}", "rate_not_positive")
        return {"start": start, "rate": str(item.rate)}
    if item.timestamps is None:
        raise Unkept("neither rate nor timestamps", "time_missing")
    time = np.asarray(item.timestamps[:], dtype=np.float64)
    if time.shape != (rows,):
        raise Unkept(f"{rows} samples for {time.size} timestamps", "series_length")
    return {"time": time}


def channels_of(item: Any, shape: tuple[int, ...]) -> list[str] | None:
    """Names of the columns: x, y, z of a position; ids of electrodes or of regions of interest."""
    if len(shape) < 2:
        return None
    if is_a(item, "SpatialSeries"):
        return list("xyz")[: shape[1]] if shape[1] <= 3 else None
    region = getattr(item, "electrodes", None) or getattr(item, "rois", None)
    if region is None:
        return None
    rows, ids = np.asarray(region.data[:], dtype=np.int64), region.table.id[:]
    names = [str(ids[row]) for row in rows if 0 <= row < len(ids)]
    return names if len(names) == len(set(names)) == shape[1] else None
