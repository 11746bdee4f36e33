"""What of a window's spikes a model is not shown, drawn anew for every window."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import exact
from neurostore.errors import NotFoundError, UsageError
from neurostore.sample._draws import lowest, scores
from neurostore.sample.plan import Number, Ticks

Kind = Literal["bins", "spans", "units", "regions", "entries"]


@dataclass(frozen=True)
class Mask:
    """A share of a window's history that is hidden, chosen at random in every window.

    At least one is hidden and at least one is left: of a single one, nothing is hidden.

    Parameters
    ----------
    kind : {"bins", "spans", "units", "regions", "entries"}
        ``"bins"``: bins of all units; ``"spans"``: runs of bins, of all units, that do not overlap;
        ``"units"``: units throughout; ``"regions"``: all units of regions throughout (a unit
        without a region is never hidden by it); ``"entries"``: single bins of single units.
    share : float
        How many of them, above 0 and below 1, rounded to a whole number, a half up.
    length : float, optional
        Seconds of a span: a whole number of bins. `share` counts hidden bins.

    Notes
    -----
    Hidden bins are the task of neural data transformers (Ye and Pandarinath 2021, Neurons,
    Behavior, Data analysis, and Theory), units and regions that of Zhang et al. 2024 (NeurIPS).
    """

    kind: Kind
    share: Number
    length: Number | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise NotFoundError("kind of mask", str(self.kind), get_args(Kind))
        if not 0 < exact(self.share) < 1:
            raise UsageError(f"The share of {self} lies above 0 and below 1.")
        if (self.length is None) == (self.kind == "spans"):
            raise UsageError(f"A length in seconds belongs to a mask of spans, found {self}.")
        if self.length is not None and exact(self.length) <= 0:
            raise UsageError(f"The length of a span is above 0 s, found {self}.")

    def of(self, count: int) -> int:
        """How many of so many are hidden."""
        return min(max(1, floor(exact(self.share) * count + exact("0.5"))), max(count - 1, 0))

    def check(self, name: str, bins: int, bin: Number) -> None:
        """Refuse spans that do not fit the bins of a history.

        Raises
        ------
        UsageError
            Where they are no whole number of bins, or leave none.
        """
        if bins < 1:
            raise UsageError(f"{self} of the stream {name!r} hides history; the window has none.")
        if self.kind == "spans" and self.span(name, bin) >= bins:
            raise UsageError(
                f"A span of {self.length} s leaves nothing of the history of {bins} bins of {bin} "
                f"s of the stream {name!r}. Take shorter spans."
            )

    def span(self, name: str, bin: Number) -> int:
        """Bins of a span, 0 for other kinds."""
        count = exact(self.length or 0) / exact(bin)
        if count.denominator != 1:
            raise UsageError(
                f"A span of {self.length} s is {float(count):g} bins of {bin} s of the stream "
                f"{name!r}; it must be a whole number of them."
            )
        return int(count)

    def hide(
        self,
        draws: NDArray[np.uint64],
        pool: NDArray[np.bool_],
        region: Ticks,
        bins: int,
        span: int,
    ) -> NDArray[np.bool_]:
        """Whether each is hidden, to broadcast to (window, unit, bin).

        Parameters
        ----------
        draws : (window,) uint64
        pool : (unit,) bool
            The units that are shown at all.
        region : (unit,) int64
            Codes of their regions, -1 for none.
        bins, span : int
            Bins of the history, and of a span.
        """
        if self.kind == "bins":
            return _of(draws, np.arange(bins), self.of(bins))[:, None, :]
        if self.kind == "spans":
            return self._spans(draws, bins, span)[:, None, :]
        if self.kind == "entries":
            return self._entries(draws, pool, bins)
        made, places = np.zeros((len(draws), len(pool)), dtype=bool), np.flatnonzero(pool)
        if self.kind == "units":
            made[:, places] = _of(draws, places, self.of(len(places)))
            return made[:, :, None]
        codes = np.unique(region[pool & (region >= 0)])
        hidden = _of(draws, codes, self.of(len(codes)))
        places = np.flatnonzero(pool & (region >= 0))
        made[:, places] = hidden[:, np.searchsorted(codes, region[places])]
        return made[:, :, None]

    def _spans(self, draws: NDArray[np.uint64], bins: int, span: int) -> NDArray[np.bool_]:
        """Every way to lay so many runs into the bins is as likely as any other."""
        wanted = max(1, floor(exact(self.share) * bins / span + exact("0.5")))
        count = min(wanted, (bins - 1) // span)
        # Each run is one slot among the bins that stay, and widened afterwards.
        slots = bins - count * (span - 1)
        taken = _of(draws, np.arange(slots), count)
        slot = np.nonzero(taken)[1].reshape(len(draws), count)
        first = slot + np.arange(count) * (span - 1)
        made = np.zeros((len(draws), bins), dtype=bool)
        at = (first[:, :, None] + np.arange(span)).reshape(len(draws), count * span)
        np.put_along_axis(made, at, True, axis=1)
        return made

    def _entries(
        self, draws: NDArray[np.uint64], pool: NDArray[np.bool_], bins: int
    ) -> NDArray[np.bool_]:
        places = np.flatnonzero(pool)
        element = (places[:, None] * bins + np.arange(bins)).ravel()
        made = np.zeros((len(draws), len(pool), bins), dtype=bool)
        hidden = _of(draws, element, self.of(len(element)))
        made[:, places] = hidden.reshape(len(draws), len(places), bins)
        return made


def _of(draws: NDArray[np.uint64], element: Ticks, count: int) -> NDArray[np.bool_]:
    """Which `count` of the elements (window, element) are drawn."""
    return lowest(scores(draws, element), count)
