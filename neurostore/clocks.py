"""Session clocks: seconds to integer ticks and back, rates and bin edges, exactly.

Public interfaces speak seconds on the session clock; everything stored and counted is int64 ticks.
A rate is a rational number of ticks per second (24,414.0625 Hz included), so a bin edge is exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import floor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurostore.errors import UsageError

MISSING = np.iinfo(np.int64).min
"""The tick stored where a time is missing (NaN or infinite); it always has a mask beside it."""

ACQUISITION = Fraction(30_000)
MICROSECOND = Fraction(1_000_000)
GRID = 1e-3
"""How far from the 30 kHz grid, in ticks, a time may lie and still count as on it."""

REACH = 1e6
"""Seconds from the session's median time beyond which a time is out of range."""

FASTEST = 10**10
"""Ticks per second that a clock may count at most: int64 holds every time in range."""

MOST_BINS = 1 << 28

_FAR = 2**62
_LEAST = float(np.finfo(np.float64).smallest_normal)
_SEVERAL = 16
"""Pieces of so many times from which threads pay."""
_PIECE = 1 << 16  # what is worked on lies in the cache of a core


def exact(value: float | int | str | Fraction) -> Fraction:
    """The number a person wrote: ``exact(0.1)`` is 1/10, not the nearest binary float."""
    if isinstance(value, Fraction):
        return value
    text = str(value)
    try:
        if re.search(r"e[-+]?\d{4}", text, re.IGNORECASE):  # 10**9999 takes for ever
            raise ValueError
        made = Fraction(text)
        float(made)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise UsageError(f"{text[:80]!r} is no finite number.") from error
    return made


def as_seconds(times: ArrayLike, what: str = "times") -> NDArray[np.float64]:
    """Times as a person gives them → float64 seconds of the same shape, NaN where missing.

    Raises
    ------
    UsageError
        Where they are no numbers (text, date-times, ...), naming `what` they are.
    """
    if np.ma.isMaskedArray(times):
        times = np.ma.filled(np.ma.asarray(times, dtype=np.float64), np.nan)
    try:
        array = np.asarray(times)
        if array.dtype.kind not in "iufO":
            raise TypeError(f"found {array.dtype}")
        return np.asarray(times if array.dtype.kind == "O" else array, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{what} must be numbers, in seconds: {reason}.") from error


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
        if not 0 < self.rate <= FASTEST:
            raise UsageError(
                f"A clock needs a rate above 0, at most {FASTEST:.0e} ticks per second, found "
                f"{float(self.rate):g}."
            )

    def tick(self, seconds: float | int | str | Fraction) -> int:
        """The tick of one time: exact product, rounded half to even."""
        if isinstance(seconds, float):
            scaled = float(seconds) * self._hertz
            # Three roundings (the decimal as a float, the rate, the product), as in `_nearest`.
            sure = 0.5 - abs(scaled) * 2.0**-51  # not above 0 from 2^50 on, nor for NaN
            if sure > 0 and abs(scaled - (whole := round(scaled))) < sure:
                return whole
        tick = round(exact(seconds) * self.rate)
        if abs(tick) >= _FAR:
            raise UsageError(f"{float(seconds):g} s is further from 0 than a clock counts.")
        return tick

    @cached_property
    def _hertz(self) -> float:
        """The rate as a float; NaN where a float has less than its usual digits for it."""
        hertz = float(self.rate)
        return hertz if hertz >= _LEAST else float("nan")

    def ticks(self, seconds: ArrayLike) -> NDArray[np.int64]:
        """Times (n,) float64 seconds → the nearest ticks (n,) int64, `MISSING` where not finite.

        Half to even; exact, so that there and back is off by at most half a tick and one float
        spacing of the time (two, for a rate whose numerator is above 2^53).
        """
        times = as_seconds(seconds)
        ticks = np.empty(times.shape, dtype=np.int64)
        flat, out = times.reshape(-1), ticks.reshape(-1)
        for first in range(0, len(flat), _PIECE):
            out[first : first + _PIECE] = self._nearest(flat[first : first + _PIECE])
        return ticks

    def _nearest(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        with np.errstate(over="ignore"):
            scaled = times * float(self.rate)
        usable, furthest = None, _furthest(scaled)
        if not furthest < _FAR:
            usable = np.abs(scaled) < _FAR  # False for NaN too
            scaled[~usable] = 0.0
            furthest = _furthest(scaled)
        whole = np.rint(scaled)
        ticks = whole.astype(np.int64)
        # The product was rounded: close to a half it may lie on the wrong side of it.
        whole -= scaled
        if _furthest(whole) >= 0.5 - furthest * 2.0**-51:
            doubt = np.abs(whole) >= 0.5 - np.abs(scaled) * 2.0**-51
            for row in np.flatnonzero(doubt):
                ticks[row] = round(Fraction(float(times[row])) * self.rate)
        if usable is not None:
            ticks[~usable] = MISSING
        return ticks

    def seconds(self, ticks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Ticks (n,) → (n,) float64 seconds, NaN where `MISSING`."""
        ticks = np.asarray(ticks)
        above, below = float(self.rate), 1.0
        if self.rate.numerator < 2**53:  # then the quotient is rounded once, up to 2^53
            above, below = float(self.rate.numerator), float(self.rate.denominator)
        times = np.asarray(ticks * below)
        times /= above
        if ticks.min(initial=0) == MISSING:
            times = np.where(ticks == MISSING, np.nan, times)
        return times

    def error(self, seconds: NDArray[np.float64]) -> float:
        """The worst round-trip error of these times (those with a tick), in seconds."""
        return self._measured(seconds, None)

    def measured(self, seconds: NDArray[np.float64]) -> tuple[NDArray[np.int64], float]:
        """`ticks` and `error` of times (n,), in one pass."""
        ticks = np.empty(len(seconds), dtype=np.int64)
        return ticks, self._measured(seconds, ticks)

    def _measured(self, seconds: NDArray[np.float64], out: NDArray[np.int64] | None) -> float:
        def measure(first: int) -> float:
            piece = seconds[first : first + _PIECE]
            ticks = self._nearest(piece)
            if out is not None:
                out[first : first + _PIECE] = ticks
            off = self.seconds(ticks)
            off -= piece
            most = _furthest(off)
            if not most < np.inf:
                most = float(np.abs(off[np.isfinite(off)]).max(initial=0.0))
            return most

        firsts = range(0, len(seconds), _PIECE)
        if len(firsts) < _SEVERAL:
            return max(map(measure, firsts), default=0.0)
        with ThreadPoolExecutor() as threads:  # numpy works on a piece without the GIL
            return max(threads.map(measure, firsts))

    def edges(self, start: int, bins: int, bin: float | str | Fraction) -> NDArray[np.int64]:
        """Edges (bins + 1,) int64 ticks of bins: start + floor(k · bin · rate)."""
        width = exact(bin) * self.rate
        if width < 1:
            raise UsageError(
                f"A bin of {bin} s is {float(width):g} ticks at {float(self.rate):g} ticks per "
                f"second; it must be at least one tick ({float(1 / self.rate):g} s)."
            )
        if not 0 <= bins <= MOST_BINS or abs(start) + width * bins >= _FAR:
            raise UsageError(
                f"{bins:,} bins of {bin} s are more than one call counts ({MOST_BINS:,}), or reach "
                "further than the clock; ask for a shorter window or wider bins."
            )
        above, below = width.numerator, width.denominator
        if above * bins < _FAR:
            whole = np.arange(bins + 1, dtype=np.int64) * above // below
        else:
            whole = np.array([k * above // below for k in range(bins + 1)], dtype=np.int64)
        return whole + start

    def bins(
        self,
        start: float | str | Fraction,
        stop: float | str | Fraction,
        bin: float | str | Fraction,
    ) -> int:
        """How many whole bins lie in [start, stop) seconds."""
        if exact(bin) <= 0:
            raise UsageError(f"A bin must be longer than 0 s, found {bin}.")
        return max(0, floor((exact(stop) - exact(start)) / exact(bin)))


def _furthest(values: NDArray[np.float64]) -> float:
    """The greatest magnitude of values (n,); NaN where one of them is."""
    return max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))


def on_grid(seconds: NDArray[np.float64], rate: Fraction = ACQUISITION) -> bool:
    """Whether every finite time (n,) lies within `GRID` ticks of the grid of `rate`."""
    for first in range(0, len(seconds), _PIECE):
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = seconds[first : first + _PIECE] * float(rate)
            off = np.rint(scaled)
            off -= scaled
        if not _furthest(off) <= GRID and (np.abs(off[np.isfinite(off)]) > GRID).any():
            return False
    return True


def choose(times: Iterable[NDArray[np.float64]], origin: str = "") -> Clock:
    """The clock for a session whose source does not say: 30 kHz where all fits it, else 1 µs.

    Parameters
    ----------
    times : iterable of (n,) float64, seconds
        Every time of every stream that is in range; NaN is passed over.
    """
    fits = all(on_grid(as_seconds(stream)) for stream in times)
    return Clock(ACQUISITION if fits else MICROSECOND, origin)
