"""A repository by its place: what is known of it without the engine, and the engine at first need.

The engine takes longer to load than everything that a dataset reads, so that the newest snapshot
comes from the file of its branch, and a catalogue from the local copy. Whatever is not exactly as
expected goes through the engine, which says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore.store import _fork, _local
from neurostore.store.urls import Place, folder

if TYPE_CHECKING:
    from neurostore.store._versions import IcechunkVersions

_REF = "refs/branch.main/ref.json"
_SNAPSHOT = re.compile(rb'\{"snapshot":"([0-9A-HJKMNP-TV-Z]{19}[0G])"\}')
"""The whole of a branch's file as Icechunk 1 writes it; ids are Crockford's base 32.

The last character holds one bit of the 96; with another one the engine reads the same id.
"""
_NEWER = "repo"
"""The file in which Icechunk 2 keeps the refs of a repository of its own format."""


@dataclass(frozen=True, eq=False)
class Repository:
    """One repository; stores of several snapshots share it, and with it the engine's handle."""

    place: Place

    @classmethod
    def open(cls, place: Place) -> Repository:
        """The repository at a place.

        Raises
        ------
        NotFoundError, StoreError
            Where there is none, or it cannot be opened.
        """
        made = cls(place)
        if place.kind == "local":
            folder(place)
        else:
            made.versions.head()
        return made

    @property
    def versions(self) -> IcechunkVersions:
        """Its engine, opened at the first call."""
        _fork.check()
        return self._opened

    @cached_property
    def _opened(self) -> IcechunkVersions:
        from neurostore.store._versions import IcechunkVersions

        return IcechunkVersions.open(self.place)

    def head(self) -> str:
        """The newest snapshot."""
        return self._head_in_file() or self.versions.head()

    def _head_in_file(self) -> str | None:
        if self.place.kind != "local":
            return None
        at = Path(self.place.path)
        try:
            found = _SNAPSHOT.fullmatch((at / _REF).read_bytes())
        except OSError:
            return None  # the engine says why
        return None if found is None or (at / _NEWER).exists() else found[1].decode()

    def cached(self, snapshot: str) -> _local.Catalogue | None:
        """The local copy of a catalogue, of a snapshot that is in this repository."""
        if self.place.kind != "local":
            return None
        there = Path(self.place.path, "snapshots", snapshot).is_file()
        return _local.load(snapshot) if there else None

    def keep(self, snapshot: str, sessions: Sequence[Mapping[str, Any]]) -> _local.Catalogue:
        """The catalogue of what was read of all sessions; written, if it can be."""
        made = _local.Catalogue.of(sessions)
        if self.place.kind == "local":
            _local.save(snapshot, made)
        return made
