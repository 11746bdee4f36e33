"""Whether what a table was read from is still there, and the command that reads it again."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ReadFrom:
    """The source of a session, as the session keeps it.

    Attributes
    ----------
    dataset : str
        Of the session when it was read.
    added : tuple of str
        Tables of the session that are not of the source.
    """

    url: str
    sha256: str
    reader: str
    dataset: str
    added: tuple[str, ...] = ()

    @classmethod
    def of(cls, attrs: Mapping[str, Any], table: str) -> ReadFrom | None:
        """That of a table; None where it is not of the source that its session has now."""
        source, lineage = attrs.get("source"), attrs.get("lineage", {})
        if not source or not attrs["source_key"]:
            return None
        added = tuple(name for name, one in lineage.items() if not _of_source(one, source))
        if table in added or table not in lineage:
            return None
        dataset = attrs.get("source_dataset", attrs["dataset"])
        return cls(source["url"], source["sha256"], str(source["reader"]), dataset, added)

    def fault(self) -> str:
        """What keeps it from being read again as it was; empty where nothing does."""
        if not os.path.lexists(self.url):
            return "is gone"
        if not os.path.isfile(self.url):
            return "is no file"
        try:
            with Path(self.url).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        if found != self.sha256:
            return f"has changed (sha256 {found[:12]}, it was {self.sha256[:12]})"
        return "" if self.reader == "nwb" else f"was read by a reader of your own, {self.reader}"

    def command(self, url: str) -> str:
        """What reads it again."""
        said = shlex.join([url, self.url, "--dataset", self.dataset, "--again"])
        return f"neurostore ingest {said}"


def _of_source(lineage: Mapping[str, Any], source: Mapping[str, Any]) -> bool:
    made_here = lineage["made_by"] not in ("update", "merge")
    return made_here and lineage.get("source", source) == source
