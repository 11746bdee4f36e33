"""Contracts: what a table must look like, compiled to two gates and to one pandera schema.

`layout` looks at names, dimensions, dtypes and units and reads no value; it runs whenever a table
is opened. `values` runs the named rules, chunk by chunk, before a table is committed.
`Contract.to_pandera` gives both to people's own pipelines, under the same check ids.

A check id is ``<table>/v<N>/<column>/<check>`` and never changes once a contract is frozen.
"""

from neurostore.errors import JSON, Finding, Severity
from neurostore.schemas._contract import ColumnSpec, Contract, contract, contracts, frozen, parse
from neurostore.schemas._layout import is_dtype, layout
from neurostore.schemas._migrate import declare, migrate, steps
from neurostore.schemas._pandera import check_ids
from neurostore.schemas._table import Column, Table, Values, from_xarray
from neurostore.schemas._values import column_rules, table_rules, validate, values

__all__ = [
    "JSON",
    "Column",
    "ColumnSpec",
    "Contract",
    "Finding",
    "Severity",
    "Table",
    "Values",
    "check_ids",
    "column_rules",
    "contract",
    "contracts",
    "declare",
    "from_xarray",
    "frozen",
    "is_dtype",
    "layout",
    "migrate",
    "parse",
    "steps",
    "table_rules",
    "validate",
    "values",
]
