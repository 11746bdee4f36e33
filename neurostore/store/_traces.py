"""What a session leaves in files, and the search of a repository for it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from neurostore.store._format import session_path

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

_MAGIC = "ICE🧊CHUNK".encode()
"""How the engine's own files begin; what follows the header is one zstd frame."""
_HEADER = 39


@dataclass(frozen=True)
class Traces:
    """By what a session is known again: its names, and its chunks as they are stored.

    Attributes
    ----------
    session : str
        Its id.
    chunks : mapping
        Stored bytes of each chunk by their sha256, as hexadecimal text where they are few enough
        to lie within a manifest; else empty.
    """

    session: str
    chunks: Mapping[str, str]

    @property
    def names(self) -> re.Pattern[bytes]:
        """Its id, or its path in the tree, and not the start of a longer one."""
        either = {self.session, session_path(self.session).removeprefix("sessions/")}
        words = b"|".join(re.escape(one.encode("utf-8", "surrogatepass")) for one in sorted(either))
        return re.compile(rb"(?<![A-Za-z0-9_.-])(?:" + words + rb")(?![A-Za-z0-9_.-])")

    def to_json(self) -> dict[str, Any]:
        """As a plain mapping."""
        return {"session": self.session, "chunks": dict(self.chunks)}


INLINE = 512
"""Bytes of the largest chunk that the engine keeps within a manifest."""


def chunks_of(stores: Iterable[ZarrStore], path: str) -> dict[str, str]:
    """The chunks below a path, in some snapshots: see `Traces`."""
    found: dict[str, str] = {}
    for store in stores:
        for key in _keys(store, path):
            if "/c/" not in key:
                continue
            buffer = sync(store.get(key, default_buffer_prototype()))
            if buffer is not None:
                data = buffer.to_bytes()
                sha = hashlib.sha256(data).hexdigest()
                found[sha] = data.hex() if len(data) <= INLINE else ""
    return found


def _keys(store: ZarrStore, path: str) -> list[str]:
    from neurostore.store import layout

    async def collect() -> list[str]:
        return [key async for key in store.list_prefix(f"{path}/")]

    there = layout.get_document(store, path) is not None  # the engine lists only what is there
    return sync(collect()) if there else []


@dataclass(frozen=True)
class Searched:
    """A search of every file of a repository.

    Attributes
    ----------
    files, bytes : int
        How many files were searched, and how many bytes, decompressed where the engine compresses.
    hits : sequence of (str, str)
        File and what was found there: ``"name"``, or the sha256 of a chunk.
    """

    files: int
    bytes: int
    hits: tuple[tuple[str, str], ...]


def search(root: Path, traces: Traces, but: Path | None = None) -> Searched:
    """Look for the traces of a session in every file below a folder, `but` one."""
    names = traces.names
    inline = {sha: bytes.fromhex(text) for sha, text in traces.chunks.items() if text}
    files = size = 0
    hits: list[tuple[str, str]] = []
    for path in sorted(one for one in root.rglob("*") if one.is_file() and one != but):
        where = str(path.relative_to(root))
        files += 1
        for data in _texts(path.read_bytes()):
            size += len(data)
            if names.search(data):
                hits.append((where, "name"))
            if (sha := hashlib.sha256(data).hexdigest()) in traces.chunks:
                hits.append((where, sha))
            if where.startswith("manifests/"):
                hits += [(where, sha) for sha, chunk in inline.items() if chunk in data]
    return Searched(files, size, tuple(dict.fromkeys(hits)))


def _texts(data: bytes) -> Iterator[bytes]:
    """A file as it is, and what its frame holds where it is one of the engine's."""
    yield data
    if data.startswith(_MAGIC):
        from numcodecs.zstd import Zstd

        yield bytes(Zstd().decode(data[_HEADER:]))


def of_others(stores: Iterable[ZarrStore], wanted: set[str]) -> set[str]:
    """Which of some chunks another session, split or stimulus holds with the very same bytes."""
    found: set[str] = set()
    for store in stores:
        if wanted - found:
            found |= wanted & chunks_of([store], "sessions").keys()
            found |= wanted & chunks_of([store], "splits").keys()
            found |= wanted & chunks_of([store], "stimuli").keys()
    return found
