"""Takes old commits out of the history; what tags and branches name stays as it is.

The engine gives the oldest commit that stays another parent, the empty first snapshot. Where a
history begins since then is recorded beside the repository, so that one that breaks off elsewhere
is still known to be damaged.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore.errors import DamagedError, UsageError, counted
from neurostore.store import _leases
from neurostore.store._beside import Beside, beside
from neurostore.store._damage import WAY_OUT
from neurostore.store._format import digest
from neurostore.store._when import shown
from neurostore.store._who import who

if TYPE_CHECKING:
    from neurostore.store._versions import Commit, IcechunkVersions

RECORDS = "expired"


@dataclass(frozen=True)
class Stays:
    """What stays of the history of a branch or a tag.

    Attributes
    ----------
    name : str
        ``"branch main"``, ``"tag v1"``.
    snapshot : str
        That it names.
    begins : Commit
        The oldest one that leads to it then.
    commits : int
        How many there are.
    """

    name: str
    snapshot: str
    begins: Commit
    commits: int

    def to_json(self) -> dict[str, Any]:
        """As a plain mapping."""
        begins = {"snapshot": self.begins.snapshot, "time": self.begins.time.isoformat()}
        said = {"name": self.name, "snapshot": self.snapshot, "begins": begins}
        return {**said, "commits": self.commits}

    def __str__(self) -> str:
        since = f"{self.begins.snapshot} of {shown(self.begins.time)}"
        return f"{self.name}: {counted(self.commits, 'commit')}, since {since}"


@dataclass(frozen=True)
class Expired:
    """What went out of the history, or would.

    Attributes
    ----------
    before : datetime
        Commits made before it go, but for those that a tag or a branch names.
    commits : sequence of Commit
        Those that go, newest first.
    begins : sequence of str
        The snapshots at which a history begins from then on.
    files : mapping or None
        How many of each kind nothing reaches any more; None where that is not known ahead (the
        repository lies on no local disk).
    bytes : int or None
        Of these files; gc frees them, after the grace period.
    stays : sequence of Stays
        Branches first, then tags.
    """

    before: datetime
    commits: tuple[Commit, ...]
    begins: tuple[str, ...]
    files: Mapping[str, int] | None
    bytes: int | None
    stays: tuple[Stays, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a plain mapping."""
        return {
            "before": self.before.isoformat(),
            "commits": [one.to_json() for one in self.commits],
            "begins": list(self.begins),
            "files": None if self.files is None else dict(self.files),
            "bytes": self.bytes,
            "stays": [one.to_json() for one in self.stays],
        }


def expire(
    versions: IcechunkVersions, before: datetime | None, keep: int | None, *, dry_run: bool
) -> Expired:
    """Take the commits before a date, or all but the newest, out of every history.

    What open transactions build on stays.

    Raises
    ------
    UsageError
        Where neither or both are said, or a date says no time zone.
    """
    from neurostore.store._versions import _named

    files = beside(versions.place)
    with versions._lock(), _named(versions.place, "written"):
        versions.follow()
        until = _until(versions, before, keep)
        tips = versions.tips()
        written = {one.id: one.written_at for tip in tips for one in _ancestors(versions, tip)}
        for one in _leases.live(files, _leases.clock(files)):
            until = min(until, written.get(one.base, until))  # its branch may be gone meanwhile
        return drop(versions, files, until, dry_run=dry_run)


def drop(versions: IcechunkVersions, files: Beside, until: datetime, *, dry_run: bool) -> Expired:
    """What `expire` does once it holds the lock and knows the date."""
    lost, stays = plan(versions, until)
    begins = tuple(dict.fromkeys(one.begins.snapshot for one in stays))
    counts, size = _reached_no_more(versions, until) if lost else ({}, 0)
    found = Expired(until, tuple(lost), begins, counts, size, tuple(stays))
    if lost and not dry_run:
        _record(files, found)
        versions.repository.expire_snapshots(until)
    return found


def plan(versions: IcechunkVersions, until: datetime) -> tuple[list[Commit], list[Stays]]:
    """The commits that would go, newest first, and what stays of each branch and tag."""
    every: dict[str, Commit] = {}
    kept: set[str] = set()
    stays: list[Stays] = []
    for name, snapshot in versions.names().items():
        written = {one.id: one.written_at for one in _ancestors(versions, snapshot)}
        commits = list(versions.log(snapshot))
        every |= {one.snapshot: one for one in commits}
        young = [one for one in commits[1:] if written[one.snapshot] >= until]
        left = [commits[0], *young]
        kept |= {one.snapshot for one in left}
        stays.append(Stays(name, snapshot, left[-1], len(left)))
    lost = [one for id, one in every.items() if id not in kept]
    return sorted(lost, key=lambda one: one.time, reverse=True), stays


def older_tags(versions: IcechunkVersions, history: Sequence[Commit]) -> dict[str, Commit]:
    """Tags of snapshots from before a history begins, by name, newest first."""
    there = {one.snapshot for one in history}
    tags = versions.tags()
    found = {name: versions.about(one) for name, one in tags.items() if one not in there}
    older = [(one.time, name) for name, one in found.items() if one.time <= history[-1].time]
    return {name: found[name] for _, name in sorted(older, reverse=True)}


def begins(files: Beside) -> list[str]:
    """The snapshots at which a history may begin, as the expiries said."""
    return [id for one in expiries(files) for id in one["begins"]]


def expiries(files: Beside) -> list[dict[str, Any]]:
    """What was recorded of each: before, begins, commits (how many), and who did it when.

    Raises
    ------
    DamagedError
        Where a record is not what was written.
    """
    found = [_recorded(name, files.read(name)) for name in files.list(RECORDS)]
    return sorted((one for one in found if one is not None), key=lambda one: str(one["time"]))


def _recorded(name: str, data: bytes | None) -> dict[str, Any] | None:
    if data is None:
        return None
    try:
        said: dict[str, Any] = json.loads(data)
        if said.pop("checksum") == digest(said):
            return said
    except (ValueError, TypeError, KeyError, AttributeError):
        pass  # said below
    raise DamagedError(f"neurostore/{name} is not what was written. {WAY_OUT}")


def _record(files: Beside, found: Expired) -> None:
    """Written before the engine is asked: a history that begins earlier is no error.

    Each is a file of its own: two machines that expire one bucket at once both leave theirs.
    """
    begun = {"before": found.before.isoformat(), "begins": list(found.begins)}
    said = {**who(), **begun, "commits": len(found.commits)}
    text = json.dumps(said | {"checksum": digest(said)}, indent=1)
    files.write(f"{RECORDS}/{uuid.uuid4().hex}.json", text.encode())


def _until(versions: IcechunkVersions, before: datetime | None, keep: int | None) -> datetime:
    if (before is None) == (keep is None):
        raise UsageError("Say either before which date history goes, or how many commits to keep.")
    if before is not None:
        if before.tzinfo is None:
            raise UsageError(f"{before} says no time zone. Say UTC: {before.isoformat()}+00:00.")
        return before
    if keep is None or keep < 1:
        raise UsageError(f"At least one commit is kept, found keep={keep}.")
    written = [one.written_at for one in _ancestors(versions, versions.head())]
    oldest: datetime = written[min(keep, len(written)) - 1]
    return oldest


def _ancestors(versions: IcechunkVersions, snapshot: str) -> list[Any]:
    """The engine's own word on a history, newest first, but for the empty first snapshot."""
    return list(versions.repository.ancestry(snapshot_id=snapshot))[:-1]


def _reached_no_more(
    versions: IcechunkVersions, until: datetime
) -> tuple[Mapping[str, int] | None, int | None]:
    """What an expiry leaves to gc: the engine's answer on a copy of refs and snapshots.

    The copy leads to the files themselves by links, none of which is written through: the engine
    replaces a file by another one.
    """
    import icechunk

    from neurostore.store import _gc

    if versions.place.kind != "local":
        return None, None
    root, ever = Path(versions.place.path), datetime.now(UTC) + timedelta(days=1)
    with tempfile.TemporaryDirectory(prefix="neurostore-") as folder:
        copy_links(root, Path(folder))
        storage = icechunk.local_filesystem_storage(folder)
        there = icechunk.Repository.open(storage)
        old, old_size = _gc._sizes(there, ever, dry_run=True)
        there.expire_snapshots(until)
        new, size = _gc._sizes(icechunk.Repository.open(storage), ever, dry_run=True)
    return {kind: new[kind] - old[kind] for kind in new}, size - old_size


def copy_links(root: Path, to: Path) -> None:
    """A repository whose refs are copies, and whose other files are links to those of another."""
    shutil.copytree(root / "refs", to / "refs")
    for kind in ("chunks", "manifests", "transactions"):
        if (root / kind).is_dir():
            (to / kind).symlink_to(root / kind)
    (to / "snapshots").mkdir()
    for one in (root / "snapshots").iterdir():
        (to / "snapshots" / one.name).symlink_to(one)
