"""`Store`: a repository at one snapshot, and the transactions that make the next one."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from neurostore.cache import Cache, current
from neurostore.errors import DamagedError, NotFoundError, StoreError, UsageError
from neurostore.schemas import Finding
from neurostore.splits import Part, Split
from neurostore.store import (
    _catalogue,
    _log,
    _optimized,
    _readable,
    _splits,
    _stimuli,
    _stored_stimulus,
    _when,
)
from neurostore.store._columnar import Catalogue, nodes
from neurostore.store._damage import WAY_OUT
from neurostore.store._faults import Fault
from neurostore.store._format import FORMAT, session_path
from neurostore.store._forms import Form, open_form
from neurostore.store.session import Session
from neurostore.store.urls import Place, apart, parse, several

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    import pandas as pd
    import pyarrow as pa
    from zarr.abc.store import Store as ZarrStore

    from neurostore.store._erase import Erased
    from neurostore.store._expiry import Expired
    from neurostore.store._gc import Collected
    from neurostore.store._lineage import Lineage
    from neurostore.store._migrate import Migrated
    from neurostore.store._verify import Progress, Report
    from neurostore.store._versions import Commit, Versions
    from neurostore.store.difference import Difference
    from neurostore.store.edit import Edit
    from neurostore.store.release import Published
    from neurostore.store.space import Space
    from neurostore.store.transaction import Transaction

_logger = logging.getLogger("neurostore")
_MAIN = "main"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""How tags and branches are named."""

T = TypeVar("T")


def create(url: str | Path, storage_options: Mapping[str, Any] | None = None) -> Store:
    """A new, empty store at a local folder, in memory (``memory://name``) or in a bucket.

    Parameters
    ----------
    url : str or Path
        A folder that is not there yet or is empty; ``s3://bucket/prefix`` (or gs, az) where nothing
        lies yet. The bucket itself must be there.
    storage_options : mapping, optional
        Of a bucket, as fsspec takes them: ``{"key": ..., "secret": ..., "endpoint_url": ...}``.

    Raises
    ------
    UsageError
        Where there is something already.
    StoreError
        Where it cannot be written.
    """
    from neurostore.store import layout
    from neurostore.store._repository import engine
    from neurostore.store._who import who

    place = parse(url, storage_options)

    def start(store: ZarrStore) -> None:
        layout.put_group(store, "", {"neurostore_format": FORMAT})
        layout.put_group(store, "sessions", {})

    about = who() | {"sessions": {}, "catalogue": _catalogue.Total().to_json()}
    about |= {"splits": {}, "split_catalogue": _catalogue.Total(of="splits").to_json()}
    about |= {"stimuli": {}, "stimulus_catalogue": _catalogue.Total(of="stimuli").to_json()}
    engine(place).create(place, start, about)
    return open(url, storage_options=storage_options)


def open(
    url: str | Path | Sequence[str | Path],
    snapshot: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    *,
    branch: str | None = None,
    allow_damaged: bool = False,
) -> Store:
    """The store at a URL, at its newest snapshot or at the one (or the tag) named.

    Reading needs neither a lock nor a folder that can be written.

    Parameters
    ----------
    url : str or Path, or a sequence of them
        A repository in a local folder, ``memory://name`` or a bucket: ``s3://``, ``gs://`` or
        ``az://``; ``url@tag`` at a tag. Or a release at any URL that fsspec knows. Several open as
        one store, read only: a sequence, or a text with `` + `` between them.
    snapshot : str, optional
        A tag, a snapshot id or its unique start, or a date (see `Store.at`); the store is then
        read only. Of several stores a tag that each of them has, or one a store, joined by ``+``.
    storage_options : mapping, optional
        As fsspec takes them (``docs/how-to/object-stores.md``); a local folder and memory take
        none. Of several stores, for all that take any.
    branch : str, optional
        A branch instead of ``main``: its newest snapshot is shown, and it is what is written.
    allow_damaged : bool
        Read around damage: `Store.sessions` has a column `damage`, `Store.damage` says what cannot
        be read, and reading that alone is an error. The store is then read only.

    Raises
    ------
    NotFoundError, DamagedError, StoreError, UsageError
    """
    urls = several(url)
    if len(urls) != 1:
        from neurostore.store._several import Several

        if branch is not None or allow_damaged:
            raise UsageError(
                f"A branch, and reading around damage, are of one store, found {len(urls)} URLs. "
                "Open that one alone."
            )
        return Several.open(urls, snapshot, storage_options)
    text, tag = apart(urls[0])
    if tag is not None and snapshot is not None:
        raise UsageError(f"{text} names the tag {tag!r}, and snapshot={snapshot!r} is given too.")
    if branch is not None:
        _check_name("branch", branch)
    form, ref = open_form(parse(text, storage_options), branch or _MAIN), tag or snapshot
    if ref is None:
        return Store(form, form.head(), allow_damaged=allow_damaged)
    return Store(form, _when.resolve(form, ref), pinned=True, allow_damaged=allow_damaged)


class Store:
    """A repository of sessions, seen at one snapshot.

    Own transactions move it on; `refresh` moves it to what others have committed; `at` gives it as
    it was. It pickles as (URL, snapshot), and is opened again where it is unpickled.
    """

    snapshot: str
    pinned: bool

    def __init__(
        self,
        form: Form,
        snapshot: str,
        *,
        pinned: bool = False,
        catalogue: Catalogue | None = None,
        allow_damaged: bool = False,
    ) -> None:
        self._form = form
        self.pinned = pinned
        self.allow_damaged = allow_damaged
        self._last: tuple[str, Catalogue] | None = None
        self._catalogue: Catalogue | None = None
        self._see(snapshot, catalogue)

    def _see(self, snapshot: str, catalogue: Catalogue | None = None) -> None:
        if self._catalogue is not None:
            self._last = (self.snapshot, self._catalogue)
        self.snapshot = snapshot
        for name in ("zarr", "_commit", "_around", "split_rows", "stimulus_rows"):
            self.__dict__.pop(name, None)
        cached = None if self.allow_damaged else self._form.cached(snapshot)
        self._catalogue = catalogue or cached
        if self._catalogue is None:
            self._check_format()

    def _check_format(self) -> None:
        from neurostore.store import layout

        root = layout.get_document(self.zarr, "")
        found = (root or {}).get("attributes", {}).get("neurostore_format")
        if found is None:
            raise DamagedError(
                f"{self.url} at {self.snapshot} carries no neurostore_format: it is damaged, or no "
                f"neurostore. {WAY_OUT}"
            )
        if found != FORMAT:
            raise StoreError(
                f"{self.url} is of format {found}, this version reads {FORMAT}. "
                "Install a newer neurostore."
            )

    @property
    def url(self) -> str:
        """Where it lies."""
        return self._form.place.url

    @property
    def _versions(self) -> Versions:
        return self._form.versions

    @cached_property
    def zarr(self) -> ZarrStore:
        """The snapshot as a read-only Zarr store."""
        from neurostore.store._keys import Keys

        return Keys(self._versions.read(self.snapshot))

    @property
    def cache(self) -> Cache | None:
        """The window cache that its tables are kept in; None where it is switched off.

        What lies in memory has none: it ends with the process, and is at hand.
        """
        return None if self.url.startswith("memory://") else current()

    def __reduce__(self) -> tuple[Any, ...]:
        if self.url.startswith("memory://"):
            raise UsageError(f"{self.url} lies in this process and cannot go to another one.")
        place, branch = self._form.place, self._form.branch
        return _reopen, (place, self.snapshot, self.pinned, branch, self.allow_damaged)

    def __repr__(self) -> str:
        return f"<Store {self.url} at {self.snapshot}: {self._total['sessions']} sessions>"

    def _repr_html_(self) -> str:
        import html

        table = self.sessions().drop(columns=["tables"], errors="ignore")
        return f"<b>{html.escape(repr(self)[1:-1])}</b>{table.to_html(index=False)}"

    # ---- reading

    @cached_property
    def _commit(self) -> Commit:
        return self._versions.about(self.snapshot)

    @property
    def _total(self) -> Mapping[str, Any]:
        said = self._commit.metadata.get("catalogue")
        if not isinstance(said, dict):
            raise DamagedError(f"Commit {self.snapshot} names no catalogue. {WAY_OUT}")
        return said

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The catalogue's rows as they are kept with the sessions, checked."""
        return self._of_catalogue(lambda found: found.rows)

    @property
    def ids(self) -> list[str]:
        """The ids of all sessions, sorted."""
        return self._of_catalogue(lambda found: found.ids)

    @property
    def table(self) -> pa.Table:
        """The catalogue's columns, and one of how many groups and arrays each session is."""
        return self._of_catalogue(lambda found: found.table)

    def row(self, id: str) -> dict[str, Any] | None:
        """The catalogue's row of a session; None where it has none of this id."""
        return self._of_catalogue(lambda found: found.row(id)) if id in self else None

    def _of_catalogue(self, part: Callable[[Catalogue], T | None]) -> T:
        """A part of the catalogue; read from the store where the copy at hand does not hold it."""
        if self.allow_damaged and self._catalogue is None:
            self._catalogue = Catalogue.of(self._around.of("sessions"))
        if self._catalogue is None:  # another process may have read it meanwhile
            self._catalogue = self._form.cached(self.snapshot)
        found = None if self._catalogue is None else part(self._catalogue)
        if found is None:
            self._catalogue = self._form.keep(self.snapshot, self._carried() or self._read_all())
            found = part(self._catalogue)
        if found is None:
            raise DamagedError(f"The catalogue of {self.url} cannot be read. {WAY_OUT}")
        return found

    def _carried(self) -> Catalogue | None:
        """From the catalogue of another snapshot that is at hand, or lies beside the repository."""
        from neurostore.store._carried import carried

        def known(snapshot: str) -> Catalogue | None:
            if snapshot == self.snapshot:
                return None  # what this machine has of it does not hold all
            if self._last is not None and self._last[0] == snapshot:
                return self._last[1]
            return self._form.cached(snapshot)

        return carried(self._versions, self.snapshot, known, self._form.beside())

    def _read_all(self) -> Catalogue:
        return Catalogue.of(_catalogue.read_all(self.zarr, self._total))

    @cached_property
    def _around(self) -> _readable.Snapshot:
        """What can be read of this snapshot, each thing for itself."""
        log = self._versions.log
        found = _readable.read(self.zarr, self._commit, lambda: log(self.snapshot))
        found.faults.extend(_readable.tables(self.zarr, found))
        return found

    @property
    def damage(self) -> list[Fault]:
        """What cannot be read, as far as metadata tells; `verify` looks at every value."""
        return list(self._around.faults)

    def sessions(self, where: str | None = None) -> pd.DataFrame:
        """The catalogue: one row a session.

        Parameters
        ----------
        where : str, optional
            A SQL boolean expression: ``"n_units >= 20 AND list_contains(regions, 'CA1')"``.

        Returns
        -------
        pandas.DataFrame
            id, dataset, session, subject, species, n_units, n_spikes, n_trials, start, stop and
            observed (seconds), regions, findings (how many), tables; with `allow_damaged` also
            damage (text), and a row of its id alone for a session that cannot be read.
        """
        if self.allow_damaged:
            return _catalogue.query(self._around.frame(), where, "sessions")
        table = self.table.select(_catalogue.columns())
        return _catalogue.query_arrow(table, where, "sessions")

    def units(
        self, where: str | None = None, sessions: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """All units of all sessions, with the columns that their sources have.

        Parameters
        ----------
        where : str, optional
            A SQL boolean expression: ``"region = 'CA1' AND rate_hz < 50"``.
        sessions : sequence of str, optional
            Ids of the sessions whose units are asked for.

        Returns
        -------
        pandas.DataFrame
            session, dataset, unit, n_spikes, observed (seconds), rate_hz, region, ...
        """
        from neurostore.store import _units

        chosen = self.ids if sessions is None else sorted({*sessions} & {*self.ids})
        return _units.joined(self._unit_frames(chosen), where)

    def _unit_frames(self, ids: Iterable[Any]) -> Iterator[pd.DataFrame]:
        from neurostore.store import _units

        for id in ids:
            try:
                session = self.session(str(id))
                if "units" in session.tables:
                    yield _units.frame(session)
            except DamagedError as error:
                if not self.allow_damaged:
                    raise
                fault = Fault.critical(str(id), "store/damage", error.line, table="units")
                self._around.faults.append(fault)
                _logger.warning("The units of %s are left out: %s", id, error.line)

    def session(self, id: str) -> Session:
        """One session by its id, ``<dataset>/<session>``.

        Raises
        ------
        NotFoundError
            With the nearest id there is.
        """
        attrs = None if self._catalogue is None else self._catalogue.attrs(id)
        if attrs is None and "/" in id:
            attrs = _catalogue.read_attrs(self.zarr, session_path(id))
        if attrs is None:
            known = self.ids
            if id in known or (self.allow_damaged and id in self._around.lost):
                raise DamagedError(f"{id} stands in the catalogue but is not found. {WAY_OUT}")
            raise NotFoundError("session", id, known, self.url)
        if attrs["id"] != id:
            raise DamagedError(f"{id} is not found; {attrs['id']} lies in its place. {WAY_OUT}")
        return Session(self, id, attrs)

    # ---- splits

    @cached_property
    def split_rows(self) -> list[dict[str, Any]]:
        """What is kept of every version of every split beside its rows, checked."""
        if self.allow_damaged:
            return self._around.of("splits")
        return _splits.read_all(self.zarr, self._commit.metadata.get("split_catalogue"))

    @property
    def splits(self) -> pd.DataFrame:
        """The splits, one row a version: name, version, digest, rows (how many), labels."""
        return _splits.frame(self.split_rows)

    def split(self, name: str) -> Split | Part:
        """A split, or one label of it.

        Parameters
        ----------
        name : str
            ``"blocks"`` for its newest version, ``"blocks/v2"``, ``"blocks/train"`` or
            ``"blocks/v2/train"``.

        Raises
        ------
        NotFoundError
            With the nearest split, version or label there is.
        """
        return _splits.find(self.zarr, self.split_rows, name, self.url)

    # ---- stimuli

    @cached_property
    def stimulus_rows(self) -> list[dict[str, Any]]:
        """What is kept of every stimulus and embedding beside its values, checked."""
        if self.allow_damaged:
            return self._around.of("stimuli")
        return _stimuli.read_all(self.zarr, self._commit.metadata.get("stimulus_catalogue"))

    @property
    def stimuli(self) -> pd.DataFrame:
        """The stimuli: name, frames (how many), rate_hz, shape, url, embeddings (dim by title)."""
        return _stimuli.frame(self.stimulus_rows)

    def stimulus(self, name: str) -> _stored_stimulus.StoredStimulus:
        """A stimulus by the name that presentations give it: its frames and embeddings, lazily.

        Raises
        ------
        NotFoundError
            With the nearest one there is.
        """
        return _stored_stimulus.find(self, name)

    # ---- scale

    @property
    def nodes(self) -> int:
        """Groups and arrays of all sessions, which every commit lists."""
        return nodes(self.table)

    def outgrown(self) -> list[str]:
        """What is to be said of a repository that holds more than is comfortable, one line."""
        return _optimized.outgrown(self.url, self.nodes)

    def unfinished(self) -> list[str]:
        """What is to be said of a clone that was stopped, one line, with how it goes on."""
        from neurostore.store import _unfinished
        from neurostore.store._versions import IcechunkVersions

        if not isinstance(self._versions, IcechunkVersions):
            return []
        found = _unfinished.said(self._form.place)
        return [] if found is None else [" ".join(found)]

    def optimize(self, *, dry_run: bool = False) -> _optimized.Optimized:
        """Write the catalogue as one object beside the repository, which others open by.

        Without it, who opens the repository on another machine asks for every session. Nothing is
        committed; of later snapshots, only sessions changed since are asked for.

        Raises
        ------
        StoreError
            Where it cannot be written.
        UsageError
            Of a release, which has its catalogue in one object.
        """
        from neurostore.store import _gc

        place = _gc.engine(self._versions, "optimize").place
        records = self._of_catalogue(lambda found: found.records)
        data, before = _optimized.encoded(self.snapshot, records), _optimized.read(place)
        if not dry_run:
            _optimized.write(place, data)
        was = None if before is None else before.snapshot
        return _optimized.Optimized(
            self.url, self.snapshot, was, len(self.ids), self.nodes, len(data)
        )

    def __contains__(self, id: object) -> bool:
        return self._of_catalogue(lambda found: id in found.places)

    # ---- history

    def log(
        self,
        limit: int | None = None,
        *,
        since: str | None = None,
        until: str | None = None,
        session: str | None = None,
    ) -> list[Commit]:
        """The commits that led here, newest first.

        Parameters
        ----------
        limit : int, optional
            At most so many.
        since, until : str, optional
            Dates or date-times, both inclusive; in UTC unless they carry a zone.
        session : str, optional
            Only commits that touched this session, under this id or one that it had before.

        Raises
        ------
        NotFoundError
            Where no snapshot of the history knows the session.
        UsageError
            Where `limit` is below 1.
        """
        if limit is not None and limit < 1:
            raise UsageError(f"A log has at least one commit, found limit={limit}.")
        found = self._versions.log(self.snapshot)
        if session is not None:
            found = _log.of_session(found, session, self)
        return list(islice(_log.within(found, since, until), limit))

    def _renamed_since(self, snapshot: str) -> dict[str, str] | None:
        """Ids → what they were at an older snapshot; None where that is not in the history."""
        try:
            return _log.names_then(self._versions.log(self.snapshot), snapshot, self.ids)
        except DamagedError:
            return None  # verify says so; the sessions themselves can still be compared

    def tag(self, name: str) -> None:
        """Name this snapshot for good; a tag never moves."""
        _check_new("tag", name)
        self._versions.tag(name, self.snapshot)

    @property
    def tags(self) -> dict[str, str]:
        """The snapshot of every tag, by name."""
        return self._versions.tags()

    def delete_tag(self, name: str, *, dry_run: bool = False) -> list[Commit]:
        """Take a tag away; gives the commits that it alone held, newest first.

        The engine never gives the name free again: no other tag can be called so.

        Raises
        ------
        NotFoundError
            Where there is no such tag.
        """
        if name not in self.tags:
            raise NotFoundError("tag", name, self.tags, self.url)
        alone = self._versions.alone(name)
        if not dry_run:
            self._versions.delete_tag(name)
        return alone

    @property
    def branches(self) -> dict[str, str]:
        """The newest snapshot of every branch, by name."""
        return self._versions.branches()

    def branch(self, name: str) -> Store:
        """Begin a branch at this snapshot, and open it: its commits leave the others alone.

        Raises
        ------
        UsageError
            Where there is a branch or a tag of this name.
        """
        _check_new("branch", name)
        self._versions.make_branch(name, self.snapshot)
        return Store(open_form(self._form.place, name), self.snapshot)

    def delete_branch(self, name: str, *, dry_run: bool = False) -> list[Commit]:
        """Take a branch away; gives the commits that it alone held, newest first.

        Raises
        ------
        NotFoundError, UsageError
            Where there is no such branch, and of ``main`` and the one that is open.
        """
        if name not in self.branches:
            raise NotFoundError("branch", name, self.branches, self.url)
        if name in (_MAIN, self._form.branch):
            raise UsageError(f"The branch {name!r} is open here, or is 'main': it stays.")
        alone = self._versions.alone(name)
        if not dry_run:
            self._versions.delete_branch(name)
        return alone

    def at(self, ref: str) -> Store:
        """The store as it was at a tag, a snapshot or a date; read only.

        ``"2026-11-21T10:00"`` is the newest snapshot that is not later, ``"2026-11-21"`` the last
        one of that day; in UTC unless the date carries a zone.
        """
        snapshot = _when.resolve(self._form, ref)
        return Store(self._form, snapshot, pinned=True, allow_damaged=self.allow_damaged)

    def diff(
        self, a: str, b: str | None = None, sessions: Iterable[str] | None = None
    ) -> Difference:
        """What differs from one snapshot to another one, session by session.

        Parameters
        ----------
        a, b : str
            Tags, snapshots or dates; `b` is what this store shows unless given.
        sessions : iterable of str, optional
            Ids; everything, with splits and stimuli, without.
        """
        from neurostore.store._compare import compare

        return compare(self.at(a), self if b is None else self.at(b), sessions)

    def restore(
        self,
        ref: str,
        session: str | None = None,
        table: str | Sequence[str] | None = None,
        message: str | None = None,
        *,
        dry_run: bool = False,
    ) -> Edit:
        """Bring back a session, tables of it, or everything, as it was: in a new commit.

        Stored bytes are copied as they are, so that digests are the same. What is the same already
        is left alone, unless it is named and cannot be read.

        Parameters
        ----------
        ref : str
            A tag, a snapshot or a date.
        session : str, optional
            Its id; everything, splits and stimuli too, without. A session that was renamed since
            keeps the name that it has now.
        table : str or sequence of str, optional
            Tables of the session.
        dry_run : bool
            Say what would be done, and write nothing.

        Raises
        ------
        NotFoundError
            Where there was no such session or table.
        RefusedError
            Where a table would not fit the session as it is now: it names rows of other units, or
            is on another clock.
        """
        from neurostore.store import _restore

        names = [table] if isinstance(table, str) else [*(table or ())]
        return _restore.run(self, ref, session, names, message, dry_run)

    def rename(
        self,
        old: str,
        new: str,
        message: str | None = None,
        *,
        with_splits: bool = False,
        dry_run: bool = False,
    ) -> Edit:
        """Give a session another id, in a commit of its own; see `Transaction.rename`."""
        from neurostore.store import _rename

        return _rename.run(self, _rename.plan(self, old, new, with_splits), message, dry_run)

    def delete(self, session: str, message: str | None = None, *, dry_run: bool = False) -> Edit:
        """Take a session out, in a commit of its own; older snapshots keep it.

        `restore` brings it back from the snapshot before, `erase` removes it for good. Of splits
        that name it nothing is changed.

        Raises
        ------
        NotFoundError
            With the nearest id there is.
        """
        from neurostore.store import _delete

        return _delete.run(self, session, message, dry_run)

    def rename_subject(
        self, old: str, new: str, message: str | None = None, *, dry_run: bool = False
    ) -> Edit:
        """Give a subject another name in all sessions that have it; no table is copied."""
        from neurostore.store import _rename

        return _rename.run_subject(self, old, new, message, dry_run)

    def merge(
        self, into: str, other: str, message: str | None = None, *, dry_run: bool = False
    ) -> Edit:
        """Merge a session into another one, in a commit of its own; see `Transaction.merge`.

        The bytes are those that the tables to write take in the sessions as they are.
        """
        from neurostore.store import _merge

        return _merge.run(self, _merge.plan(self, into, other), message, dry_run)

    def lineage(self, session: str, table: str | None = None) -> Lineage | list[Lineage]:
        """How a table of a session was made, or every one of them, by name.

        It is kept with the session: the history is not asked, and may be expired.
        """
        from neurostore.store import _lineage

        found = self.session(session)
        if table is not None:
            return _lineage.of(found.attrs, table)
        return [_lineage.of(found.attrs, name) for name in found.tables]

    def du(self) -> Space:
        """Where the bytes of a local repository go: by session and table, history, the rest."""
        from neurostore.store.space import measure

        return measure(self)

    def pin(self) -> Store:
        """The store at the snapshot it shows now, for good; read only."""
        return Store(
            self._form,
            self.snapshot,
            pinned=True,
            catalogue=self._catalogue,
            allow_damaged=self.allow_damaged,
        )

    def refresh(self) -> Store:
        """Move on to the newest snapshot; gives the store itself."""
        if not self.pinned:
            self._see(self._form.head())
        return self

    def transaction(self, message: str, *, codecs: str = "default") -> Transaction:
        """A transaction: all that is put, updated and deleted in it is committed at once.

        Parameters
        ----------
        codecs : {"default", "interop"}
            How arrays are written; ``"interop"`` for readers without PCodec.
        """
        if self.pinned:
            raise UsageError(
                f"This store is opened at {self.snapshot} and cannot be written. "
                f"Open it without a snapshot: neurostore.open({self.url!r})."
            )
        if self.allow_damaged:
            raise UsageError(
                "A store that is read around its damage cannot be written. Mend it first "
                "(neurostore verify says how), or open it without allow_damaged."
            )
        if not message.strip():
            raise UsageError("A transaction needs a message: what changed, and why.")
        from neurostore.store.transaction import Transaction

        return Transaction(self, message, codecs)

    def publish(
        self,
        target: str | Path,
        storage_options: Mapping[str, Any] | None = None,
        *,
        title: str = "",
        licence: str = "",
        citation: str = "",
        cards: Iterable[str | Path] = (),
        files: Mapping[str, bytes] | None = None,
        dry_run: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Published:
        """Write this snapshot as a release: a plain Zarr v3 tree with manifests, read by `open`.

        A publish that was stopped goes on where it was, and ends in the same bytes. All that is
        written is read back. Published again to the same place, what is damaged there is mended;
        title, licence, citation, cards and further files stay where they are not given anew.

        Parameters
        ----------
        target : str or Path
            An empty place: a folder, a bucket, or any fsspec URL that can be written.
        storage_options : mapping, optional
            As fsspec takes them.
        title, licence, citation : str
            What the release says of itself, before what the cards say of each dataset.
        cards : iterable of paths
            Cards of the datasets, ``<dataset>.toml`` each, instead of those of the package.
        files : mapping, optional
            Further files by path, whose digests the catalogue keeps, beside ``croissant.json``,
            ``ro-crate-metadata.json``, what they speak of, and the cards.
        dry_run : bool
            Say how much would be written, and write nothing.
        progress : callable, optional
            Called with the bytes that are done and those there are in all.

        Raises
        ------
        UsageError
            Where something else is there, the release of another snapshot among it.
        DamagedError
            Where the store is not what was written.
        StoreError
            Where the target cannot be written, or reads otherwise than it was written.
        """
        from neurostore.store.release import publish

        return publish(
            self,
            str(target),
            storage_options,
            title=title,
            licence=licence,
            citation=citation,
            cards=cards,
            files=files,
            dry_run=dry_run,
            progress=progress,
        )

    def verify(
        self,
        sample: float = 1.0,
        *,
        seed: int = 0,
        alone: bool = False,
        resume: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Report:
        """Hold this snapshot and its history against their checksums; see `neurostore.verify`."""
        from neurostore.store._verify import verify_form

        # Opened anew: what an engine holds hides damage.
        form = open_form(self._form.place, self._form.branch)
        return verify_form(form, self.snapshot, sample, seed, alone, resume, progress)

    def migrate(self, to: Sequence[str] = (), *, dry_run: bool = False) -> list[Migrated]:
        """Bring tables to newer versions of their contracts by one new commit.

        Parameters
        ----------
        to : sequence of str
            ``"electrodes/v2"``; the newest ones to which a migration leads without it.
        dry_run : bool
            Make and check every table, and write nothing.

        Raises
        ------
        NotFoundError, UsageError, RefusedError
        """
        from neurostore.store._migrate import migrate_store

        return migrate_store(self, to, dry_run=dry_run)

    # ---- upkeep

    def gc(self, *, older_than: timedelta | None = None, dry_run: bool = False) -> Collected:
        """Remove what no snapshot reaches: of dropped transactions, killed writers, lost history.

        What an open transaction has written stays: its lease is younger.

        Parameters
        ----------
        older_than : timedelta, optional
            The grace period; files that are younger stay. 7 days by default.
        dry_run : bool
            Count, and remove nothing.

        Returns
        -------
        Collected
            Files by kind, bytes, and the leases that hold back more.
        """
        from neurostore.store import _gc

        versions = _gc.engine(self._versions, "gc")
        grace = _gc.GRACE if older_than is None else older_than
        return _gc.collect(versions, grace, dry_run=dry_run)

    def expire(
        self, *, before: datetime | None = None, keep: int | None = None, dry_run: bool = False
    ) -> Expired:
        """Take old commits out of the history; tagged snapshots and the newest one stay.

        What sessions, splits and stimuli hold now is not touched, nor is their lineage. `gc` then
        frees the bytes that only those commits reached.

        Parameters
        ----------
        before : datetime, optional
            With a time zone; what was committed before it goes.
        keep : int, optional
            How many of the newest commits stay, instead of a date.
        dry_run : bool
            Say what would go, and change nothing.

        Returns
        -------
        Expired
            The commits, and how many files and bytes nothing reaches any more.
        """
        from neurostore.store import _expiry, _gc

        versions = _gc.engine(self._versions, "expire")
        return _expiry.expire(versions, before, keep, dry_run=dry_run)

    def erase(self, session: str, *, with_splits: bool = False, dry_run: bool = False) -> Erased:
        """Remove a session for good, from every snapshot, and prove that it is gone.

        All history goes but the newest commit and the tags whose snapshots neither hold nor name
        the session; other tags are deleted. Local caches are cleared, and every file of the
        repository is searched for its names and its chunks. Copies elsewhere are not known of:
        releases, bundles, clones, backups.

        Parameters
        ----------
        with_splits : bool
            Delete the versions of splits that name it; the newest gets a next version without it.
        dry_run : bool
            Say what would be lost, and change nothing.

        Returns
        -------
        Erased
            With what was searched, and where something of it is still found.

        Raises
        ------
        NotFoundError
            Where no snapshot holds it.
        UsageError
            Where a split, a branch or another session names it, or the store is not local.
        StoreError
            Where transactions of others are open.
        """
        from neurostore.store import _erase

        return _erase.erase(self, session, with_splits=with_splits, dry_run=dry_run)

    @property
    def expiries(self) -> list[dict[str, Any]]:
        """Who has let which part of the history go, and when; empty where all of it is there."""
        from neurostore.store import _expiry
        from neurostore.store._beside import beside
        from neurostore.store._versions import IcechunkVersions

        if not isinstance(self._versions, IcechunkVersions):
            return []  # a release has no history to lose
        return _expiry.expiries(beside(self._form.place))

    def _older_tags(self) -> dict[str, Commit]:
        """Tags of snapshots from before the history of this one begins, newest first."""
        from neurostore.store import _expiry, _gc

        return _expiry.older_tags(_gc.engine(self._versions, "expire"), self.log())

    def validate(self, ids: Iterable[str] | None = None) -> dict[str, list[Finding]]:
        """Every table of the sessions through both gates; splits and stimuli too without `ids`.

        Reads all values, and holds every table's content against the digest in its session's row.
        Damage is a finding too (``store/damage``), so that one bad chunk hides no other.
        """
        from neurostore.store import _validated

        wanted = self.ids if ids is None else list(ids)
        shared = {} if ids is not None else self.validate_splits() | self.validate_stimuli()
        return {id: _validated.findings(self.session(id)) for id in wanted} | shared

    def validate_splits(self) -> dict[str, list[Finding]]:
        """The rows of every version of every split through both gates, by path."""
        return {one["id"]: _splits.validate(self.zarr, one) for one in self.split_rows}

    def validate_stimuli(self) -> dict[str, list[Finding]]:
        """Every stimulus and every embedding through both gates, by path."""
        return {one["id"]: _stimuli.validate(self.zarr, one) for one in self.stimulus_rows}


def _reopen(
    place: Place, snapshot: str, pinned: bool, branch: str = _MAIN, allow_damaged: bool = False
) -> Store:
    form = open_form(place, branch)
    return Store(form, snapshot, pinned=pinned, allow_damaged=allow_damaged)


def _check_new(what: str, name: str) -> None:
    """Raise where a name is none, or would hide a date or a snapshot that is asked for."""
    _check_name(what, name)
    reads = "date" if _when.is_date(name) else "snapshot id" if _when.is_snapshot(name) else ""
    if reads:
        raise UsageError(
            f"{name!r} reads as a {reads}, which a {what} of that name would hide. Give it another "
            f"name: 'v1', 'of-{name.lower()}'."
        )


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name) or (what, name) == ("tag", _MAIN):
        raise UsageError(
            f"A {what} is named in letters, digits, dots and dashes, and not 'main'; found "
            f"{name!r}."
        )
