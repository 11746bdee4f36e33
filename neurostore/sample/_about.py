"""What is known of the windows of a batch, told by the dataset that they are of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.sample.batch import tensor
from neurostore.sample.plan import Address, Ticks

if TYPE_CHECKING:
    import torch

    from neurostore.sample.dataset import Dataset


@dataclass(eq=False)
class About:
    """What is known of the windows of a batch, by the dataset that they are of."""

    dataset: Dataset
    address: Address

    def tell(self, name: str) -> Any:
        """See `Batch`."""
        return getattr(self, f"_{name}")()

    def _rows(self) -> list[int]:
        rows: list[int] = self.address.session.tolist()
        return rows

    def _session(self) -> list[str]:
        return [self.dataset.chosen[row].session.id for row in self._rows()]

    def _start(self) -> torch.Tensor:
        made = np.empty(len(self.address.start))
        for row, place in self.address.by_session:
            clock = self.dataset.chosen[row].session.clock
            made[place] = clock.seconds(self.address.start[place])
        return tensor(made)

    def _tick(self) -> torch.Tensor:
        return tensor(self.address.start)

    def _block(self) -> torch.Tensor:
        return tensor(self.address.block)

    def _trial(self) -> torch.Tensor:
        """Row of the trial of every window's present, -1 outside of trials."""
        made = np.full(len(self.address.start), -1, dtype=np.int64)
        for row, place in self.address.by_session:
            table = self.dataset.trials_of(row)
            if table is not None:
                present = self.dataset.window_ticks(row)[0]
                made[place] = table.row(self.address.start[place] + present)
        return tensor(made)

    def _unit_ids(self) -> list[NDArray[Any]]:
        return [self.dataset.chosen[row].ids for row in self._rows()]

    def _lengths(self) -> Ticks:
        return np.array([len(self.dataset.chosen[row].ids) for row in self._rows()])

    @cached_property
    def units(self) -> NDArray[np.bool_]:
        """Where there is a unit (window, unit) that was not dropped."""
        lengths = self._lengths()
        there = np.arange(lengths.max(initial=0)) < lengths[:, None]
        dropout = self.dataset.dropout
        return there if dropout is None else dropout.kept(self.address, there)

    def _unit_mask(self) -> torch.Tensor:
        return tensor(self.units)

    def _region(self) -> torch.Tensor:
        region = np.full((len(self.address.start), self._lengths().max(initial=0)), -1)
        for row, place in self.address.by_session:
            region[place, : len(self.dataset.region_codes[row])] = self.dataset.region_codes[row]
        return tensor(region)
