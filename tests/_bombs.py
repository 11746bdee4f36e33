"""Stores of a few kilobytes that claim, or expand to, gigabytes; and a process that reads them."""

from __future__ import annotations

import json
import resource
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc
from numcodecs.zstd import Zstd
from pcodec import ChunkConfig, standalone
from zarr.core.buffer.cpu import Buffer
from zarr.core.sync import sync

import neurostore
from neurostore.store import _arrays, _catalogue, layout
from neurostore.store._format import digest, session_path

LARGE = 400 << 20
"""Bytes that the bombs expand to, more than any of them may."""
CRC = {"name": "crc32c"}
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
ZSTD = {"name": "zstd", "configuration": {"level": 3, "checksum": False}}
BLOSC = {
    "name": "blosc",
    "configuration": {
        "typesize": 8,
        "cname": "zstd",
        "clevel": 3,
        "shuffle": "noshuffle",
        "blocksize": 0,
    },
}
GZIP = {"name": "gzip", "configuration": {"level": 1}}
PCODEC = {"name": "numcodecs.pcodec", "configuration": {"level": 8}}
TEXT = {"name": "vlen-utf8", "configuration": {}}
SHARDS = {
    "name": "sharding_indexed",
    "configuration": {
        "chunk_shape": [1],
        "codecs": [BYTES, CRC],
        "index_codecs": [BYTES, CRC],
        "index_location": "end",
    },
}


def signed(content: bytes) -> bytes:
    """A chunk with its crc32c."""
    return content + struct.pack("<I", google_crc32c.value(content))


def gzipped(size: int) -> bytes:
    """So many zeros."""
    made, piece = zlib.compressobj(1, wbits=31), bytes(1 << 22)
    return b"".join(made.compress(piece) for _ in range(size >> 22)) + made.flush()


def array(shape: int, chunk: int, *codecs: Any, dtype: str = "float64", **more: Any) -> Any:
    """What a document of one dimension says."""
    return {
        "shape": [shape],
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [chunk]}},
        "codecs": [*codecs],
        "fill_value": "" if dtype == "string" else 0,
        **more,
    }


def bombs() -> dict[str, tuple[dict[str, Any], bytes | None]]:
    """What is changed in the document of an array, and its chunk, by name."""
    zeros = np.zeros(LARGE, np.uint8)
    zstd, pco = (
        Zstd(level=1).encode(zeros),
        standalone.simple_compress(zeros.view(np.float64), ChunkConfig(compression_level=0)),
    )
    unsaid = b"\x28\xb5\x2f\xfd\x00\x58" + zstd[9:]  # the same frame without a size
    blosc = bytearray(Blosc().encode(np.zeros(100)))
    blosc[4:8] = struct.pack("<I", 2**31 - 17)
    strings = struct.pack("<I", 2**32 - 1) + bytes(64)
    far = {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}}}
    return {
        "zstd": (array(100, 100, BYTES, ZSTD, CRC), signed(bytes(zstd))),
        "zstd without a size": (array(100, 100, BYTES, ZSTD, CRC), signed(unsaid)),
        "blosc": (array(100, 100, BYTES, BLOSC, CRC), signed(bytes(blosc))),
        "gzip": (array(100, 100, BYTES, GZIP, CRC), signed(gzipped(LARGE))),
        "pcodec": (array(100, 100, PCODEC, CRC), signed(pco)),
        "pcodec below zstd": (
            array(100, 100, PCODEC, ZSTD, CRC),
            signed(bytes(Zstd().encode(pco))),
        ),
        "strings": (array(100, 100, TEXT, CRC, dtype="string"), signed(strings)),
        "strings below zstd": (
            array(100, 100, TEXT, ZSTD, CRC, dtype="string"),
            signed(bytes(zstd)),
        ),
        "a chunk of 8 TiB": (array(1 << 40, 1 << 40, BYTES, CRC), None),
        "strings without end": (array(1 << 24, 1 << 24, TEXT, ZSTD, CRC, dtype="string"), None),
        "2^60 values": (array(1 << 60, 1 << 20, BYTES, ZSTD, CRC), None),
        "2^47 values": (array(1 << 47, 1 << 25, BYTES, ZSTD, CRC), None),
        "16 GiB of nothing": (array(1 << 31, 1 << 25, BYTES, ZSTD, CRC), None),
        "2^47 chunks": (array(1 << 47, 1, BYTES, ZSTD, CRC), None),
        "shards": (array(1 << 24, 1 << 24, SHARDS), None),
        "other keys": (array(100, 100, BYTES, CRC, **far), signed(bytes(800))),
        "many codecs": (array(100, 100, BYTES, *[ZSTD] * 9, CRC), signed(bytes(zstd))),
        "no checksum": (array(100, 100, BYTES, ZSTD), bytes(zstd)),
    }


def lay(url: Path) -> dict[str, str]:
    """A store in which one column of every table is a bomb, signed; their places by name.

    A bomb of text is a note of intervals: a value of behaviour must be a number.
    """
    store, made = neurostore.create(url), bombs()
    builder = neurostore.SessionBuilder(dataset="d", session="s")
    builder.add_behaviour("plain", np.arange(100.0), start=0, rate=9, units="rad")
    places = {}
    for number, (name, (document, _)) in enumerate(made.items()):
        if document["data_type"] == "string":
            start = np.arange(100.0)
            builder.add_intervals(f"b{number}", start, start + 1, note=["x"] * 100)
            places[name] = f"intervals/b{number}/note"
        else:
            builder.add_behaviour(f"b{number}", np.arange(100.0), start=0, rate=9, units="rad")
            places[name] = f"behaviour/b{number}/value"
    with store.transaction("first") as tx:
        tx.put(builder)
    draft, path = store._versions.begin(), session_path("d/s")
    attrs = _catalogue.read_attrs(draft.store, path)
    row = attrs.pop("row")
    entries = {name: dict(entry) for name, entry in row["tables"].items()}
    for name, (document, chunk) in made.items():
        array = f"{path}/{places[name]}"
        table = places[name].rpartition("/")[0]
        said = layout.get_document(draft.store, array)
        attributes = {**said["attributes"]}
        attributes.pop(_arrays.CHECKSUMS)
        layout._put_document(draft.store, array, {**said, **document, "attributes": attributes})
        if chunk is not None:
            sync(draft.store.set(f"{array}/c/0", Buffer.from_bytes(chunk)))
        entry = entries[table]
        entry |= {
            "rows": min(document["shape"][0], 1 << 48),
            "metadata": layout.metadata_digest(draft.store, f"{path}/{table}", entry["arrays"]),
        }
        entry["digest"] = digest({k: entry[k] for k in ("arrays", "contract", "metadata", "rows")})
    new = _catalogue.make_row(attrs, entries, "f" * 32)
    layout.put_group(draft.store, path, {**attrs, "row": new})
    total = _catalogue.Total(store._total).plus([row], -1).plus([new])
    about = {"author": "x", "time": "2020-01-01T00:00:00+00:00", "sessions": {}}
    store._versions.commit(draft, "signed", lambda head: about | {"catalogue": total.to_json()})
    return places


def peak() -> int:
    """The most MiB that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main(url: str, *places: str) -> None:
    """Read each bomb; print what it was answered with, and how far memory ever rose by it."""
    session = neurostore.open(url).session("d/s")
    session.behaviour["plain"].value.values.sum()
    session["behaviour/plain"].to_dataframe()
    idle = peak()
    for place in places:
        answers = []
        table, column = place.rsplit("/", 1)
        for ask in (
            lambda table=table, column=column: session[table][column][:1].values,
            lambda table=table, column=column: session[table][column].values,
            lambda table=table, column=column: layout.keep_chunks(
                [(session.stored(table).columns[column].values, 0)],
                lambda place, values: values[:1].copy(),
            ),
            lambda table=table, column=column: session.table(table).columns[column].values[:1],
        ):
            try:
                ask()
                answers.append("read")
            except Exception as error:
                answers.append(f"{type(error).__name__}: {error}"[:300])
        print(json.dumps([place, peak() - idle, answers]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
