"""When each channel was observed, and where windows may then start.

Channel i is observed at the steps t with (t − phase_i) mod every = 0, counted from a table's first.
Of spike counts the steps are bins, counted from tick 0 of the session's clock, the channels units.
Nothing is copied for it: a table is stored once, and an acquisition is a way to look at it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import exact
from neurostore.errors import JSON, UsageError
from neurostore.sample.plan import Number, Runs, Ticks


@dataclass(frozen=True)
class All:
    """Every channel at every step; windows start anywhere."""

    def in_steps(self, step: Number, of: str) -> All:
        """Itself."""
        return self

    @property
    def period(self) -> int:
        """Steps between two observations of a channel."""
        return 1

    def phases(self, channels: int) -> Ticks:
        """The first step (channel,) int64 at which each channel is observed."""
        return np.zeros(channels, dtype=np.int64)

    def identity(self, channels: Iterable[int] = ()) -> JSON:
        """What a run keeps of it."""
        return "All"


@dataclass(frozen=True)
class TimeAligned:
    """All channels together, once in `every` steps: the first step, and every multiple.

    Parameters
    ----------
    every : int, optional
        Steps of the table that is read, from one observation to the next.
    seconds : float, optional
        The same in seconds, which must be a whole number of steps. One of the two.
    """

    every: int | None = None
    seconds: Number | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check(self)

    def in_steps(self, step: Number, of: str) -> TimeAligned:
        """The same with `every` in steps of `step` seconds; `of` names the table in errors."""
        return replace(self, every=_steps(self, step, of), seconds=None)

    @property
    def period(self) -> int:
        """Steps between two observations of a channel."""
        return _period(self)

    def phases(self, channels: int) -> Ticks:
        """The first step (channel,) int64 at which each channel is observed."""
        return np.zeros(channels, dtype=np.int64)

    def identity(self, channels: Iterable[int] = ()) -> JSON:
        """What a run keeps of it: its parameters."""
        return {"kind": "TimeAligned", **_plain(self)}


@dataclass(frozen=True)
class Staggered:
    """Every channel once in `every` steps, at a phase of its own.

    Phases are drawn by channel from the seed alone: phase i is the i-th little-endian uint64 of
    sha256("<seed> phases 0"), sha256("<seed> phases 1"), ..., modulo `every`. No library's
    generator is behind it, so that a run's phases come back from its seed in any version.

    Parameters
    ----------
    every : int, optional
        Steps between two observations of a channel.
    seed : int
        Of the phases.
    seconds : float, optional
        `every` in seconds, which must be a whole number of steps. One of the two.
    """

    every: int | None = None
    seed: int = 0
    seconds: Number | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check(self)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise UsageError(f"The seed of staggered phases is a whole number, found {self.seed!r}")

    def in_steps(self, step: Number, of: str) -> Staggered:
        """The same with `every` in steps of `step` seconds; `of` names the table in errors."""
        return replace(self, every=_steps(self, step, of), seconds=None)

    @property
    def period(self) -> int:
        """Steps between two observations of a channel."""
        return _period(self)

    def phases(self, channels: int) -> Ticks:
        """The first step (channel,) int64 at which each channel is observed."""
        return (_drawn(channels, self.seed) % np.uint64(self.period)).astype(np.int64)

    def identity(self, channels: Iterable[int] = ()) -> JSON:
        """What a run keeps of it: its parameters, and the digest of the draws by channel count."""
        drawn: dict[str, JSON] = {
            str(count): hashlib.sha256(_drawn(count, self.seed).tobytes()).hexdigest()
            for count in sorted(channels)
        }
        return {"kind": "Staggered", **_plain(self), "draws": drawn}


Acquisition: TypeAlias = All | TimeAligned | Staggered


def restored(identity: Any) -> Acquisition:
    """The acquisition that a run kept, with phases that are exactly its own.

    Parameters
    ----------
    identity : JSON
        ``run.identity["acquisition"]``.

    Raises
    ------
    UsageError
        Where it is none, or its phases are not what is drawn here.
    """
    if identity == "All":
        return All()
    said = dict(identity) if isinstance(identity, Mapping) else {}
    kind, drawn = said.pop("kind", None), said.pop("draws", {})
    if kind not in ("TimeAligned", "Staggered"):
        raise UsageError(f"No acquisition is kept as {identity!r}.")
    made: Acquisition = TimeAligned(**said) if kind == "TimeAligned" else Staggered(**said)
    if isinstance(made, Staggered):
        here: Any = made.identity(int(count) for count in drawn)
        for count, digest in drawn.items():
            if here["draws"][count] != digest:
                raise UsageError(
                    f"The phases of {count} channels were drawn as {digest[:12]}, and are "
                    f"{here['draws'][count][:12]} here: another version drew them."
                )
    return made


def observed(
    acquisition: Acquisition, first_step: Ticks, steps: int, channels: int
) -> NDArray[np.bool_]:
    """Whether each channel is observed at each step of some windows, (window, channel, step).

    Parameters
    ----------
    acquisition : Acquisition
        With `every` in steps, see `in_steps`.
    first_step : (window,) int64
        Step that each window starts with, counted from the first of the table (or of the grid of
        bins of a session).
    """
    period, phase = acquisition.period, acquisition.phases(channels)
    now = (first_step[:, None] + np.arange(steps)) % period
    return np.asarray(phase[None, :, None] == now[:, None, :])


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the windows of one session may start: ticks (start,) int64, ascending.

    Attributes
    ----------
    step : Fraction
        Ticks from one to the next, as the table's rate says.
    said : str
        What it is, for errors.
    """

    ticks: Ticks
    step: Fraction
    said: str

    def lay(self, first: Ticks, stop: Ticks, block: int, length: int, stride: Fraction) -> Runs:
        """Windows of `length` ticks by `stride` in each [first, stop), from its first tick here.

        Raises
        ------
        UsageError
            Where the stride is no multiple of the grid's step.
        """
        nth = stride / self.step
        if nth.denominator != 1:
            raise UsageError(
                f"A stride of {float(stride):g} ticks is {float(nth):g} times {self.said}, "
                f"{float(self.step):g} ticks; windows start on its multiples. Take a stride that "
                "is a whole number of them."
            )
        low = np.searchsorted(self.ticks, first, side="left")
        high = np.searchsorted(self.ticks, stop - length, side="right")
        rows = [np.arange(a, b, int(nth)) for a, b in zip(low, high, strict=True) if a < b]
        start = self.ticks[np.concatenate(rows)] if rows else np.zeros(0, dtype=np.int64)
        return Runs.single(start, np.full(len(start), block, dtype=np.int64))


def common(grids: Mapping[str, Grid | None]) -> Grid | None:
    """The starts that all streams of a session share; None where none has a grid.

    Raises
    ------
    UsageError
        Where two differ.
    """
    found = [(name, grid) for name, grid in grids.items() if grid is not None]
    for name, grid in found[1:]:
        first, other = found[0]
        if grid.step != other.step or not np.array_equal(
            _within(grid, other), _within(other, grid)
        ):
            raise UsageError(
                f"Windows start on multiples of {other.said} from tick {_from(other)} for the "
                f"stream {first!r}, and of {grid.said} from tick {_from(grid)} for {name!r}. "
                "Read them in two datasets, or store them with one start and rate."
            )
    made = found[0][1] if found else None
    for _, grid in found[1:]:
        assert made is not None
        made = replace(made, ticks=_within(made, grid))
    return made


def _within(grid: Grid, other: Grid) -> Ticks:
    """Those starts of a grid that lie between the first and the last of another."""
    if not len(other.ticks):
        return other.ticks
    low, high = other.ticks[[0, -1]]
    made: Ticks = grid.ticks[(grid.ticks >= low) & (grid.ticks <= high)]
    return made


def _from(grid: Grid) -> str:
    return str(grid.ticks[0]) if len(grid.ticks) else "none"


def _check(acquisition: TimeAligned | Staggered) -> None:
    every, seconds, name = acquisition.every, acquisition.seconds, type(acquisition).__name__
    if (every is None) == (seconds is None):
        raise UsageError(
            f"{name} takes `every` in steps or `seconds`, one of them: {name}(every=20), "
            f"{name}(seconds=0.4); found {every!r} and {seconds!r}."
        )
    if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        raise UsageError(
            f"`every` of {name} counts steps, 1 or more, found {every!r}. For seconds: "
            f"{name}(seconds=...)."
        )
    if seconds is not None and exact(seconds) <= 0:
        raise UsageError(f"`seconds` of {name} are above 0, found {seconds!r}.")


def _steps(acquisition: TimeAligned | Staggered, step: Number, of: str) -> int:
    if acquisition.seconds is None:
        return _period(acquisition)
    count = exact(acquisition.seconds) / exact(step)
    if count.denominator != 1:
        raise UsageError(
            f"{type(acquisition).__name__} every {float(exact(acquisition.seconds)):g} s is "
            f"{float(count):g} steps of {float(exact(step)):g} s of {of}; it must be a whole "
            "number of them."
        )
    return int(count)


def _period(acquisition: TimeAligned | Staggered) -> int:
    if acquisition.every is None:
        raise UsageError(
            f"{acquisition} is said in seconds; in_steps(step, of) says it in steps of a table."
        )
    return acquisition.every


def _plain(acquisition: TimeAligned | Staggered) -> dict[str, JSON]:
    said = asdict(acquisition)
    return {key: str(one) if isinstance(one, Fraction) else one for key, one in said.items()}


@lru_cache(maxsize=16)
def _drawn(channels: int, seed: int) -> NDArray[np.uint64]:
    """A number (channel,) of each channel's own."""
    blocks = range(-(-channels // 4))
    made = b"".join(hashlib.sha256(f"{seed} phases {n}".encode()).digest() for n in blocks)
    return np.frombuffer(made, dtype="<u8")[:channels]
