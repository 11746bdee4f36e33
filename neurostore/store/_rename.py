"""Sessions and subjects under another name; what is stored is copied as it is."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostore.errors import NotFoundError, RefusedError, UsageError
from neurostore.store import _catalogue, _copied, _splits
from neurostore.store._format import check_id, session_path, split_id
from neurostore.store.edit import Edit, carry_out

if TYPE_CHECKING:
    from neurostore.splits import Split
    from neurostore.store.store import Store
    from neurostore.store.transaction import Transaction


@dataclass(frozen=True)
class Renaming:
    """A session under another id: the bytes to copy, and the newest splits that name it."""

    old: str
    new: str
    bytes: int
    splits: tuple[Split, ...]

    @property
    def steps(self) -> tuple[tuple[str, str], ...]:
        """What is done to what."""
        splits = tuple(("made a next version of", f"split {one.name}") for one in self.splits)
        return (("renamed", f"{self.old} → {self.new}"), *splits)


def naming(store: Store, session: str) -> list[Split]:
    """The newest version of every split that has rows of a session."""
    newest = {str(one["split"]): one for one in store.split_rows}  # in order of version
    found = (_splits.read(store.zarr, one) for one in newest.values())
    return [one for one in found if session in one.sessions]


def plan(store: Store, old: str, new: str, with_splits: bool) -> Renaming:
    """What it takes to rename a session.

    Raises
    ------
    NotFoundError
        Where there is no such session.
    RefusedError
        Where splits name it, and are not to follow.
    UsageError
        Where the new name is taken, is its own, or is none.
    """
    check_id(*split_id(new))
    row = store.session(old).attrs["row"]
    if new == old:
        raise UsageError(f"{old} has that name already. Nothing was changed.")
    if new in store:
        raise UsageError(
            f"{new} is in the store already. Choose another name, or delete it first: "
            f"neurostore delete {shlex.join([store.url, new])}"
        )
    splits = naming(store, old)
    if splits and not with_splits:
        names = ", ".join(one.title for one in splits)
        raise RefusedError(
            f"{old} is named by {names}. Rename it with its splits (--with-splits), which makes a "
            "next version of each."
        )
    entries, path = row["tables"], session_path(old)
    size = sum(_copied.table_size(store.zarr, path, name, entries[name]) for name in entries)
    return Renaming(old, new, size, tuple(_renamed(one, old, new) for one in splits))


def _renamed(split: Split, old: str, new: str) -> Split:
    session = np.array([new if one == old else str(one) for one in split.session], dtype=object)
    definition = _replaced(dict(split.definition), old, new)
    return replace(split, session=session, definition=definition, version=None)


def _replaced(value: Any, old: str, new: str) -> Any:
    """JSON in which an id, as text or as a key, is another one."""
    if isinstance(value, dict):
        return {
            (new if key == old else key): _replaced(one, old, new) for key, one in value.items()
        }
    if isinstance(value, list):
        return [_replaced(one, old, new) for one in value]
    return new if value == old else value


def run(store: Store, planned: Renaming, message: str | None, dry_run: bool) -> Edit:
    """Rename a session in a commit of its own, or say what would be done."""
    what = Edit(planned.steps, planned.bytes, dry_run=dry_run)
    said = message or f"renamed {planned.old} to {planned.new}"
    return carry_out(store, said, what, lambda tx: rename(tx, planned))


def rename(tx: Transaction, planned: Renaming) -> None:
    """Rename a session in a transaction that has not touched it."""
    old, new = planned.old, planned.new
    if old in tx._changes or new in tx._changes or tx._updates.get(old):
        raise UsageError(f"{old} or {new} was changed in this transaction; rename in another one.")
    path, new_path = session_path(old), session_path(new)
    if tx._touch(new, new_path) is not None:
        raise UsageError(f"{new} is in the store already. Choose another name.")
    tx._touch(old, path)
    attrs = _catalogue.read_attrs(tx._before, path)
    if attrs is None:
        raise NotFoundError("session", old, [], tx._store.url)
    entries = dict(attrs.pop("row")["tables"])
    writer = tx._draft.below(new_path)
    try:
        for name, entry in entries.items():
            _copied.copy_table(tx._before, path, name, entry, writer, new_path)
        tx._write_row(writer, new_path, called(attrs, new), entries)
    except BaseException:
        tx._undo(writer, new_path, new, None)
        raise
    tx._take_out(old, path, "rename")
    tx._changes[new] = "rename"
    tx._renamed[old] = new
    for split in planned.splits:
        tx.put(split)


def called(attrs: Mapping[str, Any], id: str) -> dict[str, Any]:
    """The attributes of a session under another id; by the dataset it had ingest finds it again."""
    dataset, session = split_id(id)
    made = {**attrs, "id": id, "dataset": dataset, "session": session}
    if attrs["source_key"] and dataset != attrs["dataset"]:
        made.setdefault("source_dataset", attrs["dataset"])
    return made


def of_subject(store: Store, old: str, new: str) -> list[str]:
    """Ids of the sessions of a subject.

    Raises
    ------
    NotFoundError
        With the nearest subject there is.
    """
    if not new.strip():
        raise UsageError("A subject needs a name.")
    found = [str(row["id"]) for row in store.rows if row["subject"] == old]
    if not found or not old:
        known = {str(row["subject"]) for row in store.rows if row["subject"]}
        raise NotFoundError("subject", old, known, store.url)
    return found


def run_subject(store: Store, old: str, new: str, message: str | None, dry_run: bool) -> Edit:
    """Rename a subject in a commit of its own, or say what would be done."""
    ids = of_subject(store, old, new) if old != new else []
    steps = tuple((f"said to be of {new}", id) for id in ids)
    said = message or f"renamed the subject {old} to {new}"
    what = Edit(steps, 0, dry_run=dry_run)
    return carry_out(store, said, what, lambda tx: rename_subject(tx, old, new))


def rename_subject(tx: Transaction, old: str, new: str) -> None:
    """Write another subject into every session that has this one; no table is touched."""
    for id in of_subject(tx._store, old, new):
        if tx._touch(id, session_path(id)) is None:
            continue
        attrs = _catalogue.read_attrs(tx._draft.store, session_path(id))
        if attrs is None:
            raise NotFoundError("session", id, [], tx._store.url)
        entries = attrs.pop("row")["tables"]
        attrs["metadata"] = {**attrs["metadata"], "subject": new}
        tx._write_row(tx._draft.below(session_path(id)), session_path(id), attrs, entries)
        tx._changes.setdefault(id, "update")
