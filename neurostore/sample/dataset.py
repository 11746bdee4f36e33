"""`Dataset`: chosen sessions, units and streams of a store as windows; seconds in, tensors out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurostore import kernels
from neurostore.clocks import Clock
from neurostore.errors import JSON, MissingExtraError, NotFoundError, UsageError, counted
from neurostore.intervals import Intervals
from neurostore.sample import _causal, _refused
from neurostore.sample._about import About
from neurostore.sample._chosen import Chosen, choose, region_codes
from neurostore.sample._fitted import refuse_fitted_elsewhere
from neurostore.sample._lay import REFUSED, Laid, Totals, lay_session, refuse_unknown_event, totals
from neurostore.sample._stitch import Stitched, stitch
from neurostore.sample._weights import Weight, Weights
from neurostore.sample.acquisition import Acquisition, All, common
from neurostore.sample.batch import Batch, tensor
from neurostore.sample.dropout import UnitDropout, without
from neurostore.sample.loader import Batches, Loader, share
from neurostore.sample.plan import Address, Number, Plan, Ticks, Window
from neurostore.sample.streams import (
    Acquired,
    Gridded,
    Reader,
    Stream,
    TrialTable,
)
from neurostore.splits import Part, Split

if TYPE_CHECKING:
    import torch

    from neurostore.sample._describe import Description
    from neurostore.sample._explain import Explanation
    from neurostore.sample.device import DeviceDataset
    from neurostore.store import Store

_SHOWN = 6
_SETTINGS = (
    *("streams", "acquisition", "split", "history_may_cross"),
    *("dropout", "missing", "causal"),
)
"""Arguments that a dataset keeps as they were given, beside those that choose."""


class Dataset:
    """Windows of a store's sessions, numbered; nothing but metadata is read until one is asked for.

    It sees the snapshot that the store showed when it was made, pickles as what it was made of, and
    is opened again where it is unpickled.

    Parameters
    ----------
    store : Store
    sessions : str or sequence of str, optional
        One id, several, or a SQL expression over the catalogue; all of them without it.
    units : str or mapping, optional
        A SQL expression over the units: ``"rate_hz < 50 AND region = 'CA1'"``; or ids by session.
    window : Window
    streams : mapping of str to Stream
        What is read, under the names that the batch then has.
    acquisition : Acquisition
        When each channel was observed, of the streams that have channels; windows start on its
        multiples.
    split : str or Part, optional
        ``"blocks/train"`` of the store, or a part of a split at hand: ``split["train"]``. Targets
        lie inside its blocks; so does the history, and in the same block.
    history_may_cross : bool
        Let the history reach out of the block: for training into time of no other label, for
        validation and test into what comes before them.
    dropout : UnitDropout, optional
        Leave out units at random in every window.
    missing : {"mask", "refuse"}
        What a session that lacks something of a stream does: its windows come with that masked,
        reason NOT_RECORDED; or the dataset is refused.
    transform : callable, optional
        Batch → whatever a loader is to give; a function of a module, for worker processes. One with
        an attribute `fitted` is refused where that is time the split keeps from this part.
    causal : bool
        Give the history alone: no value of a batch depends on samples from the present on, and
        nothing in it on what comes after (`trial` is the one that the present lies in).

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
        units: str | Mapping[str, Sequence[str]] | None = None,
        acquisition: Acquisition | None = None,
        split: str | Part | None = None,
        history_may_cross: bool = False,
        dropout: UnitDropout | None = None,
        missing: Literal["mask", "refuse"] = "mask",
        transform: Callable[[Batch], Any] | None = None,
        causal: bool = False,
    ) -> None:
        if not streams or not isinstance(streams, Mapping):
            raise UsageError(
                f"A dataset takes streams by name: streams={{'spikes': Spikes(0.02)}}, found "
                f"{streams!r}."
            )
        _refused.unacquired(acquisition, streams)
        if history_may_cross and not window.horizon:
            raise UsageError("history_may_cross needs a horizon: without one all is target.")
        if missing not in ("mask", "refuse"):
            raise UsageError(f"missing is 'mask' or 'refuse', found {missing!r}.")
        if dropout is not None:
            dropout.check(dict(streams))
        self.store = store.pin()
        self.sessions, self.units, self._window = sessions, units, window
        self.streams, self.acquisition = dict(streams), acquisition or All()
        self.split = _part(self.store, split)
        self.history_may_cross, self.transform = history_may_cross, transform
        self.dropout, self.missing, self.causal = dropout, missing, causal
        refuse_fitted_elsewhere(transform, self.split)
        _refused.missing(self)
        _refused.empty(self)

    # ---- what is in it

    @cached_property
    def chosen(self) -> list[Chosen]:
        """The sessions with the units asked for, by id."""
        return choose(self.store, self.sessions, self.units)

    @cached_property
    def readers(self) -> dict[str, Reader]:
        """The streams, bound to the sessions."""
        if self.causal and not self._window.history:
            _causal.refuse_no_history()
        made = {
            name: self._seen(stream).open(name, self.chosen, self._opened(stream))
            for name, stream in self.streams.items()
        }
        if self.causal:
            _causal.refuse_looking_ahead(self.streams, made)
        return made

    def _opened(self, stream: Stream) -> Window:
        return _causal.opened(self._window, stream) if self.causal else self._window

    def _seen(self, stream: Stream) -> Stream:
        return stream.observed_by(self.acquisition) if isinstance(stream, Acquired) else stream

    @cached_property
    def _gridded(self) -> dict[str, Gridded]:
        return {name: one for name, one in self.readers.items() if isinstance(one, Gridded)}

    @cached_property
    def laid(self) -> list[Laid]:
        """Where windows lie, by session."""
        refuse_unknown_event(self.chosen, self._window)
        part, cross = self.split, self.history_may_cross
        grids = [
            common({name: one.grid(row) for name, one in self._gridded.items()})
            for row in range(len(self.chosen))
        ]
        return [
            lay_session(one, self._window, part, may_cross=cross, grid=grid)
            for one, grid in zip(self.chosen, grids, strict=True)
        ]

    @cached_property
    def plan(self) -> Plan:
        """Which windows there are."""
        return Plan([one.runs for one in self.laid])

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
        return region_codes(self.chosen)[0]

    @cached_property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """By tensor of text: the texts that its codes stand for."""
        made: dict[str, tuple[str, ...]] = {}
        for reader in self.readers.values():
            made |= getattr(reader, "categories", {})
        return made

    def observed(self, session: str) -> dict[int, Intervals]:
        """The time in ticks where windows of a session may lie: by row of the split, or under -1.

        Raises
        ------
        NotFoundError
            Where the dataset has no such session.
        """
        return dict(self.laid[self._row(session)].pieces)

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

    def phases(self, stream: str) -> dict[str, Ticks]:
        """First step (channel,) at which each channel of a stream is observed, by session.

        Raises
        ------
        NotFoundError
            Where no such stream is observed by an acquisition, with the nearest.
        """
        if stream not in self._gridded:
            raise NotFoundError("stream with phases", stream, self._gridded, "this dataset")
        found = self._gridded[stream].phases
        return {self.session_ids[row]: phases for row, phases in found.items()}

    def totals(self) -> dict[str, Totals]:
        """Spikes and observed seconds of every unit, by session, over all time of the split."""
        return {laid.chosen.session.id: totals(laid) for laid in self.laid}

    @cached_property
    def _steps(self) -> dict[str, tuple[int, int, int]]:
        every = {k: v for reader in self.readers.values() for k, v in reader.steps.items()}
        if not self.causal:
            return every
        return {name: (axis, past, 0) for name, (axis, past, _) in every.items()}

    def window_ticks(self, row: int) -> tuple[int, int]:
        """Ticks from the start of a window of session `row` to its present, and to its stop."""
        return self._window.ticks(self.chosen[row].session.clock)

    def describe(self, batch_size: int = 32) -> Description:
        """Hours, windows, units, spikes and what is missing by session; memory of a batch."""
        from neurostore.sample._describe import describe

        return describe(self, batch_size)

    def explain(self, index: int) -> Explanation:
        """What stands behind window `index`: session, interval, tables, chunks, bytes, cache."""
        from neurostore.sample._explain import explain

        return explain(self, self.plan.address(np.array([self._number(index)])))

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
            name: {"kind": type(stream).__name__, **_plain(stream), **self._said_by(name)}
            for name, stream in sorted(self.streams.items())
        }
        return {
            "url": self.store.url,
            "snapshot": self.store.snapshot,
            "sessions": sessions,
            "window": _plain(self._window),
            "streams": streams,
            "acquisition": self.acquisition.identity(
                {len(own) for one in self._gridded.values() for own in one.phases.values()}
            ),
            "split": None if self.split is None else self.split.digest,
            "label": None if self.split is None else self.split.label,
            "history_may_cross": self.history_may_cross,
            "dropout": None if self.dropout is None else _plain(self.dropout),
            **({"causal": True} if self.causal else {}),
            "plan": self.plan.digest,
        }

    def _said_by(self, stream: str) -> dict[str, JSON]:
        """What a stream reads beside the tables of the sessions, by digest."""
        said: dict[str, JSON] = getattr(self.readers[stream], "identity", dict)()
        return said

    # ---- windows

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> Any:
        """Window `index` of the plan, as a batch of one."""
        return self._finish(self._read(self.plan.address(np.array([self._number(index)]))))

    def _number(self, index: int) -> int:
        if isinstance(index, slice):
            raise UsageError(
                "A dataset gives one window a number; sample(n) or loader(n) give many."
            )
        try:
            return range(len(self))[index]
        except IndexError:  # which ends an iteration, so it stays one
            raise IndexError(
                f"This dataset has {counted(len(self), 'window')}, found the index {index:,}. Take "
                f"{-len(self):,} to {len(self) - 1:,}."
            ) from None

    def sample(self, windows: int, seed: int = 0) -> Any:
        """So many windows, drawn without replacement; always the same for a seed.

        Returns
        -------
        Batch
            Or what the dataset's transform makes of it; so of `window`, `windows`, ``dataset[k]``
            and the loader.

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

    def batch(self, places: ArrayLike, *, seed: int | None, epoch: int = 0) -> Batch:
        """The windows at some places of an epoch, untransformed: ``dataset.batch([0, 1], seed=0)``.

        Parameters
        ----------
        places : (window,) integers
            From 0 on, below the number of windows: an epoch's first window, its second, ...
        seed : int or None
            Of the epoch's order; None for the order of the plan.
        epoch : int
        """
        places = self._within(places)
        numbers = places if seed is None else self.plan.order(places, seed, epoch)
        return self._read(self.plan.address(numbers, places, seed or 0, epoch))

    def _within(self, places: ArrayLike) -> Ticks:
        made = np.asarray(places)
        whole = made.ndim == 1 and made.dtype.kind in "iu"
        if not whole or not len(made) or made.min() < 0 or made.max() >= len(self):
            raise UsageError(
                f"batch takes places (window,) of an epoch, one at least, from 0 to "
                f"{len(self) - 1:,}; found {places!r}."
            )
        return made.astype(np.int64)

    def window(self, session: str, start: Number) -> Any:
        """The window of a session that starts at a time in seconds, on the plan or not.

        What was not observed in it is masked.

        Raises
        ------
        UsageError
            Where the dataset has a split, and the window does not lie in a block of it.
        """
        return self.windows([session], [start])

    def windows(self, sessions: Sequence[str], starts: Sequence[Number]) -> Any:
        """Windows by session and start, as one batch: many times as fast as one call each.

        Parameters
        ----------
        sessions : (window,) sequence of str
            Ids.
        starts : (window,) sequence of float
            Seconds on the clock of each one's session; exact as written.

        Raises
        ------
        UsageError
            Where there are not as many of both, or as `window` does.
        NotFoundError
            Where the dataset has no such session, with the nearest.
        """
        if len(sessions) != len(starts) or not len(sessions):
            raise UsageError(
                f"windows takes as many sessions as starts, one at least; found {len(sessions)} "
                f"and {len(starts)}."
            )
        rows = [self._row(session) for session in sessions]
        ticks = [
            self.chosen[row].session.clock.tick(start)
            for row, start in zip(rows, starts, strict=True)
        ]
        session, tick = np.array(rows), np.array(ticks, dtype=np.int64)
        block = np.array([-1] * len(rows))
        for row in set(rows) if self.split is not None else ():
            block[session == row] = self._admitted(row, tick[session == row])
        return self._finish(self._read(Address(session, tick, block, place=tick)))

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {id: row for row, id in enumerate(self.session_ids)}

    def _row(self, session: str) -> int:
        if session not in self._rows:
            raise NotFoundError("session", session, self.session_ids, "this dataset")
        return self._rows[session]

    def _admitted(self, row: int, start: Ticks) -> Ticks:
        """The block (window,) of windows of a session, which may lie anywhere without a split."""
        if self.split is None:
            return np.full(len(start), -1, dtype=np.int64)
        block = self.laid[row].admit(start)
        if (refused := block == REFUSED).any():
            clock, first = self.chosen[row].session.clock, int(start[np.argmax(refused)])
            window = f"[{_s(clock, first):g}, {_s(clock, first) + float(self._window.length):g}) s"
            raise UsageError(
                f"The window {window} of {self.chosen[row].session.id} does not lie in one block "
                f"of {self.split.name!r}. Leave out the split to look at any time."
            )
        return block

    def _refuse_foreign(self, address: Address) -> None:
        for row in np.unique(address.session).tolist():
            if not 0 <= row < len(self.chosen):
                raise UsageError(f"The dataset has {len(self.chosen)} sessions, found row {row}.")
            here = address.session == row
            block = self._admitted(row, address.start[here])
            if (wrong := block != address.block[here]).any():
                at = int(np.argmax(wrong))
                raise UsageError(
                    f"A window of {self.chosen[row].session.id} at tick "
                    f"{address.start[here][at]} lies in block {block[at]} of the split, its "
                    f"address says {address.block[here][at]}."
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
        rank: int | None = None,
        ranks: int | None = None,
        weight: Weight | None = None,
        windows: int | None = None,
    ) -> Loader:
        """Epochs in batches: batch k is a function of (seed, epoch, k) and nothing else.

        Parameters
        ----------
        batch_size : int
            Windows of a batch, of all ranks together.
        seed : int
            Of the order of every epoch.
        epoch, first : int
            The epoch and the batch of it to begin with; the ones before are not read.
        shuffle : bool
            Else in plan order.
        drop_last : bool
            Leave out a last batch that is not full.
        workers : int
            Processes that read ahead; 0 reads where it is called.
        context : {"forkserver", "spawn"}
            How they are started: an open store does not survive a fork.
        rank, ranks : int, optional
            Which of several processes this is, of how many. They have as many batches each, and
            together what one process would have: rank r of R takes windows floor(r · n / R) to
            floor((r + 1) · n / R) of the n of a batch. All of it without them, which a process of
            a running torch.distributed group has to say (rank=0, ranks=1).
        weight : str or mapping, optional
            Draw windows with replacement: ``"sessions"`` and ``"intervals"`` make every session,
            every block of the split (without one, every interval of observed time) come equally
            often, ``"units"`` sessions in proportion to their units, ``{id: weight}`` to numbers
            of one's own. Windows of a session, or an interval, are drawn alike.
        windows : int, optional
            How many windows an epoch has; as many as the dataset without it.

        Returns
        -------
        Loader
            Iterable; it keeps its place (`state_dict`, `load_state_dict`).

        Raises
        ------
        UsageError
            Where a value is out of its range, with the range; where ranks would have different
            numbers of batches; where a process of several does not say its rank.
        """
        shared = share(rank, ranks)
        weights = None if weight is None else Weights.of(weight, self)
        seeded = seed if shuffle else None
        batches = Batches(self, batch_size, seeded, drop_last, *shared, weights, windows)
        return Loader(batches, epoch=epoch, first=first, workers=workers, context=context)

    def stitch(
        self, predictions: Iterable[tuple[Batch, Any]], stream: str = "spikes"
    ) -> Iterator[Stitched]:
        """Predictions of overlapping windows as one time line a session, each bin their mean.

        Parameters
        ----------
        predictions : iterable of (Batch, array or tensor)
            In plan order: ``((batch, model(batch)) for batch in dataset.loader(64,
            shuffle=False))``. (window, unit, bin), of the bins of the horizon or of all of them.
        stream : str
            The stream whose bins they are.

        Yields
        ------
        Stitched
            Session after session, as soon as the last window of one has come. Bin j of a piece of
            observed time starts floor(j · bin · rate) ticks after it; where a bin is no whole
            number of ticks, those of single windows may start one tick earlier.

        Raises
        ------
        UsageError
            Where the stride is no whole number of bins, with both, or a batch is out of order.
        """
        return stitch(self, predictions, stream)

    def to(self, device: str | torch.device, *, max_bytes: int | None = None) -> DeviceDataset:
        """The same dataset with its recordings in the memory of a device, whole.

        Parameters
        ----------
        device : str or torch.device
            ``"cuda"``, ``"cuda:1"``, ``"cpu"``.
        max_bytes : int, optional
            Most that they may take there; on a GPU never more than is free.

        Raises
        ------
        UsageError
            Where they take more, with both numbers, before anything is read; where there is no
            such device.
        MissingExtraError
            Where torch is not installed.
        """
        try:
            from neurostore.sample.device import DeviceDataset
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise MissingExtraError("A dataset on a device", "train") from error
        return DeviceDataset(self, device, max_bytes=max_bytes)

    # ---- reading

    def read(self, address: Address) -> Batch:
        """Windows by address, as a batch in their order.

        Raises
        ------
        UsageError
            Where one is of no session, or does not lie in its block of the split.
        """
        self._refuse_foreign(address)
        return self._read(address)

    def _read(self, address: Address) -> Batch:
        """Windows of the plan's own addresses, which lie where they may."""
        if not len(address.start):
            raise UsageError("A batch holds a window at least, found none asked for.")
        address = self._bounded(address)
        kernels.seen(len(address.start))
        arrays: dict[str, torch.Tensor] = {}
        reason: dict[str, torch.Tensor] = {}
        about = About(self, address)
        for stream, reader in self.readers.items():
            read = reader.read(address)
            if self.causal:
                read = _causal.cut(read, self._steps, self.streams[stream])
            if self.dropout is not None:
                read = without(read, about.units, stream, self.streams[stream])
            shared: dict[
                int, torch.Tensor
            ] = {}  # tensors of a stream may have their reasons in common
            for name, (values, why) in read.items():
                if id(why) not in shared:
                    shared[id(why)] = tensor(why)
                arrays[name], reason[name] = tensor(values), shared[id(why)]
        return Batch(arrays, reason, self._steps, about)

    def _bounded(self, address: Address) -> Address:
        """The address with what its windows may know, which a split says."""
        return address if self.split is None else replace(address, reach=self._reach)

    def _reach(self, row: int, start: Ticks, block: Ticks) -> tuple[Ticks, Ticks]:
        return self.laid[row].known(start, block)

    @cached_property
    def _trials(self) -> dict[int, TrialTable | None]:
        return {}

    def trials_of(self, row: int) -> TrialTable | None:
        """The trials of session `row`; None where it has none."""
        if row not in self._trials:
            self._trials[row] = TrialTable.load(self.chosen[row].session, "trials", ())
        return self._trials[row]

    @cached_property
    def region_codes(self) -> list[Ticks]:
        """By session: the code (unit,) of the region of each unit."""
        return region_codes(self.chosen)[1]

    def _finish(self, batch: Batch) -> Any:
        return batch if self.transform is None else self.transform(batch)

    def made_of(self) -> dict[str, Any]:
        """Arguments that make the same dataset of the same snapshot; ids for what was chosen."""
        units = {id: ids.tolist() for id, ids in self.unit_ids.items()}
        chosen = {"sessions": self.session_ids, "units": units, "window": self._window}
        return chosen | {name: getattr(self, name) for name in _SETTINGS}

    @property
    def where(self) -> str | None:
        """The SQL expression that chooses what windows lie around, if any."""
        return self._window.where

    @property
    def around(self) -> tuple[str, ...]:
        """The table of intervals that windows lie around, if any."""
        said = self._window.around
        return () if said is None else (f"intervals/{said.partition('.')[0]}",)

    def __reduce__(self) -> tuple[Any, ...]:
        own = ("store", "sessions", "units", "_window", *_SETTINGS, "transform")
        state = {name: getattr(self, name) for name in own}
        return _reopen, (state,)

    def __repr__(self) -> str:
        spikes = sum(one.spikes for one in self.chosen)
        units = sum(len(one.ids) for one in self.chosen)
        seconds = sum(
            sum(piece.length for piece in laid.pieces.values()) / float(one.session.clock.rate)
            for one, laid in zip(self.chosen, self.laid, strict=True)
        )
        split = "none" if self.split is None else self.split.name
        cross = "history may cross" if self.history_may_cross else "history inside its block"
        lines = [
            f"<Dataset of {counted(len(self.chosen), 'session')}: {counted(len(self), 'window')} "
            f"in {seconds / 3600:.3g} h",
            f"  window    {self._window}{', the history alone' if self.causal else ''}",
            *([] if self.acquisition == All() else [f"  observed  {self.acquisition}"]),
            f"  split     {split}{'' if self.split is None else f', {cross}'}",
            f"  units     {units:,} with {spikes:,} spikes"
            + ("" if self.units is None else f" where {self.units}"),
            *(f"  {name:<10}{stream}" for name, stream in self.streams.items()),
            *([] if self.dropout is None else [f"  dropout   {self.dropout}"]),
            *self._lines_missing(),
        ]
        return "\n".join(lines) + ">"

    def _lines_missing(self) -> Iterator[str]:
        lines = [
            f"{what} in {one.session.id}"
            for row, one in enumerate(self.chosen)
            for reader in self.readers.values()
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
    if isinstance(value, dict):
        return {name: _json(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return [_json(one) for one in value]
    made: JSON = str(value) if isinstance(value, Fraction) else value
    return made


def _s(clock: Clock, tick: int) -> float:
    return float(clock.seconds(np.array([tick]))[0])
