"""`DeviceDataset`: the windows of a dataset, made where a model needs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neurostore.errors import UsageError
from neurostore.sample.acquisition import All
from neurostore.sample.batch import Batch, tensor
from neurostore.sample.dataset import Dataset
from neurostore.sample.device._forms import Bytes, Form, Loading
from neurostore.sample.device._spikes import Read
from neurostore.sample.device._trials import Present
from neurostore.sample.device._units import Units
from neurostore.sample.device._windows import Rates, Windows
from neurostore.sample.loader import Loader
from neurostore.sample.plan import Address


class DeviceDataset(Dataset):
    """A dataset whose recordings lie in the memory of a device, whole; see `Dataset.to`.

    The same windows under the same numbers, the same values, masks and reasons: only where they are
    made differs. Streams that have no form for a device are read on the host and moved batch by
    batch.

    Attributes
    ----------
    device : torch.device
    host_streams : tuple of str
        The streams that are read on the host.
    nbytes : mapping
        Bytes in device memory by stream (or the streams that share them) and session; of trials
        at most. Observed times and regions, a few bytes a unit and interval, come on top.
    """

    device: torch.device
    host_streams: tuple[str, ...]
    nbytes: Bytes
    _forms: dict[str, Form]
    _rates: Rates
    _places: Units
    _present: Present

    def __init__(
        self, dataset: Dataset, device: str | torch.device, *, max_bytes: int | None = None
    ) -> None:
        self.__dict__.update(dataset.__dict__)
        self.device, self._max_bytes = _device(device), max_bytes
        # What is done to windows after they are read is done on the host, for all streams alike.
        plain = self.dropout is None and not self.causal and self.acquisition == All()
        loading = Loading(dataset, self._window, self.readers, self.device)
        self._forms, self.nbytes = {}, {}
        self._rates = Rates.of([one.session.clock for one in self.chosen], self.device)
        self._places = Units.of(self.region_codes, self.device)
        tables = [self.trials_of(row) for row in range(len(self.chosen))]
        self._present = Present.of(tables, self.chosen, self._window, self.device)
        if plain:
            loading.refuse_beyond(max_bytes)
            self._forms, self.nbytes = loading.load(self._rates, self._places)
        self.host_streams = tuple(name for name in self.streams if name not in self._forms)

    def _read(self, address: Address) -> Batch:
        """Windows by address, as a batch in their order, on the device."""
        if not self._forms:
            return super()._read(address).to(self.device)
        if not len(address.start):
            raise UsageError("A batch holds a window at least, found none asked for.")
        address = self._bounded(address)
        at = Windows.of(address, self.device)
        read: Read = {}
        for name in self.readers:
            form = self._forms.get(name)
            read |= form.read(at) if form else self._from_host(name, address)
        tensors = {name: values for name, (values, _) in read.items()}
        reason = {name: why for name, (_, why) in read.items()}
        return Batch(tensors, reason, self._steps, _About(self, address, at))

    def _from_host(self, name: str, address: Address) -> Read:
        def moved(array: Any) -> Tensor:
            return tensor(array).to(self.device)

        read = self.readers[name].read(address)
        return {key: (moved(values), moved(why)) for key, (values, why) in read.items()}

    def loader(self, batch_size: int, *, workers: int = 0, **order: Any) -> Loader:
        """The batches of one epoch; see `Dataset.loader`. It takes no workers.

        Raises
        ------
        UsageError
            Where worker processes are asked for.
        """
        if workers:
            raise UsageError(
                f"Batches are made on {self.device}, by no worker processes; found {workers}. "
                "Leave workers at 0, or take the loader of the dataset on the host."
            )
        return super().loader(batch_size, **order)

    def to(self, device: str | torch.device, *, max_bytes: int | None = None) -> DeviceDataset:
        """The same on another device; read again."""
        return DeviceDataset(self._host(), device, max_bytes=max_bytes)

    def _host(self) -> Dataset:
        reopen, state = super().__reduce__()
        made: Dataset = reopen(*state)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._host(), str(self.device), self._max_bytes)

    def __repr__(self) -> str:
        lines = [super().__repr__().removesuffix(">").replace("<Dataset", "<DeviceDataset", 1)]
        total = sum(sum(own.values()) for own in self.nbytes.values())
        parts = (f"{name} {_size(sum(own.values()))}" for name, own in self.nbytes.items())
        shown = f" ({', '.join(parts)})" if self.nbytes else ""
        lines.append(f"  device    {self.device}, {_size(total)}{shown}")
        if self.host_streams:
            lines.append(f"  host      {', '.join(self.host_streams)}: read there and moved")
        return "\n".join(lines) + ">"


@dataclass(frozen=True, eq=False)
class _About:
    """What is known of the windows of a batch, told on the device."""

    dataset: DeviceDataset
    address: Address
    at: Windows

    def tell(self, name: str) -> Any:
        """See `Batch`."""
        data, rows = self.dataset, self.address.session.tolist()
        told: dict[str, Callable[[], Any]] = {
            "session": lambda: [data.chosen[row].session.id for row in rows],
            "start": lambda: data._rates.seconds(self.at.session, self.at.start),
            "tick": lambda: self.at.start,
            "block": lambda: self.at.block,
            "trial": lambda: data._present.read(self.at),
            "unit_ids": lambda: [data.chosen[row].ids for row in rows],
            "unit_mask": lambda: data._places.read(self.at)[0],
            "region": lambda: data._places.read(self.at)[1],
        }
        return told[name]()


def _reopen(dataset: Dataset, device: str, max_bytes: int | None) -> DeviceDataset:
    return DeviceDataset(dataset, device, max_bytes=max_bytes)


def _device(said: str | torch.device) -> torch.device:
    try:
        device = torch.device(said)
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"{said!r} is no device: {str(error).splitlines()[0]}") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(
            f"Recordings lie in the memory of 'cuda' or 'cpu', found {str(device)!r}: a device "
            "without float64 cannot give the host's numbers."
        )
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"{str(device)!r} is not available to this torch ({torch.__version__}). Install one "
            "that sees a GPU, or take 'cpu'."
        )
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
