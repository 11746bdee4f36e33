"""Small networks that tests train."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Noisy(nn.Module):
    """A linear map with dropout: what it learns depends on every random number it draws."""

    def __init__(self, units: int, *, keep: float = 0.8, break_at: float | None = None) -> None:
        super().__init__()
        self.weight = nn.Linear(units, units)
        self.dropout = nn.Dropout(1 - keep)
        self.register_buffer("rate", torch.zeros(units))
        self.break_at, self.calls = break_at, 0

    def start(self, rate: Tensor) -> None:
        self.rate.copy_(rate.log())

    def forward(self, spikes: Tensor) -> Tensor:
        assert spikes.shape[-1] == 10, "the history of 0.2 s has ten bins of 0.02 s"
        self.calls += self.training
        counts = spikes.sum(-1).to(self.weight.weight.dtype)
        output: Tensor = self.rate + 0.1 * self.weight(self.dropout(counts))
        return output * float("nan") if self.calls == self.break_at else output

    def loss(self, output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        assert target.shape[-1] == 5, "the horizon of 0.1 s has five bins"
        rate, log_rate = output.exp()[..., None], output[..., None]
        return ((rate - target * log_rate) * mask).sum() / mask.sum()


class Lossless(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.weight = nn.Linear(units, units)

    def forward(self, spikes: Tensor) -> Tensor:
        return spikes


class Weightless(Lossless):
    def __init__(self, units: int) -> None:
        nn.Module.__init__(self)

    def loss(self, output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return output.sum()


class Units(nn.Module):
    """Needs no number of units, and so no units that are the same in every session."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(2))

    def forward(self, spikes: Tensor) -> Tensor:
        return self.gain[0] + self.gain[1] * spikes.float().mean(-1)

    def loss(self, output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        rate, log_rate = output.exp()[..., None], output[..., None]
        return ((rate - target * log_rate) * mask).sum() / mask.sum()
