"""Where a store lies: a local folder or this process's memory (object stores come later)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from neurostore.errors import NotFoundError, UsageError

CREATING = ".creating"
"""How the name of a folder ends in which a store is being made."""


@dataclass(frozen=True)
class Place:
    """A parsed URL: its kind, and the folder or the name in memory."""

    kind: Literal["local", "memory"]
    path: str

    @property
    def url(self) -> str:
        """The URL people see and handles are pickled by."""
        return self.path if self.kind == "local" else f"memory://{self.path}"


def parse(url: str | Path) -> Place:
    """A path, ``file://`` or ``memory://`` URL as a `Place`.

    Raises
    ------
    UsageError
        For any other scheme.
    """
    text = str(url)
    if text.startswith("memory://"):
        return Place("memory", text.removeprefix("memory://").strip("/"))
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    elif "://" in text:
        scheme = text.partition("://")[0]
        raise UsageError(
            f"Stores open from local folders and memory:// so far, found {scheme}:// in {text!r}."
        )
    return Place("local", str(Path(text).expanduser().absolute()))


def folder(place: Place) -> Path:
    """The folder of a store on a local disk.

    Raises
    ------
    NotFoundError
        Where there is no store, with those beside it.
    """
    found = Path(place.path)
    if (found / "refs").is_dir():
        return found
    beside = found.parent.iterdir() if found.parent.is_dir() else ()
    stores = [str(one) for one in beside if (one / "refs").is_dir() and one.suffix != CREATING]
    raise NotFoundError("store", str(found), stores)
