"""What a recipe reads of a store: its split, and the datasets of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from neurostore.errors import UsageError
from neurostore.recipes._recipe import Recipe
from neurostore.recipes._resolve import methods
from neurostore.sample import Dataset, choose
from neurostore.splits import Part, Split

if TYPE_CHECKING:
    from neurostore.store import Store


def split_of(recipe: Recipe, store: Store) -> Split:
    """The split that a recipe names or makes, over the sessions and units it chooses.

    Raises
    ------
    UsageError
        Where the stored one is a part only, or nothing can be split.
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
        for one in choose(store, recipe.data.sessions, recipe.data.units)
    ]
    made: Split = methods()[str(said.method)](recipe.name, timelines, **said.arguments)
    return made


def dataset(
    recipe: Recipe,
    store: Store,
    part: Part,
    *,
    stride: float | None = None,
    streams: Mapping[str, Any] | None = None,
) -> Dataset:
    """The windows of one part of the split, with the streams of the recipe.

    Parameters
    ----------
    stride : float, optional
        Seconds from one window to the next, another than the recipe's.
    streams : mapping, optional
        Others than the recipe's.
    """
    window = recipe.window if stride is None else replace(recipe.window, stride=stride)
    return Dataset(
        store,
        recipe.data.sessions,
        units=recipe.data.units,
        window=window,
        streams=recipe.streams if streams is None else streams,
        split=part,
        history_may_cross=recipe.data.history_may_cross,
    )
