"""The page of an experiment: every model in every setting, with intervals and differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from neurostore import figures
from neurostore.report._page import grid, many, page, scored, section, write


def experiment_page(table: Mapping[str, Any], path: str | Path) -> Path:
    """Write the page of what `neurostore.experiments.run` gives.

    Returns
    -------
    Path
        Where it lies.
    """
    rows: Sequence[Mapping[str, Any]] = table["rows"]
    pooled = table["pooled over"]
    grid_said = "; ".join(f"{key}: {', '.join(map(str, v))}" for key, v in table["grid"].items())
    parts = [
        f"<h1>{escape(table['title'])}</h1><p>Recipe {escape(table['recipe'])}; {escape(grid_said)}"
        f'{"" if pooled is None else f"; pooled over {escape(pooled)}"}.<br><span class="soft">'
        f"Store <code>{escape(table['store'])}</code>, snapshot "
        f"<code>{escape(table['snapshot'])}</code></span></p>"
    ]
    for stride in dict.fromkeys(row["stride"] for row in rows):
        mine = [row for row in rows if row["stride"] == stride]
        parts.append(section(f"A window every {stride:g} s", _scores(mine)))
    parts.append(section("What was set", _set(table)))
    return write(Path(path), page(table["title"], "".join(parts)))


def _scores(rows: Sequence[Mapping[str, Any]]) -> str:
    drawn = [
        {
            "setting": row["setting"] or "all",
            "model": one["name"],
            "bits_per_spike": one["bits_per_spike"],
            "interval": one["interval"],
        }
        for row in rows
        for one in row["models"]
        if one["bits_per_spike"] is not None
    ]
    heads = ["Setting", "Model", "What it is", "#Bits per spike", "#Model minus it"]
    heads += ["#No top unit", "#Median unit", "#Correlation"]
    first = rows[0]
    left = ", ".join(map(str, first["left_out"][:12]))
    note = (
        f"{many(first['windows'], 'window')} in {many(first['blocks'], 'block')}. Null: "
        f"{escape(first['null'])}. {many(first['scored'], 'unit')} scored, "
        f"{len(first['left_out'])} left out for fewer than 20 spikes"
        f"{f': {escape(left)}' if left else ''}. {escape(first['rules'])}"
    )
    table = grid(heads, [_row(row, one) for row in rows for one in row["models"]])
    picture = figures.models(drawn).html() if drawn else ""
    return f'{table}<p class="soft">{note}</p><div class="figures broad">{picture}</div>'


def _row(row: Mapping[str, Any], one: Mapping[str, Any]) -> list[str]:
    gain = one["difference"]
    return [
        escape(row["setting"] or "all"),
        escape(one["name"]),
        escape(one["about"]),
        scored(one["bits_per_spike"], one["interval"]),
        "" if gain is None else scored(gain["bits_per_spike"], gain["interval"], sign=True),
        *(scored(one[key]) for key in ("without_top_unit", "median_unit", "correlation")),
    ]


def _set(table: Mapping[str, Any]) -> str:
    rows = [[escape(key), f"<code>{escape(str(one))}</code>"] for key, one in table["set"].items()]
    if table["overrides"]:
        rows.append(["Command line", f"<code>{escape(' '.join(table['overrides']))}</code>"])
    return grid(["Key", "Value"], rows)
