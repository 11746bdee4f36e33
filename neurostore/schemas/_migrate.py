"""Tables from an older version of their contract to a newer one, by the declared functions.

A contract that says ``migrates = { from = "v1", by = "package.module:function" }`` names a pure
function from a `Table` of that version to a `Table` of its own. Only functions that a bundled
contract, or one given by `declare`, names are ever imported; a store names none.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from neurostore.errors import NotFoundError, RefusedError, UsageError
from neurostore.schemas._contract import Contract, contract, contracts, parse
from neurostore.schemas._layout import layout
from neurostore.schemas._table import Table


def declare(path: str | Path) -> Contract:
    """Know a contract of a file of one's own, in this process, beside the bundled ones.

    Raises
    ------
    UsageError
        Where another contract of that id is known.
    """
    made = parse(Path(path).read_text("utf-8"))
    known = contracts().get(made.id)
    if known is not None and known.digest != made.digest:
        raise UsageError(f"{path}: another contract {made.id} is known; a contract never changes.")
    contracts()[made.id] = made
    contract.cache_clear()
    return made


def steps(before: str, after: str) -> list[Contract]:
    """The contracts through which a table goes from one version to another, the first one left out.

    Raises
    ------
    NotFoundError
        Where one of them is not declared.
    UsageError
        Where no migration leads there.
    """
    made: list[Contract] = []
    current = contract(after)
    while current.id != before:
        made.append(current)
        if current.migrates is None or current.version <= contract(before).version:
            raise UsageError(
                f"No migration leads from {before} to {after}: {current.id} names none. Declare it "
                "in its file: migrates = { from = ..., by = ... }."
            )
        current = contract(f"{current.table}/{current.migrates.source}")
    return made[::-1]


def migrate(table: Table, version: str | None = None) -> Table:
    """A table under another version of its contract, the newest one without `version`.

    Parameters
    ----------
    version : str, optional
        ``"v2"``.

    Raises
    ------
    NotFoundError, UsageError
        Where there is no such version, or no migration to it.
    RefusedError
        Where what a migration makes does not have the layout of its contract.
    """
    kind = table.contract.partition("/")[0]
    after = contract(kind if version is None else f"{kind}/{version}").id
    for step in steps(table.contract, after):
        if step.migrates is None:
            raise NotFoundError("migration", step.id, ())
        made = _function(step.migrates.by)(table)
        if (made.contract, made.name) != (step.id, table.name):
            raise RefusedError(
                f"{step.migrates.by} made {made.name!r} of {made.contract} out of {table.name!r} "
                f"of {table.contract}; expected {table.name!r} of {step.id}."
            )
        if wrong := layout(made):
            raise RefusedError(f"{step.migrates.by}: {wrong[0].message}.", wrong)
        table = made
    return table


def _function(name: str) -> Callable[[Table], Table]:
    place, _, own = name.partition(":")
    try:
        found: Callable[[Table], Table] = getattr(importlib.import_module(place), own)
        return found
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"The migration {name!r} cannot be imported: {error}.") from error
