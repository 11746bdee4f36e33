"""`verify`: everything a store keeps held against its checksums, all of it or a sample."""

from __future__ import annotations

import math
import random
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore.errors import Finding, StoreError, UsageError
from neurostore.store import _damage, _unfinished, layout
from neurostore.store._faults import Fault
from neurostore.store._forms import open_form
from neurostore.store._repository import Repository
from neurostore.store._verify._advice import Advice
from neurostore.store._verify._engine import History, places
from neurostore.store._verify._past import Past
from neurostore.store._verify._plan import Plan, Written
from neurostore.store._verify._report import Progress, Report
from neurostore.store._verify._resumed import State, kept
from neurostore.store._verify._values import Looked, Met, check_all, check_some
from neurostore.store.urls import apart, parse, several

if TYPE_CHECKING:
    from neurostore.store._forms import Form
    from neurostore.store._versions import Commit, Versions

THREADS = 8
"""Tables that are looked at at once: hashing and waiting need no lock of the interpreter."""
_SECONDS = 0.2
"""Between two words on how far it is."""


def verify(
    url: str | Path,
    sample: float = 1.0,
    *,
    at: str | None = None,
    seed: int = 0,
    alone: bool = False,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Report:
    """Hold everything a store keeps against its checksums, digests and links.

    A store that is too damaged to be opened can be verified all the same.

    Parameters
    ----------
    url : str or Path
        Of a repository or a release; ``url@tag`` at a tag.
    sample : float
        Share of the chunks that are read, in (0, 1]; all of them are decoded and held against the
        digests of their tables, of some the checksums are computed. Metadata is always whole.
    at : str, optional
        A tag or snapshot instead of the newest one.
    seed : int
        Of the sample.
    alone : bool
        That snapshot only; every commit that a branch or a tag leads to without it.
    resume : bool
        Go on where the same verification was stopped.
    progress : callable, optional
        Called with a `Progress` now and then.

    Returns
    -------
    Report
        `whole`, `faults` with the way out of each, `words()`, `to_json()`.

    Raises
    ------
    NotFoundError, StoreError, UsageError
        Where there is no store, or nothing of it can be read.
    """
    if len(several(url)) != 1:
        raise UsageError(f"One store is verified at a time, found {url}. Verify each of them.")
    text, tag = apart(url)
    if tag is not None and at is not None:
        raise UsageError(f"{url} names the tag {tag!r}, and at={at!r} is given too.")
    form, ref = open_form(parse(text, storage_options)), tag or at
    snapshot = None if ref is None else form.versions.resolve(ref)
    return verify_form(form, snapshot, sample, seed, alone, resume, progress)


def verify_form(
    form: Form,
    snapshot: str | None,
    sample: float,
    seed: int,
    alone: bool,
    resume: bool,
    progress: Callable[[Progress], None] | None,
) -> Report:
    """As `verify`, of a form that nothing was read of: what an engine holds hides damage."""
    if not 0 < sample <= 1:
        raise UsageError(f"sample is a share of the chunks above 0, at most 1, found {sample:g}.")
    began, say, url = time.monotonic(), progress or (lambda _: None), form.place.url
    plan, history, head = Plan(), History(), snapshot or ""
    try:
        head = head or form.head()
    except StoreError as error:
        plan.faults.append(Fault.critical("branch main", "store/branch", error.line))
    try:
        versions = form.versions
    except StoreError as error:
        plan.faults.append(Fault.critical(url, "store/file/unreadable", error.line))
    else:
        history = History.of(versions, head, alone=alone)
    plan.faults += history.faults
    commits = history.commits[:1] if alone else history.commits
    for done, commit in enumerate(commits):
        say(Progress("metadata", done, len(commits), 0, time.monotonic() - began))
        _read(versions, plan, commit)
    chosen = _choose(plan, sample, seed)
    about = [url, head, sample, seed, sorted(plan.written)]
    with kept(about, resume=resume) as state:
        resumed = len(state.done)
        _look(plan, chosen, state, say)
        looked = dict(state.done)
    faults = [*plan.faults, *(_files(form, commits) if commits else ())]
    broken = {key: one for key, one in looked.items() if one.faults}
    if faults or broken:
        past = _past(form, head, history)
        newest = _words(form, plan, faults, broken, sampled=chosen is not None)
        whole = partial(_whole, chosen=chosen, looked=looked)
        advice = Advice(url, plan, commits, broken, whole, past, newest)
        faults = [replace(one, hint=one.hint or advice.at(one)) for one in faults]
        for key, one in broken.items():
            hint = advice.of(plan.written[key])
            faults += [replace(fault, hint=hint) for fault in one.faults]
    faults += _stopped_clone(form)
    return Report(
        url,
        head,
        sample,
        seed,
        plan.snapshots,
        plan.things,
        plan.tables,
        plan.chunks,
        sum(one.chunks for one in looked.values()),
        sum(one.bytes for one in looked.values()),
        time.monotonic() - began,
        resumed,
        tuple(faults),
    )


def _newest(form: Form) -> str:
    """The newest snapshot; nothing where that cannot be told, which is a fault already."""
    try:
        return form.head()
    except StoreError:
        return ""


def _past(form: Form, head: str, history: History) -> Past | None:
    """What speaks of the history; None of a release, which has none."""
    if not isinstance(form, Repository):
        return None
    return Past(form.place.url, _newest(form) or head, history)


def _stopped_clone(form: Form) -> list[Fault]:
    """A clone that is not finished is whole in what it holds, and yet not what it is to be."""
    said = _unfinished.said(form.place) if isinstance(form, Repository) else None
    if said is None:
        return []
    finding = Finding("store/clone/unfinished", "violation", "", "", said[0].rstrip("."))
    return [Fault(form.place.url, finding, said[1])]


def _words(
    form: Form,
    plan: Plan,
    faults: Sequence[Fault],
    broken: Mapping[str, Looked],
    *,
    sampled: bool,
) -> str:
    """How it is with the newest snapshot."""
    newest = _newest(form)
    others = (one for one in faults if one.finding.severity == "critical")
    hurt = any(one.path.partition(" at ")[2] in ("", newest) for one in others)
    if not newest or hurt or any(newest in plan.written[key].snapshots for key in broken):
        return "the newest snapshot has damage of its own."
    command = f"neurostore verify {shlex.quote(form.place.url)} --alone"
    if sampled:
        return f"no damage was met in the newest snapshot ({command} looks at all of it)."
    return f"the newest snapshot is whole ({command} passes)."


def _read(versions: Versions, plan: Plan, commit: Commit) -> None:
    """The metadata of one snapshot; one that cannot be read is a fault."""
    where = f"snapshot {commit.snapshot}"
    try:
        zarr = versions.read(commit.snapshot)
        root = layout.get_document(zarr, "")
        if (root or {}).get("attributes", {}).get("neurostore_format") is None:
            text = f"{where} carries no neurostore_format"
            plan.faults.append(Fault.critical(where, "store/format", text))
        there = places(versions, commit.snapshot)
        plan.add(commit, zarr, there, lambda: versions.log(commit.snapshot))
    except StoreError as error:
        plan.faults.append(Fault.critical(where, "store/file/snapshot", error.line))


def _choose(plan: Plan, sample: float, seed: int) -> Mapping[str, list[list[int]]] | None:
    """Numbers of the chunks of each array of each table that are read; None for all of them."""
    if sample == 1:
        return None
    total = plan.chunks
    wanted = sorted(random.Random(seed).sample(range(total), math.ceil(sample * total)))
    chosen: dict[str, list[list[int]]] = {}
    numbers, first = iter([*wanted, total]), 0
    following = next(numbers)
    for key in sorted(plan.written):  # the same order in every run
        for part in plan.written[key].parts:
            mine = []
            while following < first + part.chunks:
                mine.append(following - first)
                following = next(numbers)
            chosen.setdefault(key, []).append(mine)
            first += part.chunks
    return chosen


def _look(
    plan: Plan,
    chosen: Mapping[str, list[list[int]]] | None,
    state: State,
    say: Callable[[Progress], None],
) -> None:
    """Every table that is not done, some at once."""
    total = plan.chunks if chosen is None else sum(_some(one) for one in chosen.values())
    before = sum(one.chunks for one in state.done.values())
    began, over = time.monotonic(), threading.Event()
    met: list[tuple[int, int]] = []  # appended to by every thread

    def one(written: Written) -> None:
        parts = None if chosen is None else chosen[written.key]
        state.add(written.key, _table(written, parts, over, lambda *each: met.append(each)))

    waiting = iter([one for key, one in plan.written.items() if key not in state.done])
    done, size = before, 0
    with ThreadPoolExecutor(THREADS) as threads, _stopped(over):
        running = {threads.submit(one, each) for each in islice(waiting, 2 * THREADS)}
        while running:
            finished, running = wait(running, _SECONDS, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
            running |= {threads.submit(one, each) for each in islice(waiting, len(finished))}
            some, met[:] = met[:], []
            done, size = done + sum(k for k, _ in some), size + sum(k for _, k in some)
            say(Progress("chunks", done, total, size, time.monotonic() - began))


def _some(parts: list[list[int]]) -> int:
    return sum(map(len, parts))


@contextmanager
def _stopped(over: threading.Event) -> Iterator[None]:
    """Tell the threads, where this one is stopped: they end after the array they are at."""
    try:
        yield
    except BaseException:
        over.set()
        raise


def _table(
    written: Written, chosen: list[list[int]] | None, over: threading.Event, met: Met
) -> Looked:
    chunks, read, faults = 0, 0, list[Fault]()
    for place, part in enumerate(written.parts):
        if over.is_set():
            raise StoreError("The verification was stopped.")
        looked = check_all(part, met) if chosen is None else check_some(part, chosen[place], met)
        chunks, read = chunks + looked.chunks, read + looked.bytes
        faults += looked.faults
    return Looked(chunks, read, faults)


def _whole(
    written: Written,
    chosen: Mapping[str, list[list[int]]] | None,
    looked: Mapping[str, Looked],
) -> bool:
    if chosen is None:
        return not looked[written.key].faults
    return not any(check_all(part, lambda *_: None).faults for part in written.parts)


def _files(form: Form, commits: list[Commit]) -> Iterator[Fault]:
    """What only the form can check: the engine's files, the hashes of a release."""
    own = getattr(form, "verify_files", None)
    if own is None:
        return
    try:
        yield from own(commits)
    except BaseException as error:
        _damage.pass_on(error)
        yield Fault.critical(form.place.url, "store/file/unreadable", str(error).split("\n")[0])
