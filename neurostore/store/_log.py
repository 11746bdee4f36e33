"""The history in words: which commits are asked for, and what each of them changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from neurostore.errors import NotFoundError, counted
from neurostore.store._when import instant

if TYPE_CHECKING:
    from neurostore.store._versions import Commit
    from neurostore.store.store import Store

_DONE = {
    "put": "put",
    "update": "updated",
    "delete": "deleted",
    "restore": "restored",
    "rename": "renamed",
    "merge": "merged",
}
_SHOWN = 8
Row = Mapping[str, Any]


def within(commits: Iterable[Commit], since: str | None, until: str | None) -> Iterator[Commit]:
    """Those of some time; a date alone is the whole day."""
    first = None if since is None else instant(since, end=False)
    last = None if until is None else instant(until)
    for one in commits:
        if (first is None or one.time >= first) and (last is None or one.time <= last):
            yield one


def of_session(commits: Iterable[Commit], session: str, store: Store) -> Iterator[Commit]:
    """Those that touched a session, newest first, under the names it had before too.

    Raises
    ------
    NotFoundError
        With the nearest id, where neither the commits nor the store know of it.
    """
    name, found, known = session, False, set[str]()
    for one in commits:
        known |= one.changes.keys()
        if name in one.changes:
            found = True
            yield one
        name = one.name_before(name)
    if not found and session not in store:
        raise NotFoundError("session", session, known.union(store.ids), f"the log of {store.url}")


def name_then(commits: Iterable[Commit], snapshot: str, session: str) -> str:
    """What a session was called at an older snapshot, by the commits since, newest first.

    As it is called now where the commits do not lead to the snapshot.
    """
    name = session
    for one in commits:
        if one.snapshot == snapshot:
            return name
        name = one.name_before(name)
    return session


def names_then(
    commits: Iterable[Commit], snapshot: str, ids: Iterable[str]
) -> dict[str, str] | None:
    """Ids of sessions → what they were called at an older snapshot, of those renamed since.

    None where the commits, newest first, do not lead to the snapshot.
    """
    held = {id: id for id in ids}  # what bore a name then → its id
    for one in commits:
        if one.snapshot == snapshot:
            return {now: then for then, now in held.items() if then != now}
        renamed = one.metadata.get("renamed", {})
        came = {old: held.pop(new) for old, new in renamed.items() if new in held}
        for name, what in one.changes.items():
            if what == "delete" or name in renamed:  # what bears it since is another session
                held.pop(name, None)
        held |= came
    return None


def about(
    seen: Mapping[str, Row | None], rows: Mapping[str, Row | None], sessions: Iterable[str]
) -> dict[str, Any]:
    """What a commit says of the sessions that it changes: sizes before and after, and tables.

    Sizes are sums over those sessions; tables are named where a session was there ahead of it and
    is still there.
    """
    ids = list(sessions)
    pairs = [(seen[id], rows[id]) for id in ids]
    sides = [[one[side] for one in pairs if one[side] is not None] for side in (0, 1)]
    sizes: dict[str, list[int]] = {"sessions": [len(side) for side in sides]}
    for name in ("units", "spikes"):
        sizes[name] = [sum(int(row[f"n_{name}"]) for row in side if row) for side in sides]
    tables = {
        id: names
        for id, (before, after) in zip(ids, pairs, strict=True)
        if before is not None and after is not None
        if (names := changed_tables(before["tables"], after["tables"]))
    }
    return {"sizes": sizes, "tables": tables}


def changed_tables(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the tables that are there on one side alone, or are other ones."""

    def digest(tables: Mapping[str, Any], name: str) -> object:
        return tables.get(name, {}).get("digest")

    return [n for n in sorted({*before, *now}) if digest(before, n) != digest(now, n)]


def words(commit: Commit) -> list[str]:
    """What a commit changed, a line a kind of change, and a line of sizes."""
    lines, left = (
        [],
        dict(sorted(commit.changes.items())),
    )  # Icechunk's own order changes by reading
    for old, new in sorted(commit.metadata.get("renamed", {}).items()):
        lines.append(f"renamed {old} → {new}")
        left.pop(old, None)
        left.pop(new, None)
    for what, done in _DONE.items():
        ids = [id for id, kind in left.items() if kind == what and id[0] != "/"]
        if ids:
            some = _some([_with_tables(commit, id) for id in ids])
            lines.append(f"{done} {counted(len(ids), 'session')}: {some}")
        shared = [id for id, kind in left.items() if kind == what and id.startswith("/")]
        lines += [f"{done} {id}" for id in shared]
    return lines + _sizes(commit)


def _sizes(commit: Commit) -> list[str]:
    """A line of sizes, which says of how many sessions it speaks: not of the whole store."""
    sizes = commit.metadata.get("sizes", {})
    said = [
        f"{name} {sizes[name][0]:,} → {sizes[name][1]:,}"
        for name in ("units", "spikes")
        if name in sizes and sizes[name][0] != sizes[name][1]
    ]
    touched = len(commit.metadata.get("sessions", ())) - len(commit.metadata.get("renamed", ()))
    return [f"of {counted(touched, 'session')}: {', '.join(said)}"] if said else []


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _with_tables(commit: Commit, id: str) -> str:
    names = commit.metadata.get("tables", {}).get(id, ())
    if not names:
        return id
    some = ", ".join(names[:_SHOWN]) if len(names) <= _SHOWN else counted(len(names), "table")
    return f"{id} ({some})"
