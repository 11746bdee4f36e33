"""Snapshots: Icechunk behind one small protocol, with the lock and commit order that keep data.

On a local disk whatever moves a ref holds an OS lock. A commit first asks its `check` (which
compares what the transaction touched between the snapshot it saw and the head), then rebases, then
commits without letting Icechunk resolve anything.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import icechunk
from zarr.storage import WrapperStore

from neurostore.errors import ConflictError, NotFoundError, StoreError, UsageError
from neurostore.store import layout
from neurostore.store.urls import Place

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore
    from zarr.core.buffer import Buffer

icechunk.set_logs_filter("off")  # 1.1.21 warns on stdout at every local open

BRANCH = "main"
LOCK = "neurostore.lock"
LOCK_SECONDS = 300


@dataclass(frozen=True)
class Commit:
    """One commit of the history.

    Attributes
    ----------
    metadata : mapping
        author, host, version, transaction, sessions (id → "put", "update" or "delete"), catalogue.
    """

    snapshot: str
    parent: str | None
    time: datetime
    message: str
    metadata: Mapping[str, Any]
    tags: tuple[str, ...] = ()

    @property
    def author(self) -> str:
        """Who committed."""
        return str(self.metadata.get("author", ""))

    @property
    def host(self) -> str:
        """On which machine."""
        return str(self.metadata.get("host", ""))

    @property
    def version(self) -> str:
        """With which version of the package."""
        return str(self.metadata.get("version", ""))

    def to_json(self) -> dict[str, Any]:
        """As a plain mapping."""
        return {
            "snapshot": self.snapshot,
            "parent": self.parent,
            "time": self.time.isoformat(),
            "message": self.message,
            "tags": list(self.tags),
            **{key: self.metadata.get(key) for key in ("author", "host", "version", "sessions")},
        }


class Draft(Protocol):
    """An uncommitted change: where it starts, and a Zarr store to write through."""

    @property
    def base(self) -> str: ...
    @property
    def store(self) -> ZarrStore: ...
    def below(self, path: str) -> ZarrStore: ...


class Versions(Protocol):
    """What a store needs of a version engine."""

    def head(self) -> str: ...
    def read(self, snapshot: str) -> ZarrStore: ...
    def begin(self) -> Draft: ...
    def commit(
        self, draft: Any, message: str, check: Callable[[str], Mapping[str, Any]]
    ) -> str: ...
    def tag(self, name: str, snapshot: str) -> None: ...
    def resolve(self, ref: str) -> str: ...
    def log(self, snapshot: str) -> Iterator[Commit]: ...


class Below(WrapperStore[Any]):
    """A store that writes only below one path.

    Zarr makes missing parents by itself, through `set_if_not_exists`; two writers would then
    conflict over a dataset's group that neither cares about. Those calls are left out here.
    """

    def __init__(self, store: ZarrStore, path: str = "") -> None:
        super().__init__(store)
        self._path = path

    def _with_store(self, store: ZarrStore) -> Below:
        return Below(store, self._path)

    def _inside(self, key: str) -> bool:
        return key.startswith(f"{self._path}/")

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        if self._inside(key):
            await self._store.set_if_not_exists(key, value)

    async def set(self, key: str, value: Buffer) -> None:
        self._refuse_outside(key)
        await self._store.set(key, value)

    async def delete(self, key: str) -> None:
        self._refuse_outside(key)
        await self._store.delete(key)

    async def delete_dir(self, prefix: str) -> None:
        self._refuse_outside(f"{prefix}/")
        await self._store.delete_dir(prefix)

    def _refuse_outside(self, key: str) -> None:
        if not self._inside(key):
            raise UsageError(f"A writer of {self._path!r} may not write {key!r}.")


@dataclass(frozen=True)
class IcechunkDraft:
    """An Icechunk session that may write."""

    session: icechunk.Session
    base: str

    @property
    def store(self) -> ZarrStore:
        """The draft as it stands."""
        return self.session.store

    def below(self, path: str) -> ZarrStore:
        """The draft, writable only below a path."""
        return Below(self.session.store, path)


@dataclass(frozen=True)
class IcechunkVersions:
    """One Icechunk repository, in a local folder or in this process's memory."""

    place: Place
    repository: icechunk.Repository

    _memory: ClassVar[dict[str, tuple[icechunk.Storage, threading.Lock]]] = {}

    @classmethod
    def create(cls, place: Place, start: Callable[[ZarrStore], None], about: dict[str, Any]) -> str:
        """Make a repository whose first commit holds what `start` writes; the snapshot's id.

        A folder is built beside the place and renamed: the rename decides between two creators.
        """
        if place.kind == "memory":
            entry = (icechunk.in_memory_storage(), threading.Lock())
            if cls._memory.setdefault(place.path, entry) is not entry:
                raise UsageError(f"There is a store at {place.url} already. Open it instead.")
            return _first_commit(entry[0], start, about)
        target = Path(place.path)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UsageError(_occupied(target))
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.creating")
        try:
            beside.mkdir(parents=True)
            snapshot = _first_commit(icechunk.local_filesystem_storage(str(beside)), start, about)
            (beside / LOCK).touch()
            beside.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise UsageError(_occupied(target)) from error
            raise StoreError(f"Cannot make a store at {target}: {error}") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return snapshot

    @classmethod
    def open(cls, place: Place) -> IcechunkVersions:
        """The repository at a place.

        Raises
        ------
        NotFoundError, StoreError
            Where there is none, or it cannot be opened.
        """
        if place.kind == "memory":
            if place.path not in cls._memory:
                raise NotFoundError("store", place.url, [f"memory://{n}" for n in cls._memory])
            storage = cls._memory[place.path][0]
        else:
            folder = Path(place.path)
            if not (folder / "refs").is_dir():
                raise _no_store(folder)
            storage = icechunk.local_filesystem_storage(place.path)
        with _named(place):
            return cls(place, icechunk.Repository.open(storage))

    def head(self) -> str:
        """The newest snapshot."""
        with _named(self.place):
            return self.repository.lookup_branch(BRANCH)

    def read(self, snapshot: str) -> ZarrStore:
        """A snapshot as a read-only Zarr store."""
        with _named(self.place):
            return self.repository.readonly_session(snapshot_id=snapshot).store

    def begin(self) -> IcechunkDraft:
        """A draft on top of the newest snapshot."""
        with _named(self.place):
            session = self.repository.writable_session(BRANCH)
            return IcechunkDraft(session, session.snapshot_id)

    def commit(
        self, draft: IcechunkDraft, message: str, check: Callable[[str], Mapping[str, Any]]
    ) -> str:
        """Commit a draft under the lock.

        Parameters
        ----------
        check : callable
            Called with the head; raises `ConflictError`, or gives the metadata of the commit,
            with the groups to make sure of under ``"parents"``.
        """
        with self._lock(), _named(self.place):
            head = self.repository.lookup_branch(BRANCH)
            about = dict(check(head))
            parents = about.pop("parents", ())
            if head != draft.base:
                try:
                    draft.session.rebase(icechunk.ConflictDetector())
                except icechunk.RebaseFailedError as error:
                    raise ConflictError(
                        f"This transaction and a commit made meanwhile changed the same thing: "
                        f"{str(error).splitlines()[0]}. Reopen the store and repeat it."
                    ) from error
            for path in parents:
                layout.put_group(draft.session.store, path, {}, only_if_absent=True)
            return draft.session.commit(message, metadata=about)

    def tag(self, name: str, snapshot: str) -> None:
        """Name a snapshot for good."""
        with self._lock(), _named(self.place):
            if name in self.repository.list_tags():
                there = self.repository.lookup_tag(name)
                raise UsageError(f"The tag {name!r} names {there} already; tags never move.")
            try:
                self.repository.create_tag(name, snapshot)
            except icechunk.IcechunkError as error:
                raise UsageError(
                    f"The tag {name!r} cannot be made: {str(error).strip().splitlines()[0]}"
                ) from error

    def resolve(self, ref: str) -> str:
        """The snapshot that a tag, a branch or a snapshot id (or its unique start) names."""
        with _named(self.place):
            tags = self.repository.list_tags()
            if ref in tags:
                return self.repository.lookup_tag(ref)
            if ref == BRANCH:
                return self.head()
            known = [commit.snapshot for commit in self.log(self.head())]
            known += [c.snapshot for tag in sorted(tags) for c in self._ancestry(tag=tag)]
        hits = {one for one in known if one == ref or (len(ref) >= 4 and one.startswith(ref))}
        if len(hits) != 1:
            raise NotFoundError("tag or snapshot", ref, [*tags, *known[:50]], self.place.url)
        return hits.pop()

    def log(self, snapshot: str) -> Iterator[Commit]:
        """The history of a snapshot, newest first."""
        with _named(self.place):
            yield from self._ancestry(snapshot_id=snapshot)

    def _ancestry(self, **which: str) -> Iterator[Commit]:
        tags: dict[str, list[str]] = {}
        for name in sorted(self.repository.list_tags()):
            tags.setdefault(self.repository.lookup_tag(name), []).append(name)
        for info in self.repository.ancestry(**which):
            about, names = dict(info.metadata), tuple(tags.get(info.id, ()))
            if info.parent_id is None:
                continue  # Icechunk's own first snapshot
            yield Commit(info.id, info.parent_id, info.written_at, info.message, about, names)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        if self.place.kind == "memory":
            with self._memory[self.place.path][1]:
                yield
            return
        import filelock

        path = Path(self.place.path) / LOCK
        lock = filelock.FileLock(
            path, timeout=LOCK_SECONDS, fallback_to_soft=False, preserve_lock_file=True
        )
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise StoreError(
                f"Another writer has held {path} for {LOCK_SECONDS} s. Nothing was written; "
                "see which process it is, and repeat."
            ) from error
        except (OSError, NotImplementedError) as error:
            raise StoreError(
                f"{path} cannot be locked ({error}). Two writers without a lock lose commits, so "
                "nothing was written. Put the store on a disk that can lock, and may be written."
            ) from error
        try:
            yield
        finally:
            lock.release()


def _first_commit(
    storage: icechunk.Storage, start: Callable[[ZarrStore], None], about: dict[str, Any]
) -> str:
    session = icechunk.Repository.create(storage).writable_session(BRANCH)
    start(session.store)
    return session.commit("store created", metadata=about)


def _occupied(target: Path) -> str:
    if (target / "refs").is_dir():
        return f"There is a store at {target} already. Open it instead."
    return f"{target} is there and is not empty. Choose another place for the store."


def _no_store(folder: Path) -> NotFoundError:
    beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
    stores = [str(one) for one in beside if (one / "refs").is_dir()]
    return NotFoundError("store", str(folder), stores)


@contextmanager
def _named(place: Place) -> Iterator[None]:
    """Icechunk's errors, with the place and in one line."""
    try:
        yield
    except icechunk.IcechunkError as error:
        said = [line.strip(" x│├╰─▶") for line in str(error).splitlines() if line.strip()]
        raise StoreError(
            f"The store at {place.url} failed: {said[0] if said else error}"
        ) from error
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"The store at {place.url} failed: {os.fspath(place.path)}: {error}"
        ) from error
