"""Checksums of entries that are read at random, verified in a thread before they are asked for.

One thread works for all entries, a piece at a time and without the GIL. What it finds whole costs
nothing more when it is read; what it does not is found, and said, where it is read.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from neurostore import kernels

if TYPE_CHECKING:
    from neurostore.cache._entry import Entry

PIECE = 512
"""Segments that are verified at once, some 20 ms: the interpreter's end waits for that."""
_SHARE = 4
"""The part of the machine's memory up to which files are read ahead."""


@dataclass
class _Queue:
    """Entries, each with its first segment that is not looked at, and the thread that works."""

    lock: Lock = field(default_factory=Lock)
    pending: deque[tuple[Entry, int]] = field(default_factory=deque)
    pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="neurostore-verify")
    )
    read: int = 0


_queue = _Queue()


def _renew() -> None:
    """A queue of its own for a child, which has inherited neither the thread nor a free lock."""
    global _queue
    _queue = _Queue()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def verify(entry: Entry) -> None:
    """Have an entry verified, where there is memory for it and the compiled loops are loaded."""
    queue = _queue
    with queue.lock:
        if not kernels.ready() or queue.read + entry.size > _memory() // _SHARE:
            return
        queue.read += entry.size
        weakref.finalize(entry, _forget, queue, entry.size)
        queue.pending.append((entry, 0))
        if len(queue.pending) == 1:
            _go_on(queue)


def _go_on(queue: _Queue) -> None:
    with suppress(RuntimeError):  # the interpreter ends: nobody will read what is left
        queue.pool.submit(_piece, queue)


def _piece(queue: _Queue) -> None:
    entry, first = queue.pending[0]
    left = False
    try:
        left = entry.verify_piece(first, PIECE)
    finally:  # what could not be looked at is, where it is read
        with queue.lock:
            queue.pending.popleft()
            if left:
                queue.pending.appendleft((entry, first + PIECE))
            if queue.pending:
                _go_on(queue)


def _forget(queue: _Queue, size: int) -> None:
    queue.read -= size


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
