"""Columns as people have them (lists, pandas, masked, with None) as arrays that can be stored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurostore.clocks import as_seconds
from neurostore.errors import UsageError
from neurostore.schemas import JSON, Column, ColumnSpec, Values, contract, is_dtype

_STRING = np.dtypes.StringDType()


# ---- text and attributes


def text(value: object, what: str) -> str:
    """A name or a description: text that can be written as UTF-8; None is the empty one.

    Raises
    ------
    UsageError
        Where it is something else, or holds half a character.
    """
    said = "" if value is None else value
    if isinstance(said, bytes):
        said = said.decode("utf-8", "replace")
    if not isinstance(said, str):
        raise UsageError(f"{what} must be text, found {type(value).__name__}.")
    try:
        said.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} is no valid text: {said!r:.100}.") from error
    return str(said)


def strings(values: Iterable[object]) -> NDArray[Any]:
    """Anything text-like as a numpy string array; None, NaN and NaT become the empty string."""
    texts = ["" if _absent(value) else _cell(value) for value in values]
    return np.array(texts, dtype=_STRING)


def _cell(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value).encode("utf-8", "replace").decode()


def _absent(value: object) -> bool:
    if isinstance(value, float | np.floating):
        return bool(value != value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def as_json(value: object, what: str) -> JSON:
    """A value of an attribute as plain JSON: numpy's numbers and arrays too, NaN and ±inf as None.

    Raises
    ------
    UsageError
        Where it has no JSON.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.astype(str).tolist() if value.dtype.kind in "Mm" else value.tolist()
    if _absent(value) or value is None:
        return None
    if isinstance(value, Mapping):
        return {
            text(str(key), what): as_json(one, f"{what}[{key!r}]") for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [as_json(one, what) for one in value]
    if isinstance(value, date):  # date-times too
        return value.isoformat()
    if isinstance(value, str | bytes):
        return _cell(value)
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    raise UsageError(
        f"{what} must be text, numbers, or lists and mappings of them, found {value!r}."
    )


# ---- columns of rows


def times(values: ArrayLike, where: str, column: str) -> NDArray[np.float64]:
    """Seconds (n,) float64; one number is one row.

    Raises
    ------
    UsageError
        Where they are no numbers, or have more than one dimension.
    """
    made = np.atleast_1d(as_seconds(values, f"{where}: {column!r}"))
    if made.ndim != 1:
        raise UsageError(f"{where}: {column!r} has one dimension, found {made.shape}.")
    return made


def same_length(where: str, column: str, found: int, expected: int) -> None:
    """Raise `UsageError` where a column has another number of rows than its table."""
    if found != expected:
        raise UsageError(f"{where}: {column!r} has {found:,} rows, the table has {expected:,}.")


def columns(
    kind: str, rows: int, given: Mapping[str, object], where: str, taken: Collection[str] = ()
) -> dict[str, Column]:
    """The columns of a source, in the dtypes and units of the contract of `kind` where it has them.

    `taken` are the names that the table fills by itself.
    """
    spec, made = contract(kind), {}
    for name, values in given.items():
        text(name, f"{where}: the name of a column")
        if not name or name in taken or name == spec.dim:
            raise UsageError(f"{where}: the name {name!r} is the store's own; rename the column.")
        array = cells(values, where, name)
        same_length(where, name, len(array), rows)
        said = spec.columns.get(name)
        dims = (spec.dim, *(f"{name}_{k}" for k in range(1, array.ndim)))
        attrs: dict[str, JSON] = {}
        if said is not None:
            array = _declared(array, said, where)
            attrs = {"units": said.units} if said.units else {}
            dims = said.all_dims[: array.ndim] if array.ndim <= len(said.all_dims) else dims
        made[name] = Column(dims, array, attrs)
    return made


def cells(values: object, where: str, name: str) -> NDArray[Any]:
    """One value (or array) a row: numbers, bools or text, in a dtype that is stored.

    Missing numbers are NaN, missing text is empty.
    """
    array = _array(values, where, name)
    if not array.ndim:
        raise UsageError(f"{where}: {name!r} needs one value a row, found one in all.")
    if array.dtype.kind in "OUST":
        if array.ndim != 1:
            raise UsageError(f"{where}: {name!r} is text of {array.ndim} dimensions, expected one.")
        return _numbers_or_text(np.asarray(values, dtype=object), where, name)
    if array.dtype.kind == "M":
        return strings("" if one == "NaT" else one for one in np.datetime_as_string(array))
    if array.dtype.kind not in "iufb":
        raise UsageError(f"{where}: {name!r} holds {array.dtype}, not numbers, bools or text.")
    return array.astype(_stored(array.dtype), copy=False)


def _array(values: object, where: str, name: str) -> NDArray[Any]:
    if np.ma.isMaskedArray(values):
        masked = np.ma.asarray(values)
        if not np.ma.is_masked(masked):
            return np.asarray(masked.data)
        if masked.dtype.kind != "f":
            raise UsageError(f"{where}: {name!r} masks values of {masked.dtype}, which has no NaN.")
        return np.asarray(masked.filled(np.nan))
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{where}: {name!r} is no array: {reason}") from error


def _numbers_or_text(objects: NDArray[Any], where: str, name: str) -> NDArray[Any]:
    nested = [one for one in objects if isinstance(one, Collection) and not _is_text(one)]
    if nested:
        found = type(nested[0]).__name__
        raise UsageError(f"{where}: {name!r} holds a {found} in a row, expected one value.")
    there = [one for one in objects if not _absent(one)]
    if there and not any(_is_text(one) for one in there):
        numbers = np.asarray([np.nan if _absent(one) else one for one in objects])
        if numbers.dtype.kind in "iufb":
            return numbers.astype(_stored(numbers.dtype), copy=False)
    return strings(objects)


def _is_text(value: object) -> bool:
    return isinstance(value, str | bytes)


def _stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The nearest dtype that is stored: at most 64 bits, in the byte order of the machine."""
    if dtype.kind == "f" and dtype.itemsize > 8:
        return np.dtype(np.float64)
    return dtype.newbyteorder("=")


def _declared(array: NDArray[Any], said: ColumnSpec, where: str) -> NDArray[Any]:
    """In a dtype the contract names, if no value changes by it; else as it is, for the layout."""
    if any(is_dtype(array.dtype, name) for name in said.dtype) or array.ndim > len(said.all_dims):
        return array
    if said.dtype == ("string",):
        return strings(array) if array.ndim == 1 else array
    wanted = np.dtype(said.dtype[0])
    if array.dtype.kind == "T" and wanted.kind == "f" and (array == "").all():
        return np.full(array.shape, np.nan, wanted)
    if array.dtype.kind == "T":
        raise UsageError(f"{where}: {said.name!r} holds text, expected {wanted}.")
    target = wanted if len(said.dtype) == 1 else np.result_type(array.dtype, wanted)
    with np.errstate(invalid="ignore"):
        made = array.astype(target)
    if not np.array_equal(made, array, equal_nan=True):
        row = int(np.argmin(made == array))
        raise UsageError(
            f"{where}: {said.name!r} is {array[row]} in row {row}, which is no {target}."
        )
    return made


# ---- samples


@dataclass(frozen=True, eq=False)
class Lazy:
    """Samples read in another dtype or order of rows, piece by piece."""

    values: Values
    dtype: np.dtype[Any]
    order: NDArray[np.int64] | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """As what it reads."""
        return self.values.shape

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if self.order is None:
            return np.asarray(self.values[key]).astype(self.dtype, copy=False)
        rows = self.order[key]
        if not len(rows):
            return np.asarray(self.values[:0]).astype(self.dtype, copy=False)
        low, high = int(rows.min()), int(rows.max()) + 1
        run: NDArray[Any] = np.asarray(self.values[low:high])[rows - low]
        return run.astype(self.dtype, copy=False)


def samples(value: Any, where: str) -> Values:
    """Samples (time,) or (time, channel) in a dtype that is stored; lazy where they were."""
    if not _sliceable(value):
        value = _array(value, where, "value")
    if value.shape is None or len(value.shape) not in (1, 2):
        raise UsageError(
            f"{where} needs samples (time,) or (time, channel), found the shape {value.shape}."
        )
    dtype = np.dtype(np.uint8) if value.dtype == bool else value.dtype
    dtype = _stored(dtype) if dtype.kind in "iuf" else dtype
    if dtype == value.dtype:
        made: Values = value
        return made
    return value.astype(dtype) if isinstance(value, np.ndarray) else Lazy(value, dtype)


def _sliceable(value: Any) -> bool:
    """Whether it can stay as it is: it has a shape and numpy's dtype and is sliced by position."""
    lazy = hasattr(value, "shape") and isinstance(getattr(value, "dtype", None), np.dtype)
    return lazy and not hasattr(value, "iloc") and not np.ma.isMaskedArray(value)


def in_order(values: Values, order: NDArray[np.int64]) -> Values:
    """Rows of samples in another order; lazy ones stay lazy."""
    if isinstance(values, np.ndarray):
        made: Values = values[order]
        return made
    return Lazy(values, values.dtype, order)


def mask(valid: ArrayLike, rows: int, where: str) -> NDArray[np.bool_]:
    """Which rows are valid (n,) bool; 0 and 1 will do."""
    made = _array(valid, where, "valid")
    if made.ndim != 1 or not (made.dtype == bool or (made.dtype.kind in "iuf" and _binary(made))):
        raise UsageError(f"{where}: 'valid' must be True or False a row, found {made.dtype}.")
    same_length(where, "valid", len(made), rows)
    return made.astype(bool)


def _binary(values: NDArray[Any]) -> bool:
    return bool(((values == 0) | (values == 1)).all())


__all__ = [
    "Lazy",
    "as_json",
    "cells",
    "columns",
    "in_order",
    "mask",
    "same_length",
    "samples",
    "strings",
    "text",
    "times",
]
