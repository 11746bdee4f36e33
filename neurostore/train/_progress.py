"""How a training is shown: a bar on a terminal, a line an epoch elsewhere, or not at all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from neurostore.recipes import Recipe


class Reporter(Protocol):
    """What a training tells while it goes."""

    def begin(self, steps: int, done: int) -> None:
        """Of all steps so many are done."""

    def step(self, epoch: int, loss: float, windows: int, began: float) -> None:
        """A batch is learned: mean loss and windows of this epoch, which began then."""

    def epoch(self, line: Mapping[str, Any]) -> None:
        """An epoch is done, with its line of metrics."""


class Silent:
    """Tells nothing."""

    def begin(self, steps: int, done: int) -> None:
        """Nothing."""

    def step(self, epoch: int, loss: float, windows: int, began: float) -> None:
        """Nothing."""

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Nothing."""


class Lines(Silent):
    """A line an epoch."""

    def __init__(self, console: Console, epochs: int) -> None:
        self._console, self._epochs = console, epochs

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Its losses and how long it took."""
        self._console.print(
            f"epoch {line['epoch'] + 1}/{self._epochs}  training loss "
            f"{line['training_loss']:.5f}  validation loss {line['validation_loss']:.5f}  "
            f"{line['seconds']:.1f} s",
            highlight=False,
        )


class Bar(Silent):
    """A bar over all steps, with the loss, windows a second and the time that is left."""

    def __init__(self, progress: Progress, epochs: int) -> None:
        self._progress, self._epochs = progress, epochs
        self._task = TaskID(0)
        self._validation = ""

    def begin(self, steps: int, done: int) -> None:
        """Show the bar."""
        self._task = self._progress.add_task("", total=steps, completed=done, speed="")

    def step(self, epoch: int, loss: float, windows: int, began: float) -> None:
        """Move it."""
        seconds = max(time.monotonic() - began, 1e-9)
        said = f"epoch {epoch + 1}/{self._epochs}  loss {loss:.4f}{self._validation}"
        speed = f"{windows / seconds:,.0f} windows/s"
        self._progress.update(self._task, advance=1, description=said, speed=speed)

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Keep the loss of validation beside it."""
        self._validation = f"  validation {line['validation_loss']:.4f}"


@contextmanager
def reporter(recipe: Recipe, shown: bool) -> Iterator[Reporter]:
    """The way that suits where stderr goes."""
    console = Console(stderr=True)
    epochs = recipe.train.epochs
    if not shown:
        yield Silent()
    elif not console.is_terminal:
        yield Lines(console, epochs)
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            yield Bar(progress, epochs)
