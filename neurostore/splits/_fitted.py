"""What was fitted says on which time; and is refused where that is time to be predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from neurostore.errors import JSON, UsageError
from neurostore.intervals import Intervals
from neurostore.splits._plain import as_ticks
from neurostore.splits._split import Part

SEES: Mapping[str, tuple[str, ...]] = {"validation": ("train",), "test": ("train", "validation")}
"""Labels whose time may be known where one of these is predicted."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """The time that something was fitted on: a normaliser, a feature, a decomposition.

    Parameters
    ----------
    what : str
        What was fitted, as an error is to name it.
    intervals : mapping of str to Intervals
        Ticks it was fitted on, by session id.
    split, label : str, optional
        Digest of the split and label of the part they lie in; None without a split.
    """

    what: str
    intervals: Mapping[str, Intervals] = field(repr=False)
    split: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if (self.split is None) != (self.label is None):
            raise UsageError("The split and the label of what was fitted go together.")

    def to_json(self) -> dict[str, JSON]:
        """The same as a plain mapping; intervals are [start, stop) in ticks."""
        ticks: dict[str, JSON] = {
            id: [[start, stop] for start, stop in own] for id, own in self.intervals.items()
        }
        return {"what": self.what, "intervals": ticks, "split": self.split, "label": self.label}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Fitted:
        """What `to_json` gave.

        Raises
        ------
        UsageError
            Where something is missing.
        """
        try:
            intervals = {
                str(id): Intervals(
                    as_ticks([start for start, _ in rows], "start"),
                    as_ticks([stop for _, stop in rows], "stop"),
                )
                for id, rows in said["intervals"].items()
            }
            return cls(said["what"], intervals, said["split"], said["label"])
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"This is nothing that Fitted.to_json gives: {error!r}.") from error


def refuse_leak(fitted: Fitted, part: Part) -> None:
    """Refuse what was fitted on time that a part of a split may not know.

    Training may know its own label; validation what trains; test what trains and validates. Time
    of no label, and sessions the split does not name, are nobody's.

    Raises
    ------
    UsageError
        Where they touch, with the session, what was fitted, and both intervals.
    """
    known = SEES.get(part.label, (part.label,))
    for id in part.split.sessions:
        if id not in fitted.intervals:
            continue
        for label in part.split.labels:
            held_out = part.split.intervals(id, label)
            shared = fitted.intervals[id] & held_out
            if label not in known and len(shared):
                raise UsageError(_said(fitted, part, id, label, shared, held_out))


def _said(
    fitted: Fitted, part: Part, id: str, label: str, shared: Intervals, held_out: Intervals
) -> str:
    tick = int(shared.start[0])
    rate = part.split.rate(id)
    on, block = (_around(one, tick) for one in (fitted.intervals[id], held_out))

    def ends(extent: tuple[int, int]) -> str:
        if rate is None:
            return f"[{extent[0]}, {extent[1]}) ticks"
        return f"[{float(extent[0] / rate):.6g}, {float(extent[1] / rate):.6g}) s"

    return (
        f"{fitted.what} was fitted on {ends(on)} of {id}, which touches the {label!r} block "
        f"{ends(block)} of split {part.split.name!r}, and is used in {part.label!r}: it would know "
        f"what is to be predicted. Fit it on {(SEES.get(part.label) or (part.label,))[0]!r}."
    )


def _around(intervals: Intervals, tick: int) -> tuple[int, int]:
    return next((start, stop) for start, stop in intervals if start <= tick < stop)
