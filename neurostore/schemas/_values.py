"""The second gate: every value of a table against the named rules, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import MISSING, exact
from neurostore.errors import Finding, Severity, UsageError, counted
from neurostore.schemas._contract import ColumnSpec, Contract, Rule, contract
from neurostore.schemas._layout import layout
from neurostore.schemas._table import Table, Values

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
    if chunk.dtype.kind in "iu":
        return np.asarray(chunk == MISSING)
    return np.asarray(~np.isfinite(chunk))


def _non_negative(chunk: NDArray[Any], before: Any) -> Mask:
    return np.asarray(chunk < 0)


def _positive(chunk: NDArray[Any], before: Any) -> Mask:
    return np.asarray(~(chunk > 0))


def _named(chunk: NDArray[Any], before: Any) -> Mask:
    return np.asarray(chunk == "")


COLUMN_RULES: dict[str, tuple[ColumnRule | None, str]] = {
    "ascending": (_ascending, "never below the value before"),
    "finite": (_finite, "finite, and a tick that is there"),
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
            self.row, self.value = offset + first, " ".join(str(chunk[first]).split())[:80]
        self.count += count

    def finding(self, table: str, column: str) -> Finding:
        rule = self.check.rpartition("/")[2]
        message = _message(table, column, rule, self.count, self.row, self.value, self.expected)
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
            findings += TABLE_RULES[rule.rule](_Broken(spec, table, rule), table, linked)
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
    for rule in said.rules:
        if rule.rule == "unique":
            findings += _unique(_Broken(spec, table, rule), said.name, _read(table, said.name))
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


@dataclass(frozen=True)
class _Broken:
    """Makes the finding of one rule that was broken."""

    spec: Contract
    table: Table
    rule: Rule

    def __call__(self, column: str, bad: Mask, found: str, expected: str) -> list[Finding]:
        what, name = self.rule.rule, self.table.name
        row, count = int(np.argmax(bad)), int(np.count_nonzero(bad))
        message = _message(name, column, what, count, row, found, expected)
        check, severity = self.spec.check(column, what), self.rule.severity
        return [Finding(check, severity, name, column, message, row, found, expected, count)]

    def whole(self, column: str, found: str, expected: str) -> list[Finding]:
        """The finding of a table that is wrong as a whole."""
        return self(column, np.ones(1, dtype=bool), found, expected)


_SAID = {"range": "in range", "link": "linked", "blocks": "right", "counts": "right"}


def _message(
    table: str, column: str, rule: str, count: int, row: int | None, found: str, expected: str
) -> str:
    said = _SAID.get(rule, rule)
    return (
        f"{table}: {column!r} is not {said} in {counted(count, 'row')}, first at row {row}: "
        f"found {found}, expected {expected}"
    )


def _unique(broken: _Broken, name: str, column: NDArray[Any]) -> list[Finding]:
    _, first = np.unique(column, return_index=True)
    if len(first) == len(column):
        return []
    repeated = np.ones(len(column), dtype=bool)
    repeated[first] = False
    return broken(name, repeated, f"{str(column[np.argmax(repeated)])!r} again", "once each")


def _ordered(broken: _Broken, table: Table, linked: Mapping[str, Table]) -> list[Finding]:
    start, stop = _read(table, "start"), _read(table, "stop")
    bad = (stop < start) | (start == MISSING)
    if "valid" in table.columns:
        bad &= _read(table, "valid")
    if not bad.any():
        return []
    row = int(np.argmax(bad))
    return broken("stop", bad, f"start {start[row]}, stop {stop[row]}", "stop at or after start")


def _disjoint(broken: _Broken, table: Table, linked: Mapping[str, Table]) -> list[Finding]:
    """No interval starts before the one ahead of it, in order of start, has stopped."""
    start, stop = _read(table, "start"), _read(table, "stop")
    group = _read(table, "unit") if "unit" in table.columns else np.zeros(1, np.uint32)
    group = np.broadcast_to(group, start.shape)
    order = np.lexsort((start, group))
    bad = np.zeros(len(start), dtype=bool)
    for first in range(1, len(order), PIECE):
        row = order[first : first + PIECE]
        ahead = order[first - 1 : first - 1 + len(row)]
        bad[row] = (stop[ahead] > start[row]) & (group[ahead] == group[row])
    if not bad.any():
        return []
    found = f"start {start[np.argmax(bad)]} inside another interval"
    return broken("start", bad, found, "no overlap")


def _blocks(broken: _Broken, table: Table, linked: Mapping[str, Table]) -> list[Finding]:
    block, time = _read(table, "block"), table.columns["time"].values
    n = time.shape[0]
    inside = len(block) > 0 and block[0] == 0 and block[-1] == n
    if not inside or (block < 0).any() or (block > n).any():
        return broken.whole("block", f"{block[:1]} ... {block[-1:]}", f"0 to {n}")
    where = table.attrs.get("block")
    said = where if isinstance(where, dict) else {}
    first, length = said.get("start"), said.get("length")
    if not (_is_tick(first) and _is_tick(length) and length > 0):
        return broken.whole("block", f"the attribute {where!r}", "start and length in ticks")
    counts = np.zeros(len(block) - 1, dtype=np.int64)
    for _, chunk in pieces(time):
        low, some = _counts_of_blocks(chunk, first, length, len(counts))
        counts[low : low + len(some)] += some
    bad = counts != np.diff(block)
    if not bad.any():
        return []
    row = int(np.argmax(bad))
    return broken("block", bad, f"{np.diff(block)[row]} spikes", f"{counts[row]}")


def _counts_of_blocks(
    time: NDArray[np.int64], first: int, length: int, blocks: int
) -> tuple[int, NDArray[np.int64]]:
    """Spikes (block,) of the blocks that a run of spikes lies in, and which is the first."""
    if len(time) and not (time[1:] < time[:-1]).any():  # no division of every tick
        ends = [(int(time[k]) - first) // length for k in (0, -1)]
        low, high = max(0, ends[0]), min(blocks - 1, ends[1])
        if high < low:
            return 0, np.zeros(0, dtype=np.int64)
        edges = first + np.arange(low, high + 2, dtype=np.int64) * length
        return low, np.diff(np.searchsorted(time, edges))
    found = (time - first) // length
    found = found[(found >= 0) & (found < blocks)]
    low = int(found.min(initial=blocks))
    return low, np.bincount(found - low)


def _counts(broken: _Broken, table: Table, linked: Mapping[str, Table]) -> list[Finding]:
    if "spikes" not in linked:
        return []
    said = _read(table, "n_spikes")
    counts = np.zeros(len(said), dtype=np.int64)
    for _, chunk in pieces(linked["spikes"].columns["unit"].values):
        counts += np.bincount(chunk[chunk < len(said)], minlength=len(said))
    bad = counts != said
    if not bad.any():
        return []
    row = int(np.argmax(bad))
    return broken("n_spikes", bad, str(said[row]), f"{counts[row]} spikes")


def _timed(broken: _Broken, table: Table, linked: Mapping[str, Table]) -> list[Finding]:
    """Samples have a time each or the attributes `start` (tick) and `rate` (Hz), never both."""
    start, rate = table.attrs.get("start"), table.attrs.get("rate")
    try:
        regular = _is_tick(start) and exact(str(rate)) > 0
    except UsageError:
        regular = False
    if regular != ("time" in table.columns) and (regular or start is rate is None):
        return []
    found = f"start {start!r}, rate {rate!r}, {'a' if 'time' in table.columns else 'no'} column"
    return broken.whole("time", found, "a column 'time', or the attributes start and rate")


def _is_tick(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and abs(value) < 2**62


def _read(table: Table, name: str) -> NDArray[Any]:
    return np.asarray(table.columns[name].values[:])


TableRule: TypeAlias = Callable[[_Broken, Table, Mapping[str, Table]], list[Finding]]
TABLE_RULES: dict[str, TableRule] = {
    "ordered": _ordered,
    "disjoint": _disjoint,
    "blocks": _blocks,
    "counts": _counts,
    "timed": _timed,
}


def column_rules() -> tuple[str, ...]:
    """Names of the rules that a contract may set on a column."""
    return tuple(COLUMN_RULES)


def table_rules() -> tuple[str, ...]:
    """Names of the rules that a contract may set on a table."""
    return tuple(TABLE_RULES)


def validate(table: Table, linked: Mapping[str, Table] | None = None) -> list[Finding]:
    """Both gates at once: layout, and where that holds the values."""
    return layout(table) or values(table, linked)
