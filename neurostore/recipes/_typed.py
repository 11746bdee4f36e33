"""Values that people wrote, against the types that a signature or a dataclass gives them."""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from neurostore.errors import NotFoundError, UsageError

REQUIRED = inspect.Parameter.empty
"""Default of a parameter that has none."""


@dataclass(frozen=True)
class Words:
    """What followed one option of a command line, not typed yet."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)


@dataclass(frozen=True)
class Leaf:
    """One value and the place that said it."""

    value: Any
    origin: str


Tree: TypeAlias = "dict[str, Tree | Leaf]"
Origins: TypeAlias = dict[str, tuple[Any, str]]


@dataclass(frozen=True)
class Parameter:
    """A name that can be set: its type, its default, and what it belongs to."""

    name: str
    annotation: Any
    default: Any
    owner: str


def parameters(of: Callable[..., Any]) -> dict[str, Parameter]:
    """Parameters of a dataclass, of a class's ``__init__`` or of a function.

    Raises
    ------
    UsageError
        Where one takes ``*args`` or ``**kwargs``, or names a type that is not there.
    """
    if dataclasses.is_dataclass(of) and isinstance(of, type):
        return _fields(of)
    function: Any = of.__init__ if isinstance(of, type) else of  # type: ignore[misc]
    owner = f"{of.__name__}.__init__" if isinstance(of, type) else of.__name__
    found = list(inspect.signature(function).parameters.values())
    types = _hints(function, owner)
    made = {}
    for one in found[1:] if isinstance(of, type) else found:
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            raise UsageError(
                f"{owner} takes {one}; what a recipe sets is named in the signature, one by one."
            )
        annotation = types.get(one.name, Any if one.default is REQUIRED else type(one.default))
        made[one.name] = Parameter(one.name, annotation, one.default, owner)
    return made


def _fields(of: type) -> dict[str, Parameter]:
    types, made = _hints(of, of.__name__), {}
    for field in dataclasses.fields(of):
        default: Any = REQUIRED if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        made[field.name] = Parameter(field.name, types[field.name], default, of.__name__)
    return made


def _hints(of: Any, owner: str) -> dict[str, Any]:
    try:
        return get_type_hints(of)
    except NameError as error:
        raise UsageError(
            f"The types of {owner} cannot be read: {error}. Import what they name at run time."
        ) from error


def section(
    tree: Tree, known: Mapping[str, Parameter], at: str, origins: Origins
) -> dict[str, Any]:
    """Every known value of one section, typed; where each came from is added to `origins`.

    Parameters
    ----------
    at : str
        Dotted prefix of the section with its dot, ``"train."``; empty at the top.

    Raises
    ------
    UsageError
        For an unknown key (naming the nearest), a wrong type, or one that nothing sets.
    """
    for name, node in tree.items():
        if name not in known:
            where = origin_of(node)
            raise NotFoundError("key", at + name, [at + one for one in known], where)
    made = {}
    for name, parameter in known.items():
        if name in tree:
            made[name] = typed(tree[name], parameter.annotation, at + name, origins)
        elif parameter.default is REQUIRED:
            raise UsageError(
                f"{at + name} is not set; {parameter.owner} expects "
                f"{described(parameter.annotation)} for it. Set it in the recipe, or with "
                f"--{at + name}."
            )
        else:
            made[name] = _default(parameter, at + name, origins)
    return made


def _default(parameter: Parameter, key: str, origins: Origins) -> Any:
    origin = f"default of {parameter.owner}"
    value = parameter.default
    if isinstance(value, list | tuple):
        value = tuple(value)
    try:
        return typed(Leaf(fit(value, Any), origin), Any, key, origins)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{parameter.owner} has a default for {parameter.name} that no recipe can hold: "
            f"{value!r}. Expected numbers, text, lists and tables."
        ) from error


def origin_of(node: Tree | Leaf) -> str:
    """The place that said a value, or the first value of a table."""
    while isinstance(node, dict):
        if not node:
            return "an empty table"
        node = next(iter(node.values()))
    return node.origin


def typed(node: Tree | Leaf, annotation: Any, key: str, origins: Origins) -> Any:
    """The value of one key as the type it must have.

    Raises
    ------
    UsageError
        Where it is of another type, with what was found and expected.
    """
    if isinstance(node, dict) and _is_table(annotation):
        inner = (get_args(annotation) or (str, Any))[-1]
        if not node:
            origins[key] = ({}, "an empty table")
        return {name: typed(one, inner, f"{key}.{name}", origins) for name, one in node.items()}
    origin = origin_of(node)
    value = _plain(node)
    try:
        made = (
            _spoken(value.words, annotation) if isinstance(value, Words) else fit(value, annotation)
        )
    except UsageError as error:
        raise UsageError(f"{key} in {origin}: {error}") from error
    except (TypeError, ValueError) as error:
        found = f"{value}" if isinstance(value, Words) else f"{value!r}"
        said = f"{key} must be {described(annotation)}, found {found} in {origin}."
        forms = f" {FORMS}" if isinstance(value, Words) and _takes_list(annotation) else ""
        raise UsageError(said + forms) from error
    if isinstance(made, dict) and made:
        origins.update({f"{key}.{name}": (one, origin) for name, one in made.items()})
    else:
        origins[key] = (_as_table(made), origin)
    return made


def _as_table(value: Any) -> Any:
    """A dataclass, or a list of them, as the tables that it was made from."""
    if isinstance(value, tuple):
        return tuple(_as_table(one) for one in value)
    is_record = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return dataclasses.asdict(value) if is_record else value


def _plain(node: Tree | Leaf) -> Any:
    if isinstance(node, Leaf):
        return node.value
    return {name: _plain(one) for name, one in node.items()}


def _takes_list(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return any(_takes_list(one) for one in get_args(annotation))
    return origin in (tuple, list, abc.Sequence)


def _is_table(annotation: Any) -> bool:
    origin = get_origin(annotation) or annotation
    return annotation is Any or origin in (dict, abc.Mapping)


def fit(value: Any, annotation: Any) -> Any:
    """The value as the type; an int for a float is fine, a bool for a number is not.

    Raises
    ------
    TypeError
        Where it does not fit.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        json.dumps(value, allow_nan=False)
        return value
    if origin in (Union, UnionType):
        return _first([lambda one=one: fit(value, one) for one in inner])  # type: ignore[misc]
    if origin is Literal:
        return _first([lambda one=one: _same(value, one) for one in inner])  # type: ignore[misc]
    if origin in (tuple, list, abc.Sequence):
        return _sequence(value, origin, inner)
    if _is_table(annotation) and isinstance(value, dict):
        each = (inner or (str, Any))[-1]
        return {
            str(name): _spoken(one.words, each) if isinstance(one, Words) else fit(one, each)
            for name, one in value.items()
        }
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return _record(value, annotation)
    return _scalar(value, annotation)


def _record(value: Any, annotation: type) -> Any:
    """A dataclass from a table of its fields."""
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no table")
    known = parameters(annotation)
    if not set(value) <= set(known):
        raise NotFoundError("key", next(iter(set(value) - set(known))), known, annotation.__name__)
    said = {
        name: _spoken(one.words, known[name].annotation)
        if isinstance(one, Words)
        else fit(one, known[name].annotation)
        for name, one in value.items()
    }
    return annotation(**said)


def _scalar(value: Any, annotation: Any) -> Any:
    if annotation in (None, NoneType) and value is None:
        return None
    if annotation is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if annotation in (bool, int, str) and type(value) is annotation:
        return value
    raise TypeError(f"{value!r} is not {described(annotation)}")


def _sequence(value: Any, origin: Any, inner: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{value!r} is no list")
    each = _each(origin, inner, len(value))
    return tuple(fit(one, kind) for one, kind in zip(value, each, strict=True))


def _each(origin: Any, inner: tuple[Any, ...], count: int) -> list[Any]:
    """The type of each of `count` items."""
    if origin is tuple and not (len(inner) == 2 and inner[1] is Ellipsis):
        if len(inner) != count:
            raise TypeError(f"{count} items, {len(inner)} expected")
        return list(inner)
    return [inner[0] if inner else Any] * count


def _same(value: Any, one: Any) -> Any:
    if type(value) is not type(one) or value != one:
        raise TypeError(f"{value!r} is not {one!r}")
    return one


def _first(ways: list[Callable[[], Any]]) -> Any:
    """What the first way that works gives."""
    for way in ways[:-1]:
        try:
            return way()
        except UsageError:
            raise
        except (TypeError, ValueError):
            continue
    return ways[-1]()


def _spoken(words: tuple[str, ...], annotation: Any) -> Any:
    """The words behind an option as the type."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):  # "none" is said for None alone
        arms = sorted(inner, key=lambda one: one is not NoneType)
        return _first([lambda one=one: _spoken(words, one) for one in arms])  # type: ignore[misc]
    if origin is Literal:
        said = {str(one): one for one in inner}
        return said[words[0]] if len(words) == 1 and words[0] in said else _no(words)
    if origin in (tuple, list, abc.Sequence):
        return _listed(words, annotation)
    if _is_table(annotation) and annotation is not Any:
        pairs = [word.split("=", 1) for word in words]
        return {name: _spoken((word,), (inner or (str, Any))[-1]) for name, word in pairs}
    if len(words) != 1:
        return _no(words)
    return _word(words[0], annotation)


FORMS = "Say a list as words (1 2), with commas (1,2) or as JSON ([1, 2])."


def _listed(words: tuple[str, ...], annotation: Any) -> tuple[Any, ...]:
    """A list in one of the `FORMS`."""
    if words[0].startswith("["):
        found: tuple[Any, ...] = fit(json.loads(" ".join(words)), annotation)
        return found
    parts = [part for word in words for part in word.removesuffix(",").split(",")]
    each = _each(get_origin(annotation), get_args(annotation), len(parts))
    return tuple(_spoken((part,), kind) for part, kind in zip(parts, each, strict=True))


def _word(word: str, annotation: Any) -> Any:
    if annotation in (str, Any):
        return word
    if annotation in (None, NoneType):
        return None if word == "none" else _no((word,))
    if annotation is bool:
        return {"true": True, "false": False}[word] if word in ("true", "false") else _no((word,))
    if annotation in (int, float):
        return fit(annotation(word), annotation)
    return _no((word,))


def _no(words: tuple[str, ...]) -> Any:
    raise TypeError(f"{' '.join(words)!r} does not fit")


_SAID = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}


def described(annotation: Any) -> str:
    """A type in words: ``a list of numbers``."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in (None, NoneType):
        return "none"
    if origin in (Union, UnionType):
        if int in inner and float in inner:
            inner = (float, *(one for one in inner if one not in (int, float)))
        return " or ".join(described(one) for one in inner)
    if origin is Literal:
        return "one of " + ", ".join(repr(one) for one in inner)
    if origin in (tuple, list, abc.Sequence):
        each = [one for one in inner if one is not Ellipsis]
        if origin is tuple and Ellipsis not in inner:
            return f"a list of {len(each)}: " + ", ".join(described(one) for one in each)
        return f"a list, each {described(each[0])}" if each else "a list"
    if annotation is Any:
        return "a number, text, a list or a table"
    if _is_table(annotation):
        return "a table"
    if dataclasses.is_dataclass(annotation):
        return "a table of " + ", ".join(one.name for one in dataclasses.fields(annotation))
    return _SAID.get(annotation, getattr(annotation, "__name__", str(annotation)))
