"""What a verification has looked at so far, kept in the user's cache until it is done."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from neurostore import cache
from neurostore.errors import UsageError
from neurostore.store._faults import Fault
from neurostore.store._format import digest
from neurostore.store._verify._values import Looked


@dataclass(eq=False)
class State:
    """Tables that are done, by key; written a line each as they are done."""

    done: dict[str, Looked] = field(default_factory=dict)
    _file: IO[str] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, key: str, looked: Looked) -> None:
        """Keep what was found of a table."""
        with self._lock:
            self.done[key] = looked
            if self._file is not None:
                faults = [one.to_json() for one in looked.faults]
                self._file.write(json.dumps([key, looked.chunks, looked.bytes, faults]) + "\n")
                self._file.flush()


@contextmanager
def kept(of: object, *, resume: bool) -> Iterator[State]:
    """The state of the verification that `of` describes; the file goes when it ends well.

    Raises
    ------
    UsageError
        Where it is to be resumed and caches are switched off.
    """
    root = cache.folder()
    if root is None:
        if resume:
            raise UsageError(
                "There is nothing to resume from: caches are switched off (NEUROSTORE_CACHE=off)."
            )
        yield State()
        return
    head = digest(of)
    path = root / "verify" / f"{head}.jsonl"
    done = _load(path, head) if resume else {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a" if done else "w", encoding="utf-8")
    except OSError as error:
        if resume:
            raise UsageError(f"{path} cannot be written ({error.strerror}).") from error
        yield State()  # a run that cannot be resumed is a run all the same
        return
    with file:
        if not done:
            file.write(json.dumps(head) + "\n")
        yield State(done, file)
    path.unlink(missing_ok=True)


def _load(path: Path, head: str) -> dict[str, Looked]:
    """Lines of an earlier run; the last one may be half-written, and is looked at again."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except OSError:
        return {}  # there was none
    done: dict[str, Looked] = {}
    if lines[0] != json.dumps(head):
        return {}
    for line in lines[1:-1]:
        key, chunks, size, faults = json.loads(line)
        done[key] = Looked(chunks, size, [Fault.from_json(one) for one in faults])
    return done
