"""Splits in the store: ``/splits/<name>/v<N>``, one group a version, never changed once written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostore.clocks import Clock
from neurostore.errors import DamagedError, NotFoundError
from neurostore.intervals import Ticks
from neurostore.schemas import JSON, Column, Finding, Table
from neurostore.splits import Part, Split
from neurostore.store import _catalogue
from neurostore.store._damage import WAY_OUT
from neurostore.store._format import segment

if TYPE_CHECKING:
    import pandas as pd
    from zarr.abc.store import Store as ZarrStore

TABLE = "split"
Attrs = Mapping[str, Any]
"""Attributes of one version of a split, its row among them."""


def path_of(name: str, version: int) -> str:
    """Where a version lies in the tree; with a slash ahead its id, which no session can have."""
    return f"splits/{segment(name)}/v{version}"


def is_split(id: str) -> bool:
    """Whether an id of the log is that of a split."""
    return id.startswith("/splits/")


@dataclass(frozen=True, eq=False)
class StagedSplit:
    """A version of a split that is ready to be committed."""

    split: Split
    version: int
    findings: tuple[Finding, ...] = ()

    @property
    def path(self) -> str:
        """Its group in the tree."""
        return path_of(self.split.name, self.version)

    @property
    def id(self) -> str:
        """Its path, from the root."""
        return f"/{self.path}"

    @property
    def clock(self) -> Clock:
        """None of its own: its ticks are those of each row's session."""
        return Clock()

    @property
    def attrs(self) -> Mapping[str, JSON]:
        """Name, version, definition, labels and digest."""
        return {
            "id": self.id,
            "split": self.split.name,
            "version": self.version,
            "definition": dict(self.split.definition),
            "labels": [*self.split.labels],
            "digest": self.split.digest,
        }

    @property
    def tables(self) -> Mapping[str, Table]:
        """Its rows, as ``split/v1``."""
        columns: dict[str, tuple[Any, dict[str, JSON]]] = {
            "session": (self.split.session, {}),
            "start": (self.split.start, {"units": "tick"}),
            "stop": (self.split.stop, {"units": "tick"}),
            "label": (self.split.label, {}),
        }
        made = {key: Column(("interval",), values, said) for key, (values, said) in columns.items()}
        return {TABLE: Table(TABLE, "split/v1", made)}


# ---- reading


def read_all(store: ZarrStore, total: Attrs | None) -> list[dict[str, Any]]:
    """Attributes of every version of every split, by name and version, checked.

    `total` is what the commit says of them; None where it is of a time before splits.

    Raises
    ------
    DamagedError
        Where a row is damaged, or the splits found are not the ones committed.
    """
    from neurostore.store import layout

    made = []
    for name in layout.children(store, "splits"):
        for version in layout.children(store, f"splits/{name}"):
            path = f"splits/{name}/{version}"
            attrs = _catalogue.read_attrs(store, path)
            if attrs is None or attrs["id"] != f"/{path}":
                raise DamagedError(f"{path} is not found, or another split is there. {WAY_OUT}")
            made.append(attrs)
    found = total_of(made).to_json()
    if total is not None and found != dict(total):
        raise DamagedError(
            f"The commit names {total.get('splits')} versions of splits, {found['splits']} are "
            f"found, or another one than was written. {WAY_OUT}"
        )
    return sorted(made, key=lambda one: (one["split"], one["version"]))


def total_of(found: Iterable[Attrs]) -> _catalogue.Total:
    """How many versions of splits there are, and the sum of their rows."""
    return _catalogue.Total(of="splits").plus(one["row"] for one in found)


def read(store: ZarrStore, attrs: Attrs) -> Split:
    """A version with its rows.

    Raises
    ------
    DamagedError
        Where its rows are not what its digest says.
    """
    columns = _table(store, attrs).columns
    values = {name: np.asarray(column.values[:]) for name, column in columns.items()}
    made = Split(
        attrs["split"],
        attrs["definition"],
        values["session"],
        _as_ticks(values["start"]),
        _as_ticks(values["stop"]),
        values["label"],
        attrs["version"],
    )
    if made.digest != attrs["digest"]:
        raise DamagedError(f"Split {made.title} is not what was written. {WAY_OUT}")
    return made


def _as_ticks(values: Any) -> Ticks:
    return np.asarray(values, dtype=np.int64)


def _table(store: ZarrStore, attrs: Attrs) -> Table:
    from neurostore.store import layout

    path = path_of(attrs["split"], attrs["version"])
    if TABLE not in attrs["row"]["tables"]:
        raise DamagedError(f"{path} has no rows. {WAY_OUT}")
    return layout.read_table(store, path, TABLE, attrs["row"]["tables"][TABLE])


def total_at(store: ZarrStore, said: Attrs | None) -> _catalogue.Total:
    """The total that a commit says; counted where it is of a time before splits."""
    if said is None:
        return total_of(read_all(store, None))
    return _catalogue.Total(said, of="splits")


def validate(store: ZarrStore, attrs: Attrs) -> list[Finding]:
    """Both gates over its rows, and its digest; damage is a finding."""
    from neurostore.store.builder import check_tables

    try:
        read(store, attrs)
        return check_tables({TABLE: _table(store, attrs)})
    except DamagedError as error:
        return [Finding("store/damage", "critical", TABLE, "", error.line)]


def newest(found: Iterable[Attrs], name: str) -> tuple[int, str]:
    """The newest version of a name and its digest; 0 and ``""`` where there is none."""
    versions = [(int(one["version"]), str(one["digest"])) for one in found if one["split"] == name]
    return max(versions, default=(0, ""))


def find(store: ZarrStore, found: Sequence[Attrs], ref: str, where: str) -> Split | Part:
    """What ``blocks``, ``blocks/v2``, ``blocks/train`` or ``blocks/v2/train`` names.

    Raises
    ------
    NotFoundError
        With the nearest split, version or label there is.
    """
    name, _, rest = ref.partition("/")
    version, _, label = rest.partition("/")
    if not re.fullmatch(r"v\d+", version):
        version, label = "", rest
    mine = {f"v{one['version']}": one for one in found if one["split"] == name}
    if not mine:
        raise NotFoundError("split", name, {str(one["split"]) for one in found}, where)
    if version and version not in mine:
        raise NotFoundError("version", version, mine, f"split {name!r} of {where}")
    split = read(store, mine[version or f"v{newest(found, name)[0]}"])
    return split[label] if label else split


def frame(found: Iterable[Attrs]) -> pd.DataFrame:
    """One row a version: name, version, digest, rows, labels."""
    import pandas as pd

    columns = ["name", "version", "digest", "rows", "labels"]
    made = [
        {
            "name": one["split"],
            "version": one["version"],
            "digest": one["digest"],
            "rows": one["row"]["tables"][TABLE]["rows"],
            "labels": list(one["labels"]),
        }
        for one in found
    ]
    return pd.DataFrame(made, columns=columns)
