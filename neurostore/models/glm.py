"""Poisson GLM of every unit on the trailing counts of all units.

::

    log λ_i(t) = log r_i + b_i + Σ_j Σ_k W_ijk log(1 + n_j(t − d_k, t))

with r_i the training-mean rate, n_j(s, t) the spikes of unit j in [s, t) and d_k a few durations:
the coupled spike-response model of Pillow et al. 2008 (doi:10.1038/nature07140) and Truccolo et
al. 2005 (doi:10.1152/jn.00697.2004), with boxcars of growing length for history filters, their
counts compressed by a logarithm, and one rate over the horizon.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neurostore.errors import UsageError

BOXCARS = (0.02, 0.04, 0.1, 0.2, 0.5, 1.0)


class GLM(nn.Module):
    """Log expected counts a bin over the horizon, from the history's counts.

    Parameters
    ----------
    units : int
        Units, which are read and predicted.
    bin : float
        Width of a bin, seconds.
    boxcars : tuple of float
        Durations of the trailing boxcars, seconds, whole numbers of bins; none may be longer than
        the history.

    Raises
    ------
    UsageError
        Where a boxcar is no whole number of bins.
    """

    log_rate: Tensor

    def __init__(self, units: int, bin: float, *, boxcars: tuple[float, ...] = BOXCARS) -> None:
        super().__init__()
        if units < 1 or not boxcars:
            raise UsageError(
                f"A GLM needs a unit and a boxcar: {units} units, {len(boxcars)} boxcars."
            )
        self.bin, self.boxcars = bin, tuple(boxcars)
        self.lengths = tuple(_bins(duration, bin) for duration in boxcars)
        self.register_buffer("log_rate", torch.full((units,), math.nan))
        self.weight = nn.Linear(units * len(boxcars), units)
        # Zero: an untrained model is the training mean.
        nn.init.zeros_(self.weight.weight)
        nn.init.zeros_(self.weight.bias)

    def start(self, rate: Tensor) -> None:
        """Set the offsets to training-mean rates, which the untrained model then predicts.

        Parameters
        ----------
        rate : (unit,) float
            Expected spikes a bin, above zero.

        Raises
        ------
        UsageError
            Where a rate is not above zero, or there are not as many as units.
        """
        if rate.shape != self.log_rate.shape:
            raise UsageError(
                f"start takes one rate a unit: {len(self.log_rate)} units, "
                f"found rates of shape {tuple(rate.shape)}."
            )
        if not bool((torch.isfinite(rate) & (rate > 0)).all()):
            raise UsageError(
                f"start takes rates above zero, found {float(rate.min())}. "
                "Null.fit gives (n + 0.5) / (bins + 1)."
            )
        self.log_rate.copy_(torch.log(rate.double()))

    def features(self, spikes: Tensor) -> Tensor:
        """Log of one plus the counts of trailing boxcars.

        Parameters
        ----------
        spikes : (batch, unit, history bin) int or float
            Counts; the last bin is the one just before the horizon.

        Returns
        -------
        (batch, unit * boxcar) float32
            The boxcars of one unit lie together.

        Raises
        ------
        UsageError
            Where a boxcar is longer than the history.
        """
        longest = max(range(len(self.lengths)), key=self.lengths.__getitem__)
        if self.lengths[longest] > spikes.shape[-1]:
            raise UsageError(
                f"A boxcar of {self.boxcars[longest]:g} s is longer than the history of "
                f"{spikes.shape[-1] * self.bin:g} s ({spikes.shape[-1]} bins of {self.bin:g} s). "
                "Lengthen the history, or give shorter boxcars."
            )
        counts = [spikes[..., -length:].sum(-1) for length in self.lengths]
        return torch.log1p(torch.stack(counts, dim=-1).to(self.log_rate.dtype)).flatten(1)

    def forward(self, spikes: Tensor) -> Tensor:
        """Log expected counts a bin of the horizon.

        Parameters
        ----------
        spikes : (batch, unit, history bin) int or float
            Counts of the history; a bin that was not observed counts no spike.

        Returns
        -------
        (batch, unit) float32
            Log of the expected spikes a bin, one rate over the horizon.

        Raises
        ------
        UsageError
            Where a boxcar is longer than the history, units differ, or `start` was never called.
        """
        if spikes.ndim != 3 or spikes.shape[1] != len(self.log_rate):
            raise UsageError(
                f"This GLM reads (batch, unit, bin) of {len(self.log_rate)} units, "
                f"found {tuple(spikes.shape)}."
            )
        if bool(torch.isnan(self.log_rate).any()):
            raise UsageError("This GLM has no rates to start from. Call start(null.rate) first.")
        output: Tensor = self.log_rate + self.weight(self.features(spikes))
        return output

    def loss(self, output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Poisson negative log-likelihood without ``log k!``, mean over observed bins, nats.

        Parameters
        ----------
        output : (batch, unit) float
            What `forward` gave.
        target : (batch, unit, horizon bin) int
            Counts of the horizon.
        mask : (batch, unit, horizon bin) bool
            True where observed.
        """
        observed = mask.sum(-1).to(output.dtype)
        spikes = (target * mask).sum(-1).to(output.dtype)
        total = (observed * torch.exp(output) - spikes * output).sum()
        # A batch in which nothing was observed teaches nothing.
        return total / observed.sum().clamp(min=1.0)


def _bins(duration: float, bin: float) -> int:
    length = round(duration / bin)
    if length < 1 or not math.isclose(length * bin, duration, rel_tol=1e-6):
        raise UsageError(
            f"A boxcar of {duration:g} s is no whole number of bins of {bin:g} s. "
            f"The nearest is {max(length, 1) * bin:g} s."
        )
    return length
