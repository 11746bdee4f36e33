"""One run's folder, from the first file to the last weights."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import filelock

from neurostore.errors import (
    JSON,
    ConflictError,
    DamagedError,
    NotFoundError,
    RefusedError,
    StoreError,
    UsageError,
    counted,
)
from neurostore.recipes import Recipe
from neurostore.runs import _files
from neurostore.runs._bound import BOUND, differences
from neurostore.runs._facts import facts_of, now
from neurostore.runs._files import Checkpoint

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from neurostore.splits import Split

Status: TypeAlias = Literal["training", "killed", "stopped", "done"]

RUN, RECIPE, SPLIT, METRICS = "run.json", "recipe.json", "split.json", "metrics.jsonl"
WEIGHTS, CHECKPOINT = "weights.safetensors", "checkpoint.safetensors"
LOCK = ".lock"

ASKED = 0.2
"""Seconds that a training waits for its lock, which `Run.status` takes for a moment to ask."""


class Run:
    """A run's folder; see `Run.create` and `Run.open`.

    Attributes
    ----------
    folder : Path
    facts : mapping
        What `run.json` says.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder, self.facts = folder, dict(facts)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        recipe: Recipe,
        split: Split,
        identity: Mapping[str, Any],
    ) -> Run:
        """Make the folder of a run, whole or not at all.

        Parameters
        ----------
        identity : mapping
            Of the training dataset, see `Dataset.identity`.

        Raises
        ------
        UsageError
            Where the folder holds something.
        """
        place = Path(folder).expanduser().absolute()
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise UsageError(
                f"{place} holds something already; a run begins in a folder of its own. Continue a "
                "run there with resume=True, or name another folder."
            )
        facts = facts_of(recipe, identity)
        beside = place.with_name(f".{place.name}.{os.getpid()}.new")
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            _files.write_json(beside / RECIPE, recipe.to_json())
            _files.write_json(beside / SPLIT, split.to_json())
            _files.write(beside / METRICS, b"")
            _files.write_json(beside / RUN, facts)
            if place.exists():
                place.rmdir()
            os.replace(beside, place)
            _files.sync_folder(place.parent)
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{place} cannot be made: {error.strerror or error}.") from error
        return cls(place, facts)

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """The run of a folder.

        Raises
        ------
        NotFoundError
            Where there is none, with the nearest one.
        DamagedError
            Where `run.json` is not what was written.
        """
        place = Path(folder).expanduser().absolute()
        if not (place / RUN).is_file():
            near = [*_runs(place.parent), *(f"{place.name}/{one}" for one in _runs(place))]
            raise NotFoundError("run", place.name, near, str(place.parent))
        facts = _files.read_json(place / RUN)
        needed = ("id", "store", "dataset", "status", "seed", "started")
        lacking = [name for name in needed if not isinstance(facts, dict) or name not in facts]
        if lacking:
            raise DamagedError(f"{place / RUN} is damaged: it lacks {', '.join(lacking)}.")
        return cls(place, facts)

    # ---- what it says of itself

    @property
    def id(self) -> str:
        """Recipe, time and a few random letters."""
        return str(self.facts["id"])

    @property
    def status(self) -> Status:
        """``training``, ``killed`` while it was, ``stopped`` or ``done``.

        A run is training where a process says so and holds its lock; where the lock cannot be
        asked, in a folder that may not be written for instance, what the process said stands.
        """
        said: Status = self.facts["status"]
        return "killed" if said == "training" and self._left() else said

    def _left(self) -> bool:
        """Whether a process once trained here, and none does now."""
        path = self.folder / LOCK
        if not path.is_file() or not os.access(path, os.W_OK):
            return False
        try:
            with filelock.FileLock(path, timeout=0):
                return True
        except (filelock.Timeout, OSError):
            return False

    @property
    def identity(self) -> dict[str, Any]:
        """Of the dataset it was trained on."""
        return dict(self.facts["dataset"])

    @property
    def snapshot(self) -> str:
        """The snapshot of the store it was trained on."""
        return str(self.facts["dataset"]["snapshot"])

    @property
    def recipe(self) -> Recipe:
        """The recipe with every value resolved.

        Raises
        ------
        DamagedError
            Where its file is not what was written.
        """
        document = _files.read_json(self.folder / RECIPE)
        try:
            made = Recipe.from_json(document)
        except (UsageError, KeyError, TypeError) as error:
            raise DamagedError(f"{self.folder / RECIPE} is damaged: {error}") from error
        found, written = document["digest"], self.facts["recipe"]
        if found != written:
            raise DamagedError(
                f"{self.folder / RECIPE} is damaged: its digest is {found[:12]}, "
                f"{written[:12]} was written in {RUN}. Restore it from a copy."
            )
        return made

    @property
    def split(self) -> Split:
        """The split it was trained with.

        Raises
        ------
        DamagedError
            Where its file is not what was written.
        """
        from neurostore.splits import Split

        document = _files.read_json(self.folder / SPLIT)
        try:
            made = Split.from_json(document)
        except (UsageError, KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{self.folder / SPLIT} is damaged: {error}") from error
        if made.digest != self.facts["dataset"]["split"]:
            raise DamagedError(
                f"{self.folder / SPLIT} is damaged: its digest is {made.digest[:12]}, "
                f"{str(self.facts['dataset']['split'])[:12]} was written."
            )
        return made

    def metrics(self) -> pd.DataFrame:
        """One row an epoch: epoch, step, training_loss, validation_loss, seconds, learning_rate."""
        import pandas as pd

        return pd.DataFrame(self._lines())

    def weights(self) -> dict[str, Tensor]:
        """The weights that a run ended with, by name, on the CPU.

        ``facts["weights"]`` says after how many epochs they were (``kept_epoch``).

        Raises
        ------
        UsageError
            Where it is not done.
        """
        if not (self.folder / WEIGHTS).is_file() and self.status != "done":
            raise UsageError(
                f"Run {self.id} is not done (status {self.status!r}, {len(self._lines())} epochs): "
                "it has no weights yet. Continue it with resume=True."
            )
        return dict(_files.read_tensors(self.folder / WEIGHTS).tensors)

    def scores(self, label: str = "test") -> dict[str, Any] | None:
        """The scores of an evaluation; None where it was not made."""
        path = self.folder / "scores" / f"{label}.json"
        return _files.read_json(path) if path.is_file() else None

    def check(
        self,
        identity: Mapping[str, Any],
        *,
        recipe: Recipe | None = None,
        parts: Sequence[str] = BOUND,
    ) -> None:
        """Refuse another dataset than the run was trained on.

        Parameters
        ----------
        identity : mapping
            Of the dataset at hand.
        recipe : Recipe, optional
            Must then say the same as the run's.
        parts : sequence of str
            What of the identity must be the same.

        Raises
        ------
        RefusedError
            With everything that differs, one line each.
        """
        other = {} if recipe is None else self.recipe.differs(recipe)
        found = [f"recipe: {k} was {ours!r}, found {now!r}" for k, (ours, now) in other.items()]
        found += differences(self.identity, identity, parts)
        if not found:
            return
        way = (
            "Leave recipe and overrides out, to go on with the run's own (recipe=None; on the "
            "command line: --resume and no override)"
            if other
            else f"Open the store at the run's snapshot {self.snapshot}"
        )
        more = "".join(f"\n  {line}" for line in found)
        raise RefusedError(
            f"Run {self.id} was made from something else: {found[0]}"
            f"{f' (and {len(found) - 1} more)' if len(found) > 1 else ''}. {way}, or begin another "
            f"run.{more}"
        )

    # ---- what a training writes

    def mark(self, status: Status) -> None:
        """Set the status; `done` notes when it finished."""
        finished = now() if status == "done" else None
        self.facts = {**self.facts, "status": status, "finished": finished}
        _files.write_json(self.folder / RUN, self.facts)

    def record(self, line: Mapping[str, JSON]) -> None:
        """Write the line of an epoch; lines of that epoch or later ones are replaced."""
        kept = [one for one in self._lines() if one["epoch"] < line["epoch"]]
        text = "".join(json.dumps(one, allow_nan=False) + "\n" for one in [*kept, dict(line)])
        _files.write(self.folder / METRICS, text.encode())

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint."""
        _files.write_tensors(self.folder / CHECKPOINT, checkpoint)

    def checkpoint(self) -> Checkpoint | None:
        """The last checkpoint; None before the first."""
        path = self.folder / CHECKPOINT
        return _files.read_tensors(path) if path.is_file() else None

    def finish(self, weights: Mapping[str, Tensor], **facts: JSON) -> None:
        """Write the weights it ends with and what is said of them, and that the run is done."""
        _files.write_tensors(self.folder / WEIGHTS, Checkpoint(weights, facts))
        self.facts = {**self.facts, "weights": facts}
        self.mark("done")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other process train in this folder.

        Raises
        ------
        ConflictError
            Where one does.
        """
        lock = filelock.FileLock(self.folder / LOCK, timeout=ASKED)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise ConflictError(f"Another process is training in {self.folder}.") from error
        try:
            yield
        finally:
            lock.release()

    def _lines(self) -> list[dict[str, Any]]:
        path = self.folder / METRICS
        text = _files.read(path).decode(errors="replace")
        return [_files.parse(path, line) for line in text.splitlines() if line]

    def __repr__(self) -> str:
        sessions = len(self.facts["dataset"]["sessions"])
        return (
            f"<Run {self.id}: {self.status}, {counted(len(self._lines()), 'epoch')}, "
            f"{counted(sessions, 'session')} of {self.facts['store']} at {self.snapshot}>"
        )


def _runs(folder: Path) -> list[str]:
    """Names of the runs right below a folder."""
    return [one.parent.name for one in folder.glob(f"*/{RUN}")] if folder.is_dir() else []
