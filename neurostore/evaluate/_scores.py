"""What a run scores beside its baselines, as sums by block: blocks drawn anew, rotations pooled."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore import metrics
from neurostore.errors import JSON, DamagedError, MissingExtraError, NotFoundError, UsageError
from neurostore.metrics import Statistics
from neurostore.runs import write

if TYPE_CHECKING:
    import pandas as pd

DRAWS, LEVEL = 2000, 0.95

ABOUT = ("label", "stride", "horizon", "bin", "windows", "split", "sessions", "runs")
"""What scores are about, as their file says it."""

RULES = "Intervals are drawn over blocks; differences are taken on the same windows and blocks."


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
        return copy.deepcopy(self._said)

    @cached_property
    def _said(self) -> dict[str, Any]:
        """What `to_json` gives, drawn once: the intervals take seconds."""
        first, units = self._summaries[0], self._units()
        low, high = _ends(first["bits_per_spike_interval"]) or (None, None)
        return {
            **self.about,
            "bits_per_spike": first["bits_per_spike"],
            "bits_per_spike_low": low,
            "bits_per_spike_high": high,
            "blocks": first["blocks"],
            "spikes": first["spikes"],
            "spikes_scored": sum(one["spikes"] for one in units),
            "null": first["null"]["bits_per_spike"],
            "rules": self.rules,
            "scored": first["units_scored"],
            "left_out": first["left_out"],
            "nlb_bits_per_spike": first["nlb_bits_per_spike"],
            "ceiling": first["within_unit_correlation_ceiling"],
            "correlated": first["correlation_units"],
            "ceilings_at_zero": first["correlation_ceilings_at_zero"],
            "reasons": first["reasons"],
            "baseline": self.baseline,
            "models": [self._model(row) for row in range(len(self.models))],
            "units": units,
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
        for one in self._said["models"]:
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
            for one in self._said["models"]
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
        said = {**self._said, "sums": hashlib.sha256(sums).hexdigest()}
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


def said(bits_per_spike: float | None, interval: Sequence[float] | None = None) -> str:
    """``0.752 [0.698, 0.811]``; a dash where there is none."""
    if bits_per_spike is None:
        return "-"
    ends = "" if interval is None else f" [{interval[0]:z.3f}, {interval[1]:z.3f}]"
    return f"{bits_per_spike:z.3f}{ends}"


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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("Scores on disk", "train") from error
    return safetensors.numpy
