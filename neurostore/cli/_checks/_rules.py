"""Which checks count, from a file: chosen, ignored and relaxed by id, each with a reason."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast, get_args

from neurostore.cli._checks._known import known
from neurostore.errors import NotFoundError, Severity, UsageError
from neurostore.store import Fault

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""The gravest first."""
FILE, SECTION = "neurostore.toml", "validate"


@dataclass(frozen=True)
class Rules:
    """What a file says of the checks.

    Attributes
    ----------
    fail_on : str
        The least severity that fails.
    only : tuple of str
        Patterns of the checks that are reported at all; all of them where it is empty.
    ignore : mapping of pattern to reason
        Checks that are counted and listed, and fail nothing.
    relax : mapping of pattern to (severity, reason)
        Checks that are less grave here.
    source : str
        Where it is said.
    """

    fail_on: Severity = "violation"
    only: tuple[str, ...] = ()
    ignore: Mapping[str, str] = field(default_factory=dict)
    relax: Mapping[str, tuple[Severity, str]] = field(default_factory=dict)
    source: str = "the defaults"

    def chosen(self, fault: Fault) -> bool:
        """Whether the check is reported."""
        return not self.only or any(fnmatchcase(fault.finding.check, one) for one in self.only)

    def ignored(self, fault: Fault) -> str:
        """The reason for which a fault is ignored; empty where it counts."""
        id = fault.finding.check
        return next((why for one, why in self.ignore.items() if fnmatchcase(id, one)), "")

    def relaxed(self, fault: Fault) -> tuple[Severity, str] | None:
        """How grave a fault is here instead, and the reason; None where it is as it was."""
        id = fault.finding.check
        return next((said for one, said in self.relax.items() if fnmatchcase(id, one)), None)

    def severity(self, fault: Fault) -> Severity:
        """How grave a fault is here."""
        said = self.relaxed(fault)
        return fault.finding.severity if said is None else said[0]

    def fails(self, fault: Fault) -> bool:
        """Whether a fault fails the validation."""
        grave = SEVERITIES.index(self.severity(fault)) <= SEVERITIES.index(self.fail_on)
        return grave and not self.ignored(fault)


def find_rules(path: Path | None, fail_on: str | None = None) -> Rules:
    """The rules of a file, or of ``neurostore.toml`` or ``pyproject.toml`` in this folder.

    Raises
    ------
    UsageError
        Where a key, a severity or a check is unknown, or a reason is missing.
    """
    if path is not None:
        rules = _load(path, path.name == "pyproject.toml")
    elif Path(FILE).is_file():
        rules = _load(Path(FILE), False)
    elif Path("pyproject.toml").is_file():
        rules = _load(Path("pyproject.toml"), True)
    else:
        rules = Rules()
    if fail_on is None:
        return rules
    said = _severity(fail_on, "--fail-on")
    return Rules(said, rules.only, rules.ignore, rules.relax, rules.source)


def _load(path: Path, tool: bool) -> Rules:
    try:
        tree: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        beside = map(str, path.parent.glob("*.toml"))
        raise NotFoundError("file of rules", str(path), beside) from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as TOML: {error}.") from error
    if tool:
        tree = tree.get("tool", {}).get("neurostore", {})
    said = tree.get(SECTION, {})
    where = f"{path} [{'tool.neurostore.' if tool else ''}{SECTION}]"
    if unknown := set(said) - {"fail_on", "only", "ignore", "relax"}:
        raise UsageError(
            f"{where}: unknown key {min(unknown)!r}; known are fail_on, only, ignore and relax."
        )
    fail_on = _severity(said.get("fail_on", Rules.fail_on), where)
    only = tuple(_pattern(one, where) for one in said.get("only", ()))
    ignore: dict[str, str] = {}
    relax: dict[str, tuple[Severity, str]] = {}
    for one in said.get("ignore", ()):
        check = _check(one, where)
        ignore[check] = _reason(one, where)
    for one in said.get("relax", ()):
        check = _check(one, where)
        relax[check] = _severity(one.get("severity", ""), where), _reason(one, where)
    return Rules(fail_on, only, ignore, relax, str(path))


def _check(said: Any, where: str) -> str:
    if not isinstance(said, dict) or "check" not in said:
        raise UsageError(
            f'{where}: an entry is {{ check = "...", reason = "..." }}, found {said!r}.'
        )
    if unknown := set(said) - {"check", "reason", "severity"}:
        raise UsageError(f"{where}: {said['check']}: unknown key {min(unknown)!r}.")
    return _pattern(said["check"], where)


def _reason(said: Mapping[str, Any], where: str) -> str:
    reason = str(said.get("reason", "")).strip()
    if not reason:
        raise UsageError(f"{where}: {said['check']} needs a reason, for who reads this later.")
    return reason


def _pattern(said: Any, where: str) -> str:
    """A pattern that some check fits."""
    if any(fnmatchcase(id, str(said)) or fnmatchcase(str(said), id) for id in known()):
        return str(said)
    near = difflib.get_close_matches(str(said), known(), n=1, cutoff=0)
    raise UsageError(
        f"{where}: no check {said!r}. Did you mean {near[0]!r}? All of them: neurostore validate "
        "--list"
    )


def _severity(said: Any, where: str) -> Severity:
    if said not in SEVERITIES:
        raise UsageError(f"{where}: a severity is {', '.join(SEVERITIES)}; found {said!r}.")
    return cast(Severity, said)
