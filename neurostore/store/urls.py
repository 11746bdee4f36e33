"""Where a store lies: a local folder, this process's memory, a bucket, or any other fsspec URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from neurostore.errors import NotFoundError, UsageError

CREATING = ".creating"
"""How the name of a folder ends in which a store is being made."""
BUCKETS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az"}
"""Schemes of object stores, in which a repository may lie, by the one that is written."""


@dataclass(frozen=True)
class Place:
    """A parsed URL: its kind; the folder, the name in memory, or else the whole URL; its options.

    It pickles, with its options; what is printed of it holds no secret.
    """

    kind: Literal["local", "memory", "bucket", "remote"]
    path: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def url(self) -> str:
        """The URL people see, without user, password and query, which may be secrets."""
        if self.kind == "memory":
            return f"memory://{self.path}"
        return self.path if self.kind == "local" else redacted(self.path)

    def __repr__(self) -> str:
        return f"<Place {self.url}>"


def redacted(url: str) -> str:
    """A URL, or several chained ones, without user, password and query; a path as it is."""
    if "::" in url:
        return "::".join(redacted(one) for one in url.split("::"))
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def parse(url: str | Path, options: Mapping[str, Any] | None = None) -> Place:
    """A path or a URL as fsspec knows them, and its storage options, as a `Place`.

    Raises
    ------
    UsageError
        Where a local folder or this process's memory is given storage options.
    """
    text, given = str(url), dict(options or {})
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    scheme, chained, _ = text.partition("::")
    if not chained:
        scheme = text.partition("://")[0] if "://" in text else ""
    if scheme in BUCKETS:
        return Place("bucket", f"{BUCKETS[scheme]}://{text.partition('://')[2].rstrip('/')}", given)
    if scheme not in ("", "memory"):
        return Place("remote", text.rstrip("/"), given)
    if scheme == "memory":
        place = Place("memory", text.removeprefix("memory://").strip("/"))
    else:
        place = Place("local", str(Path(text).expanduser().absolute()))
    if given:
        raise UsageError(f"{place.url} takes no storage options, found {sorted(given)}.")
    return place


def apart(url: str | Path) -> tuple[str, str | None]:
    """``url@tag`` as the URL and the tag; a tag stands behind the last slash.

    The whole is the URL where it is a path that is there.
    """
    text = str(url)
    head, _, last = text.rpartition("/")
    name, sign, tag = last.rpartition("@")
    if not (sign and name and tag) or ("://" not in text and Path(text).expanduser().exists()):
        return text, None
    return f"{head}/{name}" if head or text.startswith("/") else name, tag


def is_repository(place: Place) -> bool:
    """Whether a local folder, or this process's memory, holds a repository there."""
    if place.kind == "memory":
        from neurostore.store._versions import IcechunkVersions

        return place.path in IcechunkVersions._memory
    return place.kind == "local" and (Path(place.path) / "refs").is_dir()


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
