"""What is to be looked at: every snapshot's metadata, and the tables that it alone shows.

A table that lies in the same chunks in two snapshots is looked at once; the engine says in which
manifests its chunks lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostore.clocks import exact
from neurostore.errors import Finding, NotFoundError, StoreError
from neurostore.schemas import Table, contract
from neurostore.schemas import layout as check_layout
from neurostore.store import _readable, _splits, _stimuli, layout
from neurostore.store._faults import Fault
from neurostore.store._format import digest, segment, table_path
from neurostore.store._readable import Thing
from neurostore.store._verify._source import ReadFrom
from neurostore.store._verify._values import Part

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

    from neurostore.store._versions import Commit

Places = Mapping[str, str]
"""Where the chunks of each array of a snapshot lie, by the path of the array."""


@dataclass(eq=False)
class Written:
    """A table as it was written once, and the snapshots that show it.

    Attributes
    ----------
    key : str
        Of what was written: place, digest and manifests.
    snapshots : list of str
        Newest first.
    """

    key: str
    thing: str
    table: str
    rows: int
    digest: str
    source: ReadFrom | None
    parts: list[Part] = field(repr=False)
    snapshots: list[str]

    @property
    def chunks(self) -> int:
        """How many chunks all of its arrays have."""
        return sum(part.chunks for part in self.parts)


@dataclass(eq=False)
class Plan:
    """Everything that is to be looked at, and what reading its metadata showed."""

    written: dict[str, Written] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    snapshots: int = 0
    things: int = 0
    tables: int = 0

    @property
    def chunks(self) -> int:
        """Distinct chunks."""
        return sum(one.chunks for one in self.written.values())

    def add(
        self,
        commit: Commit,
        store: ZarrStore,
        places: Places | None,
        history: Callable[[], Iterator[Commit]],
    ) -> None:
        """Read the metadata of a snapshot."""
        found = _readable.read(store, commit, history)
        faults = list(found.faults)
        for thing in found.things:
            for name, entry in thing.tables.items():
                faults += self._table(commit, store, places, found, thing, name, entry)
                self.tables += 1
        faults += _linked(store, found)
        self.things += len(found.things)
        self.snapshots += 1
        known = {(one.path, one.finding) for one in self.faults}
        new = [one for one in faults if (one.path, one.finding) not in known]
        self.faults += [_at(one, commit.snapshot) if self.snapshots > 1 else one for one in new]

    def _table(
        self,
        commit: Commit,
        store: ZarrStore,
        places: Places | None,
        found: _readable.Snapshot,
        thing: Thing,
        name: str,
        entry: Mapping[str, Any],
    ) -> list[Fault]:
        try:
            table = layout.read_table(store, thing.path, name, entry)
        except (StoreError, NotFoundError) as error:
            newer = isinstance(error, NotFoundError)
            check = "store/table/contract" if newer else "store/table/metadata"
            return [Fault.critical(thing.id, check, error.line, table=name)]
        wrong = [Fault(thing.id, one) for one in check_layout(table)]
        said = {key: entry[key] for key in ("contract", "rows", "arrays", "metadata")}
        if digest(said) != entry["digest"] or table.rows != entry["rows"]:
            text = f"the row of {thing.id} does not say what its table {name} is"
            wrong.append(Fault.critical(thing.id, "store/table/entry", text, table=name))
        if wrong:
            return wrong
        where = f"{thing.path}/{table_path(name)}"
        paths = [f"{where}/{segment(column)}" for column in entry["arrays"]]
        lie = [(places or {}).get(path) for path in paths]
        key = digest(
            [thing.path, name, entry["digest"], lie, thing.attrs.get("lineage", {}).get(name)]
        )
        if key in self.written:
            self.written[key].snapshots.append(commit.snapshot)
            return []
        parts = [
            Part(
                thing.id,
                name,
                column,
                values.values,  # type: ignore[arg-type]
                entry["arrays"][column],
                table.contract,
                *_names(found, thing, table, column),
            )
            for column, values in table.columns.items()
        ]
        self.written[key] = Written(
            key,
            thing.id,
            name,
            table.rows,
            str(entry["digest"]),
            ReadFrom.of(thing.attrs, name),
            parts,
            [commit.snapshot],
        )
        return []


def _names(
    found: _readable.Snapshot, thing: Thing, table: Table, column: str
) -> tuple[int | None, int]:
    """How many rows the table has that a column names rows of, and the least it may say."""
    said = contract(table.contract).columns.get(column)
    if said is not None and said.link in thing.tables:
        return int(thing.tables[said.link]["rows"]), 0
    if table.name.startswith("presentations/") and column == "row":
        shown = _stimuli.path_of(str(table.attrs.get("stimulus", "")))
        frames = [one.attrs["frames"] for one in found.things if one.path == shown]
        return (int(frames[0]), -1) if frames else (None, 0)
    return None, 0


def _linked(store: ZarrStore, found: _readable.Snapshot) -> list[Fault]:
    """Splits against their own digests and the sessions they name; embeddings against frames."""
    sessions = {one.id: one for one in found.things if one.kind == "sessions"}
    frames = {one.path: one.attrs["frames"] for one in found.things if one.kind == "stimuli"}
    faults = []
    for one in found.things:
        if one.kind == "splits":
            faults += _split(store, one, sessions, found.lost)
        if one.kind == "stimuli" and "encoder" in one.attrs:
            above = _stimuli.path_of(str(one.attrs["stimulus"]))
            if above not in frames and f"/{above}" not in found.lost:
                text = f"the embedding {one.id} belongs to a stimulus that is not there"
                faults.append(Fault.critical(one.id, "store/link/stimulus", text))
            elif above in frames and frames[above] != one.attrs["frames"]:
                text = f"the embedding {one.id} has another number of rows than its stimulus"
                said = str(one.attrs["frames"]), str(frames[above])
                faults.append(
                    Fault.critical(
                        one.id, "store/link/stimulus", text, found=said[0], expected=said[1]
                    )
                )
    return faults


def _split(
    store: ZarrStore, thing: Thing, sessions: Mapping[str, Thing], lost: Mapping[str, Any]
) -> list[Fault]:
    try:
        split = _splits.read(store, thing.attrs)
    except StoreError as error:
        return [Fault.critical(thing.id, "store/split/digest", error.line)]
    faults = []
    for id in np.unique(split.session):
        name = str(id)
        if name not in sessions:
            if name not in lost:
                text = f"split {split.title} names {name}, which is not in the store"
                rest = "split", "session", text, None, name
                faults.append(Fault(thing.id, Finding("store/link/session", "violation", *rest)))
            continue
        said, there = split.rate(name), exact(sessions[name].attrs["clock"]["rate"])
        if said not in (None, there):
            text = f"split {split.title} counts other ticks of {name} than its clock"
            faults.append(
                Fault.critical(
                    thing.id, "store/link/clock", text, found=str(said), expected=str(there)
                )
            )
    return faults


def _at(fault: Fault, snapshot: str) -> Fault:
    """A fault of another snapshot than the first one read."""
    return Fault(f"{fault.path} at {snapshot}", fault.finding, fault.hint)
