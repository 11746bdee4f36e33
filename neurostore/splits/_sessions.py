"""Splits that deal out whole sessions, or whole subjects: what is tested was never seen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import floor

from neurostore.errors import JSON, UsageError, counted
from neurostore.splits._blocks import assembled
from neurostore.splits._ratios import SHARES, Number, said, weights
from neurostore.splits._split import Split
from neurostore.splits._timeline import Timeline, checked


def by_session(
    name: str,
    timelines: Timeline | Iterable[Timeline],
    *,
    ratios: Mapping[str, Number] = SHARES,
    rotation: int = 0,
    seed: int = 0,
) -> Split:
    """Whole sessions dealt to the labels, as near to the ratios as whole ones come.

    Sessions stand in an order that depends on the seed and their ids. The labels follow one another
    in the order of the ratios, each once for every session it gets, shifted by `rotation` sessions
    to later ones. A session is one row, from its first observed tick to its last one.

    Parameters
    ----------
    name, timelines
        As for `interleaved_blocks`.
    ratios : mapping of str to float
        Shares of the sessions: ``{"train": 0.7, "validation": 0.1, "test": 0.2}``.
    rotation : int
        Of as many as there are sessions, each makes other sessions test.
    seed : int
        Of the order.

    Raises
    ------
    UsageError
        Where there are fewer sessions than labels with a ratio above 0.
    """
    chosen, definition = checked(timelines), _definition("by_session", ratios, rotation, seed)
    return _dealt(name, chosen, definition, _session, _shared(ratios), rotation, seed)


def by_subject(
    name: str,
    timelines: Timeline | Iterable[Timeline],
    *,
    ratios: Mapping[str, Number] = SHARES,
    rotation: int = 0,
    seed: int = 0,
) -> Split:
    """Whole subjects dealt to the labels, each with all of its sessions; else as `by_session`.

    Subjects of one name in two data sets are two.

    Raises
    ------
    UsageError
        Where a session says no subject, or there are fewer subjects than labels.
    """
    chosen, definition = checked(timelines), _definition("by_subject", ratios, rotation, seed)
    return _dealt(name, chosen, definition, _subject, _shared(ratios), rotation, seed)


def leave_session_out(
    name: str,
    timelines: Timeline | Iterable[Timeline],
    *,
    rotation: int = 0,
    validation: int = 1,
) -> Split:
    """One session to test, the next ones to validate, all others to train.

    Over the rotations 0 to n - 1 each of n sessions, by id, is test exactly once.

    Parameters
    ----------
    name, timelines
        As for `interleaved_blocks`.
    rotation : int
        Which session is test, of all in the order of their ids.
    validation : int
        How many sessions validate.

    Raises
    ------
    UsageError
        Where no session is left to train, or there are no so many.
    """
    chosen = checked(timelines)
    return _left_out(name, chosen, "leave_session_out", _session, rotation, validation)


def leave_subject_out(
    name: str,
    timelines: Timeline | Iterable[Timeline],
    *,
    rotation: int = 0,
    validation: int = 1,
) -> Split:
    """One subject to test with all of its sessions; else as `leave_session_out`."""
    chosen = checked(timelines)
    return _left_out(name, chosen, "leave_subject_out", _subject, rotation, validation)


Key = Callable[[Timeline], str]


def _session(timeline: Timeline) -> str:
    return timeline.session


def _subject(timeline: Timeline) -> str:
    if not timeline.subject:
        raise UsageError(
            f"{timeline.session} says no subject; leave it out, or split by session instead."
        )
    dataset, _, _ = timeline.session.rpartition("/")
    return f"{dataset}/{timeline.subject}"


def _definition(
    made_by: str, ratios: Mapping[str, Number], rotation: int, seed: int
) -> dict[str, JSON]:
    made: dict[str, JSON] = {"made_by": made_by, "ratios": said(ratios)}
    return made | {"rotation": int(rotation), "seed": int(seed)}


Labels = Callable[[int, str], Sequence[str]]
"""From how many groups there are, and what they are, to the label of each."""


def _shared(ratios: Mapping[str, Number]) -> Labels:
    """Labels by largest remainder, each that has a ratio at least once."""
    shares = {label: share for label, share in weights(ratios).items() if share}

    def labels(groups: int, what: str) -> Sequence[str]:
        if groups < len(shares):
            raise UsageError(
                f"{counted(groups, what)} cannot be dealt to {', '.join(shares)}: each label needs "
                "one. Take more, or give a ratio of 0."
            )
        count = {label: max(1, floor(share * groups)) for label, share in shares.items()}
        while (left := groups - sum(count.values())) != 0:
            far = {label: shares[label] * groups - count[label] for label in shares}
            if left > 0:
                count[max(far, key=far.__getitem__)] += 1
            else:
                many = [label for label in shares if count[label] > 1]
                count[min(many, key=far.__getitem__)] -= 1
        return [label for label in shares for _ in range(count[label])]

    return labels


def _left_out(
    name: str, chosen: Sequence[Timeline], made_by: str, key: Key, rotation: int, validation: int
) -> Split:
    groups = len({key(one) for one in chosen})
    train = groups - 1 - validation
    if validation < 0 or train < 1:
        raise UsageError(
            f"One to test and {validation} to validate leave {train} of {groups} to train; both "
            "together must leave one at least."
        )
    if not 0 <= rotation < groups:
        raise UsageError(f"A rotation is one of 0 to {groups - 1} here, found {rotation}.")
    ratios = {"train": train, "validation": validation, "test": 1}
    definition: dict[str, JSON] = {"made_by": made_by, "ratios": said(ratios)}
    definition |= {"rotation": int(rotation), "validation": int(validation)}
    order = ["test"] + ["validation"] * validation + ["train"] * train
    return _dealt(name, chosen, definition, key, lambda groups, what: order, rotation, None)


def _dealt(
    name: str,
    chosen: Sequence[Timeline],
    definition: Mapping[str, JSON],
    key: Key,
    labels: Labels,
    rotation: int,
    seed: int | None,
) -> Split:
    """A row a session, with the label of its group."""
    groups = sorted({key(one) for one in chosen}, key=lambda group: _order(group, seed))
    dealt = labels(len(groups), "session" if key is _session else "subject")
    label = {one: dealt[(k - rotation) % len(groups)] for k, one in enumerate(groups)}
    rows = [
        (one.session, int(one.observed.start[0]), int(one.observed.stop[-1]), label[key(one)])
        for one in chosen
    ]
    return assembled(name, chosen, definition, rows)


def _order(group: str, seed: int | None) -> tuple[bytes, str]:
    """Where a group stands: by name, or by what the seed makes of it alone."""
    drawn = b"" if seed is None else hashlib.sha256(f"{seed} {group}".encode()).digest()
    return drawn, group
