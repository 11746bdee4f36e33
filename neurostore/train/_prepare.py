"""What a training needs before its first batch: datasets, the null, and a model on its device."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostore.clocks import exact
from neurostore.errors import MissingExtraError, UsageError
from neurostore.metrics import Null
from neurostore.recipes import TARGET, Recipe, architecture, dataset

if TYPE_CHECKING:
    from torch import Tensor

    from neurostore.sample import Batch, Bundle, Dataset
    from neurostore.splits import Split
    from neurostore.store import Store

TRAINING, VALIDATION = "train", "validation"
"""Labels of a split that a training reads; it never sees another."""


@dataclass(frozen=True)
class Data:
    """The windows that a training reads."""

    split: Split
    training: Dataset
    validation: Dataset

    @classmethod
    def of(cls, recipe: Recipe, store: Store | Bundle, split: Split) -> Data:
        """The datasets of a recipe.

        Raises
        ------
        UsageError
            Where the window has no horizon to forecast, or a part has no window.
        """
        if not exact(recipe.window.horizon) > 0:
            raise UsageError(
                f"A model forecasts the horizon of a window, found {recipe.window}. Set "
                "window.horizon."
            )
        recipe.bin()
        training = dataset(recipe, store, split[TRAINING], training=True)
        return cls(split, training, dataset(recipe, store, split[VALIDATION]))


def same_units(data: Dataset) -> list[str]:
    """The ids of the units, which are the same in every session.

    Raises
    ------
    UsageError
        Where they are not: a model with weights of its own for every unit has no others.
    """
    found = {session: [str(one) for one in ids] for session, ids in data.unit_ids.items()}
    first, *others = found
    for session in others:
        if found[session] != found[first]:
            raise UsageError(
                f"A model with weights for every unit needs the same units in all sessions: "
                f"{first} has {len(found[first])}, {session} has {len(found[session])}"
                f"{_first_difference(found[first], found[session])}. Choose sessions with the same "
                f"units, one for instance: data.sessions = \"id = '{first}'\"."
            )
    return found[first]


def _refuse_many(recipe: Recipe, data: Dataset) -> None:
    """Unit "7" of one session is not unit "7" of another one, unless somebody says so."""
    ids = data.session_ids
    if len(ids) > 1 and not recipe.data.same_units:
        raise UsageError(
            f"A model with weights for every unit is of one session, {len(ids)} are chosen "
            f"({', '.join(ids[:4])}{', ...' if len(ids) > 4 else ''}). Choose one: --data.sessions "
            f"{ids[0]}; or, where the same units were recorded in all: --data.same_units true."
        )


def _first_difference(ours: list[str], theirs: list[str]) -> str:
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            return f", first {one!r} against {other!r}"
    return ""


def null_of(data: Dataset, bin: float) -> Null:
    """The training-mean rates of a dataset's units, over all observed time of its split.

    Parameters
    ----------
    bin : float
        Seconds.

    Raises
    ------
    UsageError
        Where its sessions have other units, or one was never observed.
    """
    units, totals = same_units(data), data.totals().values()
    spikes = np.sum([one.spikes for one in totals], axis=0)
    seconds = np.sum([one.seconds for one in totals], axis=0)
    bins = np.floor(seconds / float(exact(bin))).astype(np.int64)
    return Null.fit(spikes, bins, units=units)


def model_of(recipe: Recipe, data: Dataset) -> Any:
    """The untrained module: its units those of the data, its start the training mean.

    Raises
    ------
    UsageError
        Where it has no loss or no weights, or needs the same units and they are not.
    MissingExtraError
        Where torch is not installed.
    """
    import torch

    kind: Any = architecture(recipe.architecture)
    per_unit = "units" in inspect.signature(kind).parameters or hasattr(kind, "start")
    if per_unit:
        _refuse_many(recipe, data)
    units = len(same_units(data)) if per_unit else 0
    module = recipe.build(units=units)
    if not isinstance(module, torch.nn.Module) or not callable(getattr(module, "loss", None)):
        raise UsageError(
            f"{recipe.architecture} is not trained here: a torch.nn.Module with "
            "loss(output, target, mask) is expected."
        )
    if not any(one.requires_grad for one in module.parameters()):
        raise UsageError(f"{recipe.architecture} has no weights to train.")
    if hasattr(module, "start"):
        start: Any = module.start
        start(torch.from_numpy(null_of(data, recipe.bin()).rate))
    return module


def inputs(module: Any, batch: Batch) -> dict[str, Tensor]:
    """What `forward` takes of a batch: the history of every stream that has one."""
    names = [one for one in inspect.signature(module.forward).parameters if one in batch.tensors]
    return {name: batch.past(name) if name in batch.steps else batch[name] for name in names}


def target(batch: Batch) -> tuple[Tensor, Tensor]:
    """Recorded counts (window, unit, bin) of the horizon, and where they were observed.

    Raises
    ------
    UsageError
        Where the stream hides a part of itself: its horizon is not in it.
    """
    if f"{TARGET}.target" in batch.tensors:
        raise UsageError(
            f"A model trained here forecasts the horizon of {TARGET!r}; mask, units_in and "
            "units_out are for a loop of your own. Leave them out of the recipe."
        )
    return batch.future(TARGET), batch.future_mask(TARGET)


def fabric_of(recipe: Recipe) -> Any:
    """Lightning Fabric on the recipe's device, in its precision, seeded.

    Raises
    ------
    MissingExtraError
        Where it is not installed.
    UsageError
        Where this machine has no such device.
    """
    try:
        import torch
        from lightning_fabric import Fabric
    except ImportError as error:
        raise MissingExtraError("Training", "train") from error
    there: Mapping[str, bool] = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there[recipe.device]:
        found = ", ".join(name for name, one in there.items() if one)
        raise UsageError(
            f"This machine has no device {recipe.device!r}, it has: {found}. Set --device cpu."
        )
    fabric = Fabric(accelerator=recipe.device, devices=1, precision=recipe.precision)
    fabric.seed_everything(recipe.seed, verbose=False)
    return fabric
