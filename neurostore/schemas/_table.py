"""Tables as they are stored, and what is found wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from neurostore.clocks import Clock
from neurostore.errors import JSON, Finding
from neurostore.schemas._contract import contract

if TYPE_CHECKING:
    import xarray as xr


class Values(Protocol):
    """What holds a column: numpy, dask, an HDF5 or Zarr array; read by slices of its first axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every dimension."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of one value."""
        ...

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Column:
    """One array of a table: dimension names, values (maybe lazy), attributes (units, ...)."""

    dims: tuple[str, ...]
    values: Values
    attrs: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Table:
    """A table as it is stored (times in ticks): named columns under one contract.

    Attributes
    ----------
    name : str
        Where it lies in its session: ``"spikes"``, ``"behaviour/wheel"``.
    contract : str
        ``"behaviour/v1"``.
    findings : tuple of Finding
        What was met, and mended, while the table was made.
    clock : Clock, optional
        What its ticks count, where it has ticks; a session of another clock refuses it.
    """

    name: str
    contract: str
    columns: Mapping[str, Column]
    attrs: Mapping[str, JSON] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    clock: Clock | None = None

    @property
    def rows(self) -> int:
        """Length of the contract's main dimension; 0 where no column has it."""
        main = contract(self.contract).dim
        for column in self.columns.values():
            if column.dims and column.dims[0] == main:
                return column.values.shape[0]
        return 0

    def to_xarray(self, *, indexed: bool = False) -> xr.Dataset:
        """The table as an `xarray.Dataset`, every column lazy.

        With ``indexed=True`` what is named like its dimension is read and becomes an index.
        """
        import xarray as xr

        variables = {
            name: xr.Variable(column.dims, _lazily(column.values), dict(column.attrs))
            for name, column in self.columns.items()
        }
        coords = {name: v for name, v in variables.items() if name in v.dims}
        data = {name: v for name, v in variables.items() if name not in coords}
        chosen = coords if indexed else xr.Coordinates(coords, indexes={})
        return xr.Dataset(data, chosen, dict(self.attrs))


def from_xarray(dataset: xr.Dataset, contract: str, name: str = "") -> Table:
    """A dataset laid out as stored (ticks, dims and names of the contract) as a `Table`."""
    columns = {}
    for key, variable in dataset.variables.items():
        dims = tuple(str(dim) for dim in variable.dims)
        columns[str(key)] = Column(dims, variable, variable.attrs)  # sliced, never loaded whole
    return Table(name or contract.partition("/")[0], contract, columns, dataset.attrs)


def _lazily(values: Values) -> Any:
    """Something xarray slices without reading it; numpy passes as it is."""
    if isinstance(values, np.ndarray):
        return values
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class Lazy(BackendArray):
        shape = values.shape
        dtype = np.dtype(values.dtype)

        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, indexing.OuterIndexer):  # xarray cannot split an empty selection
                none = (isinstance(k, np.ndarray) and not k.size for k in key.tuple)
                pairs = zip(key.tuple, none, strict=True)
                key = indexing.OuterIndexer(tuple(slice(0, 0) if n else k for k, n in pairs))
            basic = indexing.IndexingSupport.BASIC
            return indexing.explicit_indexing_adapter(
                key, self.shape, basic, lambda key: np.asarray(values[key])
            )

    return indexing.LazilyIndexedArray(Lazy())
