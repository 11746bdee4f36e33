"""The catalogue of a repository as one object beside it, which an opener reads by one request.

It is of one snapshot and says of which. Every row is held against its own checksum when it is read,
and their sum against the commit; of another snapshot, only sessions changed between are read again.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from neurostore.errors import JSON, DamagedError, MissingExtraError
from neurostore.store._beside import beside
from neurostore.store._columnar import Catalogue, proven
from neurostore.store._format import FORMAT
from neurostore.store.urls import Place

if TYPE_CHECKING:
    from neurostore.store._columnar import Records

NAME = "catalogue/newest"
_FORM = f"neurostore catalogue of a repository 1 {FORMAT}"
COMFORT = 20_000
"""Groups and arrays of a repository beyond which adding a session takes over half a second."""


@dataclass(frozen=True)
class Optimized:
    """What `neurostore optimize` wrote, or would write.

    Attributes
    ----------
    before : str or None
        The snapshot that the catalogue beside the repository was of.
    nodes : int
        Groups and arrays of all sessions.
    bytes : int
        Of the catalogue.
    """

    url: str
    snapshot: str
    before: str | None
    sessions: int
    nodes: int
    bytes: int

    def to_json(self) -> dict[str, JSON]:
        """As a plain mapping."""
        return asdict(self)


@dataclass(frozen=True)
class Kept:
    """The object beside a repository, not yet believed."""

    snapshot: str
    digest: str
    body: bytes

    def catalogue(self) -> Catalogue | None:
        """The catalogue it holds, with a checksum in every row; None where it is damaged."""
        if hashlib.sha256(self.body).hexdigest() != self.digest:
            return None
        try:
            return proven(self.body)
        except (DamagedError, ValueError, KeyError, TypeError, RecursionError):
            return None  # the store itself is the truth


def encoded(snapshot: str, records: Records) -> bytes:
    """The object of a snapshot."""
    body = records.joined()
    return f"{_FORM} {snapshot} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def read(place: Place) -> Kept | None:
    """The object beside a repository; None where there is none of this form.

    In a bucket it is read by fsspec, and without what that needs it goes unused: the engine reads
    the same of the store.
    """
    try:
        found = beside(place).read(NAME)
    except MissingExtraError:
        return None
    head, _, body = (found or b"").partition(b"\n")
    words = head.decode("ascii", "replace").rsplit(" ", 2)
    return Kept(words[1], words[2], body) if len(words) == 3 and words[0] == _FORM else None


def write(place: Place, data: bytes) -> None:
    """Put it beside a repository, in place of the one before.

    Raises
    ------
    StoreError
        Where it cannot be written.
    """
    beside(place).write(NAME, data)


def outgrown(url: str, nodes: int) -> list[str]:
    """What to say of a repository that has outgrown its comfort, one line; or nothing."""
    if nodes <= COMFORT:
        return []
    return [
        f"{url} holds {nodes:,} groups and arrays, and {COMFORT:,} are comfortable: every commit "
        "writes the list of all of them anew. Put further datasets into repositories of their "
        "own, and open them as one: neurostore.open([URL, URL])."
    ]
