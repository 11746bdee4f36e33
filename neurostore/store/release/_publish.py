"""Publishing: one snapshot as a release, written so that it can be stopped and gone on with.

``release.json`` comes last, so that what is half written is no release. Whatever is there already
with the right bytes is left as it is, and everything is read back and held against its sha256.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from neurostore.errors import DamagedError, StoreError, UsageError
from neurostore.store import _damage, _fork
from neurostore.store._format import canonical, session_path
from neurostore.store._together import together
from neurostore.store.release._checked import check_node
from neurostore.store.release._described import (
    DESCRIBED,
    Own,
    bundled,
    cards_in,
    read_cards,
    release_files,
)
from neurostore.store.release._files import PART, Files, files_at
from neurostore.store.release._manifest import (
    CATALOGUE,
    DOCUMENT,
    KEY_BYTES,
    LISTING_BYTES,
    RELEASE,
    RELEASE_BYTES,
    UNFINISHED,
    About,
    Bytes,
    Listing,
    Manifest,
    check_document,
    check_file,
    check_key,
    is_document,
    manifest_path,
)
from neurostore.store.urls import Place, is_repository, parse

if TYPE_CHECKING:
    from pathlib import Path

    from zarr.abc.store import Store as ZarrStore

    from neurostore.store._versions import Commit
    from neurostore.store.store import Store

_logger = logging.getLogger("neurostore")
Progress = Callable[[int, int], None]
"""Called with the bytes that are done and those there are in all."""
_TOGETHER = 16
"""Chunks that are in memory at once."""
_NODES = 8
"""Nodes that are written at once."""


@dataclass(frozen=True)
class Published:
    """What was published, or would be.

    Attributes
    ----------
    merkle_root : str
        Of the release; empty in a dry run.
    replaced : str
        The Merkle root of the release that was there, where it was another one.
    keys, bytes : int
        Of the tree.
    written, written_bytes : int
        Of those, what was not there already; in a dry run what is not there in the right size.
    """

    url: str
    snapshot: str
    merkle_root: str
    replaced: str
    keys: int
    bytes: int
    written: int
    written_bytes: int
    dry_run: bool

    def to_json(self) -> dict[str, Any]:
        """As a plain mapping."""
        return asdict(self)


def publish(
    store: Store,
    target: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    title: str = "",
    licence: str = "",
    citation: str = "",
    cards: Iterable[str | Path] = (),
    files: Mapping[str, bytes] | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Published:
    """Write the snapshot that a store shows as a release; see `Store.publish`."""
    _fork.check()
    for path in files or ():
        try:
            check_file(path, "files=")
        except DamagedError as error:
            raise UsageError(error.line) from error
    given = read_cards(cards)
    place = _target(parse(target, storage_options))
    rows = {session_path(str(row["id"])): row for row in store.rows}
    rows |= {str(one["id"])[1:]: one["row"] for one in store.split_rows + store.stimulus_rows}
    _refuse_clashes(rows)
    work = _Publishing(place, files_at(place), store.zarr, progress)
    sync(work.begin(store.snapshot, rows, dry=dry_run))
    own, known = Own(title, licence, citation).over(work.said), bundled() | given
    if not dry_run:
        listing = sync(work.tree(rows, store._commit))
        kept = sync(work.kept({*DESCRIBED, *(files or {})}))
        known |= cards_in(kept) | given
        described = _described(store, listing, work.sizes, own, known)
        further = {**kept, **described, **(files or {})}
        listing = replace(listing, files={path: Bytes.of(one) for path, one in further.items()})
        data = listing.to_bytes()
        root = listing.merkle_root(Bytes.of(data))
        sync(work.finish(_about(store._commit, root, Bytes.of(data), own), data, further))
    before = "" if work.said is None else work.said.merkle_root
    return Published(
        place.url,
        store.snapshot,
        "" if dry_run else root,
        "" if dry_run or before == root else before,
        len(work.sizes),
        work.total,
        *(work.missing() if dry_run else (work.written, work.written_bytes)),
        dry_run,
    )


def _described(
    store: Store, listing: Listing, sizes: Mapping[str, int], own: Own, cards: Mapping[str, str]
) -> dict[str, bytes]:
    """What tells others of the release, by the manifests and the sizes of its sessions."""
    paths = {session_path(str(row["id"])): str(row["id"]) for row in store.rows}
    held = dict.fromkeys(paths, 0)
    for key, size in sizes.items():
        node = _node(key, held)
        if node is not None:
            held[node] += size
    manifests = {manifest_path(node): (one.size, one.sha256) for node, one in listing.nodes.items()}
    by_id = {paths[node]: size for node, size in held.items()}
    return release_files(store, manifests=manifests, sizes=by_id, own=own, cards=cards)


def _about(commit: Commit, root: str, catalogue: Bytes, own: Own) -> About:
    said, when = (own.title, own.licence, own.citation), commit.time.isoformat()
    return About(commit.snapshot, root, catalogue, *said, when, commit.version)


def _target(place: Place) -> Place:
    """The place itself, if a release can be written there and read back."""
    if "::" in place.path or place.path.partition("://")[0] in ("http", "https", "zip"):
        raise UsageError(
            "A release is written to a folder, a bucket or another filesystem that reads back "
            f"what was written, found {place.url}. Publish to a folder, and copy or zip that."
        )
    if is_repository(place):
        raise UsageError(f"There is a store at {place.url} already. Publish to an empty place.")
    return place


def _refuse_clashes(nodes: Iterable[str]) -> None:
    """A manifest is a file; where another node needs a folder of that name, no disk can hold both.

    Raises
    ------
    UsageError
    """
    files = {manifest_path(node) for node in nodes}
    for path in files:
        folder = path.rpartition("/")[0]
        while folder:
            if folder in files:
                names = f"{folder} and {path}"
                raise UsageError(f"{names} cannot lie in one release. Give one another name.")
            folder = folder.rpartition("/")[0]


@dataclass(eq=False)
class _Publishing:
    """What is being written where, and how far it has come.

    Attributes
    ----------
    sizes : dict
        Bytes of every key of the tree.
    there : dict
        Bytes of every file at the target.
    """

    place: Place
    files: Files
    source: ZarrStore
    progress: Progress | None
    sizes: dict[str, int] = field(default_factory=dict)
    there: dict[str, int] = field(default_factory=dict)
    before: bytes | None = None
    said: About | None = None
    written: int = 0
    written_bytes: int = 0
    done: int = 0
    total: int = 0

    async def begin(self, snapshot: str, nodes: Iterable[str], *, dry: bool) -> None:
        """Learn what there is here and there; refuse a target that holds anything else.

        Raises
        ------
        UsageError, StoreError
        """
        self.there = await self.files.sizes()
        mark = canonical({"snapshot": snapshot})
        self.before = await self.files.read(RELEASE, RELEASE_BYTES)
        if self.before is not None:
            self.said = About.parse(self.before, f"{self.place.url}/{RELEASE}")
            if self.said.snapshot != snapshot:
                raise UsageError(
                    f"{self.place.url} holds the release of snapshot {self.said.snapshot}, this is "
                    f"{snapshot}. A release is never overwritten: publish to another place."
                )
        elif self.there.keys() - {UNFINISHED + PART}:
            begun = await self.files.read(UNFINISHED, len(mark) + 1)
            if begun is None or not mark.startswith(begun):
                raise UsageError(
                    f"{self.place.url} is not empty, and what is there is not the beginning of a "
                    f"release of {snapshot}. Publish to an empty place."
                )
        self.sizes = await self._sizes(set(nodes))
        self.total = sum(self.sizes.values())
        if self.before is None and not dry:
            await self._ensure(UNFINISHED, mark)

    async def _sizes(self, nodes: set[str]) -> dict[str, int]:
        sizes: dict[str, int] = {}

        async def one(key: str) -> None:
            check_key(key, "The store")
            sizes[key] = await self.source.getsize(key)
            if sizes[key] > KEY_BYTES:
                raise StoreError(
                    f"{key} has {sizes[key]:,} bytes, a release holds keys of at most "
                    f"{KEY_BYTES:,}. Store it again in smaller chunks."
                )

        await together(one, [key async for key in self.source.list()])
        for key in sizes:
            if _node(key, nodes) is None and not is_document(key):
                raise StoreError(f"{key} lies below nothing that this version can publish.")
        return sizes

    def missing(self) -> tuple[int, int]:
        """How many keys are not there in their size, and their bytes."""
        sizes = [size for key, size in self.sizes.items() if self.there.get(key) != size]
        return len(sizes), sum(sizes)

    # ---- the tree

    async def tree(self, rows: Mapping[str, Mapping[str, Any]], commit: Commit) -> Listing:
        """Write every key, and the manifest of every node; gives what the catalogue says."""
        own: dict[str, list[str]] = {path: [] for path in rows}
        above = []
        for key in sorted(self.sizes):
            node = _node(key, rows)
            above.append(key) if node is None else own[node].append(key.removeprefix(f"{node}/"))
        documents: dict[str, str] = {}
        nodes: dict[str, Bytes] = {}
        some = asyncio.Semaphore(_TOGETHER)

        async def one(node: str) -> None:
            manifest, documents[node] = await self._node(node, own[node], rows[node], some)
            nodes[node] = Bytes.of(manifest)

        for key in above:
            data = await self._read(key)
            documents[key.removesuffix(DOCUMENT).rstrip("/")] = _text(key, data)
            await self._copy(key, data)
        await together(one, sorted(rows), _NODES)
        when = commit.time.isoformat()
        said = {"parent": commit.parent, "time": when, "message": commit.message}
        about = {**said, "metadata": dict(commit.metadata)}
        return Listing(commit.snapshot, about, documents, nodes, {})

    async def _node(
        self, node: str, keys: Sequence[str], row: Mapping[str, Any], some: asyncio.Semaphore
    ) -> tuple[bytes, str]:
        """Write what lies below a node, and its manifest; gives that and the node's document."""
        found: dict[str, Bytes] = {}
        texts: dict[str, str] = {}
        for key in filter(is_document, keys):
            data = await self._read(f"{node}/{key}")
            texts[key], found[key] = _text(f"{node}/{key}", data), Bytes.of(data)
            await self._copy(f"{node}/{key}", data)
        chunks = check_node(node, texts, row)
        if missing := chunks.keys() - {*keys}:
            raise DamagedError(f"Chunk {node}/{min(missing)} is not found. {_damage.WAY_OUT}")

        async def one(key: str) -> None:
            async with some:
                data = await self._read(f"{node}/{key}")
                if (chunk := chunks.get(key)) is not None:
                    chunk.check(f"{node}/{key}", data)
                found[key] = Bytes.of(data)
                await self._copy(f"{node}/{key}", data)

        await together(one, [key for key in keys if not is_document(key)], _TOGETHER)
        own = texts.pop(DOCUMENT)
        manifest = Manifest(node, found, texts).to_bytes()
        _refuse_large(manifest_path(node), manifest)
        await self._ensure(manifest_path(node), manifest)
        return manifest, own

    async def _read(self, key: str) -> bytes:
        try:
            found = await self.source.get(key, default_buffer_prototype())
        except StoreError:
            raise
        except BaseException as error:
            _damage.pass_on(error)
            raise _damage.wrap(key, error) from error
        if found is None:
            raise DamagedError(f"{key} is not found. {_damage.WAY_OUT}")
        return found.to_bytes()

    async def _copy(self, key: str, data: bytes) -> None:
        if await self._ensure(key, data):
            self.written += 1
            self.written_bytes += len(data)
        self.done += len(data)
        if self.progress is not None:
            self.progress(self.done, self.total)

    async def _ensure(self, key: str, data: bytes) -> bool:
        """Make sure of the bytes of a file, by reading it; gives whether it was written."""
        most = len(data) + 1
        if self.there.get(key) == len(data) and await self.files.read(key, most) == data:
            return False
        await self.files.write(key, data)
        if await self.files.read(key, most) != data:
            raise StoreError(
                f"{self.place.url}/{key} reads otherwise than it was written. Nothing is "
                "released: publish again, or to another place."
            )
        self.there[key] = len(data)
        return True

    async def kept(self, anew: Collection[str]) -> dict[str, bytes]:
        """Further files of the release that is there, but for those that are made anew.

        Raises
        ------
        UsageError
            Where one of them is damaged, which nothing here can mend.
        """
        if self.said is None:
            return {}
        data = await self.files.read(CATALOGUE, LISTING_BYTES + 1)
        try:
            listing = Listing.parse(data or b"", self.said, f"{self.place.url}/{CATALOGUE}")
        except DamagedError as error:
            _logger.warning("Further files stay only where they are given again: %s", error.line)
            return {}
        found = {}
        for path, one in listing.files.items():
            if path not in anew:
                data = await self.files.read(path, one.size + 1)
                if data is None or Bytes.of(data) != one:
                    raise UsageError(
                        f"{path} of the release at {self.place.url} is not what was published, and "
                        "the store does not hold it. Give it again: files=, or --cards for a card."
                    )
                found[path] = data
        return found

    # ---- what makes it a release

    async def finish(self, about: About, catalogue: bytes, further: Mapping[str, bytes]) -> None:
        """Write further files, the catalogue and, last, ``release.json``."""
        _refuse_large(CATALOGUE, catalogue)
        text = about.to_bytes()
        if self.before not in (None, text):  # of the same snapshot, but said otherwise
            await self._ensure(UNFINISHED, canonical({"snapshot": about.snapshot}))
            await self.files.remove(RELEASE)
        for path, data in further.items():
            await self._ensure(path, data)
        await self._ensure(CATALOGUE, catalogue)
        await self._ensure(RELEASE, text)
        if UNFINISHED in self.there:
            await self.files.remove(UNFINISHED)


def _node(key: str, nodes: Collection[str]) -> str | None:
    """The longest node that a key lies below."""
    while "/" in key:
        key = key.rpartition("/")[0]
        if key in nodes:
            return key
    return None


def _text(key: str, data: bytes) -> str:
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise DamagedError(f"{key} is no text: {error}. {_damage.WAY_OUT}") from error
    check_document(text, key)
    return text


def _refuse_large(path: str, data: bytes) -> None:
    if len(data) > LISTING_BYTES:
        raise StoreError(
            f"{path} would take {len(data):,} bytes, at most {LISTING_BYTES:,} are ever read. "
            "Publish fewer sessions a release."
        )
