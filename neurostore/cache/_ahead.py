"""Checksums of entries that are read at random, verified in a thread before they are asked for.

One thread works for all entries, a piece at a time and without the GIL. What it finds whole costs
nothing more when it is read; what it does not is found, and said, where it is read.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

from neurostore import kernels

if TYPE_CHECKING:
    from neurostore.cache._entry import Entry

PIECE = 512
"""Segments that are verified at once, some 20 ms: the interpreter's end waits for that."""
_SHARE = 4
"""The part of the machine's memory up to which files are read ahead."""

_lock = Lock()
_pending: deque[tuple[Entry, int]] = deque()
_pool = ThreadPoolExecutor(1, thread_name_prefix="neurostore-verify")
_read = 0


def verify(entry: Entry) -> None:
    """Have an entry verified, where there is memory for it and the compiled loops are loaded."""
    global _read
    with _lock:
        if not kernels.ready() or _read + entry.size > _memory() // _SHARE:
            return
        _read += entry.size
        _pending.append((entry, 0))
        if len(_pending) == 1:
            _go_on()


def _go_on() -> None:
    with suppress(RuntimeError):  # the interpreter ends: nobody will read what is left
        _pool.submit(_piece)


def _piece() -> None:
    entry, first = _pending[0]
    left = entry.verify_piece(first, PIECE)
    with _lock:
        _pending.popleft()
        if left:
            _pending.appendleft((entry, first + PIECE))
        if _pending:
            _go_on()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
