"""Sessions, tables, splits and stimuli brought back from an older snapshot, byte by byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zarr.core.sync import sync

from neurostore.errors import Finding, NotFoundError, RefusedError, UsageError
from neurostore.store import _catalogue, _copied, _log
from neurostore.store._format import session_path, table_path
from neurostore.store._rename import called
from neurostore.store.builder import check_tables, refuse
from neurostore.store.edit import Edit, carry_out

if TYPE_CHECKING:
    from neurostore.store.store import Store
    from neurostore.store.transaction import Transaction


@dataclass(frozen=True)
class Step:
    """One thing to bring back (to take out, where it was not there), or some tables of it."""

    id: str
    path: str
    tables: tuple[str, ...] = ()
    bytes: int = 0
    gone: bool = False
    was: str = ""
    """Where it lay then, if elsewhere."""

    @property
    def said(self) -> tuple[str, str]:
        """What is done to what."""
        some = f" ({', '.join(self.tables)})" if self.tables else ""
        return ("taken out" if self.gone else "restored"), f"{self.id}{some}"


def steps(now: Store, then: Store, session: str | None, tables: Iterable[str]) -> list[Step]:
    """What differs between now and then, of one session, of some tables of it, or of everything.

    Raises
    ------
    NotFoundError
        Where there was no such session or table then, or there is no such session now.
    RefusedError
        Where a table would not fit the session as it is now.
    """
    if session is None:
        return [*_everything(now, then)]
    names, path = tuple(dict.fromkeys(tables)), session_path(session)
    was = session if session in then else _log.name_then(now.log(), then.snapshot, session)
    old, was_path = then.session(was).attrs, session_path(was)
    if not names:
        same = (
            session in now
            and _alike(now.session(session).attrs["row"], old["row"])
            and all(_is_whole(now, path, name, old) for name in old["row"]["tables"])
        )
        return [] if same else [replace(_whole(then, old, was_path), id=session, path=path)]
    for name in names:
        if name not in old["row"]["tables"]:
            where = f"{was} at {then.snapshot}"
            raise NotFoundError("table", name, old["row"]["tables"], where)
    _check_fit(now, then, session, was, names)
    entries = now.session(session).attrs["row"]["tables"]
    there = {name: entries.get(name, {}).get("digest") for name in names}
    other = tuple(
        name
        for name in names
        if there[name] != old["row"]["tables"][name]["digest"]
        or not _is_whole(now, path, name, old)
    )
    size = sum(_copied.table_size(then.zarr, was_path, n, old["row"]["tables"][n]) for n in other)
    return [Step(session, path, other, size, was=was_path)] if other else []


def _alike(now: Mapping[str, Any], then: Mapping[str, Any]) -> bool:
    """Whether two rows are of the same session; of a renamed one, whether its tables are."""
    if now["id"] == then["id"]:
        return bool(now["digest"] == then["digest"])
    mine, old = (
        {name: one["digest"] for name, one in row["tables"].items()} for row in (now, then)
    )
    return mine == old


def _is_whole(now: Store, path: str, name: str, old: Mapping[str, Any]) -> bool:
    """Whether a table that is the same by its digest can be read."""
    return _copied.is_whole(now.zarr, path, name, old["row"]["tables"][name])


def _whole(then: Store, attrs: Mapping[str, Any], path: str) -> Step:
    entries = attrs["row"]["tables"]
    size = sum(_copied.table_size(then.zarr, path, name, entries[name]) for name in entries)
    return Step(str(attrs["id"]), path, bytes=size, was=path)


def _everything(now: Store, then: Store) -> Iterator[Step]:
    """What was not there then goes first, what lies deepest ahead; then what differs comes back."""
    known = {str(row["id"]): row["digest"] for row in now.rows}
    wanted = {str(row["id"]): row["digest"] for row in then.rows}
    shared = {one["id"]: one for one in (*now.split_rows, *now.stimulus_rows)}
    old = {one["id"]: one for one in (*then.split_rows, *then.stimulus_rows)}
    for id in sorted(shared.keys() - old.keys(), reverse=True):
        yield Step(id, id[1:], gone=True)
    for id in sorted(known.keys() - wanted.keys()):
        yield Step(id, session_path(id), gone=True)
    for id in sorted(old):
        if id not in shared or shared[id]["row"]["digest"] != old[id]["row"]["digest"]:
            yield _whole(then, old[id], id[1:])
    for id in sorted(wanted):
        if known.get(id) != wanted[id]:
            yield _whole(then, then.session(id).attrs, session_path(id))


# ---- whether a table of then fits the session of now


def _check_fit(now: Store, then: Store, id: str, was: str, names: tuple[str, ...]) -> None:
    """Raise where clocks differ, or tables would name rows of other units."""
    old, new = then.session(was), now.session(id)
    keys = ("rate", "origin", "shift")
    if any(old.attrs["clock"][key] != new.attrs["clock"][key] for key in keys):
        raise RefusedError(
            f"{', '.join(names)} of {id} at {then.snapshot} is on another clock than the session "
            f"now. Restore the whole session."
        )
    before, entries = old.attrs["row"]["tables"], new.attrs["row"]["tables"]
    mixed = {**entries, **{name: before[name] for name in names}}
    ids = [one.get("units", {}).get("arrays", {}).get("unit") for one in (before, entries, mixed)]
    linked = [name for name in mixed if name != "units" and "unit" in mixed[name]["arrays"]]
    for name in linked:
        made_on = ids[0] if name in names else ids[1]
        if made_on != ids[2]:
            way = "them" if name in names else name
            raise RefusedError(
                f"{name} of {id} names rows of other units than the session would then have: "
                f"restore the units together with {way}, or the whole session."
            )
    tables = {name: old.stored(name) for name in names}
    others = [name for name in entries if name in (*linked, "units") and name not in names]
    whole = {**{name: new.stored(name) for name in others}, **tables}
    again = others if {"units", "spikes"} & set(names) else []
    _refuse_unfit(f"{id} at {then.snapshot}", names, check_tables(whole, [*names, *again]))


def _refuse_unfit(where: str, names: tuple[str, ...], findings: list[Finding]) -> None:
    """Raise where a table has a critical finding beside the others, with what to name as well."""
    try:
        refuse(f"{', '.join(names)} of {where}", findings)
    except RefusedError as error:
        alone = len({"units", "spikes"} & {*names}) == 1
        both = "units and spikes together (--table units spikes), or " if alone else ""
        way = f"Restore {both}the whole session (without --table)."
        raise RefusedError(f"{error.line}. {way}", error.findings) from error


# ---- doing it


def run(
    store: Store,
    ref: str,
    session: str | None,
    names: Sequence[str],
    message: str | None,
    dry_run: bool,
) -> Edit:
    """Bring back in a commit of its own, or say what would be."""
    if names and session is None:
        raise UsageError("A table is restored of a session: name the session too.")
    then = store.at(ref)
    plan = steps(store, then, session, names)
    size = sum(one.bytes for one in plan)
    planned = Edit(tuple(one.said for one in plan), size, dry_run=dry_run)
    what = f"{session or 'everything'}{' ' if names else ''}{', '.join(names)}"
    said = message or f"restored {what} from {ref}"
    return carry_out(store, said, planned, lambda tx: restore(tx, then, plan))


def restore(tx: Transaction, then: Store, plan: Iterable[Step]) -> None:
    """Bring back what was planned, in a transaction."""
    for step in plan:
        if step.gone:
            tx._take_out(step.id, step.path, "restore")
        else:
            _bring_back(tx, then, step)


def _bring_back(tx: Transaction, then: Store, step: Step) -> None:
    if step.id in tx._changes or tx._updates.get(step.id):
        raise UsageError(
            f"{step.id} was changed in this transaction already; restore it in another."
        )
    old = _catalogue.read_attrs(then.zarr, step.was)
    if old is None:
        raise NotFoundError("session", step.id, [], then.url)
    before = tx._touch(step.id, step.path)
    writer = tx._draft.below(step.path)
    attrs = {key: value for key, value in old.items() if key != "row"}
    if step.was != step.path:
        attrs = called(attrs, step.id)
    entries = dict(old["row"]["tables"])
    names = step.tables or tuple(entries)
    if step.tables:
        attrs, entries = _mixed(tx, step, old)
    try:
        for name in names:
            sync(writer.delete_dir(f"{step.path}/{table_path(name)}"))
        if not step.tables and before is not None:
            for name in before["tables"]:
                sync(writer.delete_dir(f"{step.path}/{table_path(name)}"))
        for name in names:
            source = old["row"]["tables"][name]
            _copied.copy_table(then.zarr, step.was, name, source, writer, step.path)
        tx._write_row(writer, step.path, attrs, entries)
    except BaseException:
        tx._undo(writer, step.path, step.id, before)
        raise
    tx._changes[step.id] = "restore"


def _mixed(
    tx: Transaction, step: Step, old: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes and entries of the session as it is, with those of the restored tables."""
    now = _catalogue.read_attrs(tx._draft.store, step.path)
    if now is None:
        raise NotFoundError("session", step.id, [], tx._store.url)
    attrs = {key: value for key, value in now.items() if key != "row"}
    entries = dict(now["row"]["tables"])
    for name in step.tables:
        entries[name] = old["row"]["tables"][name]
    lineage = {name: _with_source(old, now, name) for name in step.tables}
    attrs["lineage"] = {**now["lineage"], **lineage}
    attrs["transactions"] = {**old.get("transactions", {}), **now.get("transactions", {})}
    kept = [one for one in now["findings"] if one["table"] not in step.tables]
    attrs["findings"] = kept + [one for one in old["findings"] if one["table"] in step.tables]
    return attrs, entries


def _with_source(old: Mapping[str, Any], now: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The lineage of a table, with the source of its own where the session has another one now."""
    said = dict(old["lineage"][name])
    if old["source"] != now["source"]:
        said.setdefault("source", old["source"])
    return said
