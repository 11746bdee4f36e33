"""Baselines and probes: what they choose, what they may read, and that none predicts a zero."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from neurostore.errors import UsageError
from neurostore.metrics import Null, bits_per_spike, statistics
from neurostore.models.baselines import TrailingRate, TrainingMean
from neurostore.models.probes import BANDWIDTHS, SessionTime, StateMean

BIN, HISTORY, HORIZON = 0.02, 50, 10


def drifting(seed: int = 0, *, time_constant: float = 1.0, windows: int = 400, units: int = 4):
    """(history, target, start, null) of units whose log-rate wanders with a time constant."""
    rng = np.random.default_rng(seed)
    steps = windows * (HISTORY + HORIZON)
    keep = np.exp(-BIN / time_constant)
    noise = rng.normal(0, np.sqrt(1 - keep**2), (units, steps))
    state = np.zeros((units, steps))
    for t in range(1, steps):
        state[:, t] = keep * state[:, t - 1] + noise[:, t]
    counts = rng.poisson(0.2 * np.exp(state))
    cut = counts.reshape(units, windows, HISTORY + HORIZON).swapaxes(0, 1)
    start = np.arange(windows) * (HISTORY + HORIZON) * BIN
    null = Null.fit(counts.sum(1), steps)
    return cut[..., :HISTORY], cut[..., HISTORY:], start, null


def bits(rate, target, null) -> float:
    stats = statistics(rate, target, null=null, block=np.arange(len(target)))
    return bits_per_spike(stats).population


def test_the_training_mean_is_the_null_and_scores_zero():
    history, target, _, null = drifting()
    model = TrainingMean(null)
    np.testing.assert_array_equal(model.predict(history), np.tile(null.rate, (len(history), 1)))
    assert abs(bits(model.predict(history), target, null)) < 1e-12


def test_the_trailing_rate_beats_the_mean_where_rates_wander():
    history, target, _, null = drifting(0)
    later, truth, *_ = drifting(1)
    model = TrailingRate.choose(history, target, null=null, bin=BIN)
    assert bits(model.predict(later), truth, null) > 0.1


def test_the_trailing_rate_is_the_mean_of_the_last_bins_mixed_with_the_training_mean():
    history, _, _, null = drifting(windows=5)
    model = TrailingRate(null, bins=7, time_constant=0.14, weight=0.25)
    expected = 0.25 * null.rate + 0.75 * history[..., -7:].sum(-1) / 7
    np.testing.assert_allclose(model.predict(history), expected, rtol=1e-12)


def test_the_choice_has_the_highest_likelihood_of_all_tried_on_validation():
    history, target, _, null = drifting(2)
    boxcars, weights = (0.1, 0.3, 1.0), (0.1, 0.5, 1.0)
    given = {"null": null, "bin": BIN}
    chosen = TrailingRate.choose(history, target, time_constants=boxcars, weights=weights, **given)
    tried = {
        (boxcar, weight): bits(
            TrailingRate(null, round(boxcar / BIN), boxcar, weight).predict(history), target, null
        )
        for boxcar, weight in itertools.product(boxcars, weights)
    }
    best = max(tried, key=tried.__getitem__)
    assert (chosen.time_constant, chosen.weight) == pytest.approx(best)
    assert chosen.bins == round(chosen.time_constant / BIN)


def test_a_faster_world_asks_for_a_shorter_boxcar():
    chosen = []
    for time_constant in (0.3, 100.0):
        history, target, _, null = drifting(3, time_constant=time_constant, windows=1_500)
        given = {"null": null, "bin": BIN, "time_constants": (0.1, 0.3, 1.0), "weights": (0.3,)}
        chosen.append(TrailingRate.choose(history, target, **given).time_constant)
    assert chosen == [0.3, 1.0]


def test_a_history_that_says_nothing_leaves_the_training_mean_alone():
    history, target, _, null = drifting(3)
    shuffled = np.random.default_rng(0).permutation(target)
    assert TrailingRate.choose(history, shuffled, null=null, bin=BIN).weight == 1.0


def test_targets_that_were_not_observed_have_no_say_in_the_choice():
    history, target, _, null = drifting(4)
    mask = np.random.default_rng(0).random(target.shape) < 0.5
    ruined = np.where(mask, target, 500)
    given = {"null": null, "bin": BIN, "mask": mask}
    one, two = (TrailingRate.choose(history, x, **given) for x in (target, ruined))
    assert (one.bins, one.time_constant, one.weight) == (two.bins, two.time_constant, two.weight)


def test_default_boxcars_never_exceed_the_history_and_include_all_of_it():
    history, target, _, null = drifting(5, time_constant=100.0)
    model = TrailingRate.choose(history[..., -30:], target, null=null, bin=BIN)
    assert model.bins <= 30
    shuffled = TrailingRate.choose(history[..., -33:], target, null=null, bin=BIN, weights=(0.02,))
    assert shuffled.bins == 33


def test_a_boxcar_longer_than_the_history_is_refused_with_both_numbers():
    history, target, _, null = drifting(windows=5)
    with pytest.raises(UsageError, match=r"2 s does not fit: the history is 1 s"):
        TrailingRate.choose(history, target, null=null, bin=BIN, time_constants=(0.5, 2.0))
    model = TrailingRate(null, bins=50, time_constant=1.0, weight=0.5)
    with pytest.raises(UsageError, match="50 bins is longer than the history of 20"):
        model.predict(history[..., :20])


@pytest.mark.parametrize("weights", [(), (0.0, 0.5), (1.5,)])
def test_weights_that_allow_a_rate_of_zero_are_refused(weights):
    history, target, _, null = drifting(windows=5)
    with pytest.raises(UsageError, match=r"\(0, 1\]"):
        TrailingRate.choose(history, target, null=null, bin=BIN, weights=weights)


def test_no_window_to_choose_on_is_refused():
    history, target, start, null = drifting(windows=5)
    with pytest.raises(UsageError, match="no validation window"):
        TrailingRate.choose(history[:0], target[:0], null=null, bin=BIN)
    with pytest.raises(UsageError, match="no training window"):
        SessionTime.fit(start[:0], target[:0], null=null, bandwidth=10.0)
    with pytest.raises(UsageError, match="no training window"):
        StateMean.fit(np.zeros(0, int), target[:0], null=null)


def test_session_time_finds_a_drift_between_training_blocks_and_nothing_without_one():
    rng = np.random.default_rng(0)
    start = np.arange(0, 3_000, 0.5)
    slow = 0.2 * np.exp(np.sin(2 * np.pi * start / 1_500))[:, None]
    target = rng.poisson(np.repeat(slow, 3, 1)[..., None], (len(start), 3, HORIZON))
    test = (start // 60) % 5 == 4
    parts = (start[~test], target[~test]), (start[test], target[test])
    null = Null.fit(target[~test].sum((0, 2)), (~test).sum() * HORIZON)
    model = SessionTime.choose(*parts, null=null)
    ideal = bits(slow[test] * np.ones(3), target[test], null)
    assert bits(model.predict(start[test]), target[test], null) > 0.85 * ideal > 0.1
    assert model.bandwidth in BANDWIDTHS
    still = rng.poisson(0.2, target.shape)
    flat = Null.fit(still[~test].sum((0, 2)), (~test).sum() * HORIZON)
    probe = SessionTime.choose((start[~test], still[~test]), (start[test], still[test]), null=flat)
    assert abs(bits(probe.predict(start[test]), still[test], flat)) < 0.01


def test_session_time_far_from_any_training_window_is_the_training_mean():
    _, target, start, null = drifting(windows=50)
    model = SessionTime.fit(start, target, null=null, bandwidth=10.0)
    np.testing.assert_allclose(model.predict(np.array([1e6])), null.rate[None], rtol=1e-12)


def test_session_time_is_the_kernel_mean_of_its_training_windows():
    _, target, start, null = drifting(windows=50)
    model = SessionTime.fit(start, target, null=null, bandwidth=20.0)
    near = np.exp(-0.5 * ((30.0 - start) / 20.0) ** 2)
    spikes = near @ target.sum(-1) + HORIZON * null.rate
    expected = spikes / (near.sum() * HORIZON + HORIZON)
    np.testing.assert_allclose(model.predict(np.array([30.0]))[0], expected, rtol=1e-9)


def test_a_state_mean_is_the_rate_in_that_state_and_the_mean_in_an_unknown_one():
    _, target, _, null = drifting(windows=60)
    state = np.arange(60) % 3 * 10
    mask = np.random.default_rng(0).random(target.shape) < 0.8
    model = StateMean.fit(state, target, null=null, mask=mask)
    rows = state == 10
    n, bins = (target * mask)[rows].sum((0, 2)), mask[rows].sum((0, 2))
    predicted = model.predict(np.array([10, 99, -5, 15]))
    np.testing.assert_allclose(predicted[0], (n + 0.5) / (bins + 1))
    np.testing.assert_array_equal(predicted[1:], np.tile(null.rate, (3, 1)))
    assert model.states.tolist() == [0, 10, 20]


def test_a_silent_history_never_predicts_a_rate_of_zero():
    history, target, start, null = drifting(windows=50)
    silent = np.zeros_like(target)
    models: list[tuple[Any, np.ndarray]] = [
        (TrainingMean(null), history * 0),
        (TrailingRate.choose(history, target, null=null, bin=BIN), history * 0),
        (SessionTime.fit(start, silent, null=null, bandwidth=1.0), start),
        (StateMean.fit(np.zeros(50, int), silent, null=null), np.zeros(50, int)),
    ]
    for model, given in models:
        rate = model.predict(given)
        assert rate.shape == (50, 4)
        assert (rate > 0).all()


def test_inputs_of_the_wrong_shape_are_refused():
    history, target, start, null = drifting(windows=5)
    with pytest.raises(UsageError, match="4 units"):
        TrainingMean(null).predict(history[:, :2])
    with pytest.raises(UsageError, match="Counts and their mask"):
        TrailingRate.choose(history, target, null=null, bin=BIN, mask=np.ones((2, 2, 2), bool))
    with pytest.raises(UsageError, match="finite seconds"):
        SessionTime.fit(start * np.nan, target, null=null, bandwidth=1.0)
    with pytest.raises(UsageError, match="longer than 0 s"):
        SessionTime.fit(start, target, null=null, bandwidth=0.0)
    with pytest.raises(UsageError, match="integers"):
        StateMean.fit(start, target, null=null)


def test_a_history_that_was_not_observed_is_no_silence():
    history, target, _, null = drifting(6)
    mask = np.random.default_rng(0).random(history.shape) < 0.5
    mask[3, 2] = False
    zeroed = np.where(mask, history, 0)
    model = TrailingRate(null, bins=25, time_constant=0.5, weight=0.5)
    found = model.predict(zeroed, mask=mask)
    seen = mask[..., -25:]
    rate = zeroed[..., -25:].sum(-1) / np.maximum(seen.sum(-1), 1)
    expected = 0.5 * null.rate + 0.5 * np.where(seen.any(-1), rate, null.rate)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[3, 2] == pytest.approx(null.rate[2])
    given = {"null": null, "bin": BIN, "history_mask": mask}
    one, two = (TrailingRate.choose(x, target, **given) for x in (history, zeroed))
    assert (one.bins, one.time_constant, one.weight) == (two.bins, two.time_constant, two.weight)


def test_session_time_takes_nothing_from_what_was_not_observed():
    _, target, start, null = drifting(7, windows=100)
    mask = np.random.default_rng(0).random(target.shape) < 0.5
    ruined = np.where(mask, target, 500)
    one, two = (
        SessionTime.choose((start, x), (start, x), null=null, masks=(mask, mask))
        for x in (target, ruined)
    )
    np.testing.assert_array_equal(one.predict(start), two.predict(start))


def test_nothing_to_choose_from_is_refused():
    history, target, start, null = drifting(windows=5)
    with pytest.raises(UsageError, match="time_constants is empty"):
        TrailingRate.choose(history, target, null=null, bin=BIN, time_constants=())
    with pytest.raises(UsageError, match="bandwidths is empty"):
        SessionTime.choose((start, target), (start, target), null=null, bandwidths=())
