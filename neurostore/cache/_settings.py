"""Which cache this process uses: ``$NEUROSTORE_CACHE`` and ``$NEUROSTORE_CACHE_BOUND``."""

from __future__ import annotations

import os
import re
import shutil
import sys
from functools import lru_cache
from pathlib import Path

from neurostore.cache._cache import Cache
from neurostore.errors import UsageError

OFF = "off"
_FOLDER, _BOUND = "NEUROSTORE_CACHE", "NEUROSTORE_CACHE_BOUND"
_MOST = 50 * 10**9
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?\s*", re.IGNORECASE)
_POWER = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def folder() -> Path | None:
    """``$NEUROSTORE_CACHE``, or the user's cache folder; None where it is switched off."""
    said = os.environ.get(_FOLDER)
    if said:
        return None if said.lower() == OFF else Path(said)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "neurostore"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neurostore"


def current() -> Cache | None:
    """The window cache of this process; None where it is switched off, and on Windows.

    There, files have no locks of the kind that tells who uses them; everything is read directly.
    """
    root = folder()
    return None if root is None or os.name == "nt" else _cache(root, os.environ.get(_BOUND, ""))


def use(path: str | Path | None, *, bound: int | str | None = None) -> None:
    """Use another folder, or none, in this process and in those it starts.

    Parameters
    ----------
    path : str, Path or None
        A folder on a local disk; None switches the cache off.
    bound : int or str, optional
        Bytes its entries may take, or as ``"20GB"``; 50 GB or a fifth of the disk without it.

    Raises
    ------
    UsageError
        Where the bound is no size.
    """
    if bound is not None:
        parse_size(bound)
        os.environ[_BOUND] = str(bound)
    else:
        os.environ.pop(_BOUND, None)
    os.environ[_FOLDER] = OFF if path is None else str(Path(path).absolute())


def parse_size(text: int | str) -> int:
    """``"20GB"``, ``"512 MiB"`` or a number of bytes as bytes.

    Raises
    ------
    UsageError
        Where it is none of these.
    """
    found = _SIZE.fullmatch(str(text))
    if found is None:
        raise UsageError(f"A size is written as '20GB', '512MiB' or in bytes; found {text!r}.")
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** _POWER[found[2].upper()])


@lru_cache(maxsize=8)
def _cache(root: Path, bound: str) -> Cache:
    return Cache(root / "tables", parse_size(bound) if bound else _share(root))


def _share(root: Path) -> int:
    there = next((one for one in (root, *root.absolute().parents) if one.is_dir()), Path("/"))
    return min(_MOST, shutil.disk_usage(there).total // 5)
