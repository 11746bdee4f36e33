"""Threads of the storage engine do not survive a fork: a child that reads would wait for ever."""

from __future__ import annotations

import os

from neurostore.errors import UsageError

_opened_by: int | None = None


def opened() -> None:
    """Remember that this process has opened a store."""
    global _opened_by
    check()
    _opened_by = os.getpid()


def check() -> None:
    """Refuse to read in a process forked from one that has opened a store.

    Raises
    ------
    UsageError
        With the way out.
    """
    if _opened_by not in (None, os.getpid()):
        raise UsageError(
            "This process was forked from one that had a store open, and cannot read it. Start "
            "workers by multiprocessing.get_context('spawn') or 'forkserver'."
        )
