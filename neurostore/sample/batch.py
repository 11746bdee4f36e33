"""Named tensors with masks, the reasons behind them, and where every row came from."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import MissingExtraError, NotFoundError, counted

if TYPE_CHECKING:
    import torch


class Reason(enum.IntEnum):
    """Why a value of a batch is not there.

    Attributes
    ----------
    OBSERVED
        It is there.
    NOT_RECORDED
        The session has no such table, or the place is padding: there is no such unit.
    EXCLUDED
        Hidden by a mask, or of a unit that was dropped.
    OUTSIDE
        Out of observed time, of the table, or of what the window may know.
    INVALID
        The source says that it is not valid, or it is no finite number.
    NOT_REQUESTED
        It may be there and was not asked for: a channel that the acquisition does not see at that
        step, a unit of the target alone, the horizon of an input.
    BLANK
        A blank was on the screen.
    """

    OBSERVED = 0
    NOT_RECORDED = 1
    EXCLUDED = 2
    OUTSIDE = 3
    INVALID = 4
    NOT_REQUESTED = 5
    BLANK = 6


Reasons: TypeAlias = NDArray[np.uint8]
Values: TypeAlias = dict[str, tuple[NDArray[Any], Reasons]]
"""What a stream reads: by tensor name, values (window, ...) and reasons of their leading axes."""


class About(Protocol):
    """What is known of the windows of a batch beside its tensors, told where it is asked for."""

    def tell(self, name: str) -> Any:
        """One of `TOLD`."""


TOLD = ("session", "start", "tick", "block", "trial", "unit_ids", "unit_mask", "region")


class Batch(Mapping[str, "torch.Tensor"]):
    """Windows as tensors by name, the first axis being the window.

    Where ``mask[name]`` is False, the value is 0 and means nothing; ``reason[name]`` says why.

    Attributes
    ----------
    tensors : mapping
        ``batch["spikes"]``: (window, unit, bin) int32, ...
    mask : mapping
        By the same names, bool, over the leading axes of the tensor: True where observed.
    reason : mapping
        The same shape, uint8 of `Reason`.
    session : list of str
        Session id of every window.
    start : (window,) float64
        Seconds on the clock of its session.
    tick : (window,) int64
        The same in ticks.
    block : (window,) int64
        Row of the split, -1 without one.
    trial : (window,) int64
        Row of the trial that the present lies in; -1 outside of trials.
    unit_ids : list of (unit,) arrays
        Of every window, without padding.
    unit_mask : (window, unit) bool
        False where a row of units is padding, or its unit was dropped.
    region : (window, unit) int64
        Code of the unit's region in ``dataset.regions``; -1 for padding and where none is said.
    steps : mapping
        By tensor: its axis of time, and how many steps of it are history and horizon.
    """

    session: list[str]
    start: torch.Tensor
    tick: torch.Tensor
    block: torch.Tensor
    trial: torch.Tensor
    unit_ids: list[NDArray[Any]]
    unit_mask: torch.Tensor
    region: torch.Tensor

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        reason: Mapping[str, torch.Tensor],
        steps: Mapping[str, tuple[int, int, int]],
        about: About | Mapping[str, Any],
    ) -> None:
        self.tensors, self.reason, self.steps, self._about = tensors, reason, steps, about

    @cached_property
    def mask(self) -> Mapping[str, torch.Tensor]:
        """By tensor: True where observed."""
        return {name: _observed(why) for name, why in self.reason.items()}

    def __getattr__(self, name: str) -> Any:
        """What is told of the windows: made when it is first asked for."""
        if name not in TOLD:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        about = self._about
        value = about[name] if isinstance(about, Mapping) else about.tell(name)
        self.__dict__[name] = value
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        told = {name: getattr(self, name) for name in TOLD}
        return type(self), (self.tensors, self.reason, self.steps, told)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.tensors:
            raise NotFoundError("tensor", name, self.tensors, "this batch")
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def past(self, name: str) -> torch.Tensor:
        """The part of a tensor before the present."""
        return self._part(name, self[name], future=False)

    def future(self, name: str) -> torch.Tensor:
        """The part of a tensor from the present on: the target."""
        return self._part(name, self[name], future=True)

    def past_mask(self, name: str) -> torch.Tensor:
        """The mask of `past`."""
        return self._part(name, self.mask[name], future=False)

    def future_mask(self, name: str) -> torch.Tensor:
        """The mask of `future`."""
        return self._part(name, self.mask[name], future=True)

    def _part(self, name: str, tensor: torch.Tensor, *, future: bool) -> torch.Tensor:
        if name not in self.steps:
            raise NotFoundError("tensor with a time axis", name, self.steps, "this batch")
        axis, past, horizon = self.steps[name]
        return tensor.narrow(axis, past, horizon) if future else tensor.narrow(axis, 0, past)

    def having(self, tensors: Mapping[str, torch.Tensor]) -> Batch:
        """The same windows with some of their tensors replaced by others of their shape."""
        return Batch({**self.tensors, **tensors}, self.reason, self.steps, self._about)

    def to(self, device: Any) -> Batch:
        """The batch with its tensors on a device."""

        def move(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name: tensor.to(device) for name, tensor in tensors.items()}

        return Batch(move(self.tensors), move(self.reason), self.steps, _Moved(self, device))

    def __repr__(self) -> str:
        lines = [
            f"<Batch of {counted(len(self.session), 'window')} from "
            f"{counted(len(set(self.session)), 'session')}"
        ]
        for name, tensor in self.tensors.items():
            kind = str(tensor.dtype).removeprefix("torch.")
            seen = float(self.mask[name].double().mean()) if self.mask[name].numel() else 0.0
            lines.append(f"  {name:<22} {tuple(tensor.shape)!s:<20} {kind:<9}{seen:.1%} observed")
        return "\n".join(lines) + ">"


@dataclass(frozen=True, eq=False)
class _Moved:
    """What is known of the windows of a batch, on a device, and made there when it is asked for."""

    batch: Batch
    device: Any

    def tell(self, name: str) -> Any:
        """See `About`."""
        told = getattr(self.batch, name)
        return told if isinstance(told, list) else told.to(self.device)


def _observed(reason: torch.Tensor) -> torch.Tensor:
    """Where a value is there; on the host by numpy, which compares bytes six times faster."""
    return reason == 0 if reason.device.type != "cpu" else tensor(reason.numpy() == 0)


def pad(parts: Sequence[tuple[NDArray[Any], Reasons]]) -> tuple[NDArray[Any], Reasons]:
    """Parts (window, ...) of several sessions as one; what one lacks is 0 and not recorded."""
    values, reasons = [one for one, _ in parts], [one for _, one in parts]
    if len(parts) == 1:
        return values[0], reasons[0]
    return _joined(values, 0), _joined(reasons, Reason.NOT_RECORDED)


def _joined(parts: Sequence[NDArray[Any]], fill: int) -> NDArray[Any]:
    shape = np.max([part.shape for part in parts], axis=0)
    shape[0] = sum(len(part) for part in parts)
    made = np.full(shape, fill, dtype=parts[0].dtype)
    first = 0
    for part in parts:
        where = (slice(first, first + len(part)), *(slice(n) for n in part.shape[1:]))
        made[where] = part
        first += len(part)
    return made


def tensor(array: NDArray[Any]) -> torch.Tensor:
    """The array as a tensor on the same memory.

    Raises
    ------
    MissingExtraError
        Where torch is not installed.
    """
    return _from_numpy()(array if array.flags.c_contiguous else np.ascontiguousarray(array))


@cache
def _from_numpy() -> Callable[[NDArray[Any]], torch.Tensor]:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("A batch of tensors", "train") from error
    return torch.from_numpy
