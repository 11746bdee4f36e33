"""A repository by its place: what is known of it without the engine, and the engine at first need.

The engine takes longer to load than everything that a dataset reads, so that the newest snapshot
comes from the file of its branch, and a catalogue from the local copy. Whatever is not exactly as
expected goes through the engine, which says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from neurostore.store import _folder, _fork, _local, _optimized
from neurostore.store._columnar import Catalogue
from neurostore.store.urls import Place, folder

if TYPE_CHECKING:
    from neurostore.store._faults import Fault
    from neurostore.store._optimized import Kept
    from neurostore.store._versions import Commit, IcechunkVersions

_MAIN = "main"
_REF = "refs/branch.{}/ref.json"
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
    branch: str = _MAIN

    @classmethod
    def open(cls, place: Place, branch: str = _MAIN) -> Repository:
        """The repository at a place, on one of its branches.

        Raises
        ------
        NotFoundError, StoreError
            Where there is none, or no such branch, or it cannot be opened.
        """
        made = cls(place, branch)
        if place.kind == "local":
            folder(place)
        else:
            _ = made.versions
        return made

    @property
    def versions(self) -> IcechunkVersions:
        """Its engine, opened at the first call."""
        _fork.check()
        return self._opened

    @cached_property
    def _opened(self) -> IcechunkVersions:
        if self.place.kind == "local":
            _folder.refuse_escapes(Path(self.place.path))
        return engine(self.place).open(self.place, self.branch)

    def head(self) -> str:
        """The newest snapshot of the branch."""
        return self._head_in_file() or self.versions.head()

    def _head_in_file(self) -> str | None:
        if self.place.kind != "local":
            return None
        at = Path(self.place.path)
        ref = _folder.small_file(at / _REF.format(self.branch), 100)
        found = _SNAPSHOT.fullmatch(ref or b"")
        return None if found is None or (at / _NEWER).exists() else found[1].decode()

    def cached(self, snapshot: str) -> Catalogue | None:
        """The local copy of a catalogue, of a snapshot that is in this repository.

        In a bucket that is a request; a copy is kept under the bucket's name instead, so that no
        other repository that claims the same snapshot can stand in for it.
        """
        if self.place.kind == "memory":
            return None
        if self.place.kind == "bucket":
            return _local.load(snapshot, self._bucket)
        there = Path(self.place.path, "snapshots", snapshot).is_file()
        return _local.load(snapshot) if there else None

    def keep(self, snapshot: str, catalogue: Catalogue) -> Catalogue:
        """A catalogue that was read; written, if it can be."""
        if self.place.kind != "memory":
            _local.save(snapshot, catalogue, self._bucket)
        return catalogue

    def beside(self) -> Kept | None:
        """The catalogue that `optimize` has put beside it."""
        return _optimized.read(self.place)

    def verify_files(self, commits: Sequence[Commit]) -> Iterator[Fault]:
        """Files of the engine that these commits need and that are not there, or not whole."""
        from neurostore.store._verify._engine import check_files

        return check_files(self.versions, commits)

    @cached_property
    def _bucket(self) -> str:
        """Which bucket it lies in; nothing for a folder."""
        if self.place.kind != "bucket":
            return ""
        from neurostore.store import _buckets

        return _buckets.identity(self.place)


def engine(place: Place) -> type[IcechunkVersions]:
    """What keeps snapshots at such a place."""
    if place.kind == "bucket":
        from neurostore.store._bucket_versions import BucketVersions

        return BucketVersions
    from neurostore.store._versions import IcechunkVersions

    return IcechunkVersions
