"""From a recipe to a run: rehearsed before it has a folder, the same however it was stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore.errors import JSON, UsageError
from neurostore.recipes import Recipe, load, split_of
from neurostore.runs import Run
from neurostore.train._fitting import Fitting, Saving
from neurostore.train._interrupt import Interrupt
from neurostore.train._prepare import Data
from neurostore.train._progress import reporter

if TYPE_CHECKING:
    from neurostore.sample import Bundle
    from neurostore.store import Store


def train(
    recipe: Recipe | str | Path | None,
    store: Store | Bundle,
    folder: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    resume: bool = False,
    progress: bool = True,
    checkpoint_seconds: float = 60.0,
) -> Run:
    """Train the model of a recipe on a store.

    A run that was stopped, by Ctrl-C or by force, continues with `resume`, and ends with the
    weights it would have had: a batch is a function of (seed, epoch, batch), and so is every
    random number of torch that the model draws. On a GPU this is as exact as its kernels are.

    Parameters
    ----------
    recipe : Recipe, str, Path or None
        The name of a bundled one, a TOML file, or one that is loaded; None, with `resume`, is
        the run's own.
    store : Store or Bundle
        A bundle is one that `neurostore pack` wrote for this recipe.
    folder : str or Path
        Of the run; a new one, or with `resume` the one of the run.
    overrides : mapping or sequence of str, optional
        Values over those of the recipe, by dotted key: ``{"train.epochs": 3}``; see
        `neurostore.recipes.load`.
    resume : bool
        Continue the run there. One that is done is given back as it is.
    progress : bool
        Show a bar on a terminal, a line an epoch elsewhere (both to stderr).
    checkpoint_seconds : float
        How often the state is saved within an epoch; it is saved after every epoch too.

    Returns
    -------
    Run

    Raises
    ------
    UsageError
        Where a part has no window, units differ between sessions, the folder holds something, ...
    RefusedError
        Where the run to resume was made from something else.
    NeurostoreError
        Where the loss is no finite number any more.
    KeyboardInterrupt
        After Ctrl-C, with everything saved and how to continue.
    """
    begun = Run.open(folder) if resume else None
    recipe = _settled(recipe, overrides, begun)
    data = Data.of(recipe, store, begun.split if begun else split_of(recipe, store))
    identity = {**data.training.identity(), **_drawn(recipe)}
    if begun:
        begun.check(identity, recipe=recipe)
        if begun.status == "done":
            return begun
    with _threads(recipe.train.threads):
        if begun is None:
            _rehearse(recipe, data)
        fitting = Fitting.of(recipe, data)
        run = begun or Run.create(folder, recipe=recipe, split=data.split, identity=identity)
        with run.alone(), Interrupt() as interrupt, reporter(recipe, progress) as report:
            fitting.restore(run.checkpoint())
            run.mark("training")
            try:
                fitting.fit(Saving(run, interrupt, checkpoint_seconds), report)
            except BaseException:
                run.mark("stopped")
                raise
            run.finish(fitting.weights, **fitting.facts)
    return run


REHEARSED = 4
"""Windows that a rehearsal takes."""


def rehearse(recipe: Recipe, store: Store | Bundle) -> None:
    """Train for nothing: build the model of a recipe, and take its loss on a few windows.

    Whatever the first batch of a training would show is shown, and nothing is written; `train`
    does the same before it makes a folder.

    Raises
    ------
    UsageError
        Whatever `train` would refuse, or the model itself.
    """
    data = Data.of(recipe, store, split_of(recipe, store))
    with _threads(recipe.train.threads):
        _rehearse(recipe, data)


def _rehearse(recipe: Recipe, data: Data) -> None:
    """On a model of its own, so that the one that is trained has seen nothing."""
    windows = min(REHEARSED, len(data.training))
    loader = data.training.loader(windows, seed=recipe.seed, weight=recipe.data.weight)
    Fitting.of(recipe, data).try_out(next(iter(loader)))


def _drawn(recipe: Recipe) -> dict[str, JSON]:
    """What a run keeps of its windows that changes none of them: which were to be, how often."""
    weight = recipe.data.weight
    plain: JSON = weight if weight is None or isinstance(weight, str) else dict(weight)
    return {"missing": recipe.data.missing, "weight": plain}


def _settled(
    recipe: Recipe | str | Path | None,
    overrides: Mapping[str, Any] | Sequence[str],
    begun: Run | None,
) -> Recipe:
    """The recipe as a value; the one of the run that is gone on with where none is named."""
    if isinstance(recipe, str | Path):
        return load(recipe, overrides)
    if overrides:
        raise UsageError(
            "A run goes on with its own recipe: leave the overrides out."
            if recipe is None
            else "This recipe is loaded already: give its overrides to neurostore.recipes.load."
        )
    if recipe is not None:
        return recipe
    if begun is None:
        raise UsageError("A run begins with a recipe, found None. Name one, or set resume=True.")
    return begun.recipe


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
