"""The catalogue: rows derived from what each session carries, and SQL expressions over them.

A session's row is an attribute of its own group, with a checksum of its own, so that no two writers
meet in one array. The sum over all rows stands in the metadata of the commit: a session that is not
found is then told from one that is not there.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import Clock, exact
from neurostore.errors import DamagedError, UsageError
from neurostore.schemas import JSON, Table, contract
from neurostore.store._damage import WAY_OUT
from neurostore.store._format import digest
from neurostore.store._said import check_attrs

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa
    from zarr.abc.store import Store as ZarrStore

_MODULUS = 1 << 256


# ---- rows


def summary(table: Table, clock: Clock) -> dict[str, JSON]:
    """What the catalogue wants to know of a table: extent in ticks, regions, seconds."""
    said: dict[str, JSON] = {}
    kind = table.name.partition("/")[0]
    extent = _extent(table, kind, clock)
    if extent is not None:
        said["extent"] = [int(extent[0]), int(extent[1])]
    if kind == "units" and "region" in table.columns:
        names, counts = np.unique(_read(table, "region"), return_counts=True)
        said["regions"] = {str(name): int(n) for name, n in zip(names, counts, strict=True) if name}
    if table.name == "intervals/observed":
        said["seconds"] = union(_read(table, "start"), _read(table, "stop")) / float(clock.rate)
    return said


def _extent(table: Table, kind: str, clock: Clock) -> tuple[int, int] | None:
    if kind in ("intervals", "presentations"):
        valid = _read(table, "valid")
        start, stop = _read(table, "start")[valid], _read(table, "stop")[valid]
        return (start.min(), stop.max()) if len(start) else None
    if kind in ("behaviour", "activity") and "start" in table.attrs and table.rows:
        seen = np.flatnonzero(_read(table, "valid")) if "valid" in table.columns else None
        if seen is not None and not len(seen):
            return None
        ends = (0, table.rows - 1) if seen is None else (int(seen[0]), int(seen[-1]))
        first, step = int(str(table.attrs["start"])), clock.rate / exact(str(table.attrs["rate"]))
        return first + int(ends[0] * step), first + int(ends[1] * step) + 1
    if "time" not in table.columns or not table.rows:
        return None
    time = _read(table, "time")
    if "valid" in table.columns:
        time = time[_read(table, "valid")]
    return (time[0], time[-1] + 1) if len(time) else None


def union(start: NDArray[np.int64], stop: NDArray[np.int64]) -> int:
    """Ticks that at least one of the intervals [start, stop) covers."""
    order = np.argsort(start, kind="stable")
    first, last = start[order], stop[order]
    reached = np.maximum.accumulate(np.concatenate([first[:1], last]))[:-1]
    return int(np.maximum(0, last - np.maximum(first, reached)).sum())


def _read(table: Table, name: str) -> NDArray[Any]:
    return np.asarray(table.columns[name].values[:])


def make_row(
    attrs: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]], transaction: str
) -> dict[str, JSON]:
    """The row of a thing in the store: what its tables are, by digest, and the catalogue's columns.

    `transaction` is new at every write: an identical row would be no change, and two edits of one
    session must conflict.
    """
    row: dict[str, Any] = {
        "id": attrs["id"],
        "tables": {name: dict(entries[name]) for name in sorted(entries)},
        "transaction": transaction,
        "attributes": digest(dict(attrs)),
    }
    if "session" in attrs:
        row |= _session_columns(attrs, entries)
    digests = {name: entry["digest"] for name, entry in entries.items()}
    row["digest"] = digest({"attributes": row["attributes"], "tables": digests})
    row["checksum"] = digest(row)
    return row


def _session_columns(
    attrs: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    rate = float(exact(attrs["clock"]["rate"]))
    extents = [entry["extent"] for entry in entries.values() if "extent" in entry]
    metadata = attrs["metadata"]

    def rows(name: str) -> int:
        return int(entries[name]["rows"]) if name in entries else 0

    return {
        "dataset": attrs["dataset"],
        "session": attrs["session"],
        "subject": metadata.get("subject", ""),
        "species": metadata.get("species", ""),
        "n_units": rows("units"),
        "n_spikes": rows("spikes"),
        "n_trials": rows("intervals/trials"),
        "start": min(one[0] for one in extents) / rate if extents else None,
        "stop": max(one[1] for one in extents) / rate if extents else None,
        "observed": float(entries.get("intervals/observed", {}).get("seconds", 0.0)),
        "regions": sorted(entries.get("units", {}).get("regions", {})),
        "findings": len(attrs["findings"]),
        "source": (attrs["source"] or {}).get("url", ""),
        "source_key": attrs["source_key"],
    }


def check_row(row: Mapping[str, Any] | None, where: str) -> Mapping[str, Any]:
    """The row itself, if its checksum holds.

    Raises
    ------
    DamagedError
        Where there is no row, or it is not what was written.
    """
    if not isinstance(row, dict) or "checksum" not in row:
        raise DamagedError(f"{where} has no catalogue row. {WAY_OUT}")
    rest = {key: value for key, value in row.items() if key != "checksum"}
    if digest(rest) != row["checksum"]:
        raise DamagedError(f"The catalogue row of {where} is not what was written. {WAY_OUT}")
    return row


def read_attrs(store: ZarrStore, path: str) -> dict[str, Any] | None:
    """Attributes of the group at `path`, checked against its row; None where there is no group."""
    from neurostore.store import layout

    document = layout.get_document(store, path)
    if document is None:
        return None
    attrs: dict[str, Any] = document.get("attributes", {})
    row = check_row(attrs.get("row"), path)
    rest = {key: value for key, value in attrs.items() if key != "row"}
    if digest(rest) != row.get("attributes"):
        raise DamagedError(f"The attributes of {path} are not what was written. {WAY_OUT}")
    check_attrs(path, attrs)
    return attrs


def read_all(store: ZarrStore, total: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Attributes of every session by id, rows among them, held against the sum in the commit.

    Raises
    ------
    DamagedError
        Where a row is damaged, or the sessions found are not the ones committed.
    """
    from neurostore.store import layout

    made = []
    for dataset in layout.children(store, "sessions"):
        for session in layout.children(store, f"sessions/{dataset}"):
            attrs = read_attrs(store, f"sessions/{dataset}/{session}")
            if attrs is None:
                raise DamagedError(f"{dataset}/{session} has no catalogue row. {WAY_OUT}")
            made.append(attrs)
    found = Total().plus(attrs["row"] for attrs in made).to_json()
    if found != dict(total):
        raise DamagedError(
            f"The commit names {total.get('sessions')} sessions, {found['sessions']} are found, or "
            f"another one than was written. {WAY_OUT}"
        )
    return sorted(made, key=lambda attrs: str(attrs["row"]["id"]))


class Total:
    """How many sessions (or splits) a snapshot holds, and the sum of their rows' checksums.

    The sum is modulo 2^256.
    """

    def __init__(self, said: Mapping[str, Any] | None = None, of: str = "sessions") -> None:
        self.of, self.count = of, int((said or {}).get(of, 0))
        self.sum = int((said or {}).get("sum", "0"), 16)

    def plus(self, rows: Iterable[Mapping[str, Any] | None], sign: int = 1) -> Total:
        """With these rows added (or taken off, with ``sign=-1``); None counts for nothing."""
        made = Total(self.to_json(), self.of)
        for row in rows:
            if row is not None:
                text = f"{row['id']}\0{row['checksum']}".encode("utf-8", "surrogatepass")
                made.sum += sign * int(hashlib.sha256(text).hexdigest(), 16)
                made.count += sign
        made.sum %= _MODULUS
        return made

    def to_json(self) -> dict[str, JSON]:
        """As it stands in the metadata of a commit."""
        return {self.of: self.count, "sum": f"{self.sum:x}"}


# ---- tables and queries


def columns() -> list[str]:
    """The columns of the table of sessions."""
    return [*contract("sessions").columns, "regions", "findings", "tables"]


def as_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as the table of sessions, in the columns and dtypes of its contract."""
    import pyarrow as pa

    names, made = columns(), [{**row, "tables": sorted(row["tables"])} for row in rows]
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in names} for row in made], schema=_schema(names)
    )


def nodes_of(row: Mapping[str, Any]) -> int:
    """How many groups and arrays a session is, by its row."""
    tables = row["tables"]
    above = {name.partition("/")[0] for name in tables if "/" in name}
    return 1 + len(above) + sum(1 + len(entry["arrays"]) for entry in tables.values())


def _way_out(said: str, columns: list[str]) -> str:
    """The first line of a duckdb error, with the nearest column or how text is quoted."""
    line, unknown = said.strip().splitlines()[0].rstrip("!. "), re.search(r'column "([^"]+)"', said)
    if unknown is None:
        return f"{line}. Columns: {', '.join(columns)}."
    near = difflib.get_close_matches(unknown[1], columns, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else "Text goes in single quotes."
    return f"there is no column {unknown[1]!r}. {hint} Columns: {', '.join(columns)}."


def _schema(columns: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    kinds = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64()}
    known = {name: kinds[said.dtype[0]] for name, said in contract("sessions").columns.items()}
    known |= {"findings": pa.int64()}
    return pa.schema([(name, known.get(name, pa.list_(pa.string()))) for name in columns])


def query(table: pd.DataFrame, where: str | None, what: str) -> pd.DataFrame:
    """Rows of a table for which a SQL boolean expression holds.

    Raises
    ------
    UsageError
        Where the expression cannot be run; names the columns there are.
    """
    if where is None:
        return table
    numbered = table.assign(_row=np.arange(len(table)))
    kept = _chosen(lambda db: db.from_df(numbered), where, what, list(table))
    return table.iloc[kept].reset_index(drop=True)


def query_arrow(table: pa.Table, where: str | None, what: str) -> pd.DataFrame:
    """The same of a table of Arrow; only what is chosen becomes pandas."""
    if where is not None:
        import pyarrow as pa

        numbered = table.append_column("_row", pa.array(np.arange(len(table))))
        kept = _chosen(lambda db: db.from_arrow(numbered), where, what, table.column_names)
        table = table.take(pa.array(kept))
    return table.to_pandas()


def _chosen(
    relation: Callable[[duckdb.DuckDBPyConnection], duckdb.DuckDBPyRelation],
    where: str,
    what: str,
    columns: list[str],
) -> NDArray[np.int64]:
    """Which rows of a relation an expression chooses, by its column ``_row``."""
    import duckdb

    connection = _database(os.getpid()).cursor()
    try:
        found = relation(connection).filter(where).project("_row").fetchnumpy()["_row"]
    except duckdb.Error as error:
        raise UsageError(
            f"where={where!r} over {what} cannot be run: {_way_out(str(error), columns)}"
        ) from error
    finally:
        connection.close()
    return np.sort(np.asarray(found, dtype=np.int64))


@cache
def _database(process: int) -> duckdb.DuckDBPyConnection:
    """The empty database of a process that expressions are run by; nothing is ever kept in it.

    To connect takes longer than a query. A process that was forked makes its own.
    """
    import duckdb

    options: dict[str, Any] = {
        "enable_external_access": "false",
        "python_enable_replacements": "false",
        "threads": "1",  # more of them take longer to wake than a query
    }
    made = duckdb.connect(config=options)
    made.execute("SET lock_configuration = true")
    return made
