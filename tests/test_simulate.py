import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neurostore
from neurostore.errors import MissingExtraError, UsageError
from neurostore.simulate import GRID_HZ, REFRACTORY, REGIONS, Simulated, simulate, write_nwb
from neurostore.simulate.nwb import RAD_PER_COUNT, RAD_PER_DEGREE


@pytest.fixture(scope="module")
def session() -> Simulated:
    return simulate(7, units=40, seconds=400)


def counts(session: Simulated) -> np.ndarray:
    return np.diff(session.stops, prepend=0)


def expected(session: Simulated) -> np.ndarray:
    units = range(len(session.ids))
    return np.array([session.truth.rate_hz(unit).sum() / GRID_HZ for unit in units])


def test_a_seed_gives_one_session_and_another_seed_another() -> None:
    one, same, other = (simulate(seed, units=5, seconds=20) for seed in (1, 1, 2))
    assert np.array_equal(one.times, same.times)
    assert np.array_equal(one.wheel_velocity, same.wheel_velocity)
    for name, column in one.trials.items():
        assert np.array_equal(column, same.trials[name], equal_nan=column.dtype.kind == "f")
    assert not np.array_equal(one.times, other.times)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    units=st.integers(1, 12),
    seconds=st.floats(1, 30),
    rate_clock=st.sampled_from([20_000, 30_000, 1_000_000]),
    dense=st.booleans(),
)
def test_spikes_are_on_the_grid_sorted_by_unit_and_never_closer_than_refractory(
    seed: int, units: int, seconds: float, rate_clock: int, dense: bool
) -> None:
    n_spikes = int(80 * units * seconds) if dense else None
    made = simulate(seed, units=units, seconds=seconds, rate_clock=rate_clock, n_spikes=n_spikes)
    assert len(made.stops) == len(made.ids) == len(made.regions) == units
    assert made.stops[-1] == len(made.times)
    ticks = made.times * rate_clock
    assert np.abs(ticks - np.rint(ticks)).max(initial=0) < 1e-4
    assert made.times.min(initial=0) >= 0
    assert made.times.max(initial=0) < made.seconds <= seconds
    for unit in range(units):
        apart = np.diff(np.rint(made.spike_times(unit) * rate_clock))
        assert (apart >= REFRACTORY * rate_clock).all()


def test_counts_match_the_true_rates_within_poisson_error(session: Simulated) -> None:
    z = (counts(session) - expected(session)) / np.sqrt(expected(session))
    assert np.abs(z).max() < 4.5
    assert abs(z.mean()) < 4.5 / np.sqrt(len(z))


def test_counts_match_the_true_rate_at_every_level_of_it() -> None:
    made = simulate(8, units=10, seconds=600, n_spikes=250_000)
    for unit in range(10):
        rate = made.truth.rate_hz(unit)
        spikes = np.bincount((made.spike_times(unit) * GRID_HZ).astype(int), minlength=len(rate))
        for level in np.array_split(np.argsort(rate), 8):
            mean = rate[level].sum() / GRID_HZ
            assert abs(spikes[level].sum() - mean) < 4.5 * np.sqrt(mean)


def test_as_many_spikes_as_asked_for_are_made() -> None:
    made = simulate(9, units=30, seconds=200, n_spikes=120_000)
    assert len(made.times) == pytest.approx(120_000, rel=0.02)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"units": 0}, "found 0 units"),
        ({"regions": ()}, "0 regions"),
        ({"seconds": 0.5}, "0.5 s"),
        ({"units": 2, "seconds": 10, "n_spikes": 10_000}, "2 units can fire 180 spikes per second"),
    ],
)
def test_what_cannot_be_simulated_is_refused_with_the_numbers(wrong: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        simulate(0, **wrong)


def test_trials_are_disjoint_ordered_and_inside_the_session(session: Simulated) -> None:
    trials = session.trials
    assert len(trials["start"]) > 50
    assert (trials["start"][1:] > trials["stop"][:-1]).all()
    assert trials["stop"][-1] < session.seconds
    assert (trials["stim_on_time"] > trials["start"]).all()
    answered = np.isfinite(trials["response_time"])
    assert 0 < np.count_nonzero(~answered) < 0.15 * len(answered)
    assert (trials["response_time"] > trials["stim_on_time"])[answered].all()
    assert np.array_equal(trials["choice"] == 0, ~answered)
    assert not trials["reward"][~answered].any()
    assert trials["reward"][answered].mean() > 0.6


def test_the_wheel_turns_towards_the_choice_before_the_answer(session: Simulated) -> None:
    position, trials = session.wheel_position, session.trials
    assert np.allclose(np.diff(position) * GRID_HZ, session.wheel_velocity[1:])
    answered = np.isfinite(trials["response_time"])
    at = (trials["response_time"][answered] * GRID_HZ).astype(int)
    turned = position[at + 20] - position[at - 30]
    assert np.mean(np.sign(turned) == trials["choice"][answered]) > 0.9
    assert np.mean(np.abs(session.wheel_velocity) < 0.05) > 0.5


def test_units_answer_the_stimulus_as_their_region_does(session: Simulated) -> None:
    strong = np.abs(session.trials["contrast"]) >= 0.25
    events = session.trials["stim_on_time"][strong]

    def rate(unit: int, start: float, stop: float) -> float:
        edges = np.stack([events + start, events + stop], axis=1)
        return np.diff(np.searchsorted(session.spike_times(unit), edges)).sum() / (stop - start)

    visual = [unit for unit, region in enumerate(session.regions) if region == "VISp"]
    before = sum(rate(unit, -0.3, 0.0) for unit in visual)
    after = sum(rate(unit, 0.06, 0.26) for unit in visual)
    assert after > 1.8 * before


def test_a_region_of_any_name_gets_a_response() -> None:
    made = simulate(1, units=6, seconds=10, regions=("A", "B", "VISp"))
    assert made.regions == ("A", "A", "B", "B", "VISp", "VISp")
    assert set(REGIONS) == {"VISp", "MOs", "CA1", "LP"}


def test_a_store_gives_back_what_was_simulated(session: Simulated) -> None:
    store = neurostore.create("memory://simulate")
    with store.transaction("simulated") as transaction:
        transaction.put(session.builder("d", "s", subject="m", species="Mus musculus"))
    kept = store.session("d/s")
    assert kept.clock.rate == session.rate_clock
    assert kept.findings == []
    assert kept.metadata["subject"] == "m"
    for unit, name in enumerate(session.ids):
        assert np.array_equal(kept.spike_times(name), session.spike_times(unit))
    assert np.array_equal(kept.behaviour["wheel"]["value"], session.wheel_position)
    assert np.array_equal(kept.intervals["trials"]["choice"], session.trials["choice"])
    assert list(kept.units["region"].values) == list(session.regions)


def test_the_nwb_file_is_valid_and_holds_the_same(session: Simulated, tmp_path: Path) -> None:
    pynwb = pytest.importorskip("pynwb")
    path = write_nwb(session, tmp_path / "a.nwb", subject="m9")
    assert pynwb.validate(path=str(path)) == []
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        file = io.read()
        assert (file.session_id, file.subject.subject_id) == ("a", "m9")
        assert np.array_equal(file.units["spike_times"].target.data[:], session.times)
        assert np.array_equal(file.units["spike_times"][3], session.spike_times(3))
        sites = file.units["electrodes"].target.data[:]
        assert tuple(file.electrodes["location"].data[:][sites]) == session.regions
        wheel = file.processing["behavior"]["Position"]["wheel"]
        assert wheel.conversion == RAD_PER_COUNT
        apart = wheel.data[:] * wheel.conversion - session.wheel_position
        assert np.abs(apart).max() <= RAD_PER_COUNT / 2 * (1 + 1e-9)
        velocity = file.processing["behavior"]["wheel_velocity"]
        assert velocity.conversion == RAD_PER_DEGREE
        assert np.allclose(velocity.data[:] * velocity.conversion, session.wheel_velocity)
        for name, column in session.trials.items():
            found = file.trials[{"start": "start_time", "stop": "stop_time"}.get(name, name)].data
            assert np.array_equal(found[:], column, equal_nan=column.dtype.kind == "f")


def test_an_ingested_file_equals_what_was_simulated(session: Simulated, tmp_path: Path) -> None:
    pytest.importorskip("pynwb")
    path = write_nwb(session, tmp_path / "a.nwb")
    store = neurostore.create("memory://simulate-nwb")
    report = neurostore.ingest(store, [path], dataset="d")
    assert [outcome.status for outcome in report.outcomes] == ["written"]
    kept = store.session("d/a")
    assert kept.clock.rate == session.rate_clock
    for unit, name in enumerate(session.ids):
        assert np.array_equal(kept.spike_times(name), session.spike_times(unit))
    assert list(kept.units["region"].values) == list(session.regions)
    wheel = kept.behaviour["wheel"]["value"].values
    assert np.abs(wheel - session.wheel_position).max() <= RAD_PER_COUNT / 2 * (1 + 1e-9)
    for name in ("start", "stop", "stim_on_time"):
        assert np.array_equal(kept.intervals["trials"][name], session.trials[name])


def test_without_pynwb_the_extra_is_named(
    session: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(MissingExtraError, match=r"neurostore\[nwb\]"):
        write_nwb(session, tmp_path / "a.nwb")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_thirty_one_million_spikes_are_simulated_and_written_in_seconds(tmp_path: Path) -> None:
    pytest.importorskip("pynwb")
    began = time.perf_counter()
    made = simulate(0, units=302, seconds=5382, n_spikes=31_000_000)
    simulated = time.perf_counter()
    write_nwb(made, tmp_path / "big.nwb")
    written = time.perf_counter()
    (tmp_path / "big.nwb").unlink()
    assert len(made.times) == pytest.approx(31e6, rel=0.01)
    assert simulated - began < 60
    assert written - simulated < 20


def test_a_latent_state_leaves_everything_else_as_it_was() -> None:
    plain = simulate(4, units=6, seconds=60)
    shared = simulate(4, units=6, seconds=60, latents=2)
    assert shared.truth.latent.shape == (6000, 2)
    assert np.array_equal(plain.truth.mean_hz, shared.truth.mean_hz)
    assert np.array_equal(plain.wheel_velocity, shared.wheel_velocity)
    assert not np.array_equal(plain.times, shared.times)


def test_the_latent_state_has_unit_variance_and_its_time_constant() -> None:
    state = simulate(0, units=1, seconds=3000, latents=3, latent_seconds=0.5).truth.latent
    assert state.std(0) == pytest.approx(1, abs=0.1)
    ahead = [(state[:-lag] * state[lag:]).mean() for lag in (10, 25, 50)]
    assert ahead == pytest.approx(np.exp(-np.array([0.1, 0.25, 0.5]) / 0.5), abs=0.08)


def test_the_achievable_rate_is_the_mean_of_the_true_rate_given_the_state_now() -> None:
    made = simulate(0, units=4, seconds=4000, regions=("CA1",), latents=1, latent_gain=0.8)
    truth = made.truth
    starts = np.arange(0, 3999, 0.25)
    said = truth.achievable_hz(starts, 0.5)
    for unit in range(4):
        rate = np.concatenate([[0], np.cumsum(truth.rate_hz(unit))]) / GRID_HZ
        first = (starts * GRID_HZ).astype(int)
        real = (rate[first + GRID_HZ // 2] - rate[first]) / 0.5
        for near in np.array_split(np.argsort(truth.latent[first, 0]), 10):
            assert said[near, unit].mean() == pytest.approx(real[near].mean(), rel=0.08)
