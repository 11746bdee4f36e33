"""The command that copies a store, or a selection of it, into a new repository."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import tyro

import neurostore
from neurostore.cli._print import print_json, say
from neurostore.cli._words import DONE, Where
from neurostore.errors import counted

if TYPE_CHECKING:
    from neurostore.store._clone import Cloned, Progress


def clone(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")],
    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
    where: Where = None,
    sessions: Annotated[list[str], tyro.conf.arg(metavar="SESSION...")] = [],  # noqa: B006
    tables: Annotated[list[str], tyro.conf.arg(metavar="TABLE...")] = [],  # noqa: B006
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Copy a store, or some of its sessions and tables, into a new store; stopped, it goes on.

    Args:
        source: A repository or a release; URL@TAG at a tag or snapshot.
        folder: Where to: a new or empty folder, or a clone that was stopped.
        where: Only sessions for which this holds, e.g. "n_units >= 20".
        sessions: Only these, by id.
        tables: Only these, e.g. spikes, and what they link to.
        dry_run: Count sessions, chunks and bytes, write nothing.
        json: Print what was done as JSON.
    """
    with _progress(shown=not dry_run) as progress:
        made = neurostore.clone(
            source,
            folder,
            where,
            sessions or None,
            tables or None,
            progress=progress,
            dry_run=dry_run,
        )
    if json:
        print_json({"dry_run": dry_run, **made.to_json()})
        return DONE
    for note in made.notes:
        say(f"    {note}")
    if made.there:
        say(f"    there already: {len(made.there):,}, from a clone that was stopped")
    of = f"of {made.source} at {made.source_snapshot}"
    if dry_run:
        say(f"Dry run: {_what(made)} {of} would be copied to {made.url}.")
    else:
        say(f"Copied {_what(made)} {of}. {made.url} is at {made.snapshot}.")
        say(f"Look: neurostore sessions {folder}")
    return DONE


def _what(made: Cloned) -> str:
    shared = len(made.stimuli)
    parts = [counted(len(made.sessions), "session"), counted(len(made.splits), "split")]
    parts += [f"{shared:,} {'stimulus or embedding' if shared == 1 else 'stimuli and embeddings'}"]
    return f"{', '.join(parts)} ({counted(made.chunks, 'chunk')}, {counted(made.nbytes, 'byte')})"


@contextmanager
def _progress(*, shown: bool) -> Iterator[Progress | None]:
    """A bar on stderr, where that is a terminal: pieces done, and bytes so far."""
    if not shown or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("copying"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[moved]:,} bytes"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("copying", total=None, moved=0)

        def told(done: int, pieces: int, nbytes: int) -> None:
            bar.update(task, completed=done, total=pieces, moved=nbytes)

        yield told
