"""The page of a run: its scores beside their baselines, what it read, and how it was fitted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from neurostore import figures
from neurostore.errors import UsageError
from neurostore.evaluate import Scores
from neurostore.report._page import bullets, grid, many, page, scored, section, write
from neurostore.runs import Run

FEW = 20
"""Blocks below which an interval drawn from them is coarse."""


def run_page(run: Run, scores: Scores, path: str | Path, *, title: str | None = None) -> Path:
    """Write the page of a run, and the same numbers as JSON beside it.

    Parameters
    ----------
    path : str or Path
        The HTML file; the JSON file has the same name with ``.json``.

    Returns
    -------
    Path
        Where the page lies.
    """
    path = Path(path)
    if path.suffix != ".html":
        raise UsageError(f"The page of a run is an .html file, found {path.name!r}.")
    said = scores.to_json()
    name = title or f"{run.recipe.title or run.recipe.name}"
    parts = [
        _header(run, said, name),
        section("Scores", _scores(said)),
        section("Pictures", _pictures(run, said)),
        section("By unit", _units(said)),
        section("What it read", _data(run, said)),
        section("Recipe", _recipe(run)),
    ]
    about = {"run": run.facts, "recipe": run.recipe.to_json(), "metrics": _metrics(run), **said}
    write(path.with_suffix(".json"), json.dumps(about, indent=1, allow_nan=False))
    return write(path, page(name, "".join(parts)))


def _header(run: Run, said: Mapping[str, Any], title: str) -> str:
    model = said["models"][0]
    best = said["models"][said["baseline"]]
    beside = ""
    if (gain := best["difference"]) is not None:
        beside = (
            f"; {escape(best['name'])}: {scored(best['bits_per_spike'])}, difference "
            f"{scored(gain['bits_per_spike'], gain['interval'], sign=True)}"
        )
    return (
        f"<h1>{escape(title)}</h1><p><b>{scored(model['bits_per_spike'], model['interval'])} bits "
        f'per spike</b>{beside}.<br><span class="soft">Run <code>{escape(run.id)}</code>, '
        f"{many(said['windows'], 'window')} of {escape(said['label'])} in "
        f"{many(said['blocks'], 'block')}. {escape(_why(said))}</span></p>"
    )


def _why(said: Mapping[str, Any]) -> str:
    """What the intervals are, or why there is none."""
    if (reason := said["reasons"].get("bits_per_spike")) is not None:
        return f"No score: {reason}."
    if (reason := said["reasons"].get("bits_per_spike_interval")) is not None:
        return f"No intervals: {reason}."
    if said["blocks"] < FEW:
        return f"95 % intervals over {said['blocks']} blocks: few, take them as coarse."
    return "95 % intervals over blocks."


def _scores(said: Mapping[str, Any]) -> str:
    heads = ["Model", "What it is", "#Bits per spike", "#Model minus it", "#No top unit"]
    heads += ["#Median unit", "#Mean unit", "#Correlation"]
    rows = [_score_row(one) for one in said["models"]]
    return grid(heads, rows) + f'<p class="soft">{_note(said)}</p>{_left_out(said)}'


def _note(said: Mapping[str, Any]) -> str:
    """What the columns are measured against."""
    note = f"Null: {escape(said['null'])}. {escape(said['rules'])}"
    if (nlb := said["nlb_bits_per_spike"]) is not None:
        note += f" Against the mean of the evaluated time (nlb_tools), all units: {scored(nlb)}."
    if (ceiling := said["ceiling"]) is not None:
        zero = said["ceilings_at_zero"]
        note += (
            f" Correlation: median over {many(said['correlated'], 'unit')} of counts of a horizon; "
            f"were they Poisson, a perfect rate would reach {scored(ceiling)} ("
            f"{many(zero, 'unit')} at 0: counts that vary no more than Poisson counts do)."
        )
    return note


def _left_out(said: Mapping[str, Any]) -> str:
    left = said["left_out"]
    counts = (
        f"{many(said['scored'], 'unit')} scored ({said['spikes_scored']:,} of {said['spikes']:,} "
        f"spikes), {len(left)} left out for fewer than 20 spikes in training or here"
    )
    if not left:
        return f'<p class="soft">{counts}.</p>'
    names = escape(", ".join(map(str, left)))
    return f'<details><summary class="soft">{counts}</summary><p>{names}</p></details>'


def _score_row(one: Mapping[str, Any]) -> list[str]:
    difference = one["difference"]
    gain = (
        ""
        if difference is None
        else scored(difference["bits_per_spike"], difference["interval"], sign=True)
    )
    return [
        escape(one["name"]),
        escape(one["about"]),
        scored(one["bits_per_spike"], one["interval"]),
        gain,
        *(scored(one[key]) for key in ("without_top_unit", "median_unit", "mean_unit")),
        scored(one["correlation"]),
    ]


def _pictures(run: Run, said: Mapping[str, Any]) -> str:
    baseline, windows = said["models"][said["baseline"]]["name"], said["examples"]
    drawn = [figures.training(lines)] if (lines := _metrics(run)) else []
    if said["units"]:
        drawn.append(figures.bits_by_unit(said["units"], baseline))
    above = "".join(one.html() for one in drawn)
    below = figures.examples(windows, windows[0]["beside"]).html() if windows else ""
    return f'<div class="figures">{above}</div><div class="figures broad">{below}</div>'


def _units(said: Mapping[str, Any]) -> str:
    baseline = said["models"][said["baseline"]]["name"]
    heads = ["Unit", "#Spikes", "#Bits per spike", f"#{baseline}"]
    rows = [
        [
            escape(str(one["unit"])),
            f"{one['spikes']:,}",
            scored(one["bits_per_spike"], one["interval"]),
            scored(one["baseline"]),
        ]
        for one in said["units"]
    ]
    return f"<details><summary>{many(len(rows), 'unit')}</summary>{grid(heads, rows)}</details>"


def _data(run: Run, said: Mapping[str, Any]) -> str:
    identity = run.identity
    units = sum(len(one["units"]) for one in identity["sessions"].values())
    cross = identity["history_may_cross"]
    rows = [
        ["Store", f"<code>{escape(str(identity['url']))}</code>"],
        ["Snapshot", f"<code>{escape(str(identity['snapshot']))}</code>"],
        ["Sessions", escape(", ".join(identity["sessions"]))],
        ["Units", f"{units:,}"],
        ["Split", f"<code>{escape(str(identity['split'])[:12])}</code> {escape(said['split'])}"],
        ["History", "may cross the blocks of the split" if cross else "inside the target's block"],
        ["Seed", escape(str(run.recipe.seed))],
        ["Environment", escape(_environment(run.facts["environment"]))],
        ["Run", f"<code>{escape(str(run.folder))}</code>"],
    ]
    return grid(["What", "Value"], rows)


def _metrics(run: Run) -> list[dict[str, Any]]:
    """One line an epoch; what was not measured is None."""
    lines = run.metrics().to_dict("records")
    return [{str(k): None if v != v else v for k, v in line.items()} for line in lines]


def _environment(said: Mapping[str, Any]) -> str:
    shown = ("neurostore", "torch", "lightning-fabric", "numpy", "python", "platform")
    return ", ".join(f"{name} {said[name]}" for name in shown if said.get(name))


def _recipe(run: Run) -> str:
    rows = [
        [escape(key), f"<code>{escape(str(value))}</code>", escape(origin)]
        for key, (value, origin) in run.recipe.origins.items()
        if key.partition(".")[0] != "reference"  # scores of another run
    ]
    cited = [run.recipe.citation] if run.recipe.citation else []
    table = grid(["Key", "Value", "From"], rows)
    shown = f"<details><summary>{many(len(rows), 'value')}</summary>{table}</details>"
    return bullets(escape(one) for one in cited) + shown
