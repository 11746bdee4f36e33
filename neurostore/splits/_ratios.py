"""Ratios of labels, and durations, as a person writes them: exact, and refused where senseless."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from neurostore.clocks import Clock, exact
from neurostore.errors import JSON, UsageError

Number = int | float | str | Fraction
BLOCKS: Mapping[str, Number] = {"train": 7, "validation": 1, "test": 2}
"""Of every ten."""
SHARES: Mapping[str, Number] = {"train": 0.7, "validation": 0.1, "test": 0.2}


def weights(ratios: Mapping[str, Number]) -> dict[str, Fraction]:
    """Labels with their exact share, in the order given; they sum to 1.

    Raises
    ------
    UsageError
        Where there is none, one is negative, or all are 0.
    """
    shares = {str(label): exact(share) for label, share in ratios.items()}
    for label, share in shares.items():
        if share < 0:
            raise UsageError(f"The ratio of {label!r} must be 0 or more, found {float(share):g}.")
    total = sum(shares.values(), Fraction(0))
    if total == 0:
        raise UsageError(
            f"ratios need at least one label with a share above 0, found {dict(ratios)}: "
            '{"train": 7, "validation": 1, "test": 2}.'
        )
    return {label: share / total for label, share in shares.items()}


def cycle(ratios: Mapping[str, Number]) -> list[str]:
    """The label of every block of one cycle: each label as often as its ratio says.

    Raises
    ------
    UsageError
        Where one is no whole number, or as `weights`.
    """
    weights(ratios)
    for label, share in ratios.items():
        if exact(share).denominator != 1:
            raise UsageError(
                f"Blocks are dealt out whole: the ratio of {label!r} must be a whole number, found "
                f'{share}. Say {{"train": 7, "validation": 1, "test": 2}} for 7, 1 and 2 of ten.'
            )
    return [str(label) for label, share in ratios.items() for _ in range(int(exact(share)))]


def guard_ticks(clock: Clock, guard: Number, longest: int, what: str) -> int:
    """The guard in ticks, which must leave something of `longest` ticks (of `what`)."""
    if exact(guard) < 0:
        raise UsageError(f"A guard must be 0 s or longer, found {guard} s.")
    ticks = clock.tick(guard)
    if ticks >= longest:
        raise UsageError(
            f"A guard of {float(exact(guard)):g} s leaves nothing of {what}, which lasts "
            f"{float(longest / clock.rate):g} s. Take a shorter guard, or more time."
        )
    return ticks


def said(ratios: Mapping[str, Number]) -> JSON:
    """Ratios as a definition keeps them: pairs in order, numbers exact as text."""
    return [[str(label), str(exact(share))] for label, share in ratios.items()]
