"""All tables of a session through both gates, and each content against its digest."""

from __future__ import annotations

from neurostore.errors import DamagedError
from neurostore.schemas import Finding, Table
from neurostore.store import _presented
from neurostore.store.builder import check_tables
from neurostore.store.layout import StoredArray
from neurostore.store.session import Session


def findings(session: Session) -> list[Finding]:
    """What both gates say of what can be read; what cannot is damage, by table and column."""
    found: list[Finding] = []
    whole: dict[str, Table] = {}
    for name in session.tables:
        try:
            table = session.stored(name)
            digests = session.attrs["row"]["tables"][name]["arrays"]
            broken = [key for key in digests if _content(table, key) != digests[key]]
        except DamagedError as error:
            found.append(_damage(name, "", error.line))
            continue
        whole |= {} if broken else {name: table}
        found += [_damage(name, key, f"{name}/{key} is not what was written") for key in broken]
    unlinked = _presented.broken(session.store.zarr, session.id, whole)
    return [*found, *check_tables(whole), *unlinked]


def _content(table: Table, column: str) -> str:
    values = table.columns[column].values
    return values.chunk_digests() if isinstance(values, StoredArray) else ""


def _damage(table: str, column: str, message: str) -> Finding:
    return Finding("store/damage", "critical", table, column, message)
