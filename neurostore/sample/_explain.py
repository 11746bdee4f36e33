"""What stands behind one window: session, interval, tables by digest, chunks, bytes, cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostore.clocks import exact
from neurostore.errors import JSON, counted
from neurostore.sample.plan import Address

if TYPE_CHECKING:
    from neurostore.sample._chosen import Chosen
    from neurostore.sample.dataset import Dataset
    from neurostore.schemas import Column, Table
    from neurostore.store import Session


@dataclass(frozen=True)
class Read:
    """What a window reads of one table.

    Attributes
    ----------
    table, contract, digest : str
    streams : tuple of str
        The streams that read it.
    rows : (int, int) or None
        First row and the one after the last; None where the table is read whole.
    chunks : (int, int) or None
        Chunks of the store that hold them, likewise.
    bytes : int
        Of those rows, decoded.
    cache : str
        ``"cached"`` where the local cache serves it, else ``"direct"``.
    """

    table: str
    contract: str
    digest: str
    streams: tuple[str, ...]
    rows: tuple[int, int] | None
    chunks: tuple[int, int] | None
    bytes: int
    cache: str


@dataclass(frozen=True)
class Explanation:
    """What `Dataset.explain` found.

    Attributes
    ----------
    start, present, stop : float
        Seconds on the session's clock.
    ticks : (int, int)
        First tick, and the one after the last.
    block : int
        Row of the split, -1 without one.
    label : str
        Of the split, empty without one.
    interval : (float, float)
        The piece of observed time (of the split) that the window lies in, in seconds.
    missing : mapping
        By stream: what of it the session lacks.
    tensors : mapping
        By tensor: shape, and the share of it that is observed.
    stimuli : mapping
        By stream: what is read beside tables, digests by stimulus.
    """

    snapshot: str
    session: str
    start: float
    present: float
    stop: float
    ticks: tuple[int, int]
    block: int
    label: str
    trial: int
    interval: tuple[float, float] | None
    reads: tuple[Read, ...]
    missing: Mapping[str, str]
    tensors: Mapping[str, tuple[tuple[int, ...], float]]
    stimuli: Mapping[str, Mapping[str, Mapping[str, str]]]

    def to_json(self) -> dict[str, JSON]:
        """As a plain mapping."""
        made: dict[str, Any] = asdict(self)
        return made

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield (
            f"<Window [{self.start:.6g}, {self.stop:.6g}) s of {self.session}, present at "
            f"{self.present:.6g} s>"
        )
        yield f"  ticks     [{self.ticks[0]:,}, {self.ticks[1]:,})"
        if self.interval is not None:
            where = f"block {self.block} of {self.label!r}" if self.label else "observed time"
            yield f"  interval  [{self.interval[0]:.6g}, {self.interval[1]:.6g}) s, {where}"
        yield f"  trial     {self.trial if self.trial >= 0 else 'none'}"
        yield f"  snapshot  {self.snapshot}"
        for one in self.reads:
            rows = "all rows" if one.rows is None else f"rows {one.rows[0]:,} to {one.rows[1]:,}"
            chunks = ""
            if one.chunks is not None:
                number = counted(one.chunks[1] - one.chunks[0], "chunk")
                chunks = f" in {number} from {one.chunks[0]}"
            yield (
                f"  reads     {one.table} ({one.contract}, {one.digest[:12]}) for "
                f"{', '.join(one.streams)}: {rows}{chunks}, {one.bytes:,} bytes, {one.cache}"
            )
        for stream, shown in self.stimuli.items():
            for name, said in shown.items():
                more = ""
                if "embedding" in said:
                    more = f", {said['embedding']} {said['values'][:12]}"
                yield f"  stimulus  {name} ({said['stimulus'][:12]}{more}) for {stream}"
        for stream, what in self.missing.items():
            yield f"  missing   {what}, for {stream}"
        for name, (shape, seen) in self.tensors.items():
            yield f"  tensor    {name} {shape}, {seen:.1%} observed"


def explain(dataset: Dataset, address: Address) -> Explanation:
    """See `Dataset.explain`."""
    row, tick = int(address.session[0]), int(address.start[0])
    chosen, block = dataset.chosen[row], int(address.block[0])
    clock = chosen.session.clock
    present, length = dataset.window_ticks(row)
    start, now, stop = clock.seconds(np.array([tick, tick + present, tick + length])).tolist()
    batch = dataset.read(address)
    readers = dataset.readers
    return Explanation(
        snapshot=dataset.store.snapshot,
        session=chosen.session.id,
        start=start,
        present=now,
        stop=stop,
        ticks=(tick, tick + length),
        block=block,
        label="" if dataset.split is None else dataset.split.label,
        trial=int(batch.trial[0]),
        interval=_interval(dataset, chosen, block, tick),
        reads=tuple(_reads(dataset, row, tick, tick + length)),
        missing={name: what for name, one in readers.items() if (what := one.missing(row))},
        tensors={name: (tuple(one.shape), _share(batch.mask[name])) for name, one in batch.items()},
        stimuli=dict(_stimuli(dataset, chosen)),
    )


def _stimuli(dataset: Dataset, chosen: Chosen) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """By stream: digests of the stimuli that this session was shown."""
    for name, reader in dataset.readers.items():
        said: Mapping[str, Any] = dataset._said_by(name).get("stimuli", {})  # type: ignore[assignment]
        tables = [one for one in reader.tables if said and one in chosen.session.tables]
        shown = {str(chosen.session.table(one).attrs.get("stimulus", "")) for one in tables}
        if mine := {stimulus: one for stimulus, one in said.items() if stimulus in shown}:
            yield name, mine


def _share(mask: Any) -> float:
    return float(mask.double().mean()) if mask.numel() else 0.0


def _interval(
    dataset: Dataset, chosen: Chosen, block: int, tick: int
) -> tuple[float, float] | None:
    clock = chosen.session.clock
    for start, stop in dataset.observed(chosen.session.id).get(block, ()):
        if start <= tick < stop:
            first, last = clock.seconds(np.array([start, stop])).tolist()
            return first, last
    return None


def _reads(dataset: Dataset, row: int, first: int, stop: int) -> Iterator[Read]:
    session = dataset.chosen[row].session
    entries = session.attrs["row"]["tables"]
    wanted: dict[str, list[str]] = {}
    for name, reader in dataset.readers.items():
        for table in reader.tables:
            wanted.setdefault(table, []).append(name)
    for table, streams in wanted.items():
        if table in entries:
            yield _read(session, table, tuple(streams), first, stop)


def _read(session: Session, name: str, streams: tuple[str, ...], first: int, stop: int) -> Read:
    entry, where = session.attrs["row"]["tables"][name], "direct"
    rows, size = _spikes(session, first, stop) if name == "spikes" else (None, 0)
    if name != "spikes":
        table = session.table(name)
        rows = _rows(session, table, first, stop)
        size = sum(_bytes(one, entry["rows"], rows) for one in table.columns.values())
    chunks = None
    if rows is not None and (step := session.chunk_rows(name)):
        chunks = (rows[0] // step, -(-rows[1] // step))
    if session.is_cached(name):
        where = "cached"
    said = (name, entry["contract"], entry["digest"], streams)
    return Read(*said, rows, chunks, size, where)


def _spikes(session: Session, first: int, stop: int) -> tuple[tuple[int, int], int]:
    """Rows of the spikes in [first, stop) ticks, and their bytes as they are read."""
    rows, packed = session.spike_rows(first, stop), session.packed
    each = 12 if packed is None else packed.events.itemsize
    return rows, (rows[1] - rows[0]) * each


def _bytes(column: Column, table_rows: int, rows: tuple[int, int] | None) -> int:
    length, *more = column.values.shape or (1,)
    taken = length if rows is None or length != table_rows else rows[1] - rows[0]
    return int(taken * prod(more) * np.dtype(column.values.dtype).itemsize)


def _rows(session: Session, table: Table, first: int, stop: int) -> tuple[int, int] | None:
    """The rows of a series in [first, stop) ticks; None for other tables."""
    if table.name.partition("/")[0] not in ("behaviour", "activity"):
        return None
    if "time" in table.columns:
        time = np.asarray(table.columns["time"].values[:])
        low, high = np.searchsorted(time, [first, stop]).tolist()
        return low, high
    length = table.columns["value"].values.shape[0]
    step = session.clock.rate / exact(str(table.attrs["rate"]))
    begin = int(str(table.attrs["start"]))
    low, high = (min(max(ceil((tick - begin) / step), 0), length) for tick in (first, stop))
    return low, high
