"""Snapshots in a bucket, where the conditional put is the lock.

No machine can lock an object store for another one, but of two puts that each ask for the object
to be as it was only one succeeds. So whatever moves a ref is tried in the order that the lock
guards on a disk, and from the start again where somebody else was first.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import icechunk

from neurostore.errors import ConflictError, NotFoundError, StoreError, UsageError
from neurostore.store import _buckets, _fork, layout
from neurostore.store._beside import beside
from neurostore.store._damage import said
from neurostore.store._leases import Lease
from neurostore.store._versions import (
    BRANCH,
    LOCK_SECONDS,
    ROOT,
    IcechunkDraft,
    IcechunkVersions,
    _limits,
    _named,
    _sealed,
)
from neurostore.store._who import who
from neurostore.store.urls import Place

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

_WAIT = (0.02, 2.0)
"""Seconds of the first and of the longest wait before a commit is tried again."""
_MAKING_SECONDS = 2.0
"""Another creator that has begun has a repository within this time."""
_TAKEN = "clean prefixes"
"""How Icechunk says that there is something at the place of a new repository."""


@dataclass(frozen=True)
class BucketVersions(IcechunkVersions):
    """One Icechunk repository in a bucket of s3, gs or az."""

    @classmethod
    def create(cls, place: Place, start: Callable[[ZarrStore], None], about: dict[str, Any]) -> str:
        """Make a repository whose first commit holds what `start` writes; the snapshot's id.

        Of several creators the one is first whose commit follows the engine's own empty snapshot.
        What a creator that was killed before its commit left is made whole by the next one.
        """
        _fork.opened()
        storage = _buckets.storage(place)
        with _named(place, "made"):
            try:
                repository = icechunk.Repository.create(storage)  # a config is one more race
            except icechunk.IcechunkError as error:
                if _TAKEN not in str(error) and not _raced(error):
                    raise
                if not _appears(storage):  # says more of a refusal, too
                    raise UsageError(
                        f"{place.url} is not empty, and no store. Choose another prefix."
                    ) from error
                repository = icechunk.Repository.open(storage, config=_limits(_buckets.RETRIES))
            session = repository.writable_session(BRANCH)
            if session.snapshot_id != ROOT:
                raise UsageError(_there(place))
            start(session.store)
            message = "store created"
            try:
                return session.commit(message, metadata=_sealed(message, ROOT, about))
            except icechunk.ConflictError as error:
                raise UsageError(_there(place)) from error

    @classmethod
    def open(cls, place: Place, branch: str = BRANCH) -> IcechunkVersions:
        """The repository at a place.

        Raises
        ------
        NotFoundError, StoreError, UsageError
            Where there is none, or it cannot be opened.
        """
        _fork.opened()
        storage = _buckets.storage(place)
        with _named(place, "opened"):
            try:
                found = icechunk.Repository.open(storage, config=_limits(_buckets.RETRIES))
            except icechunk.IcechunkError as error:
                if "doesn't exist" in str(error):
                    raise NotFoundError("store", place.url, []) from error
                # the first request is a HEAD, whose refusal has no words; a GET says why
                icechunk.Repository.exists(storage)
                raise
        return cls(place, found, branch)

    def head(self) -> str:
        """The newest snapshot."""
        found = super().head()
        if found == ROOT:
            raise StoreError(
                f"The store at {self.place.url} is being made, or its making was broken off. "
                "Wait a moment; if it stays so, create it again, which completes it."
            )
        return found

    def begin(self) -> IcechunkDraft:
        """A draft on the newest snapshot: a fork, of which each attempt takes a copy."""
        base = self.head()
        lease = Lease(beside(self.place), {**who(), "pid": os.getpid(), "base": base})
        with _named(self.place, "written"):
            session = self.repository.writable_session(self.branch)
            return IcechunkDraft(session.fork(), session.snapshot_id, lease)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Nothing to hold: whatever moves a ref does so by a conditional put."""
        yield

    def commit(
        self, draft: IcechunkDraft, message: str, check: Callable[[str], Mapping[str, Any]]
    ) -> str:
        """Commit a draft; repeats check, rebase and commit until nobody else was first.

        Raises
        ------
        ConflictError
            Where another commit touched the same thing.
        StoreError
            Where the bucket refuses, or others were first for `LOCK_SECONDS`.
        """
        deadline, wait = time.monotonic() + LOCK_SECONDS, _WAIT[0]
        while time.monotonic() < deadline:
            draft.lease.refuse_ended()
            head = self.head()
            about = dict(check(head))
            try:
                with _named(self.place, "written"):
                    made = self._attempt(draft, head, message, about)
            except StoreError as error:
                made = self._after(error, about, head)
            # the answer to a put may be lost, and the put be made
            made = made or self._mine(about, head)
            if made is not None:
                return made
            time.sleep(random.uniform(0, wait))
            wait = min(2 * wait, _WAIT[1])
        raise StoreError(
            f"Others have committed to {self.place.url} without a break for {LOCK_SECONDS} s. "
            "Nothing was written; repeat it."
        )

    def _attempt(
        self, draft: IcechunkDraft, head: str, message: str, about: dict[str, Any]
    ) -> str | None:
        """One attempt on top of `head`; None where the head has moved on meanwhile."""
        about = dict(about)
        parents = about.pop("parents", ())
        fork = cast("icechunk.ForkSession", deepcopy(draft.session))  # a rebase may fail half-way
        if head != draft.base:
            try:
                fork.rebase(icechunk.ConflictDetector())
            except icechunk.RebaseFailedError as error:
                raise ConflictError(
                    f"This transaction and a commit made meanwhile changed the same thing: "
                    f"{said(error)}. Reopen the store and repeat it."
                ) from error
        session = self.repository.writable_session(self.branch)
        if not session.snapshot_id == fork.snapshot_id == head:
            return None
        session.merge(fork)
        for path in parents:
            layout.put_group(session.store, path, {}, only_if_absent=True)
        try:
            return session.commit(message, metadata=_sealed(message, head, about))
        except icechunk.ConflictError:
            return None

    def _mine(self, about: Mapping[str, Any], head: str) -> str | None:
        """The snapshot that this transaction has become after `head`, if it has."""
        for commit in islice(self.log(self.head()), 1000):
            if commit.snapshot == head or "transaction" not in about:
                break
            if commit.metadata.get("transaction") == about["transaction"]:
                return commit.snapshot
        return None

    def _after(self, error: StoreError, about: Mapping[str, Any], head: str) -> str:
        """What became of a commit whose put failed: its snapshot, or the error with what is known.

        Raises
        ------
        StoreError
        """
        try:
            mine = self._mine(about, head)
        except StoreError:
            known = "Whether it was committed is not known: look at the log before repeating it."
            raise type(error)(f"{error} {known}") from error
        if mine is None:
            raise type(error)(f"{error} Nothing was committed.") from error
        return mine

    def tag(self, name: str, snapshot: str) -> None:
        """Name a snapshot for good; of two writers of one name one is first."""
        with _named(self.place, "written"):
            if name in self.repository.list_branches():
                raise UsageError(f"There is a branch {name!r}. Give the tag another name.")
            if name not in self._tags():
                try:
                    self.repository.create_tag(name, snapshot)
                    return
                except icechunk.IcechunkError as error:
                    if name not in self._tags():
                        raise
                    raise UsageError(self._tagged(name)) from error
            raise UsageError(self._tagged(name))

    def _tagged(self, name: str) -> str:
        there = self.repository.lookup_tag(name)
        return f"The tag {name!r} names {there} already; tags never move."


def _there(place: Place) -> str:
    return f"There is a store at {place.url} already. Open it instead."


def _appears(storage: icechunk.Storage) -> bool:
    """Whether there is a repository, or soon is one that another creator is making."""
    until = time.monotonic() + _MAKING_SECONDS
    while not (there := icechunk.Repository.exists(storage)) and time.monotonic() < until:
        time.sleep(_WAIT[0])
    return there


def _raced(error: icechunk.IcechunkError) -> bool:
    """Whether another creator has put the branch since the place was seen to be empty."""
    return re.search(r"ref already exists|conflict|update is out of date", str(error)) is not None
