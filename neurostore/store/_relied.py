"""What a transaction relies on without writing it, as it was: held against the head at its commit.

A table that was read, the clock of a session whose ticks a split names, a stimulus that is
presented or embedded: a rebase merges with whatever was committed meanwhile, and knows nothing of
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurostore.store import _catalogue
from neurostore.store._format import session_path

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

CLOCK, FRAMES = "the clock", "the frames"
"""Parts that are no table: of a session that a split names, and of a stimulus."""


@dataclass(frozen=True)
class Relied:
    """A part of something in the store, and how it was when the transaction relied on it.

    Attributes
    ----------
    id : str
        As commits name it: a session's id, or the path of a stimulus with a slash ahead.
    part : str
        A table's name, `CLOCK` or `FRAMES`.
    why : str
        What relies on it, for the message: ``"split 'blocks' names it"``.
    found : object
        What `state` gave.
    """

    id: str
    part: str
    why: str
    found: object

    @classmethod
    def of(cls, store: ZarrStore, id: str, part: str, why: str) -> Relied:
        """A part as it is in a Zarr store."""
        return cls(id, part, why, state(store, id, part))

    def changed(self, store: ZarrStore) -> str | None:
        """What happened to it since, in words; None where it is as it was."""
        now = state(store, self.id, self.part)
        if now == self.found or (self.part == FRAMES and self.found is None):
            return None  # of a stimulus that is new, `_presented` looks at the frames
        what = repr(self.id) if self.part == FRAMES else f"{self.part} of {self.id!r}"
        if now is None:
            return f"{what} was deleted"
        return f"{what} was {'added' if self.found is None else 'changed'}"


def state(store: ZarrStore, id: str, part: str) -> object:
    """The digest of a table or a stimulus, or rate and origin of a clock; None where it is not."""
    attrs = _catalogue.read_attrs(store, _path(id))
    if attrs is None:
        return None
    if part == CLOCK:
        return attrs["clock"]["rate"], attrs["clock"]["origin"]
    if part == FRAMES:
        return attrs["digest"]
    return attrs["row"]["tables"].get(part, {}).get("digest")


def _path(id: str) -> str:
    return id[1:] if id.startswith("/") else session_path(id)
