"""A recipe over a grid of overrides → one table: rotations pooled, seeds apart, resumable."""

from __future__ import annotations

import itertools
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore import recipes
from neurostore._declared import declared
from neurostore.errors import NotFoundError, UsageError
from neurostore.evaluate import Scores, score_name, scores_of
from neurostore.recipes import Recipe
from neurostore.runs import RUN, Run, write
from neurostore.train import train

if TYPE_CHECKING:
    import pandas as pd

    from neurostore.store import Store

TABLE = "table.json"

LONGEST = 150
"""Characters of a folder's name, which file systems end at 255 bytes."""


@dataclass(frozen=True)
class Experiment:
    """A grid over a recipe.

    Parameters
    ----------
    recipe : str
        Name, or a path that ends in ``.toml``, from the folder of the experiment's own file.
    set : mapping
        Overrides of every run, by dotted key.
    grid : mapping
        Dotted key → values; every combination is a run.
    pool : str, optional
        The key of the grid whose runs are one evaluation together: its rotations or folds.
    strides : sequence of float
        Seconds between evaluated windows, the headline first; the recipe's own without it.
    """

    name: str
    title: str
    recipe: str
    set: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, list[Any]] = field(default_factory=dict)
    pool: str | None = None
    strides: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for key, values in self.grid.items():
            if not isinstance(values, list) or not values:
                raise UsageError(f"grid.{key} of {self.name!r} needs a list, found {values!r}.")
            if twice := [one for place, one in enumerate(values) if one in values[:place]]:
                raise UsageError(f"grid.{key} of {self.name!r} names {twice[0]!r} twice.")
        if self.pool is not None and self.pool not in self.grid:
            raise NotFoundError("key to pool", self.pool, self.grid, f"the grid of {self.name!r}")
        if both := sorted({*self.grid} & {*self.set}):
            raise UsageError(f"{both[0]} of {self.name!r} stands in grid and in set: take one out.")
        if wrong := [one for one in self.strides if not 0 < one < math.inf]:
            raise UsageError(f"strides of {self.name!r} are above 0 s, found {wrong[0]:g}.")

    def fixed(self, overrides: Sequence[str]) -> Experiment:
        """The experiment without the keys of its grid that a command line gives a value."""
        said = {
            word[2:].partition("=")[0].replace("-", "_") for word in overrides if word[:2] == "--"
        }
        grid = {key: values for key, values in self.grid.items() if key not in said}
        return replace(self, grid=grid, pool=self.pool if self.pool in grid else None)

    def runs(self) -> Iterator[dict[str, Any]]:
        """The values of the grid's keys, a run each; the pooled key moves fastest."""
        keys = sorted(self.grid, key=lambda key: key == self.pool)
        for values in itertools.product(*(self.grid[key] for key in keys)):
            yield dict(zip(keys, values, strict=True))


def load(name_or_path: str | Path) -> Experiment:
    """A bundled experiment by its name, or one of your own by its path.

    Raises
    ------
    NotFoundError, UsageError
        Where there is none, or a key of it is unknown.
    """
    known = {path.stem: path for path in declared("models", "experiments/*.toml")}
    path = known.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise NotFoundError("experiment", str(name_or_path), known, "the bundled ones")
    try:
        said = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}.") from error
    keys = [one.name for one in fields(Experiment) if one.name != "name"]
    for key in said:
        if key not in keys:
            raise NotFoundError("key", key, keys, str(path))
    for key in ("title", "recipe"):
        if not isinstance(said.get(key), str):
            raise UsageError(f"{path} needs {key!r}, a text.")
    for key in ("set", "grid"):
        if not isinstance(said.setdefault(key, {}), dict):
            raise UsageError(f"{key} of {path} must be a table, found {said[key]!r}.")
        said[key] = _dotted(said[key], "split.ratios")
    if not isinstance(said.get("pool", ""), str):
        raise UsageError(f"pool of {path} is a key of the grid, found {said['pool']!r}.")
    if said["recipe"].endswith(".toml"):  # beside the experiment, wherever that is called from
        said["recipe"] = str(path.parent / said["recipe"])
    return Experiment(path.stem, **{**said, "strides": _strides(said.get("strides", []), path)})


def _strides(said: Any, path: Path) -> tuple[float, ...]:
    numbers = isinstance(said, list) and all(type(one) in (int, float) for one in said)
    if not numbers:
        raise UsageError(f"strides of {path} must be a list of seconds, found {said!r}.")
    return tuple(map(float, said))


def run(
    experiment: Experiment,
    store: Store,
    folder: str | Path,
    *,
    overrides: Sequence[str] = (),
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train and score every run of a grid; runs that are done are kept, others are gone on with.

    Parameters
    ----------
    folder : str or Path
        A run lies below it by the values of its keys; ``table.json`` holds the table.
    overrides : sequence of str
        Words of a command line, over what the experiment says: ``["--train.epochs", "3"]``.
    progress : callable
        Told a line at every step.

    Returns
    -------
    dict
        What ``table.json`` holds; see `frame`.
    """
    folder = Path(folder)
    chosen = experiment.fixed(overrides)
    planned = plan(chosen, overrides)
    groups: dict[str, list[Run]] = {}
    for number, (values, recipe) in enumerate(planned, 1):
        apart = {key: value for key, value in values.items() if key != chosen.pool}
        progress(f"run {number} of {len(planned)}: {_said(values) or recipe.name}")
        groups.setdefault(_said(apart), []).append(_trained(recipe, store, folder / _path(values)))
    rows = [
        {"setting": setting, **_pooled(setting, runs, stride, store, folder, progress).to_json()}
        for setting, runs in groups.items()
        for stride in chosen.strides or (None,)
    ]
    made = {
        "experiment": experiment.name,
        "title": experiment.title,
        "recipe": experiment.recipe,
        "set": dict(experiment.set),
        "overrides": list(overrides),
        "grid": dict(chosen.grid),
        "pooled over": chosen.pool,
        "store": store.url,
        "snapshot": store.snapshot,
        "rows": rows,
    }
    write(folder / TABLE, json.dumps(made, indent=1, allow_nan=False).encode())
    return made


def plan(
    experiment: Experiment, overrides: Sequence[str] = ()
) -> list[tuple[dict[str, Any], Recipe]]:
    """The values of every run with its recipe, all of them checked before the first is trained.

    Raises
    ------
    NotFoundError, UsageError
        Where a key or value is none of the recipe, or two runs would lie in one folder.
    """
    chosen = experiment.fixed(overrides)
    made = [
        (values, recipes.load(experiment.recipe, {**experiment.set, **values}, overrides))
        for values in chosen.runs()
    ]
    places: dict[str, dict[str, Any]] = {}
    for values, _ in made:
        other = places.setdefault(_path(values), values)
        if other is not values:
            raise UsageError(
                f"Two runs of {experiment.name!r} would lie in {_path(values)!r}: {_said(other)} "
                f"and {_said(values)}. Name one of the values otherwise."
            )
    return made


def _pooled(
    setting: str,
    runs: Sequence[Run],
    stride: float | None,
    store: Store,
    folder: Path,
    progress: Callable[[str], None],
) -> Scores:
    """The scores of the runs of one setting as one, kept under ``scores/`` of the folder."""
    recipe = runs[0].recipe
    label = recipe.evaluate.label
    every = "" if stride is None else f" every {stride:g} s"
    progress(f"score {setting or 'all'} on {label}{every}")
    pooled = Scores.pool([scores_of(one, stride=stride, store=store) for one in runs])
    name = score_name(label, stride, recipe)
    pooled.save(folder / "scores", "_".join(filter(None, [_path_of(setting), name])))
    return pooled


def frame(table: Mapping[str, Any]) -> pd.DataFrame:
    """The table as pandas: one row a setting, stride and model, with intervals and differences."""
    import pandas as pd

    rows = [
        {
            "setting": row["setting"],
            "stride": row["stride"],
            "model": one["name"],
            "bits_per_spike": one["bits_per_spike"],
            "interval": one["interval"],
            "model_minus_it": (one["difference"] or {}).get("bits_per_spike"),
            "its_interval": (one["difference"] or {}).get("interval"),
            "units": row["scored"],
            "left_out": len(row["left_out"]),
            "blocks": row["blocks"],
        }
        for row in table["rows"]
        for one in row["models"]
    ]
    return pd.DataFrame(rows)


def _trained(recipe: Recipe, store: Store, folder: Path) -> Run:
    """The run in a folder: trained, gone on with, or, where it is done, as it is."""
    if not (folder / RUN).is_file():
        return train(recipe, store, folder, progress=False)
    if differs := Run.open(folder).recipe.differs(recipe):
        key, (ours, now) = next(iter(differs.items()))
        raise UsageError(
            f"{folder} holds a run of another recipe: {key} was {ours!r}, is {now!r}. "
            "Name another folder, or remove that one."
        )
    return train(recipe, store, folder, resume=True, progress=False)


def _dotted(table: Mapping[str, Any], whole: str, above: str = "") -> dict[str, Any]:
    """A table of tables as values by dotted key; the table `whole` is a value itself."""
    made: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and name != whole:
            made |= _dotted(value, whole, f"{name}.")
        else:
            made[name] = value
    return made


def _said(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in values.items())


def _path_of(said: str) -> str:
    """A name that every file system takes, as readable as can be."""
    return re.sub(r"[^\w.=+-]+", "-", said.replace(", ", "_")).strip("-")[:LONGEST]


def _path(values: Mapping[str, Any]) -> str:
    return _path_of(_said(values)) or "run"
