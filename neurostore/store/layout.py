"""How format 1 lies in Zarr: codecs, documents, and tables to and from arrays.

A thing in the store (a session) is one group with its tables below it. Everything read is held
against digests in the `row` attribute of that group; a chunk that is not found is damage.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.buffer.cpu import Buffer
from zarr.core.sync import sync

from neurostore.clocks import Clock
from neurostore.errors import DamagedError, StoreError, UsageError
from neurostore.schemas import JSON, Column, Table, Values, contract
from neurostore.schemas import layout as check_layout
from neurostore.store import _arrays, _caps, _damage, _fork
from neurostore.store._format import CHUNK, FORMAT, chunk_digest, digest, segment, table_path
from neurostore.store._said import check_table

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from zarr.codecs.numcodecs import PCodec

Kept = TypeVar("Kept")

DENSE_ROWS = 64
"""Rows in a chunk of dense activity (time, channel)."""
_RUN = 1 << 25
"""Bytes written at once."""

_PACKED = ("numcodecs.pcodec", "crc32c")
_PCODEC = ("u2", "u4", "u8", "i2", "i4", "i8", "f2", "f4", "f8")


# ---- writing


def codecs_of(
    dtype: np.dtype[Any], name: str, column: Column, codecs: str = "default"
) -> dict[str, Any]:
    """Zarr's codec arguments for one column; every array ends in crc32c.

    ``codecs="interop"`` writes Blosc-zstd-bitshuffle for readers without PCodec.
    """
    crc = Crc32cCodec()
    if isinstance(dtype, np.dtypes.StringDType):
        return {"compressors": [ZstdCodec(level=3), crc], "filters": None}
    if codecs == "interop":
        blosc = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=dtype.itemsize)
        return {"compressors": [blosc, crc], "filters": None}
    if codecs != "default":
        raise UsageError(f"codecs must be 'default' or 'interop', found {codecs!r}.")
    if dtype.str[1:] not in _PCODEC:
        return {"compressors": [ZstdCodec(level=3), crc], "filters": None}
    if column.attrs.get("units") == "tick" or name == "block":
        serializer = PCodec(level=8, delta_spec="try_consecutive", delta_encoding_order=1)
    elif name == "unit":
        serializer = PCodec(level=8, delta_spec="none")
    else:
        serializer = PCodec(level=8)
    return {"serializer": serializer, "compressors": crc, "filters": None}


def chunk_rows(shape: tuple[int, ...], dense: bool, itemsize: int = 1) -> int:
    """Rows in a chunk: all of them in small arrays, `DENSE_ROWS` in dense activity.

    Fewer where they are so wide that a chunk would hold more than any is read of.
    """
    width = max(1, prod(shape[1:]))
    rows = DENSE_ROWS if dense else max(1, CHUNK // width)
    rows = min(rows, max(1, _caps.CHUNK_BYTES // (width * itemsize)))
    return max(1, min(rows, shape[0]) if shape else 1)


def write_table(
    store: ZarrStore, path: str, table: Table, codecs: str = "default"
) -> dict[str, JSON]:
    """Write a table below the session at `path`; gives its entry in the session's row."""
    where = f"{path}/{table_path(table.name)}"
    _caps.refuse_columns(where, len(table.columns), UsageError)
    for parent in between(path, where):
        put_group(store, parent, {}, only_if_absent=True)
    put_group(store, where, {"name": table.name, "contract": table.contract, **table.attrs})
    arrays: dict[str, JSON] = {}
    for name, column in table.columns.items():
        arrays[name] = _write_column(store, where, table, name, column, codecs)
    metadata = metadata_digest(store, where, arrays)
    entry: dict[str, JSON] = {
        "contract": table.contract,
        "rows": table.rows,
        "arrays": arrays,
        "metadata": metadata,
    }
    return {**entry, "digest": digest(entry)}


def _write_column(
    store: ZarrStore, where: str, table: Table, name: str, column: Column, codecs: str
) -> str:
    values, path, written = column.values, f"{where}/{segment(name)}", _arrays.Ends(store)
    dtype, dense = np.dtype(values.dtype), table.name.startswith("activity/")
    rows = chunk_rows(values.shape, dense and len(values.shape) > 1, dtype.itemsize)
    chunks = (rows, *(max(1, length) for length in values.shape[1:]))
    _caps.refuse_chunk(path, chunks, dtype, UsageError)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Numcodecs codecs are not in the Zarr version 3")
        array = zarr.create_array(
            written,
            name=path,
            shape=values.shape,
            chunks=chunks,
            dtype="string" if isinstance(dtype, np.dtypes.StringDType) else dtype,
            dimension_names=column.dims,
            attributes={"name": name, **column.attrs},
            fill_value="" if isinstance(dtype, np.dtypes.StringDType) else 0,
            config={"write_empty_chunks": True},
            **codecs_of(dtype, name, column, codecs),
        )
    total = hashlib.sha256()
    with ThreadPoolExecutor(1) as beside:  # neither the digest nor an encoder holds the GIL
        for first, run in _runs(values, rows):
            for chunk in range(0, len(run), rows):
                _caps.refuse_text(path, run[chunk : chunk + rows])
            digests = beside.submit(_chunk_digests, run, rows)
            array[first : first + len(run)] = run
            total.update(digests.result())
    ends = b"".join(written.ends[key] for key in chunk_keys(path, values.shape, chunks))
    document = get_document(store, path) or {}
    document["attributes"] = {**document["attributes"], _arrays.CHECKSUMS: ends.hex()}
    _put_document(store, path, document)
    return total.hexdigest()


def _chunk_digests(run: NDArray[Any], rows: int) -> bytes:
    """The digests of chunks of so many rows, one after another."""
    return b"".join(chunk_digest(run[first : first + rows]) for first in range(0, len(run), rows))


def chunk_keys(path: str, shape: tuple[int, ...], chunks: tuple[int, ...]) -> list[str]:
    """The keys of an array's chunks, in C order."""
    grid = [-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True)]
    return [f"{path}/c/{'/'.join(map(str, index))}" for index in np.ndindex(*grid)]


def _runs(values: Values, rows: int) -> Iterable[tuple[int, NDArray[Any]]]:
    width = max(1, prod(values.shape[1:])) * max(1, np.dtype(values.dtype).itemsize)
    step = rows * max(1, _RUN // (width * rows))
    for first in range(0, values.shape[0], step):
        yield first, np.ascontiguousarray(values[first : first + step])  # as codecs need it


def between(path: str, where: str) -> list[str]:
    """The groups between the one at `path` and the one at `where` below it, outermost first."""
    parts = where.removeprefix(path + "/").split("/")[:-1]
    return [f"{path}/{'/'.join(parts[: k + 1])}" for k in range(len(parts))]


def put_group(
    store: ZarrStore, path: str, attributes: Mapping[str, JSON], *, only_if_absent: bool = False
) -> None:
    """Write a group's document with these attributes."""
    document = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    _put_document(store, path, document, only_if_absent=only_if_absent)


def _put_document(
    store: ZarrStore, path: str, document: Mapping[str, Any], *, only_if_absent: bool = False
) -> None:
    key, data = f"{path}/zarr.json".lstrip("/"), json.dumps(document).encode()
    _caps.refuse_document(key, document, data)
    write = store.set_if_not_exists if only_if_absent else store.set
    sync(write(key, Buffer.from_bytes(data)))


# ---- reading


def get_document(store: ZarrStore, path: str) -> dict[str, Any] | None:
    """The zarr.json of a node, None where there is none."""
    _fork.check()
    key = f"{path}/zarr.json".lstrip("/")
    try:
        buffer = sync(store.get(key, default_buffer_prototype()))
    except StoreError:
        raise
    except BaseException as error:
        _damage.pass_on(error)
        raise _damage.wrap(key, error) from error
    if buffer is None:
        return None
    return _caps.parse(key, buffer.to_bytes())


def children(store: ZarrStore, path: str) -> list[str]:
    """Names of the nodes right below a path, sorted."""

    async def collect() -> list[str]:
        return [name async for name in store.list_dir(path)]

    _fork.check()
    try:
        return sorted(name for name in sync(collect()) if name != "zarr.json")
    except StoreError:
        raise
    except BaseException as error:
        _damage.pass_on(error)
        raise _damage.wrap(path, error) from error


def documents(store: ZarrStore, where: str, arrays: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The documents of a table's group (under ``""``) and of its arrays, by true name.

    Raises
    ------
    DamagedError
        Where one that must be there is not found.
    """
    found = {}
    for name in ("", *arrays):
        path = f"{where}/{segment(name)}" if name else where
        document = get_document(store, path)
        if document is None:
            raise DamagedError(
                f"{path} is named by its session but is not found. {_damage.WAY_OUT}"
            )
        found[name] = document
    return found


def metadata_digest(store: ZarrStore, where: str, arrays: Iterable[str]) -> str:
    """Digest of the documents of a table's group and arrays."""
    return digest(documents(store, where, arrays))


@dataclass(frozen=True, eq=False)
class StoredArray:
    """One array of the store, opened on first use; a damaged or missing chunk is an error.

    It reads by slices of any axis and by integer arrays, as Zarr's orthogonal indexing does.
    """

    store: ZarrStore = field(repr=False)
    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    checksums: str = field(default="", repr=False)
    packed: bool = field(default=False, repr=False)
    """Whether its chunks are PCodec and crc32c alone, along one axis."""

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        _fork.check()
        try:
            return np.asarray(self._array.oindex[key])
        except (StoreError, IndexError):
            raise
        except BaseException as error:
            _damage.pass_on(error)
            raise _damage.wrap(self.path, error) from error

    def chunk(self, number: int) -> _arrays.Packed:
        """A chunk of a packed array."""
        key = f"{self.path}/c/{number}"
        return _arrays.Packed(key, self._ends.get(key, b""), self.chunks[0], self.dtype)

    @cached_property
    def _ends(self) -> dict[str, bytes]:
        ends = bytes.fromhex(self.checksums)
        keys = chunk_keys(self.path, self.shape, self.chunks) if ends else ()
        return {key: ends[4 * k : 4 * k + 4] for k, key in enumerate(keys)}

    @cached_property
    def _array(self) -> zarr.Array[Any]:
        return _arrays.open_array(self.store, self.path, self._ends)

    def chunk_digests(self) -> str:
        """The digest of its content, computed from the stored chunks."""
        rows = self.chunks[0] if self.shape else 1
        total = hashlib.sha256()
        for first in range(0, self.shape[0], rows):
            total.update(chunk_digest(self[first : first + rows]))
        return total.hexdigest()


def keep_chunks(
    chunks: Sequence[tuple[StoredArray, int]], keep: Callable[[int, NDArray[Any]], Kept]
) -> list[Kept]:
    """What is kept of the rows of chunks along the first axis; all are asked for at once.

    Parameters
    ----------
    chunks : sequence of (StoredArray, int)
        Arrays of one store, and numbers of their chunks.
    keep : callable
        Called with a chunk's place among `chunks` and its rows.
    """
    if not all(array.packed for array, _ in chunks):
        runs = [(array, number * array.chunks[0]) for array, number in chunks]
        return [keep(k, one[row : row + one.chunks[0]]) for k, (one, row) in enumerate(runs)]
    _fork.check()

    def cut(place: int, values: NDArray[Any]) -> Kept:
        array, number = chunks[place]
        return keep(place, values[: array.shape[0] - number * array.chunks[0]])

    return (
        _arrays.read_packed(chunks[0][0].store, [a.chunk(n) for a, n in chunks], cut)
        if chunks
        else []
    )


def read_table(store: ZarrStore, path: str, name: str, entry: Mapping[str, Any]) -> Table:
    """A table as stored, lazily, its metadata compared with the session's row.

    Raises
    ------
    DamagedError
        Where the metadata is not what was written.
    """
    where = f"{path}/{table_path(name)}"
    _caps.refuse_columns(where, len(entry["arrays"]))
    found = documents(store, where, entry["arrays"])
    if digest(found) != entry["metadata"]:
        raise DamagedError(f"The metadata of {where} is not what was written. {_damage.WAY_OUT}")
    group = dict(found.pop("").get("attributes", {}))
    check_table(where, group)
    said = group.pop("name"), group.pop("contract")
    if said != (name, entry["contract"]):
        raise DamagedError(
            f"{where} is {said!r:.200}, its row says {name!r:.200}. {_damage.WAY_OUT}"
        )
    contract(entry["contract"])
    try:
        columns = {key: _column(store, where, key, document) for key, document in found.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{where} does not lie as format {FORMAT} says: {error!r:.300}."
        ) from error
    table = Table(*said, columns, group)
    if wrong := check_layout(table):
        raise DamagedError(f"{where}: {wrong[0].message}. {_damage.WAY_OUT}")
    if table.rows != entry["rows"]:
        raise DamagedError(
            f"{where} has {table.rows:,} rows, its session says {entry['rows']:,}. "
            f"{_damage.WAY_OUT}"
        )
    return table


def _column(store: ZarrStore, where: str, name: str, document: Mapping[str, Any]) -> Column:
    path = f"{where}/{segment(name)}"
    said = _caps.array_layout(path, document)
    attrs = dict(document["attributes"])
    attrs.pop("name", None)
    ends = attrs.pop(_arrays.CHECKSUMS, "")
    if ends and len(bytes.fromhex(ends)) != 4 * said.n_chunks:
        raise ValueError(f"{path} has {said.n_chunks:,} chunks and {len(ends) / 8:g} checksums")
    packed = len(said.chunks) == 1 and said.codecs == _PACKED
    array = StoredArray(store, path, said.shape, said.dtype, said.chunks, ends, packed)
    return Column(said.dims, array, attrs)


@dataclass(frozen=True, eq=False)
class Seconds:
    """Ticks read as float64 seconds on the session clock, lazily; NaN where missing."""

    ticks: Values
    rate: Fraction

    @property
    def shape(self) -> tuple[int, ...]:
        """As the ticks."""
        return self.ticks.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """float64."""
        return np.dtype(np.float64)

    def __getitem__(self, key: Any) -> NDArray[np.float64]:
        return Clock(self.rate).seconds(np.asarray(self.ticks[key]))
