"""The command that holds a store against its own checksums."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import neurostore
from neurostore.cli._print import print_json, say
from neurostore.cli._words import DONE, REFUSED, At, Url

if TYPE_CHECKING:
    from neurostore.store import Progress


def verify(
    url: Url,
    sample: float = 1.0,
    at: At = None,
    seed: int = 0,
    alone: bool = False,
    resume: bool = False,
    json: bool = False,
) -> int:
    """Hold every chunk, digest, link and commit of a store against what was written.

    Args:
        url: The store.
        sample: Share of the chunks to read, e.g. 0.01; says how likely it meets damage.
        at: A tag, snapshot or date instead of the newest one.
        seed: Of the sample.
        alone: That snapshot only, without its history, branches and tags.
        resume: Go on where the same verification was stopped.
        json: Print the report as JSON.
    """
    try:
        with _shown() as progress:
            report = neurostore.verify(
                url, sample, at=at, seed=seed, alone=alone, resume=resume, progress=progress
            )
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            "stopped; go on with the same command and --resume, as long as nobody commits."
        ) from stop
    if json:
        print_json(report.to_json())
        return DONE if report.whole else REFUSED
    for fault in report.faults:
        say(str(fault), error=True)
    for line in report.words():
        say(line)
    found = len(report.faults)
    say("Everything checked is what was written." if not found else f"{found:,} found.")
    return DONE if report.whole else REFUSED


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None] | None]:
    """A progress bar on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verifying", total=None, rate="")

        def show(one: Progress) -> None:
            rate = f"{one.bytes / one.seconds / 1e6:,.1f} MB/s" if one.bytes else ""
            bar.update(task, description=one.step, completed=one.done, total=one.total, rate=rate)

        yield show
