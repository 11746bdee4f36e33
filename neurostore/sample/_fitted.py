"""What is fitted on the windows of a dataset, and kept away from those that are to be predicted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import JSON, NotFoundError, UsageError, counted
from neurostore.intervals import Intervals
from neurostore.sample.batch import Batch, tensor
from neurostore.sample.plan import Ticks, steps
from neurostore.splits import Fitted, Part, refuse_leak

if TYPE_CHECKING:
    from neurostore.sample.dataset import Dataset

_BATCH = 256
_SHOWN = 5


def fitted_on(dataset: Dataset, what: str) -> Fitted:
    """The time that all windows of a dataset cover, as that which something was fitted on."""
    intervals: dict[str, Intervals] = {}
    for laid, runs in zip(dataset.laid, dataset.plan.runs, strict=True):
        if len(runs.start):
            length = laid.window.ticks(laid.chosen.session.clock)[1]
            last: Ticks = runs.start + steps(runs.count - 1, runs.step)
            intervals[laid.chosen.session.id] = Intervals(runs.start, last + length)
    part = dataset.split
    if part is None:
        return Fitted(what, intervals)
    return Fitted(what, intervals, part.digest, part.label)


def refuse_fitted_elsewhere(transform: object, part: Part | None) -> None:
    """Refuse a transform whose `fitted` (one `Fitted`, or several) a part may not know."""
    fitted = getattr(transform, "fitted", None)
    if fitted is None or part is None:
        return
    every: Iterable[Any] = [fitted] if isinstance(fitted, Fitted) else fitted
    for one in every:
        if not isinstance(one, Fitted):
            raise UsageError(
                f"`fitted` of a transform is a Fitted, or several; found {type(one).__name__}."
            )
        refuse_leak(one, part)


def refuse_shared_units(fit: Dataset, evaluation: Dataset) -> None:
    """Refuse datasets that have windows of the same unit, for what is said of unseen units.

    Raises
    ------
    UsageError
        Where a unit of a session is in both, with the units.
    """
    seen = _units(fit)
    shared = {id: sorted(own & seen[id]) for id, own in _units(evaluation).items() if id in seen}
    names = [f"{id} {unit}" for id, units in shared.items() for unit in units]
    if names:
        more = ", ..." if len(names) > _SHOWN else ""
        raise UsageError(
            f"{counted(len(names), 'unit')} would be evaluated as unseen and "
            f"{'was' if len(names) == 1 else 'were'} fitted: {', '.join(names[:_SHOWN])}{more}. "
            "Choose other units, or other sessions, for one of the two."
        )


def _units(dataset: Dataset) -> dict[str, set[str]]:
    """The units of every session that has windows."""
    having = zip(dataset.unit_ids.items(), dataset.plan.by_session(), strict=True)
    return {id: {str(one) for one in ids} for (id, ids), windows in having if windows}


@dataclass(frozen=True, eq=False)
class Normaliser:
    """A stream as z scores: (value − mean) / std by channel, where it is observed.

    A transform of a dataset, which refuses one that was fitted on time it predicts.

    Attributes
    ----------
    stream : str
        The tensor it is for.
    mean, std : (channel, ...) float64
        Over time; one number each for a stream without channels.
    fitted : Fitted
        On which time.
    """

    stream: str
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    fitted: Fitted

    @classmethod
    def fit(cls, dataset: Dataset, stream: str) -> Normaliser:
        """Mean and standard deviation over all windows of a dataset, what is masked left out.

        A value counts as often as windows hold it.

        Raises
        ------
        UsageError
            Where the stream has no channels of its own over time, nothing is observed, or a channel
            is constant.
        """
        dataset.steps(stream)
        axis = dataset._steps[stream][0]
        if axis != 1:
            raise UsageError(
                f"The stream {stream!r} has units, which are others in every session; a normaliser "
                "takes (window, time) or (window, time, channel)."
            )
        many, mean, square = 0, np.zeros(()), np.zeros(())
        for first in range(0, len(dataset), _BATCH):
            places = np.arange(first, min(first + _BATCH, len(dataset)))
            batch = dataset.batch(places, seed=None)
            value = batch[stream].numpy().astype(np.float64)[batch.mask[stream].numpy()]
            if not len(value):
                continue
            # Chan, Golub & LeVeque 1983: sums of squares about the mean of what was seen so far
            own, away = value.mean(axis=0), value.mean(axis=0) - mean
            both = many + len(value)
            square = square + ((value - own) ** 2).sum(axis=0) + away**2 * many * len(value) / both
            mean, many = mean + away * len(value) / both, both
        return cls._checked(stream, many, mean, square, fitted_on(dataset, f"z scores of {stream}"))

    @classmethod
    def _checked(
        cls,
        stream: str,
        many: int,
        mean: NDArray[np.float64],
        square: NDArray[np.float64],
        fitted: Fitted,
    ) -> Normaliser:
        if not many:
            raise UsageError(f"No value of {stream!r} is observed in this dataset.")
        std = np.sqrt(square / many)
        if not (std > 0).all():
            channel = int(np.argmin(std))
            raise UsageError(
                f"Channel {channel} of {stream!r} is constant over {counted(many, 'value')}: it "
                "has no z score. Leave it out."
            )
        return cls(stream, np.asarray(mean), np.asarray(std), fitted)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the stream as z scores; what is masked stays 0."""
        if self.stream not in batch:
            raise NotFoundError("tensor", self.stream, batch.tensors, "this batch")
        value = (batch[self.stream].numpy() - self.mean) / self.std
        seen = batch.mask[self.stream].numpy()
        value[~seen] = 0
        return batch.having({self.stream: tensor(value.astype(np.float32))})

    def to_json(self) -> dict[str, JSON]:
        """All of it as a plain mapping."""
        numbers: dict[str, JSON] = {"mean": self.mean.tolist(), "std": self.std.tolist()}
        return {"stream": self.stream, **numbers, "fitted": self.fitted.to_json()}
