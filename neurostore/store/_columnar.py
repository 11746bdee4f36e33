"""What a snapshot keeps of its sessions beside their tables: columns to query, records by id.

Queries read the columns and nothing else; the records (a row and the other attributes of a session)
stay JSON until one is asked for. Neither needs the other, so that a dataset loads no library of
tables and a query parses no record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from neurostore.store._catalogue import Total, as_table, check_row, columns, nodes_of
from neurostore.store._format import digest

if TYPE_CHECKING:
    import pyarrow as pa

Attrs = Mapping[str, Any]
"""The attributes of a session, its row among them."""


@dataclass(frozen=True, eq=False)
class Records:
    """The rows of all sessions, and their other attributes, as JSON, in the order of their ids."""

    rows: Sequence[bytes]
    texts: Sequence[bytes]

    @classmethod
    def of(cls, sessions: Iterable[Attrs]) -> Records:
        """From the attributes of every session."""
        pairs = [pair(one) for one in sessions]
        return cls([row for row, _ in pairs], [text for _, text in pairs])

    @classmethod
    def split(cls, data: bytes) -> Records:
        """From what `joined` made."""
        lines = data.split(b"\n") if data else []
        return cls(lines[::2], lines[1::2])

    def joined(self) -> bytes:
        """One line a row and one a text, in turn."""
        pairs = zip(self.rows, self.texts, strict=True)
        return b"\n".join(line for pair in pairs for line in pair)


def pair(attrs: Attrs) -> tuple[bytes, bytes]:
    """The row of a session and its other attributes, as JSON in the order they are kept in."""
    rest = {key: attrs[key] for key in attrs if key != "row"}
    return _json(attrs["row"]), _json(rest)


class Catalogue:
    """The sessions of one snapshot.

    Attributes
    ----------
    ids, checksums : list of str
        Of every session, by id; the checksums are those of their rows.
    """

    def __init__(
        self,
        ids: Sequence[str],
        checksums: Sequence[str],
        table: Callable[[], pa.Table | None],
        records: Callable[[], Records | None],
    ) -> None:
        self.ids, self.checksums = list(ids), list(checksums)
        self._read_table, self._read_records = table, records

    @classmethod
    def of(cls, sessions: Sequence[Attrs]) -> Catalogue:
        """From the attributes of every session, in the order of their ids."""
        rows = [one["row"] for one in sessions]
        records = Records.of(sessions)
        names, sums = [str(row["id"]) for row in rows], [str(row["checksum"]) for row in rows]
        return cls(names, sums, lambda: None, lambda: records)

    @cached_property
    def records(self) -> Records | None:
        """Rows and other attributes; None where the local copy does not hold what was written."""
        return self._read_records()

    @cached_property
    def rows(self) -> list[dict[str, Any]] | None:
        """All rows, parsed; None where the local copy does not hold what was written."""
        return None if self.records is None else [json.loads(row) for row in self.records.rows]

    @cached_property
    def table(self) -> pa.Table | None:
        """The columns of queries; made of the rows where they are not kept."""
        kept = self._read_table()
        if kept is not None and kept.column_names == [*columns(), NODES]:
            return kept
        return None if self.rows is None else _table(self.rows)

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each session stands."""
        return {id: place for place, id in enumerate(self.ids)}

    def row(self, id: str) -> dict[str, Any] | None:
        """The row of a session; None where it has no such session, or cannot be read."""
        place = self.places.get(id)
        if place is None or self.records is None:
            return None
        found: dict[str, Any] = json.loads(self.records.rows[place])
        return found

    def attrs(self, id: str) -> dict[str, Any] | None:
        """Attributes of a session, its row among them.

        None where it has no such session, or its text is not the one whose digest its row holds.
        """
        row = self.row(id)
        if row is None or self.records is None:
            return None
        attrs = json.loads(self.records.texts[self.places[id]])
        return {**attrs, "row": row} if digest(attrs) == row["attributes"] else None

    def total(self) -> dict[str, Any]:
        """The count and the sum of its rows, as the metadata of a commit has them."""
        pairs = zip(self.ids, self.checksums, strict=True)
        return Total().plus({"id": id, "checksum": one} for id, one in pairs).to_json()

    def changed(self, sessions: Mapping[str, Attrs | None]) -> Catalogue | None:
        """With these sessions in place of those of the same ids; None takes one out.

        None where it cannot be read.
        """
        if self.records is None:
            return None
        kept = {
            id: (sum, row, text)
            for id, sum, row, text in zip(
                self.ids, self.checksums, self.records.rows, self.records.texts, strict=True
            )
            if id not in sessions
        }
        new = {id: one for id, one in sessions.items() if one is not None}
        kept |= {id: (str(one["row"]["checksum"]), *pair(one)) for id, one in new.items()}
        order = sorted(kept)
        records = Records([kept[id][1] for id in order], [kept[id][2] for id in order])
        made = Catalogue(order, [kept[id][0] for id in order], lambda: None, lambda: records)
        if "table" in self.__dict__ and self.table is not None:
            old, rows = self.table, [one["row"] for one in new.values()]
            made._read_table = lambda: _replaced(old, set(sessions), rows)
        return made


NODES = "_nodes"
"""The column of groups and arrays of a session, which no query sees."""


def nodes(table: pa.Table) -> int:
    """Groups and arrays of all sessions, and of the datasets above them."""
    import pyarrow.compute as pc

    return int(pc.sum(table.column(NODES)).as_py() or 0) + len(table.column("dataset").unique())


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    numbers = pa.array([nodes_of(row) for row in rows], pa.int64())
    return as_table(rows).append_column(NODES, numbers)


def _replaced(old: pa.Table, gone: set[str], rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    kept = pa.array([id not in gone for id in old.column("id").to_pylist()], pa.bool_())
    return pa.concat_tables([old.filter(kept), _table(rows)]).sort_by("id").combine_chunks()


def read_table(data: bytes | None) -> pa.Table | None:
    """What `table_bytes` made; None for None."""
    if data is None:
        return None
    import pyarrow as pa

    return pa.ipc.open_file(pa.py_buffer(data)).read_all()


def table_bytes(table: pa.Table) -> bytes:
    """A table as a file of Arrow."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def proven(data: bytes) -> Catalogue:
    """A catalogue of records from elsewhere, every row held against its own checksum.

    Raises
    ------
    DamagedError, ValueError
        Where one is not what was written.
    """
    records = Records.split(data)
    rows = [check_row(json.loads(row), "a catalogue") for row in records.rows]
    if len(records.texts) != len(rows):
        raise ValueError("a row has no text")
    names, sums = [str(row["id"]) for row in rows], [str(row["checksum"]) for row in rows]
    return Catalogue(names, sums, lambda: _table(rows), lambda: records)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
