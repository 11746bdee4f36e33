"""Every error the package raises on purpose, one tree; and what is found wrong with data.

::

    NeurostoreError
    ├── UsageError           the call itself is wrong (unknown id, bad window, bad name)
    │   └── NotFoundError    an id, table, tag or snapshot that is not there; names the nearest one
    ├── RefusedError         a source or a table is refused; carries every finding
    ├── ConflictError        somebody else committed to what this transaction touched
    ├── MissingExtraError    an optional library is not installed; names the extra
    └── StoreError           the store, its disk or its network failed
        └── DamagedError     bytes of the store are not what was written

    CacheWarning             (a warning) reading goes on, slower: the window cache cannot be used

The first line of a message says what was wrong, where, what was found and expected, and the way
out. Further lines are details.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
Severity: TypeAlias = Literal["critical", "violation", "suggestion"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and where.

    Attributes
    ----------
    check : str
        Stable id, ``<table>/v<N>/<column>/<check>``, or ``<reader>/<what>``.
    severity : {"critical", "violation", "suggestion"}
        A critical finding refuses the table; the others are kept with it.
    row, count
        First offending row, and how many there are.
    """

    check: str
    severity: Severity
    table: str
    variable: str
    message: str
    row: int | None = None
    found: str = ""
    expected: str = ""
    count: int = 1

    def __post_init__(self) -> None:  # numpy's integers are no JSON
        object.__setattr__(self, "row", None if self.row is None else int(self.row))
        object.__setattr__(self, "count", int(self.count))

    def to_json(self) -> dict[str, JSON]:
        """The finding as a plain mapping."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.severity}: {self.message} [{self.check}]"


def counted(count: int, noun: str) -> str:
    """``1 row``, ``2,000 rows``: a number with its noun, for messages."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class NeurostoreError(Exception):
    """Root of the tree; catch it to catch whatever the package refuses to do."""

    @property
    def line(self) -> str:
        """The first line of the message, whole in itself."""
        return str(self).splitlines()[0] if str(self) else type(self).__name__


class UsageError(NeurostoreError, ValueError):
    """The call itself is wrong; nothing was done."""


class NotFoundError(UsageError, LookupError):
    """A name that is not there, with the nearest one that is; `instead` says another way out."""

    def __init__(
        self, what: str, name: str, among: Iterable[str], where: str = "", *, instead: str = ""
    ) -> None:
        known = sorted(set(among))
        self.name = name
        self.nearest = [] if instead else _nearest(name, known)
        place = f" in {where}" if where else ""
        if instead:
            hint = instead
        elif self.nearest:
            hint = f"Did you mean {self.nearest[0]!r}?"
        elif known:
            hint = f"There is: {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}."
        else:
            hint = f"There is no {what} at all."
        super().__init__(f"No {what} {name!r}{place}. {hint}")

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), str(self), {"name": self.name, "nearest": self.nearest})


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    """The known name that is nearest, if one is near: in more than a folder that both share."""
    folder = name[: name.rfind("/") + 1]

    def alike(one: str) -> float:
        if one.startswith(folder):
            rests = one.removeprefix(folder), name.removeprefix(folder)
            return difflib.SequenceMatcher(None, *rests).ratio() + 0.1
        return difflib.SequenceMatcher(None, one, name).ratio()

    best = max(known, key=lambda one: (alike(one), one), default="")
    return [best] if best and alike(best) >= 0.6 else []


class RefusedError(NeurostoreError):
    """A source or a table is refused; nothing of it was written.

    Attributes
    ----------
    findings : list of Finding
        Everything that was found, the critical ones (which refused it) first.
    """

    def __init__(self, message: str, findings: Sequence[Finding] = ()) -> None:
        self.findings = sorted(findings, key=lambda finding: finding.severity != "critical")
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.findings)


class ConflictError(NeurostoreError):
    """Another writer changed what this transaction read or wrote; nothing of it was written."""


class MissingExtraError(NeurostoreError, ImportError):
    """An optional library is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        self.what, self.extra = what, extra
        super().__init__(
            f"{what} needs the extra {extra!r}, which is not installed. Take neurostore[{extra}] "
            "from where neurostore came from; in its checkout: pip install -c constraints.txt "
            f"'.[{extra}]'"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.what, self.extra)


class StoreError(NeurostoreError, OSError):
    """The store, its disk or its network failed."""


class DamagedError(StoreError):
    """Bytes of the store are not what was written."""


class CacheWarning(UserWarning):
    """The window cache cannot be used, or holds damage; what it would hold is read directly."""


def _restore(kind: type[NeurostoreError], text: str, state: dict[str, object]) -> NeurostoreError:
    error = kind.__new__(kind)
    error.args = (text,)
    error.__dict__.update(state)
    return error
