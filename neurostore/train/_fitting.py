"""A model, its optimiser and where they are: the loop over epochs and batches, and its state."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore.errors import NeurostoreError, RefusedError
from neurostore.recipes import Recipe
from neurostore.runs import Checkpoint, Run
from neurostore.train._interrupt import Interrupt
from neurostore.train._prepare import Data, fabric_of, inputs, model_of, target
from neurostore.train._progress import Reporter

if TYPE_CHECKING:
    from torch import Tensor

    from neurostore.sample import Batch


@dataclass
class At:
    """Where a training is, and what it has summed up in this epoch."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss: float = 0.0
    windows: int = 0
    seconds: float = 0.0


@dataclass
class _Best:
    """The weights with the lowest loss in validation, after so many epochs; 0 is untrained."""

    epoch: int
    loss: float
    weights: dict[str, Tensor]


@dataclass
class Saving:
    """When the state is saved, and whether somebody asks to stop."""

    run: Run
    interrupt: Interrupt
    every: float
    saved: float = 0.0

    def __post_init__(self) -> None:
        self.saved = time.monotonic()

    def batch_done(self, fitting: Fitting) -> None:
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

    def save(self, fitting: Fitting) -> None:
        self.run.save(fitting.checkpoint())
        self.saved = time.monotonic()


@dataclass
class Fitting:
    """A model, its optimiser and where they are."""

    recipe: Recipe
    data: Data
    fabric: Any
    module: Any
    model: Any
    optimizer: Any
    at: At
    best: _Best | None = None
    folder: Path | None = None

    @classmethod
    def of(cls, recipe: Recipe, data: Data) -> Fitting:
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
        return cls(recipe, data, fabric, module, model, optimizer, At())

    @property
    def batches(self) -> int:
        """Of one epoch."""
        return -(-len(self.data.training) // self.recipe.train.batch_size)

    def fit(self, saving: Saving, report: Reporter) -> None:
        """Every epoch that is left, from the batch it is at."""
        self.folder = saving.run.folder
        report.begin(self.batches * self.recipe.train.epochs, self.at.step)
        if self.recipe.train.keep == "best" and self.best is None:
            self._keep_best(self._validate(saving), epoch=0)
        while self.at.epoch < self.recipe.train.epochs:
            began = time.monotonic() - self.at.seconds
            for batch in self._loader():
                self._learn(batch)
                self.at.seconds = time.monotonic() - began
                report.step(self.at.epoch, self.at.loss / self.at.windows, self.at.windows, began)
                saving.batch_done(self)
            validation = self._validate(saving)
            if self.recipe.train.keep == "best":
                self._keep_best(validation, epoch=self.at.epoch + 1)
            self.at.seconds = time.monotonic() - began
            line = self._line(validation)
            saving.run.record(line)
            report.epoch(line)
            self.at = At(epoch=self.at.epoch + 1, step=self.at.step)
            saving.save(self)

    def _loader(self) -> Any:
        size, said = self.recipe.train.batch_size, self.recipe
        return self.data.training.loader(
            size,
            seed=said.seed,
            epoch=self.at.epoch,
            first=self.at.batch,
            weight=said.data.weight,
        )

    def _learn(self, batch: Batch) -> None:
        """One step; afterwards the state is that of the next batch."""
        import torch

        at, said = self.at, self.recipe.train
        torch.manual_seed(_seed(self.recipe.seed, at.epoch, at.batch))
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(at.step)
        loss = self._loss(batch)
        self._refuse_nonfinite(float(loss.detach()), batch, "training", at.batch + 1)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if said.clip is not None:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=said.clip)
        self.optimizer.step()
        count = len(batch.session)
        at.loss += float(loss.detach()) * count
        at.windows, at.batch, at.step = at.windows + count, at.batch + 1, at.step + 1

    def try_out(self, batch: Batch) -> None:
        """The loss of a batch, of which nothing is learned."""
        import torch

        self.model.train()
        with torch.no_grad():
            self._refuse_nonfinite(float(self._loss(batch)), batch, "training", 1)

    def _loss(self, batch: Batch) -> Tensor:
        batch = batch.to(self.fabric.device)
        recorded, observed = target(batch)
        output = self.model(**inputs(self.module, batch))
        loss: Tensor = self.module.loss(output, recorded, observed)
        return loss

    def _rate(self, step: int) -> float:
        """The learning rate of a step; a cosine reaches 0 after the last one."""
        said = self.recipe.train
        if said.schedule == "constant":
            return said.learning_rate
        done = step / (self.batches * said.epochs)
        return said.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def _validate(self, saving: Saving) -> float:
        """Mean loss over the windows of validation."""
        import torch

        self.model.eval()
        total, windows = 0.0, 0
        size = self.recipe.train.batch_size
        with torch.no_grad():
            for number, batch in enumerate(self.data.validation.loader(size, shuffle=False), 1):
                loss = float(self._loss(batch))
                self._refuse_nonfinite(loss, batch, "validation", number)
                total += loss * len(batch.session)
                windows += len(batch.session)
                saving.batch_done(self)
        return total / windows

    def _keep_best(self, loss: float, *, epoch: int) -> None:
        if self.best is None or loss < self.best.loss:
            state = self.module.state_dict()
            self.best = _Best(epoch, loss, {k: one.detach().clone() for k, one in state.items()})

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Those that the run ends with."""
        kept: Mapping[str, Tensor] = self.best.weights if self.best else self.module.state_dict()
        return kept

    @property
    def facts(self) -> dict[str, int]:
        """How many epochs and steps were learned, and after how many epochs its weights were."""
        kept = self.best.epoch if self.best else self.at.epoch
        return {"epoch": self.at.epoch, "step": self.at.step, "kept_epoch": kept}

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

    def _refuse_nonfinite(self, loss: float, batch: Batch, part: str, number: int) -> None:
        if math.isfinite(loss):
            return
        sessions = ", ".join(sorted(set(batch.session)))
        where = "Nothing was written." if self.folder is None else f"The run is in {self.folder}."
        raise NeurostoreError(
            f"The {part} loss is {loss} in epoch {self.at.epoch + 1}, batch {number} "
            f"(windows of {sessions}). Lower train.learning_rate "
            f"({self.recipe.train.learning_rate:g}), or set train.clip. {where}"
        )

    # ---- the state as tensors and counters

    def checkpoint(self) -> Checkpoint:
        """All that decides how the training goes on."""
        tensors = {f"model.{name}": one for name, one in self.module.state_dict().items()}
        for row, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{row}.{name}": one for name, one in state.items()}
        facts: dict[str, Any] = asdict(self.at)
        if self.best is not None:
            tensors |= {f"best.{name}": one for name, one in self.best.weights.items()}
            facts["best"] = {"epoch": self.best.epoch, "loss": self.best.loss}
        return Checkpoint(tensors, facts)

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
        self.at = At(**facts)
        if "best" in checkpoint.facts:
            self.best = _Best(**checkpoint.facts["best"], weights=_below(tensors, "best."))


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): one for k, one in tensors.items() if k.startswith(prefix)}


def _seed(seed: int, epoch: int, batch: int) -> int:
    """A seed for what a model draws at one batch, so that no state of a generator is kept."""
    said = hashlib.sha256(f"{seed} {epoch} {batch}".encode()).digest()
    return int.from_bytes(said[:8], "little") >> 1
