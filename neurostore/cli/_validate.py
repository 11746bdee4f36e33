"""The command that holds a store, a file or a declaration against contracts, for people and CI."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from neurostore.cli._print import print_json, say
from neurostore.cli._words import DONE, REFUSED, At
from neurostore.errors import UsageError, counted

if TYPE_CHECKING:
    from neurostore.cli._checks import Checked, Rules
    from neurostore.schemas import Finding
    from neurostore.store import Fault, Store

Words = Annotated[list[str], tyro.conf.Positional, tyro.conf.arg(metavar="[TARGET]")]


def validate(
    target: Words = [],  # noqa: B006
    session: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ID", aliases=["--sessions"])] = (),
    at: At = None,
    dataset: str | None = None,
    fail_on: str | None = None,
    config: Path | None = None,
    junit: Path | None = None,
    list: bool = False,
    json: bool = False,
) -> int:
    """Check stores, files to be ingested, contracts, cards and recipes; reads every value.

    Args:
        target: A store, a recording, or a TOML file of one of these kinds; several of them. Words
            after a store that are ids of sessions choose those.
        session: Only these sessions of a store.
        at: A tag, snapshot or date of a store instead of the newest one.
        dataset: Of a recording, as ingest takes it.
        fail_on: The least severity that fails: critical, violation (as without it) or suggestion.
        config: File that chooses, ignores and relaxes checks; neurostore.toml or pyproject.toml.
        junit: Write JUnit XML here as well.
        list: Print every check with its severity and what it holds.
        json: Print the findings as JSON.
    """
    from neurostore.cli._checks import as_json, as_junit, check_target, find_rules

    rules = find_rules(config, fail_on)
    if list:
        return _list(json)
    if not target:
        raise UsageError("validate takes a store, a recording or a TOML file, found nothing.")
    targets, ids = _apart(target, session)
    checked = [check_target(one, ids, at, dataset, _with_progress) for one in targets]
    if junit is not None:
        junit.parent.mkdir(parents=True, exist_ok=True)
        junit.write_bytes(as_junit(checked, rules))
    if json:
        print_json(as_json(checked, rules))
    else:
        for one in checked:
            _say(one, rules)
    return REFUSED if any(one.failed(rules) for one in checked) else DONE


def _apart(words: Sequence[str], session: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Targets and ids of sessions: ``STORE SESSION...`` has both among its words."""
    first, *rest = words
    ids = [one for one in rest if _is_id(one)]
    if Path(first).suffix == ".toml" or Path(first).is_file():
        ids = []
    return [first, *(one for one in rest if one not in ids)], [*session, *ids]


def _is_id(word: str) -> bool:
    return (
        "/" in word[1:] and "://" not in word and not Path(word).exists() and word[0] not in "./~"
    )


def _say(checked: Checked, rules: Rules) -> None:
    faults = [one for one in checked.faults if rules.chosen(one)]
    by_path: dict[str, list[Fault]] = {id: [] for id in checked.items}
    for fault in faults:
        by_path.setdefault(fault.path, []).append(fault)
    for path, found in by_path.items():
        ok = "holds its contracts, unchanged since its commit"
        say(f"{path}: {counted(len(found), 'finding') if found else ok}")
        for fault in found:
            reason = rules.ignored(fault)
            milder = rules.relaxed(fault)
            relaxed = f" (here a {milder[0]}: {milder[1]})" if milder else ""
            when = " (found at its ingest)" if fault in checked.kept else ""
            ignored = f" (ignored: {reason})" if reason else ""
            say(f"    {fault.finding}{when}{relaxed}{ignored}")
            if fault.hint:
                say(f"        {fault.hint}")
    left = sum(bool(rules.ignored(one)) for one in faults)
    said = counted(len(faults), "finding") + (f", {left:,} of them ignored" if left else "")
    verdict = "fails" if checked.failed(rules) else "passes"
    say(f"{checked.target} ({checked.kind}): {said}; it {verdict}.")


def _list(json: bool) -> int:
    from neurostore.cli._checks import known

    if json:
        print_json([vars(one) for one in known().values()])
        return DONE
    width = max(map(len, known()))
    for one in known().values():
        say(f"{one.id:<{width}}  {one.severity:<10}  {one.line}")
    return DONE


def _with_progress(store: Store, ids: Sequence[str]) -> dict[str, list[Finding]]:
    if not sys.stderr.isatty():
        return store.validate(ids)
    from rich.console import Console
    from rich.progress import track

    found: dict[str, list[Finding]] = {}
    for id in track(ids, "validating", console=Console(stderr=True), transient=True):
        found |= store.validate([id])
    return found
