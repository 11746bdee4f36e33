"""Removes one session for good, with the history that holds it, and proves that it is gone.

A commit takes it out of the tree, without naming it; tags whose snapshot holds or names it are
deleted; all older history expires; gc takes the files, without grace; local caches are cleared; and
every file of the repository is searched. What was begun is recorded beside the repository until it
is done, so that an erasure that was stopped goes on when it is repeated.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zarr.core.sync import sync

from neurostore import cache
from neurostore.errors import NotFoundError, StoreError, UsageError, counted
from neurostore.splits import Split
from neurostore.store import (
    _cached,
    _catalogue,
    _expiry,
    _gc,
    _leases,
    _local,
    _optimized,
    _splits,
    _traces,
    _versions,
    layout,
)
from neurostore.store._beside import FOLDER, Beside, beside
from neurostore.store._format import canonical, session_path
from neurostore.store._traces import Traces
from neurostore.store.transaction import Transaction

if TYPE_CHECKING:
    from neurostore.store._versions import Commit, IcechunkVersions
    from neurostore.store.store import Store

MESSAGE = "a session erased for good"


@dataclass(frozen=True)
class Erased:
    """What an erasure removed, or would.

    Attributes
    ----------
    tags : sequence of str
        Deleted: their snapshots hold or name the session.
    commits : sequence of Commit
        That go out of the history: all but those of the tags and other branches that stay.
    splits : sequence of str
        Versions that name the session, and are deleted; the newest gets a next version without it.
    chunks : int
        Different chunks that the session had, in all snapshots.
    files, bytes : int
        Searched afterwards; 0 in a dry run.
    shared : int
        Chunks of the session that another thing holds with the very same bytes; these stay.
    found : sequence of str
        Where something of it is still found, or in use. Empty is the proof.
    """

    session: str
    tags: tuple[str, ...]
    commits: tuple[Commit, ...]
    splits: tuple[str, ...]
    chunks: int
    files: int = 0
    bytes: int = 0
    shared: int = 0
    found: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a plain mapping."""
        plain = ("session", "chunks", "files", "bytes", "shared")
        lists = ("tags", "splits", "found")
        said: dict[str, Any] = {name: getattr(self, name) for name in plain}
        said |= {name: list(getattr(self, name)) for name in lists}
        return said | {"commits": [one.to_json() for one in self.commits]}


@dataclass(frozen=True)
class _Plan:
    traces: Traces
    keys: tuple[str, ...]
    """Of the window cache, which are to be gone."""
    erased: Erased


def erase(store: Store, session: str, *, with_splits: bool, dry_run: bool) -> Erased:
    """See `Store.erase`."""
    versions = _gc.engine(store._versions, "erase")
    if versions.place.kind != "local":
        raise UsageError(
            f"{versions.place.url} lies on no local disk, whose files can be searched: a session "
            "is erased from local repositories only."
        )
    if versions.branch != _versions.BRANCH:
        raise UsageError(
            f"A session is erased from {_versions.BRANCH!r}; this store is open on the branch "
            f"{versions.branch!r}. Open it without a branch."
        )
    files, at = beside(versions.place), Path(versions.place.path)
    store.refresh()
    _refuse_open(files)
    plan = _resumed(files, _plan(store, versions, session), session, store)
    if plan.erased.splits and not with_splits and not dry_run:
        names = ", ".join(plan.erased.splits)
        raise UsageError(
            f"{session} stands in {names}. Say with_splits (--with-splits) to delete these "
            "versions, with a next one without it."
        )
    if dry_run:
        return plan.erased
    record = {"keys": plan.keys, **plan.traces.to_json()}
    files.write(_record_of(session), json.dumps(record).encode())
    _commit(store, session, plan.erased.splits)
    _drop(versions, files, plan.erased.tags)
    left = _clear(plan)
    done = _proven(versions, at, plan)
    files.remove(_record_of(session))
    return replace(done, found=(*done.found, *left))


# ---- what holds it


def _plan(store: Store, versions: IcechunkVersions, session: str) -> _Plan | None:
    """None where no snapshot holds or names it."""
    path = session_path(session)
    commits, tagged = _reachable(versions)
    names = Traces(session, {}).names
    held: dict[str, Mapping[str, Any]] = {}
    named: set[str] = set()
    for one in commits.values():
        attrs = _catalogue.read_attrs(versions.read(one.snapshot), path)
        if attrs is not None:
            held[one.snapshot] = attrs
        if names.search(canonical([one.message, dict(one.metadata)])):
            named.add(one.snapshot)
    if not held and not named:
        return None
    _refuse_branches(versions, held.keys() | named)
    _refuse_mentions(store, session)
    rows = {str(attrs["row"]["checksum"]): snapshot for snapshot, attrs in held.items()}
    traces = Traces(session, _traces.chunks_of(map(versions.read, rows.values()), path))
    tags = {name for name, at in tagged.items() if at in held or at in named}
    kept = {at for name, at in tagged.items() if name not in tags} | _tips_of_others(versions)
    lost = sorted((one for id, one in commits.items() if id not in kept), key=lambda one: one.time)
    splits = [
        str(attrs["id"])
        for attrs in store.split_rows
        if session in _splits.read(store.zarr, attrs).sessions
        or names.search(canonical(attrs["definition"]))
    ]
    keys = {key for snapshot in rows.values() for key in _cache_keys(store, snapshot, session)}
    found = Erased(
        session, tuple(sorted(tags)), tuple(lost[::-1]), tuple(splits), len(traces.chunks)
    )
    return _Plan(traces, tuple(sorted(keys)), found)


def _reachable(versions: IcechunkVersions) -> tuple[dict[str, Commit], dict[str, str]]:
    """Every commit by its snapshot, and the snapshot of every tag."""
    tips = versions.tips()
    return {one.snapshot: one for tip in tips for one in versions.log(tip)}, versions.tags()


def _cache_keys(store: Store, snapshot: str, session: str) -> set[str]:
    found = store.at(snapshot).session(session)
    kinds = [(name, kind) for name in found.tables for kind in ("table", "packed", "by unit")]
    return {_cached.key(found, name, kind) for name, kind in kinds}


def _refuse_open(files: Beside) -> None:
    held = list(_leases.live(files, _leases.clock(files)))
    if held:
        raise StoreError(
            f"{counted(len(held), 'transaction')} of other writers are open, the oldest by "
            f"{held[0].who}: an erasure leaves them nothing to build on. Repeat it when they are "
            "over; a killed one counts as over after 10 minutes."
        )


def _tips_of_others(versions: IcechunkVersions) -> set[str]:
    """The newest snapshots of all branches but the one from which a session is erased."""
    return {tip for name, tip in versions.branches().items() if name != versions.branch}


def _refuse_branches(versions: IcechunkVersions, bad: set[str]) -> None:
    for name, tip in versions.branches().items():
        if name == versions.branch:
            continue
        if any(one.snapshot in bad for one in versions.log(tip)):
            raise UsageError(
                f"The branch {name!r} holds the session too. Delete the branch first; what is only "
                "on it is lost."
            )


def _refuse_mentions(store: Store, session: str) -> None:
    names = Traces(session, {}).names
    others = [one for one in _catalogue.read_all(store.zarr, store._total) if one["id"] != session]
    others += store.stimulus_rows
    for attrs in others:
        if names.search(canonical(attrs)):
            raise UsageError(
                f"{attrs['id']} names {session} in its attributes (a table made from it, a note, "
                "a source). Replace or delete what does, then repeat it."
            )


# ---- a record while it is done


def _record_of(session: str) -> str:
    return f"erasing-{hashlib.sha256(session.encode()).hexdigest()[:16]}.json"


def _resumed(files: Beside, plan: _Plan | None, session: str, store: Store) -> _Plan:
    """What is to be done, with what an erasure that was stopped had found.

    Raises
    ------
    NotFoundError
        Where there is neither.
    """
    data = files.read(_record_of(session))
    if data is None:
        if plan is None:
            raise NotFoundError("session", session, [r["id"] for r in store.rows], store.url)
        return plan
    said = json.loads(data)
    found = plan.erased if plan else Erased(session, (), (), (), 0)
    chunks = {**said["chunks"], **(plan.traces.chunks if plan else {})}
    return _Plan(
        Traces(session, chunks),
        tuple({*said["keys"], *(plan.keys if plan else ())}),
        replace(found, chunks=len(chunks)),
    )


# ---- the steps


class _Erasing(Transaction):
    """A transaction whose commit names no session."""

    def _commit(self) -> None:
        attrs = (layout.get_document(self._draft.store, "") or {})["attributes"]
        attrs = {**attrs, "erasures": int(attrs.get("erasures", 0)) + 1}  # always a change
        layout.put_group(self._draft.store, "", attrs)
        if self._changed():
            super()._commit()
            return
        self.snapshot = self._store._versions.commit(self._draft, self._message, self._check)
        self._store._see(self.snapshot)

    def _check(self, head: str) -> dict[str, Any]:
        return super()._check(head) | {"sessions": {}}

    def take_split(self, id: str) -> None:
        self._touch(id, id[1:])
        sync(self._draft.below(id[1:]).delete_dir(id[1:]))
        self._changes[id], self._rows[id] = "delete", None


def _commit(store: Store, session: str, splits: tuple[str, ...]) -> None:
    rows = {one["id"]: one for one in store.split_rows if one["id"] in splits}
    newest: dict[str, dict[str, Any]] = {}
    for attrs in rows.values():
        version, _ = _splits.newest(store.split_rows, attrs["split"])
        if attrs["version"] == version:
            newest[attrs["split"]] = attrs
    with _Erasing(store, MESSAGE, "default") as tx:
        for attrs in newest.values():
            rest = _without(_splits.read(store.zarr, attrs), session)
            if len(rest):
                tx.put(_splits.StagedSplit(rest, attrs["version"] + 1))
        for id in rows:
            tx.take_split(id)
        if session in store:
            tx.delete(session)


def _without(split: Split, session: str) -> Split:
    """A split without the rows of a session, its definition without its name."""
    kept = split.session != session
    columns = {name: getattr(split, name)[kept] for name in ("session", "start", "stop", "label")}
    return replace(split, definition=_left(split.definition, session), version=None, **columns)


def _left(value: Any, session: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _left(one, session) for key, one in value.items() if key != session}
    if isinstance(value, list):
        return [_left(one, session) for one in value if one != session]
    return "" if value == session else value


def _drop(versions: IcechunkVersions, files: Beside, tags: tuple[str, ...]) -> None:
    """Delete tags, let all history but the newest commit expire, and take the files."""
    from neurostore.store._versions import _named

    with versions._lock(), _named(versions.place, "written"):
        _refuse_open(files)
        now = _leases.clock(files)
        for name in tags:
            if name in versions.repository.list_tags():
                versions.repository.delete_tag(name)
        until = versions.repository.lookup_snapshot(versions.head()).written_at
        _expiry.drop(versions, files, until, dry_run=False)
        _leases.end_dead(files, now)
        files.remove(_optimized.NAME)
        _gc.sweep(versions, files, now, dry_run=False)


def _clear(plan: _Plan) -> list[str]:
    """Take local copies away; gives those that cannot be.

    Of snapshots that expired earlier nothing is known but their catalogues' words, and no entry of
    the window cache says of whom it is: all of them go that nobody uses.
    """
    _local.remove(plan.traces.names)
    held = cache.current()
    if held is None:
        return []
    gc.collect()  # what nobody can reach any more lets go of what it has open
    held.clear()
    left = [held._path(key) for key in plan.keys]
    return [f"{one} (in use: close what reads it)" for one in left if one.exists()]


def _proven(versions: IcechunkVersions, at: Path, plan: _Plan) -> Erased:
    """Search every file; what another thing holds with the same bytes is no trace."""
    record = at / FOLDER / _record_of(plan.traces.session)
    found = _traces.search(at, plan.traces, but=record)
    chunks = {what for _, what in found.hits if what != "name"}
    others: set[str] = set()
    if chunks:
        tips = map(versions.read, versions.tips())
        others = _traces.of_others(tips, chunks)
    left = [f"{where}: {what}" for where, what in found.hits if what not in others]
    return replace(
        plan.erased, files=found.files, bytes=found.bytes, shared=len(others), found=tuple(left)
    )
