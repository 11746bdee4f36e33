"""What a dataset refuses when it is made, with the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from neurostore.clocks import exact
from neurostore.errors import UsageError, counted
from neurostore.sample.acquisition import All, Staggered, TimeAligned
from neurostore.sample.streams import Acquired, SpikeEvents, Stream

if TYPE_CHECKING:
    from neurostore.sample.dataset import Dataset

_SHOWN = 6


def unacquired(acquisition: object, streams: Mapping[str, Stream]) -> None:
    """Refuse an acquisition that a stream of channels would be given as if it were `All`."""
    if acquisition is None or isinstance(acquisition, All):
        return
    if not isinstance(acquisition, TimeAligned | Staggered):
        raise UsageError(
            "An acquisition is All(), TimeAligned(every=...) or Staggered(every=..., seed=...), "
            f"found {acquisition!r}."
        )
    events = [name for name, one in streams.items() if isinstance(one, SpikeEvents)]
    if events:
        raise UsageError(
            f"{acquisition} says at which steps a channel is observed, and {', '.join(events)} "
            "(SpikeEvents) has spikes at times of their own, in no steps. Take counts, "
            "Spikes(bin=...), or read the events in a dataset of their own."
        )
    if not any(isinstance(one, Acquired) for one in streams.values()):
        raise UsageError(
            f"{acquisition} is for streams of channels, Activity(...) and Spikes(...); found "
            f"{', '.join(streams)}. Read those in a dataset of their own."
        )


def missing(dataset: Dataset) -> None:
    """Refuse sessions that lack something of a stream, where the dataset is to be strict."""
    if dataset.missing == "mask":
        return
    lost = []
    for row, one in enumerate(dataset.chosen):
        said = {name: reader.missing(row) for name, reader in dataset.readers.items()}
        found = ", ".join(f"{name} (no {what})" for name, what in said.items() if what)
        lost += [f"{one.session.id}: {found}"] if found else []
    if lost:
        more = f"; and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        raise UsageError(
            f"missing='refuse', and {len(lost)} of {counted(len(dataset.chosen), 'session')} "
            f"lack what streams read: {'; '.join(lost[:_SHOWN])}{more}. Choose others, or take "
            "missing='mask'."
        )


def empty(dataset: Dataset) -> None:
    readers, laid = dataset.readers, dataset.laid  # errors of streams come first
    if len(dataset.plan) or not readers:
        return
    clocks = [one.session.clock for one in dataset.chosen]
    longest = max(
        (one.longest / float(clock.rate) for one, clock in zip(laid, clocks, strict=True)),
        default=0.0,
    )
    where = "" if dataset.split is None else f" of {dataset.split.name!r}"
    if dataset.split is not None and not any(one.pieces for one in laid):
        raise UsageError(
            f"The split {dataset.split.name!r} leaves no target in "
            f"{', '.join(dataset.session_ids)}: it has blocks in "
            f"{', '.join(dataset.split.split.sessions) or 'no session'}."
        )
    window = dataset._window
    what, least = ("window", window.length)
    if dataset.history_may_cross:
        what, least = ("target", exact(window.horizon))
    if longest < least:
        raise UsageError(
            f"A {what} of {float(least):g} s is longer than every interval"
            f"{where}: the longest is {longest:g} s. Take a shorter one."
        )
    grid = next((one.grid for one in laid if one.grid is not None), None)
    if grid is not None:
        raise UsageError(
            f"No window of {window} lies in observed time{where} and starts on a multiple of "
            f"{grid.said}: the longest interval is {longest:g} s. Take a shorter one."
        )
    if window.around is None:
        raise UsageError(
            f"No window of {window} lies in observed time{where}: the longest interval is "
            f"{longest:g} s, but no unit is observed throughout a window"
            + (" whose history it may see." if dataset.history_may_cross else ".")
            + " Take shorter windows, or other units."
        )
    events = sum(one.events for one in laid)
    raise UsageError(
        f"No window of {window} lies in observed time{where}: of "
        f"{counted(events, 'event')}, none has a whole window around it. Take shorter ones, or "
        "other events."
    )
