"""`SessionBuilder`: a session put together from arrays, by readers and by people alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurostore.clocks import REACH, Clock, choose, exact
from neurostore.errors import RefusedError, UsageError
from neurostore.schemas import JSON, Finding, Table, Values, layout, values
from neurostore.store import _columns, _time_scale, tables
from neurostore.store._columns import as_json, text
from neurostore.store._format import check_id, session_path
from neurostore.store.tables import Interleaved, Ragged, Span, all_finite

if TYPE_CHECKING:
    from collections.abc import Callable

UNIX = 1e8
"""A median time beyond this many seconds (three years) counts from 1970."""


@dataclass(frozen=True)
class Source:
    """What a session was read from.

    Attributes
    ----------
    url, sha256 : str
        Where it lay, and the digest of its bytes.
    reader, version, options
        What read it, and how.
    """

    url: str
    sha256: str
    reader: str
    version: str
    options: Mapping[str, JSON] = field(default_factory=dict)

    def key(self, session: str) -> str:
        """Digest of what is read and how, wherever it lies: the same key, the same session."""
        return source_key(self.to_json(), session)

    def to_json(self) -> dict[str, JSON]:
        """As kept in the attributes of the session."""
        return {
            "url": str(self.url),
            "sha256": self.sha256,
            "reader": self.reader,
            "version": str(self.version),
            "options": as_json(self.options, "options of the source"),
        }


def source_key(source: Mapping[str, JSON], session: str) -> str:
    """As `Source.key`, of a source as it is kept."""
    said = {**source, "session": session}
    said.pop("url")
    text = json.dumps(said, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Staged(Protocol):
    """What a transaction may put: a session, and later a connectome, a stimulus, a normaliser.

    `path` is where it lies and below which alone it is written (``sessions/<dataset>/<name>``).
    """

    @property
    def id(self) -> str:
        """What people call it."""
        ...

    @property
    def path(self) -> str:
        """Its group in the tree."""
        ...

    @property
    def clock(self) -> Clock:
        """What its ticks count."""
        ...

    @property
    def attrs(self) -> Mapping[str, JSON]:
        """What its group carries."""
        ...

    @property
    def tables(self) -> Mapping[str, Table]:
        """Its tables by name."""
        ...

    @property
    def findings(self) -> Sequence[Finding]:
        """What was met while it was made."""
        ...


@dataclass(frozen=True, eq=False)
class StagedSession:
    """A session that is ready to be committed; plain arrays (or lazy ones), picklable."""

    id: str
    clock: Clock
    attrs: Mapping[str, JSON]
    tables: Mapping[str, Table]
    findings: tuple[Finding, ...] = ()

    @property
    def path(self) -> str:
        """Its group in the tree."""
        return session_path(self.id)

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {table.rows:,}" for name, table in self.tables.items())
        return f"<StagedSession {self.id}: {rows}>"


def check_tables(staged: Mapping[str, Table], only: Sequence[str] | None = None) -> list[Finding]:
    """Layout, then values, of tables that link to one another; of those in `only`, if given."""
    wrong = [finding for table in staged.values() for finding in layout(table)]
    if wrong:
        return wrong
    names = staged if only is None else only
    return [finding for name in names for finding in values(staged[name], staged)]


def check(staged: Staged) -> list[Finding]:
    """What was met while it was made, and both gates on every table.

    Raises
    ------
    RefusedError
        With all of it, where one is critical.
    """
    findings = [*staged.findings, *check_tables(staged.tables)]
    refuse(staged.id, findings)
    return findings


def refuse(id: str, findings: Sequence[Finding]) -> None:
    """Raise `RefusedError` where one of the findings is critical."""
    critical = [one for one in findings if one.severity == "critical"]
    if critical:
        more = f" (and {len(critical) - 1} more)" if len(critical) > 1 else ""
        raise RefusedError(f"{id} is refused: {critical[0].message}{more}", findings)


class SessionBuilder:
    """Collects the tables of one session, then builds them on one clock.

    Parameters
    ----------
    dataset, session : str
        The id is ``<dataset>/<session>``: any text, but for a dataset with a slash, and parts
        between slashes that are empty, ``.`` or ``..``.
    subject, species, sex, age, lab, description : str, optional
        As the source says them.
    origin : str or datetime, optional
        Date-time of time zero, ISO 8601.
    rate : number, str or Fraction, optional
        Ticks per second where the clock of the source is known. Without it: 30 kHz where every time
        lies on that grid, else 1 µs.
    source : Source, optional
        What was read; a second ingest of the same is then a no-op.
    card : str, optional
        Id of the dataset's card.
    attrs : mapping, optional
        Further metadata, kept as it is: text, numbers, lists and mappings of them, None for NaN.

    Notes
    -----
    All times are seconds on the session clock. Readers append to `findings` and `notes`.
    """

    def __init__(
        self,
        *,
        dataset: str,
        session: str,
        subject: str | None = None,
        species: str | None = None,
        sex: str | None = None,
        age: str | None = None,
        lab: str | None = None,
        description: str | None = None,
        origin: str | date | None = None,
        rate: float | str | Fraction | None = None,
        source: Source | None = None,
        card: str | None = None,
        attrs: Mapping[str, JSON] | None = None,
    ) -> None:
        self.dataset = text(dataset, "The dataset of a session")
        self.session = text(session, f"{self.dataset}: the name of a session")
        check_id(self.dataset, self.session)
        said = {
            "subject": subject,
            "species": species,
            "sex": sex,
            "age": age,
            "lab": lab,
            "description": description,
        }
        self.metadata: dict[str, JSON] = {
            key: as_json(value, f"{self.id}: the attribute {key!r}")
            for key, value in {**said, **(attrs or {})}.items()
        }
        for key in said:  # the catalogue holds these as text
            value = self.metadata.pop(key)
            if value not in (None, ""):
                self.metadata[key] = str(value)
        self.origin = origin.isoformat() if isinstance(origin, date) else text(origin, "origin")
        self.rate = None if rate is None else Clock(exact(rate)).rate
        self.source = source
        self.card = text(card, "card")
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self._spikes: Ragged | Interleaved | None = None
        self._times: list[NDArray[np.float64]] = []
        self._observed: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, bool]] = []
        self._makers: dict[str, Callable[[Span], Table]] = {}

    @property
    def id(self) -> str:
        """``<dataset>/<session>``."""
        return f"{self.dataset}/{self.session}"

    def add_units(
        self,
        spike_times: Mapping[str, ArrayLike] | Ragged | Interleaved,
        /,
        **columns: object,
    ) -> None:
        """Units and their spikes.

        Parameters
        ----------
        spike_times : mapping of unit id to (spike,) seconds, or Ragged, or Interleaved
            Every unit, the silent ones too; end to end (`Ragged`), or in time order with the row
            of the unit beside each spike (`Interleaved`), which is not sorted again.
        **columns
            One value a unit (text, number or bool), or (unit, sample[, channel]) for `waveform`.
            region, quality, probe, x, y, z, depth and waveform are known by the contract; others
            are kept as they are.
        """
        if isinstance(spike_times, Ragged | Interleaved):
            given = spike_times
        else:
            given = Ragged.of(spike_times)
        table = tables.units(given, columns)
        self._add("units", lambda _: table)
        self._spikes = given

    def add_electrodes(self, ids: Sequence[str], **columns: object) -> None:
        """Electrodes or channels: ids, and columns of one value each."""
        table = tables.electrodes(ids, columns)
        self._add("electrodes", lambda _: table)

    def add_behaviour(
        self,
        name: str,
        value: Any,
        *,
        time: ArrayLike | None = None,
        start: float | None = None,
        rate: float | str | Fraction | None = None,
        units: str,
        valid: ArrayLike | None = None,
        description: str = "",
        channels: Sequence[str] | None = None,
    ) -> None:
        """A series of samples: (time,) or (time, channel), at `time` or regular.

        Parameters
        ----------
        value : (time,) or (time, channel)
            numpy, dask or an HDF5 dataset; may be lazy and larger than memory.
        time : (time,) seconds, or start : seconds, with rate : samples per second
            One of the two. Rates are exact: 59.94 means 5994/100.
        units : str
            Unit of the values, "" where the source does not say.
        valid : (time,) bool, optional
            False where the sample was not observed (a frozen tracker, a lost eye).
        """
        self._series(
            "behaviour", name, value, time, start, rate, units, valid, description, channels
        )

    def add_activity(
        self,
        name: str,
        value: Any,
        *,
        time: ArrayLike | None = None,
        start: float | None = None,
        rate: float | str | Fraction | None = None,
        units: str,
        valid: ArrayLike | None = None,
        description: str = "",
        channels: Sequence[str] | None = None,
    ) -> None:
        """Dense activity: voltage, fluorescence, rates; arguments as `add_behaviour`.

        Parameters
        ----------
        value : (time, channel)
            May be lazy and larger than memory.
        """
        self._series(
            "activity", name, value, time, start, rate, units, valid, description, channels
        )

    def add_intervals(
        self,
        name: str,
        start: ArrayLike,
        stop: ArrayLike,
        *,
        description: str = "",
        **columns: object,
    ) -> None:
        """Rows of [start, stop) seconds (trials, epochs), with columns.

        A row whose start or stop is NaN is kept as not valid. A float column named ``*_time`` or
        ``*_times`` holds event times, each with its own mask.
        """
        if name == "observed":
            raise UsageError("Observed time has a method of its own: add_observed(start, stop).")
        self._rows("intervals", name, start, stop, columns, description)

    def add_observed(
        self,
        start: ArrayLike,
        stop: ArrayLike,
        *,
        unit: ArrayLike | None = None,
        assumed: bool = False,
    ) -> None:
        """Observed time in seconds: of the session, or of the units whose rows `unit` gives."""
        where = "intervals/observed"
        first = _columns.times(start, where, "start")
        last = _columns.times(stop, where, "stop")
        rows = None if unit is None else np.atleast_1d(np.asarray(unit))
        _columns.same_length(where, "stop", len(last), len(first))
        if not np.isfinite(first).all() or not np.isfinite(last).all() or (last < first).any():
            raise UsageError("Observed time needs finite starts, each at or before its stop.")
        tables.observed(first, last, Span(Clock()), rows, assumed=assumed)  # wrong units fail here
        self._keep_times(first, last)
        self._observed.append((first, last, rows, assumed))

    def add_presentations(
        self,
        name: str,
        start: ArrayLike,
        stop: ArrayLike,
        row: ArrayLike,
        *,
        stimulus: str,
        description: str = "",
        **columns: object,
    ) -> None:
        """What was shown when.

        Parameters
        ----------
        name : str
            Of the table: ``presentations/<name>``.
        start, stop : (presentation,) seconds
            [start, stop); one with a NaN is kept as not valid.
        row : (presentation,) integer
            Row of the stimulus (its frame, its image); -1 for a blank.
        stimulus : str
            Name of a stimulus of the store, which may be put before or after the session.
        **columns
            More that is known of each presentation.
        """
        columns = {"row": row, **columns}
        attrs: dict[str, JSON] = {"stimulus": text(stimulus, f"presentations/{name}: stimulus")}
        self._rows("presentations", name, start, stop, columns, description, attrs)

    def build(self) -> StagedSession:
        """The session on its clock.

        Raises
        ------
        RefusedError
            Where a spike is out of range, or there is neither a unit nor a row of anything else.
        """
        span, findings, ticks = self._span()
        made = {name: make(span) for name, make in self._makers.items()}
        if not any(table.rows for table in made.values()):
            raise RefusedError(
                f"{self.id} is refused: it has no unit and no row in any other table, so there is "
                "nothing to keep.",
                self.findings,
            )
        if self._spikes is not None:
            made["spikes"] = tables.spikes(self._spikes, span, ticks=ticks)
        observed = self._make_observed(span, made.get("spikes"))
        if observed is not None:
            made["intervals/observed"] = observed
        findings = [*self.findings, *findings]
        findings += [one for table in made.values() for one in table.findings]
        refuse(self.id, findings)  # before any time is looked at again
        extents = _time_scale.extents(made.values(), span.clock)
        rows = {name: table.rows for name, table in made.items()}
        findings += _time_scale.between_tables(self.id, extents, rows, span.clock)
        findings += _time_scale.apart(self.id, extents, span.clock)
        if self._spikes is not None:
            findings += _time_scale.between_units(self.id, self._spikes)
        return StagedSession(self.id, span.clock, self._attrs(span), made, tuple(findings))

    def _add(self, name: str, make: Callable[[Span], Table]) -> None:
        """Keep how a table is made, and make it once: what is wrong fails where it was given."""
        text(name, f"{self.id}: the name of a table")
        if name in self._makers or name.endswith("/"):
            why = "was added already" if name in self._makers else "has no name"
            raise UsageError(f"{self.id}: the table {name!r} {why}.")
        make(Span(Clock()))
        self._makers[name] = make

    def _rows(
        self,
        kind: str,
        name: str,
        start: ArrayLike,
        stop: ArrayLike,
        columns: Mapping[str, object],
        description: str,
        attrs: Mapping[str, JSON] | None = None,
    ) -> None:
        make = partial(
            tables.intervals,
            *(name, start, stop),
            columns=columns,
            description=description,
            kind=kind,
            attrs=attrs,
        )
        where = f"{kind}/{name}"
        self._add(where, lambda span: make(span=span))
        self._keep_times(start, stop, *tables.events(columns, where).values())

    def _series(
        self,
        kind: str,
        name: str,
        value: Values,
        time: ArrayLike | None,
        start: float | None,
        rate: float | str | Fraction | None,
        units: str,
        valid: ArrayLike | None,
        description: str,
        channels: Sequence[str] | None,
    ) -> None:
        make = partial(
            tables.behaviour,
            name,
            value,
            time=time,
            start=start,
            rate=rate,
            units=units,
            valid=valid,
            description=description,
            channels=channels,
            kind=kind,
        )
        self._add(f"{kind}/{name}", lambda span: make(span=span))
        self._keep_times(*(one for one in (time, start) if one is not None))

    def _keep_times(self, *times: ArrayLike) -> None:
        self._times += [_columns.times(one, self.id, "time") for one in times]

    def _streams(self) -> list[NDArray[np.float64]]:
        return self._times + ([] if self._spikes is None else [self._spikes.times])

    def _span(self) -> tuple[Span, list[Finding], NDArray[np.int64] | None]:
        """The clock, the shift and the median time of everything added, and what was odd.

        And the ticks of the spikes where all are in range: a second pass over them is saved.
        """
        spikes = self._spikes.times if self._spikes is not None else np.zeros(0)
        some = all_finite(spikes) if len(spikes) else False
        some = some or bool(np.isfinite(spikes).any())
        middle = _median([spikes]) if some else _median(self._times)
        near = [_near(stream, middle) for stream in self._streams()]
        shift, origin, found = 0.0, self.origin, list[Finding]()
        if abs(middle) > UNIX:
            shift = float(np.floor(min((float(one.min()) for one in near if len(one)), default=0)))
            zero = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=shift)
            origin = zero.isoformat()
            found.append(self._unix(shift, origin))
        if self.rate is not None:
            clock = Clock(self.rate, origin)
        else:
            clock = choose((one - shift if shift else one for one in near), origin)
        ticks, error = None, 0.0
        for one in near:
            if len(spikes) and one is spikes and not shift:
                ticks, worst = clock.measured(one)
            else:
                worst = clock.error(one - shift if shift else one)
            error = max(error, worst)
        return Span(clock, shift, middle - shift, error), found, ticks

    def _unix(self, shift: float, origin: str) -> Finding:
        message = f"times count from 1970: {shift:.0f} s were taken off, time zero is {origin}"
        return Finding("clock/unix_time", "suggestion", "", "time", f"{self.id}: {message}")

    def _make_observed(self, span: Span, spikes: Table | None) -> Table | None:
        if self._observed:
            first = np.concatenate([one[0] for one in self._observed])
            last = np.concatenate([one[1] for one in self._observed])
            rows = [one[2] for one in self._observed if one[2] is not None]
            if rows and len(rows) < len(self._observed):
                raise UsageError("Observed time is given for the session or by unit, not both.")
            assumed = any(one[3] for one in self._observed)
            unit = np.concatenate(rows) if rows else None
            return tables.observed(first, last, span, unit, assumed=assumed)
        if spikes is None or not spikes.rows:
            return None
        ticks = np.asarray(spikes.columns["time"].values[:])
        ends = span.clock.seconds(np.array([ticks[0], ticks[-1] + 1]))
        return tables.observed(ends[:1], ends[1:], replace(span, shift=0.0), None, assumed=True)

    def _attrs(self, span: Span) -> dict[str, JSON]:
        return {
            "id": self.id,
            "dataset": self.dataset,
            "session": self.session,
            "metadata": self.metadata,
            "card": self.card,
            "source": None if self.source is None else self.source.to_json(),
            "source_key": "" if self.source is None else self.source.key(self.session),
            "clock": {
                "rate": str(span.clock.rate),
                "origin": span.clock.origin,
                "shift": span.shift,
                "error": span.error,
            },
            "notes": [str(note) for note in self.notes],
        }


def _near(times: NDArray[np.float64], middle: float) -> NDArray[np.float64]:
    """The times that are finite and in range; the array itself where all are."""
    ends = np.array([times.min(initial=middle), times.max(initial=middle)])
    if (np.abs(ends - middle) <= REACH).all():  # never with a NaN among them
        return times
    return times[np.abs(times - middle) <= REACH]


def _median(streams: Sequence[NDArray[np.float64]]) -> float:
    """Median of the finite times, of an even sample of them where they are many."""
    finite = [times if all_finite(times) else times[np.isfinite(times)] for times in streams]
    some = [times[:: max(1, len(times) // 100_000)] for times in finite]
    joined = np.concatenate(some) if some else np.zeros(0)
    return float(np.median(joined)) if len(joined) else 0.0
