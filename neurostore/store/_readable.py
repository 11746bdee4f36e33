"""What of a snapshot can be read where some of it is damaged, and what that is.

`_catalogue.read_all` and its like take all or nothing; here every thing of the tree (a session, a
version of a split, a stimulus, an embedding) is read for itself, and what cannot be is a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from neurostore.errors import DamagedError, StoreError, UsageError
from neurostore.store import _catalogue, _stimuli
from neurostore.store._faults import Fault
from neurostore.store._format import digest, session_path

if TYPE_CHECKING:
    import pandas as pd
    from zarr.abc.store import Store as ZarrStore

    from neurostore.store._versions import Commit

Kind = Literal["sessions", "splits", "stimuli"]
KINDS: Mapping[Kind, str] = {
    "sessions": "catalogue",
    "splits": "split_catalogue",
    "stimuli": "stimulus_catalogue",
}
"""Kinds of things, and under which name a commit keeps the sum over the rows of each."""


_ORDER: Mapping[Kind, Callable[[Any], Any]] = {
    "sessions": lambda one: str(one["id"]),
    "splits": lambda one: (one["split"], one["version"]),
    "stimuli": _stimuli.order,
}


@dataclass(frozen=True, eq=False)
class Thing:
    """A session, a version of a split, a stimulus or an embedding that proved whole in itself."""

    kind: Kind
    path: str
    attrs: Mapping[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        """What people call it."""
        return str(self.attrs["id"])

    @property
    def tables(self) -> Mapping[str, Mapping[str, Any]]:
        """Entries of its tables by name."""
        found: Mapping[str, Mapping[str, Any]] = self.attrs["row"]["tables"]
        return found


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The things of a snapshot, and what is wrong with the others.

    Attributes
    ----------
    lost : mapping of id to kind
        What is named by the tree, or by the history, and cannot be read.
    """

    things: list[Thing]
    faults: list[Fault]
    lost: Mapping[str, Kind]

    def of(self, kind: Kind) -> list[dict[str, Any]]:
        """Attributes of the things of a kind, in the order in which a whole snapshot gives them."""
        found = [dict(one.attrs) for one in self.things if one.kind == kind]
        return sorted(found, key=_ORDER[kind])

    def damage(self) -> dict[str, str]:
        """What is wrong, in a line, by id of what it is wrong with; the first of each."""
        return {one.path: one.finding.message for one in reversed(self.faults)}

    def frame(self) -> pd.DataFrame:
        """The table of sessions with a column `damage`: empty where nothing was found.

        Of a session that cannot be read the id alone is known.
        """
        damage = self.damage()
        rows = [one["row"] for one in self.of("sessions")]
        lost = [id for id, kind in self.lost.items() if kind == "sessions"]
        rows += [
            dict(zip(("dataset", "session"), id.split("/", 1), strict=True))
            | {"id": id, "tables": ()}
            for id in lost
        ]
        made = _catalogue.as_table(sorted(rows, key=lambda row: str(row["id"]))).to_pandas()
        return made.assign(damage=[damage.get(str(id), "") for id in made["id"]])


def tables(store: ZarrStore, found: Snapshot) -> list[Fault]:
    """Tables of the things of a snapshot whose metadata is not what was written."""
    from neurostore.store import layout

    faults = []
    for thing in found.things:
        for name, entry in thing.tables.items():
            try:
                layout.read_table(store, thing.path, name, entry)
            except StoreError as error:
                check = "store/table/metadata"
                faults.append(Fault.critical(thing.id, check, error.line, table=name))
    return faults


def read(
    store: ZarrStore, commit: Commit, history: Callable[[], Iterable[Commit]] = tuple
) -> Snapshot:
    """Every thing of a snapshot for itself.

    Parameters
    ----------
    commit : Commit
        Of the snapshot.
    history : callable
        Gives its commits, newest first; asked for the names of what is missing.
    """
    things, faults, lost = list[Thing](), list[Fault](), dict[str, Kind]()
    for kind, total in KINDS.items():
        mine, broken = list[Thing](), set[str]()
        for path in _paths(store, kind, faults):
            found = _thing(store, kind, path)
            if isinstance(found, Thing):
                mine.append(found)
            else:
                broken.add(path)
                faults.append(found)
                lost[found.path] = kind
        said = commit.metadata.get(total)
        if said is not None and total_of(kind, mine) != dict(said):
            there = {one.path for one in mine} | broken
            lacking = int(said.get(kind, 0)) - len(there)
            missing = _missing(kind, there, history) if lacking > 0 else []
            missing = missing if len(missing) == lacking else []  # else the names are a guess
            lost |= dict.fromkeys(missing, kind)
            faults += _not_the_sum(kind, commit, said, len(there), bool(broken), missing)
        things += sorted(mine, key=lambda one: one.id)
    return Snapshot(things, faults, lost)


def _thing(store: ZarrStore, kind: Kind, path: str) -> Thing | Fault:
    """What lies at a path, or what is wrong with it."""
    from neurostore.store import layout

    name = path.removeprefix("sessions/") if kind == "sessions" else f"/{path}"
    try:
        document = layout.get_document(store, path)
        if document is None:
            text = f"{path} is named by its group and is not found"
            return Fault.critical(name, "store/group/missing", text)
    except StoreError as error:
        return Fault.critical(name, "store/group/unreadable", error.line)
    attrs = document["attributes"]
    try:
        row = _catalogue.check_row(attrs.get("row"), path)
    except DamagedError as error:
        return Fault.critical(name, "store/row/checksum", error.line)
    rest = {key: value for key, value in attrs.items() if key != "row"}
    if (found := digest(rest)) != row["attributes"]:
        text, said = f"the attributes of {path} are not what was written", str(row["attributes"])
        return Fault.critical(name, "store/attributes/digest", text, found=found, expected=said)
    made = Thing(kind, path, attrs)
    if _path_of(kind, made.id) != path:
        text = f"{made.id} lies at {path}, where another thing belongs"
        return Fault.critical(name, "store/row/place", text)
    again = _catalogue.make_row(rest, made.tables, str(row["transaction"]))
    if wrong := sorted(key for key in row.keys() & again.keys() if row[key] != again[key]):
        text = f"the catalogue row of {made.id} does not fit its tables in {', '.join(wrong)}"
        return Fault.critical(made.id, "store/row/columns", text)
    return made


def _paths(store: ZarrStore, kind: Kind, faults: list[Fault]) -> Iterator[str]:
    """Groups that things of a kind lie in; what cannot be listed is a fault."""
    for name in _children(store, kind, faults):
        above = f"{kind}/{name}"
        if kind == "stimuli":
            yield above
            for encoder in _children(store, f"{above}/embeddings", faults):
                below = f"{above}/embeddings/{encoder}"
                yield from (f"{below}/{one}" for one in _children(store, below, faults))
        else:
            yield from (f"{above}/{one}" for one in _children(store, above, faults))


def _children(store: ZarrStore, path: str, faults: list[Fault]) -> list[str]:
    from neurostore.store import layout

    try:
        return layout.children(store, path)
    except StoreError as error:
        faults.append(Fault.critical(f"/{path}", "store/group/unreadable", error.line))
        return []


def total_of(kind: Kind, things: Iterable[Thing]) -> dict[str, Any]:
    """How many things there are and the sum of their rows, as a commit keeps it."""
    rows = [one.attrs["row"] for one in things]
    return _catalogue.Total(of=kind).plus(rows).to_json()


def _missing(
    kind: Kind, there: Collection[str], history: Callable[[], Iterable[Commit]]
) -> list[str]:
    """Ids that the history put and never took away, of what is not there."""
    last: dict[str, str] = {}
    try:
        for commit in history():
            for id, what in commit.metadata.get(kind, {}).items():
                last.setdefault(id, what)
    except StoreError:
        return []  # the history says so itself
    put = [id for id, what in last.items() if what in ("put", "update")]
    return sorted(id for id in put if _path_of(kind, id) not in there)


def _path_of(kind: Kind, id: str) -> str:
    try:
        return session_path(id) if kind == "sessions" else id[1:]
    except UsageError:
        return ""  # no id of a session


def _not_the_sum(
    kind: Kind,
    commit: Commit,
    said: Mapping[str, Any],
    found: int,
    broken: bool,
    missing: list[str],
) -> list[Fault]:
    check = f"store/{KINDS[kind].replace('_', '-')}/total"
    if missing:
        text = "is named by the history and is not found"
        return [Fault.critical(id, check, f"{id} {text}") for id in missing]
    expected = int(said.get(kind, 0))
    if broken and found == expected:
        return []  # the sum differs by those that cannot be read
    text = f"the commit names {expected:,} {kind}, {found:,} are found, or another than was written"
    where = f"snapshot {commit.snapshot}"
    return [Fault.critical(where, check, text, found=str(found), expected=str(expected))]
