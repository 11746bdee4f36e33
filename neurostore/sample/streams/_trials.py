"""What is known of the trial that a window lies in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import MISSING, Clock
from neurostore.errors import NotFoundError, UsageError
from neurostore.sample._chosen import Chosen
from neurostore.sample.batch import Reason, Reasons, Values
from neurostore.sample.plan import Address, Ticks, Window
from neurostore.sample.streams._stream import (
    Reader,
    by_session,
    reason_where,
    reasons,
    refuse_missing_table,
)

if TYPE_CHECKING:
    from neurostore.schemas import Column
    from neurostore.store import Session


@dataclass(frozen=True)
class Trials:
    """Columns of the trial that the window's present lies in: `<name>.<column>`, each (window,).

    Numbers are float32, times seconds from the start of the window, so that none says when in the
    session it lies; text is int64 codes into ``dataset.categories["<name>.<column>"]``.

    Parameters
    ----------
    columns : sequence of str
        Plain columns of the interval table.
    table : str
        The interval table.
    """

    columns: tuple[str, ...]
    table: str = "trials"

    def __post_init__(self) -> None:
        if isinstance(self.columns, str):
            raise UsageError(f"Trials takes a tuple of columns, found the text {self.columns!r}.")
        object.__setattr__(self, "columns", tuple(self.columns))

    def open(self, name: str, sessions: Sequence[Chosen], window: Window) -> Reader:
        """Bind it to sessions."""
        having = [one for one in sessions if f"intervals/{self.table}" in one.session.tables]
        if not having:
            refuse_missing_table("intervals", self.table, sessions)
        known = {
            column
            for one in having
            for column in one.session.table(f"intervals/{self.table}").columns
        }
        for column in self.columns:
            if column not in known:
                raise NotFoundError("column", column, known, f"intervals/{self.table}")
        self._refuse_unlike(name, having)
        return _Rows(name, self, list(sessions), window)

    def _refuse_unlike(self, name: str, sessions: Sequence[Chosen]) -> None:
        """Refuse a column of many values a row, or of text here and numbers there."""
        tables = {one.session.id: one.session.table(f"intervals/{self.table}") for one in sessions}
        for column in self.columns:
            found = {id: t.columns[column] for id, t in tables.items() if column in t.columns}
            for id, one in found.items():
                if len(one.dims) != 1:
                    raise UsageError(
                        f"The stream {name!r} takes columns of one value a row, found "
                        f"{self.table}.{column} of {id} with dimensions {', '.join(one.dims)}."
                    )
            kinds = {id: _is_text(one) for id, one in found.items()}
            if len(set(kinds.values())) > 1:
                text, number = (
                    next(id for id, is_text in kinds.items() if is_text is kind)
                    for kind in (True, False)
                )
                raise UsageError(
                    f"The stream {name!r} reads {self.table}.{column}, which is text in {text} and "
                    f"numbers in {number}. Take one of them, or leave out the column."
                )


@dataclass(frozen=True)
class _Rows:
    name: str
    stream: Trials
    sessions: list[Chosen]
    window: Window
    steps: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    _tables: dict[int, TrialTable | None] = field(default_factory=dict, repr=False)

    @property
    def tables(self) -> tuple[str, ...]:
        return (f"intervals/{self.stream.table}",)

    def missing(self, row: int) -> str | None:
        table = self._table(row)
        if table is None:
            return self.stream.table
        lost = [name for name in self.stream.columns if name not in table.columns]
        return f"{self.stream.table}.{lost[0]}" if lost else None

    def _table(self, row: int) -> TrialTable | None:
        if row not in self._tables:
            session = self.sessions[row].session
            self._tables[row] = TrialTable.load(session, self.stream.table, self.stream.columns)
        return self._tables[row]

    @cached_property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """By tensor: the texts that its codes stand for."""
        made: dict[str, set[str]] = {}
        for row in range(len(self.sessions)):
            table = self._table(row)
            for name, values in (table.columns if table else {}).items():
                if values.dtype.kind not in "biuf":
                    made.setdefault(f"{self.name}.{name}", set()).update(map(str, values))
        return {name: tuple(sorted(texts)) for name, texts in sorted(made.items())}

    def read(self, at: Address) -> Values:
        return by_session(at, self._windows)

    def _windows(self, row: int, start: Ticks) -> Values:
        table = self._table(row)
        present = start + self.window.ticks(self.sessions[row].session.clock)[0]
        trial = table.row(present) if table else np.full(len(start), -1)
        return {
            f"{self.name}.{column}": self._read(table, column, trial, start)
            for column in self.stream.columns
        }

    def _read(
        self, table: TrialTable | None, column: str, trial: Ticks, start: Ticks
    ) -> tuple[NDArray[Any], Reasons]:
        name = f"{self.name}.{column}"
        texts = self.categories.get(name)
        made = np.zeros(len(trial), np.float32 if texts is None else np.int64)
        if table is None or column not in table.columns:
            return made, reasons(made.shape, Reason.NOT_RECORDED)
        reason = reason_where(trial >= 0, Reason.OUTSIDE)
        inside = np.flatnonzero(trial >= 0)
        if texts is not None:
            said = [str(one) for one in table.columns[column][trial[inside]]]
            made[inside] = np.searchsorted(np.array(texts), np.array(said))
            return made, reason
        numbers = table.numbers(column, trial[inside], start[inside])
        good = np.isfinite(numbers)
        made[inside[good]] = numbers[good]
        reason[inside[~good]] = Reason.INVALID
        return made, reason


@dataclass(frozen=True)
class TrialTable:
    """Valid rows of an interval table by start, with some of its columns; times stay ticks."""

    clock: Clock
    start: Ticks
    stop: Ticks
    number: Ticks
    columns: dict[str, NDArray[Any]]
    timed: frozenset[str]

    @classmethod
    def load(cls, session: Session, table: str, columns: Sequence[str]) -> TrialTable | None:
        """Read it from a session; None where the session has no such table."""
        if f"intervals/{table}" not in session.tables:
            return None
        stored = session.table(f"intervals/{table}").columns
        start, stop, valid = (
            np.asarray(stored[name].values[:]) for name in ("start", "stop", "valid")
        )
        rows = np.flatnonzero(valid)
        rows = rows[np.argsort(start[rows], kind="stable")]
        kept = {
            name: _plain(stored[name], stored.get(f"{name}_valid"))
            for name in columns
            if name in stored
        }
        timed = frozenset(name for name in kept if stored[name].attrs.get("units") == "tick")
        return cls(session.clock, start[rows], stop[rows], rows, kept, timed)

    def numbers(self, column: str, row: Ticks, start: Ticks) -> NDArray[np.float64]:
        """A column in some rows (window,), NaN where missing; times from start ticks (window,)."""
        values = self.columns[column][row]
        if column not in self.timed:
            return values.astype(np.float64)
        return np.where(values == MISSING, np.nan, self.clock.seconds(values - start))

    def row(self, tick: Ticks) -> Ticks:
        """Number (tick,) of the row of the table that each tick lies in; -1 in none.

        Of rows that overlap, the one that started last.
        """
        edge, number = self._flat
        return number[np.searchsorted(edge, tick, side="right")]

    @cached_property
    def _flat(self) -> tuple[Ticks, Ticks]:
        """Edges (edge,) of all rows, and the row before the first, between them, after the last."""
        edge = np.unique(np.concatenate([self.start, self.stop]))
        number = np.full(len(edge) + 1, -1, dtype=np.int64)
        first, last = (np.searchsorted(edge, ticks) + 1 for ticks in (self.start, self.stop))
        if (first <= last).all() and (self.stop[:-1] <= self.start[1:]).all():
            number[first[first < last]] = self.number[first < last]
            return edge, number
        for row in range(len(self.start)):
            number[first[row] : last[row]] = self.number[row]
        return edge, number


def _is_text(column: Column) -> bool:
    return np.dtype(column.values.dtype).kind not in "biuf"


def _plain(column: Column, valid: Column | None) -> NDArray[Any]:
    """Values of a column of one value a row; ticks that are not valid as `MISSING`."""
    values = np.asarray(column.values[:])
    if column.attrs.get("units") == "tick" and valid is not None:
        return np.where(np.asarray(valid.values[:]), values, MISSING)
    return values
