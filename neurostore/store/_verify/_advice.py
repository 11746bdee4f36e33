"""What is lost by a fault, where it still lies whole, and which command brings it back."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from neurostore.errors import counted
from neurostore.store._faults import Fault
from neurostore.store._verify._plan import Plan, Written

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


def ingest(url: str, written: Written) -> str:
    """The command that reads the source of a table again."""
    dataset = written.thing.partition("/")[0]
    said = shlex.join([url, written.source, "--dataset", dataset, "--again"])
    return f"neurostore ingest {said}"


class Advice:
    """Finds for a fault of a table the version of it that is still whole.

    Parameters
    ----------
    broken : mapping
        Keys of the tables of the plan that are damaged.
    whole : callable
        Whether all of a table is what was written; reads it where that is not known.
    """

    def __init__(
        self,
        url: str,
        plan: Plan,
        commits: Sequence[Commit],
        broken: Mapping[str, object],
        whole: Callable[[Written], bool],
    ) -> None:
        self._url, self._broken, self._whole = url, broken, whole
        self._commits = {one.snapshot: one for one in commits}
        self._versions: dict[tuple[str, str], list[Written]] = {}
        for one in plan.written.values():
            self._versions.setdefault((one.thing, one.table), []).append(one)
        self._said: dict[tuple[str, str, str], str] = {}

    def of(self, written: Written) -> str:
        """What is lost with a table, and what brings it back."""
        key = (written.thing, written.table, written.key)
        if key not in self._said:
            self._said[key] = f"{self._lost(written)} {self._way_out(written)}"
        return self._said[key]

    def at(self, fault: Fault) -> str:
        """What helps with a fault of a thing whose tables could not be asked for."""
        if fault.path.split(" ")[0] in ("branch", "snapshot", "tag") or "/" not in fault.path:
            newest = next(iter(self._commits), None)
            if newest is None:
                return "Bring the store back from a copy."
            command = f"neurostore sessions {shlex.join([self._url, '--at', newest])}"
            return f"{self._ref(newest)} can be read: {command}"
        id = fault.path.split(" at ")[0]
        others = [one for (thing, _), made in self._versions.items() if thing == id for one in made]
        refs = {ref for one in others if one.key not in self._broken for ref in one.snapshots}
        newest = next((ref for ref in self._commits if ref in refs), None)
        if newest is None:
            return "Bring the store back from a copy."
        command = f"neurostore clone {shlex.quote(f'{self._url}@{newest}')} FOLDER"
        return f"{self._ref(newest)} shows it. Go on with a copy from there: {command}"

    def _lost(self, written: Written) -> str:
        shown = counted(len(written.snapshots), "snapshot")
        return f"{written.table} of {written.thing} ({counted(written.rows, 'row')}) in {shown}."

    def _way_out(self, written: Written) -> str:
        others = self._versions[written.thing, written.table]
        others = [one for one in others if one is not written and one.key not in self._broken]
        others.sort(key=lambda one: one.digest != written.digest)  # the same content first
        for one in others[:_TRIED]:
            ref, same = one.snapshots[0], one.digest == written.digest
            alone = same or not _LINKED & {part.column for part in one.parts}
            if self._whole(one) and (alone or self._whole_session(one.thing, ref)):
                what = "has the same content whole" if same else "has another version of it whole"
                what += "" if alone else ", and of what hangs together with it"
                if written.thing.startswith("/"):
                    return f"{self._ref(ref)} {what}; open the store there."
                table = written.table if alone else None
                command = restore(self._url, written.thing, ref, table)
                return f"{self._ref(ref)} {what}: {command}"
        if written.source:
            return (
                f"No snapshot has it whole. Read its source again, which replaces the session: "
                f"{ingest(self._url, written)}; or bring the store back from a copy."
            )
        return "No snapshot has it whole. Bring the store back from a copy."

    def _whole_session(self, id: str, ref: str) -> bool:
        """Whether all tables of a session are whole in a snapshot."""
        every = (one for (thing, _), made in self._versions.items() if thing == id for one in made)
        there = [one for one in every if ref in one.snapshots]
        return all(one.key not in self._broken and self._whole(one) for one in there)

    def _ref(self, snapshot: str) -> str:
        commit = self._commits[snapshot]
        tags = f", tag {', '.join(commit.tags)}" if commit.tags else ""
        return f"Snapshot {snapshot} ({commit.time:%Y-%m-%d %H:%M}{tags})"
