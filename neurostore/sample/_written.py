"""Streams, windows and acquisitions as JSON, and back: values of this package alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from fractions import Fraction
from typing import Any

from neurostore.errors import JSON, StoreError, UsageError
from neurostore.sample.acquisition import All, Staggered, TimeAligned
from neurostore.sample.dropout import UnitDropout
from neurostore.sample.plan import Window
from neurostore.sample.streams import (
    Activity,
    Behaviour,
    Mask,
    Presentation,
    SpikeEvents,
    Spikes,
    Trials,
)
from neurostore.splits import Part, Split

STREAMS = (Activity, Behaviour, Presentation, SpikeEvents, Spikes, Trials)
_KINDS: Mapping[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        *(All, Staggered, TimeAligned, UnitDropout, Window, Mask),
        *STREAMS,
    )
}
"""All that is made by its name: what lies in a bundle is no code."""


def written(value: Any, what: str) -> JSON:
    """A value of a dataset as JSON.

    Raises
    ------
    UsageError
        Where it is code, or a class of another package, naming `what` it is.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Fraction):
        return {"fraction": str(value)}
    if isinstance(value, (list, tuple)):
        return [written(one, what) for one in value]
    if isinstance(value, Mapping):
        made = {str(key): written(one, f"{key!r} of {what}") for key, one in value.items()}
        return {"mapping": made}
    if isinstance(value, Part):
        return {"split": value.split.to_json(), "label": value.label}
    kind = type(value)
    if _KINDS.get(kind.__name__) is kind:
        said = {one.name: written(getattr(value, one.name), what) for one in fields(value)}
        return {"kind": kind.__name__, "fields": said}
    raise UsageError(
        f"{what} is a {kind.__module__}.{kind.__qualname__}, which a bundle cannot hold: it takes "
        "the streams of neurostore and plain values. Leave it out, and add it where the bundle is "
        "opened."
    )


def read(said: Any) -> Any:
    """What `written` wrote; lists come back as tuples.

    Raises
    ------
    StoreError
        Where it names something that is no value of ours.
    """
    try:
        return _read(said)
    except (TypeError, KeyError, AttributeError, ValueError, ZeroDivisionError) as error:
        raise StoreError(f"A bundle describes what no dataset is made of: {error!r}.") from error


def _read(said: Any) -> Any:
    if isinstance(said, list):
        return tuple(_read(one) for one in said)
    if not isinstance(said, dict):
        return said
    if "fraction" in said:
        return Fraction(said["fraction"])
    if "mapping" in said:
        return {key: _read(one) for key, one in said["mapping"].items()}
    if "split" in said:
        return Part(Split.from_json(said["split"]), str(said["label"]))
    kind = _KINDS.get(str(said.get("kind")))
    if kind is None:
        raise StoreError(f"A bundle names {said.get('kind')!r}, which is no value of neurostore.")
    return kind(**{key: _read(one) for key, one in said["fields"].items()})
