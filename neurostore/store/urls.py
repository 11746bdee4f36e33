"""Where a store lies: a local folder or this process's memory (object stores come later)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from neurostore.errors import UsageError


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
