"""Small files of ours beside those of a repository, in ``neurostore/``: leases, what expired."""

from __future__ import annotations

import importlib
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from neurostore.errors import MissingExtraError, StoreError, UsageError
from neurostore.store._damage import refusal, said
from neurostore.store.urls import Place

FOLDER = "neurostore"
"""The folder of a repository in which they lie."""
LIBRARIES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
"""What fsspec needs for each scheme of a bucket; the extra has the scheme's name."""


class Beside(Protocol):
    """Files by name (``leases/<id>``), with the times that their storage gives them.

    All times are of one clock, the storage's: that of the repository's own files, which they are
    compared with. All calls raise `StoreError` where the storage fails.
    """

    def write(self, name: str, data: bytes) -> datetime:
        """Put a whole file in place of whatever there is; when."""
        ...

    def read(self, name: str) -> bytes | None:
        """A file; None where there is none."""
        ...

    def renew(self, name: str) -> datetime | None:
        """Give a file the time of now, and say it; None where it is gone, which it then stays."""
        ...

    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""
        ...

    def list(self, folder: str) -> dict[str, datetime]:
        """The names of the files in a folder (``leases``), with their times."""
        ...


def beside(place: Place) -> Beside:
    """The files beside the repository at a place.

    Raises
    ------
    UsageError
        Where it lies on a storage that has no such files.
    MissingExtraError
        Where what fsspec needs for its bucket is not installed.
    """
    if place.kind == "local":
        return LocalFiles(Path(place.path) / FOLDER)
    if place.kind == "memory":
        return _memory.setdefault(place.path, MemoryFiles())
    if place.kind == "bucket":
        return BucketFiles.of(place)
    raise UsageError(f"{place.url} keeps no leases: it can be read, and not written.")


@dataclass(frozen=True)
class LocalFiles:
    """Files in a folder of a local disk."""

    root: Path

    def write(self, name: str, data: bytes) -> datetime:
        """See `Beside`; a reader sees the old file or the new one."""
        path = self.root / name
        half = path.with_name(f".{uuid.uuid4().hex}")
        with _named(path, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            half.write_bytes(data)
            when = _modified(half.stat())
            half.replace(path)
        return when

    def read(self, name: str) -> bytes | None:
        """See `Beside`."""
        path = self.root / name
        with _named(path, "read"):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def renew(self, name: str) -> datetime | None:
        """See `Beside`."""
        path = self.root / name
        with _named(path, "written"):
            try:
                os.utime(path)
                return _modified(path.stat())
            except FileNotFoundError:
                return None

    def remove(self, name: str) -> None:
        """See `Beside`."""
        path = self.root / name
        with _named(path, "removed"):
            path.unlink(missing_ok=True)

    def list(self, folder: str) -> dict[str, datetime]:
        """See `Beside`."""
        found: dict[str, datetime] = {}
        path = self.root / folder
        with _named(path, "read"):
            for one in path.iterdir() if path.is_dir() else ():
                if one.is_file() and not one.name.startswith("."):
                    with suppress(FileNotFoundError):  # its writer is done meanwhile
                        found[f"{folder}/{one.name}"] = _modified(one.stat())
        return found


@dataclass(frozen=True)
class MemoryFiles:
    """Files in this process's memory."""

    files: dict[str, tuple[bytes, datetime]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, name: str, data: bytes) -> datetime:
        """See `Beside`."""
        with self.lock:
            self.files[name] = (data, datetime.now(UTC))
            return self.files[name][1]

    def read(self, name: str) -> bytes | None:
        """See `Beside`."""
        return self.files.get(name, (None,))[0]

    def renew(self, name: str) -> datetime | None:
        """See `Beside`."""
        with self.lock:
            if name not in self.files:
                return None
            self.files[name] = (self.files[name][0], datetime.now(UTC))
            return self.files[name][1]

    def remove(self, name: str) -> None:
        """See `Beside`."""
        with self.lock:
            self.files.pop(name, None)

    def list(self, folder: str) -> dict[str, datetime]:
        """See `Beside`."""
        with self.lock:
            kept = self.files.items()
            return {name: when for name, (_, when) in kept if name.startswith(f"{folder}/")}


_memory: dict[str, MemoryFiles] = {}


@dataclass(frozen=True)
class BucketFiles:
    """Objects below a prefix of a bucket.

    A renewed one is put again: one that was removed meanwhile comes back, but only gc removes those
    of others, when they were not renewed for so long that whoever renews them ends them too.
    """

    url: str
    root: str
    files: Any

    @classmethod
    def of(cls, place: Place) -> BucketFiles:
        """Those beside the repository at a place."""
        scheme, _, path = place.path.partition("://")
        try:
            importlib.import_module(LIBRARIES[scheme])
        except ImportError as error:
            raise MissingExtraError(f"What lies beside {place.url}", scheme) from error
        import fsspec

        options = {**place.options, "use_listings_cache": False}
        return cls(place.url, f"{path}/{FOLDER}", fsspec.filesystem(scheme, **options))

    def write(self, name: str, data: bytes) -> datetime:
        """See `Beside`."""
        with self._named(name, "written"):
            self.files.pipe_file(self._at(name), data)
            return self._time(name)

    def read(self, name: str) -> bytes | None:
        """See `Beside`."""
        with self._named(name, "read"):
            try:
                found: bytes = self.files.cat_file(self._at(name))
            except FileNotFoundError:
                return None
            return found

    def renew(self, name: str) -> datetime | None:
        """See `Beside`."""
        data = self.read(name)
        return None if data is None else self.write(name, data)

    def remove(self, name: str) -> None:
        """See `Beside`."""
        with self._named(name, "removed"), suppress(FileNotFoundError):
            self.files.rm_file(self._at(name))

    def list(self, folder: str) -> dict[str, datetime]:
        """See `Beside`."""
        found: dict[str, datetime] = {}
        with self._named(folder, "listed"):
            for path, about in self.files.find(self._at(folder), detail=True).items():
                if about["type"] == "directory":  # the folder itself, where its first file came now
                    continue
                name = path.removeprefix(f"{self.root}/")
                with suppress(FileNotFoundError):  # its writer is done meanwhile
                    found[name] = self._time(name)
        return found

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _time(self, name: str) -> datetime:
        when: datetime = self.files.modified(self._at(name))
        return when.astimezone(UTC)

    @contextmanager
    def _named(self, name: str, doing: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of three libraries, each with a tree of its own
            meaning = refusal(error) or "Look at the network and the credentials"
            raise StoreError(
                f"{FOLDER}/{name} in {self.url} cannot be {doing}: {said(error)}. {meaning}. "
                "Nothing was committed."
            ) from error


def _modified(stat: os.stat_result) -> datetime:
    return datetime.fromtimestamp(stat.st_mtime, UTC)


@contextmanager
def _named(path: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be {doing}: {error}. Nothing was committed.") from error
