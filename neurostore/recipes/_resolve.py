"""From a file and overrides to a recipe: every key known, every value typed, every name found."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args

from neurostore import _declared
from neurostore.errors import NotFoundError, UsageError
from neurostore.recipes._architecture import as_said, check, settable
from neurostore.recipes._recipe import (
    SECTIONS,
    TOP,
    Data,
    Evaluation,
    Parts,
    Recipe,
    Training,
)
from neurostore.recipes._typed import (
    Leaf,
    Origins,
    Parameter,
    Tree,
    Words,
    origin_of,
    parameters,
    section,
    typed,
)
from neurostore.sample import Acquisition, All, Window

COMMAND_LINE = "command line"


def load(name_or_path: str | Path, *overrides: Sequence[str] | Mapping[str, Any]) -> Recipe:
    """A bundled recipe by its name, or one of your own by its path.

    Parameters
    ----------
    *overrides : sequence of str or mapping
        Later ones win: words of a command line, ``["--train.epochs", "3"]``, or values by dotted
        key, ``{"train.epochs": 3}``.

    Returns
    -------
    Recipe
        Every value typed, with its origin.

    Raises
    ------
    NotFoundError
        No recipe, key, method, kind or class of that name; with the nearest one.
    UsageError
        A value of the wrong type, or streams that are not what the architecture takes.
    """
    path, said = _find(name_or_path)
    try:
        tree = _tree(tomllib.loads(path.read_text(encoding="utf-8")), said)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{said} is no TOML: {error}.") from error
    for one in overrides:
        _override(tree, _options(one))
    return check(_settle(path.stem, tree, resolve=True), said)


def _find(name_or_path: str | Path) -> tuple[Path, str]:
    path = Path(name_or_path)
    if path.suffix == ".toml" or len(path.parts) > 1:
        if not path.is_file():
            raise NotFoundError("recipe", str(path), map(str, path.parent.glob("*.toml")))
        return path, str(path)
    bundled = {one.stem: one for one in _declared.declared("models")}
    if str(name_or_path) not in bundled:
        raise NotFoundError("recipe", str(name_or_path), bundled, "the bundled ones")
    found = bundled[str(name_or_path)]
    return found, f"models/{found.name}"


def _tree(table: Mapping[str, Any], origin: str) -> Tree:
    for name in table:
        if "." in name:
            raise UsageError(f"A key of a recipe holds no dot, found {name!r} in {origin}.")
    return {
        name: _tree(value, origin) if isinstance(value, dict) else Leaf(value, origin)
        for name, value in table.items()
    }


def _options(overrides: Sequence[str] | Mapping[str, Any]) -> dict[str, Leaf]:
    """Overrides by dotted key, not typed yet."""
    if isinstance(overrides, Mapping):
        return {key: Leaf(value, "overrides") for key, value in overrides.items()}
    found: dict[str, list[str]] = {}
    key = ""
    for word in overrides:
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            key = key.replace("-", "_")
            if key in found:
                raise UsageError(f"--{key} is given twice on the command line.")
            found[key] = [value] if equals else []
        elif not key:
            raise UsageError(
                f"An override is --section.key value, found {word!r} before any --key."
            )
        else:
            found[key].append(word)
    for key, words in found.items():
        if not words:
            raise UsageError(f"--{key} on the command line has no value behind it.")
    return {key: Leaf(Words(tuple(words)), COMMAND_LINE) for key, words in found.items()}


CHOICES = {"split": ("stored", "method"), "streams": ("kind",), "data": ("kind",)}
"""Keys that choose what the rest of their table means."""


def _override(tree: Tree, options: Mapping[str, Leaf]) -> None:
    """Set options in the tree; another choice drops what belonged to the former."""
    for key, leaf in options.items():
        first, *_ = names = key.split(".")
        if len(names) > 1 and names[-1] in CHOICES.get(first, ()):
            above = _walk(tree, names[:-1])
            if _other(above, names[-1], leaf):
                above.clear()
    for key, leaf in options.items():
        names = key.split(".")
        _walk(tree, names[:-1])[names[-1]] = leaf


def _other(table: Tree, name: str, leaf: Leaf) -> bool:
    """Whether the option is not what the file already says."""
    now = table.get(name)
    said = str(leaf.value)
    return not (isinstance(now, Leaf) and str(now.value) == said)


def _walk(tree: Tree, names: Sequence[str]) -> Tree:
    for at, name in enumerate(names):
        inner = tree.setdefault(name, {})
        if isinstance(inner, Leaf):
            raise NotFoundError("section", ".".join(names[: at + 1]), SECTIONS, COMMAND_LINE)
        tree = inner
    return tree


def from_values(name: str, values: Mapping[str, Any], origins: Mapping[str, str]) -> Recipe:
    """A recipe from values by dotted key; nothing is imported for its architecture."""
    tree: Tree = {}
    for key, value in values.items():
        above, leaf = key.rpartition(".")[::2]
        empty = value == {}
        _walk(tree, above.split(".") if above else [])[leaf] = (
            {} if empty else Leaf(value, origins[key])
        )
    return _settle(name, tree, resolve=False)


def _settle(name: str, tree: Tree, *, resolve: bool) -> Recipe:
    """Type every section; arguments by the architecture's own signature where it is resolved."""
    origins: Origins = {}
    for key, node in tree.items():
        if key not in (*TOP, *SECTIONS):
            raise NotFoundError("key", key, [*TOP, *SECTIONS], origin_of(node))
    top = section(_only(tree, TOP), _known(Recipe, TOP), "", origins)
    tables = {one: _table(tree, one) for one in SECTIONS}
    known = settable(top["architecture"]) if resolve else as_said(tables["arguments"])
    arguments = section(tables["arguments"], known, "arguments.", origins)
    plain: dict[str, Any] = {
        "data": _data(tables["data"], origins),
        "window": Window(**section(tables["window"], parameters(Window), "window.", origins)),
        "streams": {one: _stream(tables["streams"], one, origins) for one in tables["streams"]},
        "split": _parts(tables["split"], origins),
        "train": Training(**section(tables["train"], parameters(Training), "train.", origins)),
        "evaluate": Evaluation(
            **section(tables["evaluate"], parameters(Evaluation), "evaluate.", origins)
        ),
    }
    reference = typed(tables["reference"], Mapping[str, Any], "reference", origins)
    return Recipe(name, arguments=arguments, reference=reference, origins=origins, **top, **plain)


def _only(tree: Tree, names: Sequence[str]) -> Tree:
    return {name: tree[name] for name in names if name in tree}


def _known(of: Callable[..., Any], names: Sequence[str]) -> dict[str, Parameter]:
    found = parameters(of)
    return {name: found[name] for name in names}


def _table(tree: Tree, name: str) -> Tree:
    found = tree.get(name, {})
    if isinstance(found, Leaf):
        raise UsageError(f"{name} must be a table, found {found.value!r} in {found.origin}.")
    return found


def _data(table: Tree, origins: Origins) -> Data:
    known, at = parameters(Data), "data."
    for name, node in table.items():
        if name not in known:
            raise NotFoundError("key", at + name, [at + one for one in known], origin_of(node))
    plain = {name: one for name, one in known.items() if name != "acquisition"}
    own = section(_only(table, list(plain)), plain, at, origins)
    return Data(**own, acquisition=_acquisition(table, origins))


def _acquisition(data: Tree, origins: Origins) -> Acquisition:
    at, kinds = "data.acquisition.", {one.__name__: one for one in get_args(Acquisition)}
    if "acquisition" not in data:
        origins[at + "kind"] = (All.__name__, "default of Data")
        return All()
    node = data["acquisition"]
    if isinstance(node, Leaf):
        raise UsageError(
            f"data.acquisition is a table with a kind ({', '.join(kinds)}), found {node.value!r} "
            f"in {node.origin}."
        )
    table = dict(node)
    if "kind" not in table:
        raise UsageError(f"{at}kind is not set: one of {', '.join(kinds)}.")
    where = origin_of(table["kind"])
    kind = typed(table.pop("kind"), str, at + "kind", origins)
    if kind not in kinds:
        raise NotFoundError("kind of acquisition", kind, kinds, at + "kind")
    said = section(table, parameters(kinds[kind]), at, origins)
    try:
        made: Acquisition = kinds[kind](**said)
    except UsageError as error:
        raise UsageError(f"data.acquisition in {where}: {error}") from error
    return made


def _stream(streams: Tree, name: str, origins: Origins) -> Any:
    at, table = f"streams.{name}.", dict(_table(streams, name))
    kinds = _kinds()
    if "kind" not in table:
        raise UsageError(f"{at}kind is not set: the class of the stream, {', '.join(kinds)}.")
    kind = typed(table.pop("kind"), str, at + "kind", origins)
    if kind not in kinds:
        raise NotFoundError("kind of stream", kind, kinds, at + "kind")
    return kinds[kind](**section(table, parameters(kinds[kind]), at, origins))


def _kinds() -> dict[str, Any]:
    """Streams that `neurostore.sample` offers, by class name."""
    from neurostore import sample

    found = {name: getattr(sample, name) for name in sample.__all__}
    return {k: v for k, v in found.items() if is_dataclass(v) and hasattr(v, "open")}


def methods() -> dict[str, Callable[..., Any]]:
    """Functions of `neurostore.splits` that make a split from timelines, by name."""
    from neurostore import splits

    found = {name: getattr(splits, name) for name in splits.__all__}
    return {
        name: one
        for name, one in found.items()
        if inspect.isfunction(one) and list(inspect.signature(one).parameters)[1:2] == ["timelines"]
    }


def _parts(table: Tree, origins: Origins) -> Parts:
    fields = _known(Parts, ("stored", "method", "trials"))
    own = section(_only(table, list(fields)), fields, "split.", origins)
    rest = {name: node for name, node in table.items() if name not in fields}
    known: dict[str, Parameter] = {}
    if own["method"] is not None:
        if own["method"] not in (offered := methods()):
            raise NotFoundError("method of splitting", own["method"], offered, "split.method")
        found = parameters(offered[own["method"]])
        known = {name: one for name, one in found.items() if name not in ("name", "timelines")}
    for name in rest:
        if name not in known:
            among = [f"split.{one}" for one in (*fields, *known)]
            raise NotFoundError("key", f"split.{name}", among, origin_of(rest[name]))
    return Parts(**own, arguments=section(rest, known, "split.", origins))
