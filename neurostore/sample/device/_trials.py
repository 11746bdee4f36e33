"""The trial that a window's present lies in, found on the device, and columns of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurostore.clocks import MISSING
from neurostore.sample._chosen import Chosen
from neurostore.sample.batch import Reason
from neurostore.sample.device._line import Line
from neurostore.sample.device._spikes import Read
from neurostore.sample.device._windows import Rates, Windows
from neurostore.sample.plan import Window
from neurostore.sample.streams import Trials, TrialTable


@dataclass(frozen=True)
class Present:
    """Row of the trial at the present of a window, -1 outside of trials.

    Attributes
    ----------
    edges : Line
        Starts and stops of the trials of every session.
    number : (edge + session,) int64
        The row before the first edge of a session, and from each edge on.
    ticks : (session,) int64
        From the start of a window to its present.
    """

    edges: Line
    number: Tensor
    ticks: Tensor

    @classmethod
    def of(
        cls,
        tables: Sequence[TrialTable | None],
        sessions: Sequence[Chosen],
        window: Window,
        device: torch.device,
    ) -> Present:
        """From the rows of every session, None where it has no such table."""
        none = np.zeros(0, dtype=np.int64)
        edges, numbers = [], []
        for table in tables:
            ends = none if table is None else np.unique(np.concatenate([table.start, table.stop]))
            edges.append(ends)
            numbers.append([np.array([-1]), none if table is None else table.row(ends)])
        number = np.concatenate([one for pair in numbers for one in pair])
        ticks = np.array([window.ticks(one.session.clock)[0] for one in sessions])
        moved = (torch.from_numpy(one).to(device) for one in (number, ticks))
        return cls(Line.of(edges, device), *moved)

    def read(self, at: Windows) -> Tensor:
        """Rows (window,) of the table."""
        edge = self.edges.last(at.session, at.start + self.ticks[at.session])
        return self.number[edge + 1 + at.session]


@dataclass(frozen=True)
class _Column:
    """A column of all sessions (row + 1,): numbers, or codes of texts; and ticks where timed."""

    number: Tensor
    tick: Tensor | None
    timed: Tensor
    there: Tensor


@dataclass(frozen=True)
class Rows:
    """Columns of the trial, each (window,): float32, or int64 codes."""

    name: str
    present: Present
    first: Tensor
    columns: Mapping[str, _Column]
    rates: Rates

    @classmethod
    def load(
        cls,
        name: str,
        stream: Trials,
        sessions: Sequence[Chosen],
        window: Window,
        categories: Mapping[str, tuple[str, ...]],
        rates: Rates,
    ) -> Rows:
        """Read the table of every session."""
        device = rates.above.device
        tables = [TrialTable.load(one.session, stream.table, stream.columns) for one in sessions]
        present = Present.of(tables, sessions, window, device)
        rows = [0 if one is None else _rows(one) for one in tables]
        first = torch.from_numpy(np.cumsum([0, *rows[:-1]])).to(device)
        made = {
            column: _column(tables, rows, column, categories.get(f"{name}.{column}"), device)
            for column in stream.columns
        }
        return cls(name, present, first, made, rates)

    def read(self, at: Windows) -> Read:
        """Windows of any sessions."""
        trial = self.present.read(at)
        return {
            f"{self.name}.{key}": self._read(one, trial, at) for key, one in self.columns.items()
        }

    def _read(self, column: _Column, trial: Tensor, at: Windows) -> tuple[Tensor, Tensor]:
        row = self.first[at.session] + trial.clamp(min=0)
        number = column.number[row]
        if column.tick is not None:
            tick = column.tick[row]
            seconds = self.rates.seconds(at.session, tick - at.start)
            seconds = torch.where(tick == MISSING, torch.nan, seconds)
            number = torch.where(column.timed[at.session], seconds, number)
        inside, finite = trial >= 0, torch.isfinite(number)
        reason = torch.where(finite, Reason.OBSERVED, Reason.INVALID)
        reason = torch.where(inside, reason, Reason.OUTSIDE)
        reason = torch.where(column.there[at.session], reason, Reason.NOT_RECORDED)
        value = torch.where(reason == Reason.OBSERVED, number, 0)
        kind = torch.float32 if value.is_floating_point() else torch.int64
        return value.to(kind), reason.to(torch.uint8)


def _rows(table: TrialTable) -> int:
    """Rows that trials are numbered by."""
    lengths = [len(values) for values in table.columns.values()]
    return max(int(table.number.max(initial=-1)) + 1, *lengths, 0)


def _column(
    tables: Sequence[TrialTable | None],
    rows: Sequence[int],
    name: str,
    texts: tuple[str, ...] | None,
    device: torch.device,
) -> _Column:
    kind = np.float64 if texts is None else np.int64
    number, tick = np.zeros(sum(rows) + 1, kind), np.zeros(sum(rows) + 1, np.int64)
    timed, there = np.zeros(len(tables), bool), np.zeros(len(tables), bool)
    first = 0
    for session, (table, count) in enumerate(zip(tables, rows, strict=True)):
        if table is not None and name in table.columns:
            values: NDArray[Any] = table.columns[name]
            there[session], timed[session] = True, name in table.timed
            if texts is not None:
                said = np.array([str(one) for one in values])
                number[first : first + count] = np.searchsorted(np.array(texts), said)
            elif timed[session]:
                tick[first : first + count] = values
            else:
                number[first : first + count] = values
        first += count
    ticks = torch.from_numpy(tick).to(device) if timed.any() else None
    moved = (torch.from_numpy(one).to(device) for one in (timed, there))
    return _Column(torch.from_numpy(number).to(device), ticks, *moved)


def predicted(chosen: Chosen, stream: Trials) -> int:
    """Bytes that a session takes at most, from metadata alone."""
    name = f"intervals/{stream.table}"
    if name not in chosen.session.tables:
        return 0
    rows = int(chosen.session.table(name).columns["start"].values.shape[0])
    return rows * (4 * 8 + 2 * 8 * len(stream.columns))
