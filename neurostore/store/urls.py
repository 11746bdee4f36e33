"""Where a store lies: a local folder, this process's memory, a bucket, or any other fsspec URL."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from neurostore.errors import NotFoundError, UsageError

SEVERAL = " + "
"""What stands between the URLs of several stores in one text."""
CREATING = ".creating"
"""How the name of a folder ends in which a store is being made."""
BUCKETS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az"}
"""Schemes of object stores, in which a repository may lie, by the one that is written."""


PLAIN = {"endpoint_url", "region_name", "profile", "account_name"}
"""Storage options whose text is no secret."""
WORDS = {"anon", "cloud", "google_default"}
"""What a `token` may be that is no secret either."""
ENVIRONMENT = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING"),
)
"""Variables of the environment that hold secrets."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>)\]}]+")
_CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*(?:://|::))")
"""Between two chained URLs; an address of IPv6 has ``::`` too."""
_known: set[str] = set()


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
    if SEVERAL in url:
        return SEVERAL.join(redacted(one) for one in url.split(SEVERAL))
    if len(parts := _CHAIN.split(url)) > 1:
        return "::".join(map(redacted, parts))
    if "://" not in url:
        return url
    try:
        found = urlsplit(url)
    except ValueError:  # an address in brackets that is none
        return f"{url.partition('://')[0]}://..."
    return urlunsplit((found.scheme, found.netloc.rpartition("@")[2], found.path, "", ""))


def remember(options: Mapping[str, Any]) -> None:
    """Keep what is secret in storage options out of every text that is shown from now on."""
    _known.update(_secrets(options))


def hidden(text: str) -> str:
    """A text with every URL redacted, and every secret that was given as an option left out."""
    text = _URL.sub(lambda found: redacted(found[0]), text)
    outside = (os.environ.get(name, "") for name in ENVIRONMENT)
    for secret in sorted({*_known, *outside}, key=len, reverse=True):
        if len(secret) > 3:
            text = text.replace(secret, "***")
    return text


_given: ContextVar[Mapping[str, Any] | None] = ContextVar("storage options", default=None)


@contextmanager
def by_default(options: Mapping[str, Any]) -> Iterator[None]:
    """Storage options of every bucket and every remote URL that is parsed without any."""
    token = _given.set(options)
    try:
        yield
    finally:
        _given.reset(token)


def _secrets(options: Mapping[str, Any]) -> Iterator[str]:
    """Every text in storage options that may be a secret."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _secrets(value)
        elif isinstance(value, str) and key not in PLAIN and value not in WORDS:
            yield value


def parse(url: str | Path, options: Mapping[str, Any] | None = None) -> Place:
    """A path or a URL as fsspec knows them, and its storage options, as a `Place`.

    Raises
    ------
    UsageError
        Where a local folder or this process's memory is given storage options; where a zip is named
        as a host.
    """
    text, given = str(url), dict(options or {})
    remember(given)
    if text.startswith("zip://") and "::" not in text:
        path = text.removeprefix("zip://")
        raise UsageError(f"zip:// alone names no file. Open the release in a zip as zip::{path}")
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    scheme, chained, _ = text.partition("::")
    if not chained:
        scheme = text.partition("://")[0] if "://" in text else ""
    if scheme not in ("", "memory") and options is None:
        given = dict(_given.get() or {})
        remember(given)
    if BUCKETS.get(scheme) == "gs" and given.get("anon") is True:  # as gcsfs spells it
        given = {**given, "token": "anon"}
        del given["anon"]
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


def takes_options(url: str) -> bool:
    """Whether a text is a URL that storage options may belong to, or holds one."""
    scheme, chained, _ = url.partition("::")
    scheme = scheme if chained else url.partition("://")[0] if "://" in url else ""
    return scheme not in ("", "memory", "file")


def several(url: str | Path | Sequence[str | Path]) -> list[str | Path]:
    """The URLs of a list, or of a text in which they are joined; one that is a path is whole."""
    if not isinstance(url, (str, Path)):
        if not isinstance(url, Iterable):
            raise UsageError(f"A store is at a URL or a path, found {type(url).__name__}.")
        return list(url)
    text = str(url)
    if SEVERAL not in text or Path(text).expanduser().exists():
        return [url]
    return [*text.split(SEVERAL)]


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
    raise NotFoundError("store", str(found), _stores(found.parent), instead=_what_it_is(found))


def _stores(above: Path) -> list[str]:
    """The stores that lie in a folder."""
    inside = sorted(above.iterdir()) if above.is_dir() else []
    return [str(one) for one in inside if (one / "refs").is_dir() and one.suffix != CREATING]


def _what_it_is(found: Path) -> str:
    """What lies where a store was looked for, and the way on; empty where nothing does."""
    import zipfile  # which takes longer to load than all of this

    if found.is_dir():
        inside = _stores(found)[:3]
        way = f"a store is in it: {', '.join(inside)}" if inside else "neurostore create makes one"
        return f"It is a folder that holds neither a store nor a release; {way}."
    if not found.exists():
        return ""
    if found.is_file() and zipfile.is_zipfile(found):
        return f"It is a zip file: a release in it opens as zip::{found}"
    return (
        "It is a file, and a store is a folder. A recording goes into a store: neurostore ingest "
        f"STORE {found.name}"
    )
