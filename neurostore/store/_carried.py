"""A catalogue from that of another snapshot: only sessions changed between the two are read.

What commits say of their changes is believed as far as it leads to the sum of rows that the commit
of the snapshot carries; where it does not, every row is read.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from neurostore.errors import StoreError
from neurostore.store import _catalogue
from neurostore.store._format import session_path

if TYPE_CHECKING:
    from neurostore.store._columnar import Catalogue
    from neurostore.store._optimized import Kept
    from neurostore.store._versions import Commit, Versions

STEPS = 100
"""Commits that are looked at, at most; over more of them every row is read."""

Known = Callable[[str], "Catalogue | None"]


def carried(versions: Versions, snapshot: str, known: Known, kept: Kept | None) -> Catalogue | None:
    """The catalogue of a snapshot from one of an earlier snapshot, or of a later one.

    Parameters
    ----------
    known : callable
        The catalogue of a snapshot, where this machine has it.
    kept : Kept, optional
        What lies beside the repository.

    Returns
    -------
    Catalogue or None
        None where no way leads to this snapshot, or not to the sum of its rows.
    """

    def at_hand(one: str) -> Catalogue | None:
        found = known(one)
        return kept.catalogue() if found is None and kept and one == kept.snapshot else found

    try:
        found = _nearest(versions, snapshot, at_hand)
        if found is None and kept is not None:
            back = _changes(versions, kept.snapshot, snapshot)
            base = None if back is None else kept.catalogue()
            found = None if back is None or base is None else (base, back)
        if found is None:
            return None
        base, ids = found
        made: Catalogue | None = base
        if ids:
            store = versions.read(snapshot)
            made = base.changed({id: _catalogue.read_attrs(store, session_path(id)) for id in ids})
        said = versions.about(snapshot).metadata.get("catalogue")
    except StoreError:
        return None  # a parent that was expired, or damage: reading every row says which
    return made if made is not None and made.total() == said else None


def _nearest(
    versions: Versions, snapshot: str, at_hand: Known
) -> tuple[Catalogue, set[str]] | None:
    """The nearest catalogue at hand at or before a snapshot, and the sessions changed since."""
    changed: set[str] = set()
    for commit in islice(versions.log(snapshot), STEPS):
        if (found := at_hand(commit.snapshot)) is not None:
            return found, changed
        changed |= _sessions(commit)
    return None


def _changes(versions: Versions, newer: str, older: str) -> set[str] | None:
    """The sessions changed between two snapshots; None where one does not lead to the other."""
    changed: set[str] = set()
    for commit in islice(versions.log(newer), STEPS):
        if commit.snapshot == older:
            return changed
        changed |= _sessions(commit)
    return None


def _sessions(commit: Commit) -> set[str]:
    return {str(id) for id in commit.metadata.get("sessions", {})}
