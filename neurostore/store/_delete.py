"""A session taken out of the next snapshot; older ones keep it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from neurostore.store._rename import naming
from neurostore.store.edit import Edit, carry_out

if TYPE_CHECKING:
    from neurostore.store.store import Store


def run(store: Store, session: str, message: str | None, dry_run: bool) -> Edit:
    """Delete a session in a commit of its own, or say what would be done.

    Raises
    ------
    NotFoundError
        Where there is no such session.
    """
    store.session(session)  # raises where there is none
    steps, notes = (("deleted", session),), tuple(_notes(store, session))
    planned = Edit(steps, 0, dry_run=dry_run, notes=notes)
    return carry_out(store, message or f"deleted {session}", planned, lambda tx: tx.delete(session))


def _notes(store: Store, session: str) -> Iterator[str]:
    """What still names it, and the ways back and on."""
    if splits := naming(store, session):
        titles = ", ".join(one.title for one in splits)
        yield f"{session} is still named by {titles}: what reads it by these needs it back."
    back = shlex.join([store.url, store.snapshot, "--session", session])
    yield f"Bring it back: neurostore restore {back}"
    forever = shlex.join([store.url, session])
    yield f"Remove it for good, history included: neurostore erase {forever}"
