"""What a target is (a store, a file, a contract, a card, a recipe), and the checks of each."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import neurostore
from neurostore.cli._checks._said import Checked
from neurostore.errors import (
    Finding,
    MissingExtraError,
    NeurostoreError,
    RefusedError,
    Severity,
    StoreError,
    UsageError,
)
from neurostore.store import Fault

CARD = ("title", "licence", "citation")
"""What a card says in any case."""
CARD_KEYS = {
    *CARD,
    *("description", "authors", "doi", "url"),
    *("species", "source", "reader", "tables", "splits", "faults", "notes"),
}
_WORDS = {"string", "bool", "number"}


def check_target(
    target: str,
    sessions: Sequence[str] = (),
    at: str | None = None,
    dataset: str | None = None,
    validate: Callable[[neurostore.Store, Sequence[str]], dict[str, list[Finding]]] | None = None,
) -> Checked:
    """Everything that is wrong with a target.

    Parameters
    ----------
    sessions, at
        Of a store: some sessions, at a tag or snapshot.
    dataset : str, optional
        Of a file, as `neurostore ingest` takes it.
    validate : callable, optional
        Validates sessions of a store, with a progress bar.
    """
    path = Path(target)
    if path.suffix == ".toml" and not (path / "refs").is_dir():
        return _declaration(target, path)
    if path.is_file() or path.suffix.lower() == ".nwb":
        return Checked(target, "file", (), tuple(_file(target, dataset)))
    return _store(target, sessions, at, validate)


def _fault(
    path: str, check: str, message: str, severity: Severity = "critical", hint: str = ""
) -> Fault:
    return Fault(path, Finding(check, severity, "", "", message.rstrip(".")), hint)


# ---- stores and files


def _store(
    target: str,
    sessions: Sequence[str],
    at: str | None,
    validate: Callable[[neurostore.Store, Sequence[str]], dict[str, list[Finding]]] | None,
) -> Checked:
    store = neurostore.open(target, at)
    wanted = list(sessions) or [str(row["id"]) for row in store.rows]
    run = validate or (lambda store, ids: store.validate(ids))
    found = run(store, wanted)
    found |= {} if sessions else store.validate_splits() | store.validate_stimuli()
    hint = "See what is damaged, and the way out: neurostore verify " + target
    faults = [
        Fault(id, one, hint if one.check.startswith("store/") else "")
        for id, findings in found.items()
        for one in findings
    ]
    kept = [one for id in wanted for one in _kept(store.session(id), found.get(id, []))]
    return Checked(target, "store", tuple(found), (*faults, *kept), tuple(kept))


def _kept(session: neurostore.Session, found: Sequence[Finding]) -> Iterator[Fault]:
    """What was found when its tables were read or made, and is not found in them as they are."""
    said = {(one.check, one.table, one.variable) for one in found}
    for one in session.findings:
        if (one.check, one.table, one.variable) not in said:
            yield Fault(session.id, one)


def _file(target: str, dataset: str | None) -> Iterator[Fault]:
    """What a reader and both gates say of a file; nothing is written."""
    from neurostore.ingest import reader_for
    from neurostore.store import check

    sessions: list[str] = []
    try:
        reader = reader_for(target, dataset)
        sessions = reader.sessions()
    except (MissingExtraError, StoreError):
        raise
    except NeurostoreError as error:
        yield from _refused(target, error)
        return
    for session in sessions:
        try:
            builder = reader.read(session)
            staged = builder.build()
            yield from (Fault(staged.id, one) for one in check(staged))
        except (MissingExtraError, StoreError):
            raise
        except NeurostoreError as error:
            yield from _refused(target, error)
        except Exception as error:  # whatever a reader meets in a file is a fault of the file
            line = f"its reader failed: {type(error).__name__}: {error}".split("\n")[0]
            yield _fault(target, "file/refused", line)


def _refused(target: str, error: NeurostoreError) -> Iterator[Fault]:
    findings = error.findings if isinstance(error, RefusedError) else []
    yield from (Fault(target, one) for one in findings)
    if not any(one.severity == "critical" for one in findings):
        yield _fault(target, "file/refused", error.line)


# ---- declarations


def _declaration(target: str, path: Path) -> Checked:
    if not path.is_file():
        raise neurostore.NotFoundError("file", target, map(str, path.parent.glob("*.toml")))
    try:
        tree: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        kind = _kind(path, {})
        check = "recipe/invalid" if kind == "recipe" else f"{kind}/toml"
        return Checked(target, kind, (), (_fault(target, check, f"no TOML: {error}"),))
    kind = _kind(path, tree)
    checks = {"contract": _contract, "recipe": _recipe, "card": _card}[kind]
    return Checked(target, kind, (), tuple(checks(target, path, tree)))


def _kind(path: Path, tree: dict[str, Any]) -> str:
    """By what it says, else by where it lies."""
    if "columns" in tree or "digests" in tree:
        return "contract"
    if "architecture" in tree or "streams" in tree:
        return "recipe"
    if re.fullmatch(r"(v\d+|frozen)\.toml", path.name):
        return "contract"
    by_place = {"schemas": "contract", "models": "recipe", "catalog": "card"}
    for parent in path.absolute().parents:
        if parent.name in by_place:
            return by_place[parent.name]
    return "card"


def _contract(target: str, path: Path, tree: dict[str, Any]) -> Iterator[Fault]:
    from neurostore.schemas import frozen, parse

    if "digests" in tree:
        yield from _frozen_file(target, path, tree["digests"])
        return
    try:
        made = parse(path.read_text("utf-8"))
    except NeurostoreError as error:
        yield _fault(target, "contract/toml", error.line)
        return
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        line = f"it is not in the language of contracts: {type(error).__name__}: {error}"
        yield _fault(target, "contract/toml", line)
        return
    if path.name != f"v{made.version}.toml" or path.absolute().parent.name != made.table:
        line = f"it is the contract {made.id} and belongs at {made.table}/v{made.version}.toml"
        yield _fault(target, "contract/place", line)
    known = frozen().get(made.id)
    if known is not None and known != made.digest:
        hint = f"Write v{made.version + 1}.toml beside it."
        line = f"the frozen contract {made.id} was changed: its digest is {made.digest}"
        yield _fault(target, "contract/frozen", line, hint=hint)
    if known is None and made.status == "frozen":
        yield _fault(target, "contract/unfrozen", f"{made.id} has no digest in frozen.toml")
    yield from _language(target, made)


def _language(target: str, made: neurostore.Contract) -> Iterator[Fault]:
    """Rules, links, dtypes and severities that nothing knows."""
    from neurostore.cli._checks._rules import SEVERITIES
    from neurostore.schemas import column_rules, contracts, is_dtype, table_rules

    names = {one.table for one in contracts().values()}
    wrong = [
        (name, f"the rule {rule.rule!r}")
        for name, said in made.columns.items()
        for rule in said.rules
        if rule.rule not in column_rules()
    ]
    wrong += [
        ("the table", f"the rule {r.rule!r}") for r in made.rules if r.rule not in table_rules()
    ]
    rules = [*made.rules, *(rule for said in made.columns.values() for rule in said.rules)]
    wrong += [
        ("a rule", f"the severity {r.severity!r}") for r in rules if r.severity not in SEVERITIES
    ]
    for name, said in made.columns.items():
        if said.link and said.link not in names:
            wrong.append((name, f"a link to {said.link!r}"))
        for word in said.dtype:
            if word not in _WORDS and not is_dtype(word, "number"):
                wrong.append((name, f"the dtype {word!r}"))
        if not said.title:
            line = f"the column {name!r} of {made.id} has no title"
            yield _fault(target, "contract/title", line, "suggestion")
    for name, what in wrong:
        yield _fault(target, "contract/rule", f"{name} of {made.id} says {what}, which is unknown")


def _frozen_file(target: str, path: Path, digests: dict[str, str]) -> Iterator[Fault]:
    """Every contract that was frozen is there, beside the file of digests, as it was."""
    from neurostore.schemas import parse

    for id, digest in digests.items():
        file = path.parent / f"{id}.toml"
        if not file.is_file():
            hint = f"Bring {file} back: stores that hold such tables are read for ever."
            yield _fault(target, "contract/deleted", f"{id} was frozen and is gone", hint=hint)
        elif (found := parse(file.read_text("utf-8")).digest) != digest:
            yield _fault(str(file), "contract/frozen", f"{id} was changed: its digest is {found}")


def _card(target: str, path: Path, tree: dict[str, Any]) -> Iterator[Fault]:
    from neurostore.schemas import contracts
    from neurostore.store.release._described import read_card

    try:
        read_card(path.stem, 0, path.read_text("utf-8"))
    except UsageError as error:
        yield _fault(target, "card/toml", error.line)
    if unknown := sorted(set(tree) - CARD_KEYS):
        line = f"unknown {unknown[0]!r}; a card says {', '.join(sorted(CARD_KEYS))}"
        yield _fault(target, "card/toml", line)
    for key in CARD:
        if not str(tree.get(key, "")).strip():
            yield _fault(target, "card/missing", f"the card does not say its {key}", "violation")
    tables = tree.get("tables", {})
    named = tables.values() if isinstance(tables, dict) else tables
    for one in named:
        if str(one) not in contracts():
            line = f"it gives tables of the contract {one!r}, which is not declared"
            yield _fault(target, "card/contract", line)


def _recipe(target: str, path: Path, tree: dict[str, Any]) -> Iterator[Fault]:
    """Loaded as training loads it; an architecture of another package is not imported."""
    from neurostore.recipes import load

    name = str(tree.get("architecture", ""))
    if name and not name.startswith("neurostore."):
        line = f"the architecture {name!r} is of another package, which is not imported here"
        yield _fault(target, "recipe/architecture", line, "violation", "Train it to check it.")
        return
    try:
        load(path)
    except MissingExtraError:
        raise
    except UsageError as error:
        yield _fault(target, "recipe/invalid", error.line)
