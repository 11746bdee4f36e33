"""A migration of a contract that exists in tests alone."""

from __future__ import annotations

import numpy as np

from neurostore.schemas import Column, Table


def with_depth(table: Table) -> Table:
    """electrodes/v1 → v2: a depth for every electrode, -1 where none is known."""
    depth = np.full(table.rows, -1.0)
    columns = {**table.columns, "depth": Column(("electrode",), depth, {"units": "um"})}
    return Table(table.name, "electrodes/v2", columns, table.attrs)


def forgetful(table: Table) -> Table:
    """A migration that does not do what its contract says."""
    return Table(table.name, "electrodes/v2", table.columns, table.attrs)
