"""A session, a stimulus or a split copied from one store into another: its bytes, each checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.buffer.cpu import Buffer
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from neurostore.errors import DamagedError, StoreError
from neurostore.schemas import Column, Table
from neurostore.store import _catalogue, layout
from neurostore.store._arrays import check_chunk
from neurostore.store._damage import WAY_OUT, pass_on, wrap
from neurostore.store._format import digest, segment, table_path
from neurostore.store._together import together

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

TOGETHER = 64
"""Chunks that are on their way at once, at most."""
HELD = 1 << 28
"""Bytes that they take when decoded, at most, where it is more than one chunk."""

Moved = Callable[[int, int], None]


@dataclass(frozen=True)
class Piece:
    """One thing that is copied, as the source's catalogue knows it.

    Attributes
    ----------
    id, path : str
        What people call it, and its group in the tree.
    row : mapping
        Its row in the source.
    tables : tuple of str
        Those that are copied.
    clone : mapping or None
        Where only some of its tables are: what its attributes say of where they are from.
    """

    id: str
    path: str
    row: Mapping[str, Any]
    tables: tuple[str, ...]
    clone: Mapping[str, Any] | None = None

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """Of its row, the tables that are copied."""
        return {name: self.row["tables"][name] for name in self.tables}

    def __str__(self) -> str:
        return self.id.lstrip("/")


@dataclass(frozen=True)
class Chunk:
    """A chunk on its way: what it is called, where it lies, how it ends, its bytes when decoded."""

    name: str
    key: str
    end: bytes
    size: int

    def check(self, found: Buffer) -> None:
        """Hold the bytes against their checksum, and that against the one the array keeps.

        Raises
        ------
        DamagedError
        """
        check_chunk(self.name, found.to_bytes(), self.end)


def copy(piece: Piece, source: ZarrStore, writer: ZarrStore, moved: Moved) -> dict[str, Any]:
    """Write a piece through a writer that stands below its path; gives the row it has there.

    Parameters
    ----------
    moved : callable
        Called once something is written, with its bytes and with how many chunks it is: 0 or 1.

    Raises
    ------
    DamagedError
        Where a byte of the source is missing, or is not what was written; names the chunk.
    """
    texts, row = _written(piece, source)
    coming = list(chunks(piece, MemoryStore(dict(texts))))
    for key, text in texts.items():
        sync(writer.set(key, text))
        moved(len(text), 0)
    sync(_transfer(coming, source, writer, moved))
    _compare(piece, writer)
    return row


def size(piece: Piece, source: ZarrStore) -> tuple[int, int]:
    """How many chunks a piece has, and the bytes that a copy of it takes."""
    texts, _ = _written(piece, source)
    coming = list(chunks(piece, MemoryStore(dict(texts))))
    sizes = sync(_sizes(coming, source))
    return len(coming), sum(map(len, texts.values())) + sum(sizes)


def _written(piece: Piece, source: ZarrStore) -> tuple[dict[str, Buffer], dict[str, Any]]:
    """The documents of a copy, and its row: those of the source, unless tables are left out."""
    texts = read_documents(piece, source)
    held = MemoryStore(dict(texts))
    attrs = _attributes(piece, held)
    if piece.clone is None:
        return texts, attrs["row"]
    rest = _fewer(piece, attrs)
    row = _catalogue.make_row(rest, piece.entries, digest([piece.clone, piece.id])[:32])
    layout.put_group(held, piece.path, {**rest, "row": row})
    return read_documents(piece, held), row


def _attributes(piece: Piece, documents: ZarrStore) -> dict[str, Any]:
    """Attributes of the group in the tree, which are those that the catalogue speaks of."""
    attrs = _catalogue.read_attrs(documents, piece.path)
    if attrs is None or attrs["row"]["checksum"] != piece.row["checksum"]:
        raise DamagedError(f"{piece} in the tree is not the one of the catalogue. {WAY_OUT}")
    return attrs


def _fewer(piece: Piece, attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a session of which some tables are copied.

    It has no source key: the file it was read from, read again, is not the same session.
    """
    rest = {key: value for key, value in attrs.items() if key != "row"}
    left = attrs["row"]["tables"].keys() - set(piece.tables)
    rest["findings"] = [one for one in rest["findings"] if one["table"] not in left]
    rest["lineage"] = {name: one for name, one in rest["lineage"].items() if name not in left}
    return {**rest, "source_key": "", "clone": dict(piece.clone or {})}


# ---- documents


def read_documents(piece: Piece, source: ZarrStore) -> dict[str, Buffer]:
    """Every document of a piece by key, as bytes; none is missing."""
    between = [
        parent
        for name in piece.tables
        for parent in layout.between(piece.path, f"{piece.path}/{table_path(name)}")
    ]
    return _documents(piece, [piece.path, *between], source)


def _documents(piece: Piece, groups: list[str], source: ZarrStore) -> dict[str, Buffer]:
    """The documents of these groups and of the tables of a piece, by key."""
    paths = list(groups)
    for name, entry in piece.entries.items():
        where = f"{piece.path}/{table_path(name)}"
        paths += [where, *(f"{where}/{segment(column)}" for column in entry["arrays"])]
    keys = [f"{path}/zarr.json" for path in dict.fromkeys(paths)]
    named = [(f"{piece}: the document {key}", key) for key in keys]
    found = sync(together(lambda each: _get(*each, source), named, TOGETHER))
    return dict(zip(keys, found, strict=True))


async def _get(name: str, key: str, source: ZarrStore) -> Buffer:
    try:
        found = await source.get(key, default_buffer_prototype())
    except StoreError:
        raise
    except BaseException as error:
        pass_on(error)
        raise wrap(name, error) from error
    if found is None:
        raise DamagedError(f"{name} is not found. {WAY_OUT}")
    return Buffer.from_bytes(found.to_bytes())


# ---- chunks


def chunks(piece: Piece, documents: ZarrStore) -> Iterator[Chunk]:
    """Every chunk of the tables of a piece, as their documents say, which are checked first."""
    for name, entry in piece.entries.items():
        table = layout.read_table(documents, piece.path, name, entry)
        for column, held in table.columns.items():
            yield from _of_array(f"{name}/{column} of {piece}", held, documents)


def _of_array(name: str, column: Column, documents: ZarrStore) -> Iterator[Chunk]:
    array: Any = column.values
    grid = [-(-length // chunk) for length, chunk in zip(array.shape, array.chunks, strict=True)]
    ends = bytes.fromhex(array.checksums)
    if len(ends) != 4 * prod(grid):
        raise DamagedError(
            f"{name} has {prod(grid):,} chunks and {len(ends) // 4:,} checksums of them. {WAY_OUT}"
        )
    codecs = (layout.get_document(documents, array.path) or {})["codecs"]
    if codecs[-1]["name"] != "crc32c":
        raise StoreError(
            f"{name} has no crc32c behind its other codecs, so that its chunks cannot be checked. "
            "Write it again with this package."
        )
    held = prod(array.chunks) * max(1, getattr(array.dtype, "itemsize", 1))
    for k, key in enumerate(layout.chunk_keys(array.path, array.shape, array.chunks)):
        number = key.removeprefix(f"{array.path}/c/")
        yield Chunk(f"Chunk {number} of {name}", key, ends[4 * k : 4 * k + 4], held)


async def _transfer(
    coming: list[Chunk],
    source: ZarrStore,
    writer: ZarrStore,
    moved: Moved,
    new_key: Callable[[str], str] = str,
) -> None:
    """Bring chunks over, many at once; each is checked before it is written."""
    largest = max((one.size for one in coming), default=1)

    async def one(chunk: Chunk) -> None:
        found = await _get(chunk.name, chunk.key, source)
        chunk.check(found)
        await writer.set(new_key(chunk.key), found)
        moved(len(found), 1)

    await together(one, coming, max(1, min(TOGETHER, HELD // largest)))


async def _sizes(coming: list[Chunk], source: ZarrStore) -> list[int]:
    async def one(chunk: Chunk) -> int:
        try:
            return await source.getsize(chunk.key)
        except FileNotFoundError as error:
            raise DamagedError(f"{chunk.name} is not found. {WAY_OUT}") from error

    return await together(one, coming, TOGETHER)


# ---- afterwards


def _compare(piece: Piece, written: ZarrStore) -> None:
    """Hold what was written, decoded, against the digests of its tables."""
    found = []
    for name, entry in piece.entries.items():
        table = layout.read_table(written, piece.path, name, entry)
        said = {key: entry[key] for key in ("contract", "rows", "arrays", "metadata")}
        if digest(said) != entry["digest"]:
            raise DamagedError(f"The digest of {name} of {piece} is another. {WAY_OUT}")
        found += [(table, column, entry["arrays"][column]) for column in entry["arrays"]]
    with ThreadPoolExecutor(4) as several:
        list(several.map(lambda one: _same_content(piece, *one), found))


def _same_content(piece: Piece, table: Table, column: str, expected: str) -> None:
    values: Any = table.columns[column].values
    if values.chunk_digests() != expected:
        raise DamagedError(f"{table.name}/{column} of {piece} is not what was written. {WAY_OUT}")


# ---- one table, within a store


def copy_table(
    source: ZarrStore,
    path: str,
    name: str,
    entry: Mapping[str, Any],
    target: ZarrStore,
    new_path: str,
) -> None:
    """Copy a table of what lies at `path`, byte by byte, below another path or to another snapshot.

    Raises
    ------
    DamagedError
        Where its metadata or a chunk is missing, or is not what was written.
    """
    table = _alone(path, name, entry)

    def new_key(key: str) -> str:
        return f"{new_path}{key.removeprefix(path)}"

    for parent in layout.between(new_path, f"{new_path}/{table_path(name)}"):
        layout.put_group(target, parent, {}, only_if_absent=True)
    for key, text in _documents(table, [], source).items():  # the engine knows arrays, then chunks
        sync(target.set(new_key(key), text))
    coming = list(chunks(table, source))
    sync(_transfer(coming, source, target, lambda size, count: None, new_key))


def is_whole(source: ZarrStore, path: str, name: str, entry: Mapping[str, Any]) -> bool:
    """Whether every document and every chunk of a table is what was written; reads all of it."""

    async def one(chunk: Chunk) -> None:
        chunk.check(await _get(chunk.name, chunk.key, source))

    try:
        sync(together(one, list(chunks(_alone(path, name, entry), source)), TOGETHER))
    except DamagedError:
        return False
    return True


def table_sizes(
    source: ZarrStore, path: str, name: str, entry: Mapping[str, Any]
) -> tuple[list[int], list[int]]:
    """Bytes of every document, and of every chunk, of a table as it is stored."""
    table = _alone(path, name, entry)
    documents = [len(text) for text in _documents(table, [], source).values()]
    return documents, sync(_sizes(list(chunks(table, source)), source))


def table_size(source: ZarrStore, path: str, name: str, entry: Mapping[str, Any]) -> int:
    """Bytes of a table as it is stored: its chunks and documents."""
    return sum(map(sum, table_sizes(source, path, name, entry)))


def _alone(path: str, name: str, entry: Mapping[str, Any]) -> Piece:
    return Piece(path, path, {"tables": {name: entry}}, (name,))
