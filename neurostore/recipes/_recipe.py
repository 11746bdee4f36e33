"""What a recipe says, section by section, and the recipe as one value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from neurostore.errors import JSON, UsageError
from neurostore.recipes._typed import Origins
from neurostore.sample import Acquisition, All, UnitDropout, Window

if TYPE_CHECKING:
    from rich.table import Table

TARGET = "spikes"
"""The stream whose horizon a model forecasts."""

TEXT = ("title", "citation", "reference")
"""Sections that say something about a recipe and change nothing in a run."""


@dataclass(frozen=True)
class Data:
    """Which sessions and units of a store, and how windows of them are given.

    Parameters
    ----------
    sessions : str or sequence of str, optional
        The id of one session, ids of several, or SQL over the columns of ``store.sessions()``; all
        without it.
    units : str, optional
        SQL over the columns of ``store.units()``; all without it.
    history_may_cross : bool
        Whether the history of a window may lie outside of its own part of the split.
    same_units : bool
        Whether sessions that list the same unit ids recorded the same units.
    acquisition : Acquisition
        When each channel was observed: a table of its `kind` and its parameters.
    dropout : UnitDropout, optional
        Units left out at random in training windows; never in validation or evaluation.
    missing : {"mask", "refuse"}
        What a session that lacks something of a stream does.
    weight : str or mapping, optional
        How training windows are drawn: ``"sessions"``, ``"intervals"``, ``"units"``, or a weight
        by session id, with replacement; each once an epoch without it.
    """

    sessions: str | tuple[str, ...] | None = None
    units: str | None = None
    history_may_cross: bool = False
    same_units: bool = False
    acquisition: Acquisition = field(default_factory=All)
    dropout: UnitDropout | None = None
    missing: Literal["mask", "refuse"] = "mask"
    weight: Literal["sessions", "intervals", "units"] | Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for id in self.weight if isinstance(self.weight, Mapping) else ():
            if "." in id:
                raise UsageError(
                    f"A key of a recipe holds no dot, found a weight for {id!r}. Weigh by "
                    "'sessions', 'intervals' or 'units', or give the loader the weights yourself."
                )


@dataclass(frozen=True)
class Parts:
    """How time is split: a stored split by name, or a function of `neurostore.splits`.

    Parameters
    ----------
    stored : str, optional
        ``"blocks"`` (its newest version) or ``"blocks/v2"``.
    method : str, optional
        Name of the function.
    trials : str, optional
        Interval table with the trials that the function splits.
    arguments : mapping
        The function's own.
    """

    stored: str | None = None
    method: str | None = None
    trials: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.stored is None) == (self.method is None):
            found = "neither" if self.stored is None else f"{self.stored!r} and {self.method!r}"
            raise UsageError(
                "A split is stored (split.stored, its name) or made (split.method, a function of "
                f"neurostore.splits), found {found}."
            )


@dataclass(frozen=True)
class Training:
    """How weights are found.

    Parameters
    ----------
    epochs, batch_size : int
    learning_rate, weight_decay : float
        Of AdamW.
    schedule : {"cosine", "constant"}
        Of the learning rate, over all steps; cosine ends at 0.
    clip : float, optional
        Largest norm of the gradient.
    keep : {"last", "best"}
        The weights that a run ends with: those after the last epoch, or those with the lowest
        loss in validation, of all epochs and of the untrained model.
    threads : int
        Of torch; more of them slow a small model down.
    """

    epochs: int = 20
    batch_size: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: float | None = None
    threads: int = 1
    keep: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"train.{name} is 1 or more, found {getattr(self, name)}.")
        for name in ("learning_rate", "clip"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise UsageError(f"train.{name} is above 0, found {getattr(self, name):g}.")
        if self.weight_decay < 0:
            raise UsageError(f"train.weight_decay is 0 or more, found {self.weight_decay:g}.")


@dataclass(frozen=True)
class Evaluation:
    """How a trained model is scored.

    Parameters
    ----------
    stride : float, optional
        Seconds from one window to the next; the horizon without it.
    label : str
        The part of the split.
    state : str, optional
        A behaviour that tells states apart by being observed or not, for a probe of that alone.
    """

    stride: float | None = None
    label: str = "test"
    state: str | None = None

    def __post_init__(self) -> None:
        if self.stride is not None and self.stride <= 0:
            raise UsageError(f"evaluate.stride is above 0 s, found {self.stride:g}.")


@dataclass(frozen=True)
class Recipe:
    """Everything that a run is made from, apart from the store.

    Attributes
    ----------
    name : str
        Stem of its file.
    architecture : str
        ``"package.module:Class"``.
    arguments : mapping
        Parameters of the class that have a default; the others are bound from the data by name.
    streams : mapping of str to stream
        Every input, by the names of the parameters of ``Class.forward``.
    origins : mapping
        Dotted key → (value, where it was said), for every value.
    """

    name: str
    architecture: str
    window: Window
    streams: Mapping[str, Any]
    split: Parts
    title: str = ""
    citation: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    data: Data = field(default_factory=Data)
    train: Training = field(default_factory=Training)
    evaluate: Evaluation = field(default_factory=Evaluation)
    reference: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    precision: Literal["32-true", "64-true", "bf16-true", "bf16-mixed"] = "32-true"
    origins: Origins = field(default_factory=dict, compare=False, repr=False)

    def values(self) -> dict[str, Any]:
        """Every value by its dotted key."""
        return {key: value for key, (value, _) in self.origins.items()}

    @property
    def digest(self) -> str:
        """sha256 over every value that a run depends on: not its title, citation or reference."""
        return digest(self.values())

    def differs(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """Dotted keys that a run depends on and that are not the same: ours, theirs."""
        ours, theirs = self.values(), other.values()
        keys = [key for key in ours | theirs if key.split(".")[0] not in TEXT]
        return {k: (ours.get(k), theirs.get(k)) for k in keys if ours.get(k) != theirs.get(k)}

    def bin(self) -> float:
        """Seconds of a bin of the stream that is forecast.

        Raises
        ------
        UsageError
            Where no stream of that name has bins.
        """
        found: float | None = getattr(self.streams.get(TARGET), "bin", None)
        if found is None:
            kind = type(self.streams[TARGET]).__name__ if TARGET in self.streams else "none"
            raise UsageError(
                f"Recipe {self.name!r} needs a stream {TARGET!r} of counts in bins "
                f"(kind 'Spikes'), found {kind}."
            )
        return found

    def build(self, *, units: int) -> Any:
        """The untrained model for that many units.

        Raises
        ------
        UsageError
            Where the class is not to be had or refuses its arguments.
        """
        from neurostore.recipes._architecture import architecture, bound

        made = architecture(self.architecture)
        data = {"units": units, "history": self.window.history, "horizon": self.window.horizon}
        if "bin" in (names := bound(made)):
            data["bin"] = self.bin()
        return made(**{name: data[name] for name in names}, **self.arguments)

    def to_json(self) -> dict[str, JSON]:
        """Every value with where it was said; `from_json` gives the recipe back."""
        return {
            "name": self.name,
            "digest": self.digest,
            "values": {key: _jsonable(value) for key, (value, _) in self.origins.items()},
            "origins": {key: origin for key, (_, origin) in self.origins.items()},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_json` wrote; the architecture is not imported.

        Raises
        ------
        UsageError
            Where a value is not what it can be, or not the one that was written.
        """
        from neurostore.recipes._resolve import from_values

        # Over what was written: a later version has values that did not exist then.
        found = digest(document["values"])
        if found != document["digest"]:
            raise UsageError(
                f"The values of recipe {document['name']!r} are not the ones that were written: "
                f"digest {found[:12]}, {document['digest'][:12]} expected."
            )
        return from_values(document["name"], document["values"], document["origins"])

    def show(self) -> Table:
        """A table of key, value and origin, to print with rich."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(self.title or self.name))
        table.add_column("key", no_wrap=True)  # to be copied whole
        for name in ("value", "origin"):
            table.add_column(name, overflow="fold")
        for key, (value, origin) in self.origins.items():
            said = "" if value is None else json.dumps(_jsonable(value), ensure_ascii=False)
            table.add_row(escape(key), escape(said), escape(origin))
        return table


def digest(values: Mapping[str, Any]) -> str:
    """sha256 over the values by dotted key that a run depends on."""
    said = {k: v for k, v in values.items() if k.split(".")[0] not in TEXT}
    text = json.dumps(said, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _jsonable(value: Any) -> JSON:
    if isinstance(value, list | tuple):
        return [_jsonable(one) for one in value]
    if isinstance(value, Mapping):
        return {str(name): _jsonable(one) for name, one in value.items()}
    made: JSON = value
    return made


SECTIONS = ("arguments", "data", "window", "streams", "split", "train", "evaluate", "reference")
TOP = tuple(one.name for one in fields(Recipe) if one.name not in (*SECTIONS, "name", "origins"))
"""Keys that stand in no section."""
