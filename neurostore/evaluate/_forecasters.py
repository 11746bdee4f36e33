"""What is scored: the model of a run, baselines that it must beat, and probes for what is no merit.

Whatever a baseline or a probe chooses, it chooses on validation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import RefusedError
from neurostore.metrics import Null
from neurostore.models.baselines import TrailingRate, TrainingMean
from neurostore.models.probes import SessionTime, StateMean
from neurostore.recipes import TARGET, Recipe
from neurostore.runs import Run
from neurostore.sample import Batch, Dataset
from neurostore.train import inputs

BATCH = 512

APART = 1e9
"""Seconds between sessions, whose clocks are their own."""

STATE = "state (probe)"
"""The stream under which a behaviour is read that tells states apart; no model can ask for it."""

Counts = NDArray[np.int32]
Rates = NDArray[np.float64]


@dataclass(frozen=True)
class Forecaster:
    """Something that predicts, to be scored beside a model.

    Attributes
    ----------
    name, about : str
        What it is called, and what it is.
    kind : {"model", "baseline", "probe", "ceiling"}
        A baseline is what a model must beat; a probe and a ceiling know what a model may not.
    predict : callable
        Batch → expected spikes a bin (window, unit).
    """

    name: str
    about: str
    kind: str
    predict: Callable[[Batch], Rates]


@dataclass(frozen=True)
class Windows:
    """All windows of one part of a split.

    Attributes
    ----------
    target : (window, unit, bin) int32
        Counts of the horizon.
    mask : (window, unit, bin) bool
        Where they were observed.
    when : (window,) float64, seconds on the session clock
        Start of the history, the sessions far apart; see `_when`.
    state : (window,) int32, optional
        Whether the behaviour of the probe was observed at the present.
    past, past_mask : (window, unit, bin) int32 and bool
        The same of the history; empty where it is not asked for.
    """

    target: Counts
    mask: NDArray[np.bool_]
    when: Rates
    state: Counts | None = None
    past: Counts = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=np.int32))
    past_mask: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=bool))

    @classmethod
    def of(cls, windows: Dataset, *, history: bool = False) -> Windows:
        """The windows of a dataset, in plan order; their history only where it is asked for."""
        parts: list[dict[str, NDArray[Any]]] = []
        for batch in windows.loader(BATCH, shuffle=False, rank=0, ranks=1):
            counts, mask = target(batch)
            when = _when(batch, windows.session_ids)
            # Copies: a view would keep the whole batch.
            part = {"target": counts.copy(), "mask": mask.copy(), "when": when}
            if STATE in windows.streams:
                part["state"] = _state(batch)
            if history:
                part |= {"past": _past(batch).copy(), "past_mask": _past_mask(batch).copy()}
            parts.append(part)
        return cls(**{name: np.concatenate([one[name] for one in parts]) for name in parts[0]})


def model(run: Run, recipe: Recipe, units: int) -> Forecaster:
    """The trained model of a run.

    Raises
    ------
    RefusedError
        Where its class takes other weights than it did.
    """
    weights = run.weights()
    import torch

    module = recipe.build(units=units)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise RefusedError(
            f"The weights of run {run.id} do not fit {recipe.architecture}, which "
            f"has changed since: {' '.join(str(error).split())}"
        ) from error
    module.eval()

    def predict(batch: Batch) -> Rates:
        with torch.no_grad():
            rate = torch.exp(module(**inputs(module, batch)))
        return np.asarray(rate.double())

    return Forecaster(type(module).__name__, recipe.title, "model", predict)


def baselines(validation: Windows, null: Null, bin: float) -> list[Forecaster]:
    """What a model must beat; constants chosen on windows of validation, with their history."""
    trailing = TrailingRate.choose(
        validation.past,
        validation.target,
        null=null,
        bin=bin,
        mask=validation.mask,
        history_mask=validation.past_mask,
    )
    mean = TrainingMean(null)
    about = (
        f"its own last {trailing.time_constant:g} s, with {trailing.weight:g} of the training "
        "mean; both chosen on validation"
    )

    def follow(batch: Batch) -> Rates:
        return trailing.predict(_past(batch), mask=_past_mask(batch))

    return [
        Forecaster("trailing rate", about, "baseline", follow),
        Forecaster(
            "training mean", "the null", "baseline", lambda batch: mean.predict(_past(batch))
        ),
    ]


def probes(
    training: Windows,
    validation: Windows,
    null: Null,
    *,
    sessions: Sequence[str],
    behaviour: str | None,
) -> list[Forecaster]:
    """What the clock or a behaviour gives alone, without any spike."""
    time = SessionTime.choose(
        (training.when, training.target),
        (validation.when, validation.target),
        null=null,
        masks=(training.mask, validation.mask),
    )
    about = f"knows the session time alone, {time.bandwidth:g} s smooth"

    def at(batch: Batch) -> Rates:
        return time.predict(_when(batch, sessions))

    made = [Forecaster("session time", about, "probe", at)]
    if training.state is not None:
        state = StateMean.fit(training.state, training.target, null=null, mask=training.mask)
        about = f"mean rate with {behaviour} observed or not"
        made.append(
            Forecaster("state mean", about, "probe", lambda batch: state.predict(_state(batch)))
        )
    return made


def _past(batch: Batch) -> Counts:
    return np.asarray(batch.past(TARGET).numpy())


def _past_mask(batch: Batch) -> NDArray[np.bool_]:
    return np.asarray(batch.past_mask(TARGET).numpy(), dtype=bool)


def target(batch: Batch) -> tuple[Counts, NDArray[np.bool_]]:
    """Recorded counts (window, unit, bin) of the horizon, and where they were observed."""
    mask = np.asarray(batch.future_mask(TARGET).numpy(), dtype=bool)
    return np.asarray(batch.future(TARGET).numpy()), mask


def _when(batch: Batch, sessions: Sequence[str]) -> Rates:
    """Starts of the windows in seconds, the sessions so far apart that no kernel joins them."""
    place = {id: number for number, id in enumerate(sessions)}
    return batch.start.numpy() + APART * np.array([place[id] for id in batch.session])


def _state(batch: Batch) -> Counts:
    """Whether the behaviour was observed at the present (window,)."""
    return np.asarray(batch.past_mask(STATE)[:, -1].numpy(), dtype=np.int32)
