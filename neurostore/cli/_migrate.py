"""The command that brings tables to newer contracts."""

from __future__ import annotations

from pathlib import Path

import neurostore
from neurostore.cli._print import print_json, say
from neurostore.cli._words import DONE, Url
from neurostore.errors import counted


def migrate(
    url: Url,
    to: tuple[str, ...] = (),
    contract: tuple[Path, ...] = (),
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Bring tables to newer versions of their contracts, by one new commit.

    Args:
        url: The store.
        to: Contracts, e.g. units/v2; the newest ones to which a migration leads without it.
        contract: Files of contracts of your own, whose migrations are run.
        dry_run: Make and check every table, write nothing.
        json: Print what was migrated as JSON.
    """
    from neurostore.schemas import declare

    for path in contract:
        declare(path)
    store = neurostore.open(url)
    found = store.migrate(to, dry_run=dry_run)
    if json:
        tables = [one.to_json() for one in found]
        print_json({"dry_run": dry_run, "snapshot": store.snapshot, "tables": tables})
        return DONE
    for one in found:
        say(f"{one.session}: {one.table}, {counted(one.rows, 'row')}: {one.before} to {one.after}")
    if not found:
        say("Every table is of the newest contract to which a migration leads.")
    elif dry_run:
        say(f"Dry run: {counted(len(found), 'table')} would be migrated; nothing was written.")
    else:
        say(f"Committed {store.snapshot}. Older snapshots keep the tables as they were.")
    return DONE
