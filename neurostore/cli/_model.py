"""Commands on models: trained from a recipe, scored, shown and compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

import neurostore
from neurostore.cli._history import opened
from neurostore.cli._print import console, print_json, print_table, records, say
from neurostore.cli._words import DONE, Url
from neurostore.errors import UsageError, counted

if TYPE_CHECKING:
    import pandas as pd

    from neurostore import recipes
    from neurostore.evaluate import Scores
    from neurostore.runs import Run

Recipe = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Overrides = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar="--SECTION.KEY VALUE"),
]


def train(
    recipe: Recipe,
    url: Url,
    folder: Folder,
    resume: bool = False,
    dry_run: bool = False,
    at: str | None = None,
    json: bool = False,
    overrides: Overrides = (),
) -> int:
    """Train a model from a recipe.

    Ctrl-C saves where it is; the same command with --resume goes on from there, exactly.

    Args:
        recipe: A bundled recipe (glm), or a TOML file.
        url: The store.
        folder: Where the run will lie.
        resume: Go on with a run that was stopped or killed.
        dry_run: Show the resolved recipe and the data, train nothing.
        at: A tag, snapshot or date of the store instead of the newest one.
        json: Print what the run says of itself as JSON.
        overrides: Values over those of the recipe, as many as wanted: --train.epochs 3. With
            --resume none are needed: the run keeps its own.
    """
    from neurostore import recipes
    from neurostore.train import train as fit

    store = opened(url, at)
    own = resume and not overrides
    said = _recipe_of(folder, recipe) if own else recipes.load(recipe, overrides)
    if dry_run:
        return _rehearsed(said, store, json=json)
    run = fit(said, store, folder, resume=resume, progress=not json)
    if json:
        print_json(run.facts)
    else:
        say(f"{run!r}\nScore it: neurostore evaluate {folder}")
    return DONE


def _recipe_of(folder: Path, named: str) -> recipes.Recipe:
    """The recipe that a run was made from, where it is the one that is named."""
    from neurostore.runs import Run

    run = Run.open(folder)
    if Path(named).stem != run.recipe.name:
        raise UsageError(
            f"The run in {folder} was made from recipe {run.recipe.name!r}, found {named!r}. Name "
            f"{run.recipe.name} to go on with it, or begin another run in a folder of its own."
        )
    return run.recipe


def _rehearsed(recipe: recipes.Recipe, store: neurostore.Store, *, json: bool) -> int:
    from neurostore import recipes
    from neurostore.train import rehearse

    parts = recipes.datasets(recipe, store, recipes.split_of(recipe, store))
    rehearse(recipe, store)
    if json:
        data = {label: {**one.identity(), "windows": len(one)} for label, one in parts.items()}
        print_json({"recipe": recipe.to_json(), "data": data})
        return DONE
    console().print(recipe.show())
    for label, one in parts.items():
        say(f"{label}: {one!r}")
    say("Dry run: the model takes the data and gives a loss; nothing was trained.")
    return DONE


def evaluate(
    folder: Folder, label: str | None = None, stride: float | None = None, json: bool = False
) -> int:
    """Score a run on held-out windows, beside its baselines on the same windows.

    Args:
        folder: The run.
        label: The part of the split; test without it.
        stride: Seconds from one window to the next; as the recipe says, or the horizon.
        json: Print all scores as JSON.
    """
    from neurostore.evaluate import evaluate as score

    scores = score(folder, label=label, stride=stride)
    if json:
        print_json(scores.to_json())
        return DONE
    _print_scores(scores)
    every = "" if stride is None else f" --stride {stride:g}"
    say(f"Look: neurostore report {folder}{every}")
    return DONE


def _print_scores(scores: Scores) -> None:
    said = scores.to_json()
    left = said["left_out"]
    named = f" for want of spikes: {', '.join(left[:8])}{', ...' if len(left) > 8 else ''}"
    say(
        f"{counted(said['windows'], 'window')} of {said['label']} in "
        f"{counted(said['blocks'], 'block')}, every {said['stride']:g} s. Null: {said['null']}. "
        f"{counted(said['scored'], 'unit')} scored, {len(left)} left out{named if left else ''}."
    )
    for name, what in (("bits_per_spike", "score"), ("bits_per_spike_interval", "intervals")):
        if name in said["reasons"]:
            say(f"No {what}: {said['reasons'][name]}.")
    print_table(scores.shown(), "model", least=3)


def report(
    folder: Folder,
    stride: float | None = None,
    out: Path | None = None,
    json: bool = False,
) -> int:
    """Write the page of a run, and the same numbers as JSON.

    Args:
        folder: The run; it is scored first where it was not.
        stride: Seconds from one window to the next; as the recipe says, or the horizon.
        out: The HTML file; report.html in the run's folder without it.
        json: Print the paths of both files as JSON.
    """
    from neurostore.evaluate import scores_of
    from neurostore.report import PAGE, run_page
    from neurostore.runs import Run

    run = Run.open(folder)
    scores = scores_of(run, stride=stride)
    page = run_page(run, scores, run.folder / PAGE if out is None else out)
    if json:
        print_json({"page": str(page), "data": str(page.with_suffix(".json"))})
    else:
        say(f"{page}\n{page.with_suffix('.json')}")
    return DONE


def experiment(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT")],
    url: Url,
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
    dry_run: bool = False,
    json: bool = False,
    overrides: Overrides = (),
) -> int:
    """Train and score a grid of runs, and print one table; goes on where it was stopped.

    Args:
        name: A bundled experiment (w-maze, human-mtl, mc-maze), or a TOML file.
        url: The store.
        folder: Where the runs and the table will lie.
        dry_run: List the runs, train nothing.
        json: Print the table as JSON.
        overrides: Values over those of the recipe, as many as wanted: --train.epochs 3.
    """
    from neurostore import experiments, recipes
    from neurostore.report import experiment_page

    chosen, store = experiments.load(name), neurostore.open(url)
    if dry_run:
        planned = experiments.plan(chosen, overrides)
        for _, recipe in planned:
            recipes.split_of(recipe, store)
        return _planned([values for values, _ in planned], json=json)
    try:
        table = experiments.run(
            chosen,
            store,
            folder,
            overrides=overrides,
            progress=lambda line: say(line, error=True),
        )
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"stopped; what is done is kept in {folder}. The same command goes on from there."
        ) from stop
    if json:
        print_json(table)
        return DONE
    say(table["title"])
    print_table(_shown(table), "row", least=5)
    page = experiment_page(table, (folder / experiments.TABLE).with_suffix(".html"))
    say(f"{page}\n{folder / experiments.TABLE}")
    return DONE


def _planned(runs: list[dict[str, Any]], *, json: bool) -> int:
    if json:
        print_json(runs)
        return DONE
    for values in runs:
        say(", ".join(f"{key} = {value}" for key, value in values.items()) or "the recipe as it is")
    say(f"Dry run: {counted(len(runs), 'run')}, nothing was trained.")
    return DONE


def _shown(table: Mapping[str, Any]) -> pd.DataFrame:
    """The table of an experiment for a terminal: each score with its interval as one text."""
    import pandas as pd

    from neurostore.evaluate import said

    return pd.DataFrame(
        {
            "setting": row["setting"] or "all",
            "stride": f"{row['stride']:g} s",
            "model": one["name"],
            "bits per spike": said(one["bits_per_spike"], one["interval"]),
            "model minus it": said(**gain) if (gain := one["difference"]) else "",
            "units": row["scored"],
            "left out": len(row["left_out"]),
            "blocks": row["blocks"],
        }
        for row in table["rows"]
        for one in row["models"]
    )


def runs(
    action: Annotated[Literal["list", "show", "compare"], tyro.conf.Positional],
    folders: Annotated[list[Path], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
    json: bool = False,
) -> int:
    """List the runs below a folder, show one, or compare two.

    Args:
        action: What to do.
        folders: A folder of runs to list, a run to show, or two runs to compare.
        json: Print it as JSON.
    """
    from neurostore.runs import Run, compare, find

    wanted = {"list": 1, "show": 1, "compare": 2}[action]
    if len(folders) != wanted:
        raise UsageError(f"runs {action} takes {counted(wanted, 'folder')}, found {len(folders)}.")
    if action == "show":
        return _show(Run.open(folders[0]), json=json)
    frame = find(folders[0]) if action == "list" else compare(*map(Run.open, folders))
    if json:
        print_json(records(frame))
    elif action == "list":
        print_table(_listed(frame, folders[0]), "run", least=3)
    else:
        print_table(_beside(frame), "difference", least=4)
    return DONE


def _listed(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Runs for a terminal: by their folders below the one that is listed, scores first."""
    from neurostore.evaluate import said

    place = folder.expanduser().absolute()
    below = [str(Path(one).absolute().relative_to(place)) for one in frame["folder"]]
    bits = [said(None if one != one else one) for one in frame["bits_per_spike"]]
    made = frame.assign(**{"folder": below, "bits per spike": bits})
    whole = {name: made[name].astype("Int64") for name in ("epochs", "sessions")}
    names = ["folder", "bits per spike", "status", "epochs", "recipe", "sessions", "snapshot"]
    return made.assign(**whole)[names]


def _beside(frame: pd.DataFrame) -> pd.DataFrame:
    """Two runs for a terminal, numbers with the digits that tell them apart."""
    return frame.map(lambda one: f"{one:z.4g}" if isinstance(one, float) else one)


def _show(run: Run, *, json: bool) -> int:
    from neurostore.evaluate import said

    scores = run.scores(run.recipe.evaluate.label)
    if json:
        facts: Mapping[str, Any] = {
            "status": run.status,
            "recipe": run.recipe.to_json(),
            "scores": scores,
        }
        print_json({**run.facts, **facts, "metrics": records(run.metrics())})
        return DONE
    say(repr(run))
    console().print(run.recipe.show())
    if len(metrics := run.metrics()):
        kept = ["epoch", "step", "training_loss", "validation_loss", "learning_rate"]
        print_table(metrics[kept].tail(5).map(lambda one: f"{one:z.6g}"), "epoch")
    if scores is not None:
        model = scores["models"][0]
        say(f"{scores['label']}: {said(model['bits_per_spike'], model['interval'])} bits per spike")
    return DONE
