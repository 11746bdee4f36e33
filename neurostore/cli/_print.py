"""How commands speak: lines, tables that fit the terminal, JSON without NaN."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from neurostore.errors import counted

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from neurostore.schemas import Finding


def console() -> Console:
    """The terminal as rich sees it."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def say(text: str, *, error: bool = False) -> None:
    """A line, on stderr where something is wrong."""
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


def print_findings(findings: Sequence[Finding]) -> None:
    """What is wrong, a line each; what is merely missing as a number."""
    grave = [one for one in findings if one.severity != "suggestion"]
    for finding in grave:
        say(f"    {finding}")
    if len(findings) > len(grave):
        more = counted(len(findings) - len(grave), "suggestion")
        say(f"    {more} (missing metadata and the like: neurostore show, or --json)")


def print_json(value: Any) -> None:
    """A value as JSON."""
    say(json.dumps(_plain(value), ensure_ascii=False, indent=2, allow_nan=False))


def print_made(made: Made, as_json: bool) -> None:
    """What a command made, in words or as JSON."""
    if as_json:
        print_json(made.to_json())
    else:
        say(str(made))


class Made(Protocol):
    """What says itself in both ways."""

    def to_json(self) -> Mapping[str, Any]:
        """As a plain mapping."""
        ...


def _plain(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a frame as plain mappings."""
    records: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return records


def print_table(frame: pd.DataFrame, what: str, *, least: int = 2) -> None:
    """A table that fits the terminal: numbers whole, ids whole if need be over two lines.

    The last columns are left out where they do not fit, but for the `least` first ones.
    """
    from rich.table import Table
    from rich.text import Text

    cells = {str(name): [_cell(value) for value in frame[name]] for name in frame}
    width, shown = console().width, list(cells)
    while len(shown) > least and _width(cells, shown) > width:
        shown.pop()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in shown:
        number = frame[name].dtype.kind in "iuf"
        table.add_column(
            name, justify="right" if number else "left", no_wrap=number, overflow="fold"
        )
    for row in range(len(frame)):
        table.add_row(*(Text(cells[name][row]) for name in shown))
    console().print(table)
    left = [name for name in cells if name not in shown]
    more = f"; not shown for want of width: {', '.join(left)} (--json has all)" if left else ""
    say(f"{counted(len(frame), what)}{more}")


def _width(cells: Mapping[str, Sequence[str]], shown: Sequence[str]) -> int:
    widest = [max([len(name), *map(len, cells[name])]) for name in shown]
    widest[0] = min(widest[0], 32)  # an id may break, other cells should not
    return sum(widest) + 2 * len(widest)


def _cell(value: Any) -> str:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value))
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:z,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
