"""Pictures of a run: how it was fitted, what it scores by unit, and what it predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neurostore.errors import UsageError, counted
from neurostore.figures._picture import INK, PALETTE, Picture, empty, picture, plain

MOST_UNITS = 60
"""Units drawn one by one, the ones with most spikes; a score of each stands in the table."""


def training(metrics: Sequence[Mapping[str, Any]]) -> Picture:
    """Draw the loss on training and validation windows by epoch.

    Parameters
    ----------
    metrics : sequence of mapping
        epoch, training_loss and validation_loss (nats a bin, or None), as a run keeps them.
    """
    if not metrics:
        raise UsageError("A training curve needs an epoch at least, found none.")
    figure = empty(5.4, 3.4)
    axes = figure.add_subplot()
    epochs = [int(one["epoch"]) + 1 for one in metrics]
    last = []
    for name, colour in (("training", PALETTE[0]), ("validation", PALETTE[1])):
        said = [(e, one[f"{name}_loss"]) for e, one in zip(epochs, metrics, strict=True)]
        points = [(e, float(loss)) for e, loss in said if loss is not None]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=3, label=name)
            last.append(f"{name} {points[-1][1]:.5f}")
    axes.set(xlabel="Epoch", ylabel="Loss (nats a bin)")
    axes.legend(frameon=False, fontsize=9)
    plain(axes)
    said_last = f"Loss after {counted(epochs[-1], 'epoch')}: {', '.join(last)} nats a bin"
    checked = [(float(loss), e) for e, loss in said if loss is not None]  # of validation, the last
    if checked and (best := min(checked)[1]) < epochs[-1]:
        said_last += f"; in validation it was lowest after {counted(best, 'epoch')}"
    return picture(figure, f"Training curve. {said_last}.", f"{said_last} (Poisson likelihood).")


def bits_by_unit(units: Sequence[Mapping[str, Any]], baseline: str) -> Picture:
    """Draw the bits per spike of every unit with its interval, beside a baseline.

    Parameters
    ----------
    units : sequence of mapping
        unit, spikes, bits_per_spike, interval (two numbers or None) and baseline (bits per spike).
    baseline : str
        What the baseline is called.
    """
    if not units:
        raise UsageError("No unit is scored: each has fewer spikes than a score needs.")
    most = sorted(units, key=lambda one: -int(one["spikes"]))[:MOST_UNITS]
    shown = sorted(most, key=lambda one: float(one["bits_per_spike"]))
    figure = empty(5.4, max(2.6, 0.9 + 0.14 * len(shown)))
    axes = figure.add_subplot()
    for row, one in enumerate(shown):
        if one["interval"] is not None:
            axes.plot(one["interval"], [row, row], color=PALETTE[0], alpha=0.45, linewidth=2)
    bits = [float(one["bits_per_spike"]) for one in shown]
    rows = np.arange(len(shown))
    axes.plot([one["baseline"] for one in shown], rows, "|", color=PALETTE[1], label=baseline, ms=7)
    axes.plot(bits, rows, "o", color=PALETTE[0], markersize=3.5, label="model")
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(rows, [str(one["unit"]) for one in shown], fontsize=7, parse_math=False)
    axes.set(xlabel="Bits per spike", ylim=(-0.8, len(shown) - 0.2))
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    plain(axes)
    left = (
        f" (the {len(shown)} with most spikes of {len(units)})" if len(units) > len(shown) else ""
    )
    above = sum(float(one["bits_per_spike"]) > float(one["baseline"]) for one in shown)
    said = f"{above} of {len(shown)} units{left} score above the {baseline}"
    bars = any(one["interval"] is not None for one in shown)
    over = "Bars: 95 % interval over blocks; " if bars else ""
    caption = f"{said}. {over}0 is the null, the training-mean rate."
    return picture(figure, f"Bits per spike by unit. {said}.", caption)


def examples(windows: Sequence[Mapping[str, Any]], baseline: str) -> Picture:
    """Draw predicted against recorded counts of every unit, a panel a window.

    Parameters
    ----------
    windows : sequence of mapping
        session, start, recorded, predicted and baseline: counts (unit,) over the horizon.
    """
    if not windows:
        raise UsageError("There is no window to draw.")
    figure = empty(11.0, 3.4)
    panels = figure.subplots(1, len(windows), squeeze=False)[0]
    for axes, one in zip(panels, windows, strict=True):
        predicted = np.array(one["predicted"], dtype=np.float64)
        order = np.argsort(-predicted, kind="stable")[:MOST_UNITS]
        unit = np.arange(len(order))
        mean = predicted[order]
        low, high = np.maximum(0, mean - 2 * np.sqrt(mean)), mean + 2 * np.sqrt(mean)
        axes.fill_between(unit, low, high, step="mid", color=PALETTE[0], alpha=0.2, linewidth=0)
        axes.step(unit, mean, where="mid", color=PALETTE[0], label="predicted")
        other = np.array(one["baseline"], dtype=np.float64)[order]
        axes.step(unit, other, where="mid", color=PALETTE[1], linewidth=0.9, label=baseline)
        recorded = np.array(one["recorded"], dtype=np.float64)[order]
        axes.plot(unit, recorded, "o", color=INK, markersize=3, label="recorded")
        axes.set_title(f"{one['session']} at {one['start']:.2f} s", fontsize=9, parse_math=False)
        axes.set(xlabel="Unit, by prediction")
        axes.tick_params(labelbottom=False, bottom=False)
        plain(axes)
    panels[0].set(ylabel="Spikes in the horizon")
    panels[-1].legend(frameon=False, fontsize=8)
    said = f"Counts of the horizon in {len(windows)} windows, predicted and recorded"
    return picture(figure, f"{said}.", f"{said}. Band: two standard deviations of a Poisson count.")


def models(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Draw the bits per spike of models with their intervals, settings apart by colour.

    Parameters
    ----------
    rows : sequence of mapping
        setting, model, bits_per_spike and interval (two numbers or None).
    """
    if not rows:
        raise UsageError("There is no score to draw.")
    settings = list(dict.fromkeys(str(one["setting"]) for one in rows))
    names = list(dict.fromkeys(str(one["model"]) for one in rows))
    figure = empty(7.4, 1.0 + 0.12 * len(names) * (len(settings) + 2))
    axes = figure.add_subplot()
    for one in rows:
        place = settings.index(str(one["setting"]))
        shift = (place - (len(settings) - 1) / 2) * 0.7 / max(1, len(settings))
        row = names.index(str(one["model"])) + shift
        colour = PALETTE[place % len(PALETTE)]
        if one["interval"] is not None:
            axes.plot(one["interval"], [row, row], color=colour, alpha=0.45, linewidth=2)
        label = str(one["setting"]) if one["model"] == names[0] else None
        axes.plot(one["bits_per_spike"], row, "o", color=colour, markersize=4, label=label)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set(xlabel="Bits per spike", ylim=(len(names) - 0.4, -0.6))
    plain(axes)
    if len(settings) > 1:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    said = f"Bits per spike of {len(names)} models in {len(settings)} settings"
    return picture(figure, f"{said}.", f"{said}. Bars: 95 % interval over blocks; 0 is the null.")
