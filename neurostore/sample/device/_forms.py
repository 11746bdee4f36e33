"""Which streams have a form in device memory, how many bytes it takes, and making it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol

import torch

from neurostore.errors import UsageError
from neurostore.sample._chosen import Chosen
from neurostore.sample.device import _behaviour, _trials
from neurostore.sample.device._packed import Layout, Packed
from neurostore.sample.device._spikes import Counts, Events, Memory, Read
from neurostore.sample.device._units import Observed, Units
from neurostore.sample.device._windows import Rates, Windows
from neurostore.sample.plan import Window
from neurostore.sample.streams import Behaviour, Reader, SpikeEvents, Spikes, Stream, Trials

if TYPE_CHECKING:
    from neurostore.sample.dataset import Dataset

Bytes = dict[str, dict[str, int]]
"""By stream, or streams that share it, and by session."""

_KNOWN: Mapping[type, frozenset[str]] = {
    Spikes: frozenset({"bin"}),
    SpikeEvents: frozenset(),
    Behaviour: frozenset({"name", "rate", "max_gap"}),
    Trials: frozenset({"columns", "table"}),
}
"""Streams that have a form, and what of them it follows."""


class Form(Protocol):
    """A stream in device memory."""

    def read(self, at: Windows) -> Read:
        """Windows of any sessions, as its `Reader` reads them."""


def has_form(stream: Stream) -> bool:
    """Whether windows of a stream can be made on the device, as it is set."""
    known = _KNOWN.get(type(stream))
    return known is not None and all(
        one.name in known or getattr(stream, one.name) == one.default
        for one in fields(stream)  # type: ignore[arg-type]
    )


@dataclass(frozen=True)
class Loading:
    """What is to lie in device memory: the streams of a dataset that have a form."""

    dataset: Dataset
    window: Window
    readers: Mapping[str, Reader]
    device: torch.device

    @property
    def sessions(self) -> Sequence[Chosen]:
        """The sessions of the dataset."""
        return self.dataset.chosen

    def _named(self, kind: type | tuple[type, ...]) -> dict[str, Stream]:
        streams = self.dataset.streams
        return {k: v for k, v in streams.items() if isinstance(v, kind) and has_form(v)}

    @property
    def _spiking(self) -> str:
        return ", ".join(self._named((Spikes, SpikeEvents)))

    def predicted(self) -> Bytes:
        """Bytes that it takes at most, by metadata alone."""
        sizes: dict[str, list[int]] = {}
        if self._spiking:
            sizes[self._spiking] = Layout.of(self.sessions, self.window).nbytes.tolist()
        for name, stream in self.dataset.streams.items():
            if isinstance(stream, Behaviour) and has_form(stream):
                sizes[name] = [_behaviour.predicted(one, stream) for one in self.sessions]
            elif isinstance(stream, Trials) and has_form(stream):
                sizes[name] = [_trials.predicted(one, stream) for one in self.sessions]
        return {name: self._by_session(own) for name, own in sizes.items()}

    def _by_session(self, sizes: Sequence[int]) -> dict[str, int]:
        ids = (one.session.id for one in self.sessions)
        return dict(zip(ids, sizes, strict=True))

    def refuse_beyond(self, max_bytes: int | None) -> None:
        """Refuse what does not fit, with both numbers, before anything is read."""
        free, whose = max_bytes, "max_bytes allows"
        if self.device.type == "cuda":
            there = torch.cuda.mem_get_info(self.device)[0]
            if free is None or there < free:
                free, whose = there, f"are free on {self.device}"
        by_stream = {name: sum(own.values()) for name, own in self.predicted().items()}
        total = sum(by_stream.values())
        if free is not None and total > free:
            parts = ", ".join(f"{name}: {size:,}" for name, size in by_stream.items())
            raise UsageError(
                f"The recordings take up to {total:,} bytes in device memory ({parts}), and "
                f"{free:,} {whose}. Choose fewer sessions, units or streams, or make windows on "
                "the host: dataset.loader(...)."
            )

    def load(self, rates: Rates, units: Units) -> tuple[dict[str, Form], Bytes]:
        """Read all of it and move it; the streams that have a form, and the bytes it takes."""
        made: dict[str, Form] = {}
        sizes = self.predicted()
        memory = self._memory(rates, units) if self._spiking else None
        for name, stream in self.dataset.streams.items():
            if not has_form(stream):
                continue
            if memory and isinstance(stream, Spikes):
                bins = sum(self.readers[name].steps[name][1:])
                made[name] = Counts.of(name, memory, self.sessions, stream.bin, bins)
            elif memory and isinstance(stream, SpikeEvents):
                made[name] = Events(name, memory)
            elif isinstance(stream, Behaviour):
                steps = self.readers[name].steps[name]
                own = _behaviour.Samples.load(
                    name, stream, self.sessions, self.window, steps, self.device
                )
                made[name], sizes[name] = own, self._by_session(own.sizes)
            elif isinstance(stream, Trials):
                texts = self.dataset.categories
                made[name] = _trials.Rows.load(
                    name, stream, self.sessions, self.window, texts, rates
                )
        return made, sizes

    def _memory(self, rates: Rates, units: Units) -> Memory:
        packed = Packed.load(self.sessions, Layout.of(self.sessions, self.window), self.device)
        return Memory(packed, Observed.load(self.sessions, self.device), units, rates)
