"""The second gate: every value of a table against the named rules, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurostore.schemas._contract import ColumnSpec, Contract, Severity, contract
from neurostore.schemas._layout import layout
from neurostore.schemas._table import Finding, Table, Values

Mask: TypeAlias = NDArray[np.bool_]

PIECE = 1 << 20
"""Values that a rule sees at once."""

ColumnRule: TypeAlias = Callable[[NDArray[Any], Any], Mask]


def _ascending(chunk: NDArray[Any], before: Any) -> Mask:
    bad = np.zeros(len(chunk), dtype=bool)
    np.less(chunk[1:], chunk[:-1], out=bad[1:])
    if before is not None and len(chunk):
        bad[0] = chunk[0] < before
    return bad


def _finite(chunk: NDArray[Any], before: Any) -> Mask:
    return np.asarray(~np.isfinite(chunk))


def _non_negative(chunk: NDArray[Any], before: Any) -> Mask:
    return np.asarray(chunk < 0)


def _positive(chunk: NDArray[Any], before: Any) -> Mask:
    return np.asarray(~(chunk > 0))


def _named(chunk: NDArray[Any], before: Any) -> Mask:
    return np.asarray(chunk == "")


COLUMN_RULES: dict[str, tuple[ColumnRule | None, str]] = {
    "ascending": (_ascending, "never below the value before"),
    "finite": (_finite, "finite"),
    "non_negative": (_non_negative, "0 or more"),
    "positive": (_positive, "above 0"),
    "named": (_named, "not empty"),
    "unique": (None, "every value once"),  # needs the whole column
}


@dataclass
class _Seen:
    """What one rule has met so far: how many bad rows, and the first of them."""

    check: str
    severity: Severity
    expected: str
    mask: ColumnRule
    count: int = 0
    row: int | None = None
    value: str = ""

    def look(self, chunk: NDArray[Any], before: Any, offset: int) -> None:
        bad = self.mask(chunk, before)
        if bad.ndim > 1:
            bad = np.asarray(bad.any(axis=tuple(range(1, bad.ndim))))
        count = int(np.count_nonzero(bad))
        if count and self.row is None:
            first = int(np.argmax(bad))
            self.row, self.value = offset + first, str(chunk[first])[:80]
        self.count += count

    def finding(self, table: str, column: str) -> Finding:
        rule = self.check.rpartition("/")[2]
        message = (
            f"{table}: {column!r} is not {rule} in {self.count:,} rows, first at row {self.row}: "
            f"found {self.value}, expected {self.expected}"
        )
        return Finding(
            self.check,
            self.severity,
            table,
            column,
            message,
            self.row,
            self.value,
            self.expected,
            self.count,
        )


def pieces(values: Values) -> Iterator[tuple[int, NDArray[Any]]]:
    """A column in runs of rows, about `PIECE` values each: (first row, array)."""
    width = max(1, int(np.prod(values.shape[1:], dtype=np.int64)))
    step = max(1, PIECE // width)
    for first in range(0, values.shape[0], step):
        yield first, np.asarray(values[first : first + step])


def values(table: Table, linked: Mapping[str, Table] | None = None) -> list[Finding]:
    """Every value of a table against the rules of its contract, in one pass a column.

    Parameters
    ----------
    table : Table
        Its layout must be right (see `layout`).
    linked : mapping of name to Table, optional
        The other tables of the session; rules that link to a table not given are left out.
    """
    spec, linked = contract(table.contract), linked or {}
    findings = []
    for name in table.columns:
        if name in spec.columns:
            findings += _column_values(spec, spec.columns[name], table, linked)
    for rule in spec.rules:
        if not rule.tables or table.name in rule.tables:
            findings += TABLE_RULES[rule.rule](spec, table, linked)
    return findings


def _column_values(
    spec: Contract, said: ColumnSpec, table: Table, linked: Mapping[str, Table]
) -> list[Finding]:
    column = table.columns[said.name]
    seen = _seen(spec, said, linked)
    if seen:
        before: Any = None
        for offset, chunk in pieces(column.values):
            for one in seen:
                one.look(chunk, before, offset)
            before = chunk[-1]
    findings = [one.finding(table.name, said.name) for one in seen if one.count]
    if any(rule.rule == "unique" for rule in said.rules):
        findings += _unique(spec, table, said.name, np.asarray(column.values[:]))
    return findings


def _seen(spec: Contract, said: ColumnSpec, linked: Mapping[str, Table]) -> list[_Seen]:
    seen = []
    for rule in said.rules:
        mask, expected = COLUMN_RULES[rule.rule]
        if mask is not None:
            seen.append(_Seen(spec.check(said.name, rule.rule), rule.severity, expected, mask))
    if said.min is not None or said.max is not None:
        low = -np.inf if said.min is None else said.min
        high = np.inf if said.max is None else said.max
        seen.append(
            _Seen(
                spec.check(said.name, "range"),
                "critical",
                f"{low:g} to {high:g}",
                lambda chunk, _: ~np.asarray((chunk >= low) & (chunk <= high)),
            )
        )
    if said.link and said.link in linked:
        rows = linked[said.link].rows
        expected = f"a row of {said.link!r}, 0 to {rows - 1}"
        seen.append(
            _Seen(
                spec.check(said.name, "link"),
                "critical",
                expected,
                lambda chunk, _: np.asarray(chunk >= rows) | np.asarray(chunk < 0),
            )
        )
    return seen


def _unique(spec: Contract, table: Table, name: str, column: NDArray[Any]) -> list[Finding]:
    _, first, counts = np.unique(column, return_index=True, return_counts=True)
    if not (counts > 1).any():
        return []
    repeated = np.ones(len(column), dtype=bool)
    repeated[first] = False
    row = int(np.argmax(repeated))
    return [
        _rows(spec, table, name, "unique", repeated, f"{str(column[row])!r} again", "once each")
    ]


def _rows(
    spec: Contract,
    table: Table,
    column: str,
    what: str,
    bad: Mask,
    found: str,
    expected: str,
    severity: Severity = "critical",
) -> Finding:
    row, count = int(np.argmax(bad)), int(np.count_nonzero(bad))
    message = (
        f"{table.name}: {column!r} is not {what} in {count:,} rows, first at row {row}: "
        f"found {found}, expected {expected}"
    )
    check = spec.check(column, what)
    return Finding(check, severity, table.name, column, message, row, found, expected, count)


def _ordered(spec: Contract, table: Table, linked: Mapping[str, Table]) -> list[Finding]:
    start, stop = _read(table, "start"), _read(table, "stop")
    bad = stop < start
    if "valid" in table.columns:
        bad &= _read(table, "valid")
    if not bad.any():
        return []
    row = int(np.argmax(bad))
    found = f"start {start[row]}, stop {stop[row]}"
    return [
        _rows(spec, table, "stop", "ordered", bad, found, "stop at or after start", "violation")
    ]


def _disjoint(spec: Contract, table: Table, linked: Mapping[str, Table]) -> list[Finding]:
    start, stop = _read(table, "start"), _read(table, "stop")
    group = _read(table, "unit") if "unit" in table.columns else np.zeros(len(start), np.uint32)
    order = np.lexsort((start, group))
    bad = np.zeros(len(start), dtype=bool)
    overlaps = (stop[order][:-1] > start[order][1:]) & (group[order][:-1] == group[order][1:])
    bad[order[1:]] = overlaps
    if not bad.any():
        return []
    row = int(np.argmax(bad))
    found = f"start {start[row]} inside another interval"
    return [_rows(spec, table, "start", "disjoint", bad, found, "no overlap")]


def _blocks(spec: Contract, table: Table, linked: Mapping[str, Table]) -> list[Finding]:
    block, time = _read(table, "block"), table.columns["time"].values
    n = time.shape[0]
    inside = len(block) > 0 and block[0] == 0 and block[-1] == n
    if not inside or (block < 0).any() or (block > n).any():
        bad = np.ones(1, dtype=bool)
        found = f"{block[:1]} ... {block[-1:]}"
        return [_rows(spec, table, "block", "blocks", bad, found, f"0 to {n}")]
    declared = table.attrs.get("block")
    if not isinstance(declared, dict):
        bad = np.ones(1, dtype=bool)
        return [_rows(spec, table, "block", "blocks", bad, "no attribute", "start and length")]
    first, length = int(str(declared["start"])), int(str(declared["length"]))
    counts = np.zeros(len(block) - 1, dtype=np.int64)
    for _, chunk in pieces(time):
        where = (chunk - first) // length
        inside_blocks = where[(where >= 0) & (where < len(counts))]
        if len(inside_blocks):
            low = int(inside_blocks.min())
            found_counts = np.bincount(inside_blocks - low)
            counts[low : low + len(found_counts)] += found_counts
    bad = counts != np.diff(block)
    if not bad.any():
        return []
    row = int(np.argmax(bad))
    found, expected = f"{np.diff(block)[row]} spikes", f"{counts[row]}"
    return [_rows(spec, table, "block", "blocks", bad, found, expected)]


def _counts(spec: Contract, table: Table, linked: Mapping[str, Table]) -> list[Finding]:
    if "spikes" not in linked:
        return []
    said = _read(table, "n_spikes")
    counts = np.zeros(len(said), dtype=np.int64)
    for _, chunk in pieces(linked["spikes"].columns["unit"].values):
        found_counts = np.bincount(chunk, minlength=len(said))
        counts += found_counts[: len(said)]
    bad = counts != said
    if not bad.any():
        return []
    row = int(np.argmax(bad))
    return [_rows(spec, table, "n_spikes", "counts", bad, str(said[row]), f"{counts[row]} spikes")]


def _read(table: Table, name: str) -> NDArray[Any]:
    return np.asarray(table.columns[name].values[:])


TableRule: TypeAlias = Callable[[Contract, Table, Mapping[str, Table]], list[Finding]]
TABLE_RULES: dict[str, TableRule] = {
    "ordered": _ordered,
    "disjoint": _disjoint,
    "blocks": _blocks,
    "counts": _counts,
}


def validate(table: Table, linked: Mapping[str, Table] | None = None) -> list[Finding]:
    """Both gates at once: layout, and where that holds the values."""
    return layout(table) or values(table, linked)
