"""Whether a dataset is the one that a run was made from, and in what it is not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from neurostore import sample

BOUND = (
    *("sessions", "window", "streams", "acquisition", "split", "label", "history_may_cross"),
    "causal",
)
"""What of a dataset's identity a run is bound to; later commits may change the snapshot."""

_UNSAID: Mapping[str, Any] = {
    "acquisition": "All",
    "history_may_cross": False,
    "dropout": None,
    "missing": "mask",
    "weight": None,
    "causal": False,
}


def settled(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity as this version writes it: what an earlier one could not say is its default."""
    made = {**_UNSAID, **identity}
    if isinstance(made.get("streams"), Mapping):
        made["streams"] = {name: _stream(one) for name, one in made["streams"].items()}
    return made


def _stream(said: Any) -> Any:
    """A stream with the defaults of its class for what is not said; of a class of ours."""
    kind = getattr(sample, str(said.get("kind")), None) if isinstance(said, Mapping) else None
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return said
    unsaid = {
        one.name: list(one.default) if isinstance(one.default, tuple) else one.default
        for one in fields(kind)
        if one.default is not MISSING
    }
    return {**unsaid, **said}


def differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], parts: Sequence[str]
) -> Iterator[str]:
    """What is not the same, a line each."""
    ours, theirs = settled(ours), settled(theirs)
    for part in parts:
        if part == "sessions":
            yield from _sessions_differ(ours["sessions"], theirs["sessions"])
        elif ours.get(part) != theirs.get(part):
            yield f"{part} was {_short(ours.get(part))}, found {_short(theirs.get(part))}"


def _sessions_differ(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    for id in ours.keys() - theirs.keys():
        yield f"session {id} is not there"
    for id in theirs.keys() - ours.keys():
        yield f"session {id} was not there"
    for id in sorted(ours.keys() & theirs.keys()):
        mine, other = ours[id]["units"], theirs[id]["units"]
        if mine != other:
            lost, new = sorted({*mine} - {*other}), sorted({*other} - {*mine})
            yield (
                f"units of {id} were {len(mine)}, found {len(other)} (gone: "
                f"{', '.join(lost[:5]) or 'none'}; new: {', '.join(new[:5]) or 'none'})"
            )
        tables, others = ours[id]["tables"], theirs[id]["tables"]
        for table in sorted({*tables, *others}):
            if tables.get(table) != others.get(table):
                yield (
                    f"table {table} of {id} was {_short(tables.get(table))}, found "
                    f"{_short(others.get(table))}"
                )


def _short(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text[:12] if len(text) == 64 and " " not in text else text
