"""The folder of a repository on a local disk, in which only files of its own are read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from neurostore.errors import StoreError


def refuse_escapes(root: Path) -> None:
    """Refuse a folder in which a file is no file of its own: a link out of it, a pipe, a device.

    Raises
    ------
    StoreError
    """
    home = os.path.realpath(root)
    waiting = [home]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for one in entries:
                    if one.is_symlink():
                        real = os.path.realpath(one.path)
                        good = real.startswith(home + os.sep)
                    elif one.is_dir():
                        waiting.append(one.path)
                        good = True
                    else:
                        good = one.is_file()
                    if not good:
                        raise StoreError(
                            f"{one.path} leads out of its repository, or is no plain file, so that "
                            "nothing there is read. Put the file itself in its place, if you trust "
                            "where it comes from."
                        )
        except FileNotFoundError:
            continue  # another process moved it on; what is missing is said where it is read


def small_file(path: Path, most: int) -> bytes | None:
    """The bytes of a file that has so many at most and is one; None otherwise."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode) or found.st_size > most:
        return None
    try:
        return path.read_bytes()
    except OSError:
        return None
