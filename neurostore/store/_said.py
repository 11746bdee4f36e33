"""What a store says of its sessions, splits and stimuli, held against the form it must have.

A checksum tells only that it is what somebody wrote. Whoever wrote it may have meant harm, or have
been another program: everything above may rely on the types and bounds that are checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from math import isfinite
from typing import Any

from neurostore.clocks import FASTEST, exact
from neurostore.errors import DamagedError, Finding, UsageError
from neurostore.store._damage import WAY_OUT
from neurostore.store._format import segment

Check = Callable[[Any], bool]

MOST = 1 << 48
"""Rows, spikes or frames that anything has."""
_FAR = 1 << 62


def check_attrs(path: str, attrs: Mapping[str, Any]) -> None:
    """The attributes of a session, a split, a stimulus or an embedding, its row among them.

    Raises
    ------
    DamagedError
        Where they do not lie as format 1 says, or not where their id says.
    """
    kind = path.partition("/")[0]
    if kind == "stimuli" and "/embeddings/" in path:
        kind = "embeddings"
    if kind not in _ATTRS:
        return
    _hold(path, attrs, _ATTRS[kind])
    row = attrs["row"]
    _hold(f"the row of {path}", row, _ROW)
    if kind == "sessions":
        _hold(f"the row of {path}", row, _SESSION_ROW)
        if not _text(attrs.get("source_dataset", "")):
            raise _wrong(path, "source_dataset", attrs["source_dataset"])
        if attrs["source_key"]:
            _hold(f"the source of {path}", attrs["source"], {"url": _text, "sha256": _text})
    for name, entry in row["tables"].items():
        _hold(f"the entry of {name!r} in the row of {path}", entry, _ENTRY)
    expected = _path(kind, attrs)
    own = attrs["id"] if kind == "sessions" else f"/{path}"
    if row["id"] != attrs["id"] or attrs["id"] != own or expected != path:
        raise DamagedError(f"{attrs['id']!r:.200} does not lie at {path}. {WAY_OUT}")
    if kind != "sessions":
        return
    counted = {"n_units": "units", "n_spikes": "spikes", "n_trials": "intervals/trials"}
    for key, table in counted.items():
        found = row["tables"].get(table, {"rows": 0})["rows"]
        if row[key] != found:
            raise DamagedError(
                f"The row of {path} counts {row[key]:,} as {key}, {table!r} has {found:,} rows. "
                f"{WAY_OUT}"
            )


def check_table(where: str, attrs: Mapping[str, Any]) -> None:
    """The attributes of a table's group: what it is called, and where its samples and blocks lie.

    Raises
    ------
    DamagedError
    """
    _hold(where, attrs, _TABLE)
    if "rate" in attrs:
        _hold(where, attrs, {"rate": _rate, "start": _tick})
    if "block" in attrs:
        _hold(f"'block' of {where}", attrs["block"], {"start": _tick, "length": _whole(1, _FAR)})
    if "shape" in attrs:
        _hold(where, attrs, {"shape": _nothing_or(_shape)})


def check_about(snapshot: str, about: Mapping[str, Any]) -> None:
    """What a commit carries.

    Raises
    ------
    DamagedError
    """
    _hold(f"commit {snapshot}", about, {"time": _time, "parent": _text})
    for key in ("author", "host", "version"):
        if not _text(about.get(key, "")):
            raise _wrong(f"commit {snapshot}", key, about[key])
    for key, good in _CHANGED.items():
        if not good(about.get(key, {})):
            raise _wrong(f"commit {snapshot}", key, about[key])
    totals = {"catalogue": "sessions", "split_catalogue": "splits", "stimulus_catalogue": "stimuli"}
    for key, of in totals.items():
        if key in about:
            _hold(f"{key!r} of commit {snapshot}", about[key], {of: _count, "sum": _hexadecimal})


def _hold(where: str, said: Any, checks: Mapping[str, Check]) -> None:
    if not isinstance(said, Mapping):
        raise DamagedError(f"{where} does not lie as format 1 says: {said!r:.100}. {WAY_OUT}")
    for key, good in checks.items():
        if key not in said or not good(said[key]):
            raise _wrong(where, key, said.get(key, "nothing"))


def _wrong(where: str, key: str, found: Any) -> DamagedError:
    return DamagedError(
        f"{where} does not lie as format 1 says: {key!r} is {found!r:.100}. {WAY_OUT}"
    )


def _path(kind: str, attrs: Mapping[str, Any]) -> str:
    """Where a thing that says this of itself lies."""
    if kind == "sessions":
        dataset, session = attrs["dataset"], attrs["session"]
        good = attrs["id"] == f"{dataset}/{session}" and "/" not in dataset
        return f"sessions/{segment(dataset)}/{segment(session)}" if good else "nowhere"
    if kind == "splits":
        return f"splits/{segment(attrs['split'])}/v{attrs['version']}"
    path = f"stimuli/{segment(attrs['stimulus'])}"
    if kind == "stimuli":
        return path
    return f"{path}/embeddings/{segment(attrs['encoder'])}/v{attrs['version']}"


# ---- what a value must be


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 1 << 20


def _name(value: Any) -> bool:
    return _text(value) and bool(value)


def _whole(least: int, most: int) -> Check:
    return lambda value: type(value) is int and least <= value <= most


_count = _whole(0, MOST)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _seconds(value: Any) -> bool:
    return _number(value) and abs(value) < 1e15


def _tick(value: Any) -> bool:
    try:
        return isinstance(value, int | str) and abs(int(str(value))) < _FAR
    except ValueError:
        return False


def _rate(value: Any) -> bool:
    if not (isinstance(value, str) or _number(value)) or len(str(value)) > 100:
        return False
    try:
        return 1 / FASTEST < exact(value) <= FASTEST
    except UsageError:
        return False


def _time(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _hexadecimal(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 64 and _is_hexadecimal(value)


def _is_hexadecimal(value: str) -> bool:
    return bool(value) and set(value) <= set("0123456789abcdef")


def _nothing_or(good: Check) -> Check:
    return lambda value: value is None or good(value)


def _list(good: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(good, value))


def _mapping(good: Check) -> Check:
    return lambda value: isinstance(value, Mapping) and all(map(good, value.values()))


def _anything(value: Any) -> bool:
    return True


_shape = _list(_whole(1, MOST))
_CHANGED: dict[str, Check] = {
    **dict.fromkeys(("sessions", "splits", "stimuli", "renamed"), _mapping(_text)),
    "tables": _mapping(_list(_text)),
    "sizes": _mapping(lambda value: _list(_count)(value) and len(value) == 2),
}
"""What a commit says that it changed."""


def _clock(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return _rate(value.get("rate")) and _text(value.get("origin"))


def _finding(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value.keys() <= Finding.__dataclass_fields__.keys():
        return False
    texts = ("check", "severity", "table", "variable", "message")
    numbers = _nothing_or(_whole(0, MOST))(value.get("row")) and _count(value.get("count", 1))
    free = all(_text(value.get(key, "")) for key in ("found", "expected"))
    return numbers and free and all(_text(value.get(key)) for key in texts)


_ATTRS: Mapping[str, Mapping[str, Check]] = {
    "sessions": {
        "id": _name,
        "dataset": _name,
        "session": _name,
        "metadata": _mapping(_anything),
        "source": _nothing_or(_mapping(_anything)),
        "source_key": _text,
        "clock": _clock,
        "notes": _list(_text),
        "findings": _list(_finding),
        "lineage": _mapping(_mapping(_anything)),
    },
    "splits": {
        "id": _name,
        "split": _name,
        "version": _whole(1, 1 << 31),
        "definition": _mapping(_anything),
        "labels": _list(_text),
        "digest": _hexadecimal,
    },
    "stimuli": {
        "id": _name,
        "stimulus": _name,
        "frames": _count,
        "rate": _nothing_or(_rate),
        "url": _text,
        "description": _text,
        "shape": _nothing_or(_shape),
        "digest": _hexadecimal,
    },
    "embeddings": {
        "id": _name,
        "stimulus": _name,
        "encoder": _name,
        "version": _whole(1, 1 << 31),
        "frames": _count,
        "dim": _count,
        "digest": _hexadecimal,
    },
}
_ROW: Mapping[str, Check] = {
    "id": _name,
    "tables": _mapping(_mapping(_anything)),
    "transaction": _text,
    "attributes": _hexadecimal,
    "digest": _hexadecimal,
    "checksum": _hexadecimal,
}
_SESSION_ROW: Mapping[str, Check] = {
    "dataset": _name,
    "session": _name,
    "subject": _nothing_or(_text),
    "species": _nothing_or(_text),
    "n_units": _count,
    "n_spikes": _count,
    "n_trials": _count,
    "start": _nothing_or(_seconds),
    "stop": _nothing_or(_seconds),
    "observed": _seconds,
    "regions": _list(_text),
    "findings": _count,
    "source": _text,
    "source_key": _text,
}
_ENTRY: Mapping[str, Check] = {
    "contract": _name,
    "rows": _count,
    "arrays": lambda value: _mapping(_hexadecimal)(value) and "" not in value,
    "metadata": _hexadecimal,
    "digest": _hexadecimal,
}
_TABLE: Mapping[str, Check] = {"name": _name, "contract": _name}
