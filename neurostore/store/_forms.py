"""The forms of a store, as `Store` needs them: what opens a place, and what it then asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from neurostore.errors import NeurostoreError, NotFoundError, StoreError, UsageError
from neurostore.store._repository import Repository
from neurostore.store.urls import Place, is_repository

if TYPE_CHECKING:
    from neurostore.store._columnar import Catalogue
    from neurostore.store._optimized import Kept
    from neurostore.store._versions import Versions


class Form(Protocol):
    """Where the snapshots of a store lie."""

    @property
    def place(self) -> Place:
        """What was opened."""
        ...

    @property
    def branch(self) -> str:
        """The branch that it moves with; ``main`` unless another one was opened."""
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

    def keep(self, snapshot: str, catalogue: Catalogue) -> Catalogue:
        """A catalogue that was read, at hand from now on."""
        ...

    def beside(self) -> Kept | None:
        """The catalogue that lies beside it as one object, of whatever snapshot."""
        ...


def open_form(place: Place, branch: str = "main") -> Form:
    """What lies at a place, a repository on one of its branches, or else a release.

    Raises
    ------
    NotFoundError, StoreError, UsageError
    """
    nowhere = place.kind == "local" and not Path(place.path).is_dir()
    if nowhere or is_repository(place):
        return Repository.open(place, branch)  # which says what there is beside it
    none: NeurostoreError = NotFoundError("release", place.url, [])
    if place.kind == "bucket":
        try:
            return Repository.open(place, branch)
        except (NotFoundError, UsageError) as error:  # fsspec may know an option that it does not
            none = error
    from neurostore.store.release import Release

    try:
        release = Release.found(place)
    except StoreError:
        if not isinstance(none, NotFoundError):
            raise none from None
        raise
    if release is not None:
        if branch != release.branch:
            raise NotFoundError("branch", branch, [release.branch], place.url)
        return release
    if place.kind in ("local", "memory"):
        return Repository.open(place, branch)
    raise none
