"""What is lost by a fault, where it still lies whole, and which command brings it back."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from neurostore.errors import counted
from neurostore.store import _log, _when
from neurostore.store._damage import RELEASE_WAY_OUT
from neurostore.store._faults import Fault
from neurostore.store._verify._past import Past
from neurostore.store._verify._plan import Plan, Written
from neurostore.store._verify._source import ReadFrom

if TYPE_CHECKING:
    from neurostore.store._versions import Commit

_TRIED = 3
"""Older versions of a table that are looked at whole, where a sampled run did not do so."""


_LINKED = {"unit", "electrode"}
"""Columns by which the tables of a session hang together: such a table comes back with them all."""


def restore(url: str, id: str, ref: str, table: str | None) -> str:
    """The command that brings a session back, or one table of it."""
    more = [] if table is None else ["--table", table]
    return f"neurostore restore {shlex.join([url, ref, '--session', id, *more])}"


class Advice:
    """Finds for a fault of a table the version of it that is still whole.

    Parameters
    ----------
    broken : mapping
        Keys of the tables of the plan that are damaged.
    whole : callable
        Whether all of a table is what was written; reads it where that is not known.
    past : Past or None
        What speaks of damage in history alone; None of a release, which has none.
    newest : str
        How it is with the newest snapshot, in words.
    """

    def __init__(
        self,
        url: str,
        plan: Plan,
        commits: Sequence[Commit],
        broken: Mapping[str, object],
        whole: Callable[[Written], bool],
        past: Past | None,
        newest: str,
    ) -> None:
        self._url, self._broken, self._whole = url, broken, whole
        self._past, self._newest = past, newest
        self._commits = {one.snapshot: one for one in commits}
        self._written = list(plan.written.values())
        self._said: dict[tuple[str, str, str], str] = {}
        self._fault = cache(ReadFrom.fault)  # which reads the whole source

    def of(self, written: Written) -> str:
        """What is lost with a table, and what brings it back."""
        key = (written.thing, written.table, written.key)
        if key not in self._said:
            self._said[key] = f"{self._lost(written)} {self._way_out(written)}"
        return self._said[key]

    def at(self, fault: Fault) -> str:
        """What helps with a fault of a thing whose tables could not be asked for."""
        if self._past is None:
            return RELEASE_WAY_OUT
        id, _, ref = fault.path.partition(" at ")
        if ref in self._commits and self._past.alone_shows([ref]):
            return f"In {self._past.names([ref])}. {self._past.way_out([ref], self._newest)}"
        if fault.path.split(" ")[0] in ("branch", "snapshot", "tag") or "/" not in fault.path:
            newest = self._latest(self._commits)
            if newest is None:
                return "Bring the store back from a copy."
            command = f"neurostore sessions {shlex.join([self._url, '--at', newest])}"
            return f"{self._ref(newest)} can be read: {command}"
        others = [one for one in self._written if one.thing == id]
        refs = {ref for one in others if one.key not in self._broken for ref in one.snapshots}
        newest = self._latest(refs)
        if newest is None:
            return "Bring the store back from a copy."
        command = f"neurostore clone {shlex.quote(f'{self._url}@{newest}')} FOLDER"
        return f"{self._ref(newest)} shows it. Go on with a copy from there: {command}"

    def _latest(self, refs: Iterable[str]) -> str | None:
        known = [ref for ref in refs if ref in self._commits]
        return max(known, key=lambda ref: self._commits[ref].time, default=None)

    def _lost(self, written: Written) -> str:
        shown = counted(len(written.snapshots), "snapshot")
        said = f"{written.table} of {written.thing} ({counted(written.rows, 'row')}) in {shown}"
        if self._past is not None and self._past.alone_shows(written.snapshots):
            return f"{said}: {self._past.names(written.snapshots)}."
        return f"{said}."

    def _way_out(self, written: Written) -> str:
        if self._past is None:
            return RELEASE_WAY_OUT
        whole = [one for one in self._others(written)[:_TRIED] if self._whole(one)]
        if self._past.alone_shows(written.snapshots):
            alike = [one for one in whole if one.digest == written.digest][:1]
            there = [f"{self._is(one, one.snapshots[0], written)}. " for one in alike]
            return f"{''.join(there)}{self._past.way_out(written.snapshots, self._newest)}"
        elsewhere = ""
        for one in whole:
            ref, same = one.snapshots[0], one.digest == written.digest
            alone = same or not _LINKED & {part.column for part in one.parts}
            if not alone and not self._whole_session(one.thing, ref):
                continue
            what = self._is(one, ref, written)
            what += "" if alone else ", and of what hangs together with it"
            if written.thing.startswith("/") and one.thing == written.thing:
                return f"{what}; open the store there."
            if self._called(written.thing, ref) == one.thing:
                table = written.table if alone else None
                return f"{what}: {restore(self._url, written.thing, ref, table)}"
            elsewhere = elsewhere or what
        return f"{elsewhere or 'No snapshot has it whole'}{self._read_again(written)}"

    def _is(self, one: Written, ref: str, damaged: Written) -> str:
        """In which snapshot another version lies whole, under which name."""
        same = "the same content" if one.digest == damaged.digest else "another version of it"
        name = "" if one.thing == damaged.thing else f", as {one.thing}"
        return f"{self._ref(ref)} has {same} whole{name}"

    def _read_again(self, written: Written) -> str:
        """The command that reads the source again, or what keeps it from bringing this back."""
        source = written.source
        if source is None:
            return ". Bring the store back from a copy."
        if fault := self._fault(source):
            return (
                f", and its source {source.url} {fault}: it is lost, unless there is a copy of the "
                "store or of the source as it was."
            )
        added = f" (not {', '.join(source.added)}, added since)" if source.added else ""
        return (
            f". Read its source again, which replaces the session{added}: "
            f"{source.command(self._url)}; or bring the store back from a copy."
        )

    def _others(self, written: Written) -> list[Written]:
        """Versions that may be whole: of the same content, then of the same name."""
        mine = (written.thing, written.table)
        found = [
            one
            for one in self._written
            if one is not written and one.key not in self._broken and one.table == written.table
            if one.thing == written.thing or one.digest == written.digest
        ]
        return sorted(
            found, key=lambda one: (one.digest != written.digest, (one.thing, one.table) != mine)
        )

    def _called(self, id: str, ref: str) -> str:
        """What a session was called in an older snapshot, as `Store.restore` follows it."""
        if self._past is None or any(
            id == one.thing and ref in one.snapshots for one in self._written
        ):
            return id
        return _log.name_then(self._past.line, ref, id)

    def _whole_session(self, id: str, ref: str) -> bool:
        """Whether all tables of a session are whole in a snapshot."""
        there = [one for one in self._written if one.thing == id and ref in one.snapshots]
        return all(one.key not in self._broken and self._whole(one) for one in there)

    def _ref(self, snapshot: str) -> str:
        commit = self._commits[snapshot]
        tags = f", tag {', '.join(commit.tags)}" if commit.tags else ""
        return f"Snapshot {snapshot} ({_when.shown(commit.time)}{tags})"
