"""`Transaction`: puts, updates and deletes that become one snapshot, or none."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace as replaced
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from zarr.core.sync import sync

from neurostore.clocks import Clock, exact
from neurostore.errors import ConflictError, NotFoundError, RefusedError, UsageError
from neurostore.schemas import JSON, Finding, Table
from neurostore.splits import Split
from neurostore.store import (
    _catalogue,
    _lineage,
    _log,
    _merge,
    _presented,
    _rename,
    _restore,
    _splits,
    _stimuli,
    _time_scale,
    _when,
    layout,
)
from neurostore.store._format import check_id, session_path, split_id, table_path
from neurostore.store._relied import CLOCK, FRAMES, Relied
from neurostore.store._who import who as who
from neurostore.store.builder import SessionBuilder, Staged, check, check_tables, refuse
from neurostore.store.stimulus import Stimulus

if TYPE_CHECKING:
    import xarray as xr
    from zarr.abc.store import Store as ZarrStore

    from neurostore.store.store import Store


_logger = logging.getLogger("neurostore")
LINKED = {"units", "spikes"}
"""Tables that others name rows of, or count: with one of them the others are checked again."""


class Transaction:
    """Puts, updates and deletes that are committed together, or not at all.

    Use it as a context manager; an error inside leaves the store as it was. After it, `snapshot`
    is the new snapshot (the old one where nothing was changed).
    """

    def __init__(self, store: Store, message: str, codecs: str) -> None:
        self._store, self._message, self._codecs = store, message, codecs
        self._before, self._began = store.zarr, store.snapshot
        self._draft = store._versions.begin()
        self._id = uuid.uuid4().hex
        self._changes: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        self._seen: dict[str, Mapping[str, Any] | None] = {}
        self._rows: dict[str, Mapping[str, Any] | None] = {}
        self._updates: dict[str, dict[str, Table]] = {}
        self._computed: dict[tuple[str, str], dict[str, Any]] = {}
        self._renamed: dict[str, str] = {}
        self._said = {**who(), "message": message}
        self._newest: dict[str, tuple[int, str]] = {}
        self._inputs: dict[tuple[str, str], list[Relied]] = {}
        self._relied: list[Relied] = []
        self._over = ""
        self.snapshot = self._began

    def __enter__(self) -> Self:
        self._refuse_over()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self._over = self._over or "is over"
            self._draft.end()

    @overload
    def put(
        self, staged: Staged | SessionBuilder | Stimulus, *, replace: bool = False
    ) -> list[Finding]: ...
    @overload
    def put(self, staged: Split) -> Split: ...

    def put(
        self, staged: Staged | SessionBuilder | Stimulus | Split, *, replace: bool = False
    ) -> list[Finding] | Split:
        """Add a session (or whatever else is `Staged`), checked by value before it is written.

        A split becomes the next version of its name, and nothing is written where the newest
        version is equal to it. Of a stimulus what the store does not hold yet is written: itself,
        and each embedding as the next version by its encoder.

        Returns
        -------
        list of Finding
            What was found and is kept with it.
        Split
            Of a split: with the version that it is.

        Raises
        ------
        RefusedError
            With every finding, where one is critical; nothing of it was written.
        NotFoundError
            Where a split names a session that is not in the store.
        UsageError
            Where there is one of this id and `replace` is not said.
        """
        if isinstance(staged, Split):
            return self._put_split(staged, replace)
        if isinstance(staged, Stimulus):
            return self._put_stimulus(staged, replace)
        made: Staged = staged.build() if isinstance(staged, SessionBuilder) else staged
        if not hasattr(made, "tables") or not hasattr(made, "path"):
            raise UsageError(
                f"put takes a SessionBuilder, a Split or a Stimulus, found {type(staged).__name__}."
            )
        path = made.path
        if not made.id.startswith("/"):  # a session; splits and stimuli have rules of their own
            check_id(*split_id(made.id))
        before = self._touch(made.id, path)
        if before is not None and not replace:
            raise UsageError(
                f"{made.id} is in the store already. Put it with replace=True, update one of its "
                "tables, or give it another name."
            )
        findings = check(made)
        writer = self._draft.below(path)
        if before is not None:
            sync(writer.delete_dir(path))
        try:
            lineage = {name: self._lineage(made.attrs) for name in made.tables}
            entries = self._write_tables(writer, path, made.tables, made.clock)
            attrs = dict(made.attrs) | {
                "findings": [one.to_json() for one in findings],
                "lineage": lineage,
            }
            self._write_row(writer, path, attrs, entries)
        except BaseException:
            self._undo(writer, path, made.id, before)
            raise
        self._updates.pop(made.id, None)
        self._changes[made.id] = "put"
        return findings

    def read(self, session: str, table: str) -> xr.Dataset:
        """A table that this transaction computes from, as ``store.session(session)[table]``.

        Where somebody changes it before the commit, the commit is a conflict that names it.
        """
        self._refuse_over()
        found = self._store.session(session)[table]
        self._relied.append(Relied.of(self._before, session, table, "this transaction read it"))
        return found

    def update(
        self,
        session: str,
        table: Table,
        *,
        function: str | Callable[..., object] | None = None,
        parameters: Mapping[str, JSON] | None = None,
        inputs: Iterable[str | tuple[str, str]] = (),
        fit: tuple[float, float] | None = None,
        code: str = "",
    ) -> None:
        """Add or replace one table of a session.

        Links are checked over all updates of the transaction, when it commits.

        Parameters
        ----------
        session : str
            Its id.
        table : Table
            Made by a function of `neurostore.tables` on the session's own `span`:
            ``tables.behaviour("pupil", value, session.span, time=seconds, units="mm")``.
        function : str or callable, optional
            What computed it, ``"package.module:name"``; kept with the session (`Store.lineage`).
        parameters : mapping, optional
            Of the function, as JSON.
        inputs : iterable of str or (session, table), optional
            What it was computed from: names of the session's own tables, or tables of others; kept
            by their digests. Where one is changed before the commit, the commit is a conflict that
            names it.
        fit : (start, stop) seconds, optional
            Of the interval that parameters were fitted on.
        code : str, optional
            Version of the function's code.

        Raises
        ------
        NotFoundError
            Where there is no such session, or an input that is not there.
        """
        if not isinstance(table, Table):
            raise UsageError(
                f"update takes a Table made by neurostore.tables, found {type(table).__name__}: "
                "tables.behaviour(name, value, session.span, time=..., units=...)."
            )
        if self._touch(session, session_path(session)) is None:
            known = self._store.ids
            raise NotFoundError("session", session, known, self._store.url)
        named = [(session, one) if isinstance(one, str) else one for one in inputs]
        own = [name for id, name in named if id == session]
        said = _lineage.computed(function, parameters, own, fit, code)
        relied = [self._input(table.name, session, *one) for one in named if one[0] != session]
        self._relied += relied
        self._inputs[session, table.name] = relied
        self._updates.setdefault(session, {})[table.name] = table
        self._computed[session, table.name] = said

    def copy(self, id: str, path: str, write: Callable[[ZarrStore], Mapping[str, Any]]) -> None:
        """Put what `write` writes as it is, below `path`, and whose row it gives.

        Raises
        ------
        UsageError
            Where there is one of this id.
        """
        if self._touch(id, path) is not None:
            raise UsageError(f"{id} is in the store already.")
        try:
            self._rows[id] = write(self._draft.below(path))
        except BaseException:
            self._over = "failed half-way through a write"
            raise
        self._changes[id] = "put"

    def delete(self, session: str) -> None:
        """Take a session out of the next snapshot; older ones keep it.

        ``delete("/stimuli/<name>")`` takes out a stimulus and its embeddings, where no session
        presents it: else the commit is refused.
        """
        if _stimuli.is_stimulus(session):
            self._delete_stimulus(session)
        else:
            self._take_out(session, session_path(session), "delete")

    def _take_out(self, id: str, path: str, what: str) -> None:
        if self._touch(id, path) is None:
            known = self._store.ids
            raise NotFoundError("session", id, known, self._store.url)
        sync(self._draft.below(path).delete_dir(path))
        self._rows[id] = None
        self._updates.pop(id, None)
        self._changes[id] = what

    def restore(self, ref: str, session: str, tables: Sequence[str] = ()) -> None:
        """Bring a session, or some of its tables, back as it was at a tag, snapshot or date.

        Stored bytes are copied as they are, so that digests are the same.

        Raises
        ------
        NotFoundError
            Where there was no such session or table.
        RefusedError
            Where a table would not fit the session as it is now.
        """
        then = self._store.at(ref)
        _restore.restore(self, then, _restore.steps(self._store, then, session, tables))

    def rename(self, old: str, new: str, *, with_splits: bool = False) -> None:
        """Give a session another id; its tables are copied as they are stored.

        Parameters
        ----------
        with_splits : bool
            Make a next version, with the new id, of each split whose newest version names the old.

        Raises
        ------
        NotFoundError, UsageError
            Where there is no such session, or the new id is taken.
        RefusedError
            Where splits name it, and `with_splits` is not said.
        """
        _rename.rename(self, _rename.plan(self._store, old, new, with_splits))

    def rename_subject(self, old: str, new: str) -> None:
        """Give a subject another name in all sessions that have it."""
        _rename.rename_subject(self, old, new)

    def merge(self, into: str, other: str) -> None:
        """Merge a session into another one of the same clock.

        Units and electrodes stand side by side, spikes in order of time, and each unit keeps the
        time in which it was observed. A table that only `other` has is copied as it is stored.

        Raises
        ------
        NotFoundError
            Where one of them is not there.
        RefusedError
            Where clocks or subjects differ, ids of units clash, both have another table of one
            name, or a split names `other`.
        """
        _merge.merge(self, _merge.plan(self._store, into, other))

    # ---- writing

    def _input(self, name: str, of: str, session: str, table: str) -> Relied:
        known = self._store.session(session).tables  # raises where there is no such session
        if table not in known:
            raise NotFoundError("table", table, known, session)
        return Relied.of(self._before, session, table, f"{name!r} of {of!r} was made from it")

    def _delete_stimulus(self, id: str) -> None:
        self._refuse_over()
        mine = [one["id"] for one in _stimuli.read_all(self._draft.store, None)]
        if id not in mine or id.count("/") != 2:
            known = [one for one in mine if one.count("/") == 2]
            raise NotFoundError("stimulus", id, known, self._store.url)
        for one in mine:
            if one == id or one.startswith(f"{id}/"):
                self._touch(one, one[1:])
                self._changes[one], self._rows[one] = "delete", None
        sync(self._draft.below(id[1:]).delete_dir(id[1:]))

    def _put_split(self, split: Split, replace: bool) -> Split:
        self._refuse_over()
        if replace:
            raise UsageError("A split is never replaced: put makes the next version of its name.")
        for id in split.sessions:
            self._refuse_other_session(split, id)
            why = f"split {split.name!r} names it"
            self._relied.append(Relied.of(self._draft.store, id, CLOCK, why))
        stored = _splits.newest(self._store.split_rows, split.name)
        version, digest = self._newest.get(split.name, stored)
        if digest != split.digest:
            version += 1
            self.put(_splits.StagedSplit(split, version))
            self._newest[split.name] = (version, split.digest)
        return replaced(split, version=version)

    def _put_stimulus(self, stimulus: Stimulus, replace: bool) -> list[Finding]:
        self._refuse_over()
        if replace:
            raise UsageError("A stimulus is never replaced: give the other one another name.")
        new = _stimuli.stage(self._draft.store, stimulus, self._store.url)
        id = f"/{_stimuli.path_of(stimulus.name)}"
        if id not in {one.id for one in new}:
            why = "this transaction adds embeddings to it"
            self._relied.append(Relied.of(self._draft.store, id, FRAMES, why))
        for one in new[1:]:  # before the first is written: all of it, or nothing
            check(one)
        return [finding for one in new for finding in self.put(one)]

    def _refuse_other_session(self, split: Split, id: str) -> None:
        """Raise where the store has no such session, or one of another clock."""
        attrs = _catalogue.read_attrs(self._draft.store, session_path(id))
        if attrs is None:
            where = f"{self._store.url}, though split {split.name!r} names it"
            known = [one for one in self._store.ids if one != id]
            raise NotFoundError("session", id, known, where)
        there, said = _clock_of(attrs).rate, split.rate(id)
        if said not in (None, there):
            raise UsageError(
                f"Split {split.name!r} counts {float(said or 0):g} ticks a second of {id}, the "
                f"store {float(there):g}. Make it on store.session({id!r}).timeline()."
            )

    def _touch(self, id: str, path: str) -> Mapping[str, Any] | None:
        """The row of `id` in the draft; remembers what it was when the transaction began."""
        self._refuse_over()
        if id not in self._seen:
            self._paths[id] = path
            self._seen[id] = _row_at(self._before, path)
            self._rows[id] = self._seen[id]
            if _checksum(_row_at(self._draft.store, path)) != _checksum(self._seen[id]):
                error = self._conflict(id, _row_at(self._draft.store, path), self._draft.base)
                del self._seen[id]  # touched again, it conflicts again
                raise error
        return self._rows[id]

    def _refuse_over(self) -> None:
        if self._over:
            raise UsageError(f"This transaction {self._over}; begin another one.")

    def _write_tables(
        self, writer: ZarrStore, path: str, tables: Mapping[str, Table], clock: Clock
    ) -> dict[str, Any]:
        return {
            name: {
                **layout.write_table(writer, path, table, self._codecs),
                **_catalogue.summary(table, clock),
            }
            for name, table in tables.items()
        }

    def _write_row(
        self, writer: ZarrStore, path: str, attrs: Mapping[str, Any], entries: Mapping[str, Any]
    ) -> None:
        if "lineage" in attrs and (said := _lineage.transactions(attrs, self._id, self._said)):
            attrs = {**attrs, "transactions": said}
        row = _catalogue.make_row(attrs, entries, self._id)
        layout.put_group(writer, path, {**attrs, "row": row})
        self._rows[str(attrs["id"])] = row

    def _undo(
        self, writer: ZarrStore, path: str, id: str, before: Mapping[str, Any] | None
    ) -> None:
        if before is None:
            sync(writer.delete_dir(path))
            self._rows[id] = None
        else:
            self._over = "failed half-way through a write"

    def _lineage(self, attrs: Mapping[str, Any]) -> dict[str, JSON]:
        source = attrs.get("source")
        made_by = "builder" if source is None else f"{source['reader']}/{source['version']}"
        return {"made_by": made_by, "transaction": self._id}

    def _made(self, id: str, name: str, entries: Mapping[str, Any]) -> dict[str, JSON]:
        """The lineage of an updated table, with its inputs by their digests."""
        said = _lineage.with_digests(self._computed[id, name], id, entries)
        others = {f"{one.id}:{one.part}": str(one.found) for one in self._inputs[id, name]}
        if others:
            said["inputs"] = {**said.get("inputs", {}), **others}
        return {"made_by": "update", "transaction": self._id, **said}

    def _apply(self, id: str, updates: Mapping[str, Table]) -> None:
        path = session_path(id)
        attrs = _catalogue.read_attrs(self._draft.store, path)
        row = self._rows[id]
        if attrs is None or row is None:
            raise NotFoundError("session", id, [])
        rest = dict(attrs)
        rest.pop("row")
        clock, entries = _clock_of(rest), dict(row["tables"])
        _refuse_other_clocks(id, clock, updates)
        stored = {
            name: layout.read_table(self._draft.store, path, name, entries[name])
            for name in entries.keys() - updates.keys()
            if name in LINKED or "unit" in entries[name]["arrays"]
        }
        again = stored if updates.keys() & LINKED else ()
        findings = check_tables({**stored, **updates}, [*updates, *again])
        findings += [one for table in updates.values() for one in table.findings]
        refuse(id, findings)
        writer = self._draft.below(path)
        for name in updates.keys() & entries.keys():
            sync(writer.delete_dir(f"{path}/{table_path(name)}"))
        entries |= self._write_tables(writer, path, updates, clock)
        looked = {name: entries[name] for name in {"spikes", *updates} & entries.keys()}
        extents = {name: one["extent"] for name, one in looked.items() if "extent" in one}
        findings += _time_scale.apart(id, extents, clock)
        for one in findings:
            _logger.warning("Kept with %s: %s", id, one)
        rest["findings"] = [
            *(one for one in rest["findings"] if one["table"] not in updates),
            *(one.to_json() for one in findings),
        ]
        rest["lineage"] = {
            **rest["lineage"],
            **{name: self._made(id, name, entries) for name in updates},
        }
        self._write_row(writer, path, rest, entries)
        self._changes.setdefault(id, "update")

    # ---- committing

    def _commit(self) -> None:
        self._refuse_over()
        for id, updates in self._updates.items():
            self._apply(id, updates)
        if not self._changed():
            return
        changed = {id: self._rows[id] for id in self._changed()}
        others = self._store.rows if any(map(_stimuli.is_stimulus, changed)) else ()
        for _, _, finding in _presented.found_broken(self._draft_at, changed, others):
            raise RefusedError(
                f"{finding.message}. Mend the presentations, or the stimulus.", [finding]
            )
        mine = [row for row in changed.values() if row is not None and "session" in row]
        for id in _presented.stimuli_of(self._draft_at, mine) - self._seen.keys():
            why = "this transaction presents it"
            self._relied.append(Relied.of(self._before, id, FRAMES, why))
        self.snapshot = self._store._versions.commit(self._draft, self._message, self._check)
        self._store._see(self.snapshot)

    def _check(self, head: str) -> dict[str, Any]:
        """Compare what was touched with the head; gives the metadata of the commit."""
        newest = self._store._versions.read(head)
        for id in self._seen:
            now = _row_at(newest, self._paths[id])
            if _checksum(now) != _checksum(self._seen[id]):
                raise self._conflict(id, now, head)
        self._refuse_others(newest, head)
        about = self._store._versions.about(head).metadata
        sessions = [id for id in self._changed() if not id.startswith("/")]
        splits = [id for id in self._changed() if _splits.is_split(id)]
        stimuli = [id for id in self._changed() if _stimuli.is_stimulus(id)]
        split_total = _splits.total_at(newest, about.get("split_catalogue"))
        stimulus_total = _stimuli.total_at(newest, about.get("stimulus_catalogue"))
        return {
            **who(),
            "transaction": self._id,
            "sessions": {id: self._changes[id] for id in sessions},
            "splits": {id: self._changes[id] for id in splits},
            "stimuli": {id: self._changes[id] for id in stimuli},
            "catalogue": self._added(_catalogue.Total(about.get("catalogue")), sessions),
            "split_catalogue": self._added(split_total, splits),
            "stimulus_catalogue": self._added(stimulus_total, stimuli),
            "parents": self._parents(),
            "renamed": self._renamed,
            **_log.about(self._seen, self._rows, sessions),
        }

    def _draft_at(self, path: str) -> ZarrStore:
        return self._draft.store

    def _refuse_others(self, newest: ZarrStore, head: str) -> None:
        """Raise where what was relied on, or links either way, do not hold with the head."""
        for one in self._relied:
            own = one.id in self._changes
            if own and one.part not in (CLOCK, FRAMES):
                continue  # read, and then written
            what = one.changed(self._draft.store if own else newest)
            if what is not None and own:
                raise UsageError(f"{what} by this transaction, though {one.why}.")
            if what is not None:
                raise self._stale(f"{what} by {self._who(one.id, head)}, though {one.why}")
        if head == self._began:
            return
        changed = {id: self._rows[id] for id in self._changed()}
        paths = {self._paths[id] for id in changed}
        about = self._store._versions.about(head).metadata
        new = any(map(_stimuli.is_stimulus, changed))
        others = _catalogue.read_all(newest, about["catalogue"]) if new else []
        rows = [one["row"] for one in others]

        def at(path: str) -> ZarrStore:
            return self._draft.store if path in paths else newest

        for session, stimulus, finding in _presented.found_broken(at, changed, rows):
            other = stimulus if session in changed else session
            raise self._stale(f"{finding.message}; {other!r} is by {self._who(other, head)}")
        gone = [id for id in changed if _stimuli.is_stimulus(id) and self._rows[id] is None]
        for attrs in _stimuli.read_all(newest, about.get("stimulus_catalogue")) if gone else ():
            id = str(attrs["id"])
            if id not in self._seen and id.startswith(tuple(f"{one}/" for one in gone)):
                who = self._who(id, head)
                raise self._stale(f"{id!r} was added by {who} to a stimulus deleted here")

    def _stale(self, what: str) -> ConflictError:
        return ConflictError(
            f"{what}, after {self._began}, the snapshot this store shows. Nothing was written: "
            "store.refresh(), look, and repeat it."
        )

    def _added(self, total: _catalogue.Total, changed: list[str]) -> dict[str, JSON]:
        """The total after what was changed, for the metadata of the commit."""
        total = total.plus((self._seen[id] for id in changed), -1)
        return total.plus(self._rows[id] for id in changed).to_json()

    def _changed(self) -> list[str]:
        """What is another one than when the transaction began."""
        return [id for id in self._changes if self._seen[id] is not self._rows[id]]

    def _parents(self) -> list[str]:
        """The groups above what was written, outermost first."""
        kept = [self._paths[id].split("/")[:-1] for id in self._changes if self._rows[id]]
        return sorted({"/".join(parts[: k + 1]) for parts in kept for k in range(len(parts))})

    def _conflict(self, id: str, now: Mapping[str, Any] | None, head: str) -> ConflictError:
        before = self._seen[id]
        if now is None:
            what = f"{id!r} was deleted"
        elif before is None:
            what = f"{id!r} was added"
        else:
            names = _log.changed_tables(before["tables"], now["tables"])
            what = f"{', '.join(names) or 'the metadata'} of {id!r} was changed"
        return ConflictError(
            f"{what} by {self._who(id, head)} after {self._began}, the snapshot this store shows; "
            f"two edits of one {_kind(id)} conflict. Nothing was written: "
            "store.refresh(), look, and repeat it."
        )

    def _who(self, id: str, head: str) -> str:
        """Who changed something meanwhile, with the commit."""
        for commit in islice(self._store._versions.log(head), 1000):
            if commit.snapshot == self._began:
                break
            if id in commit.changes:
                who, when = f"{commit.author}@{commit.host}", _when.shown(commit.time)
                return f"{who} in {commit.snapshot} ({commit.message!r}, {when})"
        return "another writer"


def _kind(id: str) -> str:
    if _stimuli.is_stimulus(id):
        return "stimulus"
    return "split" if _splits.is_split(id) else "session"


def _refuse_other_clocks(id: str, clock: Clock, updates: Mapping[str, Table]) -> None:
    for name, table in updates.items():
        if table.clock is not None and table.clock.rate != clock.rate:
            raise UsageError(
                f"{name} counts {float(table.clock.rate):g} ticks a second, {id} "
                f"{float(clock.rate):g}. Make it on the span of the session: session.span."
            )


def _row_at(store: ZarrStore, path: str) -> Mapping[str, Any] | None:
    attrs = _catalogue.read_attrs(store, path)
    return None if attrs is None else attrs["row"]


def _checksum(row: Mapping[str, Any] | None) -> object:
    return None if row is None else row["checksum"]


def _clock_of(attrs: Mapping[str, Any]) -> Clock:
    said = attrs["clock"]
    return Clock(exact(said["rate"]), said["origin"])
