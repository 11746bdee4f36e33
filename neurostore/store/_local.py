"""The sessions of a snapshot in one local file, which is used where it proves whole."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from neurostore import cache
from neurostore.store._format import FORMAT, digest

KEPT = 64
"""Files of snapshots that stay, the newest; one that is asked for again is read from its store."""
_FORM = "neurostore catalogue 2"
_log = logging.getLogger("neurostore")


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What a snapshot keeps of its sessions beside their tables.

    Attributes
    ----------
    rows : list of dict
        The catalogue's rows, by id.
    texts : sequence of bytes
        The other attributes of each, as JSON that is parsed where a session is opened.
    """

    rows: list[dict[str, Any]]
    texts: Sequence[bytes]

    @classmethod
    def of(cls, sessions: Sequence[Mapping[str, Any]]) -> Catalogue:
        """From the attributes of every session, rows among them."""
        rest = [{key: one[key] for key in one if key != "row"} for one in sessions]
        return cls([one["row"] for one in sessions], [_json(one) for one in rest])

    @cached_property
    def _places(self) -> dict[str, int]:
        return {str(row["id"]): place for place, row in enumerate(self.rows)}

    def attrs(self, id: str) -> dict[str, Any] | None:
        """Attributes of a session, its row among them.

        None where it has no such session, or its text is not the one whose digest its row holds.
        """
        place = self._places.get(id)
        if place is None:
            return None
        row, attrs = self.rows[place], json.loads(self.texts[place])
        return {**attrs, "row": row} if digest(attrs) == row["attributes"] else None


def load(snapshot: str) -> Catalogue | None:
    """The local copy of a snapshot's catalogue; None where there is none, or it is damaged."""
    path = _path(snapshot)
    if path is None:
        return None
    try:
        head, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return None  # absent, or not to be read: the store is the truth
    if head != _head(snapshot, body):
        return None
    rows, *texts = body.split(b"\n")
    return Catalogue(json.loads(rows), texts)


def save(snapshot: str, catalogue: Catalogue) -> None:
    """Keep a catalogue whose snapshot is of this format; said once where that cannot be."""
    path = _path(snapshot)
    if path is None:
        return
    body = b"\n".join([_json(catalogue.rows), *catalogue.texts])
    beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(_head(snapshot, body) + b"\n" + body)
        beside.replace(path)
        _prune(path.parent)
    except OSError as error:
        if path.parent not in _unwritable:
            _unwritable.add(path.parent)
            _log.warning("The cache %s cannot be written (%s); read without.", path.parent, error)


_unwritable: set[Path] = set()


def _path(snapshot: str) -> Path | None:
    """Where the copy lies; None where caches are switched off."""
    found = cache.folder()
    return None if found is None else found / "catalogue" / f"{snapshot}.json"


def _head(snapshot: str, body: bytes) -> bytes:
    """The first line: of which form and snapshot the file is, and the digest of the rest."""
    return f"{_FORM} {FORMAT} {snapshot} {hashlib.sha256(body).hexdigest()}".encode()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _prune(folder: Path) -> None:
    """Keep the newest files; what a writer left half-way is among the others one day."""
    found = []
    for one in os.scandir(folder):
        with suppress(FileNotFoundError):  # another process keeps order too
            found.append((one.stat().st_mtime_ns, one.path))
    for _, path in sorted(found, reverse=True)[KEPT:]:
        Path(path).unlink(missing_ok=True)
