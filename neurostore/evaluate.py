"""A run and held-out windows → scores, beside baselines on the same windows.

The null is the training-mean rate of every unit; whatever a baseline chooses, it chooses on
validation. What is kept of a prediction are sums by block, so that blocks can be drawn anew and
rotations pooled.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import neurostore
from neurostore import metrics
from neurostore._callable import callable_as
from neurostore.errors import (
    JSON,
    DamagedError,
    MissingExtraError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from neurostore.metrics import Null, Statistics
from neurostore.models.baselines import TrailingRate, TrainingMean
from neurostore.models.probes import SessionTime, StateMean
from neurostore.recipes import TARGET, Recipe, dataset
from neurostore.runs import Run, write
from neurostore.sample import Batch, Behaviour, Dataset
from neurostore.train import inputs, null_of

if TYPE_CHECKING:
    import pandas as pd

    from neurostore.splits import Split
    from neurostore.store import Store

BATCH = 512
EXAMPLES = 3
DRAWS, LEVEL = 2000, 0.95
STATE = "state"
"""The stream under which a behaviour is read that tells states apart."""

RULES = "Intervals are drawn over blocks; differences are taken on the same windows and blocks."

Counts = NDArray[np.int64]
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
class Scored:
    """One forecaster on the evaluated windows.

    Attributes
    ----------
    name, about : str
        What it is called, and what it is: its constants, and on what they were chosen.
    kind : {"model", "baseline", "probe", "ceiling"}
    """

    name: str
    about: str
    kind: str
    statistics: Statistics


@dataclass(frozen=True)
class Scores:
    """What a run scores on held-out windows, the model first, its baselines after it.

    Attributes
    ----------
    about : mapping
        label, stride, horizon and bin in seconds, windows, split, sessions, runs.
    examples : sequence of mapping
        A few windows with the recorded and the predicted counts of every unit, and those of the
        baseline that `beside` names.
    """

    about: Mapping[str, Any]
    models: tuple[Scored, ...]
    examples: tuple[Mapping[str, Any], ...] = ()

    @property
    def model(self) -> Scored:
        """The model of the run."""
        return self.models[0]

    @property
    def baseline(self) -> int:
        """Number of the baseline that a model must beat: the best of them."""
        plain = [row for row, one in enumerate(self.models) if one.kind == "baseline"]
        bits = {row: self._summaries[row]["bits_per_spike"] for row in plain}
        return max(plain, key=lambda row: -np.inf if bits[row] is None else bits[row])

    @property
    def rules(self) -> str:
        """How the windows lie, and what intervals and differences are taken over."""
        stride, horizon = (float(self.about[key]) for key in ("stride", "horizon"))
        apart = "do not overlap" if stride >= horizon else "overlap"
        return f"Horizons of {horizon:g} s every {stride:g} s {apart}. {RULES}"

    @cached_property
    def _summaries(self) -> list[dict[str, Any]]:
        return [metrics.summary(one.statistics, draws=DRAWS, level=LEVEL) for one in self.models]

    def to_json(self) -> dict[str, Any]:
        """All scores, their intervals and differences; a score without a value is None."""
        first = self._summaries[0]
        low, high = _ends(first["bits_per_spike_interval"]) or (None, None)
        return {
            **self.about,
            "bits_per_spike": first["bits_per_spike"],
            "bits_per_spike_low": low,
            "bits_per_spike_high": high,
            "blocks": first["blocks"],
            "spikes": first["spikes"],
            "null": first["null"]["bits_per_spike"],
            "rules": self.rules,
            "scored": first["units_scored"],
            "left_out": first["left_out"],
            "ceiling": first["within_unit_correlation_ceiling"],
            "ceilings_at_zero": first["correlation_ceilings_at_zero"],
            "reasons": first["reasons"],
            "baseline": self.baseline,
            "models": [self._model(row) for row in range(len(self.models))],
            "units": self._units(),
            "examples": [dict(one) for one in self.examples],
        }

    def _model(self, row: int) -> dict[str, Any]:
        said, one = self._summaries[row], self.models[row]
        return {
            "name": one.name,
            "about": one.about,
            "kind": one.kind,
            "bits_per_spike": said["bits_per_spike"],
            "interval": _ends(said["bits_per_spike_interval"]),
            "without_top_unit": said["bits_per_spike_without_top_unit"],
            "median_unit": said["bits_per_spike_median_unit"],
            "mean_unit": said["bits_per_spike_mean_unit"],
            "nlb_bits_per_spike": said["nlb_bits_per_spike"],
            "correlation": said["within_unit_correlation"],
            "difference": self._difference(row) if row else None,
        }

    def _difference(self, row: int) -> dict[str, JSON] | None:
        """The model minus another one, on the same blocks; one block gives no interval."""
        ours, theirs = self.model.statistics, self.models[row].statistics
        mine, other = (self._summaries[one]["bits_per_spike"] for one in (0, row))
        if mine is None or other is None:
            return None
        if len(ours) < 2:
            return {"bits_per_spike": mine - other, "interval": None}
        found = metrics.difference(ours, theirs, draws=DRAWS, level=LEVEL)
        return {"bits_per_spike": found.value, "interval": [found.low, found.high]}

    def _units(self) -> list[dict[str, Any]]:
        """Every unit scored: the model's bits with an interval, and those of the baseline."""
        ours, other = (
            {one["unit"]: one for one in self._summaries[row]["per_unit"]}
            for row in (0, self.baseline)
        )
        made = []
        for number, (unit, one) in enumerate(ours.items()):
            if one["bits_per_spike"] is None:
                continue
            alone = self.model.statistics.only([number])
            whole = len(alone) > 1
            interval = metrics.interval(alone, draws=DRAWS // 4, level=LEVEL) if whole else None
            made.append(
                {
                    "unit": unit,
                    "spikes": one["test_spikes"],
                    "bits_per_spike": one["bits_per_spike"],
                    "interval": None if interval is None else [interval.low, interval.high],
                    "baseline": other[unit]["bits_per_spike"],
                    "correlation": one["correlation"],
                    "correlation_ceiling": one["correlation_ceiling"],
                }
            )
        return made

    def table(self) -> pd.DataFrame:
        """One row a model: bits per spike with its interval, and the model minus it."""
        import pandas as pd

        rows = []
        for one in self.to_json()["models"]:
            low, high = one["interval"] or (None, None)
            gain = one["difference"] or {"bits_per_spike": None, "interval": None}
            lowest, highest = gain["interval"] or (None, None)
            rows.append(
                {
                    "model": one["name"],
                    "bits_per_spike": one["bits_per_spike"],
                    "low": low,
                    "high": high,
                    "difference": gain["bits_per_spike"],
                    "difference_low": lowest,
                    "difference_high": highest,
                    "without_top_unit": one["without_top_unit"],
                    "median_unit": one["median_unit"],
                    "correlation": one["correlation"],
                }
            )
        return pd.DataFrame(rows)

    def shown(self) -> pd.DataFrame:
        """The same for a terminal: each score with its interval as one text."""
        import pandas as pd

        return pd.DataFrame(
            {
                "model": one["name"],
                "bits per spike": said(one["bits_per_spike"], one["interval"]),
                "model minus it": said(**gain) if (gain := one["difference"]) else "",
                "correlation": said(one["correlation"]),
                "what it is": one["about"],
            }
            for one in self.to_json()["models"]
        )

    @classmethod
    def pool(cls, scores: Sequence[Scores]) -> Scores:
        """Rotations of one evaluation as one, with all their blocks.

        Raises
        ------
        UsageError
            Where there is none, or they hold other models, windows or bins.
        """
        if not scores:
            raise UsageError("There is nothing to pool: give the scores of every rotation.")
        names = [[one.name for one in each.models] for each in scores]
        if any(one != names[0] for one in names):
            raise UsageError(f"Scores of other models cannot be pooled: {names}.")
        for key in ("label", "stride", "horizon", "bin"):
            if len(found := {each.about[key] for each in scores}) > 1:
                raise UsageError(f"Scores of unlike {key} cannot be pooled: {sorted(found)}.")
        models = tuple(
            replace(
                scores[0].models[row],
                about=_together([each.models[row].about for each in scores]),
                statistics=Statistics.pool([each.models[row].statistics for each in scores]),
            )
            for row in range(len(names[0]))
        )
        about = dict(scores[0].about) | {
            "windows": sum(each.about["windows"] for each in scores),
            "split": _together([each.about["split"] for each in scores]),
            "runs": [run for each in scores for run in each.about["runs"]],
        }
        return cls(about, models, scores[0].examples)

    def save(self, folder: str | Path, name: str) -> Path:
        """Write ``<name>.json`` (for people) and ``<name>.safetensors`` (the sums); the first."""
        save = _safetensors().save
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            f"{row}.{key}": np.ascontiguousarray(array)
            for row, one in enumerate(self.models)
            for key, array in one.statistics.to_arrays().items()
        }
        path = folder / f"{name}.json"
        sums = save(arrays)
        said = {**self.to_json(), "sums": hashlib.sha256(sums).hexdigest()}
        write(path.with_suffix(".safetensors"), sums)
        write(path, json.dumps(said, indent=1, allow_nan=False).encode())
        return path

    @classmethod
    def load(cls, folder: str | Path, name: str) -> Scores:
        """The scores that `save` wrote.

        Raises
        ------
        NotFoundError, DamagedError
            Where there are none, or one of the files is damaged.
        """
        folder = Path(folder)
        path = folder / f"{name}.json"
        if not path.is_file():
            known = [one.stem for one in folder.glob("*.json")]
            raise NotFoundError("scores", name, known, str(folder))
        try:
            return cls._read(path)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DamagedError(
                f"The scores {name!r} in {folder} are damaged: {_first_line(error)}. Evaluate the "
                "run again."
            ) from error

    @classmethod
    def _read(cls, path: Path) -> Scores:
        said = json.loads(path.read_bytes())
        sums = path.with_suffix(".safetensors").read_bytes()
        if hashlib.sha256(sums).hexdigest() != said["sums"]:
            raise ValueError(f"{path.stem}.safetensors is not what was written with {path.name}")
        arrays = _safetensors().load(sums)
        models = tuple(
            Scored(one["name"], one["about"], one["kind"], _statistics(arrays, row))
            for row, one in enumerate(said["models"])
        )
        return cls({key: said[key] for key in ABOUT}, models, tuple(said["examples"]))


ABOUT = ("label", "stride", "horizon", "bin", "windows", "split", "sessions", "runs")


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
    def null(self) -> Null:
        """The training-mean rates."""
        return null_of(self._dataset("train", self.stride), self.recipe.bin())

    def scores(self, beside: Sequence[Forecaster]) -> Scores:
        """Every forecaster over every window."""
        forecasters = [self._model(), *self._baselines(), *self._probes(), *beside]
        parts: list[list[Statistics]] = [[] for _ in forecasters]
        for batch in self._test.loader(BATCH, shuffle=False):
            target, mask = _target(batch)
            block = batch.block.numpy()
            for part, one in zip(parts, forecasters, strict=True):
                rate = one.predict(batch)
                part.append(
                    metrics.statistics(rate, target, null=self.null, block=block, mask=mask)
                )
        models = tuple(
            Scored(one.name, one.about, one.kind, _sum(part))
            for one, part in zip(forecasters, parts, strict=True)
        )
        scores = Scores(self._about(), models)
        shown = self._examples(forecasters[0], forecasters[scores.baseline])
        return replace(scores, examples=shown)

    def _examples(self, model: Forecaster, baseline: Forecaster) -> tuple[Mapping[str, Any], ...]:
        """A few windows spread evenly over the evaluated ones, however well they are predicted."""
        windows = len(self._test)
        count = min(EXAMPLES, windows)
        rows = [windows * (2 * k + 1) // (2 * count) for k in range(count)]
        batch = self._test.batch(np.array(rows), seed=None)
        target, _ = _target(batch)
        predicted, other = (_whole(one.predict(batch), target) for one in (model, baseline))
        return tuple(
            {
                "session": batch.session[row],
                "start": float(batch.start[row]) + float(self.recipe.window.history),
                "recorded": target[row].sum(-1).tolist(),
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

    def _model(self) -> Forecaster:
        weights = self.run.weights()
        import torch

        module = self.recipe.build(units=len(self.null.units))
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            raise RefusedError(
                f"The weights of run {self.run.id} do not fit {self.recipe.architecture}, which "
                f"has changed since: {' '.join(str(error).split())}"
            ) from error
        module.eval()

        def predict(batch: Batch) -> Rates:
            with torch.no_grad():
                rate = torch.exp(module(**inputs(module, batch)))
            return np.asarray(rate.double())

        return Forecaster(type(module).__name__, self.recipe.title, "model", predict)

    def _baselines(self) -> list[Forecaster]:
        windows = self._validation
        trailing = TrailingRate.choose(
            windows.past,
            windows.target,
            null=self.null,
            bin=float(self.recipe.bin()),
            mask=windows.mask,
            history_mask=windows.past_mask,
        )
        mean = TrainingMean(self.null)
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

    def _probes(self) -> list[Forecaster]:
        training = self._gathered(self._dataset("train", self.stride))
        validation = self._validation
        time = SessionTime.choose(
            (training.start, training.target),
            (validation.start, validation.target),
            null=self.null,
            masks=(training.mask, validation.mask),
        )
        about = f"knows the session time alone, {time.bandwidth:g} s smooth"
        made = [
            Forecaster(
                "session time", about, "probe", lambda batch: time.predict(batch.start.numpy())
            )
        ]
        if training.state is not None:
            state = StateMean.fit(
                training.state, training.target, null=self.null, mask=training.mask
            )
            about = f"mean rate with {self.recipe.evaluate.state} observed or not"
            made.append(
                Forecaster("state mean", about, "probe", lambda batch: state.predict(_state(batch)))
            )
        return made

    @cached_property
    def _validation(self) -> _Windows:
        return self._gathered(self._dataset("validation", self.stride))

    def _gathered(self, windows: Dataset) -> _Windows:
        batches = list(windows.loader(BATCH, shuffle=False))
        targets = [_target(batch) for batch in batches]
        has_state = self.recipe.evaluate.state is not None
        return _Windows(
            np.concatenate([_past(batch) for batch in batches]),
            np.concatenate([_past_mask(batch) for batch in batches]),
            np.concatenate([target for target, _ in targets]),
            np.concatenate([mask for _, mask in targets]),
            np.concatenate([batch.start.numpy() for batch in batches]),
            np.concatenate([_state(batch) for batch in batches]) if has_state else None,
        )


@dataclass(frozen=True)
class _Windows:
    past: Counts
    past_mask: NDArray[np.bool_]
    target: Counts
    mask: NDArray[np.bool_]
    start: Rates
    state: Counts | None


def _past(batch: Batch) -> Counts:
    return np.asarray(batch.past(TARGET).numpy(), dtype=np.int64)


def _past_mask(batch: Batch) -> NDArray[np.bool_]:
    return np.asarray(batch.past_mask(TARGET).numpy(), dtype=bool)


def _target(batch: Batch) -> tuple[Counts, NDArray[np.bool_]]:
    mask = np.asarray(batch.future_mask(TARGET).numpy(), dtype=bool)
    return np.asarray(batch.future(TARGET).numpy(), dtype=np.int64), mask


def _whole(rate: Rates, target: Counts) -> Rates:
    """Expected counts of the horizon (window, unit), from rates with bins or one over all."""
    made: Rates = rate.sum(-1) if rate.ndim == 3 else rate * target.shape[-1]
    return made


def _state(batch: Batch) -> Counts:
    """Whether the behaviour was observed at the present (window,)."""
    return np.asarray(batch.past_mask(STATE)[:, -1].numpy(), dtype=np.int64)


def said(bits_per_spike: float | None, interval: Sequence[float] | None = None) -> str:
    """``0.752 [0.698, 0.811]``; a dash where there is none."""
    if bits_per_spike is None:
        return "-"
    ends = "" if interval is None else f" [{interval[0]:z.3f}, {interval[1]:z.3f}]"
    return f"{bits_per_spike:z.3f}{ends}"


def _sum(parts: Sequence[Statistics]) -> Statistics:
    made = parts[0]
    for one in parts[1:]:
        made = made + one
    return made


def _ends(interval: Any) -> list[float] | None:
    return None if interval is None else [interval["low"], interval["high"]]


def _together(said: Sequence[str]) -> str:
    """One text where all are alike, else all of them in order."""
    return "; ".join(dict.fromkeys(said))


def _statistics(arrays: Mapping[str, NDArray[Any]], row: int) -> Statistics:
    own = f"{row}."
    return Statistics.from_arrays(
        {key.removeprefix(own): one for key, one in arrays.items() if key.startswith(own)}
    )


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
            words += [f"--{key}", *map(str, value if isinstance(value, list | tuple) else [value])]
    return shlex.join(words)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("Scores on disk", "train") from error
    return safetensors.numpy


callable_as(__name__, evaluate)
