"""Probes for what needs no spikes: how much of a score the clock or the behaviour gives alone.

Neither is a forecast. What `SessionTime` earns is drift, which any input that carries absolute
session time gives away; what `StateMean` earns is known once the behavioural state is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurostore.errors import UsageError
from neurostore.metrics import Null
from neurostore.models.baselines import Floats, log_likelihood, observed_sums, refuse_empty

States: TypeAlias = NDArray[np.int64]

BANDWIDTHS = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

STEP = 1.0
"""Seconds over which training windows are summed before smoothing; bandwidths are longer."""


@dataclass(frozen=True, eq=False)
class SessionTime:
    """Rates as a smooth function of session time alone, fitted on training blocks.

    A Gaussian kernel over the training windows, which fades into the training mean where none is
    near (with the weight of one window).

    Attributes
    ----------
    null : Null
        Training means.
    time : (step,) float64, seconds on the session clock
        Mean start of the training windows of each step.
    spikes, bins : (step, unit) float64
        What was observed in them.
    window : float
        Bins of one window: the weight of the training mean.
    bandwidth : float
        Standard deviation of the kernel, seconds.
    """

    null: Null = field(repr=False)
    time: Floats = field(repr=False)
    spikes: Floats = field(repr=False)
    bins: Floats = field(repr=False)
    window: float
    bandwidth: float

    @classmethod
    def fit(
        cls,
        start: ArrayLike,
        target: ArrayLike,
        *,
        null: Null,
        bandwidth: float,
        mask: ArrayLike | None = None,
    ) -> SessionTime:
        """The probe of one bandwidth.

        Parameters
        ----------
        start : (window,) float, seconds on the session clock
            Of the training windows.
        target : (window, unit, bin) int
            Their counts.
        null : Null
            Training means.
        bandwidth : float
            Standard deviation of the kernel, seconds.
        mask : (window, unit, bin) bool, optional
            True where observed.
        """
        when = _starts(start)
        refuse_empty(when, "training")
        if not bandwidth > 0:
            raise UsageError(f"A bandwidth must be longer than 0 s, found {bandwidth:g} s.")
        spikes, bins = observed_sums(target, mask)
        steps, which = np.unique(np.floor(when / STEP), return_inverse=True)
        summed = [_by(which, len(steps), values) for values in (when[:, None], spikes, bins)]
        middle = summed[0][:, 0] / np.bincount(which)
        width = float(np.shape(target)[-1])
        return cls(null, middle, summed[1], summed[2], width, bandwidth)

    @classmethod
    def choose(
        cls,
        training: tuple[ArrayLike, ArrayLike],
        validation: tuple[ArrayLike, ArrayLike],
        *,
        null: Null,
        masks: tuple[ArrayLike | None, ArrayLike | None] = (None, None),
        bandwidths: Sequence[float] = BANDWIDTHS,
    ) -> SessionTime:
        """The bandwidth with the highest pooled log-likelihood of validation windows.

        Parameters
        ----------
        training, validation : ((window,) float seconds, (window, unit, bin) int)
            Starts and counts.
        null : Null
            Training means.
        masks : pair of (window, unit, bin) bool, or None
            True where training and validation were observed.
        bandwidths : sequence of float
            To try, seconds.
        """
        if not bandwidths:
            raise UsageError("There is no bandwidth to choose from: bandwidths is empty.")
        start = _starts(validation[0])
        refuse_empty(start, "validation")
        spikes, bins = observed_sums(validation[1], masks[1])
        tried = [cls.fit(*training, null=null, bandwidth=one, mask=masks[0]) for one in bandwidths]
        return max(tried, key=lambda one: log_likelihood(one.predict(start), spikes, bins))

    def predict(self, values: ArrayLike, /) -> Floats:
        """(window, unit) expected spikes a bin, from starts (window,) in seconds."""
        apart = (_starts(values)[:, None] - self.time) / self.bandwidth
        near = np.exp(-0.5 * apart**2)
        spikes = near @ self.spikes + self.window * self.null.rate
        rate: Floats = spikes / (near @ self.bins + self.window)
        return rate


@dataclass(frozen=True, eq=False)
class StateMean:
    """The training-mean rate of each behavioural state; of all states where one was never trained.

    Attributes
    ----------
    null : Null
        Training means over all states.
    states : (state,) int64
        States seen in training, sorted.
    rate : (state, unit) float64
        Expected spikes a bin, ``(n + 0.5) / (bins + 1)``.
    """

    null: Null = field(repr=False)
    states: States
    rate: Floats = field(repr=False)

    @classmethod
    def fit(
        cls, state: ArrayLike, target: ArrayLike, *, null: Null, mask: ArrayLike | None = None
    ) -> StateMean:
        """The means of training windows.

        Parameters
        ----------
        state : (window,) int
            Behavioural state at the start of each training window.
        target : (window, unit, bin) int
            Counts.
        null : Null
            Training means.
        mask : (window, unit, bin) bool, optional
            True where observed.
        """
        labels = _states(state)
        refuse_empty(labels, "training")
        spikes, bins = observed_sums(target, mask)
        states, which = np.unique(labels, return_inverse=True)
        n, observed = (_by(which, len(states), values) for values in (spikes, bins))
        return cls(null, states, (n + 0.5) / (observed + 1.0))

    def predict(self, values: ArrayLike, /) -> Floats:
        """(window, unit) expected spikes a bin, from states (window,)."""
        labels = _states(values)
        at = np.clip(np.searchsorted(self.states, labels), 0, len(self.states) - 1)
        known = self.states[at] == labels
        return np.where(known[:, None], self.rate[at], self.null.rate)


def _starts(values: ArrayLike) -> Floats:
    start = np.asarray(values, dtype=np.float64)
    if start.ndim != 1 or not np.isfinite(start).all():
        raise UsageError(f"Starts must be (window,) finite seconds, found shape {start.shape}.")
    return start


def _states(values: ArrayLike) -> States:
    labels = np.asarray(values)
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise UsageError(
            f"States must be (window,) integers, found {labels.dtype} of shape {labels.shape}."
        )
    return labels.astype(np.int64)


def _by(which: NDArray[np.intp], groups: int, values: Floats) -> Floats:
    total = np.zeros((groups, values.shape[1]))
    np.add.at(total, which, values)
    return total
