"""Many runs as one table, and two of them side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore.errors import DamagedError, NotFoundError
from neurostore.runs._run import RUN, Run

if TYPE_CHECKING:
    import pandas as pd

HEADLINE = "bits_per_spike"
COLUMNS = ["id", "recipe", "status", "epochs", "sessions", "snapshot", HEADLINE, "folder"]


def find(folder: str | Path) -> pd.DataFrame:
    """The runs below a folder, one row each, in the order they began.

    A run with a damaged file is listed with the status ``"damaged"``.

    Raises
    ------
    NotFoundError
        Where there is no such folder.
    """
    import pandas as pd

    place = Path(folder).expanduser()
    if not place.is_dir():
        near = place.parent.iterdir() if place.parent.is_dir() else ()
        names = [one.name for one in near if one.is_dir()]
        raise NotFoundError("folder", place.name, names, str(place.parent))
    rows = sorted((_row(one) for one in _folders(place)), key=lambda row: row["started"])
    return pd.DataFrame(rows, columns=COLUMNS)


def _folders(place: Path) -> list[Path]:
    """Folders of runs; hidden ones are being made."""
    found = []
    for folder, inner, files in os.walk(place):
        inner[:] = [] if RUN in files else [name for name in inner if not name.startswith(".")]
        if RUN in files:
            found.append(Path(folder))
    return found


def _row(folder: Path) -> dict[str, Any]:
    try:
        run = Run.open(folder)
        scores = run.scores() or {}
        return {
            "id": run.id,
            "recipe": run.recipe.name,
            "status": run.status,
            "epochs": len(run.metrics()),
            "sessions": len(run.identity["sessions"]),
            "snapshot": run.snapshot,
            HEADLINE: _model(scores).get(HEADLINE),
            "folder": str(folder),
            "started": run.facts["started"],
        }
    except (DamagedError, NotFoundError):
        return {"id": folder.name, "status": "damaged", "folder": str(folder), "started": ""}


def compare(a: Run, b: Run) -> pd.DataFrame:
    """What differs between two runs, side by side: columns section, key, and the two ids.

    Sections are ``recipe`` (dotted keys with two values), ``data`` and ``score`` (every score of
    ``scores/test.json`` that one of them has, differing or not).
    """
    import pandas as pd

    rows = [
        ("recipe", key, ours, theirs) for key, (ours, theirs) in a.recipe.differs(b.recipe).items()
    ]
    rows += [("data", *row) for row in _data(a, b)]
    mine, other = (_model(run.scores() or {}) for run in (a, b))
    rows += [("score", key, mine.get(key), other.get(key)) for key in mine | other]
    names = [a.id, b.id] if a.id != b.id else [f"{a.id} (a)", f"{b.id} (b)"]
    return pd.DataFrame(rows, columns=["section", "key", *names], dtype=object)


def _model(scores: Mapping[str, Any]) -> dict[str, Any]:
    """What the model of a run scores; the first of ``models``, with its baselines after it."""
    models = scores.get("models") or [{}]
    return {key: value for key, value in models[0].items() if key not in ("name", "about", "kind")}


def _data(a: Run, b: Run) -> list[tuple[str, Any, Any]]:
    mine, other = a.identity, b.identity
    keys = ("url", "snapshot", "split", "label", "history_may_cross")
    rows = [(key, mine.get(key), other.get(key)) for key in keys]
    sessions = sorted({*mine["sessions"], *other["sessions"]})
    for id in sessions:
        ours, theirs = mine["sessions"].get(id), other["sessions"].get(id)
        rows.append((f"units of {id}", _units(ours, theirs), _units(theirs, ours)))
        for table in sorted({*_tables(ours), *_tables(theirs)}):
            rows.append((f"{table} of {id}", _tables(ours).get(table), _tables(theirs).get(table)))
    return [row for row in rows if row[1] != row[2]]


def _units(session: Any, other: Any) -> str | None:
    """How many units, and the first that the other has not."""
    if session is None:
        return None
    ids = session["units"]
    own = [] if other is None else [id for id in ids if id not in {*other["units"]}]
    return f"{len(ids)}{f' (with {own[0]})' if own else ''}"


def _tables(session: Any) -> dict[str, str]:
    return {} if session is None else session["tables"]
