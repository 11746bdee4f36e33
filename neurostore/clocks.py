"""Session clocks: seconds to integer ticks and back, rates and bin edges, exactly.

Public interfaces speak seconds on the session clock; everything stored and counted is int64 ticks.
A rate is a rational number of ticks per second (24,414.0625 Hz included), so a bin edge is exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import UsageError

MISSING = np.iinfo(np.int64).min
"""The tick stored where a time is missing (NaN or infinite); it always has a mask beside it."""

ACQUISITION = Fraction(30_000)
MICROSECOND = Fraction(1_000_000)
GRID = 1e-3
"""How far from the 30 kHz grid, in ticks, a time may lie and still count as on it."""

REACH = 1e6
"""Seconds from the session's median time beyond which a time is out of range."""

_PIECE = 1 << 20


def exact(value: float | int | str | Fraction) -> Fraction:
    """The number a person wrote: ``exact(0.1)`` is 1/10, not the nearest binary float."""
    if isinstance(value, Fraction):
        return value
    try:
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"{value!r} is no finite number.") from error


@dataclass(frozen=True)
class Clock:
    """The clock of one session.

    Parameters
    ----------
    rate : Fraction
        Ticks per second; exact.
    origin : str
        ISO 8601 date-time of tick 0, empty where the source does not say.
    """

    rate: Fraction = MICROSECOND
    origin: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", exact(self.rate))
        if not self.rate > 0:
            raise UsageError(f"A clock needs a rate above 0 ticks per second, found {self.rate}.")

    def tick(self, seconds: float | int | str | Fraction) -> int:
        """The tick of one time: exact product, rounded half to even."""
        return round(exact(seconds) * self.rate)

    def ticks(self, seconds: NDArray[np.floating] | Iterable[float]) -> NDArray[np.int64]:
        """Times (n,) float64 seconds → (n,) int64 ticks, `MISSING` where not finite.

        Off by at most half a tick and one float spacing of the time.
        """
        times = np.asarray(seconds, dtype=np.float64)
        scaled = times * float(self.rate)
        usable = np.abs(scaled) < 2.0**62  # False for NaN too
        if usable.all():
            return np.rint(scaled, out=scaled).astype(np.int64)
        return np.where(usable, np.rint(np.where(usable, scaled, 0.0)), 0).astype(
            np.int64
        ) + np.where(usable, 0, MISSING)

    def seconds(self, ticks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Ticks (n,) → (n,) float64 seconds, NaN where `MISSING`."""
        ticks = np.asarray(ticks)
        if self.rate.denominator == 1:
            times = ticks / float(self.rate.numerator)
        else:
            times = ticks / float(self.rate)
        return np.where(ticks == MISSING, np.nan, times)

    def error(self, seconds: NDArray[np.float64]) -> float:
        """The worst round-trip error of these times (finite ones), in seconds."""
        worst = 0.0
        for first in range(0, len(seconds), _PIECE):
            piece = seconds[first : first + _PIECE]
            piece = piece[np.isfinite(piece)]
            if len(piece):
                worst = max(worst, float(np.abs(self.seconds(self.ticks(piece)) - piece).max()))
        return worst

    def edges(self, start: int, bins: int, bin: float | str | Fraction) -> NDArray[np.int64]:
        """Edges (bins + 1,) int64 ticks of bins: start + floor(k · bin · rate)."""
        width = exact(bin) * self.rate
        if width < 1:
            raise UsageError(
                f"A bin of {bin} s is {float(width):g} ticks at {float(self.rate):g} ticks per "
                f"second; it must be at least one tick ({float(1 / self.rate):g} s)."
            )
        top = width.numerator * bins
        if top < 2**62:
            whole = np.arange(bins + 1, dtype=np.int64) * width.numerator // width.denominator
        else:
            whole = np.array([floor(width * k) for k in range(bins + 1)], dtype=np.int64)
        return whole + start

    def bins(self, start: float | str, stop: float | str, bin: float | str | Fraction) -> int:
        """How many whole bins lie in [start, stop) seconds."""
        if exact(bin) <= 0:
            raise UsageError(f"A bin must be longer than 0 s, found {bin}.")
        return max(0, floor((exact(stop) - exact(start)) / exact(bin)))


def on_grid(seconds: NDArray[np.float64], rate: Fraction = ACQUISITION) -> bool:
    """Whether every finite time (n,) lies within `GRID` ticks of the grid of `rate`."""
    for first in range(0, len(seconds), _PIECE):
        scaled = seconds[first : first + _PIECE] * float(rate)
        scaled = scaled[np.isfinite(scaled)]
        if (np.abs(scaled - np.rint(scaled)) > GRID).any():
            return False
    return True


def choose(times: Iterable[NDArray[np.float64]], origin: str = "") -> Clock:
    """The clock for a session whose source does not say: 30 kHz where all fits it, else 1 µs.

    Parameters
    ----------
    times : iterable of (n,) float64, seconds
        Every time of every stream.
    """
    fits = all(on_grid(np.asarray(stream, dtype=np.float64)) for stream in times)
    return Clock(ACQUISITION if fits else MICROSECOND, origin)
