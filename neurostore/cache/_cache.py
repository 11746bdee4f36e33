"""`Cache`: a folder of entries that processes share, within a bound."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from neurostore.cache._descriptors import OpenFilesError, opened
from neurostore.cache._entry import Entry, same_file
from neurostore.cache._format import SMALL, Header, Shapes, sync_folder
from neurostore.cache._writer import FullError, Writer
from neurostore.errors import JSON, CacheWarning, DamagedError, UsageError

if sys.platform != "win32":  # where there is no cache
    import fcntl

_ENTRY, _BUILDING = ".entry", ".building"
_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_open: WeakValueDictionary[Path, Entry] = WeakValueDictionary()
_said: set[tuple[str, Path]] = set()
_swept: set[Path] = set()
"""Folders that this process has gone through."""


@dataclass(frozen=True)
class Cache:
    """Entries by key; built once by one process while the others wait for it.

    Where the folder cannot be written, the disk is full or the bound leaves no room, nothing is
    built and the caller reads directly: said once in a process, by a `CacheWarning`.

    Attributes
    ----------
    root : Path
    bound : int
        Bytes that all entries may take.
    """

    root: Path
    bound: int

    def get(self, key: str) -> Entry | None:
        """The entry of a key, which counts as used now; None where there is none."""
        path = self._path(key)
        entry = _open.get(path)
        if entry is not None and not entry.damaged and _is(path, entry._inode):
            _touch(path)
            return entry
        try:
            entry = Entry.open(path, key=key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except DamagedError as error:
            self._say("damage", f"{error.line} It is taken away, and built anew.")
            return None
        except OpenFilesError:
            raise
        except OSError as error:
            self._say("read", f"The window cache {self.root} cannot be read: {error}.")
            return None
        _touch(path)
        _open[path] = entry
        return entry

    def build(
        self,
        key: str,
        arrays: Shapes,
        fill: Callable[[Writer], None],
        meta: Mapping[str, JSON] | None = None,
    ) -> Entry | None:
        """The entry of a key, made now if it is not there.

        Parameters
        ----------
        key : str
            Letters, digits, ``-`` and ``_``; a digest of all that the content depends on.
        arrays : mapping
            dtype and shape of every array by name.
        fill : callable
            Fills ``writer.arrays``; what it raises is raised here, and nothing is kept.
        meta : mapping, optional
            JSON to be kept with it.

        Returns
        -------
        Entry or None
            None where it cannot be kept (see the class).
        """
        path, header = self._path(key), Header.of(key, arrays, meta or {})
        try:
            while (entry := self.get(key)) is None:
                with self._builder(key) as file:
                    if file is None:
                        continue
                    entry = self.get(key)  # another may have been done before we had the lock
                    if entry is not None or not self._make(path, file, header, fill):
                        return entry
                return self.get(key)
        except FullError as error:
            self._say("full", f"{error.line} What would be in it is read directly.")
        except _FolderError as error:
            what = f"The window cache {self.root} cannot be written ({error.__cause__})"
            self._say("write", f"{what}; what would be in it is read directly.")
        return entry

    def entries(self) -> list[tuple[Path, os.stat_result]]:
        """Files of the entries, the one used longest ago first."""
        return sorted(_files(self.root, _ENTRY), key=lambda one: one[1].st_mtime_ns)

    def clear(self, keys: list[str] | None = None) -> tuple[int, int]:
        """Remove entries (those of some keys) that nobody uses: how many, and bytes freed."""
        chosen = None if keys is None else {self._path(key) for key in keys}
        count = freed = 0
        for path, stat in self.entries():
            if (chosen is None or path in chosen) and (file := _alone(path)) is not None:
                path.unlink(missing_ok=True)
                os.close(file)
                count, freed = count + 1, freed + stat.st_blocks * 512
        return count, freed

    # ---- one builder

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise UsageError(f"The key of an entry is letters, digits, - and _; found {key!r}.")
        return self.root / f"{key}{_ENTRY}"

    @contextmanager
    def _builder(self, key: str) -> Iterator[int | None]:
        """The file to build in, locked; None once another process has had its turn with it."""
        path = self.root / f"{key}{_BUILDING}"
        with _folder():
            self.root.mkdir(parents=True, exist_ok=True)
            file = opened(path, os.O_RDWR | os.O_CREAT)
        try:
            with _folder():
                ours = _lock(file)
                if not ours:  # shared, so that the readers of the entry are no reason to wait on
                    fcntl.flock(file, fcntl.LOCK_SH)
            if not ours:
                time.sleep(
                    threading.get_native_id() % 7 / 1000
                )  # those who waited together part here
            try:
                yield file if ours and same_file(path, file) else None
            finally:
                if ours and same_file(path, file):  # not renamed: it failed, or was not needed
                    path.unlink(missing_ok=True)
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # the writer's map holds a duplicate of the file
            os.close(file)

    def _make(self, path: Path, file: int, header: Header, fill: Callable[[Writer], None]) -> bool:
        building = path.with_suffix(_BUILDING)
        with self._alone() as room:
            if not self._room(room, header.start + header.size, building):
                return False
            with _folder():
                writer = Writer.start(building, file, header)
        fill(writer)
        with _folder():
            writer.finish()
            building.rename(path)
            if header.start + header.size > SMALL:
                sync_folder(self.root)
        return True

    # ---- the bound

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """While room is made, and taken, by one process at a time; the file that is locked."""
        with _folder():
            file = opened(self.root / "room.lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)

    def _room(self, room: int, size: int, own: Path) -> bool:
        """Whether an entry fits, once others have gone if need be.

        The locked file says how much is taken at most. The folder is gone through only where by
        that there is no room, and once in a process: with many entries it takes long.
        """
        taken = _taken(room) if self.root in _swept else None
        if taken is None or taken + size > self.bound:
            taken = self._evict(size, own)
            _swept.add(self.root)
        if taken + size <= self.bound:
            os.pwrite(room, b"%20d" % (taken + size), 0)
            return True
        self._say(
            "bound",
            f"The window cache {self.root} is bound to {self.bound:,} bytes and has no room for "
            f"another {size:,}; what does not fit is read directly, slower. Give it more: "
            "$NEUROSTORE_CACHE_BOUND, or neurostore.cache.use(bound=...).",
        )
        return False

    def _evict(self, size: int, own: Path) -> int:
        """Evict what was used longest ago, and by nobody now, until `size` fits; bytes left.

        Small ones, which every opening of a session reads, go last, and for small ones alone.
        """
        found = self.entries()
        taken = sum(stat.st_blocks * 512 for _, stat in (*self._building(own), *found))
        entries = [one for one in found if one[1].st_size > SMALL]
        if size <= SMALL:
            entries += [one for one in found if one[1].st_size <= SMALL]
        left, held = taken, list[tuple[Path, int]]()
        try:
            for path, stat in entries if size <= self.bound else ():
                if left + size <= self.bound:
                    break
                if (file := _alone(path)) is not None:
                    held.append((path, file))
                    left -= stat.st_blocks * 512
            if left + size > self.bound:
                return taken
            for path, _ in held:
                path.unlink(missing_ok=True)
            return left
        finally:
            for _, file in held:
                os.close(file)

    def _building(self, own: Path) -> Iterator[tuple[Path, os.stat_result]]:
        """Files others are building in; what a dead builder left is removed."""
        for path, stat in _files(self.root, _BUILDING):
            if path == own:
                continue
            if (file := _alone(path)) is None:
                yield path, stat
            else:
                path.unlink(missing_ok=True)
                os.close(file)

    def _say(self, what: str, text: str) -> None:
        if (what, self.root) not in _said:
            _said.add((what, self.root))
            warnings.warn(text, CacheWarning, stacklevel=2)


class _FolderError(Exception):
    """The folder cannot be written; the cause says why."""


@contextmanager
def _folder() -> Iterator[None]:
    try:
        yield
    except (FullError, OpenFilesError):
        raise
    except OSError as error:
        raise _FolderError from error


def _taken(room: int) -> int | None:
    """Bytes that the locked file says are taken; None where it says nothing."""
    said = os.pread(room, 20, 0).strip()
    return int(said) if said.isdigit() else None


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alone(path: Path) -> int | None:
    """An open file nobody else has locked, locked; None where one has, or where it is gone."""
    try:
        file = opened(path, os.O_RDONLY)
    except OpenFilesError:
        raise
    except OSError:
        return None
    if _lock(file) and same_file(path, file):
        return file
    os.close(file)
    return None


def _files(root: Path, suffix: str) -> Iterator[tuple[Path, os.stat_result]]:
    if not root.is_dir():
        return
    with os.scandir(root) as found:
        for one in found:
            if one.name.endswith(suffix):
                with suppress(FileNotFoundError):  # removed by another process meanwhile
                    yield Path(one.path), one.stat()


def _is(path: Path, inode: int) -> bool:
    try:
        return os.stat(path).st_ino == inode
    except OSError:
        return False


def _touch(path: Path) -> None:
    with suppress(OSError):  # a folder that is only read has no order of use
        os.utime(path)
