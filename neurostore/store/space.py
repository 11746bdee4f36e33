"""`Space`: where the bytes of a repository go, held against its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore.errors import JSON, UsageError, counted
from neurostore.store import _copied
from neurostore.store._format import session_path

if TYPE_CHECKING:
    from neurostore.store.store import Store


@dataclass(frozen=True)
class Space:
    """Bytes of a repository, as they are stored.

    `total` is the sum of all others; it is what its files take.

    Attributes
    ----------
    snapshot : str
        The one that is shown.
    tables : mapping of session id (or path of a split or stimulus) to mapping of table to bytes
        Chunk files of the shown snapshot.
    small : mapping of session id to mapping of table to bytes
        Chunks so small that they lie in manifests; counted in `shared`.
    history : int
        Chunk files that older snapshots, tags and branches alone hold.
    unreachable : int
        Chunk files that nothing holds: of writers that were stopped, of expired history.
    shared : int
        Manifests, snapshots, refs and logs, which all sessions share.
    """

    snapshot: str
    tables: Mapping[str, Mapping[str, int]]
    small: Mapping[str, Mapping[str, int]]
    history: int
    unreachable: int
    shared: int

    @property
    def sessions(self) -> dict[str, int]:
        """Bytes of each session."""
        return {id: sum(tables.values()) for id, tables in self.tables.items()}

    @property
    def total(self) -> int:
        """Bytes of all files."""
        own = sum(self.sessions.values())
        return own + self.history + self.unreachable + self.shared

    def to_json(self) -> dict[str, JSON]:
        """As a plain mapping."""
        return {
            "snapshot": self.snapshot,
            "tables": {id: dict(tables) for id, tables in self.tables.items()},
            "small": {id: dict(tables) for id, tables in self.small.items()},
            "history": self.history,
            "unreachable": self.unreachable,
            "shared": self.shared,
            "total": self.total,
        }

    def lines(self) -> Iterator[str]:
        """For people: a line a session, one a table, and what lies beside them."""
        width = len(f"{self.total:,}")
        for id, tables in self.tables.items():
            yield f"{self.sessions[id]:>{width},}  {id}"
            for name, size in tables.items():
                small = self.small.get(id, {}).get(name, 0)
                more = f", and {small:,} in small chunks" if small else ""
                if size or small:
                    yield f"{size:>{width},}      {name}{more}"
        small = sum(sum(one.values()) for one in self.small.values())
        inside = f" ({small:,} of them small chunks of sessions)" if small else ""
        yield f"{self.history:>{width},}  held by history alone"
        yield f"{self.unreachable:>{width},}  held by nothing"
        yield f"{self.shared:>{width},}  shared: manifests, snapshots, refs{inside}"
        yield f"{self.total:>{width},}  bytes in all: {self._what()}"

    def _what(self) -> str:
        shared = [id.split("/")[1] for id in self.tables if id.startswith("/")]
        sessions = counted(len(self.tables) - len(shared), "session")
        splits, others = shared.count("splits"), len(shared) - shared.count("splits")
        found = [sessions]
        found += [f"{splits:,} of splits"] if splits else []
        found += [f"{others:,} of stimuli"] if others else []
        return ", ".join(found)

    def __str__(self) -> str:
        return "\n".join(self.lines())


def measure(store: Store) -> Space:
    """Where the bytes of a repository on a local disk go.

    Raises
    ------
    UsageError
        Where it lies elsewhere.
    """
    place = store._form.place
    versions: Any = store._versions
    if place.kind != "local" or not hasattr(versions, "reachable"):
        raise UsageError(f"du measures repositories in local folders, found {place.url}.")
    reachable, limit = versions.reachable()
    tables: dict[str, dict[str, int]] = {}
    small: dict[str, dict[str, int]] = {}
    for id, path, entries in _parts(store):
        for name, entry in entries.items():
            chunks = _copied.table_sizes(store.zarr, path, name, entry)[1]
            tables.setdefault(id, {})[name] = sum(one for one in chunks if one > limit)
            small.setdefault(id, {})[name] = sum(one for one in chunks if one <= limit)
    files, rest = _files(Path(place.path))
    own = sum(sum(one.values()) for one in tables.values())
    return Space(store.snapshot, tables, small, reachable - own, files - reachable, rest)


def _parts(store: Store) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for row in store.rows:
        yield str(row["id"]), session_path(str(row["id"])), row["tables"]
    for one in (*store.split_rows, *store.stimulus_rows):
        yield str(one["id"]), str(one["id"])[1:], one["row"]["tables"]


def _files(folder: Path) -> tuple[int, int]:
    """Bytes of chunk files, and of all others."""
    chunks = rest = 0
    for path in folder.rglob("*"):
        if path.is_file():
            inside = path.relative_to(folder).parts[0] == "chunks"
            chunks += path.stat().st_size if inside else 0
            rest += 0 if inside else path.stat().st_size
    return chunks, rest
