"""When each channel was observed: at every step, so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class All:
    """Every channel at every step."""


Acquisition: TypeAlias = All
