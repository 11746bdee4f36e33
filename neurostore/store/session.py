"""`Session`: one recording of a store, read lazily; seconds outside, ticks inside."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurostore.cache._packed import check_index
from neurostore.clocks import MISSING, Clock, as_seconds, exact
from neurostore.errors import (
    DamagedError,
    MissingExtraError,
    NotFoundError,
    UsageError,
    counted,
)
from neurostore.intervals import Intervals
from neurostore.schemas import Column, Finding, Table, migrate
from neurostore.splits import Timeline, TrialRows
from neurostore.store import _cached, _catalogue
from neurostore.store._chunks import Chunks
from neurostore.store._format import CHUNK, segment, session_path

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from zarr.abc.store import Store as ZarrStore

    from neurostore.cache import Cache, Entry, Packed
    from neurostore.store.store import Store
    from neurostore.store.tables import Span

_PLAIN_INDEX = 10_000_000
"""Samples above which the time of a regular series is an `xarray.indexes.RangeIndex`, which is
computed where it is asked for but selects by ``method="nearest"`` only."""


@dataclass(frozen=True, eq=False)
class Session:
    """One session at one snapshot.

    Tables are lazy: nothing but metadata is read until values are asked for. Times are seconds on
    the session clock; `stored` gives a table as it lies in the store, in ticks.

    Attributes
    ----------
    id : str
        ``<dataset>/<session>``.
    attrs : mapping
        What the store keeps about the session: metadata, clock, source, findings, notes, row.
    bounds : (int, int) or None
        First tick and stop tick of a `slice`.
    """

    store: Store = field(repr=False)
    id: str
    attrs: Mapping[str, Any] = field(repr=False)
    bounds: tuple[int, int] | None = None
    _chunks: Chunks = field(default_factory=Chunks, repr=False)
    _kept: dict[tuple[str, str], tuple[Cache, Entry | None, Any]] = field(
        default_factory=dict, repr=False
    )

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.store, self.id, self.bounds)

    # ---- what it is

    @property
    def dataset(self) -> str:
        """The dataset it belongs to."""
        return str(self.attrs["dataset"])

    @cached_property
    def clock(self) -> Clock:
        """Its clock: ticks per second and the date-time of tick 0."""
        said = self.attrs["clock"]
        return Clock(exact(said["rate"]), said["origin"])

    @property
    def span(self) -> Span:
        """Its clock and range, for a new table (see `neurostore.tables`, `Transaction.update`)."""
        from neurostore.store.tables import Span

        middle = (self.start + self.stop) / 2 if self.attrs["row"]["start"] is not None else 0.0
        return Span(self.clock, middle=middle)

    @property
    def metadata(self) -> dict[str, Any]:
        """Subject, species and whatever else the source says."""
        return dict(self.attrs["metadata"])

    @property
    def findings(self) -> list[Finding]:
        """What was wrong with the source and was kept."""
        return [Finding(**finding) for finding in self.attrs["findings"]]

    @property
    def notes(self) -> list[str]:
        """What the reader left out, and why."""
        return list(self.attrs["notes"])

    @property
    def tables(self) -> list[str]:
        """Names of its tables: ``"spikes"``, ``"behaviour/wheel"``, ..."""
        return sorted(self.attrs["row"]["tables"])

    @property
    def start(self) -> float:
        """First time of any table (of the slice), in seconds; NaN without times."""
        return self._end("start", 0)

    @property
    def stop(self) -> float:
        """Last time of any table (of the slice), in seconds; NaN without times."""
        return self._end("stop", 1)

    def _end(self, name: str, side: int) -> float:
        if self.bounds is not None:
            return float(self.clock.seconds(np.array([self.bounds[side]]))[0])
        said = self.attrs["row"][name]
        return float("nan") if said is None else float(said)

    # ---- tables

    def stored(self, name: str, version: str | None = None) -> Table:
        """A table as it lies in the store: ticks, every column lazy.

        Parameters
        ----------
        version : str, optional
            ``"v2"``: migrated to that version of its contract while it is read.

        Raises
        ------
        NotFoundError
            With the nearest table there is.
        DamagedError
            Where its metadata is not what was written, or does not fit its contract.
        """
        entries = self.attrs["row"]["tables"]
        if name not in entries:
            raise NotFoundError("table", name, entries, self.id)
        from neurostore.store.layout import read_table

        table = read_table(self._zarr, session_path(self.id), name, entries[name])
        return table if version is None else migrate(table, version)

    def table(self, name: str, version: str | None = None) -> Table:
        """A table as `stored` gives it, for those who read it again and again.

        Its values are decoded once, into the window cache (see `neurostore.cache`), and mapped into
        memory from there; strings are objects. Where there is no cache, and for stores in memory,
        it is the stored one; with `version` it is the stored one migrated, as of `stored`.
        """
        if version is not None:
            return self.stored(name, version)
        if name not in self.attrs["row"]["tables"]:
            return self.stored(name)  # which says what there is
        found = _cached.table(self, name)
        return self.stored(name) if found is None else found

    @property
    def packed(self) -> Packed | None:
        """All spikes, of a slice too, packed and memory mapped; None where they are read directly.

        That is without a window cache, for stores in memory, and where there is no such table.
        """
        return _cached.packed(self)

    def __getitem__(self, name: str) -> xr.Dataset:
        """A table as an `xarray.Dataset`, times in seconds; the values stay lazy."""
        from neurostore.store.layout import Seconds

        table = self.stored(name)
        rate = self.clock.rate
        columns = {
            key: Column(column.dims, Seconds(column.values, rate), {**column.attrs, "units": "s"})
            if column.attrs.get("units") == "tick"
            else column
            for key, column in table.columns.items()
        }
        dataset = Table(table.name, table.contract, columns, table.attrs).to_xarray(indexed=True)
        if "rate" in table.attrs:
            dataset = _regular(dataset, table, self.clock)
        return dataset if self.bounds is None else self._within(name, dataset)

    def _within(self, name: str, dataset: xr.Dataset) -> xr.Dataset:
        """The part of a table that lies in the slice; intervals that touch it are kept whole."""
        start, stop = self.start, self.stop
        kind = name.partition("/")[0]
        if name == "spikes":
            first, last = self._rows(*self._all_ticks())
            return dataset.isel(spike=slice(first, last)).drop_vars("block", errors="ignore")
        if kind in ("behaviour", "activity"):
            time = np.asarray(dataset["time"].values)
            return dataset.isel(time=(time >= start) & (time < stop))
        if kind in ("intervals", "presentations"):
            touches = (dataset["start"].values < stop) & (dataset["stop"].values > start)
            return dataset.isel({str(dataset["start"].dims[0]): touches})
        return dataset

    @property
    def units(self) -> xr.Dataset:
        """The units, by id along `unit`."""
        return self["units"]

    @property
    def spikes(self) -> xr.Dataset:
        """All spikes in time order: `time` in seconds, `unit` as row of `units`."""
        return self["spikes"]

    @property
    def intervals(self) -> Group:
        """Trials, epochs, observed time: ``session.intervals["trials"]``."""
        return Group(self, "intervals")

    @property
    def behaviour(self) -> Group:
        """Series of samples: ``session.behaviour["wheel"]``."""
        return Group(self, "behaviour")

    @property
    def activity(self) -> Group:
        """Dense activity: ``session.activity["voltage"]``."""
        return Group(self, "activity")

    @property
    def presentations(self) -> Group:
        """What was shown when: ``session.presentations["movie"]``."""
        return Group(self, "presentations")

    @property
    def _zarr(self) -> ZarrStore:
        return self.store.zarr

    # ---- spikes

    def slice(self, start: float, stop: float) -> Session:
        """The session between two times in seconds, [start, stop); as lazy as the whole."""
        first, last = self.clock.tick(start), self.clock.tick(stop)
        if last <= first:
            raise UsageError(f"A slice needs start < stop, found [{start}, {stop}) s.")
        if self.bounds is not None:
            first, last = max(first, self.bounds[0]), min(last, self.bounds[1])
        bounds = (first, max(first, last))
        return Session(self.store, self.id, self.attrs, bounds, self._chunks, self._kept)

    def spike_times(self, unit: str) -> NDArray[np.float64]:
        """Spike times of one unit (spike,) float64 seconds, ascending."""
        return self.clock.seconds(self._unit_ticks(unit))

    def counts(
        self,
        start: float | str | Fraction,
        stop: float | str | Fraction,
        bin: float | str | Fraction,
        units: Sequence[str] | None = None,
    ) -> xr.DataArray:
        """Spike counts (unit, bin) int32 of the whole bins in [start, stop), exact on ticks.

        Bin k is [start + floor(k · bin · rate), start + floor((k + 1) · bin · rate)) ticks.

        Parameters
        ----------
        start, stop, bin : seconds
            Exact as written (0.1 is 1/10; "1/3" and fractions may be given). May reach past the
            ends of the session: there are no spikes there.
        units : sequence of str, optional
            Some units, in this order; all without it.

        Returns
        -------
        xarray.DataArray
            With the coordinates `unit` (ids), `time` (start of every bin, seconds) and `observed`:
            whether the whole bin is observed time, (bin) or, where that differs, (unit, bin).
        """
        import xarray as xr

        if exact(stop) < exact(start):
            raise UsageError(f"counts needs start <= stop, found start {start} s, stop {stop} s.")
        edges = self.clock.edges(self.clock.tick(start), self.clock.bins(start, stop, bin), bin)
        ids = self._ids
        rows = np.arange(len(ids)) if units is None else self.unit_rows(units)
        values = self._bin(edges)[rows]
        coords = {
            "unit": ids[rows].astype(object),
            "time": ("bin", self.clock.seconds(edges[:-1]), {"units": "s"}),
            "observed": self._observed_bins(rows, edges),
        }
        return xr.DataArray(values, coords, ("unit", "bin"), "counts", {"bin": float(exact(bin))})

    def binned(
        self,
        bin: float | str | Fraction,
        *,
        units: Sequence[str] | None = None,
        start: float | str | Fraction | None = None,
        stop: float | str | Fraction | None = None,
        chunk: int | None = None,
    ) -> xr.DataArray:
        """Counts (unit, bin) of the whole session, lazily: as `counts`, chunk by chunk, in dask.

        Parameters
        ----------
        bin : seconds
        units : sequence of str, optional
            Some units, in this order; all without it.
        start, stop : seconds, optional
            The session's own without them; the whole bins between them are counted.
        chunk : int, optional
            Bins of a chunk; about four million counts without it.

        Returns
        -------
        xarray.DataArray
            As of `counts`; the values and `observed` are dask arrays.

        Raises
        ------
        MissingExtraError
            Without dask.
        """
        from neurostore.store._binned import binned

        rows = np.arange(len(self._ids)) if units is None else self.unit_rows(units)
        first, last = (self.start if start is None else start, self.stop if stop is None else stop)
        if not exact(first) <= exact(last):
            raise UsageError(f"binned needs start <= stop, found start {first} s, stop {last} s.")
        return binned(self, bin, rows, first, last, chunk)

    def events(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> Events:
        """Spikes of all units in windows [start, stop) ticks, (window,) each, which may overlap."""
        pieces = self.pieces(start, stop)
        window = np.repeat(np.arange(len(pieces)), [len(time) for time, _ in pieces])
        if not pieces:
            none = np.zeros(0, dtype=np.int64)
            return Events(window, none, none)
        time, unit = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        return Events(window, time, unit.astype(np.int64))

    def spike_rows(self, start: int, stop: int) -> tuple[int, int]:
        """First spike in [start, stop) ticks and the one after the last, as rows of the table."""
        return self._rows(start, max(start, stop))

    def chunk_rows(self, table: str) -> int:
        """Rows in a chunk of a table as it is stored."""
        main = next(iter(self.stored(table).columns.values())).values
        return int(getattr(main, "chunks", main.shape)[0])

    def is_cached(self, table: str) -> bool:
        """Whether this session reads the table from the window cache now."""
        return any(name == table and kept[1] is not None for (name, _), kept in self._kept.items())

    def psth(
        self,
        unit: str,
        times: ArrayLike,
        window: tuple[float, float] = (-0.5, 1.0),
        bin: float | str | Fraction = 0.02,
    ) -> xr.Dataset:
        """Peri-event time histogram of one unit.

        Parameters
        ----------
        times : (event,) seconds
            Events; those that are not finite are left out and counted in the attribute `missing`.
        window : (float, float)
            Seconds before (negative) and after each event.
        bin : float
            Seconds; whole bins only.

        Returns
        -------
        xarray.Dataset
            count (trial, bin) int32 and whether the whole bin is observed time (trial, bin);
            rate_hz (bin) and its sem (bin) over the observed ones, NaN where there is none; time
            (bin): centres in seconds from the event, event (trial): event times.
        """
        import xarray as xr

        events = as_seconds(times, "events").ravel()
        ticks = self.clock.ticks(events)
        there = ticks != MISSING
        if not there.any():
            raise UsageError(f"psth needs at least one finite event, found {len(events)} in all.")
        edges = self.clock.edges(
            self.clock.tick(window[0]), self.clock.bins(window[0], window[1], bin), bin
        )
        if len(edges) < 2:
            raise UsageError(f"The window {window} s holds no whole bin of {bin} s.")
        at = ticks[there][:, None] + edges[None, :]
        count = np.diff(np.searchsorted(self._unit_ticks(unit), at, side="left"), axis=1)
        seen = self.observed(unit).covers(at[:, :-1], at[:, 1:])
        if not seen.any():
            raise UsageError(f"No bin around any of the {len(at)} events lies in observed time.")
        rate, sem = _mean_and_sem(count / float(exact(bin)), seen)
        seconds = self.clock.seconds(edges)
        return xr.Dataset(
            {
                "count": (("trial", "bin"), count.astype(np.int32)),
                "observed": (("trial", "bin"), seen),
                "rate_hz": ("bin", rate, {"units": "Hz"}),
                "sem": ("bin", sem, {"units": "Hz"}),
            },
            {
                "time": ("bin", (seconds[:-1] + seconds[1:]) / 2, {"units": "s"}),
                "event": ("trial", events[there], {"units": "s"}),
            },
            {"unit": unit, "bin": float(exact(bin)), "missing": int(np.count_nonzero(~there))},
        )

    @cached_property
    def _ids(self) -> NDArray[Any]:
        if "units" not in self.tables:
            raise UsageError(
                f"{self.id} holds no units, so it has no spikes. It has: {', '.join(self.tables)}."
            )
        return np.asarray(self.table("units").columns["unit"].values[:])

    def unit_rows(self, units: Sequence[str]) -> NDArray[np.int64]:
        """Rows (unit,) of units in the table of units, by their ids."""
        rows = {str(name): row for row, name in enumerate(self._ids)}
        for name in units:
            if str(name) not in rows:
                raise NotFoundError("unit", str(name), rows, self.id)
        return np.array([rows[str(name)] for name in units], dtype=np.int64)

    @cached_property
    def _observed_table(self) -> dict[str, NDArray[Any]]:
        if "intervals/observed" not in self.tables:
            whole = {"start": np.array([-(2**62)]), "stop": np.array([2**62])}
            return {name: value.astype(np.int64) for name, value in whole.items()}
        columns = self.table("intervals/observed").columns
        return {name: np.asarray(column.values[:]) for name, column in columns.items()}

    def observed(self, unit: str | None = None) -> Intervals:
        """Observed time in ticks: of one unit, or the time when any unit was observed.

        A session whose source does not say is observed at all times.
        """
        return self._observed(None if unit is None else int(self.unit_rows([unit])[0]))

    def timeline(self, units: Sequence[str] | None = None, trials: str | None = None) -> Timeline:
        """What a split needs to know of the session; see `neurostore.splits`.

        Blocks are counted from the first spike of `units`, and observed time is cut to end right
        after their last one. A session that holds no spikes is taken whole, from its start. For
        trials, whose ends the source knows, observed time is taken as it is: a trial that begins
        or ends in silence keeps it.

        Parameters
        ----------
        units : sequence of str, optional
            The units whose spikes count; all without it.
        trials : str, optional
            A table of intervals, ``"trials"``, for splits by trial.
        """
        first, stop = self._spike_extent(units)
        observed = self.observed()
        subject = str(self.attrs["row"]["subject"] or "")
        if trials is None:
            seen = observed.between(first, stop)
            return Timeline(self.id, self.clock, first, seen, subject=subject)
        return Timeline(self.id, self.clock, first, observed, self._trial_rows(trials), subject)

    def _spike_extent(self, units: Sequence[str] | None) -> tuple[int, int]:
        """First tick of a spike of these units and the one after the last; or all the session."""
        ends = (0, 0) if "spikes" not in self.tables else self._rows(*self._all_ticks())
        rows = None if units is None else self.unit_rows(units)
        if ends[0] == ends[1]:
            if not self.start < self.stop:
                raise UsageError(f"{self.id} holds no times, so there is nothing to split.")
            return self.clock.tick(self.start), self.clock.tick(self.stop)
        forth = range(ends[0], ends[1], CHUNK)
        first = next((t for low in forth for t in self._ticks_of(rows, low, ends[1])[:1]), None)
        last = next(
            (t for low in reversed(forth) for t in self._ticks_of(rows, low, ends[1])[-1:]), None
        )
        if first is None or last is None:
            chosen = counted(len(units or ()), "unit")
            raise UsageError(f"No spike of {self.id} is of the {chosen} chosen. Choose others.")
        return int(first), int(last) + 1

    def _ticks_of(self, rows: NDArray[np.int64] | None, start: int, stop: int) -> NDArray[np.int64]:
        """Ticks of the spikes of some units in one chunk's worth of rows from `start` on."""
        stop = min(start + CHUNK, stop)
        time = self._piece("time", start, stop)
        return time if rows is None else time[np.isin(self._piece("unit", start, stop), rows)]

    def _trial_rows(self, name: str) -> TrialRows:
        if name not in self.intervals:
            raise NotFoundError("intervals", name, self.intervals, self.id)
        columns = {
            key: np.asarray(column.values[:])
            for key, column in self.table(f"intervals/{name}").columns.items()
            if len(column.dims) == 1
        }
        own = [columns.pop(key) for key in ("start", "stop", "valid")]
        return TrialRows(own[0], own[1], own[2], columns)

    def _observed(self, row: int | None) -> Intervals:
        table = self._observed_table
        mine = table["unit"] == row if "unit" in table and row is not None else slice(None)
        return Intervals(table["start"][mine], table["stop"][mine]).between(*self._all_ticks())

    def _observed_bins(
        self, rows: NDArray[np.int64], edges: NDArray[np.int64]
    ) -> tuple[str | tuple[str, str], NDArray[np.bool_]]:
        if "unit" not in self._observed_table:
            return "bin", self._observed(None).covers(edges[:-1], edges[1:])
        seen = [self._observed(int(row)).covers(edges[:-1], edges[1:]) for row in rows]
        return ("unit", "bin"), np.array(seen, dtype=bool).reshape(len(rows), len(edges) - 1)

    @cached_property
    def _spikes(self) -> Table:
        return self.stored("spikes")

    @cached_property
    def _blocks(self) -> NDArray[np.int64]:
        block = np.asarray(self._spikes.columns["block"].values[:])
        check_index(block, self._spikes.rows, f"spikes of {self.id}")
        return block

    def _first(self, tick: int) -> int:
        """The first spike at or after a tick, by the block index."""
        if (packed := self.packed) is not None:
            return packed.first_at(tick)
        said: Any = self._spikes.attrs["block"]
        block = (tick - int(said["start"])) // int(said["length"])
        if block < 0 or block >= len(self._blocks) - 1:
            return 0 if block < 0 else int(self._blocks[-1])
        low, high = int(self._blocks[block]), int(self._blocks[block + 1])
        time = self._piece("time", low, high)
        return low + int(np.searchsorted(time, tick, side="left"))

    def _rows(self, start: int, stop: int) -> tuple[int, int]:
        """First and last spike (exclusive) in [start, stop) ticks."""
        first = self._first(start)
        return first, max(first, self._first(stop))

    def between(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Ticks and rows of units of the spikes in [start, stop) ticks, (spike,) each."""
        return self.pieces(np.array([start]), np.array([stop]))[0]

    def pieces(
        self, start: NDArray[np.int64], stop: NDArray[np.int64]
    ) -> list[tuple[NDArray[np.int64], NDArray[Any]]]:
        """As `between`, of every window [start, stop) (window,); read together."""
        low, high = self._all_ticks()
        start, stop = np.maximum(start, low), np.minimum(stop, high)
        ends = list(zip(start.tolist(), stop.tolist(), strict=True))
        if (packed := self.packed) is not None:
            return [packed.between(*pair) for pair in ends]
        said: Any = self._spikes.attrs["block"]
        first, length, last = int(said["start"]), int(said["length"]), len(self._blocks) - 1
        begin = self._blocks[np.clip((start - first) // length, 0, last)].tolist()
        end = self._blocks[np.clip(-((first - stop) // length), 0, last)].tolist()
        rows = list(zip(begin, end, strict=True))
        found = zip(*self._columns(("time", "unit"), rows), ends, strict=True)
        return [
            (time[(some := slice(*np.searchsorted(time, pair)))], unit[some])
            for time, unit, pair in found
        ]

    def _all_ticks(self) -> tuple[int, int]:
        return self.bounds or (-(2**62), 2**62)

    def _columns(
        self, names: Sequence[str], rows: Sequence[tuple[int, int]]
    ) -> list[list[NDArray[Any]]]:
        """Rows [first, stop) of columns of spikes, one array a pair; read together."""
        columns: dict[str, Any] = {name: self._spikes.columns[name].values for name in names}
        found = self._chunks.get(columns, rows)
        for name, pieces in zip(names, found, strict=True):
            if name == "unit":
                self._refuse_units(pieces)
        return found

    def _pieces(self, column: str, rows: Sequence[tuple[int, int]]) -> list[NDArray[Any]]:
        """Rows [first, stop) of one column."""
        return self._columns((column,), rows)[0]

    def _refuse_units(self, found: Sequence[NDArray[Any]]) -> None:
        units = int(self.attrs["row"]["n_units"])
        last = max((int(one.max()) for one in found if len(one)), default=-1)
        if last >= units:
            raise DamagedError(f"The spikes of {self.id} name a unit {last}; there are {units}.")

    def _piece(self, column: str, start: int, stop: int) -> NDArray[Any]:
        return self._pieces(column, [(start, stop)])[0]

    def _bin(self, edges: NDArray[np.int64]) -> NDArray[np.int32]:
        """Counts (unit, bin) of all units between bin edges in ticks."""
        bins, units = len(edges) - 1, len(self._ids)
        if bins < 1 or not units or "spikes" not in self.tables:
            return np.zeros((units, max(0, bins)), dtype=np.int32)
        time, unit = self.between(int(edges[0]), int(edges[-1]))
        where = np.searchsorted(edges, time, side="right") - 1
        flat = np.bincount(unit.astype(np.int64) * bins + where, minlength=units * bins)
        return flat.reshape(units, bins).astype(np.int32)

    def _unit_ticks(self, unit: str) -> NDArray[np.int64]:
        row = int(self.unit_rows([unit])[0])
        if "spikes" not in self.tables:
            return np.zeros(0, dtype=np.int64)
        by_unit = _cached.by_unit(self)
        if by_unit is not None:
            return by_unit.of_unit(row, *self._all_ticks())
        first, last = self._rows(*self._all_ticks())
        parts = []
        for start in range(first, last, CHUNK):
            stop = min(start + CHUNK, last)
            mine = self._piece("unit", start, stop) == row
            parts.append(self._piece("time", start, stop)[mine])
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    # ---- bridges

    def to_xarray(self) -> xr.DataTree:
        """Every table as a node of one `xarray.DataTree`, lazy, times in seconds."""
        import xarray as xr

        nodes = {name: self[name].drop_vars("block", errors="ignore") for name in self.tables}
        return xr.DataTree.from_dict(
            {"/": xr.Dataset(attrs=self.metadata), **nodes}, name=segment(self.id)
        )

    def to_pandas(self) -> dict[str, pd.DataFrame]:
        """Every table of one row each as a `pandas.DataFrame`; spikes with unit ids."""
        return {name: self._pandas(name) for name in self.tables if name[:9] != "activity/"}

    def _pandas(self, name: str, *, wide: bool = True) -> pd.DataFrame:
        """A table as a frame; columns of two dimensions are spread out if `wide`, or left out."""
        import pandas as pd

        dataset = self[name]
        if name == "spikes":
            ids = pd.Index(self._ids.astype(object))
            made = {"time": dataset["time"].values, "unit": ids[dataset["unit"].values]}
            return pd.DataFrame(made)
        main = next(iter(self.stored(name).columns.values())).dims[0]
        columns: dict[str, Any] = {}
        for key, variable in dataset.variables.items():
            if variable.dims == (main,):
                columns[str(key)] = _pandas_ready(variable.values)
            elif wide and variable.ndim == 2 and variable.dims[0] == main:
                names = dataset.coords.get(str(variable.dims[1]))
                labels = range(variable.shape[1]) if names is None else names.values
                columns |= {
                    f"{key}_{label}": variable.values[:, k] for k, label in enumerate(labels)
                }
        return pd.DataFrame(columns)

    def rows(self, table: str, where: str | None = None) -> pd.DataFrame:
        """Rows of a table as a frame that keeps their numbers in the table as its index.

        Parameters
        ----------
        where : str, optional
            A SQL boolean expression: ``session.rows("intervals/trials", "choice = 1")``.
        """
        frame = self._pandas(table, wide=False)
        frame.index.name = "row"
        chosen = _catalogue.query(frame.reset_index(), where, f"{table} of {self.id}")
        return chosen.set_index("row")

    def row_numbers(self, table: str, where: str) -> NDArray[np.int64]:
        """Numbers (row,) of the rows of a table for which a SQL boolean expression holds."""
        return np.asarray(self.rows(table, where).index, dtype=np.int64)

    def to_pynapple(self) -> dict[str, Any]:
        """The session as pynapple objects, by table name.

        ``units`` → TsGroup with the columns as metadata, behaviour → Tsd or TsdFrame, intervals →
        IntervalSet (valid rows) with their columns as metadata. Rows that touch or overlap, which
        pynapple would join, stay a frame. Observed time is the time support.
        """
        try:
            import pynapple as nap
        except ImportError as error:
            raise MissingExtraError("to_pynapple()", "pynapple") from error
        from neurostore.store._pynapple import convert

        return convert(self, nap)

    # ---- how it looks

    def __repr__(self) -> str:
        row = self.attrs["row"]
        lines = [
            f"<Session {self.id}  {self._seconds()}  clock {float(self.clock.rate):g} Hz>",
            *(f"  {name:<12}{value}" for name, value in self._facts()),
            "  tables:",
            *(
                f"    {name:<32}{entry['rows']:>12,} row{'s' * (entry['rows'] != 1)}"
                for name, entry in row["tables"].items()
            ),
        ]
        return "\n".join(lines)

    def _seconds(self) -> str:
        where = "" if self.bounds is None else "slice of the session below: "
        return f"{where}[{self.start:.6g}, {self.stop:.6g}) s"

    def _facts(self) -> Iterator[tuple[str, str]]:
        row = self.attrs["row"]
        yield "subject", f"{row['subject'] or '-'} ({row['species'] or 'species not said'})"
        yield "units", f"{row['n_units']:,} with {row['n_spikes']:,} spikes"
        yield "regions", ", ".join(row["regions"]) or "-"
        yield "observed", f"{row['observed']:,.1f} s"
        yield "findings", f"{row['findings']} (session.findings)" if row["findings"] else "none"

    def _repr_html_(self) -> str:
        facts = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self._facts()
        )
        tables = "".join(
            f"<tr><td style='text-align:left'><code>{html.escape(name)}</code></td>"
            f"<td>{entry['rows']:,}</td></tr>"
            for name, entry in self.attrs["row"]["tables"].items()
        )
        return (
            f"<b>Session {html.escape(self.id)}</b> {self._seconds()}<table>{facts}</table>"
            f"<details><summary>{len(self.tables)} tables</summary>"
            f"<table><tr><th>table</th><th>rows</th></tr>{tables}</table></details>"
        )


@dataclass(frozen=True, eq=False)
class Events:
    """Spikes of windows, each (spike,) int64: which window, tick, row of the table of units.

    By window, then in time order.
    """

    window: NDArray[np.int64]
    time: NDArray[np.int64]
    unit: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Group(Mapping[str, "xr.Dataset"]):
    """The tables of one kind by name: ``session.behaviour["wheel"]``."""

    session: Session
    kind: str

    def _names(self) -> list[str]:
        prefix = f"{self.kind}/"
        return [n.removeprefix(prefix) for n in self.session.tables if n.startswith(prefix)]

    def __getitem__(self, name: str) -> xr.Dataset:
        if name not in self._names():
            raise NotFoundError(self.kind, name, self._names(), self.session.id)
        return self.session[f"{self.kind}/{name}"]

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __repr__(self) -> str:
        return f"<{self.kind} of {self.session.id}: {', '.join(self._names()) or 'none'}>"


def _mean_and_sem(
    values: NDArray[np.float64], seen: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and its standard error over the first axis where seen; NaN where that is not defined."""
    n = seen.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(seen, values, 0.0).sum(axis=0) / n
        square = np.where(seen, (values - mean) ** 2, 0.0).sum(axis=0)
        return mean, np.sqrt(square / np.where(n > 1, n - 1, np.nan) / n)


def _reopen(store: Store, id: str, bounds: tuple[int, int] | None) -> Session:
    session = store.session(id)
    return Session(store, id, session.attrs, bounds)


def _regular(dataset: xr.Dataset, table: Table, clock: Clock) -> xr.Dataset:
    """With the time of every sample of a regular series: an index, computed lazily where long."""
    import xarray as xr

    start = float(clock.seconds(np.array([int(str(table.attrs["start"]))]))[0])
    rate = float(exact(str(table.attrs["rate"])))
    rows = table.rows
    if rows <= _PLAIN_INDEX:
        return dataset.assign_coords(time=("time", start + np.arange(rows) / rate, {"units": "s"}))
    index = xr.indexes.RangeIndex.linspace(
        start, start + (rows - 1) / rate, rows, endpoint=True, dim="time"
    )
    return dataset.assign_coords(xr.Coordinates.from_xindex(index))


def _pandas_ready(values: NDArray[Any]) -> Any:
    return values.astype(object) if isinstance(values.dtype, np.dtypes.StringDType) else values
