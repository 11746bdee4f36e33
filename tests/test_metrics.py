"""Scores against closed forms and slow references; planted mistakes must show."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save
from scipy import stats as scipy_stats

from neurostore.errors import NotFoundError, UsageError
from neurostore.metrics import (
    METRICS,
    Null,
    Statistics,
    bits_per_spike,
    difference,
    interval,
    nlb_bits_per_spike,
    statistics,
    summary,
    within_unit_correlation,
)

WINDOWS, UNITS, BINS, BLOCKS = 240, 5, 8, 6


def simulated(seed: int = 0, *, windows: int = WINDOWS, units: int = UNITS):
    """(true rate (window, unit), counts (window, unit, bin), block (window,), null)."""
    rng = np.random.default_rng(seed)
    rate = 0.3 * np.exp(rng.normal(0, 0.8, (windows, units)))
    counts = rng.poisson(rate[..., None], (windows, units, BINS))
    null = Null.fit(counts.sum((0, 2)), windows * BINS, units=[f"u{i}" for i in range(units)])
    return rate, counts, np.arange(windows) // (windows // BLOCKS), null


def scored(predicted=None, seed: int = 0, **changes):
    rate, counts, block, null = simulated(seed)
    given = {"recorded": counts, "block": block, "null": null, "mask": None} | changes
    return statistics(
        rate if predicted is None else predicted,
        given["recorded"],
        null=given["null"],
        block=given["block"],
        mask=given["mask"],
    )


def test_the_null_is_the_training_mean_with_half_a_spike():
    null = Null.fit([0, 10], [99, 199])
    np.testing.assert_array_equal(null.rate, [0.5 / 100, 10.5 / 200])
    np.testing.assert_array_equal(Null.fit([0, 10], 99).bins, [99, 99])
    assert null.units == ("0", "1")


@pytest.mark.parametrize(
    ("counts", "bins", "message"),
    [
        ([-1, 2], 10, "whole numbers"),
        ([1.5, 2], 10, "whole numbers"),
        ([np.nan, 2], 10, "whole numbers"),
        ([1, 2], [10, 0], "first '1'"),
        ([1, 2], [10, 10, 10], "2 counts, 3 bins"),
        ([[1], [2]], 10, r"\(unit,\)"),
    ],
)
def test_a_null_of_impossible_counts_is_refused(counts, bins, message):
    with pytest.raises(UsageError, match=message):
        Null.fit(counts, bins)


def test_the_null_scores_exactly_zero_bits():
    *_, null = simulated()
    result = bits_per_spike(scored(np.tile(null.rate, (WINDOWS, 1))))
    assert abs(result.population) < 1e-12
    assert np.abs(result.unit).max() < 1e-12


def test_the_true_rate_beats_the_null_and_a_shuffled_one_loses_to_it():
    rate, *_ = simulated()
    shuffled = np.random.default_rng(1).permutation(rate)
    assert bits_per_spike(scored(rate)).population > 0.2
    assert bits_per_spike(scored(shuffled)).population < 0


def test_bits_are_the_difference_of_poisson_log_likelihoods():
    rate, counts, _, null = simulated()
    full = rate[..., None] * np.linspace(0.5, 1.5, BINS)
    model = scipy_stats.poisson.logpmf(counts, full)
    against = scipy_stats.poisson.logpmf(counts, null.rate[:, None])
    gain, spikes = (model - against).sum((0, 2)) / np.log(2), counts.sum((0, 2))
    result = bits_per_spike(scored(full))
    assert result.population == pytest.approx(gain.sum() / spikes.sum(), rel=1e-9)
    np.testing.assert_allclose(result.unit, gain / spikes, rtol=1e-9)
    assert result.median_unit == pytest.approx(np.median(gain / spikes))
    assert result.mean_unit == pytest.approx(np.mean(gain / spikes))
    top = int(np.argmax(gain))
    rest = np.delete(gain, top).sum() / np.delete(spikes, top).sum()
    assert result.top_unit == f"u{top}"
    assert result.without_top_unit == pytest.approx(rest, rel=1e-9)


def test_one_rate_over_the_horizon_is_the_same_rate_in_every_bin():
    rate, *_ = simulated()
    spread = np.repeat(rate[..., None], BINS, axis=-1)
    np.testing.assert_allclose(scored(rate).sums, scored(spread).sums, rtol=1e-12)


def test_what_is_masked_counts_in_nothing():
    rate, counts, _, null = simulated()
    mask = np.random.default_rng(2).random(counts.shape) < 0.7
    full = np.repeat(rate[..., None], BINS, axis=-1)
    ruined = np.where(mask, full, np.nan), np.where(mask, counts, 9_999)
    clean = scored(full, mask=mask)
    np.testing.assert_array_equal(scored(ruined[0], recorded=ruined[1], mask=mask).sums, clean.sums)
    model, against = (
        scipy_stats.poisson.logpmf(counts, one)[mask].sum()
        for one in (full, np.broadcast_to(null.rate[:, None], counts.shape))
    )
    expected = (model - against) / counts[mask].sum() / np.log(2)
    assert bits_per_spike(clean).population == pytest.approx(expected, rel=1e-9)
    assert clean["windows"].sum() == mask.all(-1).sum()


@pytest.mark.parametrize("bad", [0.0, -0.1, np.nan, np.inf])
def test_a_rate_that_is_not_above_zero_is_refused_with_unit_and_window(bad):
    rate, *_ = simulated()
    rate[7, 3] = bad
    with pytest.raises(UsageError, match=r"unit 'u3' in window 7"):
        scored(rate)


def test_shapes_counts_and_blocks_that_do_not_fit_are_refused():
    rate, counts, block, _ = simulated()
    with pytest.raises(UsageError, match="Predictions must be"):
        scored(rate[:-1])
    with pytest.raises(UsageError, match="Blocks must be"):
        scored(block=block[:-1])
    with pytest.raises(UsageError, match="Blocks must be"):
        scored(block=block.astype(float))
    with pytest.raises(UsageError, match="mask must have the shape"):
        scored(mask=np.ones((3, 3, 3), bool))
    with pytest.raises(UsageError, match="5 units"):
        scored(recorded=counts[:, :-1])
    with pytest.raises(UsageError, match="'u2' in window 4"):
        scored(recorded=np.where(np.arange(WINDOWS)[:, None, None] == 4, _spoilt(counts), counts))


def _spoilt(counts):
    wrong = counts.astype(float)
    wrong[:, 2, 1] = np.nan
    return wrong


def test_batches_in_any_order_add_up_to_one_big_computation():
    rate, counts, block, null = simulated()
    order = np.random.default_rng(3).permutation(WINDOWS)
    parts = [
        statistics(rate[rows], counts[rows], null=null, block=block[rows])
        for rows in np.array_split(order, 7)
    ]
    whole, joined = scored(), parts[0]
    for part in parts[1:]:
        joined = part + joined
    np.testing.assert_allclose(joined.sums, whole.sums, rtol=1e-9)
    np.testing.assert_array_equal(joined.blocks, whole.blocks)


def test_pooled_rotations_equal_one_big_computation_and_keep_their_blocks_apart():
    one, two = scored(seed=0), scored(seed=1)
    pooled = Statistics.pool([one, two])
    assert len(pooled) == 2 * BLOCKS
    np.testing.assert_array_equal(np.unique(pooled.rotations), [0, 1])
    (rate_a, counts_a, *_), (rate_b, counts_b, *_) = simulated(0), simulated(1)
    rates, counts = np.concatenate([rate_a, rate_b]), np.concatenate([counts_a, counts_b])
    gain = sum(float((s["model"] - s["null"]).sum()) for s in (one, two)) / np.log(2)
    assert bits_per_spike(pooled).population == pytest.approx(gain / counts.sum(), rel=1e-9)
    expected = [np.corrcoef(rates[:, u], counts[:, u].sum(-1))[0, 1] for u in range(UNITS)]
    np.testing.assert_allclose(within_unit_correlation(pooled).unit, expected, rtol=1e-6)


def test_pooling_pooled_rotations_is_pooling_all_of_them():
    parts = [scored(seed=seed) for seed in range(3)]
    nested = Statistics.pool([Statistics.pool(parts[:2]), parts[2]])
    flat = Statistics.pool(parts)
    np.testing.assert_array_equal(nested.rotations, flat.rotations)
    np.testing.assert_array_equal(nested.sums, flat.sums)


def test_statistics_of_other_units_or_nulls_do_not_join():
    one = scored()
    other = dataclasses.replace(one, units=tuple("abcde"))
    with pytest.raises(UsageError, match="different units"):
        one + other
    with pytest.raises(UsageError, match="different units"):
        Statistics.pool([one, other])
    with pytest.raises(UsageError, match=r"Statistics\.pool"):
        one + scored(seed=1)
    with pytest.raises(UsageError, match="nothing to pool"):
        Statistics.pool([])


def test_a_unit_silent_in_training_is_left_out_counted_and_makes_no_bits():
    rate, counts, block, null = simulated()
    spikes = null.spikes.copy()
    spikes[2] = 0
    silent = dataclasses.replace(null, spikes=spikes)
    stats = scored(null=silent)
    result = bits_per_spike(stats)
    assert result.left_out == ("u2",)
    others = [0, 1, 3, 4]
    without = statistics(
        rate[:, others],
        counts[:, others],
        null=Null.fit(null.spikes[others], null.bins[others]),
        block=block,
    )
    assert result.population == pytest.approx(bits_per_spike(without).population, rel=1e-12)
    found = summary(stats)
    assert (found["units_scored"], found["left_out"]) == (4, ["u2"])
    assert found["per_unit"][2]["bits_per_spike"] is None
    assert "NaN" not in json.dumps(found)


@pytest.mark.parametrize(("spikes", "kept"), [(19, False), (20, True)])
def test_twenty_training_and_twenty_test_spikes_are_enough_and_nineteen_are_not(spikes, kept):
    _, counts, _, null = simulated()
    few = null.spikes.copy()
    few[1] = spikes
    trained = bits_per_spike(scored(null=dataclasses.replace(null, spikes=few)))
    assert ("u1" in trained.units) is kept
    sparse = counts.copy()
    sparse[:, 1] = 0
    sparse[:spikes, 1, 0] = 1
    assert ("u1" in bits_per_spike(scored(recorded=sparse)).units) is kept


def test_pooling_leaves_out_by_pooled_test_spikes_and_the_fewest_training_spikes():
    _, counts, _, null = simulated()
    sparse = counts.copy()
    sparse[:, 1] = 0
    sparse[:12, 1, 0] = 1
    half = scored(recorded=sparse)
    assert bits_per_spike(half).left_out == ("u1",)
    assert bits_per_spike(Statistics.pool([half, half])).left_out == ()
    few = null.spikes.copy()
    few[3] = 5
    poor = scored(null=dataclasses.replace(null, spikes=few))
    assert bits_per_spike(Statistics.pool([scored(), poor])).left_out == ("u3",)


def test_no_unit_to_score_is_refused_and_summed_up_with_reasons():
    *_, null = simulated()
    stats = scored(null=dataclasses.replace(null, spikes=null.spikes * 0))
    with pytest.raises(UsageError, match="20 training and 20 test"):
        bits_per_spike(stats)
    with pytest.raises(UsageError, match="no value"):
        interval(stats, draws=10)
    found = summary(stats)
    assert found["bits_per_spike"] is None
    assert "bits_per_spike" in found["reasons"]
    assert "NaN" not in json.dumps(found)


def test_nlb_bits_equal_the_benchmarks_own_formula():
    rate, counts, *_ = simulated()
    full = np.repeat(rate[..., None], BINS, axis=-1)
    null = np.broadcast_to(counts.mean((0, 2), keepdims=True), counts.shape)
    nll = [-scipy_stats.poisson.logpmf(counts, one).sum() for one in (full, null)]
    expected = (nll[1] - nll[0]) / counts.sum() / np.log(2)
    assert nlb_bits_per_spike(scored()) == pytest.approx(expected, rel=1e-9)


def test_the_two_nulls_have_two_names_and_differ_where_rates_drift():
    _, _, _, null = simulated()
    drifted = scored(null=dataclasses.replace(null, bins=null.bins * 3))
    assert nlb_bits_per_spike(drifted) < bits_per_spike(drifted).population - 0.1
    named = summary(drifted)["null"]
    assert named["bits_per_spike"] != named["nlb_bits_per_spike"]


def test_nlb_bits_without_any_spike_are_refused():
    with pytest.raises(UsageError, match="holds none"):
        nlb_bits_per_spike(scored(recorded=np.zeros((WINDOWS, UNITS, BINS), int)))


def test_correlation_and_ceiling_equal_their_definition():
    rate, counts, *_ = simulated()
    summed = counts.sum(-1)
    found = within_unit_correlation(scored())
    expected = [np.corrcoef(rate[:, u], summed[:, u])[0, 1] for u in range(UNITS)]
    np.testing.assert_allclose(found.unit, expected, rtol=1e-6)
    signal = np.maximum(0, summed.var(0) - summed.mean(0))
    np.testing.assert_allclose(found.unit_ceiling, np.sqrt(signal / summed.var(0)), rtol=1e-6)
    assert found.median_unit == pytest.approx(np.median(expected))


def test_a_constant_prediction_correlates_at_zero_and_is_counted():
    found = within_unit_correlation(scored(np.full((WINDOWS, UNITS), 0.1)))
    np.testing.assert_array_equal(found.unit, np.zeros(UNITS))


def test_units_more_regular_than_poisson_have_a_ceiling_of_zero_and_are_counted():
    _, counts, *_ = simulated()
    regular = counts.copy()
    regular[:, 0] = 0
    regular[:, 0, : BINS // 2] = 1
    found = within_unit_correlation(scored(recorded=regular))
    assert found.at_zero == 1
    assert found.unit_ceiling[0] == found.unit[0] == 0


def test_arrays_bring_the_statistics_back_bit_for_bit():
    stats = Statistics.pool([scored(seed=0), scored(seed=1)])
    arrays = stats.to_arrays()
    assert all(array.dtype.kind in "fiu" for array in arrays.values())
    assert all(array.flags.c_contiguous for array in arrays.values())
    back = Statistics.from_arrays(load(save(arrays)))
    assert back.units == stats.units
    for name, array in back.to_arrays().items():
        np.testing.assert_array_equal(array, arrays[name])
    with pytest.raises(NotFoundError, match="sums"):
        Statistics.from_arrays({name: arrays[name] for name in arrays if name != "sums"})


def test_test_spikes_change_the_score_and_never_the_null():
    _, counts, _, null = simulated()
    before = null.rate.copy()
    stats = [scored(recorded=counts), scored(recorded=counts * 3)]
    np.testing.assert_array_equal(null.rate, before)
    per_bin = [(s["null"] - s["spikes"] * np.log(before)) / s["bins"] for s in stats]
    np.testing.assert_allclose(per_bin[0], np.broadcast_to(-before, per_bin[0].shape))
    np.testing.assert_allclose(per_bin[1], np.broadcast_to(-before, per_bin[1].shape))


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_an_interval_holds_its_value_and_follows_its_seed(metric):
    stats = scored()
    one = interval(stats, metric, draws=300, seed=4)
    assert one.low < one.value < one.high
    assert one == interval(stats, metric, draws=300, seed=4)
    assert one != interval(stats, metric, draws=300, seed=5)
    assert one.value == pytest.approx(summary(stats, draws=10)[metric])


def test_an_interval_narrows_with_its_level_and_has_the_width_of_a_ratio_of_block_sums():
    stats = scored()
    wide, narrow = (interval(stats, level=level, draws=4000) for level in (0.95, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high
    gain = (stats["model"] - stats["null"]).sum(1) / np.log(2)
    spikes = stats["spikes"].sum(1)
    error = np.sqrt(((gain - wide.value * spikes) ** 2).sum()) / spikes.sum()
    assert (wide.high - wide.low) / (2 * 1.96) == pytest.approx(error, rel=0.2)


def test_a_draw_that_takes_only_silent_blocks_is_left_out_and_counted():
    _, counts, *_ = simulated()
    counts = counts.copy()
    counts[WINDOWS // BLOCKS :] = 0
    found = interval(scored(recorded=counts), draws=500)
    assert 0 < found.undefined < 500
    assert np.isfinite([found.low, found.high]).all()


def test_one_block_has_no_interval_and_says_so():
    stats = scored(block=np.zeros(WINDOWS, int))
    with pytest.raises(UsageError, match="two blocks"):
        interval(stats)
    found = summary(stats)
    assert found["bits_per_spike_interval"] is None
    assert "two" in found["reasons"]["bits_per_spike_interval"]


def test_a_mistyped_metric_is_answered_with_the_nearest():
    with pytest.raises(NotFoundError, match="'bits_per_spike'"):
        interval(scored(), "bit_per_spike")


def test_a_paired_difference_is_narrower_than_the_scores_and_changes_sign_with_its_sides():
    rate, *_ = simulated()
    a, b = scored(rate), scored(rate**0.9)
    paired = difference(a, b, draws=500)
    assert paired.value == pytest.approx(
        bits_per_spike(a).population - bits_per_spike(b).population
    )
    assert paired.high - paired.low < 0.5 * (interval(a).high - interval(a).low)
    turned = difference(b, a, draws=500)
    assert (turned.low, turned.high) == pytest.approx((-paired.high, -paired.low))
    same = difference(a, a, draws=50)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_difference_of_unlike_evaluations_is_refused():
    a = scored()
    _, counts, block, null = simulated()
    with pytest.raises(UsageError, match="differ in 5 and 5 units"):
        difference(a, dataclasses.replace(a, units=tuple("abcde")))
    with pytest.raises(UsageError, match="6 and 3 blocks"):
        difference(a, scored(block=block // 2))
    with pytest.raises(UsageError, match="differ in spikes"):
        difference(a, scored(recorded=np.where(counts > 0, counts - 1, 0)))
    with pytest.raises(UsageError, match="training spikes"):
        difference(a, scored(null=dataclasses.replace(null, spikes=null.spikes + 1)))
    with pytest.raises(UsageError, match="nulls"):
        difference(a, scored(null=dataclasses.replace(null, bins=null.bins * 2)))


@given(st.integers(0, 2**32 - 1))
def test_scores_do_not_depend_on_the_names_of_blocks(seed):
    *_, block, _ = simulated()
    names = np.random.default_rng(seed).permutation(1_000)[:BLOCKS]
    found, expected = (bits_per_spike(scored(block=one)) for one in (names[block], block))
    assert found.population == pytest.approx(expected.population, rel=1e-12)


def test_a_summary_is_json_and_holds_every_metric():
    found = json.loads(json.dumps(summary(scored(), draws=50), allow_nan=False))
    assert set(METRICS) <= set(found)
    assert len(found["per_unit"]) == UNITS
    assert found["reasons"] == {}


def test_the_top_unit_is_the_one_of_most_bits_and_not_the_one_of_most_spikes():
    rate, counts, block, _ = simulated()
    busy = counts.copy()
    busy[:, 4] = np.random.default_rng(5).poisson(4.0, (WINDOWS, BINS))
    null = Null.fit(busy.sum((0, 2)), WINDOWS * BINS)
    flat = np.concatenate([rate[:, :4], np.full((WINDOWS, 1), null.rate[4])], axis=1)
    stats = statistics(flat, busy, null=null, block=block)
    assert np.argmax(stats["spikes"].sum(0)) == 4
    assert bits_per_spike(stats).top_unit != "4"


def test_constant_predictions_of_any_size_correlate_at_exactly_zero_despite_rounding():
    for value in np.geomspace(1e-6, 1e3, 40):
        found = within_unit_correlation(scored(np.full((WINDOWS, UNITS), value / 3)))
        np.testing.assert_array_equal(found.unit, np.zeros(UNITS))


def test_draws_without_the_blocks_in_which_a_unit_was_observed_still_have_a_correlation():
    _, counts, block, _ = simulated()
    mask = np.ones(counts.shape, bool)
    mask[block > 0, 0] = False
    found = interval(scored(mask=mask), "within_unit_correlation", draws=200)
    assert found.undefined == 0
    assert -1 <= found.low < found.high <= 1


def test_a_recorded_count_without_end_is_refused():
    _, counts, *_ = simulated()
    endless = counts.astype(float)
    endless[3, 1, 0] = np.inf
    with pytest.raises(UsageError, match="found inf for unit 'u1' in window 3"):
        scored(recorded=endless)
