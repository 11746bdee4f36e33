"""Times as they are typed and shown, UTC where they carry no zone; a snapshot by its date."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from neurostore.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from neurostore.store._forms import Form
    from neurostore.store._versions import Commit

_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:([T ]\d\d(?::?\d\d)?)(:?\d\d(?:\.\d+)?)?)?(Z| UTC|[+-]\d\d:?\d\d)?"
)
_SNAPSHOT = re.compile(r"[0-9A-HJKMNP-TV-Z]{19}[0G]")
_LEAST = timedelta(microseconds=1)


def shown(moment: datetime) -> str:
    """A moment for people, to the second and in UTC; `instant` takes it as it is shown."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def is_date(ref: str) -> bool:
    """Whether a reference is written as a date or a date-time."""
    return _DATE.fullmatch(ref) is not None


def is_snapshot(ref: str) -> bool:
    """Whether a reference is written as the whole id of a snapshot."""
    return _SNAPSHOT.fullmatch(ref) is not None


def instant(ref: str, *, end: bool = True) -> datetime:
    """The moment that a date-time names, in UTC unless it carries a zone.

    Of a date alone it is the last one of the day, or the first; of a time to the second the last
    one of that second, or the first, so that a commit is found by the time that is shown of it.

    Raises
    ------
    UsageError
        Where there is no such date.
    """
    found = _DATE.fullmatch(ref)
    try:
        if found is None:
            raise ValueError("it is not written as 2026-11-21 or 2026-11-21T10:00")
        day, time, second = found[1], found[2], found[3] or ""
        zone = "Z" if found[4] in (None, " UTC") else found[4]
        said = datetime.fromisoformat(f"{day}{time or 'T00'}{second}{zone}").astimezone(UTC)
        whole = second and "." not in second
        long = timedelta(seconds=1 if whole else 0) if time else timedelta(days=1)
        return said + long - _LEAST if end and long else said
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{ref!r} is no date: {error}.") from error


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
        first = shown(commit.time)
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
