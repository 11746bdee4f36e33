"""Format 1 without Zarr: the names under which things lie, and their digests."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import UsageError

FORMAT = 1
CHUNK = 1 << 18
"""Values in a chunk of a one-dimensional array."""
_SEGMENT = re.compile(r"[A-Za-z0-9_.-]{1,100}")


# ---- names


def segment(name: str) -> str:
    """The path segment under which a thing of this name is kept; plain names stay as they are."""
    if _SEGMENT.fullmatch(name) and name not in (".", "..", "zarr.json") and name[:2] != "__":
        return name
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:80].strip("-") or "x"
    return f"{plain}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def split_id(id: str) -> tuple[str, str]:
    """``dataset/session`` → (dataset, session); only the first slash counts."""
    dataset, slash, session = id.partition("/")
    if not (dataset and slash and session):
        raise UsageError(f"A session id is <dataset>/<session>, found {id!r}.")
    return dataset, session


def check_id(dataset: str, session: str) -> None:
    """Hold the id of a session that is made against the rule; ids of old stores are read as is.

    Raises
    ------
    UsageError
        Where the dataset has a slash, or a part between slashes is empty, ``.`` or ``..``.
    """
    parts = [dataset, *session.split("/")]
    if "/" in dataset or any(not one.strip() or one in (".", "..") for one in parts):
        raise UsageError(
            f"A session id is <dataset>/<session>, the dataset without '/', and no part between "
            f"slashes empty, '.' or '..'; found dataset {dataset!r}, session {session!r}."
        )


def session_path(id: str) -> str:
    """Where a session lies in the tree."""
    dataset, session = split_id(id)
    return f"sessions/{segment(dataset)}/{segment(session)}"


def table_path(name: str) -> str:
    """Where a table lies below its session: ``behaviour/wheel``."""
    return "/".join(segment(part) for part in name.split("/", 1))


# ---- digests


def canonical(value: object) -> bytes:
    """The one JSON text of a value, for digests."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def digest(value: object) -> str:
    """sha256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value)).hexdigest()


def chunk_digest(chunk: NDArray[Any]) -> bytes:
    """sha256 of a chunk's decoded values: little-endian bytes, or length-prefixed UTF-8."""
    if isinstance(chunk.dtype, np.dtypes.StringDType):
        texts = [str(text).encode() for text in chunk.ravel()]
        data: Any = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    else:
        data = np.ascontiguousarray(chunk, dtype=chunk.dtype.newbyteorder("<")).data
    return hashlib.sha256(data).digest()
