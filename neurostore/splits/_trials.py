"""Splits by trial: in folds, so that each trial is test exactly once, alike in chosen columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from neurostore.errors import JSON, NotFoundError, UsageError, counted
from neurostore.splits._blocks import assembled
from neurostore.splits._ratios import SHARES, Number, said, weights
from neurostore.splits._split import Split
from neurostore.splits._timeline import Timeline, TrialRows, checked

TEST = "test"
"""The label that goes round the folds."""


def by_trial(
    name: str,
    timelines: Timeline | Iterable[Timeline],
    *,
    ratios: Mapping[str, Number] = SHARES,
    fold: int = 0,
    folds: int = 5,
    seed: int = 0,
    stratify: Sequence[str] = (),
) -> Split:
    """One row a valid trial, cut to observed time; over the folds each trial is test exactly once.

    Trials of a session are dealt to the folds at random within strata; the fold's own are test, the
    others are dealt to the other labels by their ratios. A trial without observed time is left out.

    Parameters
    ----------
    name, timelines
        As for `interleaved_blocks`; timelines with trials: ``session.timeline(trials="trials")``.
    ratios : mapping of str to float
        Shares of the trials: ``{"train": 0.7, "validation": 0.1, "test": 0.2}``. That of ``"test"``
        must be one part of `folds`.
    fold, folds : int
        Which fold is test, of how many.
    seed : int
        Of the deal; it depends on nothing else but the session's id and its trials.
    stratify : sequence of str
        Columns of the trials: each of their combinations is spread evenly over folds and labels.

    Raises
    ------
    UsageError
        Where there are no trials, two overlap, a column is unknown (then `NotFoundError`), or
        ratios and folds do not fit.
    """
    others = _other_labels(ratios, fold, folds)
    if seed < 0:
        raise UsageError(f"A seed is a whole number of 0 or more, found {seed}.")
    columns = [stratify] if isinstance(stratify, str) else [str(column) for column in stratify]
    chosen = checked(timelines)
    rows = [
        (timeline.session, start, stop, label)
        for timeline in chosen
        for start, stop, label in _rows(timeline, others, fold, folds, seed, columns)
    ]
    definition: dict[str, JSON] = {"made_by": "by_trial", "ratios": said(ratios)}
    definition |= {"fold": int(fold), "folds": int(folds), "seed": int(seed)}
    definition |= {"stratify": [*columns]}
    return assembled(name, chosen, definition, rows)


def _other_labels(ratios: Mapping[str, Number], fold: int, folds: int) -> dict[str, Fraction]:
    """The labels beside test, with their shares of the trials that are not test."""
    shares = weights(ratios)
    if TEST not in shares:
        raise NotFoundError("label", TEST, shares, "ratios of a split by trial")
    if folds < 2 or not 0 <= fold < folds:
        raise UsageError(f"A fold is one of 0 to folds - 1, found fold {fold} of {folds}.")
    if shares[TEST] != Fraction(1, folds):
        raise UsageError(
            f"{folds} folds make 1/{folds} of the trials test, the ratios say {shares[TEST]}. "
            f"Change one of them: folds={round(1 / shares[TEST]) if shares[TEST] else folds}?"
        )
    rest = 1 - shares.pop(TEST)
    return {label: share / rest for label, share in shares.items() if share}


def _rows(
    timeline: Timeline,
    others: Mapping[str, Fraction],
    fold: int,
    folds: int,
    seed: int,
    columns: Sequence[str],
) -> Iterable[tuple[int, int, str]]:
    trials, start, stop = _observed_trials(timeline)
    order = _dealt(timeline, trials, seed, columns)
    labels: dict[int, str] = dict.fromkeys(order[fold::folds], TEST)
    rest = [place for place, _ in enumerate(order) if place % folds != fold]
    labels |= dict(zip((order[place] for place in rest), _evenly(others, len(rest)), strict=True))
    return [(int(start[row]), int(stop[row]), labels[row]) for row in range(len(start))]


def _observed_trials(timeline: Timeline) -> tuple[NDArray[np.int64], ...]:
    """Row of the table (trial,), and first and last observed tick of each (trial,), by start."""
    trials = timeline.trials
    if trials is None:
        raise UsageError(
            f"The timeline of {timeline.session} has no trials: session.timeline(trials='trials')."
        )
    rows = np.flatnonzero(trials.valid)
    rows = rows[np.lexsort((rows, trials.start[rows]))]
    _refuse_overlap(timeline, trials, rows)
    pieces = [
        timeline.observed.between(start, max(start, stop))
        for start, stop in zip(trials.start[rows].tolist(), trials.stop[rows].tolist(), strict=True)
    ]
    seen = np.array([len(piece) > 0 for piece in pieces], dtype=bool)
    if not seen.any():
        raise UsageError(
            f"No trial of {timeline.session} can be split: of {len(trials.start):,} trials "
            f"{len(rows):,} are valid, and none of these holds observed time."
        )
    kept = [piece for piece in pieces if len(piece)]
    first = np.array([piece.start[0] for piece in kept], dtype=np.int64)
    last = np.array([piece.stop[-1] for piece in kept], dtype=np.int64)
    return rows[seen], first, last


def _refuse_overlap(timeline: Timeline, trials: TrialRows, rows: NDArray[np.int64]) -> None:
    bad = trials.start[rows[1:]] < trials.stop[rows[:-1]]
    if not bad.any():
        return
    at = int(np.argmax(bad))

    def said(row: int) -> str:
        ends = timeline.clock.seconds(np.array([trials.start[row], trials.stop[row]]))
        return f"trial {row} [{ends[0]:.6g}, {ends[1]:.6g}) s"

    raise UsageError(
        f"Trials of {timeline.session} overlap: {said(rows[at])} and {said(rows[at + 1])}, "
        f"{counted(int(bad.sum()), 'pair')} in all. A moment belongs to one label: split by "
        "blocks, or by trials that end before the next one starts."
    )


def _dealt(
    timeline: Timeline, rows: NDArray[np.int64], seed: int, columns: Sequence[str]
) -> list[int]:
    """Places in `rows`, stratum after stratum, at random within each."""
    words = np.frombuffer(hashlib.sha256(timeline.session.encode()).digest(), dtype="<u4")
    entropy = np.random.SeedSequence([seed, *words.tolist()])
    draw = np.random.Generator(np.random.PCG64(entropy)).random(len(rows))
    stratum = np.zeros(len(rows), dtype=np.int64)
    if columns:
        keys = [_values(timeline, column)[rows] for column in columns]
        texts = [tuple(str(value) for value in row) for row in zip(*keys, strict=True)]
        known = {key: code for code, key in enumerate(sorted(set(texts)))}
        stratum = np.array([known[key] for key in texts], dtype=np.int64)
    order: list[int] = np.lexsort((draw, stratum)).tolist()
    return order


def _values(timeline: Timeline, column: str) -> NDArray[np.object_]:
    known = {} if timeline.trials is None else timeline.trials.columns
    if column not in known:
        raise NotFoundError("column", column, known, f"the trials of {timeline.session}")
    return np.asarray(known[column]).astype(object)


def _evenly(shares: Mapping[str, Fraction], count: int) -> Iterable[str]:
    """`count` labels in turn: of each at every point as near its share as can be."""
    given = dict.fromkeys(shares, 0)
    for k in range(1, count + 1):
        label = max(shares, key=lambda one: shares[one] * k - given[one])
        given[label] += 1
        yield label
