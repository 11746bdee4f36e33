"""The batches of epochs: whose they are, in which order, read here or by worker processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostore import kernels
from neurostore.errors import JSON, NeurostoreError, UsageError, counted
from neurostore.sample._weights import Weights

if TYPE_CHECKING:
    from neurostore.sample.dataset import Dataset

_PRELOADED = ["torch", "xarray", "duckdb", "neurostore.store._versions", "neurostore.sample"]
"""What the server that forks workers imports once; none of it opens a store."""


@dataclass(frozen=True)
class Batches:
    """One rank's part of the batches of any epoch, by number; see `Dataset.loader`."""

    dataset: Dataset
    batch_size: int
    seed: int | None
    drop_last: bool = False
    rank: int = 0
    ranks: int = 1
    weights: Weights | None = None
    windows: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"A loader needs a batch_size of 1 or more, found {self.batch_size}.")
        if self.ranks < 1 or not 0 <= self.rank < self.ranks:
            raise UsageError(
                f"A rank is one of 0 to ranks - 1, found rank {self.rank} of {self.ranks}."
            )
        if self.weights is not None and self.seed is None:
            raise UsageError("Weights draw windows at random: they need shuffle=True.")
        self._refuse_windows()
        self._refuse_idle_ranks()

    def _refuse_windows(self) -> None:
        known, asked = len(self.dataset), self.size
        if asked < 1 or (asked > known and self.weights is None):
            raise UsageError(
                f"An epoch of this dataset has 1 to {known:,} windows, found windows={asked:,}; "
                "more of them are drawn with weight= only."
            )

    def _refuse_idle_ranks(self) -> None:
        """A rank without a window in a batch would leave the others waiting for it."""
        if self.batch_size < self.ranks:
            raise UsageError(
                f"A batch of {counted(self.batch_size, 'window')} cannot be divided among "
                f"{self.ranks} ranks; batch_size counts the windows of all ranks together."
            )
        rest = self.size % self.batch_size
        if 0 < rest < self.ranks and not self.drop_last:
            raise UsageError(
                f"The last batch of an epoch holds {rest} of {self.size:,} windows, fewer than the "
                f"{self.ranks} ranks, which would wait for each other. Take drop_last=True, or "
                f"another batch_size than {self.batch_size}."
            )

    @property
    def size(self) -> int:
        """How many windows an epoch has, over all ranks."""
        return len(self.dataset) if self.windows is None else self.windows

    @property
    def count(self) -> int:
        """How many batches an epoch has, the same for every rank."""
        whole, rest = divmod(self.size, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def read(self, epoch: int, number: int) -> Any:
        """Batch `number` of an epoch: this rank's windows of it."""
        first = number * self.batch_size
        many = min(self.batch_size, self.size - first)
        low, high = (first + many * rank // self.ranks for rank in (self.rank, self.rank + 1))
        places = np.arange(low, high)
        data = self.dataset
        if self.weights is None or self.seed is None:
            return data._finish(data.batch(places, seed=self.seed, epoch=epoch))
        numbers = self.weights.draw(places, self.seed, epoch)
        return data._finish(data._read(data.plan.address(numbers, places, self.seed, epoch)))

    @cached_property
    def said(self) -> dict[str, JSON]:
        """What decides which windows a batch holds, over all ranks."""
        ids = hashlib.sha256("\n".join(self.dataset.session_ids).encode()).hexdigest()
        return {
            "plan": self.dataset.plan.digest,
            "sessions": ids,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "drop_last": self.drop_last,
            "ranks": self.ranks,
            "weight": None if self.weights is None else self.weights.digest,
            "windows": self.size,
        }


class Loader:
    """Batches epoch after epoch, each time on from where it stopped; see `Dataset.loader`.

    Iterating gives what is left of the epoch. When all of it is delivered the loader stands at the
    next epoch. ``loader[k]`` gives batch k of the epoch at hand and moves nothing.

    Attributes
    ----------
    epoch, batch : int
        The epoch at hand, and the batch of it that is delivered next.
    """

    def __init__(
        self, batches: Batches, *, epoch: int, first: int, workers: int, context: str
    ) -> None:
        if workers < 0:
            raise UsageError(f"A loader needs workers of 0 or more, found {workers}.")
        if epoch < 0:
            raise UsageError(f"Epochs count from 0, found epoch={epoch}.")
        if not 0 <= first <= batches.count:
            raise UsageError(f"An epoch has {batches.count:,} batches, found first={first}.")
        if context not in ("forkserver", "spawn"):
            raise UsageError(
                f"Workers start by 'forkserver' or 'spawn', found {context!r}: an open store "
                "does not survive a fork."
            )
        self.batches, self.epoch, self.batch = batches, epoch, first
        self.workers, self.context = workers, context
        self._turn = 0

    def __len__(self) -> int:
        """How many batches of the epoch at hand are not delivered yet."""
        return self.batches.count - self.batch

    def __getitem__(self, number: int) -> Any:
        """Batch `number` of the epoch at hand."""
        return self.batches.read(self.epoch, range(self.batches.count)[number])

    def __iter__(self) -> Iterator[Any]:
        numbers = range(self.batch, self.batches.count)
        self._turn += 1
        read = _Sent(self.batches, self.epoch)
        windows = len(numbers) * self.batches.batch_size // self.batches.ranks
        if self.workers and numbers:
            made = self._by_workers(read, numbers, windows // self.workers)
            return self._delivered(numbers, made, self._turn)
        kernels.seen(windows)
        return self._delivered(numbers, (read[number] for number in numbers), self._turn)

    def _delivered(
        self, numbers: Sequence[int], batches: Iterable[Any], turn: int
    ) -> Iterator[Any]:
        """Batches as they come; what workers have read ahead does not count."""
        for number, batch in zip(numbers, batches, strict=True):
            self._refuse_overtaken(turn)
            if isinstance(batch, NeurostoreError):
                raise batch
            self.batch = number + 1
            yield batch
        self._refuse_overtaken(turn)
        self.epoch, self.batch = self.epoch + 1, 0

    def _refuse_overtaken(self, turn: int) -> None:
        if turn != self._turn:
            raise UsageError(
                "This iteration of a loader is over: another one began after it, or a state was "
                "loaded. Make a loader for each of two that run at once."
            )

    def _by_workers(self, read: _Sent, numbers: Sequence[int], windows: int) -> Iterable[Any]:
        """Batches from processes that read `windows` windows each."""
        import torch
        from torch.utils.data import DataLoader

        self._refuse_unpicklable(read)
        if self.context == "forkserver":  # read once: only the first server of a process takes it
            multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
        made: Iterable[Any] = DataLoader(
            read,  # type: ignore[arg-type]
            batch_size=None,
            sampler=numbers,
            num_workers=min(self.workers, len(numbers)),
            multiprocessing_context=self.context,
            collate_fn=_same,
            worker_init_fn=partial(_begin, windows),
            generator=torch.Generator(),  # else it draws from the process's own random numbers
        )
        return made

    @staticmethod
    def _refuse_unpicklable(read: _Sent) -> None:
        """Refuse here what no worker process could be given."""
        try:
            pickle.dumps(read)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"Worker processes cannot be given this dataset ({error}). A transform for workers "
                "is a function of a module; workers=0 takes any."
            ) from error

    # ---- stop and go on

    def state_dict(self) -> dict[str, JSON]:
        """Where the loader is, as JSON, the same on every rank: what was delivered counts."""
        return {**self.batches.said, "epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another loader was; no batch is read for that.

        Raises
        ------
        UsageError
            Where that one had other windows, order, batches or ranks, with both.
        """
        mine = self.state_dict()
        if lacking := [name for name in mine if name not in state]:
            raise UsageError(
                f"This is no state of a loader: it lacks {', '.join(lacking)}. Take what "
                "state_dict() gives."
            )
        for name, own in self.batches.said.items():
            if state[name] != own:
                raise UsageError(
                    f"The state is of a loader with {name} {_short(state[name])}, this one has "
                    f"{_short(own)}: its batches are others. Make the loader as that one was."
                )
        epoch, batch = state["epoch"], state["batch"]
        whole = all(isinstance(one, int) and one >= 0 for one in (epoch, batch))
        if not whole or batch > self.batches.count:
            raise UsageError(
                f"The state says batch {batch!r} of epoch {epoch!r}; an epoch has "
                f"{self.batches.count:,} batches."
            )
        self.epoch, self.batch = epoch, batch
        self._turn += 1

    def __repr__(self) -> str:
        own = self.batches
        share = "" if own.ranks == 1 else f", rank {own.rank} of {own.ranks}"
        return (
            f"<Loader: batch {self.batch} of {own.count:,} of epoch {self.epoch}, "
            f"{counted(own.batch_size, 'window')} each{share}>"
        )


@dataclass(frozen=True)
class _Sent:
    """Batches as a worker sends them; an error of ours goes as it is, which torch would rebuild."""

    batches: Batches
    epoch: int

    def __getitem__(self, number: int) -> Any:
        try:
            return self.batches.read(self.epoch, number)
        except NeurostoreError as error:
            return error


def _begin(windows: int, worker: int) -> None:
    """What a worker does first: load the compiled functions, where its windows pay for that."""
    Finalize(None, _end, exitpriority=-100)
    kernels.seen(windows)


def _end() -> None:
    """End a worker at once: torch's thread may still send what was read ahead.

    An interpreter that is taken down under that thread ends in C++'s ``terminate``, which the
    process that reads would take for a worker that was killed.
    """
    if sys.exc_info()[0] is None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def share(rank: int | None, ranks: int | None) -> tuple[int, int]:
    """Which rank a loader is of, of how many; refused where a process group runs and none is said.

    Raises
    ------
    UsageError
        Where one is given without the other, or neither to one of several processes that train
        together: each would read every window.
    """
    if rank is not None and ranks is not None:
        return rank, ranks
    if rank is not None or ranks is not None:
        raise UsageError(f"rank and ranks go together, found rank={rank} and ranks={ranks}.")
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    own, every = distributed.get_rank(), distributed.get_world_size()
    if every > 1:
        raise UsageError(
            f"This process is rank {own} of {every}, and the loader was not told whether to share. "
            f"Say rank={own}, ranks={every} for its part of every batch, or rank=0, ranks=1 for "
            "all of it."
        )
    return 0, 1


def _short(value: Any) -> str:
    return f"{value[:12]!r}" if isinstance(value, str) else repr(value)


def _same(batch: Any) -> Any:
    """A batch as it is: torch would take it for a mapping and rebuild it as a dict."""
    return batch
