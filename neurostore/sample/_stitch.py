"""Predictions of overlapping windows, averaged on the time line of their session."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import exact
from neurostore.errors import UsageError
from neurostore.sample._lay import Laid
from neurostore.sample.batch import Batch
from neurostore.sample.plan import Ticks, Window
from neurostore.sample.plan import steps as stepped

if TYPE_CHECKING:
    from neurostore.sample.dataset import Dataset


@dataclass(frozen=True, eq=False)
class Stitched:
    """The mean of all predictions of one session, bin by bin.

    Bins of one piece of observed time follow one another from its start; between pieces there are
    none.

    Attributes
    ----------
    session : str
    unit_ids : (unit,) array
    start : (bin,) float64
        Seconds on the session's clock.
    tick : (bin,) int64
        The same in ticks.
    value : (unit, bin) float64
        NaN where nothing was predicted.
    count : (bin,) int64
        How many predictions a value is the mean of.
    block : (bin,) int64
        Row of the split, -1 without one.
    """

    session: str
    unit_ids: NDArray[Any]
    start: NDArray[np.float64] = field(repr=False)
    tick: Ticks = field(repr=False)
    value: NDArray[np.float64] = field(repr=False)
    count: Ticks = field(repr=False)
    block: Ticks = field(repr=False)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Whether a bin (bin,) was predicted."""
        made: NDArray[np.bool_] = self.count > 0
        return made


def stitch(
    dataset: Dataset, predictions: Iterable[tuple[Batch, Any]], stream: str
) -> Iterator[Stitched]:
    """See `Dataset.stitch`."""
    past, horizon = dataset.steps(stream)
    if dataset.causal:  # its batches end at the present, its predictions begin there
        window = dataset._window
        horizon = int(exact(window.horizon) * past / exact(window.history))
    if dataset._steps[stream][0] != 2:
        raise UsageError(f"stitch takes predictions by unit and bin, which {stream!r} has not.")
    every = _whole_stride(dataset._window, past + horizon)
    done: list[str] = []
    line: _Line | None = None
    for batch, prediction in predictions:
        values = _plain(prediction, batch, past, horizon)
        for id in dict.fromkeys(batch.session):
            if line is None or id != line.id:
                if id in done:
                    raise UsageError(
                        f"A window of {id} comes after those of {done[-1]}: stitch takes batches "
                        "in plan order, loader(shuffle=False)."
                    )
                if line is not None:
                    yield line.finish()
                line = _Line.of(dataset, id, every, past, past + horizon)
                done.append(id)
            rows = np.flatnonzero(np.array(batch.session, dtype=object) == id)
            line.add(batch.tick.numpy()[rows], values[rows], past + horizon - values.shape[2])
    if line is not None:
        yield line.finish()


def _whole_stride(window: Window, bins: int) -> int:
    """Bins from one window to the next."""
    if window.around is not None:
        raise UsageError(
            f"Windows around {window.around} follow no stride over the session; stitch takes "
            "windows without `around`."
        )
    bin = window.length / bins
    every = window.step / bin
    if every.denominator != 1:
        raise UsageError(
            f"Windows every {float(window.step):g} s are {float(every):g} bins of {float(bin):g} s "
            "apart: their bins do not meet. Take a stride of whole bins."
        )
    return int(every)


def _plain(prediction: Any, batch: Batch, past: int, horizon: int) -> NDArray[np.float64]:
    """Predictions (window, unit, bin), of the horizon or of all bins."""
    detached = prediction.detach().cpu() if hasattr(prediction, "detach") else prediction
    values = np.asarray(detached, dtype=np.float64)
    windows, units = batch.unit_mask.shape
    bins = (horizon, past + horizon) if horizon else (past,)
    if values.ndim != 3 or values.shape[:2] != (windows, units) or values.shape[2] not in bins:
        said = " or ".join(str((windows, units, n)) for n in bins)
        raise UsageError(
            f"A prediction is (window, unit, bin), {said} for this batch, found {values.shape}."
        )
    return values


@dataclass
class _Line:
    """Sums and counts of one session while windows come in."""

    id: str
    laid: Laid
    unit_ids: NDArray[Any]
    every: int
    step: Fraction
    before: int
    left_out: int
    starts: Ticks
    blocks: Ticks
    first: Ticks
    tick: Ticks
    total: NDArray[np.float64]
    count: Ticks

    @classmethod
    def of(cls, dataset: Dataset, id: str, every: int, past: int, bins: int) -> _Line:
        """The time line of a session: bins of every piece of observed time that holds a window.

        Where the history may cross, bins are those of targets: histories lie in other pieces.
        """
        laid = dataset.laid[dataset._row(id)]
        clock, window = laid.chosen.session.clock, laid.window
        present, length = window.ticks(clock)
        before, step = present if laid.may_cross else 0, window.step * clock.rate
        starts, stops, blocks = laid._edges
        room = stops - starts + before - length
        windows = [ceil(Fraction(int(ticks) + 1) / step) if ticks >= 0 else 0 for ticks in room]
        left_out = past if laid.may_cross else 0
        many = [(n - 1) * every + bins - left_out if n else 0 for n in windows]
        bin = window.length / bins * clock.rate
        edges = [start + stepped(np.arange(n), bin) for start, n in zip(starts, many, strict=True)]
        first = np.cumsum([0, *many])
        tick = np.concatenate([np.zeros(0, dtype=np.int64), *edges])
        ids = laid.chosen.ids
        total = np.zeros((len(ids), len(tick)))
        count = np.zeros(len(tick), dtype=np.int64)
        own = (starts, blocks, first, tick, total, count)
        return cls(id, laid, ids, every, step, before, left_out, *own)

    def add(self, tick: Ticks, values: NDArray[np.float64], skipped: int) -> None:
        """Windows (window,) with their predictions (window, unit, bin) after `skipped` bins."""
        present, _ = self.laid.window.ticks(self.laid.chosen.session.clock)
        target = tick + (present if self.before else 0)
        piece = np.searchsorted(self.starts, target, side="right") - 1
        nth = self._number(tick, piece)
        if skipped < self.left_out:
            raise UsageError(
                "Histories that may cross lie in other pieces of time; stitch the bins of the "
                "horizon alone."
            )
        places = self.first[piece] + nth * self.every + skipped - self.left_out
        for place, value in zip(places.tolist(), values, strict=True):
            here = slice(place, place + values.shape[2])
            self.total[:, here] += value[: len(self.unit_ids)]
            self.count[here] += 1

    def _number(self, tick: Ticks, piece: Ticks) -> Ticks:
        """Which window (window,) of its piece each is."""
        away = tick - (self.starts[np.maximum(piece, 0)] - self.before)
        nth = np.array([ceil(Fraction(int(one)) / self.step) for one in away], dtype=np.int64)
        wrong = (piece < 0) | (nth < 0) | (stepped(nth, self.step) != away)
        if wrong.any():
            raise UsageError(
                f"The window of {self.id} at tick {tick[np.argmax(wrong)]} is none of the plan of "
                "this dataset. Predict what its own loader gives."
            )
        return nth

    def finish(self) -> Stitched:
        """The means."""
        clock = self.laid.chosen.session.clock
        value = np.full(self.total.shape, np.nan)
        np.divide(self.total, self.count, out=value, where=self.count > 0)
        block = np.repeat(self.blocks, np.diff(self.first))
        return Stitched(
            self.id, self.unit_ids, clock.seconds(self.tick), self.tick, value, self.count, block
        )
