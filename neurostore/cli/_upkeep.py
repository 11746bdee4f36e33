"""Commands that take something away: garbage, old history, a session for good."""

from __future__ import annotations

import re
from datetime import timedelta

import neurostore
from neurostore.cli._print import print_json, say
from neurostore.cli._words import DONE, REFUSED, Id, Url
from neurostore.errors import UsageError, counted
from neurostore.store._when import instant, shown


def gc(url: Url, older_than: str = "7d", dry_run: bool = False, json: bool = False) -> int:
    """Remove files that no snapshot reaches: dropped transactions, killed writers, lost history.

    Args:
        url: The store.
        older_than: The grace period: 7d, 12h, 30m or 0d; younger files stay.
        dry_run: Count them, remove nothing.
        json: Print what was found as JSON.
    """
    done = neurostore.open(url).gc(older_than=_span(older_than), dry_run=dry_run)
    if json:
        print_json({"dry_run": dry_run, **done.to_json()})
        return DONE
    kinds = done.files.items()
    files = ", ".join(counted(count, kind.removesuffix("s")) for kind, count in kinds if count)
    what = "would be removed" if dry_run else "removed"
    before = f"older than {shown(done.before)}"
    say(f"{files or 'Nothing'} {what}, {size(done.bytes)} ({before}).")
    for one in done.held:
        say(
            f"    held back: all that is younger than the transaction of {one.who}, open since "
            f"{shown(one.begun)}"
        )
    return DONE


def expire(
    url: Url,
    before: str | None = None,
    keep: int | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Take old commits out of the history; what tags and branches name stays.

    Args:
        url: The store.
        before: Commits before this date (UTC) go, e.g. 2026-01-31 or 2026-01-31T12:00.
        keep: So many of the newest commits stay, instead of a date.
        dry_run: Say what would go, change nothing.
        json: Print it as JSON.
    """
    store = neurostore.open(url)
    until = None if before is None else instant(before, end=False)
    done = store.expire(before=until, keep=keep, dry_run=dry_run)
    if json:
        print_json({"dry_run": dry_run, **done.to_json()})
        return DONE
    for one in done.commits:
        say(f"{one.snapshot}  {shown(one.time)}  {one.message}")
    for kept in done.stays:
        say(f"stays: {kept}")
    of = "bytes unknown" if done.bytes is None else f"{size(done.bytes)} nothing else reaches"
    what = counted(len(done.commits), "commit")
    if dry_run:
        say(f"{what} would go out of the history, {of}. Dry run: nothing was changed.")
    elif done.commits:
        say(f"{what} went out of the history, {of}. Free them: neurostore gc {url}")
    else:
        say("No commit went out of the history.")
    return DONE


def erase(
    url: Url,
    session: Id,
    with_splits: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    json: bool = False,
) -> int:
    """Remove one session for good, with all history that holds it, and prove that it is gone.

    Args:
        url: The store, on a local disk.
        session: Its id, <dataset>/<session>.
        with_splits: Delete versions of splits that name it; a next one is made without it.
        dry_run: Say what would be lost, change nothing.
        yes: Needed to erase: there is no way back.
        json: Print it as JSON.
    """
    store = neurostore.open(url)
    if not dry_run and not yes:
        raise UsageError(
            f"Erasing {session} cannot be undone. See what is lost: --dry-run; then say --yes."
        )
    done = store.erase(session, with_splits=with_splits, dry_run=dry_run)
    if json:
        print_json({"dry_run": dry_run, **done.to_json()})
        return REFUSED if done.found else DONE
    would = "would be " if dry_run else ""
    for one in done.commits:
        say(f"{would}lost from the history: {one.snapshot}  {one.message}")
    for name in (*done.tags, *done.splits):
        say(f"{would}deleted: {'split' if name.startswith('/') else 'tag'} {name}")
    if dry_run:
        say(f"{session} has {counted(done.chunks, 'chunk')}. Dry run: nothing was changed.")
        return DONE
    for where in done.found:
        say(f"still found: {where}", error=True)
    what = f"{counted(done.files, 'file')}, {size(done.bytes)}, searched for its names and its "
    what += f"{counted(done.chunks, 'chunk')} ({done.shared:,} with the same bytes as others')"
    if done.found:
        say(f"{session} is out of the store, but not gone: {what}.", error=True)
        return REFUSED
    say(f"{session} is erased: {what}; nothing was found.")
    return DONE


def size(bytes: int) -> str:
    """Bytes in the largest unit of which there is one."""
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if bytes >= one:
            return f"{bytes / one:.3g} {unit}"
    return counted(bytes, "byte")


def _span(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([dhms])", text)
    if found is None:
        raise UsageError(f"--older-than is 7d, 12h, 30m or 0d, found {text!r}.")
    unit = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}[found[2]]
    return timedelta(**{unit: float(found[1])})
