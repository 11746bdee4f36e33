"""The sessions and units that a dataset asks for, and when they were observed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import NotFoundError, UsageError
from neurostore.intervals import Intervals
from neurostore.sample.plan import Ticks

if TYPE_CHECKING:
    from neurostore.sample._compiled import Compiled
    from neurostore.schemas import Values
    from neurostore.store import Session, Store

_SHOWN = 6
_THREADS = 8
"""Sessions that are opened at once."""
_ID = re.compile(r"[^\s'\"=<>()]+/[^\s'\"=<>()]+")
"""What no SQL condition looks like, and an id of a session does."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """One session with the units that a dataset asks for.

    Attributes
    ----------
    rows : (unit,) int64
        Rows of the units in its table of units.
    ids, regions : (unit,) arrays of str
    spikes : int
        How many they have in all.
    """

    session: Session
    rows: NDArray[np.int64]
    ids: NDArray[Any]
    regions: NDArray[Any]
    spikes: int = 0

    @cached_property
    def _by_kind(self) -> tuple[list[Intervals], NDArray[np.int64]]:
        """Observed times that differ, and which of them is each unit's (unit,)."""
        alike = np.zeros(len(self.ids), dtype=np.int64)
        if "intervals/observed" not in self.session.tables:
            row, clock = self.session.attrs["row"], self.session.clock
            if row["start"] is None:
                return [Intervals()], alike
            end = max([int(clock.ticks([row["stop"]])[0]), *_activity_stops(self.session)])
            return [Intervals(clock.ticks([row["start"]]), np.array([end]))], alike
        columns = self.session.table("intervals/observed").columns
        if "unit" not in columns or not len(self.ids):
            return [self.session.observed()], alike
        start, stop, unit = (
            np.asarray(columns[key].values[:]) for key in ("start", "stop", "unit")
        )
        order = np.argsort(unit, kind="stable")
        first, last = (np.searchsorted(unit[order], self.rows, side=s) for s in ("left", "right"))
        rows = [order[low:high] for low, high in zip(first, last, strict=True)]
        found: dict[Intervals, int] = {}
        kind = [found.setdefault(Intervals(start[own], stop[own]), len(found)) for own in rows]
        return list(found), np.array(kind, dtype=np.int64)

    @property
    def kinds(self) -> list[Intervals]:
        """Observed times that differ from one another; units share them."""
        return self._by_kind[0]

    @property
    def kind(self) -> NDArray[np.int64]:
        """Which of `kinds` is the observed time of each unit, (unit,)."""
        return self._by_kind[1]

    @cached_property
    def compiled(self) -> Compiled | None:
        """Its spikes for compiled functions; None where they are read without the cache."""
        from neurostore.sample._compiled import Compiled

        return Compiled.of(self)

    @cached_property
    def column(self) -> NDArray[np.int64]:
        """Row of the table of units → place among the chosen ones, -1 where not chosen."""
        made = np.full(self.session.attrs["row"]["n_units"], -1, dtype=np.int64)
        made[self.rows] = np.arange(len(self.rows))
        return made

    @cached_property
    def every(self) -> bool:
        """Whether all units of the session are chosen."""
        return bool((self.column >= 0).all())

    def whole(self, start: Ticks, span: int) -> bool:
        """Whether all units are observed throughout all windows [start, start + span)."""
        return all(bool(one.covers(start, start + span).all()) for one in self.kinds)

    @property
    def differs(self) -> bool:
        """Whether units were observed at different times."""
        return len(self.kinds) > 1

    @cached_property
    def any_observed(self) -> Intervals:
        """When at least one of the units was observed."""
        made = Intervals()
        for one in self.kinds:
            made = made | one
        return made

    def seen(self, edges: Ticks) -> NDArray[np.bool_]:
        """Whether each bin between edges (window, bin + 1) is observed, (window, unit, bin)."""
        covered = [one.covers(edges[:, :-1], edges[:, 1:]) for one in self.kinds]
        made = np.stack(covered, axis=1)
        return made[:, self.kind] if self.differs else _repeated(made, len(self.ids))

    def saw(self, column: NDArray[np.int64], tick: Ticks) -> NDArray[np.bool_]:
        """Whether the unit in place `column` (spike,) was observed at a tick (spike,)."""
        if not self.differs:
            return self.any_observed.contains(tick)
        made, kind = np.zeros(len(tick), dtype=bool), self.kind[column]
        for number, one in enumerate(self.kinds):
            own = np.flatnonzero(kind == number)
            made[own] = one.contains(tick[own])
        return made


def _activity_stops(session: Session) -> list[int]:
    """When the last row of each dense table ends: it lasts until the next one would come.

    By the catalogue alone; to a tick where a step is no whole number of them, and what that is
    too long is masked where it is read.
    """
    made: list[int] = []
    for name, entry in session.attrs["row"]["tables"].items():
        if name.startswith("activity/") and "extent" in entry and int(entry["rows"]) > 1:
            first, stop, steps = *map(int, entry["extent"]), int(entry["rows"]) - 1
            reach = stop - 1 - first
            length = reach + reach // steps
            made.append(first + length + (1 if reach % steps else 0))
    return made


def region_codes(sessions: Sequence[Chosen]) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    """Names of the regions of all sessions, and each one's codes (unit,) of them, -1 for none."""
    names = tuple(sorted({str(name) for one in sessions for name in one.regions if name}))
    code = {name: number for number, name in enumerate(names)}
    return names, [
        np.array([code.get(str(name), -1) for name in one.regions], dtype=np.int64)
        for one in sessions
    ]


def no_spikes(chosen: Chosen) -> str | None:
    """What of spikes and units a session lacks; None where it has both."""
    if "spikes" not in chosen.session.tables:
        return "spikes"
    return None if len(chosen.ids) else "units"


def _repeated(one: NDArray[np.bool_], units: int) -> NDArray[np.bool_]:
    """What holds for all units (window, 1, bin), for each of them, on the same memory."""
    return np.broadcast_to(one, (len(one), units, one.shape[2]))


def choose(
    store: Store,
    sessions: str | Sequence[str] | None,
    units: str | Mapping[str, Sequence[str]] | None = None,
) -> list[Chosen]:
    """Sessions by id or SQL, each with the units that a SQL expression or their ids choose.

    Raises
    ------
    UsageError, NotFoundError
        Where none is chosen.
    """
    known = store.ids
    if sessions is None:
        ids = known
    elif isinstance(sessions, str):
        if sessions not in known and _ID.fullmatch(sessions):
            raise NotFoundError("session", sessions, known, store.url)
        ids = [sessions] if sessions in known else [str(i) for i in store.sessions(sessions)["id"]]
    else:
        ids = [str(one) for one in sessions]
        for one in ids:
            if one not in known:
                raise NotFoundError("session", one, known, store.url)
    if not ids:
        raise UsageError(
            f"No session is chosen by {sessions!r}: {store.url} holds {len(known)} "
            f"({', '.join(known[:_SHOWN])}{', ...' if len(known) > _SHOWN else ''})."
        )
    if units is None:
        return _opened(lambda id: _whole(store.session(id)), ids)
    if not isinstance(units, str):
        return _opened(lambda id: _of(_whole(store.session(id)), units.get(id, ())), ids)
    frame = store.units(units, sessions=ids)
    if frame.empty:
        every = len(store.units(sessions=ids))
        raise UsageError(f"No unit is chosen by {units!r}, of {every:,} in {', '.join(ids)}.")
    own = dict(iter(frame.groupby("session")))
    return _opened(lambda id: _choose(store, id, own.get(id, frame[:0])), ids)


def _opened(one: Callable[[str], Chosen], ids: Sequence[str]) -> list[Chosen]:
    """Sessions by id, their units and observed times read by threads: most of it is waiting."""

    def ready(id: str) -> Chosen:
        made = one(id)
        _ = made.kinds
        return made

    wanted = sorted(set(ids))
    if len(wanted) == 1:
        return [one(wanted[0])]
    threads = ThreadPoolExecutor(_THREADS)
    try:
        return list(threads.map(ready, wanted))
    finally:
        threads.shutdown(cancel_futures=True)


def _whole(session: Session) -> Chosen:
    """A session with all of its units."""
    if "units" not in session.tables:
        none = np.zeros(0, dtype=object)
        return Chosen(session, np.zeros(0, dtype=np.int64), none, none)
    columns = session.table("units").columns
    ids = _texts(columns["unit"].values)
    regions = np.full(len(ids), "", dtype=object)
    if "region" in columns:
        regions = _texts(columns["region"].values)
    spikes = int(np.asarray(columns["n_spikes"].values[:]).sum())
    return Chosen(session, np.arange(len(ids)), ids, regions, spikes)


def _of(whole: Chosen, units: Sequence[str]) -> Chosen:
    """A session with some of its units, by id, in the order given."""
    rows = whole.session.unit_rows(units) if len(units) else np.zeros(0, dtype=np.int64)
    spikes = 0
    if len(rows):
        counts = whole.session.table("units").columns["n_spikes"].values
        spikes = int(np.asarray(counts[:])[rows].sum())
    return Chosen(whole.session, rows, whole.ids[rows], whole.regions[rows], spikes)


def _texts(values: Values) -> NDArray[Any]:
    return np.array([str(one) for one in np.asarray(values[:]).tolist()], dtype=object)


def _choose(store: Store, id: str, frame: Any) -> Chosen:
    session = store.session(id)
    ids = np.array([str(one) for one in frame["unit"]], dtype=object)
    regions = np.full(len(ids), "", dtype=object)
    if "region" in frame:
        regions = np.array([one if isinstance(one, str) else "" for one in frame["region"]], object)
    rows = session.unit_rows(ids.tolist()) if len(ids) else np.zeros(0, dtype=np.int64)
    return Chosen(session, rows, ids, regions, int(frame["n_spikes"].sum()))
