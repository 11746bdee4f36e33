"""A store's tables brought to newer versions of their contracts, by one new commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurostore.errors import JSON, UsageError, counted
from neurostore.schemas import contract, contracts, migrate, steps, values
from neurostore.store.builder import refuse

if TYPE_CHECKING:
    from neurostore.store.store import Store


@dataclass(frozen=True)
class Migrated:
    """A table that is (or would be) of a newer contract, and how many rows it has."""

    session: str
    table: str
    before: str
    after: str
    rows: int

    def to_json(self) -> dict[str, JSON]:
        """As a plain mapping."""
        return dict(vars(self))


def migrate_store(
    store: Store, to: Sequence[str] = (), *, dry_run: bool = False, message: str = ""
) -> list[Migrated]:
    """Bring the tables of all sessions to newer contracts; older snapshots keep them as they were.

    Parameters
    ----------
    to : sequence of str
        Contracts, ``"electrodes/v2"``; the newest ones to which a migration leads without it.
    dry_run : bool
        Make and check every table, and write nothing.

    Returns
    -------
    list of Migrated
        What was migrated, in one commit.

    Raises
    ------
    NotFoundError, UsageError
        Where there is no such contract, or no migration from a version that is stored.
    RefusedError
        Where a migrated table does not hold its contract; nothing was written.
    """
    wanted = {contract(id).table: contract(id).id for id in to}
    if not to:
        newest = {one.table: contract(one.table) for one in contracts().values()}
        wanted = {kind: one.id for kind, one in newest.items() if one.migrates is not None}
    found = [
        Migrated(str(row["id"]), name, entry["contract"], wanted[kind], int(entry["rows"]))
        for row in store.rows
        for name, entry in sorted(row["tables"].items())
        if (kind := name.partition("/")[0]) in wanted and entry["contract"] != wanted[kind]
    ]
    for one in found:
        if contract(one.before).version > contract(one.after).version:
            raise UsageError(
                f"{one.session}: {one.table} is of {one.before}, newer than {one.after}."
            )
        steps(one.before, one.after)
    if not found:
        return []
    said = (
        message or f"migrate {counted(len(found), 'table')} to {', '.join(sorted(wanted.values()))}"
    )
    transaction = store.transaction(said)
    for one in found:
        stored = store.session(one.session).stored(one.table)
        made = migrate(stored, one.after.rpartition("/")[2])
        refuse(one.session, values(made))
        if not dry_run:
            transaction.update(one.session, made)
    if not dry_run:
        with transaction:
            pass
    return found
