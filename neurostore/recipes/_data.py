"""What a recipe reads of a store: its split, and the datasets of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from neurostore.clocks import exact
from neurostore.errors import UsageError, counted
from neurostore.recipes._recipe import Recipe
from neurostore.recipes._resolve import methods
from neurostore.sample import Bundle, Dataset, choose
from neurostore.splits import Part, Split

if TYPE_CHECKING:
    from neurostore.store import Store


def split_of(recipe: Recipe, store: Store | Bundle) -> Split:
    """The split that a recipe names or makes, over the sessions and units it chooses.

    Raises
    ------
    UsageError
        Where the stored one is a part only, nothing can be split, or a label of the ratios gets
        no row.
    """
    said = recipe.split
    if said.stored is not None:
        found = store.split(said.stored)
        if isinstance(found, Part):
            raise UsageError(
                f"split.stored names a whole split, found the part {said.stored!r}. Leave out its "
                "label."
            )
        return found
    timelines = [
        one.session.timeline([str(id) for id in one.ids] if len(one.ids) else None, said.trials)
        for one in choose(store, *_chosen(recipe, store))  # type: ignore[arg-type]
    ]
    made: Split = methods()[str(said.method)](recipe.name, timelines, **said.arguments)
    _refuse_unlabelled(made)
    return made


def _chosen(recipe: Recipe, store: Store | Bundle) -> tuple[Any, Any]:
    """Sessions and units; of a bundle, which knows no SQL, those that it was packed with."""
    asked = (recipe.data.sessions, recipe.data.units)
    return store.asked(*asked) if isinstance(store, Bundle) else asked


def _refuse_unlabelled(split: Split) -> None:
    """A label that is asked for and gets nothing is missed only when somebody reads it."""
    ratios: Any = split.definition["ratios"]
    lacking = [label for label, share in ratios if exact(share) > 0 and label not in split.labels]
    if lacking:
        got = ", ".join(f"{one} {int((split.label == one).sum())}" for one in split.labels)
        raise UsageError(
            f"The split has {counted(len(split), 'row')} ({got}), none of them for "
            f"{', '.join(lacking)}. Shorten split.block, choose more sessions, or, for trials with "
            "gaps between them, set split.method by_trial and split.trials."
        )


def dataset(
    recipe: Recipe,
    store: Store | Bundle,
    part: Part,
    *,
    stride: float | None = None,
    streams: Mapping[str, Any] | None = None,
    training: bool = False,
) -> Dataset:
    """The windows of one part of the split, with the streams of the recipe.

    Parameters
    ----------
    stride : float, optional
        Seconds from one window to the next, another than the recipe's.
    streams : mapping, optional
        Others than the recipe's.
    training : bool
        With the dropout of the recipe, which is for windows that a model learns from.
    """
    window = recipe.window if stride is None else replace(recipe.window, stride=stride)
    sessions, units = _chosen(recipe, store)
    return Dataset(
        store,  # type: ignore[arg-type]
        sessions,
        units=units,
        window=window,
        streams=recipe.streams if streams is None else streams,
        split=part,
        history_may_cross=recipe.data.history_may_cross,
        acquisition=recipe.data.acquisition,
        dropout=recipe.data.dropout if training else None,
        missing=recipe.data.missing,
    )


def datasets(recipe: Recipe, store: Store | Bundle, split: Split) -> dict[str, Dataset]:
    """The windows of every part of the split by label, as a training reads them."""
    return {
        label: dataset(recipe, store, split[label], training=label == "train")
        for label in split.labels
    }
