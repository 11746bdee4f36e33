"""Counts of which a model is shown a part, and is to predict what it is not shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import NotFoundError, UsageError
from neurostore.sample._chosen import Chosen, region_codes
from neurostore.sample.batch import Reason, Values
from neurostore.sample.plan import Address, Number, Ticks
from neurostore.sample.streams._masks import Mask
from neurostore.sample.streams._stream import Reader

if TYPE_CHECKING:
    from neurostore.store import Session

Units: TypeAlias = str | tuple[str, ...]
"""SQL over the units of the store, or ids of units."""


class Hidden(Protocol):
    """What a stream of counts says of its inputs and targets."""

    @property
    def bin(self) -> Number: ...
    @property
    def mask(self) -> Mask | tuple[Mask, ...] | None: ...
    @property
    def units_in(self) -> Units | None: ...
    @property
    def units_out(self) -> Units | None: ...


def hide(counts: Reader, said: Hidden, name: str, sessions: Sequence[Chosen]) -> Reader:
    """The reader of counts as it is where nothing is hidden; else with inputs and targets.

    Raises
    ------
    UsageError, NotFoundError
        Where no unit is chosen, a mask does not fit the window, or nothing would be hidden.
    """
    masks = (said.mask,) if isinstance(said.mask, Mask) else tuple(said.mask or ())
    if not masks and said.units_in is None and said.units_out is None:
        return counts
    _, past, horizon = counts.steps[name]
    for mask in masks:
        mask.check(name, past, said.bin)
    region = region_codes(sessions)[1]
    if any(one.kind == "regions" for one in masks) and all((one < 0).all() for one in region):
        raise UsageError(f"The stream {name!r} masks regions, and no unit of the sessions has one.")
    asked = _chosen(said.units_out, sessions, f"units_out of the stream {name!r}")
    if said.units_in is None and said.units_out is not None:
        shown = [~one for one in asked]
    else:
        shown = _chosen(said.units_in, sessions, f"units_in of the stream {name!r}")
    if not masks and not horizon:
        _refuse_shown_targets(said, name, shown, asked)
    spans = tuple(one.span(name, said.bin) for one in masks)
    return _Masked(name, counts, sessions, masks, spans, shown, asked, region)


@dataclass(frozen=True)
class _Masked:
    name: str
    counts: Reader
    sessions: Sequence[Chosen]
    masks: tuple[Mask, ...]
    spans: tuple[int, ...]
    shown: list[NDArray[np.bool_]]
    asked: list[NDArray[np.bool_]]
    region: list[Ticks]

    @property
    def steps(self) -> Mapping[str, tuple[int, int, int]]:
        own = self.counts.steps[self.name]
        return dict.fromkeys((self.name, *self._targets), own)

    @property
    def tables(self) -> tuple[str, ...]:
        return self.counts.tables

    @property
    def _targets(self) -> tuple[str, str]:
        return f"{self.name}.target", f"{self.name}.target_mask"

    def missing(self, row: int) -> str | None:
        lost = self.counts.missing(row)
        if lost is None and not self.shown[row].any():
            return "units_in"
        return "units_out" if lost is None and not self.asked[row].any() else lost

    def read(self, at: Address) -> Values:
        counts, why = self.counts.read(at)[self.name]
        hidden, asked = self._hidden(at, counts.shape)
        seen = why == Reason.OBSERVED
        given = np.multiply(counts, hidden == Reason.OBSERVED, dtype=counts.dtype)
        reason = why | hidden * seen  # the one is 0 wherever the other is not
        target, target_mask = self._targets
        wanted = (hidden != Reason.OBSERVED) & asked & seen
        return {
            self.name: (given, reason),
            target: (counts, why),
            target_mask: (wanted, why),
        }

    def _hidden(
        self, at: Address, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Why (window, unit, bin) is hidden, 0 where it is shown; whether units are asked for."""
        _, past, _ = self.counts.steps[self.name]
        made = np.zeros(shape, dtype=np.uint8)
        made[:, :, past:] = Reason.NOT_REQUESTED
        asked = np.zeros((*shape[:2], 1), dtype=bool)
        draws = [at.draws(f"{self.name} mask {nth}") for nth in range(len(self.masks))]
        for row, here in at.by_session:
            shown, region = self.shown[row], self.region[row]
            own = np.zeros((len(here), len(shown), past), dtype=np.uint8)
            for mask, span, drawn in zip(self.masks, self.spans, draws, strict=True):
                lost = mask.hide(drawn[here], shown, region, past, span)
                np.maximum(own, lost * np.uint8(Reason.EXCLUDED), out=own)
            if not shown.all():
                own[:, ~shown] = Reason.NOT_REQUESTED
            made[here, : len(shown), :past] = own
            asked[here, : len(shown), 0] = self.asked[row]
        return made, asked


def _chosen(said: Units | None, sessions: Sequence[Chosen], what: str) -> list[NDArray[np.bool_]]:
    """Which units (unit,) of every session are meant; all where nothing is said."""
    if said is None:
        return [np.ones(len(one.ids), dtype=bool) for one in sessions]
    if isinstance(said, str):
        own: dict[int, list[Session]] = {}  # by store: of several opened as one, each knows its own
        for one in sessions:
            own.setdefault(id(one.session.store), []).append(one.session)
        rows: set[tuple[str, str]] = set()
        for some in own.values():
            ids = [session.id for session in some]
            frame = some[0].store.units(said, sessions=ids)  # a bundle's is a mapping
            rows |= set(zip(frame["session"], map(str, frame["unit"]), strict=True))
        made = [[(one.session.id, str(unit)) in rows for unit in one.ids] for one in sessions]
    else:
        known = {str(unit) for one in sessions for unit in one.ids}
        for unit in said:
            if unit not in known:
                raise NotFoundError("unit", unit, known, what)
        made = [[str(unit) in said for unit in one.ids] for one in sessions]
    if not any(any(one) for one in made):
        raise UsageError(f"{what} chooses no unit of those that the dataset has: {said!r}.")
    return [np.array(one, dtype=bool) for one in made]


def _refuse_shown_targets(
    said: Hidden,
    name: str,
    shown: Sequence[NDArray[np.bool_]],
    asked: Sequence[NDArray[np.bool_]],
) -> None:
    """Refuse targets that are shown all through, where neither horizon nor mask hides anything."""
    both = sum(int((a & b).sum()) for a, b in zip(shown, asked, strict=True))
    hidden = sum(int((~a & b).sum()) for a, b in zip(shown, asked, strict=True))
    if (both and said.units_out is not None) or not hidden:
        found = f"{both} units of units_in are in units_out too" if hidden else "none is hidden"
        raise UsageError(
            f"The targets of the stream {name!r} are units that the input does not hold, and "
            f"{found}. Choose others, or give the window a horizon or the stream a mask."
        )
