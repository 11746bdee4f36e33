"""From datasets of a store to a bundle, which has its name when it is whole."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore.cache import Cache
from neurostore.cache._format import sync_folder
from neurostore.errors import DamagedError, StoreError, UsageError
from neurostore.sample._written import written
from neurostore.sample.bundle import FORMAT, SAID, TABLES, Bundle, Progress, digest_of, sha256
from neurostore.sample.dataset import Dataset

if TYPE_CHECKING:
    from neurostore.store import Session

if sys.platform != "win32":  # where there is no cache either
    import fcntl

_ALWAYS = ("units", "intervals/observed", "intervals/trials")
_BY_SQL = ("units_in", "units_out")
"""Fields of streams that may be SQL over the units."""
_UNIT = ("session", "unit")

Datasets = Mapping[str, Dataset]


def pack(datasets: Datasets, folder: str | Path, *, progress: Progress | None = None) -> Bundle:
    """Write all that some datasets of one store read into a folder of its own.

    The folder appears when it is whole and has been opened; what a broken call left beside it, in
    ``<folder>.packing``, is taken up again.

    Parameters
    ----------
    datasets : mapping of str to Dataset
        ``{"train": ..., "validation": ...}``.
    progress : callable, optional
        Called with a name, how many tables are done, and how many there are.

    Raises
    ------
    UsageError
        Where the folder is there already, the datasets are of several snapshots, or hold something
        that is no value of neurostore.
    StoreError
        Where the disk is full, or cannot be written.
    """
    folder = Path(folder).absolute()
    if folder.exists():
        raise UsageError(f"{folder} is there already. Choose another folder, or remove it.")
    first = _one_snapshot(datasets)
    made = _made_of(datasets)
    building = folder.with_name(folder.name + ".packing")
    with _alone(building), _writing(building):
        sessions = _sessions(datasets)
        (building / SAID).unlink(missing_ok=True)
        names = _fill(datasets, sessions, _Filled(building / TABLES, 1 << 62), progress)
        for path in (building / TABLES).iterdir():
            if path.name not in names:
                path.unlink()
        said: dict[str, Any] = {
            "format": FORMAT,
            "version": _version(),
            "url": first.store.url,
            "snapshot": first.store.snapshot,
            "sessions": {id: dict(session.attrs) for id, (session, _) in sessions.items()},
            "rows": _rows(datasets),
            "units": list(_units(datasets)),
            "stimuli": _stimuli(first, sessions),
            "datasets": {
                name: {
                    "made_of": made[name],
                    "asked": written([one.sessions, one.units], f"the dataset {name!r}"),
                    "plan": one.plan.digest,
                    "identity": one.identity(),
                }
                for name, one in datasets.items()
            },
            "files": {
                name: {"size": path.stat().st_size, "sha256": sha256(path)}
                for name in sorted(names)
                for path in [building / TABLES / name]
            },
        }
        _write(building / SAID, json.dumps(said | {"digest": digest_of(said)}, indent=1))
        _refuse_another(Bundle.open(building), datasets)
        building.rename(folder)
        sync_folder(folder.parent)
    return Bundle.open(folder)


def rehearse(datasets: Datasets) -> dict[str, Any]:
    """What `pack` would write: the tables by session, and what would refuse it."""
    first = _one_snapshot(datasets)
    _made_of(datasets)
    sessions = _sessions(datasets)
    return {
        "datasets": {name: len(one) for name, one in datasets.items()},
        "sessions": {id: list(tables) for id, (_, tables) in sessions.items()},
        "stimuli": sorted({one["stimulus"] for one in _stimuli(first, sessions)}),
    }


@dataclass(frozen=True)
class _Filled(Cache):
    """Where files of a bundle are built: what cannot be written is an error."""

    def _say(self, what: str, text: str) -> None:
        if what != "damage":  # of what an earlier call left: it is built anew
            raise StoreError(
                f"{text.partition('. ')[0]}. Nothing has the name of the bundle yet; make room and "
                "call again, what is packed already is kept."
            )


def _one_snapshot(datasets: Datasets) -> Dataset:
    if not datasets:
        raise UsageError("A bundle holds a dataset at least, found none.")
    places = {(one.store.url, one.store.snapshot) for one in datasets.values()}
    if len(places) > 1:
        raise UsageError(
            "A bundle holds datasets of one store at one snapshot, found "
            + " and ".join(f"{url} at {snapshot}" for url, snapshot in sorted(places))
            + "."
        )
    return next(iter(datasets.values()))


def _made_of(datasets: Datasets) -> dict[str, Any]:
    return {name: written(one.made_of(), f"the dataset {name!r}") for name, one in datasets.items()}


def _sessions(datasets: Datasets) -> dict[str, tuple[Session, list[str]]]:
    """Every session, with the tables that any of the datasets reads of it."""
    made: dict[str, tuple[Session, list[str]]] = {}
    for dataset in datasets.values():
        wanted = {name for reader in dataset.readers.values() for name in reader.tables}
        for chosen in dataset.chosen:
            session, known = made.setdefault(chosen.session.id, (chosen.session, []))
            tables = {*_ALWAYS, *wanted, *dataset.around} & set(session.tables)
            known += sorted(tables - set(known))
    return made


def _rows(datasets: Datasets) -> dict[str, dict[str, list[int]]]:
    """Rows of intervals that windows chose by SQL, by session; a bundle knows no SQL."""
    made: dict[str, dict[str, list[int]]] = {}
    for dataset in datasets.values():
        where = dataset.where
        for chosen in dataset.chosen if where is not None else ():
            for table in set(dataset.around) & set(chosen.session.tables):
                rows = chosen.session.row_numbers(table, str(where))
                made.setdefault(chosen.session.id, {})[f"{table} {where}"] = rows.tolist()
    return made


def _units(datasets: Datasets) -> Iterator[dict[str, Any]]:
    """Units that streams chose by SQL, of which sessions."""
    asked = []
    for dataset in datasets.values():
        ids = dataset.session_ids
        for stream in dataset.streams.values():
            for where in (getattr(stream, name, None) for name in _BY_SQL):
                if isinstance(where, str) and (where, ids) not in asked:
                    asked.append((where, ids))
                    found: Any = dataset.store.units(where, sessions=ids)
                    chosen = {name: [str(one) for one in found[name]] for name in _UNIT}
                    yield {"where": where, "of": ids, **chosen}


def _stimuli(
    first: Dataset, sessions: Mapping[str, tuple[Session, list[str]]]
) -> list[dict[str, Any]]:
    """What is kept of every stimulus that is shown in a table that is packed."""
    shown = {
        str(session.table(name).attrs.get("stimulus", ""))
        for session, tables in sessions.values()
        for name in tables
        if name.startswith("presentations/")
    }
    if not shown:
        return []
    return [one for one in first.store.stimulus_rows if one["stimulus"] in shown]


def _fill(
    datasets: Datasets,
    sessions: Mapping[str, tuple[Session, list[str]]],
    into: Cache,
    progress: Progress | None,
) -> set[str]:
    """Build what is not there yet; gives the names of the files."""
    from neurostore.store import _cached

    names: set[str] = set()
    readers = [(name, reader) for one in datasets.values() for name, reader in one.readers.items()]
    total = sum(len(tables) for _, tables in sessions.values()) + len(readers)
    done = 0

    def tell(what: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(what, done, total)

    for id, (session, tables) in sessions.items():
        for table in tables:
            names.add(_cached.put(session, table, into).name)
            tell(f"{id}/{table}")
    for name, reader in readers:
        beside = getattr(reader, "put", None)
        names |= set() if beside is None else {path.name for path in beside(into)}
        tell(name)
    return names


def _refuse_another(bundle: Bundle, datasets: Datasets) -> None:
    """Refuse a bundle whose datasets are not those that were given."""
    for name, one in datasets.items():
        if bundle.dataset(name).identity() != one.identity():
            raise DamagedError(
                f"The dataset {name!r} opens from {bundle.folder} as another one than was packed. "
                "Remove the folder, and pack again."
            )


@contextmanager
def _alone(building: Path) -> Iterator[None]:
    """While this process is the one that packs into a folder."""
    try:
        (building / TABLES).mkdir(parents=True, exist_ok=True)
        held = os.open(building, os.O_RDONLY)
    except OSError as error:
        raise StoreError(f"{building} cannot be made: {error.strerror}.") from error
    try:
        _lock(building, held)
        yield
    finally:
        os.close(held)


def _lock(building: Path, held: int) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(
            f"Another process packs into {building}. Wait for it, or choose another folder."
        ) from None


@contextmanager
def _writing(building: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
            raise
        raise StoreError(
            f"{building} cannot be written: {error.strerror}. Make room and call again; what is "
            "packed already is kept."
        ) from error


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _version() -> str:
    import neurostore

    return neurostore.__version__
