"""Commands on what names snapshots: tags, which never move, and branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import tyro

from neurostore.cli._history import opened
from neurostore.cli._print import print_json, say
from neurostore.cli._words import DONE, At, Url
from neurostore.errors import UsageError, counted
from neurostore.store._when import shown

if TYPE_CHECKING:
    from neurostore.store._versions import Commit

Name = Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")]


def tag(
    url: Url,
    name: Name = None,
    at: At = None,
    delete: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Name a snapshot for good, a tag never moves; list tags; take one away.

    Args:
        url: The store.
        name: Letters, digits, dots and dashes; all tags are listed without it.
        at: A snapshot or date; the newest snapshot without it.
        delete: Take it away; its name is never free again.
        dry_run: With --delete: say which commits it alone holds, do nothing.
        json: Print tags, or the commits that only the deleted one held, as JSON.
    """
    _refuse_mixed("tag", name, at, delete, dry_run)
    store = opened(url, at)
    if name is not None and delete:
        _say_deleted("tag", name, store.delete_tag(name, dry_run=dry_run), dry_run, json)
        return DONE
    if name is not None:
        store.tag(name)
    found = store.tags if name is None else {name: store.snapshot}
    if json:
        print_json(found)
    elif name is None:
        _list(found)
    else:
        say(f"{name} is {store.snapshot}. Read it: neurostore sessions {url} --at {name}")
    return DONE


def branch(
    url: Url,
    name: Name = None,
    at: At = None,
    delete: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Begin a branch, whose commits leave the others alone; list branches; take one away.

    Args:
        url: The store.
        name: Letters, digits, dots and dashes; all branches are listed without it.
        at: A tag, snapshot or date where it begins; the newest snapshot without it.
        delete: Take it away; commits that nothing else holds cannot be reached any more.
        dry_run: With --delete: say which commits it alone holds, do nothing.
        json: Print branches, or the commits that only the deleted one held, as JSON.
    """
    _refuse_mixed("branch", name, at, delete, dry_run)
    store = opened(url, at)
    if name is not None and delete:
        _say_deleted("branch", name, store.delete_branch(name, dry_run=dry_run), dry_run, json)
        return DONE
    if name is not None:
        store.branch(name)
    if json:
        print_json(store.branches)
    else:
        _list(store.branches)
    return DONE


def _refuse_mixed(kind: str, name: str | None, at: str | None, delete: bool, dry_run: bool) -> None:
    if (dry_run and not delete) or (delete and (name is None or at is not None)):
        raise UsageError(f"--delete takes the name of a {kind}, --dry-run goes with it, --at not.")


def _list(found: dict[str, str]) -> None:
    for name, snapshot in found.items():
        say(f"{snapshot}  {name}")


def _say_deleted(kind: str, name: str, alone: Sequence[Commit], dry_run: bool, json: bool) -> None:
    if json:
        print_json({kind: name, "dry_run": dry_run, "alone": [one.to_json() for one in alone]})
        return
    for commit in alone:
        say(f"{commit.snapshot}  {shown(commit.time)}  {commit.message}")
    of = f"{counted(len(alone), 'commit')} that nothing else holds"
    if dry_run:
        say(f"{name} would be deleted, with {of}. Dry run: nothing was done.")
    else:
        more = " No other tag can be called so." if kind == "tag" else ""
        say(f"{name} is deleted, with {of}.{more}")
