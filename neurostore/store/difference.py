"""`Difference`: what lies between two snapshots, session by session, in words and as JSON."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from neurostore.errors import JSON, counted

Pair: TypeAlias = tuple[Any, Any]
"""What a thing was before, and what it is after; None where it is not there."""
What: TypeAlias = Literal["added", "removed", "changed", "renamed", "rewritten", "fitted again"]
SHOWN = 8
"""Ids and attributes that a line names; JSON has all."""
NAMED = 3
"""Units in which something differs that a line names; JSON has all."""
_DIGEST = re.compile(r"[0-9a-f]{32,}")


@dataclass(frozen=True)
class Moved:
    """The spikes of units that both snapshots have, told apart by unit and tick.

    Attributes
    ----------
    same, gone, new : int
        Spikes that are in both, only before, only after.
    units : int
        How many units both have.
    why_not : str
        Why nothing was compared; empty where it was.
    by_unit : mapping of unit id to (gone, new)
        Of those that differ.
    """

    same: int = 0
    gone: int = 0
    new: int = 0
    units: int = 0
    why_not: str = ""
    by_unit: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The share of the spikes before that are not there after, 0 to 1."""
        return self.gone / (self.gone + self.same) if self.gone else 0.0

    def to_json(self) -> dict[str, JSON]:
        """As a plain mapping."""
        said: dict[str, JSON] = {"same": self.same, "gone": self.gone, "new": self.new}
        differ: dict[str, JSON] = {
            id: {"gone": gone, "new": new} for id, (gone, new) in self.by_unit.items()
        }
        said |= {"units": self.units, "share": self.share, "why_not": self.why_not}
        return {**said, "by_unit": differ}

    def words(self, some: bool) -> str:
        """In a few words; `some` where there are units that only one side has."""
        if self.why_not:
            return f"not compared: {self.why_not}"
        if not (self.gone or self.new):
            return ""
        of = f" of the {counted(self.units, 'unit')} in both" if some else ""
        where = f" (in {_named([*self.by_unit])})"
        if self.gone == self.new:
            return f"{_share(self.share)} of spikes{of} moved{where}"
        gone = f"{counted(self.gone, 'spike')}{of} gone ({_share(self.share)})"
        return f"{gone}, {self.new:,} new{where}"


@dataclass(frozen=True)
class TableDifference:
    """One table of a session.

    Attributes
    ----------
    was : str
        Its name before, where a feature was fitted again under another one.
    rows : (int or None, int or None)
        Before and after.
    columns_added, columns_removed : tuple of str
    values : mapping of column to (changed, compared)
        How many values differ, of how many that both have: of the same units or electrodes, else
        of the same rows.
    attributes : mapping of name to (before, after)
        Of the table, of its columns (``value.units``) and of its lineage
        (``lineage.parameters.sigma``).
    ids : tuple of str
        Units or electrodes of which a value differs.
    """

    name: str
    what: What
    rows: Pair
    was: str = ""
    columns_added: tuple[str, ...] = ()
    columns_removed: tuple[str, ...] = ()
    values: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    attributes: Mapping[str, Pair] = field(default_factory=dict)
    ids: tuple[str, ...] = ()

    def to_json(self) -> dict[str, JSON]:
        """As a plain mapping."""
        return {
            "name": self.name,
            "what": self.what,
            "was": self.was,
            "rows": _pair(self.rows),
            "columns_added": [*self.columns_added],
            "columns_removed": [*self.columns_removed],
            "values": {k: {"changed": n, "compared": of} for k, (n, of) in self.values.items()},
            "attributes": {key: _pair(pair) for key, pair in self.attributes.items()},
            "ids": [*self.ids],
        }

    def __str__(self) -> str:
        rows = _from_to("rows", self.rows)
        if self.what in ("added", "removed"):
            return f"{self.name} {self.what} ({rows})"
        parts = [rows] if self.rows[0] != self.rows[1] else []
        parts += [f"columns +{_some(self.columns_added)}"] if self.columns_added else []
        parts += [f"columns -{_some(self.columns_removed)}"] if self.columns_removed else []
        moved = [f"{key} {n:,} of {of:,}" for key, (n, of) in self.values.items() if n]
        where = f" (in {_named(self.ids)})" if self.ids else ""
        parts += [f"values changed: {_some(moved)}{where}"] if moved else []
        parts += _attributes(self.attributes)
        return f"{self.name} {self.what}: {'; '.join(parts) or 'written in another way'}"


@dataclass(frozen=True)
class SessionDifference:
    """One session.

    Attributes
    ----------
    was : str
        Its id before, where it was renamed.
    units, spikes, observed : (number or None, number or None)
        Before and after; `observed` in seconds.
    units_added, units_removed : tuple of str
        Unit ids.
    moved : Moved or None
        None where the spikes are the same ones, or only one side has spikes.
    tables : tuple of TableDifference
    attributes : mapping of name to (before, after)
        ``metadata.subject``, ``source.sha256``, ``clock.rate``, ...
    """

    id: str
    what: What
    units: Pair
    spikes: Pair
    observed: Pair
    was: str = ""
    units_added: tuple[str, ...] = ()
    units_removed: tuple[str, ...] = ()
    moved: Moved | None = None
    tables: tuple[TableDifference, ...] = ()
    attributes: Mapping[str, Pair] = field(default_factory=dict)

    def to_json(self) -> dict[str, JSON]:
        """As a plain mapping."""
        return {
            "id": self.id,
            "what": self.what,
            "was": self.was,
            "units": _pair(self.units),
            "units_added": [*self.units_added],
            "units_removed": [*self.units_removed],
            "spikes": _pair(self.spikes),
            "moved": None if self.moved is None else self.moved.to_json(),
            "observed": _pair(self.observed),
            "tables": [one.to_json() for one in self.tables],
            "attributes": {key: _pair(pair) for key, pair in self.attributes.items()},
        }

    @property
    def line(self) -> str:
        """The session in one line: units, spikes and seconds before and after."""
        if self.what in ("added", "removed"):
            side = self.what == "added"
            shape = f"units {self.units[side]:,}; spikes {self.spikes[side]:,}"
            return f"{self.id}: {self.what} ({shape}; observed {_seconds(self.observed[side])})"
        if self.what == "rewritten":
            return f"{self.id}: written again, with the same content"
        if self.was:  # its attributes stand in lines of their own
            sizes = self._sizes() if self.tables else []
            return f"{self.was} → {self.id}: {'; '.join(['renamed', *sizes, *self._others()])}"
        said = [*self._sizes(), *_attributes(self.attributes), *self._others()]
        return f"{self.id}: {'; '.join(said)}"

    def _sizes(self) -> list[str]:
        if self.units == self.spikes == (0, 0) and self.observed[0] == self.observed[1]:
            return []
        units, spikes = _from_to("units", self.units), _from_to("spikes", self.spikes)
        sides = (("+", self.units_added), ("-", self.units_removed))
        ids = [f"{sign}{len(some):,}: {_some(some)}" for sign, some in sides if some]
        if ids:
            units = f"units {self.units[0]:,} → {self.units[1]:,} ({'; '.join(ids)})"
        moved = "" if self.moved is None else self.moved.words(bool(ids))
        spikes += f", {moved}" if moved else ""
        before, after = self.observed
        same = before == after
        long = f"{_seconds(before)} unchanged" if same else f"{_seconds(before)} → "
        return [units, spikes, f"observed {long}" + ("" if same else _seconds(after))]

    def _others(self) -> list[str]:
        names = [f"{one.name} {one.what}" for one in self._told()]
        return [_some(names)] if names else []

    def _told(self) -> list[TableDifference]:
        """The tables that the line does not tell already."""
        return [one for one in self.tables if not self._said(one)]

    def _said(self, one: TableDifference) -> bool:
        if one.name == "spikes":
            return self.moved is not None
        if one.name == "intervals/observed":
            return bool(self.observed[0] != self.observed[1])
        if one.name != "units" or one.what != "changed":
            return False
        changed = any(n for key, (n, _) in one.values.items() if key != "n_spikes")
        return not (changed or one.columns_added or one.columns_removed or one.attributes)

    def lines(self) -> Iterator[str]:
        """The line, and one for each table that it names."""
        yield self.line
        if self.what in ("changed", "renamed"):
            yield from (f"    {one}" for one in self._told())
            if self.was:
                yield from (f"    {one}" for one in _attributes(self.attributes))


@dataclass(frozen=True)
class SharedDifference:
    """A version of a split, a stimulus, or a version of an embedding, by its path."""

    path: str
    what: What
    rows: Pair
    digest: Pair

    def to_json(self) -> dict[str, JSON]:
        """As a plain mapping."""
        said: dict[str, JSON] = {"path": self.path, "what": self.what}
        return {**said, "rows": _pair(self.rows), "digest": _pair(self.digest)}

    def __str__(self) -> str:
        return f"{self.path}: {self.what} ({_from_to('rows', self.rows)})"


@dataclass(frozen=True)
class Difference:
    """What lies between two snapshots of one store.

    Attributes
    ----------
    before, after : str
        The snapshots.
    sessions : tuple of SessionDifference
        By id; what is the same is not among them.
    splits, stimuli : tuple of SharedDifference
    unchanged : int
        Sessions that are the same in both.
    """

    before: str
    after: str
    sessions: tuple[SessionDifference, ...] = ()
    splits: tuple[SharedDifference, ...] = ()
    stimuli: tuple[SharedDifference, ...] = ()
    unchanged: int = 0

    def __bool__(self) -> bool:
        return bool(self.sessions or self.splits or self.stimuli)

    def to_json(self) -> dict[str, JSON]:
        """As a plain mapping."""
        return {
            "before": self.before,
            "after": self.after,
            "sessions": [one.to_json() for one in self.sessions],
            "splits": [one.to_json() for one in self.splits],
            "stimuli": [one.to_json() for one in self.stimuli],
            "unchanged": self.unchanged,
        }

    def lines(self) -> Iterator[str]:
        """For people: the snapshots, what differs, and how many sessions are the same."""
        yield f"{self.before} → {self.after}"
        for one in self.sessions:
            yield from one.lines()
        yield from map(str, (*self.splits, *self.stimuli))
        yield f"{counted(self.unchanged, 'session')} unchanged"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        return f"<Difference {self}>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


# ---- words


def _pair(pair: Pair) -> list[JSON]:
    return [pair[0], pair[1]]


def _from_to(what: str, pair: Pair) -> str:
    before, after = pair
    if before is None or after is None:
        return f"{what} {before if after is None else after:,}"
    if before == after:
        return f"{what} {after:,} unchanged"
    return f"{what} {before:,} → {after:,} ({after - before:+,})"


def _seconds(value: float) -> str:
    return f"{value:,.3f}".rstrip("0").rstrip(".") + " s"


def _share(value: float) -> str:
    """A share in percent, with two digits that count."""
    return f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:.0f} %"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _named(ids: Sequence[str]) -> str:
    more = f" and {counted(len(ids) - NAMED, 'other')}" if len(ids) > NAMED else ""
    return ", ".join(ids[:NAMED]) + more


def _attributes(attributes: Mapping[str, Pair]) -> list[str]:
    made = [f"{key} {_said(before)} → {_said(after)}" for key, (before, after) in _n(attributes)]
    more = len(attributes) - len(made)
    return made + ([f"{counted(more, 'attribute')} more"] if more > 0 else [])


def _n(attributes: Mapping[str, Pair]) -> list[tuple[str, Pair]]:
    return list(attributes.items())[:SHOWN]


def _said(value: Any) -> str:
    if value is None:
        return "(none)"
    text = str(value)
    if _DIGEST.fullmatch(text):
        return f"{text[:8]}…"
    return text if len(text) <= 40 else f"{text[:39]}…"
