"""Where the windows of a batch lie, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurostore.clocks import Clock
from neurostore.sample.plan import Address


@dataclass(frozen=True)
class Rates:
    """Seconds of ticks on the clocks of all sessions, (session,) float64 each."""

    above: Tensor
    below: Tensor

    @classmethod
    def of(cls, clocks: Sequence[Clock], device: torch.device) -> Rates:
        """The clocks of the sessions on a device."""
        rates = [clock.rate for clock in clocks]
        small = [rate.numerator < 2**53 for rate in rates]  # as Clock.seconds rounds
        pairs = zip(rates, small, strict=True)
        above = [float(rate.numerator) if one else float(rate) for rate, one in pairs]
        pairs = zip(rates, small, strict=True)
        below = [float(rate.denominator) if one else 1.0 for rate, one in pairs]
        return cls(
            *(torch.tensor(one, dtype=torch.float64, device=device) for one in (above, below))
        )

    def seconds(self, session: Tensor, ticks: Tensor) -> Tensor:
        """Ticks on the clock of a session → float64 seconds, to the bit as `Clock.seconds`."""
        # Divided by a tensor: by a number, CUDA multiplies with its rounded reciprocal.
        return ticks.double() * self.below[session] / self.above[session]


@dataclass(frozen=True)
class Windows:
    """The address of a batch: as it is, and its sessions and starts (window,) on the device."""

    address: Address
    session: Tensor
    start: Tensor
    block: Tensor

    @classmethod
    def of(cls, address: Address, device: torch.device) -> Windows:
        """Move an address to a device, at once."""
        rows = np.stack([address.session, address.start, address.block])
        session, start, block = torch.from_numpy(rows).to(device, non_blocking=True).unbind()
        return cls(address, session, start, block)

    def __len__(self) -> int:
        return len(self.start)

    def part(self, first: int, stop: int) -> Windows:
        """Windows [first, stop) of the batch."""
        own, said = slice(first, stop), self.address
        session, start, block, place = (
            ticks[own] for ticks in (said.session, said.start, said.block, said.place)
        )
        address = replace(said, session=session, start=start, block=block, place=place)
        return Windows(address, self.session[own], self.start[own], self.block[own])

    def moved(self, values: NDArray[np.int64]) -> Tensor:
        """What the host knows of each window (window,), on the device; nobody waits for it."""
        return torch.from_numpy(values).to(self.start.device, non_blocking=True)

    def draws(self, name: str) -> Tensor:
        """`Address.draws` on the device (window,): the same 64 bits, as int64."""
        return self.moved(self.address.draws(name).view(np.int64))
