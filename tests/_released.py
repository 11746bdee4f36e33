"""A store to be published, the places where its release is read, and servers that count."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np

import neurostore
from neurostore import splits
from neurostore.store import Stimulus

LONG = 300_000
"""Spikes of the session whose times take two chunks."""


def build(url: str) -> neurostore.Store:
    """Two sessions (one of two chunks of spikes), a split, and a stimulus with an embedding."""
    rng = np.random.default_rng(0)
    store = neurostore.create(url)
    with store.transaction("two sessions and a stimulus") as tx:
        for name, spikes in (("short", 3000), ("long", LONG)):
            made = neurostore.SessionBuilder(dataset="lab", session=name, subject="mouse-1")
            times = {f"u{k}": np.sort(rng.uniform(0, 100, spikes // 3)) for k in range(3)}
            made.add_units(times, region=["CA1", "CA3", ""])
            made.add_behaviour("wheel", rng.normal(size=1000), start=0, rate=10, units="rad")
            notes = [f"trial {rng.integers(1 << 60)}, µ" for _ in range(60)]
            made.add_intervals("trials", np.arange(60.0), np.arange(60.0) + 0.5, note=notes)
            tx.put(made)
        frames = rng.integers(0, 256, (40, 9, 11)).astype(np.uint8)
        clip = rng.normal(size=(40, 24)).astype(np.float32)
        tx.put(Stimulus("movie", frames=frames, rate=30, embeddings={"clip": clip}))
    lines = [store.session(id).timeline() for id in store.sessions()["id"]]
    with store.transaction("blocks") as tx:
        tx.put(splits.interleaved_blocks("blocks", lines, block=5))
    return store


def zipped(folder: Path, file: Path) -> Path:
    """A release as one zip file."""
    with zipfile.ZipFile(file, "w") as made:
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            made.write(path, path.relative_to(folder).as_posix())
    return file


class _Counting(SimpleHTTPRequestHandler):
    """Files of a folder; what was asked for is kept, and how many requests ran at once."""

    def do_GET(self) -> None:
        counts: Any = self.server
        counts.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def http(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A server of a folder: its URL, and the paths that were asked for."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Counting, directory=str(folder)))
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def s3() -> Iterator[dict[str, Any]]:
    """An object store with the bucket ``lab``; gives the storage options."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    said = {"key": "dummy-key", "secret": "dummy-secret", "endpoint_url": f"http://{host}:{port}"}
    try:  # servers of one process have their buckets in common
        urlopen(Request(f"{said['endpoint_url']}/moto-api/reset", method="POST")).close()
        s3fs.S3FileSystem(**said).mkdir("lab")
        yield said
    finally:
        server.stop()


def publish_alone(end: Any, url: str, target: str) -> None:
    """Publish a store in a process of its own, which says when it begins."""
    store = neurostore.open(url)
    end.send("begun")
    store.publish(target, title="Mice")
    end.close()
