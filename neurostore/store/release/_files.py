"""Bytes by key at the place of a release: a folder, or any filesystem that fsspec knows.

A read never takes more bytes than it is told to, and what goes wrong carries no secret.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from neurostore.errors import DamagedError, StoreError
from neurostore.store._damage import pass_on
from neurostore.store.urls import Place, redacted

_URL = re.compile(r"[a-z0-9+]+://[^\s'\"]+")
PART = ".part"
"""How the name of a file ends that is not whole yet."""


class Files(Protocol):
    """What a release is read from and written to; keys are joined by slashes."""

    async def read(self, key: str, most: int) -> bytes | None:
        """At most so many bytes from the start of a file; None where there is none."""
        ...

    async def write(self, key: str, data: bytes) -> None:
        """A file with these bytes, and no others."""
        ...

    async def remove(self, key: str) -> None:
        """Take a file away; it is there."""
        ...

    async def sizes(self) -> dict[str, int]:
        """Bytes of all files, by key."""
        ...


def files_at(place: Place) -> Files:
    """The files of a release at a place."""
    return Folder(Path(place.path)) if place.kind == "local" else Remote(place)


@dataclass(frozen=True)
class Folder:
    """Files in a local folder; no link is followed, and nothing outside is read or written."""

    root: Path

    async def read(self, key: str, most: int) -> bytes | None:
        """At most so many bytes from the start of a file; None where there is none."""
        return await asyncio.to_thread(self._read, key, most)

    async def write(self, key: str, data: bytes) -> None:
        """A file with these bytes, in place at once."""
        await asyncio.to_thread(self._write, key, data)

    async def remove(self, key: str) -> None:
        """Take a file away."""
        with self._named(key, "removed"):
            self._path(key).unlink()

    async def sizes(self) -> dict[str, int]:
        """Bytes of all files, by key."""
        return await asyncio.to_thread(lambda: dict(self._walk()))

    def _path(self, key: str) -> Path:
        path, root = self.root / key, os.path.realpath(self.root)
        if os.path.realpath(path) != os.path.join(root, *key.split("/")):
            raise DamagedError(
                f"{path} is a link, or lies behind one. A release holds none: nothing was read "
                "or written there. Bring it back from a copy."
            )
        return path

    def _read(self, key: str, most: int) -> bytes | None:
        path = self._path(key)
        if not path.is_file():
            return None
        with self._named(key, "read"), path.open("rb") as file:
            return file.read(most)

    def _write(self, key: str, data: bytes) -> None:
        path, beside = self._path(key), self._path(key + PART)
        with self._named(key, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(data)
            beside.replace(path)

    def _walk(self) -> Iterator[tuple[str, int]]:
        for folder, _, names in os.walk(self.root):
            for path in (Path(folder, name) for name in names):
                yield path.relative_to(self.root).as_posix(), path.lstat().st_size

    @contextmanager
    def _named(self, key: str, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self.root / key} cannot be {doing}: {error}.") from error


@dataclass(frozen=True)
class Remote:
    """Files of any filesystem of fsspec, asked as it likes best: in its own loop, or in threads."""

    place: Place

    async def read(self, key: str, most: int) -> bytes | None:
        """At most so many bytes from the start of a file; None where there is none."""
        with self._named(key, "read"):
            try:
                return await self._read(self._path(key), most)
            except FileNotFoundError:
                return None

    async def write(self, key: str, data: bytes) -> None:
        """A file with these bytes."""
        path = self._path(key)
        with self._named(key, "written"):
            if self._native:
                await self._there(self._fs._pipe_file(path, data))
                return
            await asyncio.to_thread(self._fs.makedirs, path.rpartition("/")[0], exist_ok=True)
            await asyncio.to_thread(self._fs.pipe_file, path, data)

    async def remove(self, key: str) -> None:
        """Take a file away."""
        with self._named(key, "removed"):
            await asyncio.to_thread(self._fs.rm_file, self._path(key))

    async def sizes(self) -> dict[str, int]:
        """Bytes of all files, by key, as they are now."""
        with self._named("", "listed"):
            self._fs.invalidate_cache()
            found = await asyncio.to_thread(self._fs.find, self._root, detail=True)
        start = f"{self._root}/".lstrip("/") if self.place.kind != "memory" else f"{self._root}/"
        return {path.removeprefix(start): int(info["size"]) for path, info in found.items()}

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        url = self.place.url if self.place.kind == "memory" else self.place.path
        with self._named("", "opened"):
            fs, root = url_to_fs(url, **self.place.options)
            return fs, str(root).rstrip("/")

    @property
    def _fs(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    @property
    def _native(self) -> bool:
        """Whether its methods are coroutines; those of chained filesystems are not."""
        return "::" not in self.place.path and bool(getattr(self._fs, "async_impl", False))

    def _path(self, key: str) -> str:
        if "?" in self._root:  # a signed address: the signature stays at its end
            parts = urlsplit(self._root)
            return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{key}"))
        return f"{self._root}/{key}" if self._root else key

    async def _read(self, path: str, most: int) -> bytes:
        if not self._native:
            return await asyncio.to_thread(self._read_here, path, most)
        if hasattr(self._fs, "set_session") and hasattr(self._fs, "encode_url"):
            return bytes(await self._there(self._read_http(path, most)))
        return bytes(await self._there(self._fs._cat_file(path, start=0, end=most)))

    def _read_here(self, path: str, most: int) -> bytes:
        if self.place.kind == "memory":  # one open file for all readers, with one position
            return bytes(self._fs.cat_file(path, start=0, end=most))
        with self._fs.open(path, "rb") as file:
            return bytes(file.read(most))

    async def _read_http(self, url: str, most: int) -> bytes:
        """As `HTTPFileSystem._cat_file`, but no more than asked for, whatever the server sends."""
        session, more = await self._fs.set_session(), dict(self._fs.kwargs)
        more["headers"] = {**more.get("headers", {}), "Accept-Encoding": "identity"}
        body = bytearray()
        async with session.get(self._fs.encode_url(url), **more) as answer:
            if answer.status == 404:
                raise FileNotFoundError(url)
            answer.raise_for_status()
            while part := await answer.content.read(most - len(body)):
                body += part
                if len(body) >= most:
                    break
        return bytes(body)

    async def _there(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run in the loop of the filesystem, which is not the one of Zarr."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._fs.loop))

    @contextmanager
    def _named(self, key: str, doing: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except BaseException as error:
            pass_on(error)
            where = f"{self.place.url}/{key}" if key else self.place.url
            text = f"{type(error).__name__}: {self._without_secrets(error)}"
            raise StoreError(f"{where} cannot be {doing}: {text}.") from None

    def _without_secrets(self, error: BaseException) -> str:
        text = str(error).strip().partition("\n")[0].rstrip(".")
        text = _URL.sub(lambda found: redacted(found[0]), text)
        for value in _texts(self.place.options):
            text = text.replace(value, "***") if len(value) > 3 else text
        return text


def _texts(options: object) -> Iterator[str]:
    """All texts among storage options, however deep."""
    if isinstance(options, str):
        yield options
    elif isinstance(options, Mapping):
        for value in options.values():
            yield from _texts(value)
    elif isinstance(options, (list, tuple)):
        for value in options:
            yield from _texts(value)
