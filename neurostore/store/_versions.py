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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import icechunk
from zarr.storage import WrapperStore

from neurostore.errors import ConflictError, DamagedError, NotFoundError, StoreError, UsageError
from neurostore.store import _expiry, _fork, _log, layout
from neurostore.store._beside import beside
from neurostore.store._damage import WAY_OUT, panicked, refusal, said, wrap
from neurostore.store._format import digest
from neurostore.store._leases import Lease
from neurostore.store._said import check_about
from neurostore.store._who import who
from neurostore.store.urls import CREATING, Place, folder

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore
    from zarr.core.buffer import Buffer

icechunk.set_logs_filter("off")  # 1.1.21 warns on stdout at every local open

BRANCH = "main"
ROOT = "1CECHNKREP0F1RSTCMT0"
"""The snapshot, empty, in which every Icechunk history begins."""
LOCK = "neurostore.lock"
LOCK_SECONDS = 300


@dataclass(frozen=True)
class Commit:
    """One commit of the history.

    Attributes
    ----------
    parent : str or None
        The snapshot that it was made on; None for the first.
    metadata : mapping
        author, host, version, time, parent, transaction, sessions (id → "put", "update", "delete",
        "restore", "rename" or "merge"), splits and stimuli (path → "put"), renamed (old id → new
        id), tables (id → names of those that changed), sizes (sessions, units and spikes of what
        changed → before and after; older commits have neither), catalogue, split_catalogue and
        stimulus_catalogue (see `_catalogue.Total`), and a checksum over these and the message.
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

    @property
    def changes(self) -> dict[str, str]:
        """What was done to what: sessions by id, splits and stimuli by path (``/splits/...``)."""
        kinds = ("sessions", "splits", "stimuli")
        return {id: what for one in kinds for id, what in self.metadata.get(one, {}).items()}

    def name_before(self, session: str) -> str:
        """The id that a session had before this commit."""
        before = {new: old for old, new in self.metadata.get("renamed", {}).items()}
        return str(before.get(session, session))

    @property
    def words(self) -> list[str]:
        """What was done, in a line or two, with counts."""
        return _log.words(self)

    def to_json(self) -> dict[str, Any]:
        """As a plain mapping."""
        return {
            "snapshot": self.snapshot,
            "parent": self.parent,
            "time": self.time.isoformat(),
            "message": self.message,
            "tags": list(self.tags),
            **{key: self.metadata.get(key) for key in ("author", "host", "version", "sessions")},
            "splits": self.metadata.get("splits", {}),
            "stimuli": self.metadata.get("stimuli", {}),
            **{key: self.metadata.get(key, {}) for key in ("renamed", "tables", "sizes")},
            "words": self.words,
        }


class Draft(Protocol):
    """An uncommitted change: where it starts, and a Zarr store to write through."""

    @property
    def base(self) -> str: ...
    @property
    def store(self) -> ZarrStore: ...
    def below(self, path: str) -> ZarrStore: ...
    def end(self) -> None: ...


class Versions(Protocol):
    """What a store needs of a version engine."""

    def head(self) -> str: ...
    def read(self, snapshot: str) -> ZarrStore: ...
    def begin(self) -> Draft: ...
    def commit(
        self, draft: Any, message: str, check: Callable[[str], Mapping[str, Any]]
    ) -> str: ...
    def tag(self, name: str, snapshot: str) -> None: ...
    def tags(self) -> dict[str, str]: ...
    def delete_tag(self, name: str) -> None: ...
    def resolve(self, ref: str) -> str: ...
    def about(self, snapshot: str) -> Commit: ...
    def log(self, snapshot: str) -> Iterator[Commit]: ...
    def branches(self) -> dict[str, str]: ...
    def make_branch(self, name: str, snapshot: str) -> None: ...
    def delete_branch(self, name: str) -> None: ...
    def alone(self, name: str) -> list[Commit]: ...


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
            with self._named(key):
                await self._store.set_if_not_exists(key, value)

    async def set(self, key: str, value: Buffer) -> None:
        with self._named(key):
            await self._store.set(key, value)

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        for key, value in values:
            await self.set(key, value)

    async def clear(self) -> None:
        await self.delete_dir("")

    async def delete(self, key: str) -> None:
        with self._named(key):
            await self._store.delete(key)

    async def delete_dir(self, prefix: str) -> None:
        with self._named(f"{prefix}/"):
            await self._store.delete_dir(prefix)

    @contextmanager
    def _named(self, key: str) -> Iterator[None]:
        if not self._inside(key):
            raise UsageError(f"A writer of {self._path!r} may not write {key!r}.")
        try:
            yield
        except icechunk.IcechunkError as error:
            raise StoreError(f"{key} cannot be written: {said(error)}.") from error


@dataclass(frozen=True)
class IcechunkDraft:
    """An Icechunk session that may write."""

    session: icechunk.Session
    base: str
    lease: Lease

    @property
    def store(self) -> ZarrStore:
        """The draft as it stands."""
        return self.session.store

    def below(self, path: str) -> ZarrStore:
        """The draft, writable only below a path."""
        return Below(self.session.store, path)

    def end(self) -> None:
        """Give its lease back, once it is committed or given up."""
        self.lease.end()


@dataclass(frozen=True)
class IcechunkVersions:
    """One Icechunk repository, in a local folder or in this process's memory."""

    place: Place
    repository: icechunk.Repository
    branch: str = BRANCH

    _memory: ClassVar[dict[str, tuple[icechunk.Storage, threading.Lock]]] = {}

    @classmethod
    def create(cls, place: Place, start: Callable[[ZarrStore], None], about: dict[str, Any]) -> str:
        """Make a repository whose first commit holds what `start` writes; the snapshot's id.

        A folder is built beside the place and renamed: the rename decides between two creators.
        """
        _fork.opened()
        if place.kind == "memory":
            entry = (icechunk.in_memory_storage(), threading.Lock())
            if cls._memory.setdefault(place.path, entry) is not entry:
                raise UsageError(f"There is a store at {place.url} already. Open it instead.")
            return _first_commit(entry[0], start, about)
        if place.kind != "local":
            raise UsageError(
                f"A repository is made in a folder, in memory:// or in a bucket, found {place.url}."
            )
        target = Path(place.path)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UsageError(_occupied(target))
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{CREATING}")
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
    def open(cls, place: Place, branch: str = BRANCH) -> IcechunkVersions:
        """The repository at a place, on one of its branches.

        Raises
        ------
        NotFoundError, StoreError
            Where there is none, or it cannot be opened.
        """
        _fork.opened()
        if place.kind == "memory":
            if place.path not in cls._memory:
                raise NotFoundError("store", place.url, [f"memory://{n}" for n in cls._memory])
            storage = cls._memory[place.path][0]
        else:
            storage = icechunk.local_filesystem_storage(str(folder(place)))
        with _named(place):
            return cls(place, icechunk.Repository.open(storage, config=_limits()), branch)

    def head(self) -> str:
        """The newest snapshot of the branch."""
        with _named(self.place):
            if self.branch != BRANCH and self.branch not in self.repository.list_branches():
                raise NotFoundError("branch", self.branch, self.branches(), self.place.url)
            return self.repository.lookup_branch(self.branch)

    def read(self, snapshot: str) -> ZarrStore:
        """A snapshot as a read-only Zarr store."""
        with _named(self.place):
            return self.repository.readonly_session(snapshot_id=snapshot).store

    def begin(self) -> IcechunkDraft:
        """A draft on the newest snapshot of the branch, with a lease older than all of it."""
        base = self.head()  # which says where there is no such branch any more
        with _named(self.place, "written"):
            lease = Lease(beside(self.place), {**who(), "pid": os.getpid(), "base": base})
            session = self.repository.writable_session(self.branch)
            return IcechunkDraft(session, session.snapshot_id, lease)

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
        with self._lock(), _named(self.place, "written"):
            draft.lease.refuse_ended()
            head = self.head()
            about = dict(check(head))
            parents = about.pop("parents", ())
            if head != draft.base:
                try:
                    draft.session.rebase(icechunk.ConflictDetector())
                except icechunk.RebaseFailedError as error:
                    raise ConflictError(
                        f"This transaction and a commit made meanwhile changed the same thing: "
                        f"{said(error)}. Reopen the store and repeat it."
                    ) from error
            for path in parents:
                layout.put_group(draft.session.store, path, {}, only_if_absent=True)
            return draft.session.commit(message, metadata=_sealed(message, head, about))

    def tag(self, name: str, snapshot: str) -> None:
        """Name a snapshot for good."""
        with self._lock(), _named(self.place, "written"):
            if name in self._tags():
                there = self.repository.lookup_tag(name)
                raise UsageError(f"The tag {name!r} names {there} already; tags never move.")
            if name in self.repository.list_branches():
                raise UsageError(f"There is a branch {name!r}. Give the tag another name.")
            try:
                self.repository.create_tag(name, snapshot)
            except icechunk.IcechunkError as error:
                raise UsageError(
                    f"The tag {name!r} cannot be made: {said(error)}. The name of a tag that was "
                    "deleted is never free again: take another one."
                ) from error

    def tags(self) -> dict[str, str]:
        """The snapshot of every tag."""
        with _named(self.place):
            return {name: self.repository.lookup_tag(name) for name in sorted(self._tags())}

    def delete_tag(self, name: str) -> None:
        """Take a tag away; the engine never gives its name free again."""
        with self._lock(), _named(self.place, "written"):
            self.repository.delete_tag(name)

    def resolve(self, ref: str) -> str:
        """The snapshot that a tag, a branch or a snapshot id (or its unique start) names."""
        with _named(self.place):
            tags = self._tags()
            if ref in tags:
                return self.repository.lookup_tag(ref)
            branches = {self.branch: self.head(), **self.branches()}
            if ref in branches:
                return branches[ref]
            known = [c.snapshot for head in branches.values() for c in self.log(head)]
            known += [c.snapshot for tag in sorted(tags) for c in self._ancestry(tag=tag)]
        hits = {one for one in known if one == ref or (len(ref) >= 4 and one.startswith(ref))}
        if len(hits) != 1:
            raise NotFoundError("tag or snapshot", ref, [*tags, *known[:50]], self.place.url)
        return hits.pop()

    def about(self, snapshot: str) -> Commit:
        """One commit, without its tags."""
        with _named(self.place):
            return _commit(self.repository.lookup_snapshot(snapshot), snapshot)

    def log(self, snapshot: str) -> Iterator[Commit]:
        """The history of a snapshot, newest first."""
        with _named(self.place):
            yield from self._ancestry(snapshot_id=snapshot)

    def branches(self) -> dict[str, str]:
        """The newest snapshot of every branch."""
        with _named(self.place):
            names = sorted(self.repository.list_branches())
            return {name: self.repository.lookup_branch(name) for name in names}

    def make_branch(self, name: str, snapshot: str) -> None:
        """Begin a branch at a snapshot."""
        with self._lock(), _named(self.place, "written"):
            for what, names in (("tag", self._tags()), ("branch", self.branches())):
                if name in names:
                    raise UsageError(f"There is a {what} {name!r}. Give the branch another name.")
            self.repository.create_branch(name, snapshot)

    def delete_branch(self, name: str) -> None:
        """Take a branch away; what no tag or other branch holds cannot be reached any more."""
        with self._lock(), _named(self.place, "written"):
            self.repository.delete_branch(name)

    def alone(self, name: str) -> list[Commit]:
        """The commits that a branch or tag holds and no other one does, newest first."""
        with _named(self.place):
            refs = {**self.branches(), **self.tags()}
            others = {head for ref, head in refs.items() if ref != name}
            held = {commit.snapshot for head in sorted(others) for commit in self.log(head)}
            return [one for one in self.log(refs[name]) if one.snapshot not in held]

    def reachable(self) -> tuple[int, int]:
        """Bytes of the chunk files that any snapshot holds, and of a chunk that needs no file."""
        self.follow()
        with _named(self.place):
            least = self.repository.config.inline_chunk_threshold_bytes
            held = self.repository.chunk_storage_stats().native_bytes
            return int(held), 512 if least is None else int(least)

    def follow(self) -> None:
        """Read every history to its end; the engine follows one that is damaged without an end.

        Raises
        ------
        DamagedError
        """
        known = set[str]()
        for tip in self.tips():
            for commit in self.log(tip):
                if commit.snapshot in known:
                    break
                known.add(commit.snapshot)

    def tips(self) -> list[str]:
        """The snapshots that branches and tags name."""
        return list(dict.fromkeys(self.names().values()))

    def names(self) -> dict[str, str]:
        """The snapshot of every branch and tag: ``branch main``, ``tag v1``."""
        found = {f"branch {name}": tip for name, tip in self.branches().items()}
        return found | {f"tag {name}": tip for name, tip in self.tags().items()}

    def _ancestry(self, **which: str) -> Iterator[Commit]:
        """A history; where it breaks off, as it is to whoever opens the repository now.

        The engine keeps what it has read, and an expiry gives the oldest commit another parent.
        """
        seen = 0
        try:
            for commit in self._walk(**which):
                seen += 1
                yield commit
            return
        except (icechunk.IcechunkError, DamagedError):
            now = self.open(self.place, self.branch)
        yield from islice(now._walk(**which), seen, None)

    def _walk(self, **which: str) -> Iterator[Commit]:
        tags: dict[str, list[str]] = {}
        for name in sorted(self._tags()):
            named = self.repository.lookup_tag(name)
            self.repository.lookup_snapshot(named)  # a damaged tag names one that is not there
            tags.setdefault(named, []).append(name)
        oldest, expected, seen = "", which.get("snapshot_id"), set[str]()
        for info in self.repository.ancestry(**which):
            if info.id in seen:
                where = f"The history of {self.place.url}"
                raise DamagedError(f"{where} leads in a circle, to {info.id} again. {WAY_OUT}")
            seen.add(info.id)
            if info.id == ROOT and (expected in (None, ROOT) or self._begins(oldest)):
                return
            if info.id == ROOT:
                break
            commit = _commit(info, expected, tuple(tags.get(info.id, ())))
            oldest, expected = info.id, commit.metadata["parent"]
            yield commit
        raise DamagedError(f"The history of {self.place.url} breaks off at {expected}. {WAY_OUT}")

    def _begins(self, snapshot: str) -> bool:
        """Whether an expiry has let a history begin at a snapshot."""
        return snapshot in _expiry.begins(beside(self.place))

    def _tags(self) -> set[str]:
        """Names of all tags; Icechunk's own list leaves out one whose file is damaged."""
        names = self.repository.list_tags()
        if self.place.kind == "local":
            files = Path(self.place.path, "refs").glob("tag.*/ref.json")
            kept = [one.parent for one in files if not one.with_name("ref.json.deleted").exists()]
            names |= {one.name.removeprefix("tag.") for one in kept}
        return names

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


def _limits(storage: icechunk.StorageSettings | None = None) -> icechunk.RepositoryConfig:
    """What a repository may not set for its readers: with none at once, reads wait for ever."""
    return icechunk.RepositoryConfig(
        max_concurrent_requests=256, get_partial_values_concurrency=10, storage=storage
    )


def _first_commit(
    storage: icechunk.Storage, start: Callable[[ZarrStore], None], about: dict[str, Any]
) -> str:
    session = icechunk.Repository.create(storage).writable_session(BRANCH)
    start(session.store)
    message = "store created"
    return session.commit(message, metadata=_sealed(message, session.snapshot_id, about))


def _sealed(message: str, parent: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """What a commit carries, with a checksum: Icechunk's snapshots have none."""
    rest = {**about, "parent": parent}
    return {**rest, "checksum": digest({"message": message, **rest})}


def _commit(
    info: icechunk.SnapshotInfo, expected: str | None, tags: tuple[str, ...] = ()
) -> Commit:
    """What Icechunk says of a commit, held against its checksum and the id expected."""
    about = dict(info.metadata)
    rest = {key: value for key, value in about.items() if key != "checksum"}
    if about.get("checksum") != digest({"message": info.message, **rest}):
        raise DamagedError(f"Commit {info.id} is not what was written. {WAY_OUT}")
    if expected not in (None, info.id):
        raise DamagedError(f"The history leads to commit {info.id}, not to {expected}. {WAY_OUT}")
    check_about(info.id, about)
    parent = None if about["parent"] == ROOT else about["parent"]
    when = datetime.fromisoformat(about["time"])
    return Commit(info.id, parent, when, info.message, about, tags)


def _occupied(target: Path) -> str:
    if (target / "refs").is_dir():
        return f"There is a store at {target} already. Open it instead."
    return f"{target} is there and is not empty. Choose another place for the store."


@contextmanager
def _named(place: Place, doing: str = "read") -> Iterator[None]:
    """Icechunk's errors, with the place and in one line."""
    try:
        yield
    except icechunk.IcechunkError as error:
        if doing == "read":
            raise wrap(f"The store at {place.url}", error) from error
        meaning = refusal(error)
        more = "" if meaning is None else f" {meaning}."
        text = f"The store at {place.url} cannot be {doing}: {said(error)}.{more}"
        raise StoreError(text) from error
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"The store at {place.url} cannot be {doing}: {error}.") from error
    except BaseException as error:
        if panicked(error):
            raise wrap(f"The store at {place.url}", error) from error
        raise
