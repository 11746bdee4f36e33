"""What is published is what was committed: documents by their digests, chunks by their ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neurostore.errors import DamagedError
from neurostore.store import _catalogue, layout
from neurostore.store._arrays import CHECKSUMS, check_chunk
from neurostore.store._damage import WAY_OUT
from neurostore.store._format import digest, segment, table_path
from neurostore.store.release._manifest import DOCUMENT


@dataclass(frozen=True)
class Chunk:
    """How a stored chunk ends (empty where nothing is known of it), and whether in its crc32c."""

    end: bytes
    summed: bool

    def check(self, key: str, data: bytes) -> None:
        """Hold the bytes of a chunk against its end.

        Raises
        ------
        DamagedError
        """
        check_chunk(f"Chunk {key}", data, self.end, summed=self.summed)


def check_node(node: str, texts: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, Chunk]:
    """Hold the documents of a node against its row; gives every chunk there must be, by key.

    Parameters
    ----------
    texts : mapping
        Of all documents, by key below the node.

    Raises
    ------
    DamagedError
    """
    found = {key: _document(f"{node}/{key}", text) for key, text in texts.items()}
    attrs = dict(found.get(DOCUMENT, {}).get("attributes", {}))
    if attrs.pop("row", None) != row or digest(attrs) != row["attributes"]:
        raise DamagedError(f"The attributes of {node} are not what was written. {WAY_OUT}")
    _catalogue.check_row(row, node)
    for name, entry in row["tables"].items():
        where = table_path(name)
        paths = {"": where} | {one: f"{where}/{segment(one)}" for one in entry["arrays"]}
        table = {one: found.get(f"{path}/{DOCUMENT}") for one, path in paths.items()}
        if digest(table) != entry["metadata"]:
            raise DamagedError(f"The metadata of {node}/{where} is not what was written. {WAY_OUT}")
    chunks: dict[str, Chunk] = {}
    for key, document in found.items():
        if document.get("node_type") == "array":
            chunks |= _chunks(key.removesuffix(f"/{DOCUMENT}"), document)
    return chunks


def _document(key: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DamagedError(f"{key} is no Zarr metadata: {error}. {WAY_OUT}") from error
    if not isinstance(found, dict):
        raise DamagedError(f"{key} is no Zarr metadata. {WAY_OUT}")
    return found


def _chunks(path: str, document: Mapping[str, Any]) -> dict[str, Chunk]:
    shape = tuple(document["shape"])
    chunks = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
    ends = bytes.fromhex(document["attributes"].get(CHECKSUMS, ""))
    summed = document["codecs"][-1]["name"] == "crc32c"
    keys = layout.chunk_keys(path, shape, chunks)
    return {key: Chunk(ends[4 * k : 4 * k + 4], summed) for k, key in enumerate(keys)}
