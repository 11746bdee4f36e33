"""The first gate: names, dimensions, dtypes and units of a table; reads no value."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from neurostore.errors import Finding
from neurostore.schemas._contract import ColumnSpec, Contract, contract
from neurostore.schemas._table import Column, Table


def layout(table: Table) -> list[Finding]:
    """Names, dimensions, dtypes and units of a table against its contract; reads no value."""
    spec = contract(table.contract)
    findings = _lengths(spec, table)
    for name, column in spec.columns.items():
        if name in table.columns:
            findings += _column_layout(spec, table.name, column, table.columns[name])
        elif not column.optional:
            findings.append(
                _critical(spec, table.name, name, "missing", "no such column", f"{column.dtype[0]}")
            )
    for name in [name for name in table.columns if name not in spec.columns]:
        findings += _extra_layout(spec, table, name)
    return findings


def _lengths(spec: Contract, table: Table) -> list[Finding]:
    """Columns with as many dimensions as names for them, each of one length in all columns."""
    findings: list[Finding] = []
    seen: dict[str, int] = {}
    for name, column in table.columns.items():
        shape = column.values.shape
        if len(shape) != len(column.dims):
            findings.append(
                _critical(spec, table.name, name, "shape", f"{shape}", f"{column.dims}")
            )
            continue
        for dim, length in zip(column.dims, shape, strict=True):
            if seen.setdefault(dim, length) != length:
                expected = f"{seen[dim]} along {dim!r}"
                findings.append(_critical(spec, table.name, name, "length", str(length), expected))
    return findings


def _column_layout(spec: Contract, where: str, said: ColumnSpec, column: Column) -> list[Finding]:
    findings = []
    if column.dims not in (said.required_dims, said.all_dims):
        expected = str(said.dims)
        findings.append(_critical(spec, where, said.name, "dims", str(column.dims), expected))
    if not any(is_dtype(column.values.dtype, name) for name in said.dtype):
        expected = " or ".join(said.dtype)
        findings.append(
            _critical(spec, where, said.name, "dtype", dtype_name(column.values.dtype), expected)
        )
    units = str(column.attrs.get("units", ""))
    if (said.units == "*" and not units) or (said.units not in ("", "*") and units != said.units):
        expected = said.units if said.units != "*" else "any unit, by name"
        findings.append(_critical(spec, where, said.name, "units", repr(units), expected))
    return findings


def _extra_layout(spec: Contract, table: Table, name: str) -> list[Finding]:
    column = table.columns[name]
    if not spec.open:
        known = ", ".join(spec.columns)
        return [_critical(spec, table.name, name, "unknown", f"column {name!r}", known)]
    if column.dims[:1] != (spec.dim,):
        return [_critical(spec, table.name, name, "dims", str(column.dims), f"({spec.dim!r}, ...)")]
    if not any(is_dtype(column.values.dtype, kind) for kind in ("number", "bool", "string")):
        found = dtype_name(column.values.dtype)
        return [_critical(spec, table.name, name, "dtype", found, "number, bool or string")]
    return []


def _critical(
    spec: Contract, where: str, column: str, what: str, found: str, expected: str
) -> Finding:
    message = f"{spec.id}: {what} of {column!r} in {where!r}: found {found}, expected {expected}"
    check = spec.check(column, what)
    return Finding(check, "critical", where, column, message, None, found, expected)


_NUMBER = re.compile(r"u?int(8|16|32|64)|float(16|32|64)")


def dtype_name(dtype: Any) -> str:
    """The contract's word for a dtype: ``string`` for text, else numpy's name."""
    return "string" if dtype == np.dtypes.StringDType() else str(dtype)


def is_dtype(dtype: Any, name: str) -> bool:
    """Whether a dtype is what the contract's word names.

    ``number`` is any integer or float of up to 64 bits in the byte order of the machine.
    """
    if name == "number":
        return _NUMBER.fullmatch(dtype_name(dtype)) is not None
    return dtype_name(dtype) == name
