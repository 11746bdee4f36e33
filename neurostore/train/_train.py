"""The loop over epochs and batches, and everything that makes it one run however it was stopped."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore.errors import NeurostoreError, RefusedError, UsageError
from neurostore.recipes import Recipe, load, split_of
from neurostore.runs import Checkpoint, Run
from neurostore.train._interrupt import Interrupt
from neurostore.train._prepare import Data, fabric_of, inputs, model_of, target
from neurostore.train._progress import Reporter, reporter

if TYPE_CHECKING:
    from torch import Tensor

    from neurostore.sample import Batch
    from neurostore.store import Store


def train(
    recipe: Recipe | str | Path,
    store: Store,
    folder: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    resume: bool = False,
    progress: bool = True,
    checkpoint_seconds: float = 60.0,
) -> Run:
    """Train the model of a recipe on a store.

    A run that was stopped, by Ctrl-C or by force, continues with `resume`, and ends with the
    weights it would have had: a batch is a function of (seed, epoch, batch), and so is every
    random number of torch that the model draws. On a GPU this is as exact as its kernels are.

    Parameters
    ----------
    recipe : Recipe, str or Path
        The name of a bundled one, a TOML file, or one that is loaded.
    folder : str or Path
        Of the run; a new one, or with `resume` the one of the run.
    overrides : mapping or sequence of str, optional
        Values over those of the recipe, by dotted key: ``{"train.epochs": 3}``; see
        `neurostore.recipes.load`.
    resume : bool
        Continue the run there. One that is done is given back as it is.
    progress : bool
        Show a bar on a terminal, a line an epoch elsewhere (both to stderr).
    checkpoint_seconds : float
        How often the state is saved within an epoch; it is saved after every epoch too.

    Returns
    -------
    Run

    Raises
    ------
    UsageError
        Where a part has no window, units differ between sessions, the folder holds something, ...
    RefusedError
        Where the run to resume was made from something else.
    NeurostoreError
        Where the loss is no finite number any more.
    KeyboardInterrupt
        After Ctrl-C, with everything saved and how to continue.
    """
    if isinstance(recipe, Recipe):
        if overrides:
            raise UsageError(
                "This recipe is loaded already: give its overrides to neurostore.recipes.load."
            )
    else:
        recipe = load(recipe, overrides)
    begun = Run.open(folder) if resume else None
    data = Data.of(recipe, store, begun.split if begun else split_of(recipe, store))
    identity = data.training.identity()
    if begun:
        begun.check(identity, recipe=recipe)
        if begun.status == "done":
            return begun
    with _threads(recipe.train.threads):
        fitting = _Fitting.of(recipe, data)
        run = begun or Run.create(folder, recipe=recipe, split=data.split, identity=identity)
        with run.alone(), Interrupt() as interrupt, reporter(recipe, progress) as report:
            fitting.restore(run.checkpoint())
            run.mark("training")
            try:
                fitting.fit(_Saving(run, interrupt, checkpoint_seconds), report)
            except BaseException:
                run.mark("stopped")
                raise
            run.finish(fitting.module.state_dict(), epoch=fitting.at.epoch, step=fitting.at.step)
    return run


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class _At:
    """Where a training is, and what it has summed up in this epoch."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss: float = 0.0
    windows: int = 0
    seconds: float = 0.0


@dataclass
class _Saving:
    """When the state is saved, and whether somebody asks to stop."""

    run: Run
    interrupt: Interrupt
    every: float
    saved: float = 0.0

    def __post_init__(self) -> None:
        self.saved = time.monotonic()

    def batch_done(self, fitting: _Fitting) -> None:
        """After every batch, when the state is whole."""
        if self.interrupt.asked:
            self.save(fitting)
            at = fitting.at
            raise KeyboardInterrupt(
                f"Stopped in epoch {at.epoch + 1} after batch {at.batch}; all is saved in "
                f"{self.run.folder}. Continue it there with resume=True (--resume)."
            )
        if time.monotonic() - self.saved >= self.every:
            self.save(fitting)

    def save(self, fitting: _Fitting) -> None:
        self.run.save(fitting.checkpoint())
        self.saved = time.monotonic()


@dataclass
class _Fitting:
    """A model, its optimiser and where they are."""

    recipe: Recipe
    data: Data
    fabric: Any
    module: Any
    model: Any
    optimizer: Any
    at: _At

    @classmethod
    def of(cls, recipe: Recipe, data: Data) -> _Fitting:
        """All of it before the first batch."""
        import torch

        fabric = fabric_of(recipe)
        module = model_of(recipe, data.training)
        optimizer = torch.optim.AdamW(
            module.parameters(),
            lr=recipe.train.learning_rate,
            weight_decay=recipe.train.weight_decay,
        )
        model, optimizer = fabric.setup(module, optimizer)
        return cls(recipe, data, fabric, module, model, optimizer, _At())

    @property
    def batches(self) -> int:
        """Of one epoch."""
        return -(-len(self.data.training) // self.recipe.train.batch_size)

    def fit(self, saving: _Saving, report: Reporter) -> None:
        """Every epoch that is left, from the batch it is at."""
        report.begin(self.batches * self.recipe.train.epochs, self.at.step)
        while self.at.epoch < self.recipe.train.epochs:
            began = time.monotonic() - self.at.seconds
            for batch in self._loader():
                self._learn(batch)
                self.at.seconds = time.monotonic() - began
                report.step(self.at.epoch, self.at.loss / self.at.windows, self.at.windows, began)
                saving.batch_done(self)
            validation = self._validate(saving)
            self.at.seconds = time.monotonic() - began
            line = self._line(validation)
            saving.run.record(line)
            report.epoch(line)
            self.at = _At(epoch=self.at.epoch + 1, step=self.at.step)
            saving.save(self)

    def _loader(self) -> Any:
        size, seed = self.recipe.train.batch_size, self.recipe.seed
        return self.data.training.loader(size, seed=seed, epoch=self.at.epoch, first=self.at.batch)

    def _learn(self, batch: Batch) -> None:
        """One step; afterwards the state is that of the next batch."""
        import torch

        at, said = self.at, self.recipe.train
        torch.manual_seed(_seed(self.recipe.seed, at.epoch, at.batch))
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(at.step)
        loss = self._loss(batch)
        self._refuse_nonfinite(float(loss.detach()), batch, "training")
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if said.clip is not None:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=said.clip)
        self.optimizer.step()
        count = len(batch.session)
        at.loss += float(loss.detach()) * count
        at.windows, at.batch, at.step = at.windows + count, at.batch + 1, at.step + 1

    def _loss(self, batch: Batch) -> Tensor:
        batch = batch.to(self.fabric.device)
        recorded, observed = target(batch)
        loss: Tensor = self.module.loss(
            self.model(**inputs(self.module, batch)), recorded, observed
        )
        return loss

    def _rate(self, step: int) -> float:
        """The learning rate of a step; a cosine reaches 0 after the last one."""
        said = self.recipe.train
        if said.schedule == "constant":
            return said.learning_rate
        done = step / (self.batches * said.epochs)
        return said.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def _validate(self, saving: _Saving) -> float:
        """Mean loss over the windows of validation."""
        import torch

        self.model.eval()
        total, windows = 0.0, 0
        size = self.recipe.train.batch_size
        with torch.no_grad():
            for batch in self.data.validation.loader(size, shuffle=False):
                loss = float(self._loss(batch))
                self._refuse_nonfinite(loss, batch, "validation")
                total += loss * len(batch.session)
                windows += len(batch.session)
                saving.batch_done(self)
        return total / windows

    def _line(self, validation: float) -> dict[str, Any]:
        at = self.at
        return {
            "epoch": at.epoch,
            "step": at.step,
            "training_loss": at.loss / at.windows,
            "validation_loss": validation,
            "seconds": round(at.seconds, 3),
            "learning_rate": self._rate(at.step - 1),
        }

    def _refuse_nonfinite(self, loss: float, batch: Batch, part: str) -> None:
        if math.isfinite(loss):
            return
        sessions = ", ".join(sorted(set(batch.session)))
        raise NeurostoreError(
            f"The {part} loss is {loss} in epoch {self.at.epoch + 1}, batch {self.at.batch + 1} "
            f"(windows of {sessions}). Lower train.learning_rate "
            f"({self.recipe.train.learning_rate:g}), or set train.clip."
        )

    # ---- the state as tensors and counters

    def checkpoint(self) -> Checkpoint:
        """All that decides how the training goes on."""
        tensors = {f"model.{name}": one for name, one in self.module.state_dict().items()}
        for row, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{row}.{name}": one for name, one in state.items()}
        return Checkpoint(tensors, asdict(self.at))

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Go back to a checkpoint; to the beginning without one."""
        if checkpoint is None:
            return
        tensors = checkpoint.tensors
        try:
            self.module.load_state_dict(_below(tensors, "model."))
        except RuntimeError as error:
            raise RefusedError(
                f"The checkpoint does not fit {self.recipe.architecture}: "
                f"{' '.join(str(error).split())}. Its code was changed since; begin another run."
            ) from error
        states: dict[int, dict[str, Tensor]] = {}
        for name, one in _below(tensors, "optimizer.").items():
            row, _, own = name.partition(".")
            states.setdefault(int(row), {})[own] = one
        now = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**now, "state": states})
        facts = {name: checkpoint.facts[name] for name in asdict(self.at)}
        self.at = _At(**facts)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): one for k, one in tensors.items() if k.startswith(prefix)}


def _seed(seed: int, epoch: int, batch: int) -> int:
    """A seed for what a model draws at one batch, so that no state of a generator is kept."""
    said = hashlib.sha256(f"{seed} {epoch} {batch}".encode()).digest()
    return int.from_bytes(said[:8], "little") >> 1
