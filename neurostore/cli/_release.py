"""Commands on releases: one snapshot, written as files that anybody can read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import tyro

import neurostore
from neurostore.cli._print import print_json, say
from neurostore.cli._words import DONE, At, Url
from neurostore.errors import counted


def publish(
    url: Url,
    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")],
    title: str = "",
    licence: str = "",
    citation: str = "",
    cards: tuple[Path, ...] = (),
    at: At = None,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Write one snapshot as a release: a plain Zarr tree with manifests; resumes where it stopped.

    Args:
        url: The store; URL@TAG for the snapshot that a tag names.
        target: An empty place: a folder, a bucket or any fsspec URL that can be written.
        title: Of the release.
        licence: Of the data, e.g. CC-BY-4.0.
        citation: How to cite it.
        cards: Cards of its datasets, each named <dataset>.toml.
        at: A tag, snapshot or date instead of the newest one.
        dry_run: Say how much would be written, and write nothing.
        json: Print what was published as JSON.
    """
    store = neurostore.open(url, at)
    with _bar() as progress:
        found = store.publish(
            target,
            title=title,
            licence=licence,
            citation=citation,
            cards=cards,
            dry_run=dry_run,
            progress=progress,
        )
    if json:
        print_json(found.to_json())
        return DONE
    there = found.keys - found.written
    new = f"{counted(found.written, 'key')} ({counted(found.written_bytes, 'byte')})"
    whole = f"{counted(found.keys, 'key')} ({counted(found.bytes, 'byte')}) of {found.snapshot}"
    if dry_run:
        say(f"Dry run: {new} would be written to {found.url}, {there:,} are there already.")
        say(f"The release holds {whole}. Nothing was written.")
        return DONE
    say(f"Published {whole} at {found.url}: {new} written, {there:,} there already.")
    if found.replaced:
        say(f"It says other things than before: its Merkle root was {found.replaced}.")
    say(f"Merkle root {found.merkle_root}. Read it: neurostore sessions {found.url}")
    return DONE


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("publishing")
        yield lambda done, total: bar.update(task, completed=done, total=total)
