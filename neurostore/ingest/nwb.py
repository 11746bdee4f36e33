"""Read an NWB 2 file into a session: what can be kept is kept, what cannot is named.

`NWB.read` goes through the file in five steps (session, units, electrodes, interval tables,
series). Every column or series it cannot keep leaves a note; what is wrong leaves a finding; what
makes the file unreadable, whatever library raised it, ends as one `RefusedError`.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from neurostore.errors import MissingExtraError, NotFoundError, RefusedError
from neurostore.ingest._nwb_columns import (
    Cells,
    Unkept,
    channels_of,
    column_of,
    is_a,
    items_of,
    names_of,
    pieces_of,
    samples_of,
    set_region,
    spike_times,
    timing_of,
)
from neurostore.ingest._nwb_file import (
    index_fault,
    line_of,
    moment_of,
    opened,
    path_fault,
    plain_of,
    refusing,
    text_of,
    texts_of,
)
from neurostore.schemas import JSON, Finding, Severity
from neurostore.store import SessionBuilder, Source

AT_ONCE = 32 << 20
"""Samples of fewer bytes are read at once, others when they are sliced."""

SUBJECT = ("subject_id", "species", "sex", "age")
SESSION = (
    *("identifier", "session_id", "experimenter", "institution", "keywords", "notes", "protocol"),
    *("related_publications", "experiment_description", "data_collection", "pharmacology"),
    *("surgery", "virus", "slices", "stimulus_notes", "source_script"),
)
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
        with refusing(self.path):
            if fault := path_fault(self.path):
                raise RefusedError(fault)
            with self.path.open("rb") as raw:
                sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
        return Source(self.path.as_posix(), sha256, self.name, self.version)

    def sessions(self) -> list[str]:
        """Ids of the sessions in the file: its own one, else the file's stem."""
        with refusing(self.path), opened(self.path) as file:
            found = file.get("general/session_id")
            return [str(plain_of(found[()]) or self.path.stem) if found else self.path.stem]

    def read(self, session: str) -> SessionBuilder:
        """Everything of the file that a session can hold, large series still on disk."""
        if session not in (known := self.sessions()):
            raise NotFoundError("session", session, known, str(self.path))
        try:
            import pynwb
        except ImportError as error:
            raise MissingExtraError("reading NWB", "nwb") from error
        with refusing(self.path), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with opened(self.path) as file, pynwb.NWBHDF5IO(file=file, mode="r") as io:
                if fault := index_fault(file):
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
            **{key: text_of(getattr(nwb.subject, key, None)) for key in SUBJECT},
            "lab": text_of(nwb.lab),
            "description": text_of(nwb.session_description),
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


@dataclass(frozen=True)
class _Reading:
    """One pass over an open file; every step returns how many rows it kept."""

    builder: SessionBuilder
    file: Any
    manager: Any

    def everything(self, nwb: Any) -> int:
        kept = self.units(nwb.units) + self.electrodes(nwb.electrodes)
        done = (id(nwb.units), id(nwb.electrodes))
        items = [item for item in items_of(nwb) if id(item) not in done]
        paths = [self.path(item) for item in items]
        for path, name, item in zip(paths, names_of(paths), items, strict=True):
            try:
                kept += self.item(path, name, item)
            except Unkept as reason:
                self.leave("/".join(path), reason)
        return kept

    def path(self, item: Any) -> list[str]:
        """Where a pynwb object lies in the file: ``["processing", "behavior", "wheel"]``."""
        path = str(self.manager.get_builder(item).path)
        path.encode()  # a name that is no text is damage, met here rather than when it is stored
        return path.split("/")[1:]

    def leave(self, where: str, reason: Unkept) -> None:
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
            self.leave("units", Unkept("no column 'spike_times'", "spike_times_missing"))
            return 0
        spikes = spike_times(units)
        columns = self.columns(units, "units", skip={"spike_times", "obs_intervals"})
        if "waveform" not in columns and np.ndim(columns.get("waveform_mean", ())) in (2, 3):
            columns["waveform"] = np.asarray(columns.pop("waveform_mean"), dtype=np.float64)
        try:
            set_region(columns, units)
        except Unkept as reason:
            self.leave("units/region", reason)
        self.builder.add_units(spikes, **columns)
        if "obs_intervals" in units.colnames:
            self.observed(units["obs_intervals"])
        return len(spikes.ids)

    def observed(self, column: Any) -> None:
        """Observed time, once where all units share it, else with the row of each unit."""
        try:
            pieces, counts = pieces_of(column)
        except Unkept as reason:
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
            columns["region"] = texts_of(columns.pop("location"))
        ids = [str(one) for one in table.id[:]]
        if len(set(ids)) < len(ids):
            message = "ids are there twice: the rows are the ids now, theirs in 'source_id'"
            self.find("electrode_twice", "violation", "electrodes/id", message)
            columns["source_id"], ids = ids, [str(row) for row in range(len(ids))]
        self.builder.add_electrodes(ids, **columns)
        return len(table)

    def intervals(self, name: str, table: Any) -> int:
        if not len(table):
            raise Unkept("no rows")
        bounds = [
            np.asarray(column_of(table[key], len(table)), dtype=np.float64)
            for key in ("start_time", "stop_time")
        ]
        where = f"intervals/{name}"
        columns = self.columns(table, where, skip={"start_time", "stop_time"})
        self.builder.add_intervals(name, *bounds, description=text_of(table.description), **columns)
        return len(table)

    def columns(self, table: Any, where: str, skip: Collection[str] = ()) -> dict[str, Cells]:
        """Every column with one entry a row, under a name the store has free."""
        kept: dict[str, Cells] = {}
        for name in table.colnames:
            if name in skip:
                continue
            try:
                name.encode()  # as in `path`
                cells = column_of(table[name], len(table))
            except Unkept as reason:
                self.leave(f"{where}/{name}", reason)
                continue
            clash = name in TAKEN or (isinstance(cells, list) and name in LENGTH)
            kept[f"source_{name}" if clash else name] = cells
            if clash:
                self.builder.notes.append(f"{where}/{name}: kept as 'source_{name}'")
        for name in self.unlisted(table):
            self.leave(f"{where}/{name}", Unkept("not among the columns the table lists"))
        return kept

    def unlisted(self, table: Any) -> list[str]:
        """Datasets that lie in the table's group although its `colnames` does not name them."""
        group = self.file.get("/".join(self.path(table)), ())
        known = {column.name for column in table.columns} | {"id"}
        return sorted(name for name in group if name not in known)

    # ---- series

    def item(self, path: list[str], name: str, item: Any) -> int:
        kind = type(item).__name__
        if is_a(item, "TimeIntervals"):
            return self.intervals(name, item)
        if path[0] not in ("acquisition", "processing", "analysis"):
            raise Unkept(f"{kind} in {path[0]!r} has no table in a session")
        if is_a(item, "ImageSeries", "SpikeEventSeries") or not is_a(item, "TimeSeries"):
            raise Unkept(f"{kind} has no table in a session")
        return self.epochs(name, item) if is_a(item, "IntervalSeries") else self.series(name, item)

    def series(self, name: str, item: Any) -> int:
        dense = is_a(item, "ElectricalSeries", "RoiResponseSeries", "PatchClampSeries")
        value = samples_of(item, least=2 if dense else 1)
        small = int(np.prod(value.shape)) * value.dtype.itemsize < AT_ONCE
        add = self.builder.add_activity if dense else self.builder.add_behaviour
        add(
            name,
            value[:] if small else value,
            units=text_of(item.unit),
            description=text_of(item.description).replace("no description", ""),
            channels=channels_of(item, value.shape),
            **timing_of(item, len(value)),
        )
        return len(value)

    def epochs(self, name: str, item: Any) -> int:
        """Add an IntervalSeries, where n > 0 opens an interval of kind n and -n closes it."""
        data = samples_of(item)[:]
        time = timing_of(item, len(data)).get("time")
        if time is None or data.ndim != 1:
            raise Unkept(f"marks of shape {data.shape}, or without timestamps", "time_missing")
        rows = []
        for kind in np.unique(np.abs(data[data != 0])):
            opens, closes = time[data == kind], np.sort(time[data == -kind])
            found = np.searchsorted(closes, opens, side="left")
            stops = np.append(closes, np.nan)[np.minimum(found, len(closes))]
            rows += [(start, stop, int(kind)) for start, stop in zip(opens, stops, strict=True)]
        if not rows:
            raise Unkept("no interval opens in it", "series_empty")
        start, stop, kinds = zip(*sorted(rows), strict=True)
        description = text_of(item.description)
        self.builder.add_intervals(
            name, np.array(start), np.array(stop), description=description, kind=np.array(kinds)
        )
        return len(rows)


def _origin(file: Any) -> str | None:
    return moment_of(file, "timestamps_reference_time") or moment_of(file, "session_start_time")


def _attrs(file: Any, nwb: Any) -> dict[str, JSON]:
    """Collect what else the file says of the session, its subject and its columns."""
    said: dict[str, JSON] = {name: plain_of(getattr(nwb, name, None)) for name in SESSION}
    said["nwb_version"] = text_of(file.attrs["nwb_version"])
    said["session_start_time"] = moment_of(file, "session_start_time")
    lag = (nwb.session_start_time - nwb.timestamps_reference_time).total_seconds()
    said["session_start_s"] = lag or None
    if nwb.subject is not None:
        said["subject_fields"] = _there({k: plain_of(v) for k, v in nwb.subject.fields.items()})
    if nwb.units is not None:
        names = ("resolution", "waveform_rate", "waveform_unit")
        values = {name: plain_of(getattr(nwb.units, name, None)) for name in names}
        said["units_fields"] = _there(values)
    tables = [item for item in items_of(nwb) if is_a(item, "DynamicTable")]
    said["column_descriptions"] = _there({one.name: _descriptions(one) for one in tables})
    return _there(said) or {}


def _descriptions(table: Any) -> dict[str, JSON] | None:
    return _there({name: plain_of(table[name].description) for name in table.colnames})


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
    lines = Counter(line_of(one.message) for one in caught)
    return [
        Finding("nwb/pynwb_warning", "suggestion", "session", "", line, count=count)
        for line, count in lines.items()
        if "cached namespace" not in line
    ]


def _nothing(path: Path, notes: Sequence[str]) -> str:
    left = f" Found and left out: {'; '.join(notes[:5])}." if notes else ""
    return (
        f"{path}: no units, and no electrode, interval or series with a row.{left} "
        "Name the file that holds the processed data."
    )
