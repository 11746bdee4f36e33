"""Names, ticks and JSON of a split as people give them, and the lines in which they read them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from neurostore.errors import JSON, UsageError, counted
from neurostore.intervals import Ticks

_VERSION = re.compile(r"v\d+")


def check_name(name: str, what: str) -> None:
    """Refuse a name that cannot be told from a path or a version."""
    if not name or "/" in name or not name.isprintable() or _VERSION.fullmatch(name):
        raise UsageError(
            f"{what} needs a name without slashes that is no version: 'blocks' or 'train', found "
            f"{name!r}."
        )


def as_ticks(values: Any, name: str) -> Ticks:
    """(row,) integers as int64; refused where they are none."""
    array = np.asarray(values)
    if array.ndim != 1 or (len(array) and array.dtype.kind not in "iu"):
        raise UsageError(
            f"{name} of a split must be (row,) integer ticks, found {array.dtype} of shape "
            f"{array.shape}."
        )
    return array.astype(np.int64)


def as_json(definition: Mapping[str, JSON], name: str) -> dict[str, JSON]:
    """The definition as JSON gives it back."""
    try:
        made: dict[str, JSON] = json.loads(json.dumps(dict(definition), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"The definition of split {name!r} is no JSON: {error}.") from error
    return made


def settings(definition: Mapping[str, JSON]) -> str:
    """A definition in one line: the function, then its arguments."""
    said = [
        f"{key} {_short(value)}"
        for key, value in definition.items()
        if key not in ("sessions", "made_by") and value != []
    ]
    return f"{definition.get('made_by', 'by hand')}  {', '.join(said)}".rstrip()


def size(lengths: Sequence[tuple[int, Fraction | None]]) -> tuple[str, str]:
    """How many rows, and how long together; a row is (ticks, ticks a second where known)."""
    seconds = sum(Fraction(ticks) / (rate or 1) for ticks, rate in lengths)
    known = all(rate for _, rate in lengths)
    long = f"{float(seconds):,.1f} s" if known else f"{sum(n for n, _ in lengths):,} ticks"
    return counted(len(lengths), "row"), long


def _short(value: JSON) -> str:
    if isinstance(value, list) and value and all(isinstance(one, list) for one in value):
        return " : ".join(
            " ".join(str(part) for part in one) for one in value if isinstance(one, list)
        )
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
