"""`Split`: rows of [start, stop) ticks with a label, over sessions; and `Part`, one label of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import exact
from neurostore.errors import JSON, NotFoundError, UsageError, counted
from neurostore.intervals import Intervals, Ticks
from neurostore.splits._plain import as_json, as_ticks, check_name, settings, size

Texts = NDArray[Any]
_TEXT = np.dtypes.StringDType()


@dataclass(frozen=True, eq=False)
class Split:
    """A named split: one row a block, sorted by session and start; rows of a session never overlap.

    Two splits are equal where name, definition and rows are.

    Parameters
    ----------
    name : str
        What people call it; without a slash, which parts name, version and label.
    definition : mapping
        How it was made, as JSON: the function, its arguments, clock and origin of every session.
    session : (row,) str
        Session ids.
    start, stop : (row,) int64
        First tick of the block on the session's clock, and first tick after.
    label : (row,) str
        ``"train"``, ``"validation"``, ``"test"``, ...
    version : int, optional
        Which version of this name it is in its store; None where it is in none.

    Raises
    ------
    UsageError
        Where columns differ in length, a row is empty, or two overlap; names them.
    """

    name: str
    definition: Mapping[str, JSON]
    session: Texts = field(repr=False)
    start: Ticks = field(repr=False)
    stop: Ticks = field(repr=False)
    label: Texts = field(repr=False)
    version: int | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "A split")
        columns = {
            "session": np.array([str(id) for id in self.session], dtype=_TEXT),
            "start": as_ticks(self.start, "start"),
            "stop": as_ticks(self.stop, "stop"),
            "label": np.array([str(label) for label in self.label], dtype=_TEXT),
        }
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise UsageError(f"Columns of split {self.name!r} need one length, found {lengths}.")
        for label in sorted({str(label) for label in columns["label"]}):
            check_name(label, "A label")
        rows = list(zip(columns["session"], columns["start"].tolist(), strict=True))
        order = np.array(sorted(range(len(rows)), key=rows.__getitem__), dtype=np.int64)
        for name, column in columns.items():
            column = column[order]
            column.setflags(write=False)
            object.__setattr__(self, name, column)
        object.__setattr__(self, "definition", as_json(self.definition, self.name))
        self._refuse_overlap()

    def _refuse_overlap(self) -> None:
        if (empty := self.stop <= self.start).any():
            row = int(np.argmax(empty))
            raise UsageError(f"{self._said(row)} is empty; a block needs start < stop.")
        same = self.session[1:] == self.session[:-1]
        if (bad := same & (self.start[1:] < self.stop[:-1])).any():
            row = int(np.argmax(bad))
            raise UsageError(
                f"{self._said(row)} and {self._said(row + 1)} overlap: a tick belongs to one row. "
                "Cut one of them."
            )

    def _said(self, row: int) -> str:
        extent = f"[{self.start[row]}, {self.stop[row]}) ticks of {self.session[row]}"
        return f"Row {row} of split {self.name!r} ({self.label[row]}, {extent})"

    # ---- what is in it

    def __len__(self) -> int:
        return len(self.start)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels that have rows, in the order of the definition's ratios."""
        ratios: Any = self.definition.get("ratios")
        pairs = ratios if isinstance(ratios, list) else []
        order = [str(pair[0]) for pair in pairs if isinstance(pair, list) and pair]
        found = list(dict.fromkeys(str(label) for label in self.label))
        return tuple(sorted(found, key=lambda one: (one not in order, [*order, one].index(one))))

    @cached_property
    def sessions(self) -> tuple[str, ...]:
        """The sessions that have rows, by id."""
        return tuple(dict.fromkeys(str(id) for id in self.session))

    def blocks(
        self, session: str, label: str | None = None
    ) -> tuple[NDArray[np.int64], Ticks, Ticks]:
        """The rows of a session (of one label), apart even where they touch.

        Returns
        -------
        row : (block,) int64
            Row of the split.
        start, stop : (block,) int64, ticks
        """
        mine = self.session == str(session)
        if not mine.any():
            raise NotFoundError("session", str(session), self.sessions, f"split {self.name!r}")
        if label is not None:
            mine &= self.label == self._known(label)
        row = np.flatnonzero(mine)
        return row, self.start[row], self.stop[row]

    def intervals(self, session: str, label: str | None = None) -> Intervals:
        """The same as a set of ticks: rows that touch are joined."""
        _, start, stop = self.blocks(session, label)
        return Intervals(start, stop)

    def __getitem__(self, label: str) -> Part:
        return Part(self, self._known(label))

    def _known(self, label: str) -> str:
        if label not in self.labels:
            raise NotFoundError("label", str(label), self.labels, f"split {self.name!r}")
        return label

    def only(self, sessions: str | Iterable[str]) -> Split:
        """The rows of these sessions alone, as a split of no version; the definition says so."""
        wanted = sorted({sessions} if isinstance(sessions, str) else {str(id) for id in sessions})
        for id in wanted:
            self.blocks(id)
        kept = np.isin(self.session.astype(object), wanted)
        chosen: list[JSON] = [*wanted]
        return replace(
            self,
            definition={**self.definition, "only": chosen},
            session=self.session[kept],
            start=self.start[kept],
            stop=self.stop[kept],
            label=self.label[kept],
            version=None,
        )

    def rate(self, session: str) -> Fraction | None:
        """Ticks a second of a session, where the definition says."""
        sessions: Any = self.definition.get("sessions")
        said = sessions.get(session) if isinstance(sessions, dict) else None
        return exact(said["rate"]) if isinstance(said, dict) and "rate" in said else None

    # ---- what it is

    @cached_property
    def digest(self) -> str:
        """sha256 over the definition and all rows; neither the name nor the version counts."""
        said = {"definition": self.definition, "rows": self._rows()}
        text = json.dumps(said, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _rows(self) -> list[JSON]:
        ticks = zip(self.start.tolist(), self.stop.tolist(), strict=True)
        texts = zip(self.session, self.label, strict=True)
        return [
            [str(session), start, stop, str(label)]
            for (session, label), (start, stop) in zip(texts, ticks, strict=True)
        ]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Split):
            return NotImplemented
        return (self.name, self.digest) == (other.name, other.digest)

    def __hash__(self) -> int:
        return hash((self.name, self.digest))

    def to_json(self) -> dict[str, JSON]:
        """The split as a plain mapping; rows are [session, start, stop, label]."""
        definition = dict(self.definition)
        made: dict[str, JSON] = {"name": self.name, "definition": definition, "rows": self._rows()}
        return {**made, "version": self.version, "digest": self.digest}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Split:
        """The split that `to_json` gave.

        Raises
        ------
        UsageError
            Where something is missing, or it is not what its digest says.
        """
        try:
            session, start, stop, label = (
                zip(*said["rows"], strict=True) if said["rows"] else [()] * 4
            )
            made = cls(
                said["name"],
                said["definition"],
                np.array(session, dtype=_TEXT),
                as_ticks(start, "start"),
                as_ticks(stop, "stop"),
                np.array(label, dtype=_TEXT),
                said.get("version"),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"This is no split as Split.to_json gives it: {error!r}.") from error
        if said.get("digest", made.digest) != made.digest:
            raise UsageError(
                f"Split {made.name!r} has the digest {made.digest[:12]}, its JSON says "
                f"{str(said['digest'])[:12]}: it was changed. Make it again."
            )
        return made

    @property
    def title(self) -> str:
        """``blocks/v2``, or ``blocks`` where it is of no version."""
        return self.name if self.version is None else f"{self.name}/v{self.version}"

    @property
    def settings(self) -> str:
        """How it was made, in one line."""
        return settings(self.definition)

    def __repr__(self) -> str:
        head = (
            f"<Split {self.title}: {counted(len(self), 'row')} of "
            f"{counted(len(self.sessions), 'session')}, digest {self.digest[:12]}>"
        )
        sizes = {label: self._size(label) for label in self.labels}
        lines = [f"{label:<12}{rows:>12}  {long}" for label, (rows, long) in sizes.items()]
        return "\n  ".join([head, self.settings, *lines])

    def _size(self, label: str) -> tuple[str, str]:
        mine = self.label == label
        rates = {id: self.rate(id) for id in self.sessions}
        rows = zip(self.session[mine], (self.stop - self.start)[mine].tolist(), strict=True)
        return size([(length, rates[str(id)]) for id, length in rows])


@dataclass(frozen=True)
class Part:
    """One label of a split: what a dataset takes. `digest` is that of the whole split."""

    split: Split
    label: str

    def __post_init__(self) -> None:
        self.split._known(self.label)

    @property
    def name(self) -> str:
        """``blocks/v2/train``, or ``blocks/train`` where the split is of no version."""
        return f"{self.split.title}/{self.label}"

    @property
    def digest(self) -> str:
        """Of the whole split."""
        return self.split.digest

    @property
    def sessions(self) -> tuple[str, ...]:
        """The sessions that have rows of this label, by id."""
        mine = self.split.session[self.split.label == self.label]
        return tuple(dict.fromkeys(str(id) for id in mine))

    def blocks(self, session: str) -> tuple[NDArray[np.int64], Ticks, Ticks]:
        """Rows of the split (block,), and their start and stop in ticks, each apart."""
        return self.split.blocks(session, self.label)

    def intervals(self, session: str) -> Intervals:
        """The ticks of this label in a session."""
        return self.split.intervals(session, self.label)

    def __repr__(self) -> str:
        return f"<Part {self.name}: {', '.join(self.split._size(self.label))}>"
