"""What a dataset holds, session by session, and how much memory its batches take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from neurostore.errors import JSON, counted
from neurostore.sample._chosen import no_spikes
from neurostore.sample.streams import SpikeEvents

if TYPE_CHECKING:
    import pandas as pd

    from neurostore.sample.dataset import Dataset

_PIECE = 1 << 16
"""Windows whose spikes are counted at once."""


@dataclass(frozen=True)
class SessionFacts:
    """One session of a dataset.

    Attributes
    ----------
    hours : float
        Time in which windows may lie.
    windows, units, spikes : int
        Spikes are those of the units asked for, over the whole session.
    missing : mapping
        By stream: what of it the session lacks.
    """

    session: str
    hours: float
    windows: int
    units: int
    spikes: int
    missing: Mapping[str, str]


@dataclass(frozen=True)
class Description:
    """What `Dataset.describe` found.

    Attributes
    ----------
    sessions : tuple of SessionFacts
    streams : tuple of str
    batch_size : int
    batch_bytes : mapping
        By tensor: bytes of the largest batch of so many windows, with its mask and reasons.
    """

    sessions: tuple[SessionFacts, ...]
    streams: tuple[str, ...]
    batch_size: int
    batch_bytes: Mapping[str, int]

    def table(self) -> pd.DataFrame:
        """One row a session: session, hours, windows, units, spikes, missing."""
        import pandas as pd

        rows = [asdict(one) | {"missing": ", ".join(one.missing)} for one in self.sessions]
        return pd.DataFrame(rows)

    def to_json(self) -> dict[str, JSON]:
        """As a plain mapping."""
        return {
            "sessions": [dict(asdict(one)) for one in self.sessions],
            "streams": list(self.streams),
            "batch_size": self.batch_size,
            "batch_bytes": dict(self.batch_bytes),
        }

    def __repr__(self) -> str:
        name = max(len("session"), *(len(one.session) for one in self.sessions))
        head = f"{'session':<{name}}{'hours':>8}{'windows':>12}{'units':>8}{'spikes':>14}  missing"
        lines = [
            f"{one.session:<{name}}{one.hours:8.3f}{one.windows:12,}{one.units:8,}{one.spikes:14,}"
            f"  {', '.join(one.missing) or '-'}"
            for one in self.sessions
        ]
        total = (
            f"{'in all':<{name}}{sum(one.hours for one in self.sessions):8.3f}"
            f"{sum(one.windows for one in self.sessions):12,}"
            f"{sum(one.units for one in self.sessions):8,}"
            f"{sum(one.spikes for one in self.sessions):14,}"
        )
        size = sum(self.batch_bytes.values())
        each = ", ".join(f"{name} {one / 1e6:,.3g}" for name, one in self.batch_bytes.items())
        of = counted(self.batch_size, "window")
        memory = f"largest batch of {of}, predicted: {size / 1e6:,.3g} MB ({each})"
        return "\n".join([head, *lines, total, memory])

    def _repr_html_(self) -> str:
        table: str = self.table().to_html(index=False)
        return table + f"<p>{repr(self).splitlines()[-1]}</p>"


def describe(dataset: Dataset, batch_size: int) -> Description:
    """See `Dataset.describe`."""
    facts = []
    windows = dataset.plan.by_session()
    for row, chosen in enumerate(dataset.chosen):
        pieces = dataset.observed(chosen.session.id).values()
        hours = sum(one.length for one in pieces) / float(chosen.session.clock.rate) / 3600
        missing = {
            name: what
            for name, reader in dataset.readers.items()
            if (what := reader.missing(row)) is not None
        }
        one = SessionFacts(
            chosen.session.id, hours, windows[row], len(chosen.ids), chosen.spikes, missing
        )
        facts.append(one)
    sizes = _largest(dataset, facts)
    scaled = {name: size * batch_size for name, size in sizes.items()}
    return Description(tuple(facts), tuple(dataset.streams), batch_size, scaled)


def _largest(dataset: Dataset, facts: list[SessionFacts]) -> dict[str, int]:
    """Bytes of one window by tensor, the largest there is of each.

    A tensor is as large as its session has units, or its window spikes.
    """
    first = np.cumsum([0, *(one.windows for one in facts)]).tolist()
    having = [row for row, one in enumerate(facts) if one.windows]
    likely = {first[max(having, key=lambda row: facts[row].units)]}
    if any(isinstance(one, SpikeEvents) for one in dataset.streams.values()):
        likely.add(max(_busiest(dataset, row, first[row], first[row + 1]) for row in having)[1])
    made: dict[str, int] = {}
    for number in likely:
        batch = dataset.read(dataset.plan.address(np.array([number])))
        for name, tensor in batch.tensors.items():
            reasons = batch.reason[name].numel() * 2  # a byte each, and one of the mask
            size = tensor.numel() * tensor.element_size() + reasons
            made[name] = max(made.get(name, 0), size)
    return made


def _busiest(dataset: Dataset, row: int, first: int, stop: int) -> tuple[int, int]:
    """Most spikes of a window of a session, whose windows are [first, stop), and which one."""
    chosen, (_, length) = dataset.chosen[row], dataset.window_ticks(row)
    mine, most = chosen.column >= 0, (0, first)
    for low in range(first, stop if no_spikes(chosen) is None else first, _PIECE):
        start = dataset.plan.address(np.arange(low, min(low + _PIECE, stop))).start
        found = chosen.session.events(start.min()[None], start.max()[None] + length)
        time = found.time[mine[found.unit]]
        spikes = np.searchsorted(time, start + length) - np.searchsorted(time, start)
        at = int(spikes.argmax())
        most = max(most, (int(spikes[at]), low + at))
    return most
