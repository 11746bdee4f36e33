"""Pictures of a session: raster and PSTH."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from neurostore.errors import UsageError
from neurostore.figures._picture import (
    INK,
    MARK,
    PALETTE,
    REST,
    Floats,
    Picture,
    empty,
    picture,
    plain,
)
from neurostore.store import Session

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

VECTOR = 3_000
"""Spikes above which they are drawn as pixels: a path a spike would make the page heavy."""

DENSE = 20_000
"""Spikes above which those of a PSTH are drawn thinner and fainter, or all would be black."""


def raster(session: Session, start: float, stop: float, *, intervals: str = "trials") -> Picture:
    """Draw the spikes of all units in [start, stop), coloured by region, trials behind them.

    Parameters
    ----------
    start, stop : float
        Seconds on the session clock.
    intervals : str
        Interval table whose rows are shaded, where the session has it.

    Raises
    ------
    UsageError
        Where [start, stop) is empty or the session has no units.
    MissingExtraError
        Where matplotlib is not installed.
    """
    figure = empty(7.4, 4.4)
    if not stop > start or "units" not in session.tables or not session.units.sizes["unit"]:
        raise UsageError(
            f"A raster needs units and a start before its stop, found {session.id!r} with tables "
            f"{list(session.tables)} from {start:g} s to {stop:g} s."
        )
    axes = figure.add_subplot()
    marked = _shade(axes, session, start, stop, intervals)
    drawn, regions = _draw_units(axes, session.slice(start, stop))
    units = session.units.sizes["unit"]
    axes.set(xlim=(start, stop), ylim=(units - 0.5, -0.5))
    axes.set(xlabel="Time in session (s)", ylabel="Unit, by region" if regions else "Unit")
    plain(axes)
    _legend(axes, regions, intervals.removesuffix("s") if marked else "")
    said = f"{drawn:,} spikes of {units:,} units of {session.id}, {start:g} to {stop:g} s"
    shaded = f"; shaded: rows of {intervals}" if marked else ""
    where = f" in {', '.join(regions)}" if regions else ""
    return picture(figure, f"Raster: {said}{where}.", f"{said}{shaded}.")


def psth(
    session: Session,
    unit: str,
    times: ArrayLike,
    *,
    window: tuple[float, float] = (-0.5, 1.0),
    bin: float = 0.02,
    event: str = "event",
) -> Picture:
    """Draw the spikes of one unit around every event, and below their mean rate with its SEM.

    Parameters
    ----------
    unit : str
        Id of the unit.
    times : (trial,) float64
        Seconds on the session clock; NaN is left out.
    window : (float, float)
        Seconds around the event.
    bin : float
        Seconds.
    event : str
        What the event is called on the axis.

    Raises
    ------
    UsageError
        Where no time is finite, or the window holds no bin.
    MissingExtraError
        Where matplotlib is not installed.
    """
    figure = empty(5.4, 4.8)
    table = session.psth(unit, times, window=window, bin=bin)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _draw_trials(above, session.spike_times(unit), table["event"].values, window)
    _draw_rate(below, table, bin)
    for axes in (above, below):
        axes.axvline(0, color=PALETTE[1], linewidth=1.2, linestyle=(0, (4, 3)))
        plain(axes)
    below.set(xlim=window, ylabel="Rate (spikes/s)")
    below.set_xlabel(f"Time from {event} (s)", parse_math=False)
    region = _regions(session).get(unit, "")
    trials = table.sizes["trial"]
    place = f" ({region})" if region else ""
    above.set_title(f"Unit {unit}{place}, {trials:,} trials", parse_math=False)
    said = f"Unit {unit} of {session.id} around {event}: {trials:,} trials"
    peak = f"The mean rate peaks at {float(table['rate_hz'].max()):.1f} spikes per second."
    how = f"mean rate in bins of {bin * 1000:g} ms, band: standard error of the mean."
    return picture(figure, f"{said}. {peak}", f"{said}; {how}")


def _regions(session: Session) -> dict[str, str]:
    """Region of every unit; empty where the session has none."""
    units = session.units
    ids = [str(unit) for unit in units["unit"].values]
    if "region" not in units:
        return dict.fromkeys(ids, "")
    return dict(zip(ids, (str(name) for name in units["region"].values), strict=True))


def _colours(regions: Sequence[str]) -> dict[str, str]:
    """Give the regions with most units a colour each, the rest share grey."""
    names = sorted(set(regions) - {""}, key=lambda name: (-regions.count(name), name))
    return dict(zip(names, PALETTE, strict=False))


def _draw_units(axes: Axes, view: Session) -> tuple[int, dict[str, str]]:
    """Draw one row a unit, sorted by region; how many spikes, and the colour of every region."""
    regions = list(_regions(view).values())
    colours = _colours(regions)
    drawn = np.array([name if name in colours else "other" for name in regions])
    order = np.lexsort((drawn, drawn == "other"))
    row = np.argsort(order)
    spikes = view.spikes
    time, unit = spikes["time"].values, spikes["unit"].values.astype(np.int64)
    shown: dict[str, str] = {}
    for name in dict.fromkeys(drawn[order].tolist()):
        mine = drawn[unit] == name
        colour = colours.get(name, REST)
        shown[f"{name} ({np.count_nonzero(drawn == name)})"] = colour
        axes.plot(
            time[mine],
            row[unit[mine]],
            "|",
            color=colour,
            markersize=min(max(220 / len(row), 1.0), 9.0),
            markeredgewidth=0.7,
            rasterized=len(time) > VECTOR,
        )
    return len(time), shown if colours else {}


def _shade(axes: Axes, session: Session, start: float, stop: float, intervals: str) -> bool:
    """Shade the valid rows of an interval table that reach into [start, stop), if there are any."""
    if f"intervals/{intervals}" not in session.tables:
        return False
    table = session.intervals[intervals]
    first, last = table["start"].values, table["stop"].values
    inside = table["valid"].values & (last > start) & (first < stop)
    for low, high in zip(first[inside], last[inside], strict=True):
        axes.axvspan(low, high, color=MARK, linewidth=0, zorder=0)
        axes.axvline(low, color="#BBBBBB", linewidth=0.6, zorder=0)
    return bool(inside.any())


def _legend(axes: Axes, regions: dict[str, str], shaded: str) -> None:
    """Name the colours beside the axes, in the order of the rows."""
    from matplotlib.patches import Patch

    # With a blank ahead, for matplotlib leaves out what starts with "_".
    patches = [Patch(color=colour, label=f" {name}") for name, colour in regions.items()]
    if shaded:
        patches.append(Patch(facecolor=MARK, edgecolor="#BBBBBB", label=f" {shaded}"))
    if not patches:
        return
    legend = axes.legend(
        handles=patches,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=9,
        handlelength=1.0,
        handletextpad=0.4,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_trials(axes: Axes, spikes: Floats, events: Floats, window: tuple[float, float]) -> None:
    """Draw one row a trial: the spikes (spike,) seconds around every event (trial,) seconds."""
    first, last = (np.searchsorted(spikes, events + edge) for edge in window)
    counts = last - first
    rows = np.repeat(np.arange(len(events)), counts)
    # Positions in `spikes` of all rows end to end.
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    x = spikes[np.repeat(first, counts) + within] - events[rows]
    size = min(max(160 / len(events), 1.0), 7.0)
    faint = min(1.0, (DENSE / max(len(x), 1)) ** 0.5)
    many = len(x) > VECTOR
    axes.plot(x, rows, "|", color=INK, markersize=size, mew=faint, alpha=faint, rasterized=many)
    axes.set(ylim=(len(events) - 0.5, -0.5), ylabel="Trial")


def _draw_rate(axes: Axes, table: xr.Dataset, bin: float) -> None:
    """Draw the mean rate in steps, one a bin, with a band of one SEM on both sides."""
    time, rate, sem = (table[name].values for name in ("time", "rate_hz", "sem"))
    sem = np.nan_to_num(sem)  # one trial has none
    edges = np.append(time, time[-1] + bin) - bin / 2
    low, high = (np.append(level, level[-1]) for level in (rate - sem, rate + sem))
    axes.fill_between(edges, low, high, step="post", color=PALETTE[0], alpha=0.25, linewidth=0)
    axes.stairs(rate, edges, baseline=None, color=PALETTE[0], linewidth=1.4)
    axes.set_ylim(bottom=0)
