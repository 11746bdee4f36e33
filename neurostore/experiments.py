"""A recipe over a grid of overrides → one table: rotations pooled, seeds apart, resumable."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore import recipes
from neurostore._declared import declared
from neurostore.errors import NotFoundError, UsageError
from neurostore.evaluate import Scores, evaluate, score_name
from neurostore.recipes import Recipe
from neurostore.runs import RUN, Run, write
from neurostore.train import train

if TYPE_CHECKING:
    import pandas as pd

    from neurostore.store import Store

TABLE = "table.json"


@dataclass(frozen=True)
class Experiment:
    """A grid over a recipe.

    Parameters
    ----------
    recipe : str
        Name or path.
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
        if self.pool is not None and self.pool not in self.grid:
            raise NotFoundError("key to pool", self.pool, self.grid, f"the grid of {self.name!r}")

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
        raise NotFoundError("experiment", str(name_or_path), known)
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
        said[key] = _dotted(said.get(key, {}), "split.ratios")
    said["strides"] = tuple(float(one) for one in said.get("strides", ()))
    return Experiment(path.stem, **said)


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
    groups: dict[str, list[Run]] = {}
    settings = list(experiment.runs())
    for number, values in enumerate(settings, 1):
        recipe = recipes.load(experiment.recipe, {**experiment.set, **values}, overrides)
        apart = {key: value for key, value in values.items() if key != experiment.pool}
        progress(f"run {number} of {len(settings)}: {_said(values)}")
        groups.setdefault(_said(apart), []).append(_trained(recipe, store, folder / _path(values)))
    rows = []
    for apart_said, runs in groups.items():
        for stride in experiment.strides or (None,):
            progress(f"score {apart_said or 'all'} at a stride of {stride or 'the recipe'} s")
            pooled = Scores.pool([_scored(one, store, stride) for one in runs])
            name = "_".join(
                filter(None, [_path_of(apart_said), score_name("test", stride, runs[0].recipe)])
            )
            pooled.save(folder / "scores", name)
            rows.append({"setting": apart_said, **pooled.to_json()})
    made = {
        "experiment": experiment.name,
        "title": experiment.title,
        "recipe": experiment.recipe,
        "set": dict(experiment.set),
        "overrides": list(overrides),
        "grid": dict(experiment.grid),
        "pooled over": experiment.pool,
        "store": store.url,
        "snapshot": store.snapshot,
        "rows": rows,
    }
    write(folder / TABLE, json.dumps(made, indent=1, allow_nan=False).encode())
    return made


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
    if not (folder / RUN).is_file():
        return train(recipe, store, folder, progress=False)
    found = Run.open(folder)
    if differs := found.recipe.differs(recipe):
        key, (ours, now) = next(iter(differs.items()))
        raise UsageError(
            f"{folder} holds a run of another recipe: {key} was {ours!r}, is {now!r}. "
            "Name another folder, or remove that one."
        )
    return found if found.status == "done" else train(recipe, store, folder, resume=True)


def _scored(run: Run, store: Store, stride: float | None) -> Scores:
    name = score_name("test", stride, run.recipe)
    if (run.folder / "scores" / f"{name}.json").is_file():
        return Scores.load(run.folder / "scores", name)
    return evaluate(run, stride=stride, store=store)


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
    return said.replace(", ", "_").replace(" ", "-").replace("/", "-")


def _path(values: Mapping[str, Any]) -> str:
    return _path_of(_said(values)) or "run"
