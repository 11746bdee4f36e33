"""A picture of a dataset: what every session brings, and what it lacks."""

from __future__ import annotations

from collections.abc import Mapping

from neurostore.figures._picture import INK, MARK, PALETTE, REST, Picture, empty, picture, plain
from neurostore.sample import Description

MOST = 60
"""Sessions that are drawn, those with most windows."""


def dataset(parts: Mapping[str, Description]) -> Picture:
    """Draw the hours of every session by part of the split, its units, and what it lacks.

    Parameters
    ----------
    parts : mapping of str to Description
        ``{"train": dataset.describe(), ...}``.
    """
    rows: dict[str, dict[str, float]] = {}
    units: dict[str, int] = {}
    missing: dict[str, set[str]] = {}
    windows: dict[str, int] = {}
    for label, part in parts.items():
        for one in part.sessions:
            rows.setdefault(one.session, {})[label] = one.hours
            units[one.session] = one.units
            missing.setdefault(one.session, set()).update(one.missing)
            windows[one.session] = windows.get(one.session, 0) + one.windows
    shown = sorted(sorted(rows, key=windows.__getitem__, reverse=True)[:MOST])
    figure = empty(7.4, 1.1 + 0.3 * len(shown))
    axes = figure.add_subplot()
    colours = dict(zip(parts, [*PALETTE, *[REST] * len(parts)], strict=False))
    for place, session in enumerate(shown):
        left = 0.0
        for label, hours in rows[session].items():
            axes.barh(place, hours, left=left, color=colours[label], height=0.7, edgecolor=MARK)
            left += hours
        lacks = f"  lacks {', '.join(sorted(missing[session]))}" if missing[session] else ""
        said = f"  {units[session]:,} units, {windows[session]:,} windows{lacks}"
        axes.text(left, place, said, va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(shown)), shown)
    axes.invert_yaxis()
    axes.set_xlabel("hours in which windows lie")
    plain(axes)
    widest = max((sum(one.values()) for one in rows.values()), default=1.0)
    axes.set_xlim(0, widest * 1.7 or 1.0)
    for label, colour in colours.items():
        axes.barh([0], [0], color=colour, label=label)
    figure.legend(loc="outside upper right", ncols=len(parts), frameon=False, fontsize=9)
    total = sum(windows.values())
    left_out = f"; {len(rows) - len(shown)} more are not drawn" if len(rows) > len(shown) else ""
    caption = f"{len(rows)} sessions with {total:,} windows in all{left_out}."
    return picture(figure, f"Hours of {len(rows)} sessions by part of the split.", caption)
