"""One HTML file that stands on its own: its look, its policy, its tables; written whole."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import neurostore

PAGE = "report.html"
"""Where the page of a run lies in its folder."""

DIGITS = 3
"""Digits after the point of a score."""

WORDS = dict.fromkeys(("Regions", "Message", "What it is", "Value", "Recipe"), "words")
"""Columns of a table that hold running text, and their class."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5a6475; --line: #d9dee6;
  --page: #f6f7f9; --card: #ffffff; --accent: #0060a0; --warn: #9a4a00; --bad: #b00020; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #a3adbd; --line: #343c4a;
  --page: #14181f; --card: #1c222c; --accent: #6cb8f0; --warn: #f0a860; --bad: #ff8095; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 0.75rem; }
h3 { font-size: 1rem; margin: 1rem 0 0.25rem; overflow-wrap: anywhere; }
section > :last-child { margin-bottom: 0; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem 1.1rem; margin: 1.1rem 0; }
code { font: 0.9em ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
.soft, figcaption, caption { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
th, td { text-align: left; vertical-align: top; padding: 0.4rem 0.7rem; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-weight: 600; white-space: normal; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.name { font-weight: 600; }
td.words { min-width: 14rem; white-space: normal; overflow-wrap: anywhere; }
.tag { display: inline-block; border: 1px solid var(--accent); color: var(--accent);
  border-radius: 1em; padding: 0 0.6em; margin-right: 0.3em; font-size: 0.85em; }
ul { margin: 0.25rem 0; padding-left: 1.2rem; }
li { margin: 0.35rem 0; overflow-wrap: anywhere; }
.critical { color: var(--bad); font-weight: 600; }
.violation { color: var(--warn); font-weight: 600; }
.suggestion { color: var(--soft); font-weight: 600; }
.figures { display: flex; flex-wrap: wrap; gap: 1.25rem; }
figure { margin: 0; flex: 1 1 22rem; }
figure:first-child { flex: 1.5 1 34rem; }
figure img { display: block; width: 100%; max-width: 46rem; height: auto; background: #ffffff;
  border-radius: 6px; }
.broad { margin-top: 1.25rem; }
.broad img, .broad figcaption { max-width: none; }
figcaption { font-size: 0.9rem; margin-top: 0.4rem; max-width: 46rem; }
a { color: var(--accent); }
@media (max-width: 40rem) { main { padding: 0.75rem 0.6rem 2rem; } section { padding: 0.8rem; }
  figure, figure:first-child { overflow-x: auto; flex: 1 1 100%; }
  figure img { max-width: none; width: 30rem; } }
"""


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out rows of escaped cells; a head with a leading ``#`` is a column of numbers."""
    kinds = ["number" if head.startswith("#") else WORDS.get(head, "") for head in heads]
    kinds[0] = "name"
    head = "".join(
        f'<th scope="col" class="{kind}">{escape(text.removeprefix("#"))}</th>'
        for text, kind in zip(heads, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{kind}">{cell}</td>' for cell, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    )
    made = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{made}</div>'


def bullets(items: Iterable[str]) -> str:
    """Escaped items as a list."""
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def section(title: str, body: str) -> str:
    """A card with a heading."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def scored(
    value: float | None, interval: Sequence[float] | None = None, *, sign: bool = False
) -> str:
    """A score with its interval, ``0.752 [0.698, 0.811]``; a dash where there is none."""
    if value is None:
        return "–"
    ends = ", ".join(scored(one, sign=sign) for one in interval or ())
    text = f"{value:{'+' if sign else ''}z.{DIGITS}f}".replace("-", "−")
    return f"{text} [{ends}]" if ends else text


def many(count: int, noun: str) -> str:
    """``1 unit``, ``2,000 units``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# ---- the file


def page(title: str, body: str) -> str:
    """Put the page together; its policy lets in pictures that are in it and its one style."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}; base-uri \'none\'">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n"
        f'<p class="soft">Written by neurostore {escape(neurostore.__version__)}.</p>\n'
        "</main>\n</body>\n</html>\n"
    )


def write(path: Path, text: str) -> Path:
    """Write beside `path` and rename, so that a reader never sees half a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(text.encode(errors="xmlcharrefreplace"))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path
