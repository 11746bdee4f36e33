"""The engine's own files: every one that a branch or a tag leads to is there and can be read.

Icechunk checksums none of them. What they say is held against the checksums of commits, rows and
chunks; here it is whether they are there, as long as they were written, and understood.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore.errors import DamagedError, StoreError
from neurostore.store import _damage
from neurostore.store._faults import Fault

if TYPE_CHECKING:
    from icechunk import SnapshotInfo

    from neurostore.store._versions import Commit, IcechunkVersions, Versions


@dataclass(eq=False)
class History:
    """The commits that branches and tags lead to, newest first, and what is wrong with them."""

    commits: list[Commit] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)
    """The snapshots of branches and tags (``"tag v1"``)."""
    begins: set[str] = field(default_factory=set)
    """Where histories begin, whatever the commits there once were made on."""

    @classmethod
    def of(cls, versions: Versions, snapshot: str, *, alone: bool) -> History:
        """From a snapshot (``""``: none), and from every branch and tag unless it is `alone`."""
        made = cls()
        if snapshot:
            made._follow(versions, f"snapshot {snapshot}", snapshot)
        if not alone:
            for name, ref in made._named(versions):
                made.refs[name] = ref
                made._follow(versions, name, ref)
        return made

    def _follow(self, versions: Versions, name: str, snapshot: str) -> None:
        known = {one.snapshot for one in self.commits}
        made: list[Commit] = []
        try:
            for commit in versions.log(snapshot):
                if commit.snapshot in known:
                    break
                made.append(commit)
            else:
                self.begins |= {one.snapshot for one in made[-1:]}
        except StoreError as error:  # of a tag, or of a commit: then as far as commits lead
            made, whole = _walk(versions, snapshot, known)
            if not whole:
                self._add(Fault.critical(name, "store/history/commit", error.line))
        self.commits += made

    def _named(self, versions: Versions) -> Iterator[tuple[str, str]]:
        """Every branch and tag with its snapshot; one that leads nowhere is a fault."""
        icechunk = as_icechunk(versions)
        if icechunk is None:
            return
        repository = icechunk.repository
        branches = sorted(repository.list_branches())
        for name in _headless(icechunk):
            text = f"the tag {name} has a folder and names no snapshot"
            self._add(Fault.critical(f"tag {name}", "store/tag", text))
        for kind, names, look in (
            ("branch", branches, repository.lookup_branch),
            ("tag", sorted(icechunk._tags()), repository.lookup_tag),
        ):
            for name in names:
                try:
                    found = look(name)
                    repository.lookup_snapshot(found)
                except BaseException as error:
                    _damage.pass_on(error)
                    line = _damage.wrap(f"The {kind} {name}", error).line
                    self._add(Fault.critical(f"{kind} {name}", f"store/{kind}", line))
                else:
                    yield f"{kind} {name}", found

    def _add(self, fault: Fault) -> None:
        if fault.finding not in {one.finding for one in self.faults}:
            self.faults.append(fault)


def _walk(versions: Versions, snapshot: str, known: set[str]) -> tuple[list[Commit], bool]:
    """The commits from parent to parent, and whether all of them can be read."""
    made: dict[str, Commit] = {}
    following: str | None = snapshot
    while following is not None and following not in known:
        if following in made:
            return [*made.values()], False  # in a circle
        try:
            made[following] = versions.about(following)
        except StoreError:
            return [*made.values()], False
        following = made[following].parent
    return [*made.values()], True


def as_icechunk(versions: Versions) -> IcechunkVersions | None:
    """The engine where it is Icechunk's."""
    from neurostore.store._versions import IcechunkVersions

    return versions if isinstance(versions, IcechunkVersions) else None


def _headless(versions: IcechunkVersions) -> list[str]:
    """Tags whose file is gone, on a local disk; a deleted tag leaves another file behind."""
    if versions.place.kind != "local":
        return []
    folders = Path(versions.place.path, "refs").glob("tag.*")
    empty = [one.name for one in folders if one.is_dir() and not any(one.iterdir())]
    return sorted(name.removeprefix("tag.") for name in empty)


def places(versions: Versions, snapshot: str) -> dict[str, str] | None:
    """In which manifests the chunks of every array of a snapshot lie, by path of the array.

    None where the engine does not say.

    Raises
    ------
    StoreError
        Where the snapshot cannot be read.
    """
    icechunk = as_icechunk(versions)
    if icechunk is None:
        return None
    try:
        said: Mapping[str, Any] = json.loads(
            icechunk.repository.inspect_snapshot(snapshot, pretty=False)
        )
        nodes = said["nodes"]
    except BaseException as error:
        _damage.pass_on(error)
        raise _damage.wrap(f"snapshots/{snapshot}", error) from error
    arrays = (one for one in nodes if one["node_type"] == "array")
    return {str(one["path"])[1:]: json.dumps(one["manifest_refs"]) for one in arrays}


def check_files(versions: IcechunkVersions, commits: Sequence[Commit]) -> Iterator[Fault]:
    """Files of the engine that these commits need and that are not there, or not whole."""
    root = Path(versions.place.path) if versions.place.kind == "local" else None
    seen = set[str]()
    for commit in commits:
        name = f"snapshots/{commit.snapshot}"
        try:
            info = _snapshot(versions, commit.snapshot)
        except DamagedError as error:
            yield _file(name, "snapshot", error.line)
            continue
        if info.parent_id is not None:
            yield from _transaction(versions, info.parent_id, commit.snapshot)
        for one in info.manifests:
            if root is not None and one.id not in seen:
                seen.add(one.id)
                yield from _manifest(root / "manifests" / one.id, one.size_bytes)


def _snapshot(versions: IcechunkVersions, snapshot: str) -> SnapshotInfo:
    """What the file of a snapshot says.

    Raises
    ------
    DamagedError
        Where it cannot be read, or is that of another one.
    """
    name = f"snapshots/{snapshot}"
    try:
        info = versions.repository.lookup_snapshot(snapshot)
    except BaseException as error:
        _damage.pass_on(error)
        raise _damage.wrap(name, error) from error
    if info.id != snapshot:
        raise DamagedError(f"{name} is the file of the snapshot {info.id}.")
    return info


def _transaction(versions: IcechunkVersions, parent: str, snapshot: str) -> Iterator[Fault]:
    """A log of what a commit changed: writers that meet it compare theirs with it."""
    name = f"transactions/{snapshot}"
    try:
        _snapshot(versions, parent)  # the engine looks for it from parent to parent, without an end
        versions.repository.diff(from_snapshot_id=parent, to_snapshot_id=snapshot)
    except BaseException as error:
        _damage.pass_on(error)
        yield _file(name, "transaction", _damage.wrap(name, error).line)


def _manifest(path: Path, size: int) -> Iterator[Fault]:
    name = f"manifests/{path.name}"
    try:
        found = path.stat().st_size
    except OSError as error:
        yield _file(name, "manifest", f"{name} cannot be read: {error.strerror}")
        return
    if found != size:
        text = f"{name} has {found:,} bytes, {size:,} were written"
        yield Fault.critical(
            name, "store/file/manifest", text, found=str(found), expected=str(size)
        )


def _file(path: str, kind: str, line: str) -> Fault:
    return Fault.critical(path, f"store/file/{kind}", line)
