"""The forms of a store, as `Store` needs them: what opens a place, and what it then asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from neurostore.errors import NotFoundError, UsageError
from neurostore.store._repository import Repository
from neurostore.store.urls import Place, is_repository

if TYPE_CHECKING:
    from neurostore.store._local import Catalogue
    from neurostore.store._versions import Versions


class Form(Protocol):
    """Where the snapshots of a store lie."""

    @property
    def place(self) -> Place:
        """What was opened."""
        ...

    @property
    def versions(self) -> Versions:
        """Snapshots, tags and history; what a form cannot do (a release: commit) it refuses."""
        ...

    def head(self) -> str:
        """The newest snapshot."""
        ...

    def cached(self, snapshot: str) -> Catalogue | None:
        """The catalogue of a snapshot, where it is at hand."""
        ...

    def keep(self, snapshot: str, sessions: Sequence[Mapping[str, Any]]) -> Catalogue:
        """The catalogue of what was read of all sessions, at hand from now on."""
        ...


def open_form(place: Place) -> Form:
    """What lies at a place: a repository, or else a release.

    Raises
    ------
    NotFoundError, StoreError, UsageError
    """
    nowhere = place.kind == "local" and not Path(place.path).is_dir()
    if nowhere or is_repository(place):
        return Repository.open(place)  # which says what there is beside it
    from neurostore.store.release import Release

    if (release := Release.found(place)) is not None:
        return release
    if place.kind in ("local", "memory"):
        return Repository.open(place)
    if place.kind == "bucket":
        raise UsageError(
            f"Repositories open from local folders and memory:// so far, and {place.url} holds no "
            "release (release.json)."
        )
    raise NotFoundError("release", place.url, [])
