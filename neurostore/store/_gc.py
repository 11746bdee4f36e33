"""Takes away what no snapshot reaches and no open transaction has written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore.errors import UsageError
from neurostore.store import _leases, _versions
from neurostore.store._beside import FOLDER, Beside, beside
from neurostore.store._leases import Held

if TYPE_CHECKING:
    import icechunk

    from neurostore.store._versions import IcechunkVersions, Versions

GRACE = timedelta(days=7)
KINDS = ("chunks", "manifests", "snapshots", "transactions")
_LEFT = re.compile(r".+#\d+")
"""The name of a file that was being written when its writer was killed; the engine leaves it."""


@dataclass(frozen=True)
class Collected:
    """What gc removed, or would remove.

    Attributes
    ----------
    before : datetime
        Only what is older was looked at: now less the grace period, or the oldest live lease.
    files : mapping
        How many by kind: chunks, manifests, snapshots, transactions, leftovers.
    bytes : int
    held : sequence of Held
        Live leases; what is younger than the oldest of them stays.
    """

    before: datetime
    files: Mapping[str, int]
    bytes: int
    held: tuple[Held, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """As a plain mapping."""
        said = {"before": self.before.isoformat(), "files": dict(self.files), "bytes": self.bytes}
        return {**said, "leases": [one.to_json() for one in self.held]}


def engine(versions: Versions, doing: str) -> IcechunkVersions:
    """The repository's engine.

    Raises
    ------
    UsageError
        Where it is a release, which never changes.
    """
    if not isinstance(versions, _versions.IcechunkVersions):
        raise UsageError(f"A release never changes: {doing} is for repositories.")
    return versions


def collect(versions: IcechunkVersions, older_than: timedelta, *, dry_run: bool) -> Collected:
    """Remove what no snapshot reaches and is older than the grace period and every live lease.

    Raises
    ------
    UsageError
        Where the grace period is negative.
    """
    if older_than < timedelta(0):
        raise UsageError(f"The grace period is negative: {older_than}. Give 0 or more.")
    files = beside(versions.place)
    with versions._lock(), _versions._named(versions.place, "written"):
        now = _leases.clock(files)
        held = tuple(_leases.live(files, now))
        before = min([now - older_than, *(one.begun - _leases.SKEW for one in held)])
        if not dry_run:
            _leases.end_dead(files, now)
        return sweep(versions, files, before, held, dry_run=dry_run)


def sweep(
    versions: IcechunkVersions,
    files: Beside,
    before: datetime,
    held: tuple[Held, ...] = (),
    *,
    dry_run: bool,
) -> Collected:
    """What `collect` does once it holds the lock and knows how far it may go."""
    versions.follow()
    counts, size = _sizes(versions.repository, before, dry_run=dry_run)
    left = list(_leftovers(versions, before))
    for path, _ in () if dry_run else left:
        path.unlink(missing_ok=True)
    counts["leftovers"] = len(left)
    return Collected(before, counts, size + sum(bytes for _, bytes in left), held)


def _sizes(
    repository: icechunk.Repository, before: datetime, *, dry_run: bool
) -> tuple[dict[str, int], int]:
    """How many files of each kind the engine removes that are older, and their bytes."""
    done = repository.garbage_collect(before, dry_run=dry_run)
    counts = (
        done.chunks_deleted,
        done.manifests_deleted,
        done.snapshots_deleted,
        done.transaction_logs_deleted,
    )
    return dict(zip(KINDS, map(int, counts), strict=True)), int(done.bytes_deleted)


def _leftovers(versions: IcechunkVersions, before: datetime) -> Iterator[tuple[Path, int]]:
    """Files that a killed writer left half-way, on a local disk; with their bytes."""
    if versions.place.kind != "local":
        return
    root = Path(versions.place.path)
    half = [one for one in (root / FOLDER).rglob(".*") if one.is_file()]
    for kind in (*KINDS, "refs"):
        half += [one for one in (root / kind).rglob("*#*") if _LEFT.fullmatch(one.name)]
    for path in half:
        with suppress(FileNotFoundError):  # its writer is done meanwhile
            stat = path.stat()
            if datetime.fromtimestamp(stat.st_mtime, UTC) < before:
                yield path, stat.st_size
