"""What a store may hold at most: refused by name before anything is made for it.

A store may come from anybody, and a few bytes of it may claim, or expand to, more than there is
memory. Whatever is read goes through here first, and whatever is written keeps to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import DamagedError, NeurostoreError, StoreError, UsageError
from neurostore.store._damage import WAY_OUT

Kind: TypeAlias = type[NeurostoreError]

CHUNK_BYTES = 256 << 20
"""Of a chunk as it is decoded."""
TEXT_BYTES = 64 << 20
"""Of a chunk of text before it becomes strings, which take several times as much."""
STRINGS = 1 << 20
"""Strings in a chunk."""
ELEMENTS = 1 << 48
"""Values in an array."""
CHUNKS = 1 << 19
"""Chunks in an array; their checksums stand in its document."""
DOCUMENT = 8 << 20
"""Bytes of one zarr.json."""
NESTED = 64
"""Lists and mappings within one another in a zarr.json."""
COLUMNS = 4096
"""Arrays of a table."""
DIMS = 16
"""Dimensions of an array."""

CODECS = {"bytes", "transpose", "zstd", "blosc", "gzip", "crc32c", "vlen-utf8", "numcodecs.pcodec"}
"""Shards are none of them: nothing writes them, and a chunk missing inside one reads as zeros."""
_DTYPE = re.compile(r"bool|string|u?int(8|16|32|64)|float(16|32|64)")
_SERIALIZERS = ("bytes", "vlen-utf8", "numcodecs.pcodec")
_COMPRESSORS = ("zstd", "blosc", "gzip")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


# ---- documents


def parse(key: str, data: bytes) -> dict[str, Any]:
    """A zarr.json with attributes, as it was read.

    Raises
    ------
    DamagedError
        Where it is none, is too large or too deep, or holds what JSON and UTF-8 do not have.
    """
    if len(data) > DOCUMENT:
        raise DamagedError(
            f"{key} has {len(data):,} bytes, a document has at most {DOCUMENT:,}. {WAY_OUT}"
        )
    try:
        document: dict[str, Any] = json.loads(data, parse_constant=_no_number)
        document["attributes"].keys()
        if _SURROGATE.search(data):
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{key} is no Zarr metadata: {error!r:.200}. {WAY_OUT}") from error
    if _depth(document) > NESTED:
        raise DamagedError(f"{key} nests deeper than {NESTED} levels. {WAY_OUT}")
    return document


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _depth(value: object) -> int:
    """How deep lists and mappings lie in one another; stops right behind the cap."""
    level, depth = [value], 0
    while level and depth <= NESTED:
        inner = [one for one in level if isinstance(one, dict | list)]
        if not inner:
            break
        level = [x for one in inner for x in (one.values() if isinstance(one, dict) else one)]
        depth += 1
    return depth


# ---- arrays


@dataclass(frozen=True)
class Layout:
    """What an array's document says, once it was found to keep to what is opened."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    dims: tuple[str, ...]
    codecs: tuple[str, ...]

    @property
    def n_chunks(self) -> int:
        """How many chunks it has."""
        return prod(-(-length // one) for length, one in zip(self.shape, self.chunks, strict=True))


def array_layout(path: str, document: Mapping[str, Any]) -> Layout:
    """The layout of an array, by its document alone.

    Raises
    ------
    StoreError
        Where it is of a codec, a dtype or a size that is never opened.
    """
    codecs = _codecs(path, document["codecs"])
    kind = document["data_type"]
    if not (isinstance(kind, str) and _DTYPE.fullmatch(kind)):
        raise StoreError(f"{path} has the data type {kind!r}; only flat numbers, bools and text.")
    text = kind == "string"
    if text != ("vlen-utf8" in codecs):
        raise StoreError(f"{path} keeps {kind} by {', '.join(codecs)}, which do not go together.")
    dtype = np.dtypes.StringDType() if text else np.dtype(kind)
    grid, keys = document["chunk_grid"], document["chunk_key_encoding"]
    if grid["name"] != "regular" or document.get("storage_transformers"):
        raise StoreError(f"{path} has no regular grid of plain chunks, so it is not opened.")
    if keys["name"] != "default" or keys.get("configuration", {}).get("separator", "/") != "/":
        raise StoreError(f"{path} names its chunks by {keys!r:.100}; only 'default' with '/'.")
    shape = _lengths(path, "shape", document["shape"], 0)
    chunks = _lengths(path, "chunk shape", grid["configuration"]["chunk_shape"], 1)
    dims = tuple(document["dimension_names"])
    named = all(isinstance(one, str) for one in dims) and len({*dims}) == len(dims)
    if not (len(shape) == len(chunks) == len(dims) and named):
        raise ValueError(f"shape {shape}, chunks {chunks} and dimensions {dims} of {path}")
    made = Layout(shape, chunks, dtype, dims, codecs)
    if prod(shape) > ELEMENTS:
        raise StoreError(f"{path} claims {prod(shape):,} values, an array has at most 2^48.")
    if made.n_chunks > CHUNKS:
        raise StoreError(f"{path} has {made.n_chunks:,} chunks, an array has at most {CHUNKS:,}.")
    refuse_chunk(path, chunks, dtype)
    return made


def refuse_chunk(
    path: str, chunks: Sequence[int], dtype: np.dtype[Any], kind: Kind = StoreError
) -> None:
    """Refuse chunks that decode to more than a chunk may hold."""
    values = prod(chunks)
    if isinstance(dtype, np.dtypes.StringDType):
        if values > STRINGS:
            raise kind(f"{path} has {values:,} strings a chunk, at most {STRINGS:,}.")
    elif values * dtype.itemsize > CHUNK_BYTES:
        raise kind(
            f"{path} has chunks of {values * dtype.itemsize:,} bytes once they are decoded, at "
            f"most {CHUNK_BYTES:,} (256 MiB)."
        )


def refuse_columns(where: str, count: int, kind: Kind = StoreError) -> None:
    """Refuse a table of too many arrays."""
    if count > COLUMNS:
        raise kind(f"{where} has {count:,} columns, a table has at most {COLUMNS:,}.")


# ---- what is written keeps to it


def refuse_text(path: str, values: NDArray[Any]) -> None:
    """Refuse strings of one chunk that nobody would read again.

    Raises
    ------
    UsageError
    """
    if not isinstance(values.dtype, np.dtypes.StringDType):
        return
    if 4 * (int(np.strings.str_len(values).sum()) + values.size) <= TEXT_BYTES:
        return  # UTF-8 takes four bytes at most
    size = sum(len(str(one).encode()) + 4 for one in values.ravel())
    if size > TEXT_BYTES:
        raise UsageError(
            f"{path} has {size:,} bytes of text in {values.size:,} rows, at most {TEXT_BYTES:,} "
            "(64 MiB). Keep long texts in files, and their names here."
        )


def refuse_document(key: str, document: Mapping[str, Any], data: bytes) -> None:
    """Refuse a zarr.json that nobody would read again.

    Raises
    ------
    UsageError
    """
    if len(data) > DOCUMENT:
        raise UsageError(
            f"{key} would have {len(data):,} bytes, at most {DOCUMENT:,} (8 MiB): an array of very "
            "many chunks, or attributes that belong in a table."
        )
    if _depth(document) > NESTED:
        raise UsageError(f"{key} would nest deeper than {NESTED} levels. Flatten the metadata.")


def _codecs(path: str, said: Any) -> tuple[str, ...]:
    """Names of a chain of codecs of the one shape that is opened, in which sizes are known."""
    names = [str(one["name"]) for one in said]
    inner = [name for one in said for name in _within(one)]
    if unknown := {*names, *inner} - CODECS:
        raise StoreError(
            f"{path} uses the codecs {', '.join(sorted(unknown))[:200]}, which are never opened; "
            f"known: {', '.join(sorted(CODECS))}."
        )
    rest = names[1:] if names[:1] == ["transpose"] else names
    chain = tuple(names)
    if rest and rest[0] in _SERIALIZERS:
        rest = rest[2:] if rest[1:2] and rest[1] in _COMPRESSORS else rest[1:]
        if rest == ["crc32c"]:
            return chain
    raise StoreError(
        f"{path} is encoded by {', '.join(names)[:200]}; expected one of "
        f"{', '.join(_SERIALIZERS)}, then at most one of {', '.join(_COMPRESSORS)}, then crc32c."
    )


def _within(codec: Mapping[str, Any]) -> list[str]:
    """Names of the codecs right inside another one, as shards have them."""
    configuration = codec.get("configuration") or {}
    inner = [*configuration.get("codecs", ()), *configuration.get("index_codecs", ())]
    return [str(one["name"]) for one in inner]


def _lengths(path: str, what: str, said: Any, least: int) -> tuple[int, ...]:
    good = isinstance(said, list) and len(said) <= DIMS
    if not good or not all(type(one) is int and least <= one < 2**63 for one in said):
        raise ValueError(f"the {what} of {path} is {said!r:.100}")
    return tuple(said)
