"""The command on the window cache: built ahead of training, measured, cleared."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from neurostore.cli._history import opened
from neurostore.cli._print import print_json, say
from neurostore.cli._words import DONE, REFUSED, Url, Where
from neurostore.errors import CacheWarning, NotFoundError, UsageError, counted

if TYPE_CHECKING:
    from neurostore.cache import Cache
    from neurostore.store import Session
    from neurostore.store._ahead import Piece


def cache(
    url: Url,
    sessions: Annotated[list[str], tyro.conf.arg(metavar="SESSION...", aliases=["--session"])] = [],  # noqa: B006
    where: Where = None,
    tables: Annotated[list[str], tyro.conf.arg(metavar="TABLE...")] = [],  # noqa: B006
    at: str | None = None,
    dry_run: bool = False,
    clear: bool = False,
    json: bool = False,
) -> int:
    """Decode sessions into the window cache ahead of their use; or take them out of it.

    Args:
        url: The store.
        sessions: Ids; all of them without.
        where: Only those for which this holds, e.g. "n_units >= 20".
        tables: Only these tables, e.g. spikes.
        at: A tag, snapshot or date instead of the newest one.
        dry_run: Say how large it would be, build nothing.
        clear: Remove what is cached of them, but for what is in use.
        json: Print sizes as JSON.
    """
    from neurostore import cache

    held = cache.current()
    if held is None:
        raise UsageError("$NEUROSTORE_CACHE is 'off'. Set it to a folder on a local disk.")
    store = opened(url, at)
    if store.url.startswith("memory://"):
        raise UsageError(f"{store.url} lies in memory and is read directly.")
    chosen = [store.session(id) for id in sessions or store.sessions(where)["id"]]
    if sessions and where is not None:
        kept = set(store.sessions(where)["id"])
        chosen = [one for one in chosen if one.id in kept]
    _check_tables(chosen, tables)
    before = _used(held)
    if clear:
        return _clear(held, chosen, tables, json=json)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CacheWarning)
        shown = _progress(chosen, shown=not dry_run)
        found = [piece for one in shown for piece in _pieces(one, tables, build=not dry_run)]
    _report(held, found, before, dry_run=dry_run, json=json)
    for line in sorted({str(one.message) for one in caught}):
        say(f"warning: {line}", error=True)
    return DONE if dry_run or all(piece.cached for piece in found) else REFUSED


def _check_tables(sessions: Sequence[Session], tables: Sequence[str]) -> None:
    known = {name for one in sessions for name in one.tables}
    for name in tables:
        if name not in known:
            raise NotFoundError("table", name, known, "these sessions")


def _pieces(session: Session, tables: Sequence[str], *, build: bool) -> list[Piece]:
    """What is, or is to be, cached of a session; of the tables it has, where some are named."""
    from neurostore.store import _ahead

    there = [name for name in tables or session.tables if name in session.tables]
    found = _ahead.pieces(session, there)
    return [_ahead.build(session, piece) for piece in found] if build else found


def _clear(held: Cache, sessions: Sequence[Session], tables: Sequence[str], *, json: bool) -> int:
    before = _used(held)
    keys = [piece.key for one in sessions for piece in _pieces(one, tables, build=False)]
    removed, freed = held.clear(keys)
    if json:
        print_json({"removed": removed, "freed": freed, "before": before, "after": _used(held)})
        return DONE
    entries = "1 entry" if removed == 1 else f"{removed:,} entries"
    say(f"Removed {entries}, {_size(freed)}; {held.root} holds {_size(_used(held))}.")
    return DONE


def _report(held: Cache, found: Sequence[Piece], before: int, *, dry_run: bool, json: bool) -> None:
    after, new = _used(held), sum(piece.size for piece in found if not piece.cached)
    if json:
        said: dict[str, Any] = {"root": str(held.root), "bound": held.bound, "before": before}
        said |= {"after": after, "entries": [asdict(piece) for piece in found]}
        print_json({"dry_run": dry_run, **said})
        return
    for id in dict.fromkeys(piece.session for piece in found):
        mine = [piece for piece in found if piece.session == id]
        missing = sorted({piece.table for piece in mine if not piece.cached})
        what = "not cached" if not dry_run else "to be cached"
        more = f"; {what}: {', '.join(missing)}" if missing else ""
        say(f"{id}: {_size(sum(piece.size for piece in mine))}{more}")
    of = f"{held.root}, bound to {_size(held.bound)},"
    if dry_run:
        say(f"Dry run: {_size(new)} would be added to {of} which holds {_size(before)}.")
    else:
        say(f"{of} held {_size(before)} before and holds {_size(after)} now.")


def _used(held: Cache) -> int:
    return sum(stat.st_size for _, stat in held.entries())


def _size(bytes: int) -> str:
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if bytes >= one:
            return f"{bytes / one:.3g} {unit}"
    return counted(bytes, "byte")


def _progress(sessions: Sequence[Session], *, shown: bool) -> Iterator[Session]:
    if not shown or not sys.stderr.isatty():
        yield from sessions
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(sessions, "caching", console=Console(stderr=True), transient=True)
