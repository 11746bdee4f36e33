"""The format of a release, and the checks that hold it against what is found.

A release is a folder (of any filesystem)::

    release.json                    what it is of, and the digest of the catalogue
    catalogue.json                  every group above and at a node, and the digest of each manifest
    manifests/<node>.json           of every key below a node: its size and sha256
    zarr.json, sessions/, splits/, stimuli/   the snapshot as a plain Zarr v3 tree

A **node** is whatever has a row of its own: a session, a version of a split, a stimulus, a version
of an embedding. A key of the tree belongs to the longest node that it lies below; what lies below
none is the document of a group. All JSON here is canonical (`neurostore.store._format.canonical`):
sorted keys, no spaces, UTF-8; but `release.json`, which people read, is indented by two.

``release.json``: ``neurostore_release`` (1), ``snapshot``, ``merkle_root``, ``catalogue`` (path,
size, sha256), ``title``, ``licence``, ``citation``, ``time`` and ``version`` (of the commit, and of
the package that made it), and ``checksum``, the digest of all these.

``catalogue.json``: ``snapshot``; ``commit`` (parent, time, message, metadata); ``documents`` (path
of a group → the text of its ``zarr.json``; its attributes are what a session keeps beside its
tables, its row among them); ``nodes`` (path → size and sha256 of the manifest); ``files`` (path →
size and sha256 of each further file, such as ``croissant.json``).

``manifests/<node>.json``: ``node``; ``keys`` (key below the node → size and sha256);
``documents`` (the same keys that end in ``zarr.json``, but for the node's own → text).

The **Merkle root** is the sha256 of the canonical JSON of the list of ``[path, sha256]`` of
``catalogue.json``, of every manifest and of every further file, sorted by path.

Trust goes from ``release.json`` over the catalogue and a manifest to the bytes of each key: what a
manifest names and is not found, or is other bytes, is damage; what none names does not exist.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from neurostore.errors import DamagedError, StoreError
from neurostore.store._damage import RELEASE_WAY_OUT
from neurostore.store._format import canonical, digest

FORMAT = 1
RELEASE = "release.json"
CATALOGUE = "catalogue.json"
MANIFESTS = "manifests"
UNFINISHED = "publishing.json"
"""Names the snapshot while a release is being written."""
DOCUMENT = "zarr.json"

RELEASE_BYTES = 1 << 20
LISTING_BYTES = 1 << 26
"""The most that a catalogue or a manifest may take."""
DOCUMENT_BYTES = 1 << 22
KEY_BYTES = 1 << 28
"""The most that one chunk, or one further file, may take as it is stored."""
_VALUES = 1 << 21
"""Values in one JSON text: each takes about a hundred bytes of memory once it is parsed."""
_DEPTH = 64

_SEGMENT = r"(?!\.{1,2}(?:/|\Z)|__)[A-Za-z0-9_.-]{1,100}"
_KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SNAPSHOT = re.compile(r"[A-Za-z0-9]{4,64}")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


@dataclass(frozen=True)
class Bytes:
    """What bytes must be: how many, and their sha256."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Bytes:
        """What these are."""
        return cls(len(data), hashlib.sha256(data).hexdigest())

    @classmethod
    def read(cls, said: object, what: str, most: int) -> Bytes:
        """From ``[size, sha256]``."""
        if isinstance(said, list) and len(said) == 2:
            size, sha256 = said
            whole = type(size) is int and 0 <= size <= most
            if whole and isinstance(sha256, str) and _SHA256.fullmatch(sha256):
                return cls(size, sha256)
        raise DamagedError(
            f"{what} has no size up to {most:,} bytes and sha256; found {str(said)[:100]}. "
            f"{RELEASE_WAY_OUT}"
        )

    def to_json(self) -> list[int | str]:
        """As ``[size, sha256]``."""
        return [self.size, self.sha256]

    def check(self, data: bytes | None, what: str) -> bytes:
        """The bytes themselves.

        Raises
        ------
        DamagedError
            Where they are not there, or others.
        """
        if data is None:
            raise DamagedError(f"{what} is named by its release, not found. {RELEASE_WAY_OUT}")
        found = Bytes.of(data)
        if found.size != self.size:
            some = f"more than {self.size:,}" if found.size > self.size else f"{found.size:,}"
            raise DamagedError(
                f"{what} has {some} bytes, its release says {self.size:,}. {RELEASE_WAY_OUT}"
            )
        if found != self:
            raise DamagedError(
                f"{what} is not what was published: its sha256 is {found.sha256}, its release "
                f"says {self.sha256}. {RELEASE_WAY_OUT}"
            )
        return data


@dataclass(frozen=True)
class About:
    """What ``release.json`` says.

    Attributes
    ----------
    time : str
        Of the commit, as ISO 8601.
    version : str
        Of the package that made the commit.
    """

    snapshot: str
    merkle_root: str
    catalogue: Bytes
    title: str
    licence: str
    citation: str
    time: str
    version: str

    def to_bytes(self) -> bytes:
        """The text of ``release.json``."""
        said: dict[str, Any] = {"neurostore_release": FORMAT, **asdict(self)}
        said["catalogue"] = {"path": CATALOGUE, **asdict(self.catalogue)}
        said["checksum"] = digest(said)
        return (json.dumps(said, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes, what: str) -> About:
        """Of the text of ``release.json``.

        Raises
        ------
        DamagedError, StoreError
            Where it is not what was written, or of another format.
        """
        said = _parsed(data, what, RELEASE_BYTES)
        checksum, number = said.pop("checksum", None), said.pop("neurostore_release", None)
        if checksum != digest({**said, "neurostore_release": number}):
            raise DamagedError(f"{what} is not what was published. {RELEASE_WAY_OUT}")
        if number != FORMAT:
            raise StoreError(
                f"{what} is of release format {number!r}, this version reads {FORMAT}. "
                "Install a newer neurostore."
            )
        listing = said.pop("catalogue", None)
        if not isinstance(listing, dict) or listing.get("path") != CATALOGUE:
            raise DamagedError(f"{what} names no {CATALOGUE}. {RELEASE_WAY_OUT}")
        found = Bytes.read([listing.get("size"), listing.get("sha256")], what, LISTING_BYTES)
        if {*said} != {*cls.__dataclass_fields__} - {"catalogue"} or not all(
            isinstance(value, str) for value in said.values()
        ):
            raise DamagedError(f"{what} does not say what a release says. {RELEASE_WAY_OUT}")
        if not _SNAPSHOT.fullmatch(said["snapshot"]):
            raise DamagedError(f"{what} names no snapshot. {RELEASE_WAY_OUT}")
        return cls(catalogue=found, **said)


@dataclass(frozen=True)
class Listing:
    """What ``catalogue.json`` says."""

    snapshot: str
    commit: Mapping[str, Any]
    documents: Mapping[str, str]
    nodes: Mapping[str, Bytes]
    files: Mapping[str, Bytes]

    def to_bytes(self) -> bytes:
        """The text of ``catalogue.json``."""
        said: dict[str, Any] = {"snapshot": self.snapshot, "commit": self.commit}
        said["documents"] = self.documents
        said["nodes"] = {path: one.to_json() for path, one in self.nodes.items()}
        said["files"] = {path: one.to_json() for path, one in self.files.items()}
        return canonical(said)

    @classmethod
    def parse(cls, data: bytes, about: About, what: str) -> Listing:
        """Of the text of ``catalogue.json``, held against ``release.json``.

        Raises
        ------
        DamagedError
        """
        about.catalogue.check(data, what)
        said = _fields(_parsed(data, what, LISTING_BYTES), what, "documents", "nodes", "files")
        nodes = _all(said["nodes"], what, LISTING_BYTES)
        files = _all(said["files"], what, KEY_BYTES)
        for path, text in said["documents"].items():
            check_document(text, f"{path or '/'} in {what}")
            check_key(path or DOCUMENT, what)
        if missing := nodes.keys() - said["documents"].keys():
            raise DamagedError(f"{what} holds no document of {min(missing)}. {RELEASE_WAY_OUT}")
        for path in files:
            check_file(path, what)
        commit = said.get("commit")
        if said.get("snapshot") != about.snapshot or not _is_commit(commit):
            raise DamagedError(f"{what} is not of the commit {about.snapshot}. {RELEASE_WAY_OUT}")
        made = cls(about.snapshot, dict(commit or {}), said["documents"], nodes, files)
        if made.merkle_root(about.catalogue) != about.merkle_root:
            raise DamagedError(f"{what} has not the Merkle root of its release. {RELEASE_WAY_OUT}")
        return made

    def merkle_root(self, own: Bytes) -> str:
        """The Merkle root, as the module's docstring says; `own` is what the catalogue is."""
        all = {CATALOGUE: own, **self.files}
        all |= {manifest_path(path): one for path, one in self.nodes.items()}
        return digest(sorted([path, one.sha256] for path, one in all.items()))


@dataclass(frozen=True)
class Manifest:
    """What the manifest of one node says; keys begin below the node."""

    node: str
    keys: Mapping[str, Bytes]
    documents: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """Its text."""
        keys = {key: one.to_json() for key, one in self.keys.items()}
        return canonical({"node": self.node, "keys": keys, "documents": self.documents})

    @classmethod
    def parse(cls, data: bytes | None, node: str, expected: Bytes, what: str) -> Manifest:
        """Of a manifest's text, held against the catalogue.

        Raises
        ------
        DamagedError
        """
        said = _parsed(expected.check(data, what), what, LISTING_BYTES)
        said = _fields(said, what, "keys", "documents")
        keys = _all(said["keys"], what, KEY_BYTES)
        inlined = {key for key in keys if is_document(key) and key != DOCUMENT}
        if said.get("node") != node or inlined != said["documents"].keys():
            raise DamagedError(f"{what} is not the manifest of {node}. {RELEASE_WAY_OUT}")
        for key, text in said["documents"].items():
            where = f"{key} in {what}"
            check_document(text, where)
            keys[key].check(text.encode("utf-8", "surrogatepass"), where)
        return cls(node, keys, said["documents"])


def manifest_path(node: str) -> str:
    """Where the manifest of a node lies."""
    return f"{MANIFESTS}/{node}.json"


def is_document(key: str) -> bool:
    """Whether a key is that of a group's or an array's metadata."""
    return key == DOCUMENT or key.endswith(f"/{DOCUMENT}")


# ---- checks


def check_key(key: object, what: str) -> None:
    """Refuse a key that could lead anywhere else.

    Raises
    ------
    DamagedError
    """
    if not (isinstance(key, str) and _KEY.fullmatch(key)):
        raise DamagedError(
            f"{what} names {str(key)[:100]!r}; a key is segments of letters, digits, '_', '.' and "
            "'-' (1 to 100 of them), joined by '/'. This is no release to be trusted."
        )


def check_file(path: str, what: str) -> None:
    """Refuse a further file that could stand for one of the release's own.

    Raises
    ------
    DamagedError
    """
    check_key(path, what)
    own = {RELEASE, CATALOGUE, UNFINISHED, DOCUMENT, MANIFESTS, "sessions", "splits", "stimuli"}
    if path.partition("/")[0] in own:
        raise DamagedError(f"{what} names the file {path!r}, which is no further file.")


def check_document(text: object, what: str) -> None:
    """Refuse a Zarr document that is too large, or nested too deep, to be parsed.

    Raises
    ------
    DamagedError
    """
    if not isinstance(text, str) or len(text) > DOCUMENT_BYTES:
        raise DamagedError(f"{what} is no text of at most {DOCUMENT_BYTES:,} characters.")
    _check_shape(text.encode("utf-8", "surrogatepass"), what)


def _check_shape(data: bytes, what: str) -> None:
    shape = _STRING.sub(b"", data)
    brackets = shape.translate(None, bytes(set(range(256)) - set(b"[]{}")))
    values = shape.count(b",") + len(brackets)
    if values > _VALUES:
        raise DamagedError(f"{what} holds {values:,} values, at most {_VALUES:,} are read.")
    depth = deepest = 0
    for one in brackets:
        depth += 1 if one in b"[{" else -1
        deepest = max(depth, deepest)
    if deepest > _DEPTH:
        raise DamagedError(f"{what} is nested {deepest:,} deep, at most {_DEPTH} is read.")


def _parsed(data: bytes, what: str, most: int) -> dict[str, Any]:
    """The JSON object that a text is; it is not parsed before its size and depth are known."""
    if len(data) > most:
        raise DamagedError(f"{what} has more than {most:,} bytes. This is no release.")
    _check_shape(data, what)
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{what} is no JSON: {str(error)[:200]}. {RELEASE_WAY_OUT}") from error
    if not isinstance(said, dict):
        raise DamagedError(f"{what} is no JSON object. {RELEASE_WAY_OUT}")
    return said


def _fields(said: dict[str, Any], what: str, *names: str) -> dict[str, Any]:
    for name in names:
        if not isinstance(said.get(name), dict):
            raise DamagedError(f"{what} says nothing of its {name}. {RELEASE_WAY_OUT}")
    return said


def _all(said: Mapping[str, object], what: str, most: int) -> dict[str, Bytes]:
    for key in said:
        check_key(key, what)
    return {key: Bytes.read(one, f"{key} in {what}", most) for key, one in said.items()}


def _is_commit(commit: Any) -> bool:
    if not isinstance(commit, dict) or not isinstance(commit.get("metadata"), dict):
        return False
    try:
        datetime.fromisoformat(commit["time"])
    except (KeyError, TypeError, ValueError):
        return False
    parent = commit.get("parent")
    return isinstance(commit.get("message"), str) and (parent is None or isinstance(parent, str))
