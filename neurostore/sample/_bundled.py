"""A session of a bundle: the tables that lie in it, and the rows that were chosen by SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import NotFoundError, UsageError
from neurostore.store.session import Session

if TYPE_CHECKING:
    from neurostore.schemas import Table


class BundledSession(Session):
    """A session whose tables come from a bundle and nowhere else."""

    def stored(self, name: str, version: str | None = None) -> Table:
        """There is no stored form of a table here: `table` gives those that were packed."""
        raise self._absent(name)

    def _absent(self, name: str) -> UsageError:
        known = self.attrs["row"]["tables"]
        if name not in known:
            return NotFoundError("table", name, known, self.id)
        return UsageError(
            f"{self.id} of this bundle holds no {name!r}: no dataset that was packed reads it. "
            "Pack one that does."
        )

    def row_numbers(self, table: str, where: str) -> NDArray[np.int64]:
        """As they were when the bundle was packed."""
        bundle: Any = self.store
        known = bundle.said["rows"].get(self.id, {})
        if f"{table} {where}" not in known:
            raise UsageError(
                f"This bundle knows no rows of {table} of {self.id} where {where!r}; SQL is for "
                "stores. Pack a dataset with that window."
            )
        return np.array(known[f"{table} {where}"], dtype=np.int64)

    def _piece(self, column: str, start: int, stop: int) -> NDArray[Any]:
        packed = self.packed
        if packed is None:
            raise self._absent("spikes")
        time, unit = packed.unpack(start, stop)
        return time if column == "time" else unit

    def chunk_rows(self, table: str) -> int:
        """0: there are no chunks here."""
        return 0
