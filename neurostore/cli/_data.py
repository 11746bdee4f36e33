"""Commands on the data of a recipe: described, and packed for a machine without a store."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from neurostore.cli._history import opened
from neurostore.cli._model import Folder, Overrides, Recipe
from neurostore.cli._print import console, print_json, say
from neurostore.cli._words import DONE, Url

if TYPE_CHECKING:
    from neurostore.sample import Dataset
    from neurostore.sample.bundle import Progress


def describe(
    recipe: Recipe,
    url: Url,
    batch_size: int = 32,
    at: str | None = None,
    json: bool = False,
    picture: Path | None = None,
    overrides: Overrides = (),
) -> int:
    """Say what a recipe reads of a store: hours, windows, units and what is missing, by session.

    Args:
        recipe: A bundled recipe (glm), or a TOML file.
        url: The store.
        batch_size: Of the batch whose memory is predicted.
        at: A tag, snapshot or date of the store instead of the newest one.
        json: Print it as JSON.
        picture: An SVG file to be drawn, the sessions one below the other.
        overrides: Values over those of the recipe, as many as wanted.
    """
    found = {
        label: dataset.describe(batch_size)
        for label, dataset in _datasets(recipe, url, at, overrides).items()
    }
    if picture is not None:
        from neurostore import figures

        figures.dataset(found).save(picture)
    if json:
        print_json({label: one.to_json() for label, one in found.items()})
        return DONE
    for label, one in found.items():
        say(f"{label}\n{one!r}\n")
    if picture is not None:
        say(f"The picture lies in {picture}.")
    return DONE


def pack(
    recipe: Recipe,
    url: Url,
    folder: Folder,
    at: str | None = None,
    dry_run: bool = False,
    json: bool = False,
    overrides: Overrides = (),
) -> int:
    """Write what a training run reads into one folder that opens without a store.

    For compute nodes: numpy, numba and torch are all that opens it, with
    neurostore.sample.Bundle.open(folder).dataset("train"). A command that was stopped goes on where
    it was.

    Args:
        recipe: A bundled recipe (glm), or a TOML file.
        url: The store.
        folder: The folder to be written; it must not be there.
        at: A tag, snapshot or date of the store instead of the newest one.
        dry_run: Say what would be packed, write nothing.
        json: Print what was packed as JSON.
        overrides: Values over those of the recipe, as many as wanted.
    """
    from neurostore.sample import packing

    datasets = _datasets(recipe, url, at, overrides)
    if dry_run:
        plan = packing.rehearse(datasets)
        if json:
            print_json(plan)
            return DONE
        for id, tables in plan["sessions"].items():
            say(f"{id}: {', '.join(tables)}")
        if plan["stimuli"]:
            say(f"stimuli: {', '.join(plan['stimuli'])}")
        say(f"Dry run: {', '.join(datasets)} into {folder}; nothing was written.")
        return DONE
    with _bar(shown=not json) as progress:
        made = packing.pack(datasets, folder, progress=progress)
    if json:
        print_json({key: made.said[key] for key in ("url", "snapshot", "files", "digest")})
    else:
        say(f"{made!r}")
    return DONE


def _datasets(
    recipe: str, url: str, at: str | None, overrides: tuple[str, ...]
) -> dict[str, Dataset]:
    from neurostore import recipes

    store, said = opened(url, at), recipes.load(recipe, overrides)
    return recipes.datasets(said, store, recipes.split_of(said, store))


@contextmanager
def _bar(*, shown: bool) -> Iterator[Progress | None]:
    """A bar on a terminal, a line a table elsewhere, or nothing."""
    if not shown:
        yield None
    elif not sys.stdout.isatty():
        yield lambda name, done, total: say(f"{done}/{total} {name}")
    else:
        from rich.progress import Progress as Bar

        with Bar(console=console(), transient=True) as bar:
            task = bar.add_task("packing")

            def tell(name: str, done: int, total: int) -> None:
                bar.update(task, description=name, completed=done, total=total)

            yield tell
