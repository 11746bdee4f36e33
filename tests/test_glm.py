"""The GLM: the training mean before training, the truth after, and its recipe."""

from __future__ import annotations

import inspect
import math
import tomllib
from importlib import import_module

import numpy as np
import pytest
import torch

from neurostore import _declared
from neurostore.errors import UsageError
from neurostore.metrics import Null, bits_per_spike, difference, statistics
from neurostore.models.baselines import TrailingRate
from neurostore.models.glm import GLM

BIN = 0.02


@pytest.fixture(autouse=True)
def one_thread():
    """More threads make such small matrices ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def started(units: int = 3, **given) -> GLM:
    model = GLM(units, BIN, **given)
    model.start(torch.linspace(0.05, 0.4, units))
    return model


def fitted(model, history, target, *, epochs=20, seed=0, learning_rate=3e-3, batch=512):
    """Train on all windows by AdamW on a cosine."""
    generator = torch.Generator().manual_seed(seed)
    inputs, outputs = torch.as_tensor(history), torch.as_tensor(target)
    mask = torch.ones_like(outputs, dtype=torch.bool)
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    steps = epochs * math.ceil(len(inputs) / batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=generator).split(batch):
            optimiser.zero_grad()
            model.loss(model(inputs[rows]), outputs[rows], mask[rows]).backward()
            optimiser.step()
            schedule.step()
    return model


def converged(model, history, target) -> None:
    """Take all windows to the minimum of the loss, which is convex."""
    mask = torch.ones_like(target, dtype=torch.bool)
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def step():
        optimiser.zero_grad()
        loss = model.loss(model(history), target, mask)
        loss.backward()
        return loss

    optimiser.step(step)


def predicted(model, history) -> np.ndarray:
    with torch.no_grad():
        return model(torch.as_tensor(history)).exp().numpy()


def test_an_untrained_glm_is_the_training_mean_whatever_the_history():
    null = Null.fit([3, 50, 400], 1_000)
    model = GLM(3, BIN)
    model.start(torch.as_tensor(null.rate))
    history = np.random.default_rng(0).poisson(1.0, (20, 3, 50))
    np.testing.assert_allclose(predicted(model, history), np.tile(null.rate, (20, 1)), rtol=1e-6)
    target = np.random.default_rng(1).poisson(0.3, (20, 3, 25))
    stats = statistics(predicted(model, history), target, null=null, block=np.arange(20))
    np.testing.assert_allclose(stats["model"], stats["null"], rtol=1e-5)


def test_features_are_log_counts_of_trailing_boxcars_of_every_unit():
    model = started(boxcars=(0.02, 0.1))
    spikes = torch.as_tensor(np.random.default_rng(0).poisson(1.0, (7, 3, 20)))
    found = model.features(spikes).reshape(7, 3, 2)
    torch.testing.assert_close(found[..., 0], torch.log1p(spikes[..., -1].float()))
    torch.testing.assert_close(found[..., 1], torch.log1p(spikes[..., -5:].sum(-1).float()))


def test_a_boxcar_as_long_as_the_history_is_taken_and_a_longer_one_refused_with_both_numbers():
    model = started()
    assert model(torch.zeros(2, 3, 50)).shape == (2, 3)
    with pytest.raises(UsageError, match=r"1 s is longer than the history of 0\.3 s"):
        model(torch.zeros(2, 3, 15))


@pytest.mark.parametrize("boxcar", [0.03, 0.001, 0.0])
def test_a_boxcar_of_no_whole_bins_is_refused(boxcar):
    with pytest.raises(UsageError, match="whole number of bins"):
        GLM(3, BIN, boxcars=(boxcar,))


@pytest.mark.parametrize("rate", [[0.1, 0.0, 0.1], [0.1, math.nan, 0.1], [0.1, 0.1]])
def test_rates_that_are_no_start_are_refused(rate):
    with pytest.raises(UsageError, match="start takes"):
        GLM(3, BIN).start(torch.tensor(rate))


def test_a_glm_without_a_start_or_with_other_units_does_not_predict():
    with pytest.raises(UsageError, match=r"Call start\(null\.rate\)"):
        GLM(3, BIN)(torch.zeros(2, 3, 50))
    with pytest.raises(UsageError, match=r"3 units, found \(2, 4, 50\)"):
        started()(torch.zeros(2, 4, 50))


def test_weights_and_start_come_back_from_a_state_dict():
    one = started()
    torch.nn.init.normal_(one.weight.weight)
    other = GLM(3, BIN)
    other.load_state_dict(one.state_dict())
    spikes = torch.ones(2, 3, 50)
    torch.testing.assert_close(one(spikes), other(spikes), rtol=0, atol=0)


def test_the_loss_is_poissons_mean_over_observed_bins_only():
    rng = np.random.default_rng(0)
    output = torch.as_tensor(rng.normal(-1, 1, (6, 3)), dtype=torch.float32)
    target = torch.as_tensor(rng.poisson(0.5, (6, 3, 8)))
    mask = torch.as_tensor(rng.random((6, 3, 8)) < 0.6)
    each = torch.nn.functional.poisson_nll_loss(
        output[..., None].expand(6, 3, 8), target.float(), log_input=True, reduction="none"
    )
    found = started().loss(output, torch.where(mask, target, 999), mask)
    torch.testing.assert_close(found, each[mask].mean())
    assert started().loss(output, target, torch.zeros_like(mask)) == 0


def test_training_recovers_the_weights_that_made_the_spikes():
    rng = np.random.default_rng(0)
    windows, units, history, horizon = 6_000, 3, 10, 25
    past = rng.poisson(0.4, (windows, units, history))
    true = rng.normal(0, 0.3, (units, units * 2))
    model = GLM(units, BIN, boxcars=(0.04, 0.2))
    drive = model.features(torch.as_tensor(past)).numpy() @ true.T
    rate = 0.4 * np.exp(drive - drive.mean(0))
    model.start(torch.as_tensor(0.4 * np.exp(-drive.mean(0))))
    future = rng.poisson(rate[..., None], (windows, units, horizon))
    converged(model, torch.as_tensor(past), torch.as_tensor(future))
    np.testing.assert_allclose(model.weight.weight.detach().numpy(), true, atol=0.05)
    np.testing.assert_allclose(model.weight.bias.detach().numpy(), 0, atol=0.1)


def test_a_training_of_one_seed_gives_the_same_weights_twice():
    past = np.random.default_rng(0).poisson(0.4, (300, 3, 50))
    one, two = (fitted(started(), past, past[..., :25], epochs=2) for _ in range(2))
    torch.testing.assert_close(one.weight.weight, two.weight.weight, rtol=0, atol=0)


def test_the_recipe_names_arguments_that_the_architecture_takes_and_boxcars_that_fit():
    recipe = tomllib.loads((_declared.folder("models") / "glm.toml").read_text("utf-8"))
    module, name = recipe["architecture"].split(":")
    taken = inspect.signature(getattr(import_module(module), name)).parameters
    assert set(recipe["arguments"]) <= set(taken)
    assert set(recipe["streams"]) == set(inspect.signature(GLM.forward).parameters) - {"self"}
    assert max(recipe["arguments"]["boxcars"]) <= recipe["window"]["history"]
    assert "stride" not in recipe.get("evaluate", {})  # windows are evaluated every horizon
    assert recipe["train"]["threads"] == 1


def maze(path, *, rotation: int) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(history, target, block) of each label: 20 ms, blocks of 60 s, guard of 1 s."""
    from scipy.io import loadmat

    cells = [
        cell for tetrode in loadmat(path)["spikes"][0, 0][0, 0].ravel() for cell in tetrode.flat
    ]
    times = [np.sort(cell["time"][0, 0].ravel()) for cell in cells if cell.size]
    times = [one for one in times if len(one) and len(one) < 50 * (one[-1] - one[0])]
    first, bins = min(one[0] for one in times), 71 * 3_000
    counts = np.stack([np.histogram(one - first, bins, (0, bins * BIN))[0] for one in times])
    labels = np.roll(["train"] * 7 + ["validation"] + ["test"] * 2, rotation)
    found = {}
    for label, stride in (("train", 5), ("validation", 5), ("test", 25)):
        mine = [block for block in range(71) if labels[block % 10] == label]
        inside = np.arange(100, 3_000 - 24, stride)
        start = (np.array(mine)[:, None] * 3_000 + inside).ravel()
        cut = counts[:, start[:, None] + np.arange(-50, 25)].swapaxes(0, 1)
        found[label] = cut[..., :50], cut[..., 50:], np.repeat(mine, len(inside))
    return found


@pytest.mark.realdata
@pytest.mark.slow
def test_on_the_w_maze_the_glm_beats_the_trailing_rate_on_held_out_blocks(data):
    parts = maze(data("hippocampus_nelpy") / "w-maze" / "spikes.mat", rotation=0)
    history, target, _ = parts["train"]
    assert history.shape[1] == 24
    null = Null.fit(target.sum((0, 2)), target.shape[0] * target.shape[2])
    model = GLM(24, BIN)
    model.start(torch.as_tensor(null.rate))
    fitted(model, history, target)
    trailing = TrailingRate.choose(*parts["validation"][:2], null=null, bin=BIN)
    history, target, block = parts["test"]
    glm, baseline = (
        statistics(rate, target, null=null, block=block)
        for rate in (predicted(model, history), trailing.predict(history))
    )
    assert bits_per_spike(glm).population > 0.6
    gain = difference(glm, baseline)
    assert gain.value > 0.03
