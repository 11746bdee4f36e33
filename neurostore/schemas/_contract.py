"""Contracts as values: parsed from the declared TOML files, by id."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from neurostore import _declared
from neurostore.errors import NotFoundError, Severity, UsageError

if TYPE_CHECKING:
    import pandera.xarray as pa


@dataclass(frozen=True)
class Rule:
    """A named rule, on a column or on the table; `tables` limits it to some tables."""

    rule: str
    tables: tuple[str, ...] = ()
    severity: Severity = "critical"


@dataclass(frozen=True)
class ColumnSpec:
    """What a contract says about one column."""

    name: str
    dims: tuple[str, ...]
    dtype: tuple[str, ...]
    units: str = ""
    rules: tuple[Rule, ...] = ()
    link: str = ""
    min: float | None = None
    max: float | None = None
    optional: bool = False
    title: str = ""

    @property
    def required_dims(self) -> tuple[str, ...]:
        """Dimensions that must be there; a trailing ``?`` in the contract marks an optional one."""
        return tuple(dim for dim in self.dims if not dim.endswith("?"))

    @property
    def all_dims(self) -> tuple[str, ...]:
        """All dimensions, the optional ones too."""
        return tuple(dim.removesuffix("?") for dim in self.dims)


@dataclass(frozen=True)
class Migration:
    """How a table of an older version (``"v1"``) becomes one of this: ``"package.module:name"``."""

    source: str
    by: str


@dataclass(frozen=True)
class Contract:
    """A contract: dimensions, dtypes, units, rules and links of one table, and its version."""

    table: str
    version: int
    status: Literal["frozen", "draft"]
    title: str
    columns: Mapping[str, ColumnSpec]
    rules: tuple[Rule, ...] = ()
    open: bool = False
    digest: str = ""
    migrates: Migration | None = None

    @property
    def id(self) -> str:
        """``<table>/v<N>``."""
        return f"{self.table}/v{self.version}"

    @property
    def dim(self) -> str:
        """The main dimension: the first one of the first column."""
        return next(iter(self.columns.values())).dims[0]

    def check(self, column: str, what: str) -> str:
        """The stable id of one check."""
        return f"{self.id}/{column}/{what}"

    def to_pandera(self, *, values: bool = False) -> pa.DatasetSchema:
        """This contract as a pandera schema for one table (as stored, without links).

        With ``values=True`` the value rules are checks of the schema too, under the same ids;
        `check_ids` reads them back from the error.
        """
        from neurostore.schemas._pandera import to_pandera

        return to_pandera(self, values)


@cache
def contract(id: str) -> Contract:
    """The contract ``<table>/v<N>``, or the newest one of ``<table>``."""
    known = contracts()
    if "/" not in id:
        versions = [name for name in known if name.rpartition("/v")[0] == id]
        id = max(versions, key=lambda name: known[name].version, default=id)
    if id not in known:
        raise NotFoundError("contract", id, known, "schemas")
    return known[id]


@cache
def contracts() -> dict[str, Contract]:
    """Every declared contract by id."""
    found = [parse(path.read_text("utf-8")) for path in _declared.declared("schemas", "*/v*.toml")]
    return {one.id: one for one in sorted(found, key=lambda one: one.id)}


@cache
def frozen() -> dict[str, str]:
    """Digests of the contracts that something has written, by id."""
    text = (_declared.folder("schemas") / "frozen.toml").read_text("utf-8")
    digests: dict[str, str] = tomllib.loads(text)["digests"]
    return digests


def parse(text: str) -> Contract:
    """A contract from the text of its file.

    Raises
    ------
    UsageError
        Where it says what no contract can.
    """
    raw = tomllib.loads(text)
    if unknown := set(raw) - set(Contract.__dataclass_fields__):
        raise UsageError(f"Contract {raw['table']!r} has unknown {unknown}.")
    columns = {}
    for name, spec in raw.pop("columns").items():
        if unknown := set(spec) - set(ColumnSpec.__dataclass_fields__):
            raise UsageError(f"Contract {raw['table']!r}: column {name!r} has unknown {unknown}.")
        spec |= {key: tuple(spec[key]) for key in ("dims", "dtype")}
        columns[name] = ColumnSpec(name=name, **{**spec, "rules": _rules(spec.get("rules", []))})
    rules, migrates = _rules(raw.pop("rules", [])), _migration(raw.pop("migrates", None))
    plain = json.dumps(tomllib.loads(text), sort_keys=True, ensure_ascii=False)
    digest = hashlib.sha256(plain.encode()).hexdigest()
    return Contract(columns=columns, rules=rules, digest=digest, migrates=migrates, **raw)


def _migration(raw: dict[str, str] | None) -> Migration | None:
    if raw is None:
        return None
    if set(raw) != {"from", "by"} or ":" not in raw["by"]:
        raise UsageError(
            f'migrates says {{ from = "v1", by = "package.module:function" }}, found {raw}.'
        )
    return Migration(raw["from"], raw["by"])


def _rules(raw: list[str | dict[str, Any]]) -> tuple[Rule, ...]:
    return tuple(
        Rule(one)
        if isinstance(one, str)
        else Rule(**{**one, "tables": tuple(one.get("tables", ()))})
        for one in raw
    )
