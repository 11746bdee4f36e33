"""Simulates a session whose true firing rates are known: units, trials and a wheel.

A unit fires as a Poisson process with an absolute dead time (Brown et al. 2002, sec. 2), its rate
a smooth drift times the exponential of its region's stimulus response, of the wheel's movement and
of a latent state that all units share, an Ornstein-Uhlenbeck process of unit variance::

    rate(t) = mean · m(t) / <m>
    m = exp(drift(t) + g_stim · stimulus(t) + g_move · movement(t) + c · z(t))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import UsageError
from neurostore.store import Ragged, SessionBuilder

Floats: TypeAlias = NDArray[np.float64]
Rng: TypeAlias = np.random.Generator

GRID_HZ = 100
"""Samples per second of the true rates and of the wheel."""

REFRACTORY = 1.5e-3
"""Seconds that lie at least between two spikes of a unit."""

CEILING_HZ = 300.0
"""No true rate is above it, at any moment."""

FASTEST_HZ = 100.0
"""No unit's mean rate is above it."""

KNOT = 60.0
"""Seconds between the knots of the slow drift."""


class Response(NamedTuple):
    """How a region's units answer: mean gains (log rate), shape of the stimulus response (s)."""

    stimulus: float
    latency: float
    decay: float
    movement: float


REGIONS: Mapping[str, Response] = {
    "VISp": Response(stimulus=1.4, latency=0.05, decay=0.08, movement=0.1),
    "MOs": Response(stimulus=0.2, latency=0.12, decay=0.15, movement=0.9),
    "CA1": Response(stimulus=-0.4, latency=0.10, decay=0.25, movement=0.3),
    "LP": Response(stimulus=0.9, latency=0.03, decay=0.05, movement=0.5),
}
"""Regions with a response of their own; any other region name takes one of these in turn."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What the spikes were drawn from, on the grid of `GRID_HZ`.

    Attributes
    ----------
    region : (unit,) int
        Row of the unit's region in `stimulus`.
    mean_hz, stimulus_gain, movement_gain : (unit,) float64
        Mean rate in spikes per second; gains in log rate.
    drift : (unit, knot) float64
        Slow change of the log rate, at knots spread evenly over the session.
    stimulus : (region, grid) float64
        Stimulus response of each region, 1 at the peak of one full-contrast stimulus.
    movement : (grid,) float64
        Speed of the wheel, 1 at 4 rad/s.
    latent : (grid, latent) float64
        The state that units share; none by default.
    loading : (unit, latent) float64
        How it moves each unit's log rate.
    latent_seconds : float
        Its time constant.
    """

    region: NDArray[np.int64]
    mean_hz: Floats
    stimulus_gain: Floats
    movement_gain: Floats
    drift: Floats
    stimulus: Floats
    movement: Floats
    latent: Floats
    loading: Floats
    latent_seconds: float

    def rate_hz(self, unit: int) -> Floats:
        """Give the true rate of one unit, (grid,) Hz; sample k holds from k / GRID_HZ on."""
        grid, knots = len(self.movement), self.drift.shape[1]
        log = np.interp(np.arange(grid), np.linspace(0, grid, knots), self.drift[unit])
        log += self.stimulus_gain[unit] * self.stimulus[self.region[unit]]
        log += self.movement_gain[unit] * self.movement
        log += self.latent @ self.loading[unit]
        shape: Floats = np.exp(log)
        shape *= self.mean_hz[unit] / shape.mean()
        return np.minimum(shape, CEILING_HZ, out=shape)

    def achievable_hz(self, time: Floats, horizon: float) -> Floats:
        """Rates (time, unit) Hz over the next `horizon` s, for who knows the latent state now.

        The ceiling of a forecast, in closed form: with ρ = exp(−h / τ) the state in h seconds is
        normal around ρ z with variance 1 − ρ², so E[exp(c · z(t + h)) | z(t)] is
        exp(ρ c · z(t) + (1 − ρ²) |c|² / 2). Of stimulus, movement and drift it knows nothing.

        Parameters
        ----------
        time : (time,) float64
            Seconds from the start of the session.
        """
        now = np.clip((np.asarray(time) * GRID_HZ).astype(np.int64), 0, len(self.movement) - 1)
        drive, power = self.latent @ self.loading.T, (self.loading**2).sum(1)
        ahead = (np.arange(round(horizon * GRID_HZ)) + 0.5) / GRID_HZ
        rate = np.zeros((len(now), len(power)))
        for rho in np.exp(-ahead / self.latent_seconds):
            rate += np.exp(rho * drive[now] + (1 - rho**2) * power / 2)
        made: Floats = self.mean_hz * rate / len(ahead) / np.exp(drive).mean(0)
        return made


@dataclass(frozen=True, eq=False)
class Simulated:
    """A simulated session; every time in seconds, on the grid of `rate_clock` ticks per second.

    Attributes
    ----------
    ids, regions, quality : (unit,) str
        ``"0"``, ``"1"``, ...; the brain region; ``"good"`` or ``"mua"``.
    depth : (unit,) float64
        Micrometres along the probe.
    times : (spike,) float64
        Spike times of all units end to end, ascending in each.
    stops : (unit,) int64
        End of every unit in `times`.
    trials : mapping of str to (trial,) array
        start, stop, stim_on_time, response_time (NaN where the animal did not answer), contrast
        (negative on the left), choice (-1, 0, 1), reward.
    wheel_position, wheel_velocity : (time,) float64
        rad and rad/s, at `GRID_HZ` from 0 s.
    wheel_time : (time,) float64 or None
        Time stamps of the velocity, where it is not regular.
    truth : Truth
        The true rates.
    """

    seconds: float
    rate_clock: int
    ids: tuple[str, ...]
    regions: tuple[str, ...]
    quality: tuple[str, ...]
    depth: Floats
    times: Floats
    stops: NDArray[np.int64]
    trials: Mapping[str, NDArray[Any]]
    wheel_position: Floats
    wheel_velocity: Floats
    truth: Truth
    wheel_time: Floats | None = None

    def spike_times(self, unit: int) -> Floats:
        """Spike times of one unit (by row), (spike,) seconds."""
        return self.times[self.stops[unit - 1] if unit else 0 : self.stops[unit]]

    def builder(self, dataset: str, session: str, **metadata: Any) -> SessionBuilder:
        """Put all of it into a builder, on the acquisition clock.

        Parameters
        ----------
        **metadata
            subject, species and whatever else `SessionBuilder` takes.
        """
        builder = SessionBuilder(dataset=dataset, session=session, rate=self.rate_clock, **metadata)
        spikes = Ragged(self.ids, self.times, self.stops)
        builder.add_units(spikes, region=self.regions, quality=self.quality, depth=self.depth)
        builder.add_behaviour("wheel", self.wheel_position, start=0, rate=GRID_HZ, units="rad")
        stamped: dict[str, Any] = {"time": self.wheel_time}
        if self.wheel_time is None:
            stamped = {"start": 0, "rate": GRID_HZ}
        builder.add_behaviour("wheel_velocity", self.wheel_velocity, units="rad/s", **stamped)
        columns: dict[str, Any] = dict(self.trials)
        builder.add_intervals("trials", columns.pop("start"), columns.pop("stop"), **columns)
        builder.add_observed([0.0], [self.seconds])
        return builder


def simulate(
    seed: int,
    *,
    units: int = 60,
    seconds: float = 300.0,
    regions: Sequence[str] = tuple(REGIONS),
    n_spikes: int | None = None,
    rate_clock: int = 30_000,
    latents: int = 0,
    latent_seconds: float = 1.0,
    latent_gain: float = 0.5,
) -> Simulated:
    """Simulate one session; the same arguments give the same session.

    Parameters
    ----------
    seed : int
        Of everything random.
    units : int
        How many, in equal shares of `regions`.
    seconds : float
        Length of the session, at least 1.
    n_spikes : int, optional
        Spikes to expect in all (Poisson around it); else mean rates of about 5 Hz.
    rate_clock : int
        Ticks per second of the acquisition clock.
    latents : int
        Dimensions of the latent state that units share.
    latent_seconds, latent_gain : float
        Its time constant, and the standard deviation of what it adds to a unit's log rate.

    Raises
    ------
    UsageError
        Where there is no unit or region, less than 1 s, or more spikes than units can fire.
    """
    if units < 1 or not regions or seconds < 1:
        raise UsageError(
            f"A simulated session needs a unit, a region and 1 s, found {units} units, "
            f"{len(regions)} regions and {seconds:g} s."
        )
    grid = int(seconds * GRID_HZ)
    seconds = grid / GRID_HZ
    trials_rng, wheel_rng, truth_rng, *unit_rngs = np.random.default_rng(seed).spawn(3 + units)
    trials = _trials(trials_rng, seconds, rate_clock)
    velocity = _velocity(wheel_rng, trials, grid)
    truth = _truth(truth_rng, trials, velocity, units, regions)
    if latents:
        rng = np.random.default_rng([seed, latents])  # of its own: without it nothing changes
        loading = rng.normal(0.0, latent_gain / np.sqrt(latents), (units, latents))
        state = _latent(rng, grid, latents, latent_seconds)
        truth = replace(truth, latent=state, loading=loading, latent_seconds=latent_seconds)
    if n_spikes is not None:
        truth.mean_hz[:] = _scaled(truth.mean_hz, n_spikes / seconds)
    spikes = [_spikes(rng, truth.rate_hz(u), rate_clock) for u, rng in enumerate(unit_rngs)]
    return Simulated(
        seconds=seconds,
        rate_clock=rate_clock,
        ids=tuple(str(unit) for unit in range(units)),
        regions=tuple(regions[row] for row in truth.region),
        quality=tuple(truth_rng.choice(["good", "good", "good", "mua"], units).tolist()),
        depth=np.linspace(20.0, 3820.0, units).round(),
        times=np.concatenate(spikes),
        stops=np.cumsum([len(times) for times in spikes]),
        trials=trials,
        wheel_position=np.cumsum(velocity) / GRID_HZ,
        wheel_velocity=velocity,
        truth=truth,
    )


def _trials(rng: Rng, seconds: float, rate_clock: int) -> dict[str, NDArray[Any]]:
    """One trial about every 5 s: stimulus, answer (or none within 3 s), feedback."""
    n = int(seconds / 2.5) + 1
    stim, after = rng.uniform(0.4, 0.7, n), rng.uniform(0.5, 1.0, n)
    missed = rng.random(n) < 0.04
    reaction = np.where(missed, 3.0, rng.lognormal(-0.9, 0.5, n).clip(0.08, 2.9))
    length = stim + reaction + after
    start = 1.0 + np.cumsum(length + 0.3 + rng.gamma(4, 0.7, n)) - length
    side = rng.choice([-1, 1], n)
    contrast = rng.choice([0.0, 0.0625, 0.125, 0.25, 1.0], n) * side + 0.0  # no -0.0
    right = rng.random(n) < 1 / (1 + np.exp(-6 * contrast))
    choice = np.where(missed, 0, np.where(right, 1, -1))
    times = {
        "start": start,
        "stop": start + length,
        "stim_on_time": start + stim,
        "response_time": np.where(missed, np.nan, start + stim + reaction),
    }
    columns: dict[str, NDArray[Any]]
    columns = {name: np.round(time * rate_clock) / rate_clock for name, time in times.items()}
    columns |= {"contrast": contrast, "choice": choice.astype(np.int8), "reward": choice == side}
    whole = start + length < seconds
    return {name: column[whole] for name, column in columns.items()}


def _velocity(rng: Rng, trials: Mapping[str, NDArray[Any]], grid: int) -> Floats:
    """Wheel velocity (grid,) rad/s: a turn before every answer, bouts between, rest elsewhere."""
    answered = np.isfinite(trials["response_time"])
    onset = trials["response_time"][answered] - rng.uniform(0.15, 0.25, answered.sum())
    turns = np.zeros(grid)
    turns[(onset * GRID_HZ).astype(int).clip(0)] = trials["choice"][answered]
    turns = np.convolve(turns, 5.0 * np.hanning(35))[:grid]
    # An Ornstein-Uhlenbeck process of 0.15 s, by its impulse response.
    decay = np.exp(-np.arange(90) / 15)
    restless = np.convolve(rng.standard_normal(grid), decay / np.sqrt((decay**2).sum()))[:grid]
    half = GRID_HZ // 2
    gate = np.repeat(rng.random(grid // half + 1) < 0.12, half)[:grid]
    return turns + 1.5 * restless * np.convolve(gate, np.hanning(20) / 9.5)[:grid]


def _truth(
    rng: Rng,
    trials: Mapping[str, NDArray[Any]],
    velocity: Floats,
    units: int,
    regions: Sequence[str],
) -> Truth:
    """Draw every unit's mean rate, gains and drift; the traces follow from trials and wheel."""
    known = list(REGIONS.values())
    answers = [REGIONS.get(name, known[i % len(known)]) for i, name in enumerate(regions)]
    region = np.arange(units) * len(regions) // units
    gains = np.array([(answer.stimulus, answer.movement) for answer in answers])[region]
    gains *= rng.normal(1.0, 0.35, (units, 2))
    grid = len(velocity)
    knots = max(2, int(grid / GRID_HZ / KNOT) + 1)
    return Truth(
        region=region,
        mean_hz=rng.lognormal(1.3, 0.8, units).clip(0.2, 40.0),
        stimulus_gain=gains[:, 0],
        movement_gain=gains[:, 1],
        drift=rng.normal(0.0, 0.15, (units, knots)),
        stimulus=np.array([_evoked(answer, trials, grid) for answer in answers]),
        movement=np.abs(velocity) / 4.0,
        latent=np.zeros((grid, 0)),
        loading=np.zeros((units, 0)),
        latent_seconds=1.0,
    )


def _latent(rng: Rng, grid: int, latents: int, seconds: float) -> Floats:
    """An Ornstein-Uhlenbeck process (grid, latent) of unit variance, exact on the grid."""
    rho = np.exp(-1 / (GRID_HZ * seconds))
    noise = rng.standard_normal((grid, latents)) * np.sqrt(1 - rho**2)
    state = np.empty((grid, latents))
    now = rng.standard_normal(latents)
    for step in range(grid):
        now = rho * now + noise[step]
        state[step] = now
    return state


def _evoked(answer: Response, trials: Mapping[str, NDArray[Any]], grid: int) -> Floats:
    """Stimulus response (grid,) of a region: an alpha function a trial, times root contrast."""
    onsets = np.zeros(grid)
    at = (trials["stim_on_time"] * GRID_HZ).astype(int)
    np.add.at(onsets, at, np.sqrt(np.abs(trials["contrast"])))
    late = (np.arange(GRID_HZ) / GRID_HZ - answer.latency).clip(0) / answer.decay
    return np.convolve(onsets, late * np.exp(1 - late))[:grid]


def _scaled(mean_hz: Floats, total_hz: float) -> Floats:
    """Mean rates that add up to `total_hz`, none above `FASTEST_HZ`."""
    if total_hz > 0.9 * FASTEST_HZ * len(mean_hz):
        raise UsageError(
            f"{len(mean_hz)} units can fire {0.9 * FASTEST_HZ * len(mean_hz):g} spikes per second "
            f"at most, {total_hz:g} are asked for. Ask for fewer spikes or more units."
        )
    for _ in range(100):
        mean_hz = np.minimum(mean_hz * (total_hz / mean_hz.sum()), FASTEST_HZ)
    return mean_hz


def _spikes(rng: Rng, rate_hz: Floats, rate_clock: int) -> Floats:
    """Spike times (spike,) seconds of one unit, from its true rate (grid,)."""
    dead = int(np.ceil(REFRACTORY * rate_clock))
    # Half a tick less: a spike lies anywhere in its tick. The hazard makes up for the dead time.
    hazard = rate_hz / (1 - rate_hz * (dead - 0.5) / rate_clock)
    expected = np.concatenate([[0.0], np.cumsum(hazard) / GRID_HZ])
    drawn = np.sort(rng.random(rng.poisson(expected[-1]))) * expected[-1]
    at = np.interp(drawn, expected, np.arange(len(expected)) / GRID_HZ)
    return _apart((at * rate_clock).astype(np.int64), dead) / rate_clock


def _apart(ticks: NDArray[np.int64], dead: int) -> NDArray[np.int64]:
    """Ascending ticks without those closer than `dead` to the last one that stays.

    The first of a run of close ticks stays and its successor goes, all runs at once, until no two
    are close: as many rounds as half the longest run.
    """
    while (close := np.diff(ticks) < dead).any():
        close[1:] &= ~close[:-1]
        ticks = np.delete(ticks, np.flatnonzero(close) + 1)
    return ticks
