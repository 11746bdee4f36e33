"""Whatever is done to a store in whatever order, it holds what a plain dict does.

A machine puts, updates, deletes, commits, tags, reopens and pins at random, through two handles
that know nothing of one another, and expects the conflicts that its model foretells. The nightly
profile (``HYPOTHESIS_PROFILE=nightly``) runs 500 examples.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from zarr.core.sync import sync

import neurostore
from neurostore import ConflictError, UsageError
from neurostore.clocks import Clock
from neurostore.store import Span, layout, tables
from neurostore.store._format import session_path, table_path

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
IDS = ["a/1", "a/2", "b/1"]
NAMES = ["x", "y"]
HANDLES = st.sampled_from([0, 1])
CLOCK = Clock()
ROWS = 70
"""Samples of a series: at eight bytes each they are a file of their own, not in a manifest."""

Tables = dict[str, bytes]
"""The values of a session's series, by name."""
State = dict[str, Tables]


def values(seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=ROWS)


def series(name: str, seed: int) -> Any:
    return tables.behaviour(name, values(seed), Span(CLOCK), start=0, rate=8, units="mm")


def session(id: str, seed: int) -> neurostore.SessionBuilder:
    dataset, name = id.split("/")
    builder = neurostore.SessionBuilder(dataset=dataset, session=name, rate=CLOCK.rate)
    builder.add_behaviour("x", values(seed), start=0, rate=8, units="mm")
    return builder


def read(store: neurostore.Store) -> State:
    """All that a store holds, bit for bit."""
    return {
        id: {
            name: store.session(id).behaviour[name].value.values.tobytes()
            for name in store.session(id).behaviour
        }
        for id in store.sessions()["id"]
    }


@dataclass
class Open:
    """A transaction that is under way, and what its commit is to bring about."""

    tx: neurostore.Transaction
    touched: dict[str, int] = field(default_factory=dict)
    changed: State = field(default_factory=dict)


class Machine(RuleBasedStateMachine):
    """Two handles at one repository, and the dict that it must equal."""

    snapshots = Bundle("snapshots")
    on_disk = False

    @initialize(target=snapshots)
    def begin(self) -> str:
        self.folder = Path(tempfile.mkdtemp(prefix="machine-")) if self.on_disk else None
        self.seeds = itertools.count(1)
        first = neurostore.create(self.folder / "lab" if self.folder else f"memory://{uuid4()}")
        self.url = first.url
        self.state: dict[str, State] = {first.snapshot: {}}
        self.history = [first.snapshot]
        there = {id: next(self.seeds) for id in IDS[1:]}
        with first.transaction("some to edit") as tx:
            for id, seed in there.items():
                tx.put(session(id, seed))
        self.state[first.snapshot] = {id: {"x": values(k).tobytes()} for id, k in there.items()}
        self.history.append(first.snapshot)
        self.handles = [neurostore.open(self.url) for _ in range(2)]
        self.open: list[Open | None] = [None, None]
        self.edits: dict[str, list[int]] = {id: [1] if id in there else [] for id in IDS}
        """Which commits changed a session, by their place in the history."""
        self.validated = ""
        self.tags: dict[str, str] = {}
        self.looked: dict[str, int] = {}
        return first.snapshot

    def teardown(self) -> None:
        for one in self.open if hasattr(self, "open") else ():
            if one is not None:
                one.tx.__exit__(RuntimeError, RuntimeError(), None)
        if getattr(self, "folder", None):
            shutil.rmtree(self.folder)

    # ---- editing

    def _edit(self, which: int) -> tuple[Open, State, int]:
        """The transaction of a handle (a new one), what it sees, and since when."""
        handle = self.handles[which]
        since = self.history.index(handle.snapshot)
        if self.open[which] is None:
            self.open[which] = Open(handle.transaction("an edit").__enter__())
        made = self.open[which]
        assert made is not None
        seen = {**self.state[handle.snapshot], **made.changed}
        return made, {id: said for id, said in seen.items() if said is not None}, since

    def _touch(self, made: Open, id: str, since: int, do: Any) -> bool:
        """Do something to a session; where another handle was sooner, it is a conflict at once.

        A transaction writes on top of the newest snapshot as it begins, so that it finds what was
        changed between its handle's snapshot and that one at the first touch.
        """
        begun = self.history.index(made.tx._draft.base)
        sooner = any(since < k <= begun for k in self.edits[id])
        if sooner and id not in made.touched:
            with pytest.raises(ConflictError):
                do()
            return False
        do()
        made.touched.setdefault(id, since)
        return True

    @rule(which=HANDLES, id=st.sampled_from(IDS), replace=st.booleans())
    def put(self, which: int, id: str, replace: bool) -> None:
        made, seen, since = self._edit(which)
        seed = next(self.seeds)

        def do() -> None:
            if id in seen and not replace:
                with pytest.raises(UsageError, match="in the store already"):
                    made.tx.put(session(id, seed))
            else:
                made.tx.put(session(id, seed), replace=replace)

        if self._touch(made, id, since, do) and (id not in seen or replace):
            made.changed[id] = {"x": values(seed).tobytes()}

    @rule(which=HANDLES, id=st.sampled_from(IDS), name=st.sampled_from(NAMES))
    def update(self, which: int, id: str, name: str) -> None:
        made, seen, since = self._edit(which)
        seed = next(self.seeds)

        def do() -> None:
            if id in seen:
                made.tx.update(id, series(name, seed))
            else:
                with pytest.raises(neurostore.NotFoundError):
                    made.tx.update(id, series(name, seed))

        if self._touch(made, id, since, do) and id in seen:
            made.changed[id] = {**seen[id], name: values(seed).tobytes()}

    @rule(which=HANDLES, id=st.sampled_from(IDS))
    def delete(self, which: int, id: str) -> None:
        made, seen, since = self._edit(which)

        def do() -> None:
            if id in seen:
                made.tx.delete(id)
            else:
                with pytest.raises(neurostore.NotFoundError):
                    made.tx.delete(id)

        if self._touch(made, id, since, do) and id in seen:
            made.changed[id] = None  # type: ignore[assignment]

    @precondition(lambda self: any(self.open))
    @rule(which=HANDLES, target=snapshots)
    def commit(self, which: int) -> str:
        which = which if self.open[which] else 1 - which
        handle, made = self.handles[which], self.open[which]
        assert made is not None
        self.open[which] = None
        before = self.history[-1]
        effective = {
            id: said
            for id, said in made.changed.items()
            if not (said is None and id not in self.state[handle.snapshot])
        }
        lost = [id for id, since in made.touched.items() if max(self.edits[id], default=-1) > since]
        if effective and lost:
            with pytest.raises(ConflictError) as caught:
                made.tx.__exit__(None, None, None)
            assert any(repr(id) in caught.value.line for id in lost)
            assert neurostore.open(handle.url).snapshot == before
            return before
        made.tx.__exit__(None, None, None)
        if not effective:
            assert neurostore.open(handle.url).snapshot == before
            return before
        made_now = made.tx.snapshot
        assert handle.snapshot == made_now != before
        merged = {**self.state[before], **effective}
        self.state[made_now] = {id: said for id, said in merged.items() if said is not None}
        self.history.append(made_now)
        for id in effective:
            self.edits[id].append(len(self.history) - 1)
        return made_now

    @precondition(lambda self: any(self.open))
    @rule(which=HANDLES)
    def give_up(self, which: int) -> None:
        made, self.open[which] = self.open[which], None
        if made is not None:
            made.tx.__exit__(RuntimeError, RuntimeError("given up"), None)

    # ---- looking elsewhere

    @rule(which=HANDLES)
    def refresh(self, which: int) -> None:
        if self.open[which] is None:
            assert self.handles[which].refresh().snapshot == self.history[-1]

    @rule(which=HANDLES)
    def reopen(self, which: int) -> None:
        if self.open[which] is None:
            self.handles[which] = neurostore.open(self.url)
            assert self.handles[which].snapshot == self.history[-1]

    @rule(which=HANDLES, name=st.sampled_from(["t1", "t2", "t3"]))
    def tag(self, which: int, name: str) -> None:
        handle = self.handles[which]
        if name in self.tags:
            with pytest.raises(UsageError, match="tags never move"):
                handle.tag(name)
        else:
            handle.tag(name)
            self.tags[name] = handle.snapshot

    @rule(snapshot=snapshots)
    def go_back(self, snapshot: str) -> None:
        then = neurostore.open(self.url, snapshot)
        assert read(then) == self.state[snapshot]
        with pytest.raises(UsageError, match="cannot be written"):
            then.transaction("no")

    @precondition(lambda self: self.validated != self.history[-1])
    @rule()
    def validate(self) -> None:
        self.validated = self.history[-1]
        store = neurostore.open(self.url)
        assert store.validate() == {id: [] for id in self.state[self.history[-1]]}

    # ---- what always holds

    @invariant()
    def each_handle_reads_its_own_snapshot(self) -> None:
        for handle in getattr(self, "handles", ()):
            if self.looked.get(handle.snapshot) != 1:  # a snapshot never changes: once is enough
                assert read(handle) == self.state[handle.snapshot]
                every_chunk_is_there(handle)
                self.looked[handle.snapshot] = 1

    @invariant()
    def the_log_and_the_tags_are_whole(self) -> None:
        if not hasattr(self, "handles"):
            return
        store = neurostore.open(self.url)
        assert [one.snapshot for one in store.log()] == self.history[::-1]
        assert {name: store.at(name).snapshot for name in self.tags} == self.tags


def every_chunk_is_there(store: neurostore.Store) -> None:
    """Each chunk that a table of the snapshot has is found, and has its digest."""
    for id in store.sessions()["id"]:
        said = store.session(id)
        for name, entry in said.attrs["row"]["tables"].items():
            table = said.stored(name)
            for key, column in table.columns.items():
                assert column.values.chunk_digests() == entry["arrays"][key]
                where = f"{session_path(id)}/{table_path(name)}/{key}"
                keys = layout.chunk_keys(where, column.values.shape, column.values.chunks)
                assert keys
                assert all(sync(store.zarr.exists(one)) for one in keys)


class OnDisk(Machine):
    """The same in a folder, with a lock and a local catalogue."""

    on_disk = True


EXAMPLES = {Machine: (10, 400), OnDisk: (3, 100)}


@pytest.mark.parametrize("machine", [Machine, OnDisk])
def test_a_store_under_any_edits_equals_a_plain_dict(machine: type[Machine]) -> None:
    examples, steps = EXAMPLES[machine][NIGHTLY], 25
    chosen = settings(
        settings.default, max_examples=examples, stateful_step_count=steps, deadline=None
    )
    run_state_machine_as_test(machine, settings=chosen)
