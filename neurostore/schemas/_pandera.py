"""A contract as a pandera schema for people's own pipelines, under the same check ids."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
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
        # pandera takes the other byte order for the same dtype, and knows no second choice.
        checks += [(name, what) for what in ("dims", "dtype", "units")]
    run: list[_LayoutCheck | _ValueCheck | _ExtrasCheck] = [
        _LayoutCheck(spec.id, spec.check(*names)) for names in checks
    ]
    if with_values:
        run += [_ValueCheck(spec.id, id) for id in _value_ids(spec)]
    if spec.open:
        run.append(_ExtrasCheck(spec.id, spec.check("*", "extra")))
    return _schema_class()(
        data,
        coords,
        checks=[pa.Check(one, name=one.id) for one in run],
        strict=not spec.open,
        strict_coords=not spec.open,
        name=spec.id,
        title=spec.title,
    )


@cache
def _schema_class() -> type[pa.DatasetSchema]:
    import pandera.xarray as pa
    from pandera.config import ValidationDepth, config_context

    class TableSchema(pa.DatasetSchema):
        """Checks values of lazy data too, and takes a column as variable or as coordinate."""

        def validate(self, check_obj: xr.Dataset, *args: Any, **options: Any) -> xr.Dataset:
            named = set(self.coords or ())
            loose = [c for c in check_obj.coords if c not in named and c not in check_obj.indexes]
            laid = check_obj.reset_coords(loose)
            laid = laid.set_coords([name for name in laid.data_vars if name in named])
            with config_context(validation_depth=ValidationDepth.SCHEMA_AND_DATA):
                super().validate(laid, *args, **options)
            return check_obj

        @classmethod
        def get_backend(cls, *args: Any, **options: Any) -> Any:
            return pa.DatasetSchema.get_backend(*args, **options)  # registered by class

    return TableSchema


def _value_ids(spec: Contract) -> list[str]:
    ids = []
    for name, said in spec.columns.items():
        ids += [spec.check(name, rule.rule) for rule in said.rules]
        if said.min is not None or said.max is not None:
            ids.append(spec.check(name, "range"))
    where = {"ordered": "stop", "disjoint": "start", "blocks": "block", "timed": "time"}
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


@dataclass(frozen=True)
class _ExtrasCheck:
    """Passes where the layout of the source's own columns holds."""

    contract: str
    id: str

    def __call__(self, dataset: xr.Dataset) -> bool:
        return not _extras(dataset, contract(self.contract))


def _extras(dataset: xr.Dataset, spec: Contract) -> set[str]:
    found = layout(from_xarray(dataset, spec.id))
    return {one.check for one in found if one.variable not in spec.columns}


def check_ids(error: SchemaErrors, id: str) -> set[str]:
    """The check ids behind pandera's errors, for a schema made of the contract `id`."""
    spec, ids = contract(id), set()
    for one in error.schema_errors:
        reason, column = getattr(one.reason_code, "name", ""), str(getattr(one.schema, "name", ""))
        if reason == "COLUMN_NOT_IN_DATAFRAME":
            ids.add(spec.check(str(one.failure_cases), "missing"))
        elif reason == "COLUMN_NOT_IN_SCHEMA":
            ids |= _extras(error.data, spec)
        elif not isinstance(name := getattr(one.check, "name", None), str):
            ids.add(spec.check(column, "dims" if str(one.check) == "dims" else "dtype"))
        else:
            ids |= _extras(error.data, spec) if name == spec.check("*", "extra") else {name}
    return ids
