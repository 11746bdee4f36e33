"""`Transaction`: puts, updates and deletes that become one snapshot, or none."""

from __future__ import annotations

import getpass
import os
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace as replaced
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from zarr.core.sync import sync

import neurostore
from neurostore.clocks import Clock, exact
from neurostore.errors import ConflictError, NotFoundError, UsageError
from neurostore.schemas import JSON, Finding, Table
from neurostore.splits import Split
from neurostore.store import _catalogue, _presented, _splits, _stimuli, layout
from neurostore.store._format import session_path, table_path
from neurostore.store.builder import SessionBuilder, Staged, check, check_tables, refuse
from neurostore.store.stimulus import Stimulus

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

    from neurostore.store.store import Store


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
        self._newest: dict[str, tuple[int, str]] = {}
        self._over = ""
        self.snapshot = self._began

    def __enter__(self) -> Transaction:
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

    def update(self, session: str, table: Table) -> None:
        """Add or replace one table of a session.

        Links are checked over all updates of the transaction, when it commits.

        Parameters
        ----------
        session : str
            Its id.
        table : Table
            Made by a function of `neurostore.tables` on the session's own `span`:
            ``tables.behaviour("pupil", value, session.span, time=seconds, units="mm")``.
        """
        if not isinstance(table, Table):
            raise UsageError(
                f"update takes a Table made by neurostore.tables, found {type(table).__name__}: "
                "tables.behaviour(name, value, session.span, time=..., units=...)."
            )
        if self._touch(session, session_path(session)) is None:
            known = [str(row["id"]) for row in self._store.rows]
            raise NotFoundError("session", session, known, self._store.url)
        self._updates.setdefault(session, {})[table.name] = table

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
        """Take a session out of the next snapshot; older ones keep it."""
        path = session_path(session)
        if self._touch(session, path) is None:
            known = [str(row["id"]) for row in self._store.rows]
            raise NotFoundError("session", session, known, self._store.url)
        sync(self._draft.below(path).delete_dir(path))
        self._rows[session] = None
        self._updates.pop(session, None)
        self._changes[session] = "delete"

    # ---- writing

    def _put_split(self, split: Split, replace: bool) -> Split:
        self._refuse_over()
        if replace:
            raise UsageError("A split is never replaced: put makes the next version of its name.")
        for id in split.sessions:
            self._refuse_other_session(split, id)
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
        for one in new[1:]:  # before the first is written: all of it, or nothing
            check(one)
        return [finding for one in new for finding in self.put(one)]

    def _refuse_other_session(self, split: Split, id: str) -> None:
        """Raise where the store has no such session, or one of another clock."""
        attrs = _catalogue.read_attrs(self._draft.store, session_path(id))
        if attrs is None:
            where = f"{self._store.url}, though split {split.name!r} names it"
            known = [str(row["id"]) for row in self._store.rows if row["id"] != id]
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
                raise self._conflict(id, _row_at(self._draft.store, path), self._draft.base)
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
        rest["findings"] = [
            *(one for one in rest["findings"] if one["table"] not in updates),
            *(one.to_json() for one in findings),
        ]
        lineage = {"made_by": "update", "transaction": self._id}
        rest["lineage"] = {**rest["lineage"], **dict.fromkeys(updates, lineage)}
        self._write_row(writer, path, rest, entries)
        self._changes.setdefault(id, "update")

    # ---- committing

    def _commit(self) -> None:
        self._refuse_over()
        for id, updates in self._updates.items():
            self._apply(id, updates)
        if not self._changed():
            return
        others = self._store.rows if any(map(_stimuli.is_stimulus, self._changed())) else ()
        _presented.refuse_links(self._draft.store, self._changed(), self._rows, others)
        self.snapshot = self._store._versions.commit(self._draft, self._message, self._check)
        self._store._see(self.snapshot)

    def _check(self, head: str) -> dict[str, Any]:
        """Compare what was touched with the head; gives the metadata of the commit."""
        newest = self._store._versions.read(head)
        for id in self._seen:
            now = _row_at(newest, self._paths[id])
            if _checksum(now) != _checksum(self._seen[id]):
                raise self._conflict(id, now, head)
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
        }

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
            names = _changed_tables(before["tables"], now["tables"])
            what = f"{', '.join(names) or 'the metadata'} of {id!r} was changed"
        who = "another writer"
        for commit in islice(self._store._versions.log(head), 1000):
            if commit.snapshot == self._began:
                break
            if id in commit.changes:
                when = f"{commit.time:%Y-%m-%d %H:%M:%S}"
                who = (
                    f"{commit.author}@{commit.host} in {commit.snapshot} "
                    f"({commit.message!r}, {when})"
                )
                break
        return ConflictError(
            f"{what} by {who} after {self._began}, the snapshot this store shows; two edits of one "
            f"{_kind(id)} conflict. Nothing was written: "
            "store.refresh(), look, and repeat it."
        )


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


def _changed_tables(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    def digest(tables: Mapping[str, Any], name: str) -> object:
        return tables.get(name, {}).get("digest")

    return [n for n in sorted({*before, *now}) if digest(before, n) != digest(now, n)]


def _row_at(store: ZarrStore, path: str) -> Mapping[str, Any] | None:
    attrs = _catalogue.read_attrs(store, path)
    return None if attrs is None else attrs["row"]


def _checksum(row: Mapping[str, Any] | None) -> object:
    return None if row is None else row["checksum"]


def _clock_of(attrs: Mapping[str, Any]) -> Clock:
    said = attrs["clock"]
    return Clock(exact(said["rate"]), said["origin"])


def who() -> dict[str, Any]:
    """Author, host, version and time, as every commit carries them."""
    return {
        "author": os.environ.get("NEUROSTORE_AUTHOR") or getpass.getuser(),
        "host": socket.gethostname(),
        "version": neurostore.__version__,
        "time": datetime.now(UTC).isoformat(timespec="microseconds"),
    }
