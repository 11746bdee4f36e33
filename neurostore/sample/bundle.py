"""A bundle: all that the datasets of a training run read, as one folder that needs no store.

It is for compute nodes without a network or a right to install: numpy, numba and torch open it. It
holds the same files as the window cache, the attributes of the sessions, and what the datasets were
made of, each under its digest; batches from it are those of the store.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from neurostore import cache
from neurostore.cache import Cache, Fixed
from neurostore.errors import JSON, DamagedError, NotFoundError, UsageError, counted
from neurostore.sample._written import STREAMS, read, written
from neurostore.sample.acquisition import All, Staggered, TimeAligned
from neurostore.sample.dataset import Dataset
from neurostore.sample.dropout import UnitDropout
from neurostore.sample.plan import Window
from neurostore.splits import Part, Split

if TYPE_CHECKING:
    from neurostore.store import Session
    from neurostore.store import StoredStimulus as Stimulus

FORMAT = [1, cache.FORMAT]
SAID, TABLES = "bundle.json", "tables"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}\.entry")
_PIECE = 1 << 24
_PARTS: Mapping[str, type] = {
    **dict.fromkeys(("sessions", "rows", "datasets", "files"), dict),
    **dict.fromkeys(("stimuli", "units"), list),
    **dict.fromkeys(("version", "url", "snapshot", "digest"), str),
}
"""What ``bundle.json`` holds beside its format."""
_KINDS: Mapping[str, Any] = {
    "sessions": tuple,
    "units": dict,
    "streams": dict,
    "window": Window,
    "acquisition": All | TimeAligned | Staggered,
    "split": Part | None,
    "dropout": UnitDropout | None,
}
_PLAIN = ("history_may_cross", "missing", "causal")
"""Arguments that a dataset of a bundle is made of."""

_SAID_OF = {"made_of", "asked", "plan", "identity"}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Bundle:
    """An open bundle; its datasets sample as they do from the store.

    It stands where a store stands: for the sessions and tables that it holds.

    Attributes
    ----------
    folder : Path
    said : mapping
        What ``bundle.json`` holds.
    """

    folder: Path
    said: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Bundle:
        """The bundle in a folder; its files are there in the sizes they were written in.

        Raises
        ------
        UsageError
            Where there is none, or one of another format.
        DamagedError
            Where something is not what was written, with the file.
        """
        folder = Path(folder).absolute()
        made = cls(folder, _said(folder))
        for path, file in made.files():
            size = path.stat().st_size if path.is_file() and not path.is_symlink() else -1
            if size != file["size"]:
                found = "is no file" if size < 0 else f"has {size:,} bytes"
                raise DamagedError(
                    f"{path} {found}; the bundle says {file['size']:,} bytes. Copy it again, files "
                    "and not links to them."
                )
        return made

    def files(self) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        """Its files beside ``bundle.json``, each with its size and sha256."""
        for name, file in self.said["files"].items():
            yield self.folder / TABLES / name, file

    def verify(self, progress: Progress | None = None) -> None:
        """Hold every byte against the digests; opening and reading look at what they touch only.

        Raises
        ------
        DamagedError
            Naming the first file that is not what was written.
        """
        for number, (path, file) in enumerate(self.files()):
            if sha256(path) != file["sha256"]:
                raise DamagedError(f"{path} is not what was written. Copy the bundle again.")
            if progress is not None:
                progress(path.name, number + 1, len(self.said["files"]))

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets in it."""
        return tuple(self.said["datasets"])

    def dataset(self, name: str, *, transform: Callable[..., Any] | None = None) -> Dataset:
        """One of its datasets; a transform is code, which no bundle holds: give it again.

        Raises
        ------
        NotFoundError
            With the nearest name.
        DamagedError
            Where the plan made here is not the one that was packed.
        """
        if name not in self.said["datasets"]:
            raise NotFoundError("dataset", name, self.datasets, str(self.folder))
        one = self.said["datasets"][name]
        made = Dataset(self, transform=transform, **self._made_of(name))  # type: ignore[arg-type]
        if made.plan.digest != one["plan"]:
            raise DamagedError(
                f"The windows of {name!r} are not those that were packed: another version of "
                f"neurostore wrote this bundle ({self.said['version']}), or it is damaged."
            )
        return made

    def _made_of(self, name: str) -> dict[str, Any]:
        made: Any = read(self.said["datasets"][name]["made_of"])
        right = isinstance(made, dict) and set(made) == {*_KINDS, *_PLAIN}
        right = right and all(isinstance(made[one], kind) for one, kind in _KINDS.items())
        if not right or not all(isinstance(one, STREAMS) for one in made["streams"].values()):
            raise DamagedError(
                f"{self.folder / SAID} does not say what the dataset {name!r} is made of. Pack it "
                "again."
            )
        return dict(made)

    # ---- where a store stands

    @property
    def url(self) -> str:
        """The store it was packed from."""
        return str(self.said["url"])

    @property
    def snapshot(self) -> str:
        """The snapshot it was packed at."""
        return str(self.said["snapshot"])

    @cached_property
    def cache(self) -> Cache:
        """Its files, as a cache that nothing is built in."""
        return Fixed(self.folder / TABLES)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of the catalogue of its sessions."""
        return [attrs["row"] for attrs in self.said["sessions"].values()]

    @property
    def ids(self) -> list[str]:
        """The ids of its sessions, sorted."""
        return sorted(self.said["sessions"])

    @property
    def stimulus_rows(self) -> list[dict[str, Any]]:
        """What is kept of every stimulus that its presentations show, beside the values."""
        return list(self.said["stimuli"])

    def stimulus(self, name: str) -> Stimulus:
        """A stimulus by the name of its presentations; frames or embeddings that were packed.

        Raises
        ------
        NotFoundError
            With the nearest one there is.
        """
        from neurostore.store._stored_stimulus import find

        return find(self, name)  # type: ignore[arg-type]

    @property
    def zarr(self) -> NoReturn:
        """There is none."""
        raise UsageError(
            f"{self.folder} is a bundle and holds what its datasets read "
            f"({', '.join(self.datasets)}); the rest is in {self.url}."
        )

    def pin(self) -> Bundle:
        """Itself: it never changes."""
        return self

    def session(self, id: str) -> Session:
        """One of its sessions, with the tables that its datasets read."""
        from neurostore.sample._bundled import BundledSession

        if id not in self.said["sessions"]:
            raise NotFoundError("session", id, self.said["sessions"], str(self.folder))
        return BundledSession(self, id, self.said["sessions"][id])  # type: ignore[arg-type]

    def sessions(self, where: str | None = None) -> NoReturn:
        """Refused: a bundle knows no SQL."""
        raise UsageError(f"{self.folder} is a bundle, and SQL ({where!r}) is for stores; give ids.")

    def units(self, where: str, sessions: Sequence[str]) -> dict[str, list[str]]:
        """Units that SQL chose when the bundle was packed: their sessions, and their ids.

        Raises
        ------
        UsageError
            Where it was not asked then.
        """
        for one in self.said["units"]:
            if one["where"] == where and one["of"] == list(sessions):
                return {"session": one["session"], "unit": one["unit"]}
        raise UsageError(
            f"{self.folder} is a bundle and does not know which units {where!r} chooses; give "
            "their ids, or pack a dataset that asks for them."
        )

    def asked(self, sessions: Any, units: Any) -> tuple[list[str], dict[str, tuple[str, ...]]]:
        """Ids of the sessions and units that were chosen, in these words, when it was packed.

        Raises
        ------
        UsageError
            Where no dataset of it was chosen so.
        """
        for name, one in self.said["datasets"].items():
            if one.get("asked") == written([sessions, units], "what is asked for"):
                made = self._made_of(name)
                return list(made["sessions"]), made["units"]
        said = [read(one.get("asked")) for one in self.said["datasets"].values()]
        known = "; ".join(dict.fromkeys(f"sessions {one[0]!r}, units {one[1]!r}" for one in said))
        raise UsageError(
            f"{self.folder} is a bundle, and holds what was chosen by {known}; found sessions "
            f"{sessions!r}, units {units!r}. Take those, or pack these."
        )

    def split(self, name: str) -> Split | Part:
        """The split of one of its datasets, by name, or a part of it: ``"blocks/train"``.

        Raises
        ------
        NotFoundError
            With the nearest one there is.
        """
        parts = [self._made_of(name).get("split") for name in self.datasets]
        known = {one.split.name: one.split for one in parts if isinstance(one, Part)}
        title, _, label = name.partition("/")
        if title not in known:
            raise NotFoundError("split", title, known, str(self.folder))
        return known[title][label] if label else known[title]

    def __reduce__(self) -> tuple[Any, ...]:
        return Bundle.open, (self.folder,)

    def __repr__(self) -> str:
        size = sum(file["size"] for _, file in self.files())
        sessions = counted(len(self.said["sessions"]), "session")
        return (
            f"<Bundle {self.folder}: {', '.join(self.datasets)} over {sessions} of {self.url} at "
            f"{self.snapshot}, {size / 1e6:,.1f} MB>"
        )


def _said(folder: Path) -> dict[str, Any]:
    """What ``bundle.json`` says, in the form that it is written in."""
    path = folder / SAID
    try:
        said = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{folder} is no bundle: it has no {SAID}. `neurostore pack` makes one."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is no JSON that a bundle has: {error}.") from error
    if not isinstance(said, dict) or "format" not in said:
        raise DamagedError(f"{path} is not what a bundle says. Copy or pack it again.")
    if said["format"] != FORMAT:
        raise UsageError(
            f"{folder} is a bundle of format {said['format']}, this version opens {FORMAT}. "
            "Take the neurostore that packed it" + f" ({said.get('version')}), or pack it again."
        )
    if digest_of(said) != said.get("digest"):
        raise DamagedError(f"{path} is not what was written. Copy or pack it again.")
    _refuse_other_forms(path, said)
    return said


def _refuse_other_forms(path: Path, said: Mapping[str, Any]) -> None:
    """Refuse what a writer of ours never wrote: digests are no proof of who did."""
    wrong = [name for name, kind in _PARTS.items() if not isinstance(said.get(name), kind)]
    for name, file in () if wrong else said["files"].items():
        size = file.get("size") if isinstance(file, dict) else None
        if not _NAME.fullmatch(name) or type(size) is not int or size < 0:
            wrong.append(f"the file {name!r}")
    room = 0 if wrong else sum(file["size"] for file in said["files"].values())
    for id, attrs in () if wrong else said["sessions"].items():
        row = attrs.get("row") if isinstance(attrs, dict) else None
        units = row.get("n_units") if isinstance(row, dict) else None
        if row is None or not isinstance(row.get("tables"), dict) or row.get("id") != id:
            wrong.append(f"the session {id!r}")
        elif type(units) is not int or not 0 <= units <= room:
            wrong.append(f"{units!r} units of the session {id!r}")
    for name, one in () if wrong else said["datasets"].items():
        asked = one.get("asked") if isinstance(one, dict) else None
        if not isinstance(asked, list) or len(asked) != 2 or not set(one) >= _SAID_OF:
            wrong.append(f"the dataset {name!r}")
    if wrong:
        raise DamagedError(
            f"{path} does not say what a bundle says, first in {wrong[0]}. Copy or pack it again."
        )


def digest_of(said: Mapping[str, JSON]) -> str:
    """sha256 of what ``bundle.json`` says beside its digest."""
    rest = {key: one for key, one in said.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(path: Path) -> str:
    """Of the bytes of a file."""
    made = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            made.update(piece)
    return made.hexdigest()
