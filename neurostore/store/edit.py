"""`Edit`: what a restore, a rename, a merge or a delete does, counted ahead of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from neurostore.errors import JSON, counted

if TYPE_CHECKING:
    from neurostore.store.store import Store
    from neurostore.store.transaction import Transaction


@dataclass(frozen=True)
class Edit:
    """What one command changes.

    Attributes
    ----------
    steps : tuple of (str, str)
        What is done to what: ``("restored", "d/s: units, spikes")``.
    bytes : int
        Written anew; what is taken out stays in older snapshots and frees none.
    snapshot : str or None
        The snapshot that it made; None of a dry run, and where there was nothing to do.
    dry_run : bool
    notes : tuple of str
        What else is to be known of it, a line each: the way back.
    """

    steps: tuple[tuple[str, str], ...]
    bytes: int
    snapshot: str | None = None
    dry_run: bool = False
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, JSON]:
        """As a plain mapping."""
        steps: list[JSON] = [{"what": what, "of": of} for what, of in self.steps]
        return {
            "steps": steps,
            "bytes": self.bytes,
            "snapshot": self.snapshot,
            "dry_run": self.dry_run,
            "notes": [*self.notes],
        }

    def lines(self) -> Iterator[str]:
        """For people: a line a step, then what it costs and where it is."""
        would = "would be " if self.dry_run else ""
        yield from (f"{of}: {would}{what}" for what, of in self.steps)
        size = f"{counted(len(self.steps), 'change')}, {self.bytes:,} bytes"
        if self.dry_run:
            yield f"{size} to write. Dry run: nothing was written."
        elif self.snapshot is None:
            yield "Nothing to do: it is so already."
        else:
            yield f"{size} written. Committed {self.snapshot}."
        yield from self.notes

    def __str__(self) -> str:
        return "\n".join(self.lines())


def carry_out(
    store: Store, message: str, planned: Edit, change: Callable[[Transaction], object]
) -> Edit:
    """What is planned in a commit of its own; nothing of a dry run, or where there is no step."""
    if planned.dry_run or not planned.steps:
        return planned
    with store.transaction(message) as tx:
        change(tx)
    return replace(planned, snapshot=tx.snapshot)
