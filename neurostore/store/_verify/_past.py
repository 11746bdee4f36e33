"""What only the history shows: which snapshots, which tags and branches hold them, how they go."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neurostore.store._versions import Commit

_NAMED = 3
"""Snapshots, tags and branches that are named one by one."""


class Past:
    """Speaks of damage that the newest snapshot does not show.

    Parameters
    ----------
    newest : str
        The newest snapshot.
    commits : sequence of Commit
        Those that were looked at.
    refs : mapping
        Every tag and branch (``"tag v1"``) to its snapshot.
    history : callable
        The snapshots that lead to one, newest first.
    """

    def __init__(
        self,
        url: str,
        newest: str,
        commits: Sequence[Commit],
        refs: Mapping[str, str],
        history: Callable[[str], Sequence[str]],
    ) -> None:
        self.newest = newest
        self._url, self._refs, self._history = url, refs, history
        self._times = {one.snapshot: one.time for one in commits}

    def alone_shows(self, snapshots: Sequence[str]) -> bool:
        """Whether the newest snapshot was looked at and is none of these."""
        return self.newest in self._times and self.newest not in snapshots

    def names(self, snapshots: Sequence[str]) -> str:
        """The snapshots, and the tags and branches that hold them."""
        held = self._holding(snapshots)
        by = f", held by {_some(held)}" if held else ""
        return f"{_some([self._name(one) for one in snapshots])}{by}"

    def way_out(self, snapshots: Sequence[str], whole: str) -> str:
        """How they go out of the history; `whole` says how it is with the newest snapshot."""
        steps = [f"neurostore {_delete(self._url, ref)}" for ref in self._holding(snapshots)]
        line = self.line
        if any(one in line for one in snapshots):
            keep = min(line.index(one) for one in snapshots if one in line)
            steps.append(f"neurostore expire {shlex.quote(self._url)} --keep {keep}")
        more = f" (and {len(steps) - _NAMED} more)" if len(steps) > _NAMED else ""
        shown = [*steps[: _NAMED - 1], steps[-1]] if more else steps
        return (
            f"Only history is hurt: {whole} To let it go, with all history before it: "
            f"{'; '.join(shown)}{more}"
        )

    @property
    def line(self) -> list[str]:
        """The snapshots that lead to the newest one, which is the first."""
        return self._lines[self.newest]

    @cached_property
    def _lines(self) -> dict[str, list[str]]:
        """The history of the newest snapshot, and of what tags and branches name."""
        return {one: list(self._history(one)) for one in {self.newest, *self._refs.values()}}

    def _holding(self, snapshots: Sequence[str]) -> list[str]:
        """Tags and branches without which these could go out of the history."""
        line = self.line
        apart = {one for one in snapshots if one not in line}
        return [
            ref
            for ref, tip in self._refs.items()
            if tip != self.newest and (tip in snapshots or apart & {*self._lines[tip]})
        ]

    def _name(self, snapshot: str) -> str:
        return f"{snapshot} ({self._times[snapshot]:%Y-%m-%d %H:%M})"


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _delete(url: str, ref: str) -> str:
    kind, _, name = ref.partition(" ")
    return shlex.join([kind, url, name, "--delete"])
