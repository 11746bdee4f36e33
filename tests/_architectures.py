"""Architectures that tests name in recipes; none needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal


class Linear:
    """Everything that a recipe can set."""

    def __init__(
        self,
        units: int,
        bin: float,
        *,
        boxcars: tuple[float, ...] = (0.02, 0.1),
        width: int = 8,
        gain: float | None = None,
        kind: Literal["log", "identity"] = "log",
        pair: tuple[int, str] = (1, "a"),
        scales: Mapping[str, float] = {"fast": 1.0},
        deep: bool = False,
    ) -> None:
        self.said = {name: value for name, value in locals().items() if name != "self"}

    def forward(self, spikes: object) -> object:
        return spikes


class TwoInputs:
    def __init__(self, history: float, horizon: float) -> None:
        self.said = (history, horizon)

    def forward(self, spikes: object, position: object, extra: object = None) -> object:
        return spikes


class Unbindable:
    def __init__(self, neurons: int) -> None:
        pass

    def forward(self, spikes: object) -> object:
        return spikes


class Open:
    def __init__(self, units: int, **options: object) -> None:
        pass

    def forward(self, spikes: object) -> object:
        return spikes
