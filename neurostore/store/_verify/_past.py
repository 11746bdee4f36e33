"""What only the history shows: which snapshots, which tags and branches hold them, how they go."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from neurostore.store import _when

if TYPE_CHECKING:
    from neurostore.store._verify._engine import History
    from neurostore.store._versions import Commit

_NAMED = 3
"""Snapshots, tags and branches that are named one by one."""


class Past:
    """Speaks of damage that the newest snapshot does not show.

    Parameters
    ----------
    newest : str
        The newest snapshot.
    history : History
        The commits that were looked at, and what holds them.
    """

    def __init__(self, url: str, newest: str, history: History) -> None:
        self.newest = newest
        self._url, self._refs, self._begins = url, history.refs, history.begins
        self._commits = {one.snapshot: one for one in history.commits}

    def alone_shows(self, snapshots: Sequence[str]) -> bool:
        """Whether the newest snapshot was looked at and is none of these."""
        return self.newest in self._commits and self.newest not in snapshots

    def names(self, snapshots: Sequence[str]) -> str:
        """The snapshots, and the tags and branches that hold them."""
        held = self._holding(snapshots)
        by = f", held by {_some(held)}" if held else ""
        return f"{_some([self._name(one) for one in snapshots])}{by}"

    def way_out(self, snapshots: Sequence[str], whole: str) -> str:
        """How they go out of the history; `whole` says how it is with the newest snapshot."""
        steps = [f"neurostore {_delete(self._url, ref)}" for ref in self._holding(snapshots)]
        line = [one.snapshot for one in self.line]
        if any(one in line for one in snapshots):
            keep = min(line.index(one) for one in snapshots if one in line)
            steps.append(f"neurostore expire {shlex.quote(self._url)} --keep {keep}")
        more = f" (and {len(steps) - _NAMED} more)" if len(steps) > _NAMED else ""
        shown = [*steps[: _NAMED - 1], steps[-1]] if more else steps
        return (
            f"Only history is hurt: {whole} To let it go, with all history before it: "
            f"{'; '.join(shown)}{more}"
        )

    @cached_property
    def line(self) -> list[Commit]:
        """The commits that lead to the newest snapshot, newest first, as far as they are known."""
        return self._leading_to(self.newest)

    def _leading_to(self, tip: str | None) -> list[Commit]:
        found: dict[str, Commit] = {}
        while tip in self._commits and tip not in found:
            found[tip] = self._commits[tip]
            tip = None if tip in self._begins else found[tip].parent
        return [*found.values()]

    def _holding(self, snapshots: Sequence[str]) -> list[str]:
        """Tags and branches without which these could go out of the history."""
        apart = {*snapshots} - {one.snapshot for one in self.line}
        return [
            ref
            for ref, tip in self._refs.items()
            if tip != self.newest
            if tip in snapshots or any(one.snapshot in apart for one in self._leading_to(tip))
        ]

    def _name(self, snapshot: str) -> str:
        return f"{snapshot} ({_when.shown(self._commits[snapshot].time)})"


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _delete(url: str, ref: str) -> str:
    kind, _, name = ref.partition(" ")
    return shlex.join([kind, url, name, "--delete"])
