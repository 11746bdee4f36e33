"""Several stores as one: repositories, releases, and these beside one another; read only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from neurostore.cache import Cache
from neurostore.errors import NotFoundError, UsageError, counted
from neurostore.splits import Part, Split
from neurostore.store import store as _store
from neurostore.store._stored_stimulus import StoredStimulus
from neurostore.store.urls import SEVERAL, parse

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from neurostore.schemas import Finding
    from neurostore.store.session import Session
    from neurostore.store.transaction import Transaction

T = TypeVar("T")
AT_ONCE = 8
"""Stores that are opened at a time."""


class Several(_store.Store):
    """Stores seen as one: their sessions by id, each of the store that it lies in.

    Its URL and its snapshot are those of its parts, joined by `` + `` and ``+``; `neurostore.open`
    and `at` take them.
    """

    allow_damaged = False

    def __init__(self, parts: Sequence[_store.Store], *, pinned: bool = False) -> None:
        self.parts, self.pinned = tuple(parts), pinned
        self._see_parts()

    def _see_parts(self) -> None:
        for cached in ("_places", "table", "split_rows", "stimulus_rows"):
            self.__dict__.pop(cached, None)
        self.snapshot = "+".join(part.snapshot for part in self.parts)
        _ = self._places  # a clash is an error now

    @classmethod
    def open(
        cls,
        urls: Sequence[str | Path],
        snapshot: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> Several:
        """The stores at several URLs; storage options go to those that take any."""
        if not urls:
            raise UsageError("open takes a URL at least, found an empty list.")
        refs = _refs(snapshot, len(urls))

        def one(url: str | Path, ref: str | None) -> _store.Store:
            near = parse(url).kind in ("local", "memory")
            return _store.open(url, ref, None if near else storage_options)

        if storage_options and all(parse(url).kind in ("local", "memory") for url in urls):
            parse(urls[0], storage_options)  # says that these take none
        with ThreadPoolExecutor(AT_ONCE) as threads:
            parts = list(threads.map(one, urls, refs))
        return cls(parts, pinned=snapshot is not None)

    def _of_parts(self, read: Callable[[_store.Store], T]) -> list[T]:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(read, self.parts))

    def __getattr__(self, name: str) -> Any:
        if name in ("_form", "_catalogue"):
            urls = " or ".join(repr(part.url) for part in self.parts[:3])
            raise UsageError(
                f"{counted(len(self.parts), 'store')} are opened as one, read only; what is asked "
                f"for belongs to one of them. Open that alone: neurostore.open({urls})."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def url(self) -> str:
        """Where they lie, in the form that `neurostore.open` takes."""
        return SEVERAL.join(part.url for part in self.parts)

    @property
    def cache(self) -> Cache | None:
        """The window cache; None where it is switched off, or all of them lie in memory."""
        return next((part.cache for part in self.parts if part.cache is not None), None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.parts, self.pinned)

    def __repr__(self) -> str:
        return f"<{counted(len(self.parts), 'store')} as one, {self.url}: {len(self.ids)} sessions>"

    # ---- reading

    @cached_property
    def _places(self) -> dict[str, _store.Store]:
        """The store that each session lies in, by its id, sorted."""
        made: dict[str, _store.Store] = {}
        for part, ids in zip(self.parts, self._of_parts(lambda part: part.ids), strict=True):
            for id in ids:
                if id in made:
                    raise UsageError(
                        f"{id} lies in two stores, {made[id].url} at {made[id].snapshot} and "
                        f"{part.url} at {part.snapshot}. Open one of them, or give the session "
                        "another name in the other."
                    )
                made[id] = part
        return {id: made[id] for id in sorted(made)}

    @property
    def ids(self) -> list[str]:
        """The ids of all sessions, sorted."""
        return list(self._places)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of all catalogues, by id."""
        return sorted((row for part in self.parts for row in part.rows), key=lambda row: row["id"])

    @cached_property
    def table(self) -> pa.Table:
        """The columns of all catalogues, by id."""
        import pyarrow as pa

        return pa.concat_tables([part.table for part in self.parts]).sort_by("id")

    def row(self, id: str) -> dict[str, Any] | None:
        """The catalogue's row of a session; None where it has none of this id."""
        return self._places[id].row(id) if id in self._places else None

    def session(self, id: str) -> Session:
        """One session by its id, of the store that it lies in."""
        if id not in self._places:
            raise NotFoundError("session", id, self._places, self.url)
        return self._places[id].session(id)

    def __contains__(self, id: object) -> bool:
        return id in self._places

    def outgrown(self) -> list[str]:
        """What is to be said of the stores that hold more than is comfortable, one line each."""
        return [line for part in self.parts for line in part.outgrown()]

    def unfinished(self) -> list[str]:
        """What is to be said of clones that were stopped, one line each."""
        return [line for part in self.parts for line in part.unfinished()]

    # ---- splits and stimuli

    @cached_property
    def split_rows(self) -> list[dict[str, Any]]:
        """Of every split, once where several stores hold the very same."""
        return _once(row for part in self.parts for row in part.split_rows)

    def split(self, name: str) -> Split | Part:
        """A split by name; where several stores have one of the name, it must be the same."""
        title = name.partition("/")[0]
        having = [p for p in self.parts if any(one["split"] == title for one in p.split_rows)]
        if not having:
            known = {str(one["split"]) for one in self.split_rows}
            raise NotFoundError("split", title, known, self.url)
        found = [(part, part.split(name)) for part in having]
        _refuse_others("split", title, [(part, one.digest) for part, one in found])
        return found[0][1]

    @cached_property
    def stimulus_rows(self) -> list[dict[str, Any]]:
        """Of every stimulus and embedding, once where several stores hold the very same."""
        return _once(row for part in self.parts for row in part.stimulus_rows)

    def stimulus(self, name: str) -> StoredStimulus:
        """A stimulus by name; where several stores have it, its digests must be the same."""
        having = [p for p in self.parts if any(one["stimulus"] == name for one in p.stimulus_rows)]
        if not having:
            known = {str(one["stimulus"]) for one in self.stimulus_rows}
            raise NotFoundError("stimulus", name, known, self.url)
        digests = [
            (part, [str(one["digest"]) for one in part.stimulus_rows if one["stimulus"] == name])
            for part in having
        ]
        _refuse_others("stimulus", name, digests)
        return having[0].stimulus(name)

    def validate_splits(self) -> dict[str, list[Finding]]:
        """Every split of every store through both gates, by path."""
        return _joined(self._of_parts(lambda part: part.validate_splits()))

    def validate_stimuli(self) -> dict[str, list[Finding]]:
        """Every stimulus of every store through both gates, by path."""
        return _joined(self._of_parts(lambda part: part.validate_stimuli()))

    # ---- history

    def at(self, ref: str) -> Several:
        """The stores as they were: a tag of all of them, or a tag or snapshot of each (``a+b``)."""
        refs = _refs(ref, len(self.parts))
        return Several([p.at(str(r)) for p, r in zip(self.parts, refs, strict=True)], pinned=True)

    def _renamed_since(self, snapshot: str) -> dict[str, str] | None:
        made: dict[str, str] = {}
        for part, then in zip(self.parts, snapshot.split("+"), strict=True):
            made |= part._renamed_since(then) or {}
        return made

    def pin(self) -> Several:
        """The stores at the snapshots they show now, for good."""
        return Several([part.pin() for part in self.parts], pinned=True)

    def refresh(self) -> Several:
        """Move on to the newest snapshots; gives the store itself."""
        for part in self.parts:
            part.refresh()
        self._see_parts()
        return self

    def transaction(self, message: str, *, codecs: str = "default") -> Transaction:
        """Refused: a transaction is of one store."""
        urls = ", ".join(repr(part.url) for part in self.parts[:3])
        raise UsageError(
            f"{counted(len(self.parts), 'store')} opened as one cannot be written. Open the one "
            f"that is to hold it: neurostore.open(URL), of {urls}"
            f"{', ...' if len(self.parts) > 3 else ''}."
        )


def _refs(snapshot: str | None, count: int) -> list[str | None]:
    """A tag or snapshot a store, from one for all of them or one each."""
    if snapshot is None:
        return [None] * count
    refs: list[str | None] = [*snapshot.split("+")]
    if len(refs) not in (1, count):
        raise NotFoundError(f"snapshot of {counted(count, 'store')}", snapshot, [])
    return refs * count if len(refs) == 1 else refs


def _refuse_others(what: str, name: str, found: Sequence[tuple[_store.Store, object]]) -> None:
    first, digest = found[0]
    for part, other in found[1:]:
        if other != digest:
            raise UsageError(
                f"The {what} {name!r} of {first.url} is another one than that of {part.url}. Ask "
                "one of these stores alone for it, or store it under another name."
            )


def _once(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in order, but for those that repeat one of the same path and digest."""
    return list({(row["id"], row["digest"]): row for row in rows}.values())


def _joined(found: Iterable[Mapping[str, list[Finding]]]) -> dict[str, list[Finding]]:
    """Findings by path; of one path in several stores all of them."""
    made: dict[str, list[Finding]] = {}
    for part in found:
        for path, findings in part.items():
            made.setdefault(path, []).extend(findings)
    return made


def _again(parts: Sequence[_store.Store], pinned: bool) -> Several:
    return Several(parts, pinned=pinned)
