"""Open files of this process: every large entry holds one, and a process may hold so many."""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from neurostore.errors import StoreError

if sys.platform != "win32":  # where there is no cache
    import resource

_Opened = TypeVar("_Opened")

_MOST = 1 << 16
"""Open files that are asked for where the system allows more."""
_SPARE = 64
"""Open files that entries leave to others, to the engine of the store above all."""


class OpenFilesError(StoreError):
    """The process may open no more files."""


def opened(path: Path, flags: int) -> int:
    """A file opened as by `os.open`; where there are too many, the limit is raised first.

    Raises
    ------
    OpenFilesError
        Where the limit cannot be raised.
    OSError
        As `os.open`.
    """
    return _with_room(path, lambda: os.open(path, flags, 0o666))


def mapped(path: Path, held: int) -> mmap.mmap:
    """A map of an open file, read only, which keeps a duplicate of it; errors as `opened`."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Numbers are given from below: this one tells how many are open, about.
    number = _with_room(path, lambda: os.dup(held))
    os.close(number)
    if soft != resource.RLIM_INFINITY and number >= soft - min(_SPARE, soft // 4):
        _raise_limit(path)
    return _with_room(path, lambda: mmap.mmap(held, 0, access=mmap.ACCESS_READ))


def _with_room(path: Path, open: Callable[[], _Opened]) -> _Opened:
    while True:
        try:
            return open()
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            _raise_limit(path)


def _raise_limit(path: Path) -> None:
    """Let the process open as many files as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft < most:
        with suppress(OSError, ValueError):  # macOS allows fewer than its hard limit says
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return
    raise OpenFilesError(
        f"This process may have {soft:,} files open (`ulimit -n`; the hard limit is {hard:,}), and "
        f"none is left for {path}: every large table in the window cache keeps one open. Raise the "
        "limit (`ulimit -Hn`, or LimitNOFILE= of a service), open fewer sessions at once, or read "
        "directly: NEUROSTORE_CACHE=off."
    )
