"""`clone`: a store of any form, or a selection of it, as a new repository; resumable.

The root of the copy says what it is a copy of. What is copied is planned from the catalogue of one
snapshot, so that a clone that was stopped and begun again ends as one that never was.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore.errors import ConflictError, DamagedError, NotFoundError, UsageError, counted
from neurostore.schemas import JSON
from neurostore.store import _copied, _selected, _splits, _stimuli, _unfinished, layout
from neurostore.store._forms import open_form
from neurostore.store._selected import Selection
from neurostore.store.store import Store, create
from neurostore.store.store import open as open_store
from neurostore.store.transaction import who
from neurostore.store.urls import parse

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

    from neurostore.store._copied import Piece

AT_ONCE = 20
"""Sessions in one commit, at most."""
LARGE = 1 << 30
"""Bytes after which a commit takes no further session."""

Progress = Callable[[int, int, int], None]
"""Called with how many sessions, stimuli and splits are done, of how many, and the bytes so far."""


@dataclass(frozen=True)
class Cloned:
    """What a clone did, or would do.

    Attributes
    ----------
    url, snapshot : str, str or None
        The copy, and the snapshot that it is at; None of a dry run.
    source, source_snapshot : str
        What it is a copy of.
    sessions, stimuli, splits : list of str
        What was written, by id.
    there : list of str
        What was there already, from a clone that was stopped.
    chunks, nbytes : int
        How many chunks were written, and the bytes of these and of the documents.
    notes : list of str
        What came along with what was asked for, and what was left out.
    """

    url: str
    source: str
    source_snapshot: str
    snapshot: str | None = None
    sessions: list[str] = field(default_factory=list)
    stimuli: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    chunks: int = 0
    nbytes: int = 0
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, JSON]:
        """As a plain mapping."""
        return asdict(self)


def clone(
    store: Store | str | Path,
    target: str | Path,
    where: str | None = None,
    sessions: str | Sequence[str] | None = None,
    tables: Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    *,
    dry_run: bool = False,
    at_once: int = AT_ONCE,
) -> Cloned:
    """Copy a store, or a selection of its sessions and tables, into a new repository.

    Stored bytes are copied as they are. Every chunk is held against its checksums on the way, and
    what was written, decoded, against the digests of its table. Run again with the same arguments,
    a clone that was stopped goes on behind its last commit. Until it is finished,
    `Store.unfinished` says so.

    Parameters
    ----------
    store : Store, str or Path
        A repository or a release, or its URL (``url@tag`` at a tag or snapshot).
    target : str or Path
        A folder that is not there, is empty, or holds a clone of the same that is to go on.
    where : str, optional
        Only sessions for which this SQL expression over the catalogue holds.
    sessions : str or sequence of str, optional
        Only these, by id.
    tables : sequence of str, optional
        Only these tables of each session, and those that they link to: ``units`` and
        ``intervals/observed`` come along with ``spikes``.
    storage_options : mapping, optional
        Of the source, where it is given by URL.
    progress : callable, optional
        Called with pieces done, pieces in all, and bytes so far.
    dry_run : bool
        Count chunks and bytes, write nothing.
    at_once : int
        Sessions in one commit; at most so many are copied again after a stop.

    Raises
    ------
    UsageError
        Where the target holds something else, or a clone of another snapshot or selection.
    NotFoundError
        Where there is no such session or table.
    DamagedError
        Where bytes of the source are missing or not what was written; names session, array and
        chunk. Nothing of the commit at hand is kept, the ones before it stay.
    """
    if at_once < 1:
        raise UsageError(f"A commit takes at least one session, found at_once={at_once}.")
    source = store if isinstance(store, Store) else open_store(store, None, storage_options)
    source = source.pin()
    sessions = [sessions] if isinstance(sessions, str) else sessions
    chosen = _selected.select(source, where, sessions, tables)
    copy = _existing(target)
    done = set() if copy is None else _done(copy, chosen)
    todo = [piece for piece in chosen.pieces if piece.id not in done]
    if dry_run:
        return _counted(source, parse(target).url, todo, chosen)
    if copy is None:
        copy = create(target)
    if _said(copy.zarr) is None:
        of = f"{chosen.said['source']}@{source.snapshot}"
        count = sum("session" in piece.row for piece in chosen.pieces)
        _unfinished.begin(parse(target), of, count, where, sessions, tables)
        _begin(copy, source, chosen)
    moved = _Moved(progress, len(chosen.pieces), len(done))
    _write(source.zarr, copy, todo, moved, at_once)
    _unfinished.end(parse(target))
    return Cloned(
        copy.url,
        source.url,
        source.snapshot,
        copy.snapshot,
        *_by_kind(todo),
        there=sorted(done),
        chunks=moved.chunks,
        nbytes=moved.nbytes,
        notes=list(chosen.notes),
    )


@dataclass
class _Moved:
    """What was copied so far, and who is told."""

    progress: Progress | None
    pieces: int
    done: int
    chunks: int = 0
    nbytes: int = 0

    def __call__(self, nbytes: int, chunks: int = 0, pieces: int = 0) -> None:
        self.nbytes += nbytes
        self.chunks += chunks
        self.done += pieces
        if self.progress is not None:
            self.progress(self.done, self.pieces, self.nbytes)


def _write(
    source: ZarrStore, copy: Store, todo: Sequence[Piece], moved: _Moved, at_once: int
) -> None:
    """Copy the pieces, so many in a commit, or fewer where they are large."""
    left = list(todo)
    while left:
        message = f"clone, {moved.pieces - len(left):,} of {moved.pieces:,} there before"
        before = moved.nbytes
        with copy.transaction(message) as tx:
            for _ in range(min(at_once, len(left))):
                piece = left.pop(0)
                with _leaving_out(piece):
                    write = partial(_copied.copy, piece, source, moved=moved)
                    tx.copy(piece.id, piece.path, write)
                moved(0, pieces=1)
                if moved.nbytes - before > LARGE:
                    break


@contextmanager
def _leaving_out(piece: Piece) -> Iterator[None]:
    """Damage of the source, with how the rest of it is cloned."""
    try:
        yield
    except DamagedError as error:
        rest = f"where=\"id <> '{piece}'\"" if "session" in piece.row else "sessions= or where="
        raise DamagedError(
            f"{error.line} Or clone the rest of it into another folder, with {rest}."
        ) from error


def _by_kind(pieces: Iterable[Piece]) -> tuple[list[str], list[str], list[str]]:
    """Ids of the sessions, of the stimuli and of the splits."""
    ids = [piece.id for piece in pieces]
    splits = [id for id in ids if _splits.is_split(id)]
    stimuli = [id for id in ids if _stimuli.is_stimulus(id)]
    return [id for id in ids if not id.startswith("/")], stimuli, splits


def _counted(source: Store, url: str, todo: Sequence[Piece], chosen: Selection) -> Cloned:
    sizes = [_copied.size(piece, source.zarr) for piece in todo]
    mine = {piece.id for piece in todo}
    return Cloned(
        url,
        source.url,
        source.snapshot,
        None,
        *_by_kind(todo),
        there=sorted(piece.id for piece in chosen.pieces if piece.id not in mine),
        chunks=sum(chunks for chunks, _ in sizes),
        nbytes=sum(nbytes for _, nbytes in sizes),
        notes=list(chosen.notes),
    )


# ---- the target


def _existing(target: str | Path) -> Store | None:
    """The store at the target; None where there is none yet."""
    try:
        form = open_form(parse(target))
    except NotFoundError:
        return None
    return Store(form, form.head())


def _done(copy: Store, chosen: Selection) -> set[str]:
    """What of the selection is in the target already, as it is in the source.

    Raises
    ------
    UsageError
        Where the target is not empty, and no clone of this selection.
    """
    there = {str(row["id"]): row for row in copy.rows}
    shared = [one["row"] for one in (*copy.split_rows, *copy.stimulus_rows)]
    there |= {str(row["id"]): row for row in shared}
    said = _said(copy.zarr)
    if said is None:
        if there:
            raise UsageError(
                f"{copy.url} is a store of its own, with {counted(len(there), 'session')}. Clone "
                "into a folder that is new."
            )
        return set()
    _refuse_another(copy.url, said, chosen.said)
    for piece in chosen.pieces:
        if piece.id in there and there[piece.id]["tables"] != piece.entries:
            raise UsageError(
                f"{piece} was changed in {copy.url} since it was cloned. Clone into a folder that "
                "is new."
            )
    return {piece.id for piece in chosen.pieces if piece.id in there}


def _said(zarr: ZarrStore) -> Mapping[str, Any] | None:
    """What the root of a store says of what it is a clone of."""
    root = layout.get_document(zarr, "") or {"attributes": {}}
    said: Mapping[str, Any] | None = root["attributes"].get("clone")
    return said


def _refuse_another(url: str, said: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if said["snapshot"] != now["snapshot"]:
        same = said["source"] == now["source"]
        other = "the source is now" if same else f"{now['source']} is asked for, which is"
        raise UsageError(
            f"{url} is a clone of {said['source']} at {said['snapshot']}, and {other} at "
            f"{now['snapshot']}. To go on: neurostore clone '{said['source']}@{said['snapshot']}' "
            f"'{url}'. For the {'newer' if same else 'other'} one take a folder that is new."
        )
    if said["digest"] != now["digest"]:
        raise UsageError(
            f"{url} is a clone of {_selection(said)}, and {_selection(now)} are asked for. Use the "
            "same arguments to go on, or a folder that is new."
        )


def _selection(said: Mapping[str, Any]) -> str:
    number = said["sessions"]
    parts = ["all sessions" if number is None else f"{counted(number, 'session')} by id"]
    parts += [] if said["where"] is None else [f"where {said['where']!r} holds"]
    parts += [] if said["tables"] is None else [f"with the tables {', '.join(said['tables'])}"]
    return f"{' '.join(parts)} (digest {said['digest'][:12]})"


def _begin(copy: Store, source: Store, chosen: Selection) -> None:
    """Write into the root of an empty store what it is to be a clone of, in a commit of its own."""
    versions = copy._versions
    draft = versions.begin()
    root = layout.get_document(draft.store, "") or {}
    said = dict(chosen.said)
    if (before := _said(source.zarr)) is not None:
        said["of"] = dict(before)
    layout.put_group(draft.store, "", {**root["attributes"], "clone": said})
    totals = ("catalogue", "split_catalogue", "stimulus_catalogue")

    def check(head: str) -> dict[str, Any]:
        about = versions.about(head).metadata
        if head != draft.base:
            raise ConflictError(
                f"{copy.url} was empty and was written to meanwhile. Clone into a folder that is "
                "new."
            )
        kept = {name: about[name] for name in totals}
        changes: dict[str, Any] = {"sessions": {}, "splits": {}, "stimuli": {}}
        return {**who(), "transaction": uuid.uuid4().hex, **changes, **kept}

    message = f"clone of {chosen.said['source']} at {chosen.said['snapshot']}"
    versions.commit(draft, message, check)
    copy.refresh()
