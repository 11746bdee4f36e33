"""A contract as a pandera schema for people's own pipelines, under the same check ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostore.schemas._contract import Contract, contract
from neurostore.schemas._layout import layout
from neurostore.schemas._table import from_xarray
from neurostore.schemas._values import values

if TYPE_CHECKING:
    import pandera.xarray as pa
    import xarray as xr
    from pandera.errors import SchemaErrors


def to_pandera(spec: Contract, with_values: bool) -> pa.DatasetSchema:
    """The schema of a contract; with values, its rules are checks of it too."""
    import pandera.xarray as pa

    dims = {dim for column in spec.columns.values() for dim in column.all_dims}
    data: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    checks = []
    for name, said in spec.columns.items():
        shape = said.dims if said.dims == said.required_dims else None
        plain = said.dtype[0] if len(said.dtype) == 1 and said.dtype != ("number",) else None
        dtype = np.dtypes.StringDType() if plain == "string" else plain
        common: dict[str, Any] = {
            "dims": shape,
            "dtype": dtype,
            "required": not said.optional,
            "nullable": True,
        }
        if name in dims:  # xarray makes a coordinate of what is named like its dimension
            coords[name] = pa.Coordinate(name=name, title=said.title, **common)
        else:
            data[name] = pa.DataVar(name=name, title=said.title, **common)
        missed = [what for what, held in (("dims", shape), ("dtype", plain)) if not held]
        checks += [(name, what) for what in missed + (["units"] if said.units else [])]
    run: list[_LayoutCheck | _ValueCheck] = [
        _LayoutCheck(spec.id, spec.check(*names)) for names in checks
    ]
    if with_values:
        run += [_ValueCheck(spec.id, id) for id in _value_ids(spec)]
    return pa.DatasetSchema(
        data,
        coords,
        checks=[pa.Check(one, name=one.id) for one in run],
        strict=not spec.open,
        strict_coords=not spec.open,
        name=spec.id,
        title=spec.title,
    )


def _value_ids(spec: Contract) -> list[str]:
    ids = []
    for name, said in spec.columns.items():
        ids += [spec.check(name, rule.rule) for rule in said.rules]
        if said.min is not None or said.max is not None:
            ids.append(spec.check(name, "range"))
    where = {"ordered": "stop", "disjoint": "start", "blocks": "block"}
    return ids + [spec.check(where[r.rule], r.rule) for r in spec.rules if r.rule in where]


@dataclass(frozen=True)
class _LayoutCheck:
    """Passes unless the layout gate reports this id."""

    contract: str
    id: str

    def __call__(self, dataset: xr.Dataset) -> bool:
        return all(one.check != self.id for one in layout(from_xarray(dataset, self.contract)))


@dataclass(frozen=True)
class _ValueCheck:
    """Passes unless the layout holds and the values gate reports this id."""

    contract: str
    id: str

    def __call__(self, dataset: xr.Dataset) -> bool:
        table = from_xarray(dataset, self.contract)
        return bool(layout(table)) or all(one.check != self.id for one in values(table))


def check_ids(error: SchemaErrors, id: str) -> set[str]:
    """The check ids behind pandera's errors, for a schema made of the contract `id`."""
    spec, ids = contract(id), set()
    for one in error.schema_errors:
        what, column = str(one.check), getattr(one.schema, "name", None)
        if one.reason_code is not None and one.reason_code.name == "COLUMN_NOT_IN_DATAFRAME":
            ids.add(spec.check(str(one.failure_cases), "missing"))
        elif one.reason_code is not None and one.reason_code.name == "COLUMN_NOT_IN_SCHEMA":
            names = str(one.failure_cases).strip("[]").replace("'", "").split(", ")
            ids |= {spec.check(name, "unknown") for name in names}
        elif isinstance(getattr(one.check, "name", None), str):
            ids.add(one.check.name)
        else:
            ids.add(spec.check(str(column), "dims" if what == "dims" else "dtype"))
    return ids
