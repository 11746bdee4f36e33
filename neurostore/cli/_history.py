"""Commands on the history of a store: read, compared, and brought back; and where its bytes go."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import tyro

import neurostore
from neurostore.cli._print import print_json, print_made, say
from neurostore.cli._words import DONE, At, Id, Url
from neurostore.store._when import is_date, shown

if TYPE_CHECKING:
    from neurostore.store import Store

TAGS = 8
"""Tags that a line names."""
Ref = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="REF")]


def opened(url: str, at: str | None, allow_damaged: bool = False) -> Store:
    """A store at a tag, snapshot or date; of a date it is said which snapshot that is."""
    store = neurostore.open(url, at, allow_damaged=allow_damaged)
    if at is not None:
        _say_date(store, at)
    return store


def _say_date(store: Store, ref: str) -> None:
    if not is_date(ref):
        return
    (found,) = store.log(1)
    if ref not in found.tags:
        say(f"{ref} is {found.snapshot} of {shown(found.time)}", error=True)


def log(
    url: Url,
    limit: int = 20,
    since: str | None = None,
    until: str | None = None,
    session: str | None = None,
    at: At = None,
    json: bool = False,
) -> int:
    """Show the history of a store, newest first: who changed what, when and why.

    Args:
        url: The store.
        limit: At most so many commits, at least 1.
        since: Not before this date (UTC), e.g. 2026-11-21 or 2026-11-21T10:00, or with a zone of
            its own: 2026-11-21T10:00+01:00.
        until: Not after this date (UTC).
        session: Only commits that touched this session, under names that it had before too.
        at: The history of a tag, snapshot or date instead of the newest one.
        json: Print it as JSON.
    """
    store = opened(url, at)
    commits = store.log(limit, since=since, until=until, session=session)
    if json:
        print_json([one.to_json() for one in commits])
        return DONE
    for one in commits:
        tags = f"  [{', '.join(one.tags)}]" if one.tags else ""
        who = f"{one.author}@{one.host}  neurostore {one.version}"
        say(f"{one.snapshot}  {shown(one.time)}  {who}{tags}\n    {one.message}")
        for line in one.words:
            say(f"        {line}")
    if commits and session is None:
        _say_expired(store, commits[-1].snapshot)
    return DONE


def _say_expired(store: Store, last: str) -> None:
    """What was before the last commit that is shown, where an expiry ended the history there."""
    ends = [one for one in store.expiries if last in one["begins"]]
    if not ends or store.log()[-1].snapshot != last:
        return
    when = shown(datetime.fromisoformat(ends[0]["time"]))
    who = f"{ends[0]['author']}@{ends[0]['host']} on {when}"
    say(f"What was before {last} has gone: neurostore expire, by {who}.")
    if tags := store._older_tags():
        some = [f"{name} of {shown(one.time)}" for name, one in tags.items()]
        more = f" and {len(some) - TAGS:,} more" if len(some) > TAGS else ""
        see = shlex.join([store.url, "--at", next(iter(tags))])
        say(f"Tags hold older snapshots: {', '.join(some[:TAGS])}{more}. See: neurostore log {see}")


def diff(
    url: Url,
    a: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="A")],
    b: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[B]")] = None,
    sessions: Annotated[
        list[str] | None, tyro.conf.arg(metavar="SESSION...", aliases=["--session"])
    ] = None,
    json: bool = False,
) -> int:
    """Say what differs between two snapshots: units, spikes and seconds of every session, tables.

    Args:
        url: The store.
        a: A tag, a snapshot or a date.
        b: Another one; the newest snapshot without it.
        sessions: Ids; everything, with splits and stimuli, without.
        json: Print it as JSON.
    """
    store = opened(url, b)
    _say_date(store.at(a), a)
    print_made(store.diff(a, sessions=sessions), json)
    return DONE


def restore(
    url: Url,
    ref: Ref,
    session: str | None = None,
    table: Annotated[list[str], tyro.conf.arg(metavar="TABLE...")] = [],  # noqa: B006
    message: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Bring back a session, tables of it, or everything, as it was; in a new commit.

    Args:
        url: The store.
        ref: A tag, a snapshot or a date.
        session: Its id; everything without.
        table: Only these tables of the session.
        message: Of the commit.
        dry_run: Say what would be done and how many bytes it writes, do nothing.
        json: Print what was done as JSON.
    """
    store = neurostore.open(url)
    _say_date(store.at(ref), ref)
    made = store.restore(ref, session, table or None, message, dry_run=dry_run)
    print_made(made, json)
    return DONE


def rename(
    url: Url,
    old: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OLD")],
    new: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NEW")],
    subject: bool = False,
    with_splits: bool = False,
    message: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Give a session another id, or a subject another name; older snapshots keep the old one.

    Args:
        url: The store.
        old: Id of the session; name of the subject.
        new: The other one.
        subject: Rename a subject, in all sessions that have it.
        with_splits: Make a next version of the splits that name the session.
        message: Of the commit.
        dry_run: Say what would be done and how many bytes it writes, do nothing.
        json: Print what was done as JSON.
    """
    store = neurostore.open(url)
    if subject:
        made = store.rename_subject(old, new, message, dry_run=dry_run)
    else:
        made = store.rename(old, new, message, with_splits=with_splits, dry_run=dry_run)
    print_made(made, json)
    return DONE


def delete(
    url: Url,
    session: Id,
    message: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Take a session out of the store; older snapshots keep it, and restore brings it back.

    Args:
        url: The store.
        session: Its id, <dataset>/<session>.
        message: Of the commit.
        dry_run: Say what would be done, do nothing.
        json: Print what was done as JSON.
    """
    made = neurostore.open(url).delete(session, message, dry_run=dry_run)
    print_made(made, json)
    return DONE


def merge(
    url: Url,
    into: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="INTO")],
    other: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FROM")],
    message: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Merge a session into another one of the same clock: other units, another probe.

    Args:
        url: The store.
        into: Id of the session that stays.
        other: Id of the session that goes into it.
        message: Of the commit.
        dry_run: Say what would be done and how many bytes it writes, do nothing.
        json: Print what was done as JSON.
    """
    made = neurostore.open(url).merge(into, other, message, dry_run=dry_run)
    print_made(made, json)
    return DONE


def lineage(
    url: Url,
    session: Id,
    table: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[TABLE]")] = None,
    at: At = None,
    json: bool = False,
) -> int:
    """Say how the tables of a session were made: from what, by what, by whom and when.

    Args:
        url: The store.
        session: Its id, <dataset>/<session>.
        table: Only this one.
        at: A tag, snapshot or date instead of the newest snapshot.
        json: Print it as JSON.
    """
    found = opened(url, at).lineage(session, table)
    made = found if isinstance(found, list) else [found]
    if json:
        print_json([one.to_json() for one in made])
        return DONE
    for one in made:
        say(str(one))
    return DONE


def du(url: Url, at: At = None, json: bool = False) -> int:
    """Say where the bytes of a store go: by session and table, history, and what all share.

    Args:
        url: The store, in a local folder.
        at: A tag, snapshot or date instead of the newest snapshot.
        json: Print it as JSON.
    """
    found = opened(url, at).du()
    if json:
        print_json(found.to_json())
    else:
        say(str(found))
    return DONE
