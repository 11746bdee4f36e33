"""A release, read as a store is: its tree as a Zarr store, and its one snapshot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.sync import sync

from neurostore.errors import NotFoundError, UsageError
from neurostore.store import _fork
from neurostore.store._columnar import Catalogue
from neurostore.store._together import together
from neurostore.store.release._files import Files, files_at
from neurostore.store.release._manifest import (
    CATALOGUE,
    DOCUMENT,
    RELEASE,
    RELEASE_BYTES,
    About,
    Bytes,
    Listing,
    Manifest,
    manifest_path,
)
from neurostore.store.urls import Place

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from neurostore.store._versions import Commit


_Buffers: TypeAlias = "list[Buffer | None]"


class Tree(Store):
    """The Zarr tree of a release, read only.

    Documents come from the catalogue and from manifests, which are read once each, and no request
    is made for what does not exist. All bytes are held against the manifest of their node.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True
    supports_partial_writes = False

    def __init__(self, files: Files, listing: Listing, url: str) -> None:
        super().__init__(read_only=True)
        self._files, self._listing, self._url = files, listing, url
        self._manifests: dict[str, Manifest] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and (self._url, self._listing.snapshot) == (
            other._url,
            other._listing.snapshot,
        )

    def __hash__(self) -> int:
        return hash((self._url, self._listing.snapshot))

    def __repr__(self) -> str:
        return f"<Tree of {self._url} at {self._listing.snapshot}>"

    def with_read_only(self, read_only: bool = False) -> Store:
        """The tree itself; it is never writable."""
        if not read_only:
            _refuse()
        return self

    # ---- reading

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """The bytes of a key, checked; None where no manifest names it."""
        data = await self._bytes(key)
        return None if data is None else prototype.buffer.from_bytes(_cut(data, byte_range))

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> _Buffers:
        """Parts of keys, each of which is read and checked whole."""
        return [await self.get(key, prototype, some) for key, some in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether the release names a key."""
        return await self._expected(key) is not None

    async def getsize(self, key: str) -> int:
        """Bytes of a key, as the release says."""
        if (expected := await self._expected(key)) is None:
            raise FileNotFoundError(key)
        return expected.size

    async def _bytes(self, key: str) -> bytes | None:
        if (text := self._document(key)) is not None:
            return _encoded(text)
        if (node := self._node(key)) is None:
            return None
        manifest, below = await self.manifest(node), key.removeprefix(f"{node}/")
        if below in manifest.documents:
            return _encoded(manifest.documents[below])
        if (expected := manifest.keys.get(below)) is None:
            return None
        return await self.checked(key, expected)

    async def _expected(self, key: str) -> Bytes | None:
        if (text := self._document(key)) is not None:
            return Bytes.of(_encoded(text))
        node = self._node(key)
        if node is None:
            return None
        return (await self.manifest(node)).keys.get(key.removeprefix(f"{node}/"))

    async def checked(self, key: str, expected: Bytes) -> bytes:
        """The bytes of a file.

        Raises
        ------
        DamagedError, StoreError
            Where they are not there, or others; where they cannot be read.
        """
        data = await self._files.read(key, expected.size + 1)
        return expected.check(data, f"{self._url}/{key}")

    async def manifest(self, node: str) -> Manifest:
        """The manifest of a node, read once."""
        if node not in self._manifests:
            path, expected = manifest_path(node), self._listing.nodes[node]
            data = await self._files.read(path, expected.size + 1)
            what = f"{self._url}/{path}"
            self._manifests[node] = Manifest.parse(data, node, expected, what)
        return self._manifests[node]

    def _document(self, key: str) -> str | None:
        """The text of a document that stands in the catalogue."""
        path, slash, last = key.rpartition("/")
        return (
            self._listing.documents.get(path) if last == DOCUMENT and (path or not slash) else None
        )

    def _node(self, key: str) -> str | None:
        """The longest node that a key lies below."""
        while "/" in key:
            key = key.rpartition("/")[0]
            if key in self._listing.nodes:
                return key
        return None

    # ---- listing

    async def list(self) -> AsyncIterator[str]:
        """All keys."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """All keys that begin so."""

        def near(path: str) -> bool:
            return f"{path}/".startswith(prefix) or prefix.startswith(f"{path}/")

        nodes = [path for path in self._listing.nodes if near(path)]
        await together(self._load, nodes)
        for path in self._listing.documents:
            if path not in self._listing.nodes and f"{path}/{DOCUMENT}".lstrip("/").startswith(
                prefix
            ):
                yield f"{path}/{DOCUMENT}".lstrip("/")
        for node in nodes:
            for below in self._manifests[node].keys:
                if f"{node}/{below}".startswith(prefix):
                    yield f"{node}/{below}"

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names right below a path; no manifest is read for what lies above the nodes."""
        path = prefix.strip("/")
        start = f"{path}/" if path else ""
        found = {
            one[len(start) :].partition("/")[0]
            for one in self._listing.documents
            if one.startswith(start) and one != path
        }
        if path in self._listing.documents:
            found.add(DOCUMENT)
        node = self._node(f"{start}{DOCUMENT}")
        if node is not None:
            inside = start.removeprefix(f"{node}/")
            keys = (await self.manifest(node)).keys
            found |= {
                one[len(inside) :].partition("/")[0] for one in keys if one.startswith(inside)
            }
        for name in sorted(found):
            yield name

    async def _load(self, node: str) -> None:
        await self.manifest(node)

    # ---- writing: refused

    async def set(self, key: str, value: Buffer) -> None:
        """Refused."""
        _refuse()

    async def delete(self, key: str) -> None:
        """Refused."""
        _refuse()

    def _check_writable(self) -> None:
        _refuse()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _cut(data: bytes, some: ByteRequest | None) -> bytes:
    if isinstance(some, RangeByteRequest):
        return data[some.start : some.end]
    if isinstance(some, OffsetByteRequest):
        return data[some.offset :]
    if isinstance(some, SuffixByteRequest):
        return data[max(0, len(data) - some.suffix) :]
    return data


def _refuse() -> NoReturn:
    raise UsageError(
        "A release is read only; clone it, and write to the clone: neurostore clone URL FOLDER."
    )


@dataclass(frozen=True, eq=False)
class Release:
    """A release: the form of a store that holds one snapshot, and that snapshot's versions."""

    place: Place
    said: About
    listing: Listing
    tree: Tree = field(repr=False)
    files: Files = field(repr=False)

    @classmethod
    def found(cls, place: Place) -> Release | None:
        """The release at a place, of which two files are read; None where there is none.

        Raises
        ------
        DamagedError, StoreError
        """
        _fork.opened()
        return sync(_found(place))

    # ---- as a form of a store

    @property
    def branch(self) -> str:
        """A release has one snapshot, and no other branches."""
        return "main"

    @property
    def versions(self) -> Release:
        """Itself: its one snapshot is all its history."""
        return self

    def head(self) -> str:
        """Its snapshot."""
        return self.said.snapshot

    def cached(self, snapshot: str) -> Catalogue | None:
        """None: its documents are in memory, and are checked as those of a repository are."""
        return None

    def keep(self, snapshot: str, catalogue: Catalogue) -> Catalogue:
        """The catalogue itself: all it was read from is in memory."""
        return catalogue

    def beside(self) -> None:
        """None: its own documents say as much."""
        return

    def file(self, path: str) -> bytes:
        """A further file of the release, such as ``croissant.json``, checked.

        Raises
        ------
        NotFoundError, DamagedError, StoreError
        """
        if path not in self.listing.files:
            raise NotFoundError("file", path, self.listing.files, self.place.url)
        return sync(self.tree.checked(path, self.listing.files[path]))

    # ---- as versions

    def read(self, snapshot: str) -> Tree:
        """Its tree."""
        self.resolve(snapshot)
        _fork.check()
        return self.tree

    def resolve(self, ref: str) -> str:
        """Its snapshot, by its id, the start of it, or ``main``."""
        own = self.said.snapshot
        if ref in (own, "main") or (len(ref) >= 4 and own.startswith(ref)):
            return own
        raise NotFoundError("snapshot", ref, [own], self.place.url)

    def about(self, snapshot: str) -> Commit:
        """The commit that made its snapshot."""
        from neurostore.store._versions import Commit

        one, own = self.listing.commit, self.resolve(snapshot)
        when = datetime.fromisoformat(one["time"])
        return Commit(own, one["parent"], when, one["message"], one["metadata"])

    def log(self, snapshot: str) -> Iterator[Commit]:
        """That commit alone: a release holds no history."""
        yield self.about(snapshot)

    def begin(self) -> NoReturn:
        """Refused."""
        _refuse()

    def commit(
        self, draft: Any, message: str, check: Callable[[str], Mapping[str, Any]]
    ) -> NoReturn:
        """Refused."""
        _refuse()

    def tag(self, name: str, snapshot: str) -> NoReturn:
        """Refused."""
        _refuse()

    def tags(self) -> dict[str, str]:
        """None: a release is of one snapshot."""
        return {}

    def delete_tag(self, name: str) -> NoReturn:
        """Refused."""
        _refuse()

    def branches(self) -> dict[str, str]:
        """Its snapshot, as ``main``."""
        return {self.branch: self.said.snapshot}

    def make_branch(self, name: str, snapshot: str) -> NoReturn:
        """Refused."""
        _refuse()

    def delete_branch(self, name: str) -> NoReturn:
        """Refused."""
        _refuse()

    def alone(self, name: str) -> list[Commit]:
        """None: there is no branch beside it."""
        return []


async def _found(place: Place) -> Release | None:
    """The release at a place; None where there is no ``release.json``.

    Raises
    ------
    DamagedError, StoreError
    """
    files = files_at(place)
    text = await files.read(RELEASE, RELEASE_BYTES + 1)
    if text is None:
        return None
    about = About.parse(text, f"{place.url}/{RELEASE}")
    data = await files.read(CATALOGUE, about.catalogue.size + 1)
    what = f"{place.url}/{CATALOGUE}"
    listing = Listing.parse(about.catalogue.check(data, what), about, what)
    return Release(place, about, listing, Tree(files, listing, place.url), files)
