"""One run at the snapshot it was trained on, and one part of its split → scores.

The null is the training-mean rate of every unit.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import neurostore
from neurostore import metrics
from neurostore.errors import NotFoundError, RefusedError, UsageError
from neurostore.evaluate._forecasters import (
    BATCH,
    STATE,
    Forecaster,
    Rates,
    Windows,
    baselines,
    model,
    probes,
    target,
)
from neurostore.evaluate._scores import Scored, Scores
from neurostore.metrics import Null, Statistics
from neurostore.recipes import Recipe, dataset
from neurostore.runs import Run
from neurostore.sample import Behaviour, Dataset
from neurostore.train import null_of

if TYPE_CHECKING:
    from neurostore.splits import Split
    from neurostore.store import Store

EXAMPLES = 3
"""Windows that are kept whole, to be drawn."""


def evaluate(
    run: Run | str | Path,
    *,
    label: str | None = None,
    stride: float | None = None,
    store: Store | None = None,
    beside: Sequence[Forecaster] = (),
    save: bool = True,
) -> Scores:
    """Score a run on held-out windows, at the snapshot it was trained on.

    Parameters
    ----------
    run : Run or path
    label : str, optional
        The part of the split; what the recipe says (``"test"``) without it.
    stride : float, optional
        Seconds from one window to the next; the recipe's, else the horizon.
    store : Store, optional
        An open store of the run's URL; opened by its URL without it. Later commits do not matter.
    beside : sequence of Forecaster
        More to score on the same windows.
    save : bool
        Keep the scores in the run's folder, under ``scores/``.

    Raises
    ------
    UsageError
        Where the run is not done, the split has no such part, or a stride is not above 0 s.
    RefusedError
        Where what the run was trained on is not what is there: sessions, units, tables.
    DamagedError
        Where a file of the run is not what was written.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    recipe = run.recipe
    _refuse_untrained(run)
    label = recipe.evaluate.label if label is None else label
    seconds, split = _stride(stride, recipe), run.split
    opened = neurostore.open(run.identity["url"]) if store is None else store
    there = _as_trained(run, recipe, opened)
    scores = _Evaluation(recipe, run, there, split, label, seconds).scores(beside)
    if save:
        scores.save(run.folder / "scores", score_name(label, seconds, recipe))
    return scores


def scores_of(run: Run, *, stride: float | None = None, store: Store | None = None) -> Scores:
    """The scores of the recipe's label that lie in the run's folder, made where there are none."""
    name = score_name(run.recipe.evaluate.label, stride, run.recipe)
    if (run.folder / "scores" / f"{name}.json").is_file():
        found = Scores.load(run.folder / "scores", name)
        if found.about["runs"] == [run.id]:  # a folder may have been copied from another run
            return found
    return evaluate(run, stride=stride, store=store)


def score_name(label: str, stride: float | None, recipe: Recipe) -> str:
    """``test`` at the recipe's own stride, else ``test-0.1s``."""
    own = _stride(None, recipe)
    return label if stride in (None, own) else f"{label}-{stride:g}s"


def _stride(stride: float | None, recipe: Recipe) -> float:
    """Seconds between evaluated windows: what is asked for, else the recipe's, else the horizon."""
    if stride is None:
        own = recipe.evaluate.stride
        return float(recipe.window.horizon if own is None else own)
    if not (stride > 0 and math.isfinite(stride)):
        raise UsageError(f"The stride between evaluated windows is above 0 s, found {stride:g} s.")
    return float(stride)


def _as_trained(run: Run, recipe: Recipe, store: Store) -> Store:
    """The store as the run saw it, or, where that snapshot is gone, one that holds the same."""
    try:
        there = store.at(run.snapshot)
    except NotFoundError:
        there = store.pin()
    try:
        identity = dataset(recipe, there, run.split["train"]).identity()
    except UsageError as error:
        raise RefusedError(
            f"Run {run.id} cannot be scored on {store.url}, which is not what it was trained on: "
            f"{error}"
        ) from error
    run.check(identity)
    return there


@dataclass(frozen=True)
class _Evaluation:
    """One part of the split of a run at one stride."""

    recipe: Recipe
    run: Run
    store: Store
    split: Split
    label: str
    stride: float

    def _dataset(self, label: str, stride: float) -> Dataset:
        streams = dict(self.recipe.streams)
        if (state := self.recipe.evaluate.state) is not None:
            streams[STATE] = Behaviour(state, rate=1 / float(self.recipe.bin()))
        return dataset(self.recipe, self.store, self.split[label], stride=stride, streams=streams)

    @cached_property
    def _test(self) -> Dataset:
        return self._dataset(self.label, self.stride)

    @cached_property
    def _train(self) -> Dataset:
        return self._dataset("train", self.stride)

    @cached_property
    def null(self) -> Null:
        """The training-mean rates."""
        return null_of(self._train, self.recipe.bin())

    def forecasters(self) -> list[Forecaster]:
        """The model, its baselines, and probes."""
        recipe, null = self.recipe, self.null
        validation = Windows.of(self._dataset("validation", self.stride), history=True)
        training = Windows.of(self._train)
        return [
            model(self.run, recipe, len(null.units)),
            *baselines(validation, null, float(recipe.bin())),
            *probes(
                training,
                validation,
                null,
                sessions=self._test.session_ids,
                behaviour=recipe.evaluate.state,
            ),
        ]

    def scores(self, beside: Sequence[Forecaster]) -> Scores:
        """Every forecaster over every window."""
        forecasters = [*self.forecasters(), *beside]
        parts: list[list[Statistics]] = [[] for _ in forecasters]
        for batch in self._test.loader(BATCH, shuffle=False, rank=0, ranks=1):
            recorded, mask = target(batch)
            block = batch.block.numpy()
            for part, one in zip(parts, forecasters, strict=True):
                rate = one.predict(batch)
                part.append(
                    metrics.statistics(rate, recorded, null=self.null, block=block, mask=mask)
                )
        models = tuple(
            Scored(one.name, one.about, one.kind, _sum(part))
            for one, part in zip(forecasters, parts, strict=True)
        )
        scores = Scores(self._about(), models)
        shown = self._examples(forecasters[0], forecasters[scores.baseline])
        return replace(scores, examples=shown)

    def _examples(self, ours: Forecaster, baseline: Forecaster) -> tuple[Mapping[str, Any], ...]:
        """A few windows spread evenly over the evaluated ones, however well they are predicted."""
        windows = len(self._test)
        count = min(EXAMPLES, windows)
        rows = [windows * (2 * k + 1) // (2 * count) for k in range(count)]
        batch = self._test.batch(np.array(rows), seed=None)
        recorded, _ = target(batch)
        predicted, other = (
            _whole(one.predict(batch), recorded.shape[-1]) for one in (ours, baseline)
        )
        return tuple(
            {
                "session": batch.session[row],
                "start": float(batch.start[row]) + float(self.recipe.window.history),
                "recorded": recorded[row].sum(-1).tolist(),
                "predicted": predicted[row].tolist(),
                "baseline": other[row].tolist(),
                "beside": baseline.name,
            }
            for row in range(count)
        )

    def _about(self) -> dict[str, Any]:
        window = self.recipe.window
        return {
            "label": self.label,
            "stride": self.stride,
            "horizon": float(window.horizon),
            "bin": float(self.recipe.bin()),
            "windows": len(self._test),
            "split": f"{self.split.title}: {self.split.settings}",
            "sessions": self._test.session_ids,
            "runs": [self.run.id],
        }


def _whole(rate: Rates, bins: int) -> Rates:
    """Expected counts of the horizon (window, unit), from rates with bins or one over all."""
    made: Rates = rate.sum(-1) if rate.ndim == 3 else rate * bins
    return made


def _sum(parts: Sequence[Statistics]) -> Statistics:
    made = parts[0]
    for one in parts[1:]:
        made = made + one
    return made


def _refuse_untrained(run: Run) -> None:
    if run.status != "done":
        epochs = run.recipe.train.epochs
        raise UsageError(
            f"The run in {run.folder} is not done ({run.status}, {len(run.metrics())} of "
            f"{epochs} epochs). Go on with it first: {_command(run)}"
        )


def _command(run: Run) -> str:
    """The words that go on with a run: its recipe, its store, and what was said over the recipe."""
    recipe = run.recipe
    origin = recipe.origins["architecture"][1]
    own = origin if Path(origin).is_file() else recipe.name
    words = ["neurostore", "train", own, str(run.identity["url"]), str(run.folder), "--resume"]
    for key, (value, where) in recipe.origins.items():
        if where == "command line":
            words += _option(key, value)
    return shlex.join(words)


def _option(key: str, value: Any) -> list[str]:
    """The words that say a value of a recipe: a table field by field."""
    if isinstance(value, Mapping):
        return [word for name, one in value.items() for word in _option(f"{key}.{name}", one)]
    each = value if isinstance(value, list | tuple) else [value]
    return [f"--{key}", *(json.dumps(one) if isinstance(one, bool) else _said(one) for one in each)]


def _said(value: Any) -> str:
    return "none" if value is None else str(value)
