"""A finding with its place in a store (or in a file) and the way out of it."""

from __future__ import annotations

from dataclasses import dataclass

from neurostore.errors import JSON, Finding
from neurostore.store._damage import RELEASE_WAY_OUT, WAY_OUT


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, where, and what helps.

    Attributes
    ----------
    path : str
        Id of a session, path of a split or a stimulus (``/splits/...``), a snapshot, a tag or a
        file.
    finding : Finding
        What is wrong; `finding.check` is the stable id.
    hint : str
        What is lost, and what brings it back; empty where nothing is known.
    """

    path: str
    finding: Finding
    hint: str = ""

    @classmethod
    def critical(
        cls,
        path: str,
        check: str,
        message: str,
        *,
        table: str = "",
        variable: str = "",
        found: str = "",
        expected: str = "",
    ) -> Fault:
        """A fault that says that something is not what was written."""
        said = message.replace(f" {WAY_OUT}", "").replace(f" {RELEASE_WAY_OUT}", "").rstrip(".")
        finding = Finding(check, "critical", table, variable, said, None, found, expected)
        return cls(path, finding)

    def to_json(self) -> dict[str, JSON]:
        """The fault as a plain mapping."""
        said = self.finding.to_json()
        code = said.pop("check")
        return {"code": code, "path": self.path, **said, "hint": self.hint}

    @classmethod
    def from_json(cls, said: dict[str, JSON]) -> Fault:
        """The fault that `to_json` wrote."""
        rest = dict(said)
        path, hint = str(rest.pop("path")), str(rest.pop("hint"))
        return cls(path, Finding(str(rest.pop("code")), **rest), hint)  # type: ignore[arg-type]

    def __str__(self) -> str:
        way = f"\n        {self.hint}" if self.hint else ""
        return f"{self.path}: {self.finding}{way}"
