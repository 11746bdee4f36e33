"""Leases: what a transaction writes before its commit is kept from gc while its lease is renewed.

A lease is a small file beside the repository. A thread renews it while the transaction is open; gc
keeps whatever is younger than the oldest live one, and ends those that nobody has renewed for
`SECONDS`. A transaction whose lease has ended, or was not renewed for so long, refuses to commit:
gc may have taken what it wrote. All times are those of the storage.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from neurostore.errors import StoreError
from neurostore.store._beside import Beside

LEASES = "leases"
SECONDS = 600.0
"""A lease that was not renewed for so long has ended."""
BEAT = 20.0
"""Seconds between two renewals."""
SKEW = timedelta(minutes=1)
"""How much earlier than it should an object may seem to have been written."""


class Lease:
    """The lease of one transaction, renewed by a thread until it is ended or collected.

    Attributes
    ----------
    name : str
        Of its file.
    """

    def __init__(self, files: Beside, about: Mapping[str, Any]) -> None:
        self.name = f"{LEASES}/{uuid.uuid4().hex}"
        begun = files.write(self.name, json.dumps(dict(about)).encode())
        said = {**about, "begun": begun.isoformat()}  # until now gc takes the time of the file
        self._pulse = _Pulse(files, self.name, files.write(self.name, json.dumps(said).encode()))
        beat = threading.Thread(target=self._pulse.run, name=self.name, daemon=True)
        beat.start()
        self.end = weakref.finalize(self, self._pulse.end)

    def refuse_ended(self) -> None:
        """Raise where it has ended; renewed otherwise.

        Raises
        ------
        StoreError
        """
        why = self._pulse.renew()
        if why:
            raise StoreError(
                f"The lease of this transaction has ended: {why}, and gc may have removed what it "
                "wrote. Nothing was committed; begin the transaction again."
            )


class _Pulse:
    """What the thread holds: no more than the file, so that a transaction can be collected."""

    def __init__(self, files: Beside, name: str, seen: datetime) -> None:
        self._files, self._name, self._seen = files, name, seen
        self._lock, self._over = threading.Lock(), threading.Event()
        self._process, self._why = os.getpid(), ""

    def run(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(StoreError):  # the next beat may succeed; too long a gap ends the lease
                if self.renew():
                    return

    def renew(self) -> str:
        """Renew it; says why that cannot be, for good."""
        with self._lock:
            if self._why or self._over.is_set():
                return self._why or "it was given back"
            now = self._files.renew(self._name)
            if now is None:
                self._why = "its file is gone"
            elif (now - self._seen).total_seconds() > SECONDS:
                gap = (now - self._seen).total_seconds()
                self._why = f"it was not renewed for {gap:,.0f} s (was the process stopped?)"
                self._files.remove(self._name)
            else:
                self._seen = now
            if self._over.is_set():  # given back meanwhile: in a bucket a renewal puts it again
                self._files.remove(self._name)
            return self._why

    def end(self) -> None:
        self._over.set()
        if os.getpid() == self._process:  # a forked child ends nothing of its parent's
            with suppress(StoreError):  # gc ends a file that stays
                self._files.remove(self._name)


@dataclass(frozen=True)
class Held:
    """A lease as others see it.

    Attributes
    ----------
    begun : datetime
        When, by the storage's clock; nothing of its transaction was written before.
    base : str
        The snapshot on which the transaction builds.
    """

    name: str
    begun: datetime
    base: str
    who: str

    def to_json(self) -> dict[str, Any]:
        """As a plain mapping."""
        return {"begun": self.begun.isoformat(), "base": self.base, "who": self.who}


def live(files: Beside, now: datetime) -> Iterator[Held]:
    """The leases that are renewed.

    Raises
    ------
    StoreError
        Where a file of the folder is no lease.
    """
    for name, renewed in files.list(LEASES).items():
        if not dead(renewed, now) and (data := files.read(name)) is not None:
            yield _held(name, renewed, data)


def end_dead(files: Beside, now: datetime) -> int:
    """End the leases that nobody renews; how many."""
    gone = [name for name, renewed in files.list(LEASES).items() if dead(renewed, now)]
    for name in gone:
        files.remove(name)
    return len(gone)


def dead(renewed: datetime, now: datetime) -> bool:
    """Whether a lease has ended that was renewed then."""
    return (now - renewed).total_seconds() > SECONDS


def clock(files: Beside) -> datetime:
    """What time it is for the storage."""
    name = f"clock-{uuid.uuid4().hex}"
    now = files.write(name, b"")
    files.remove(name)
    return now


def _held(name: str, renewed: datetime, data: bytes) -> Held:
    try:
        said = json.loads(data)
        begun = datetime.fromisoformat(said["begun"]) if "begun" in said else renewed
        who = f"{said['author']}@{said['host']}, process {said['pid']}"
        return Held(name, begun, str(said["base"]), who)
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"neurostore/{name} is no lease ({error!r}). Remove it once nobody writes to the store."
        ) from error
