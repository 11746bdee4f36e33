"""The batches of an epoch, read here or by worker processes."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostore.errors import NeurostoreError, UsageError

if TYPE_CHECKING:
    from neurostore.sample.dataset import Dataset

_PRELOADED = ["torch", "xarray", "duckdb", "neurostore.store", "neurostore.sample"]
"""What the server that forks workers imports once; none of it opens a store."""


@dataclass(frozen=True)
class Loader:
    """The batches of one epoch, from one on; see `Dataset.loader`."""

    dataset: Dataset
    batch_size: int
    seed: int | None
    epoch: int
    first: int
    drop_last: bool
    workers: int
    context: str

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0:
            raise UsageError(
                f"A loader needs a batch_size of 1 or more and workers of 0 or more, found "
                f"{self.batch_size} and {self.workers}."
            )
        if not 0 <= self.first <= self._batches:
            raise UsageError(f"An epoch has {self._batches:,} batches, found first={self.first}.")
        if self.context not in ("forkserver", "spawn"):
            raise UsageError(
                f"Workers start by 'forkserver' or 'spawn', found {self.context!r}: an open store "
                "does not survive a fork."
            )

    @property
    def _batches(self) -> int:
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __len__(self) -> int:
        return self._batches - self.first

    def __getitem__(self, number: int) -> Any:
        """Batch `number` of the epoch."""
        first = range(self._batches)[number] * self.batch_size
        places = np.arange(first, min(first + self.batch_size, len(self.dataset)))
        batch = self.dataset.batch(places, seed=self.seed, epoch=self.epoch)
        return self.dataset._finish(batch)

    def __iter__(self) -> Iterator[Any]:
        numbers = range(self.first, self._batches)
        if not self.workers:
            return (self[number] for number in numbers)
        from torch.utils.data import DataLoader

        self._refuse_unpicklable()
        if self.context == "forkserver":  # read once: only the first server of a process takes it
            multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
        return _received(
            DataLoader(
                _Sent(replace(self, workers=0)),  # type: ignore[arg-type]
                batch_size=None,
                sampler=numbers,
                num_workers=self.workers,
                multiprocessing_context=self.context,
                collate_fn=_same,
            )
        )

    def _refuse_unpicklable(self) -> None:
        """Refuse here what no worker process could be given."""
        try:
            pickle.dumps(self)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"Worker processes cannot be given this dataset ({error}). A transform for workers "
                "is a function of a module; workers=0 takes any."
            ) from error


@dataclass(frozen=True)
class _Sent:
    """Batches as a worker sends them; an error of ours goes as it is, which torch would rebuild."""

    loader: Loader

    def __getitem__(self, number: int) -> Any:
        try:
            return self.loader[number]
        except NeurostoreError as error:
            return error


def _received(batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        if isinstance(batch, NeurostoreError):
            raise batch
        yield batch


def _same(batch: Any) -> Any:
    """A batch as it is: torch would take it for a mapping and rebuild it as a dict."""
    return batch
