"""A clone that is not finished is known as one: a small file beside the repository says so."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from neurostore.errors import MissingExtraError, counted
from neurostore.store._beside import FOLDER, beside
from neurostore.store.urls import Place

NAME = "cloning.json"


def begin(
    place: Place,
    source: str,
    count: int,
    where: str | None,
    sessions: Sequence[str] | None,
    tables: Sequence[str] | None,
) -> None:
    """Say that a clone of so many sessions of a source (``url@snapshot``) has begun."""
    of = {"source": source, "count": count, "where": where or ""}
    lists = {"sessions": list(sessions or ()), "tables": list(tables or ())}
    beside(place).write(NAME, json.dumps(of | lists, indent=1).encode())


def end(place: Place) -> None:
    """Say that it is finished."""
    beside(place).remove(NAME)


def said(place: Place) -> tuple[str, str] | None:
    """That a clone is not finished, and how it goes on; None of any other store."""
    try:
        data = beside(place).read(NAME)
    except MissingExtraError:  # of a bucket, which can be read without
        return None
    if data is None:
        return None
    what, of = f"{place.url} is an unfinished clone", _parsed(data)
    if of is None:
        return f"{what}; {FOLDER}/{NAME} does not say of what.", "Clone into a folder that is new."
    return (
        f"{what} of {counted(of['count'], 'session')} of {of['source']}.",
        f"Go on: {_command(place.url, of)}; or delete {FOLDER}/{NAME} in it, if it is to stay as "
        "it is.",
    )


def _parsed(data: bytes) -> Mapping[str, Any] | None:
    kinds = {"source": str, "count": int, "where": str, "sessions": list, "tables": list}
    try:
        of = json.loads(data)
        good = all(isinstance(of[key], kind) for key, kind in kinds.items())
    except (ValueError, KeyError, TypeError):
        return None
    return of if good else None


def _command(url: str, of: Mapping[str, Any]) -> str:
    words = ["clone", of["source"], url]
    words += ["--where", of["where"]] if of["where"] else []
    for key in ("sessions", "tables"):
        words += [f"--{key}", *map(str, of[key])] if of[key] else []
    return f"neurostore {shlex.join(words)}"
