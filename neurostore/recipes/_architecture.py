"""The class that a recipe names: found, read by its signature, checked against the streams."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

from neurostore.errors import MissingExtraError, NotFoundError, UsageError
from neurostore.recipes._recipe import TARGET, Recipe
from neurostore.recipes._typed import REQUIRED, Leaf, Parameter, Tree, parameters

BOUND = ("units", "bin", "history", "horizon")
"""Parameters of an architecture that the data gives, never a recipe."""


def architecture(name: str) -> type:
    """The class that ``"package.module:Class"`` names.

    Raises
    ------
    UsageError
        Where it is no such name, or no class is found there.
    MissingExtraError
        Where it needs torch, which is not installed.
    """
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        raise UsageError(f"An architecture is named 'package.module:Class', found {name!r}.")
    place, _, own = name.partition(":")
    try:
        module = importlib.import_module(place)
    except ImportError as error:
        if error.name in ("torch", "lightning_fabric", "safetensors"):
            raise MissingExtraError(f"The architecture {name}", "train") from error
        raise UsageError(
            f"The module of architecture {name!r} does not import: {error}. Is its package "
            "installed in this environment?"
        ) from error
    classes = [one for one, value in vars(module).items() if inspect.isclass(value)]
    if own not in classes:
        raise NotFoundError("class", own, classes, place)
    made: type = getattr(module, own)
    return made


def bound(made: type) -> list[str]:
    """Parameters of an architecture that the data gives.

    Raises
    ------
    UsageError
        Where one without a default is none of those.
    """
    names = [name for name, one in parameters(made).items() if one.default is REQUIRED]
    for name in names:
        if name not in BOUND:
            raise UsageError(
                f"{made.__name__}.__init__ needs {name!r}, which has no default and is none of "
                f"what the data gives ({', '.join(BOUND)}). Give it a default."
            )
    return names


def settable(name: str) -> dict[str, Parameter]:
    made = architecture(name)
    given = bound(made)
    return {name: one for name, one in parameters(made).items() if name not in given}


def as_said(arguments: Tree) -> dict[str, Parameter]:
    """Arguments of a recipe that was written by `Recipe.to_json`: typed then."""
    return {
        name: Parameter(name, _written(node), REQUIRED, "the architecture")
        for name, node in arguments.items()
    }


def _written(node: Tree | Leaf) -> Any:
    if isinstance(node, Leaf) and isinstance(node.value, list):
        return tuple[_written_all(node.value)]  # type: ignore[misc]
    return Mapping[str, Any] if isinstance(node, dict) else Any


def _written_all(values: list[Any]) -> tuple[Any, ...]:
    return tuple(_written(Leaf(value, "")) for value in values)


def check(recipe: Recipe, said: str) -> Recipe:
    """Streams and architecture against one another, by name."""
    made: Any = architecture(recipe.architecture)
    if not callable(getattr(made, "forward", None)):
        raise UsageError(f"{recipe.architecture} has no forward(): it is no model.")
    if "bin" in bound(made):
        recipe.bin()
    found = list(inspect.signature(made.forward).parameters.values())[1:]
    needed = [one.name for one in found if one.default is one.empty]
    taken = [one.name for one in found]
    lacking = [name for name in needed if name not in recipe.streams]
    unused = [name for name in recipe.streams if name not in (*taken, TARGET)]
    if lacking or unused:
        wrong = lacking or unused
        raise UsageError(
            f"{made.__name__}.forward takes {', '.join(taken) or 'nothing'}; the streams of {said} "
            f"are {', '.join(recipe.streams) or 'none'}. "
            + (f"Add [streams.{wrong[0]}]." if lacking else f"Remove [streams.{wrong[0]}].")
        )
    return recipe
