"""`Fixed`: entries in a folder that is only read, and belongs to somebody else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from neurostore.cache._cache import Cache, _is, _open
from neurostore.cache._entry import Entry
from neurostore.cache._format import Shapes
from neurostore.cache._writer import Writer
from neurostore.errors import JSON


@dataclass(frozen=True)
class Fixed(Cache):
    """Entries that are there or not: none is built, evicted, locked, or taken away when damaged."""

    bound: int = 0

    def get(self, key: str) -> Entry | None:
        """The entry of a key; None where there is none.

        Raises
        ------
        DamagedError
            Where it is not what was written.
        """
        path = self._path(key)
        entry = _open.get(path)
        if entry is None or not _is(path, entry._inode):
            try:
                entry = Entry.open(path, fixed=True, key=key)
            except FileNotFoundError:
                return None
            _open[path] = entry
        return entry

    def build(
        self,
        key: str,
        arrays: Shapes,
        fill: Callable[[Writer], None],
        meta: Mapping[str, JSON] | None = None,
    ) -> Entry | None:
        """The entry of a key where it is there; nothing is built."""
        return self.get(key)
