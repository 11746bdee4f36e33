"""A snapshot by its date: the newest one that is not later."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from neurostore.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from neurostore.store._forms import Form
    from neurostore.store._versions import Commit

_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)([T ]\d\d(?::?\d\d)?(?::?\d\d(?:\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?"
)


def is_date(ref: str) -> bool:
    """Whether a reference is written as a date or a date-time."""
    return _DATE.fullmatch(ref) is not None


def instant(ref: str, *, end: bool = True) -> datetime:
    """The moment that a date-time names; of a date alone the last one of the day, or the first.

    Without a zone it is of the local one.

    Raises
    ------
    UsageError
        Where there is no such date.
    """
    found = _DATE.fullmatch(ref)
    try:
        if found is None:
            raise ValueError("it is not written as 2026-11-21 or 2026-11-21T10:00")
        day, time, zone = found[1], found[2], found[3] or ""
        if time:
            return datetime.fromisoformat(f"{day}{time}{zone}").astimezone()
        midnight = datetime.fromisoformat(day) + timedelta(days=1 if end else 0)
        moment = datetime.fromisoformat(f"{midnight.isoformat()}{zone}").astimezone()
        return moment - _LEAST if end else moment
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{ref!r} is no date: {error}.") from error


_LEAST = timedelta(microseconds=1)


def commit_at(form: Form, ref: str) -> Commit:
    """The newest commit that is not later than a date.

    Raises
    ------
    NotFoundError
        Where the store is younger, or what it knows of its history is.
    """
    until, first = instant(ref), ""
    for commit in form.versions.log(form.head()):
        if commit.time <= until:
            return commit
        first = f"{commit.time.astimezone():%Y-%m-%dT%H:%M:%S}"
    where = f"{form.place.url}, whose history begins at {first}"
    raise NotFoundError("snapshot not later than", ref, [first], where)


def resolve(form: Form, ref: str) -> str:
    """The snapshot of a tag, a branch, a snapshot id or its unique start, or of a date.

    A tag that is named like a date is meant ahead of the date.
    """
    if not is_date(ref):
        return form.versions.resolve(ref)
    try:
        return form.versions.resolve(ref)
    except NotFoundError:
        return commit_at(form, ref).snapshot
