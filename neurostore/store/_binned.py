"""Counts of a whole session as one lazy array, counted chunk by chunk where they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import exact
from neurostore.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    import xarray as xr

    from neurostore.store.session import Session

_VALUES = 1 << 22
"""Counts in a chunk."""


@dataclass(frozen=True, eq=False)
class _Counts:
    """Counts (unit, bin) int32, or whether bins are observed, computed where they are sliced."""

    session: Session
    rows: NDArray[np.int64]
    edges: NDArray[np.int64] = field(repr=False)
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    ndim: int

    def __getitem__(self, key: tuple[slice | int, ...]) -> NDArray[Any]:
        """Basic indexing alone, which dask may have fused of several: any step, or one place."""
        bins, one = range(self.shape[-1])[key[-1]], isinstance(key[-1], int | np.integer)
        if isinstance(bins, int):
            bins = range(bins, bins + 1)
        low, high = (min(bins[0], bins[-1]), max(bins[0], bins[-1])) if bins else (0, -1)
        made = self._read(key[0] if self.ndim > 1 else slice(None), self.edges[low : high + 2])
        return made[..., 0] if one else made[..., :: bins.step]

    def _read(self, which: slice | int, edges: NDArray[np.int64]) -> NDArray[Any]:
        rows = self.rows[which]
        if self.dtype != bool:
            return self.session._bin(edges)[rows]
        seen: NDArray[Any] = self.session._observed_bins(np.atleast_1d(rows), edges)[1]
        return seen[0] if rows.ndim == 0 and self.ndim > 1 else seen


def binned(
    session: Session,
    bin: float | str | Fraction,
    rows: NDArray[np.int64],
    start: float | str | Fraction,
    stop: float | str | Fraction,
    chunk: int | None,
) -> xr.DataArray:
    """See `Session.binned`."""
    try:
        import dask.array as da
    except ImportError as error:
        raise MissingExtraError("session.binned()", "dask") from error
    import xarray as xr

    clock = session.clock
    edges = clock.edges(clock.tick(start), clock.bins(start, stop, bin), bin)
    bins, length = len(edges) - 1, _VALUES // max(1, len(rows)) if chunk is None else chunk
    if chunk is not None and chunk < 1:
        raise UsageError(f"A chunk holds at least one bin, found {chunk}.")

    def lazy(dims: tuple[str, ...], dtype: type) -> Any:
        shape = (len(rows), bins)[-len(dims) :]
        made = _Counts(session, rows, edges, np.dtype(dtype), shape, len(shape))
        chunks = (-1, max(1, length))[-len(dims) :]
        from_array: Any = da.from_array  # published without types
        none: NDArray[Any] = np.empty(
            (0,) * len(dims), dtype
        )  # nothing is sliced to learn what it is
        return from_array(made, chunks=chunks, name=False, asarray=True, meta=none)

    by_unit = "unit" in session._observed_table
    dims = ("unit", "bin") if by_unit else ("bin",)
    coords = {
        "unit": session._ids[rows].astype(object),
        "time": ("bin", clock.seconds(edges[:-1]), {"units": "s"}),
        "observed": (dims, lazy(dims, bool)),
    }
    attrs = {"bin": float(exact(bin))}
    return xr.DataArray(lazy(("unit", "bin"), np.int32), coords, ("unit", "bin"), "counts", attrs)
