"""Catalogues in local files, one a snapshot, of which each part is used where it proves whole."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from neurostore import cache
from neurostore.store._columnar import Catalogue, Records, read_table, table_bytes
from neurostore.store._format import FORMAT

KEPT = 64
"""Files of snapshots that stay, the newest; one that is asked for again is read from its store."""
_FORM = "neurostore catalogue 3"
_log = logging.getLogger("neurostore")
T = TypeVar("T")


def load(snapshot: str, bucket: str = "") -> Catalogue | None:
    """The local copy of a snapshot's catalogue; None where there is none, or it is damaged.

    Names and checksums are read at once, the table of queries and the records where they are asked
    for; each part is held against its own digest then. A snapshot in a bucket goes by what
    `_buckets.identity` says of it too.
    """
    path = _path(snapshot, bucket)
    try:
        if path is None or (parts := _parts(path, snapshot)) is None:
            return None
        names = parts(0)
    except (OSError, ValueError):
        return None  # absent, or not to be read: the store is the truth
    if names is None:
        return None
    ids, checksums = json.loads(names)
    return Catalogue(
        ids,
        checksums,
        lambda: _or_none(lambda: read_table(parts(1))),
        lambda: _or_none(lambda: _records(parts(2))),
    )


def save(snapshot: str, catalogue: Catalogue, bucket: str = "") -> None:
    """Keep a catalogue whose snapshot is of this format; said once where that cannot be."""
    path, records, table = _path(snapshot, bucket), catalogue.records, catalogue.table
    if path is None or records is None or table is None:
        return
    names = json.dumps([catalogue.ids, catalogue.checksums], separators=(",", ":")).encode()
    parts = [names, table_bytes(table), records.joined()]
    said = " ".join(f"{len(one)} {hashlib.sha256(one).hexdigest()}" for one in parts)
    beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(b"".join([f"{_head(snapshot)} {said}\n".encode(), *parts]))
        beside.replace(path)
        _prune(path.parent)
    except OSError as error:
        if path.parent not in _unwritable:
            _unwritable.add(path.parent)
            _log.warning("The cache %s cannot be written (%s); read without.", path.parent, error)


def remove(names: re.Pattern[bytes]) -> None:
    """Take away every copy in which one of these words stands."""
    folder = cache.folder()
    for path in () if folder is None else (folder / "catalogue").glob("*"):
        with suppress(FileNotFoundError):  # another process keeps order too
            if names.search(path.read_bytes()):
                path.unlink()


_unwritable: set[Path] = set()


def _parts(path: Path, snapshot: str) -> Callable[[int], bytes | None] | None:
    """What reads a part of a file, None where it is another one than was written."""
    with path.open("rb") as file:
        head = file.readline(1000)
        whole = os.fstat(file.fileno()).st_size
    said = head.decode("ascii").removesuffix("\n")
    if not (said.startswith(f"{_head(snapshot)} ") and head.endswith(b"\n")):
        return None
    words = said.split(" ")[-6:]
    sizes, digests = [int(word) for word in words[::2]], words[1::2]
    if whole != len(head) + sum(sizes):
        return None

    def read(number: int) -> bytes | None:
        with path.open("rb") as file:
            file.seek(len(head) + sum(sizes[:number]))
            data = file.read(sizes[number])
        return data if hashlib.sha256(data).hexdigest() == digests[number] else None

    return read


def _or_none(read: Callable[[], T | None]) -> T | None:
    try:
        return read()
    except OSError:
        return None  # removed meanwhile


def _records(data: bytes | None) -> Records | None:
    return None if data is None else Records.split(data)


def _path(snapshot: str, bucket: str = "") -> Path | None:
    """Where the copy lies; None where caches are switched off."""
    found, name = cache.folder(), f"{snapshot}-{bucket}" if bucket else snapshot
    return None if found is None else found / "catalogue" / f"{name}.json"


def _head(snapshot: str) -> str:
    """How the first line begins: of which form and snapshot the file is."""
    return f"{_FORM} {FORMAT} {snapshot}"


def _prune(folder: Path) -> None:
    """Keep the newest files; what a writer left half-way is among the others one day."""
    found = []
    for one in os.scandir(folder):
        with suppress(FileNotFoundError):  # another process keeps order too
            found.append((one.stat().st_mtime_ns, one.path))
    for _, path in sorted(found, reverse=True)[KEPT:]:
        Path(path).unlink(missing_ok=True)
