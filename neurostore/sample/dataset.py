"""`Dataset`: chosen sessions, units and streams of a store as windows; seconds in, tensors out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import Clock, exact
from neurostore.errors import JSON, NotFoundError, UsageError, counted
from neurostore.intervals import Intervals
from neurostore.sample._chosen import Chosen, choose
from neurostore.sample._lay import REFUSED, Laid, Totals, lay_session, refuse_unknown_event, totals
from neurostore.sample.acquisition import Acquisition, All
from neurostore.sample.batch import Batch, tensor
from neurostore.sample.loader import Loader
from neurostore.sample.plan import Address, Number, Plan, Ticks, Window
from neurostore.sample.streams import Reader, Stream, TrialTable
from neurostore.splits import Part, Split

if TYPE_CHECKING:
    import torch

    from neurostore.store import Store

_SHOWN = 6


class Dataset:
    """Windows of a store's sessions, numbered; nothing but metadata is read until one is asked for.

    It sees the snapshot that the store showed when it was made, pickles as what it was made of, and
    is opened again where it is unpickled.

    Parameters
    ----------
    store : Store
    sessions : str or sequence of str, optional
        One id, several, or a SQL expression over the catalogue; all of them without it.
    units : str, optional
        A SQL expression over the units: ``"rate_hz < 50 AND region = 'CA1'"``.
    window : Window
    streams : mapping of str to Stream
        What is read, under the names that the batch then has.
    acquisition : Acquisition
        When each channel was observed.
    split : str or Part, optional
        ``"blocks/train"`` of the store, or a part of a split at hand: ``split["train"]``. Targets
        lie inside its blocks; so does the history, and in the same block.
    history_may_cross : bool
        Let the history reach out of the block: for training into time of no other label, for
        validation and test into what comes before them.
    transform : callable, optional
        Batch → whatever a loader is to give; a function of a module, for worker processes.

    Raises
    ------
    UsageError
        Where nothing is chosen, or no window fits, with the numbers; with the nearest name where
        one is unknown.
    """

    def __init__(
        self,
        store: Store,
        sessions: str | Sequence[str] | None = None,
        *,
        window: Window,
        streams: Mapping[str, Stream],
        units: str | None = None,
        acquisition: Acquisition | None = None,
        split: str | Part | None = None,
        history_may_cross: bool = False,
        transform: Callable[[Batch], Any] | None = None,
    ) -> None:
        if not streams:
            raise UsageError("A dataset needs a stream at least: streams={'spikes': Spikes(0.02)}.")
        if acquisition is not None and not isinstance(acquisition, All):
            raise UsageError(f"The acquisition known so far is All(), found {acquisition!r}.")
        if history_may_cross and not window.horizon:
            raise UsageError("history_may_cross needs a horizon: without one all is target.")
        self.store = store.pin()
        self.sessions, self.units, self._window = sessions, units, window
        self.streams, self.acquisition = dict(streams), acquisition or All()
        self.split = _part(self.store, split)
        self.history_may_cross, self.transform = history_may_cross, transform
        self._refuse_empty()

    # ---- what is in it

    @cached_property
    def chosen(self) -> list[Chosen]:
        """The sessions with the units asked for, by id."""
        return choose(self.store, self.sessions, self.units)

    @cached_property
    def _readers(self) -> dict[str, Reader]:
        return {
            name: stream.open(name, self.chosen, self._window)
            for name, stream in self.streams.items()
        }

    @cached_property
    def _laid(self) -> list[Laid]:
        refuse_unknown_event(self.chosen, self._window)
        part, cross = self.split, self.history_may_cross
        return [lay_session(one, self._window, part, may_cross=cross) for one in self.chosen]

    @cached_property
    def plan(self) -> Plan:
        """Which windows there are."""
        return Plan([one.runs for one in self._laid])

    @property
    def session_ids(self) -> list[str]:
        """Ids of the sessions."""
        return [one.session.id for one in self.chosen]

    @property
    def unit_ids(self) -> dict[str, NDArray[Any]]:
        """Ids of the units (unit,) by session."""
        return {one.session.id: one.ids for one in self.chosen}

    @cached_property
    def regions(self) -> tuple[str, ...]:
        """The regions that the codes of a batch stand for."""
        return tuple(sorted({str(name) for one in self.chosen for name in one.regions if name}))

    @cached_property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """By tensor of text: the texts that its codes stand for."""
        made: dict[str, tuple[str, ...]] = {}
        for reader in self._readers.values():
            made |= getattr(reader, "categories", {})
        return made

    def observed(self, session: str) -> dict[int, Intervals]:
        """The time in ticks where windows of a session may lie: by row of the split, or under -1.

        Raises
        ------
        NotFoundError
            Where the dataset has no such session.
        """
        return dict(self._laid[self._row(session)].pieces)

    def steps(self, stream: str) -> tuple[int, int]:
        """How many steps of a stream lie in the history and in the horizon of a window.

        Raises
        ------
        NotFoundError
            Where there is no such stream, with the nearest.
        """
        if stream not in self._steps:
            raise NotFoundError("stream with a time axis", stream, self._steps, "this dataset")
        _, past, horizon = self._steps[stream]
        return past, horizon

    def totals(self) -> dict[str, Totals]:
        """Spikes and observed seconds of every unit, by session, over all time of the split."""
        return {laid.chosen.session.id: totals(laid) for laid in self._laid}

    @property
    def _steps(self) -> dict[str, tuple[int, int, int]]:
        return {k: v for reader in self._readers.values() for k, v in reader.steps.items()}

    def identity(self) -> dict[str, JSON]:
        """All that decides what a window of this dataset holds, as a plain mapping."""
        sessions: dict[str, JSON] = {}
        for one in self.chosen:
            tables = one.session.attrs["row"]["tables"]
            sessions[one.session.id] = {
                "tables": {name: str(tables[name]["digest"]) for name in sorted(tables)},
                "units": [str(id) for id in one.ids.tolist()],
            }
        streams: dict[str, JSON] = {
            name: {"kind": type(stream).__name__, **_plain(stream)}
            for name, stream in sorted(self.streams.items())
        }
        return {
            "url": self.store.url,
            "snapshot": self.store.snapshot,
            "sessions": sessions,
            "window": _plain(self._window),
            "streams": streams,
            "acquisition": type(self.acquisition).__name__,
            "split": None if self.split is None else self.split.digest,
            "label": None if self.split is None else self.split.label,
            "history_may_cross": self.history_may_cross,
            "plan": self.plan.digest,
        }

    # ---- windows

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> Any:
        """Window `index` of the plan, as a batch of one."""
        if isinstance(index, slice):
            raise UsageError(
                "A dataset gives one window a number; sample(n) or loader(n) give many."
            )
        try:
            number = range(len(self))[index]
        except IndexError:  # which ends an iteration, so it stays one
            raise IndexError(
                f"This dataset has {counted(len(self), 'window')}, found the index {index:,}. Take "
                f"{-len(self):,} to {len(self) - 1:,}."
            ) from None
        return self._finish(self.read(self.plan.address(np.array([number]))))

    def sample(self, windows: int, seed: int = 0) -> Any:
        """So many windows, drawn without replacement; always the same for a seed.

        Raises
        ------
        UsageError
            Where there are fewer.
        """
        if not 1 <= windows <= len(self):
            raise UsageError(
                f"sample takes 1 to {len(self):,} windows of this dataset, found {windows:,}."
            )
        return self._finish(self.batch(np.arange(windows), seed=seed))

    def batch(self, places: Ticks, *, seed: int | None, epoch: int = 0) -> Batch:
        """The windows at some places of an epoch; in plan order where the seed is None."""
        numbers = places if seed is None else self.plan.order(places, seed, epoch)
        return self.read(self.plan.address(numbers, places, seed or 0, epoch))

    def window(self, session: str, start: Number) -> Any:
        """The window of a session that starts at a time in seconds, on the plan or not.

        What was not observed in it is masked.

        Raises
        ------
        UsageError
            Where the dataset has a split, and the window does not lie in a block of it.
        """
        row = self._row(session)
        first = self.chosen[row].session.clock.tick(start)
        block = self._block(row, first)
        tick = np.array([first])
        address = Address(np.array([row]), tick, np.array([block]), place=tick)
        return self._finish(self.read(address))

    def _row(self, session: str) -> int:
        if session not in self.session_ids:
            raise NotFoundError("session", session, self.session_ids, "this dataset")
        return self.session_ids.index(session)

    def _block(self, row: int, first: int) -> int:
        if self.split is None:
            return -1
        laid, clock = self._laid[row], self.chosen[row].session.clock
        found = laid.admit(np.array([first]))
        if found[0] > REFUSED:
            return int(found[0])
        window = f"[{_s(clock, first):g}, {_s(clock, first) + float(self._window.length):g}) s"
        raise UsageError(
            f"The window {window} of {self.chosen[row].session.id} does not lie in one block of "
            f"{self.split.name!r}. Leave out the split to look at any time."
        )

    def loader(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        first: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        workers: int = 0,
        context: str = "forkserver",
    ) -> Loader:
        """The batches of one epoch: batch k is a function of (seed, epoch, k) and nothing else.

        Parameters
        ----------
        first : int
            The batch to begin with; the ones before are not read.
        shuffle : bool
            Else in plan order.
        drop_last : bool
            Leave out a last batch that is not full.
        workers : int
            Processes that read ahead; 0 reads where it is called.
        context : {"forkserver", "spawn"}
            How they are started: an open store does not survive a fork.
        """
        return Loader(
            self, batch_size, seed if shuffle else None, epoch, first, drop_last, workers, context
        )

    # ---- reading

    def read(self, address: Address) -> Batch:
        """Windows by address, as a batch in their order."""
        if not len(address.start):
            raise UsageError("A batch holds a window at least, found none asked for.")
        arrays: dict[str, torch.Tensor] = {}
        reason: dict[str, torch.Tensor] = {}
        for reader in self._readers.values():
            for name, (values, why) in reader.read(address).items():
                arrays[name], reason[name] = tensor(values), tensor(why)
        rows = address.session.tolist()
        units, region = self._units(address.session)
        return Batch(
            tensors=arrays,
            mask={name: why == 0 for name, why in reason.items()},
            reason=reason,
            session=[self.chosen[row].session.id for row in rows],
            start=tensor(self._seconds(address)),
            tick=tensor(address.start),
            block=tensor(address.block),
            trial=tensor(self._trial(address)),
            unit_ids=[self.chosen[row].ids for row in rows],
            unit_mask=tensor(units),
            region=tensor(region),
            steps=self._steps,
        )

    def _seconds(self, address: Address) -> NDArray[np.float64]:
        made = np.empty(len(address.start))
        for row in np.unique(address.session):
            here = address.session == row
            made[here] = self.chosen[row].session.clock.seconds(address.start[here])
        return made

    @cached_property
    def _trials(self) -> dict[int, TrialTable | None]:
        return {}

    def _trial(self, address: Address) -> Ticks:
        """Row of the trial of every window's present, -1 outside of trials."""
        made = np.full(len(address.start), -1, dtype=np.int64)
        for row in np.unique(address.session).tolist():
            session = self.chosen[row].session
            if row not in self._trials:
                self._trials[row] = TrialTable.load(session, "trials", ())
            table, here = self._trials[row], address.session == row
            if table is not None:
                made[here] = table.row(address.start[here] + self._window.ticks(session.clock)[0])
        return made

    @cached_property
    def _codes(self) -> list[Ticks]:
        code = {name: number for number, name in enumerate(self.regions)}
        return [
            np.array([code.get(str(name), -1) for name in one.regions], dtype=np.int64)
            for one in self.chosen
        ]

    def _units(self, rows: Ticks) -> tuple[NDArray[np.bool_], Ticks]:
        """Which places (window, unit) are units, and the codes of their regions."""
        lengths = np.array([len(one.ids) for one in self.chosen])[rows]
        region = np.full((len(rows), int(lengths.max(initial=0))), -1, dtype=np.int64)
        for row in np.unique(rows):
            region[rows == row, : len(self._codes[row])] = self._codes[row]
        return np.arange(region.shape[1]) < lengths[:, None], region

    def _finish(self, batch: Batch) -> Any:
        return batch if self.transform is None else self.transform(batch)

    # ---- whole or not at all

    def _refuse_empty(self) -> None:
        readers, laid = self._readers, self._laid  # errors of streams come first
        if len(self.plan) or not readers:
            return
        clocks = [one.session.clock for one in self.chosen]
        longest = max(
            (one.longest / float(clock.rate) for one, clock in zip(laid, clocks, strict=True)),
            default=0.0,
        )
        where = "" if self.split is None else f" of {self.split.name!r}"
        if self.split is not None and not any(one.pieces for one in laid):
            raise UsageError(
                f"The split {self.split.name!r} leaves no target in {', '.join(self.session_ids)}: "
                f"it has blocks in {', '.join(self.split.split.sessions) or 'no session'}."
            )
        window = self._window
        what, least = ("window", window.length)
        if self.history_may_cross:
            what, least = ("target", exact(window.horizon))
        if longest < least:
            raise UsageError(
                f"A {what} of {float(least):g} s is longer than every interval"
                f"{where}: the longest is {longest:g} s. Take a shorter one."
            )
        if window.around is None:
            raise UsageError(
                f"No window of {window} lies in observed time{where}: the longest interval is "
                f"{longest:g} s, but no unit is observed throughout a window"
                + (" whose history it may see." if self.history_may_cross else ".")
                + " Take shorter windows, or other units."
            )
        events = sum(one.events for one in laid)
        raise UsageError(
            f"No window of {window} lies in observed time{where}: of "
            f"{counted(events, 'event')}, none has a whole window around it. Take shorter ones, or "
            "other events."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        state = {
            name: getattr(self, name)
            for name in (
                *("store", "sessions", "units", "_window", "streams", "acquisition", "split"),
                *("history_may_cross", "transform"),
            )
        }
        return _reopen, (state,)

    def __repr__(self) -> str:
        spikes = sum(one.spikes for one in self.chosen)
        units = sum(len(one.ids) for one in self.chosen)
        seconds = sum(
            sum(piece.length for piece in laid.pieces.values()) / float(one.session.clock.rate)
            for one, laid in zip(self.chosen, self._laid, strict=True)
        )
        split = "none" if self.split is None else self.split.name
        cross = "history may cross" if self.history_may_cross else "history inside its block"
        lines = [
            f"<Dataset of {counted(len(self.chosen), 'session')}: {counted(len(self), 'window')} "
            f"in {seconds / 3600:.3g} h",
            f"  window    {self._window}",
            f"  split     {split}{'' if self.split is None else f', {cross}'}",
            f"  units     {units:,} with {spikes:,} spikes"
            + ("" if self.units is None else f" where {self.units}"),
            *(f"  {name:<10}{stream}" for name, stream in self.streams.items()),
            *self._lines_missing(),
        ]
        return "\n".join(lines) + ">"

    def _lines_missing(self) -> Iterator[str]:
        lines = [
            f"{what} in {one.session.id}"
            for row, one in enumerate(self.chosen)
            for reader in self._readers.values()
            if (what := reader.missing(row))
        ]
        none = [
            f"windows in {one.session.id}"
            for one, count in zip(self.chosen, self.plan.by_session(), strict=True)
            if not count
        ]
        lines += none
        shown = [*lines[:_SHOWN], f"and {len(lines) - _SHOWN} more"][: len(lines)]
        for number, line in enumerate(shown if len(lines) > _SHOWN else lines):
            yield f"  {'missing' if not number else '':<10}{line}"


def _part(store: Store, split: str | Split | Part | None) -> Part | None:
    found = store.split(split) if isinstance(split, str) else split
    if isinstance(found, Split):
        raise UsageError(
            f"A dataset takes one part of the split {found.name!r}, found the whole. Its parts: "
            f"{', '.join(found.labels)}; as '{found.name}/{found.labels[0]}' of a store, or "
            f"split[{found.labels[0]!r}]."
        )
    return found


def _reopen(state: Mapping[str, Any]) -> Dataset:
    made = Dataset.__new__(Dataset)
    made.__dict__.update(state)
    return made


def _plain(value: Any) -> dict[str, JSON]:
    said: dict[str, Any] = asdict(value)
    return {name: _json(one) for name, one in said.items()}


def _json(value: Any) -> JSON:
    if isinstance(value, tuple):
        return [_json(one) for one in value]
    made: JSON = str(value) if isinstance(value, Fraction) else value
    return made


def _s(clock: Clock, tick: int) -> float:
    return float(clock.seconds(np.array([tick]))[0])
