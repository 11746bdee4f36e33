"""Reads files, puts what they hold in one commit, and says of each what became of it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from neurostore.errors import (
    MissingExtraError,
    NeurostoreError,
    RefusedError,
    StoreError,
    UsageError,
    counted,
)
from neurostore.schemas import JSON, Finding, contract
from neurostore.store import SessionBuilder, Source, StagedSession, Store, Transaction, check
from neurostore.store.builder import source_key

_log = logging.getLogger("neurostore")
Status: TypeAlias = Literal["written", "replaced", "unchanged", "refused"]


@runtime_checkable
class Reader(Protocol):
    """One source (a file, a folder) in one format; options go to the constructor.

    A reader of your own needs no registration: pass the object to `neurostore.ingest`.
    """

    @property
    def source(self) -> Source:
        """What is read: URL, sha256 of its bytes, reader, version and options."""
        ...

    def sessions(self) -> list[str]:
        """Names of the sessions in the source."""
        ...

    def read(self, session: str) -> SessionBuilder:
        """One session; raises `RefusedError` where it cannot be kept."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of one session of a source.

    Attributes
    ----------
    file : str
        Where it lay.
    session : str
        Its id in the store, empty where the source could not be opened.
    status : {"written", "replaced", "unchanged", "refused"}
        With a dry run: what would become of it.
    message : str
        One line for people.
    tables : mapping of name to rows
    findings, notes
        What was wrong and was kept; what was left out, and why.
    """

    file: str
    session: str
    status: Status
    message: str
    tables: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, JSON]:
        """As a plain mapping."""
        return {
            "file": self.file,
            "session": self.session,
            "status": self.status,
            "message": self.message,
            "tables": dict(self.tables),
            "findings": [one.to_json() for one in self.findings],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did, session by session, and the snapshot it made (None in a dry run)."""

    outcomes: list[Outcome]
    snapshot: str | None

    @property
    def refused(self) -> list[Outcome]:
        """What was refused."""
        return [one for one in self.outcomes if one.status == "refused"]

    def to_json(self) -> dict[str, JSON]:
        """As a plain mapping."""
        return {"snapshot": self.snapshot, "outcomes": [one.to_json() for one in self.outcomes]}

    def __str__(self) -> str:
        return "\n".join(f"{one.status:<10}{one.message}" for one in self.outcomes)


def reader_for(path: str | Path, dataset: str | None = None) -> Reader:
    """The reader for a file, by its suffix; dataset is the name of its folder unless given."""
    file = Path(path).absolute()
    if file.is_dir() and file.suffix.lower() != ".nwb":
        raise RefusedError(f"{file} is a folder; name the files in it: {file.name}/*.nwb.")
    if file.suffix.lower() == ".nwb":
        from neurostore.ingest.nwb import NWB

        return NWB(file, dataset or file.parent.name or "data")
    raise RefusedError(
        f"{file}: no reader for {file.suffix or 'a file without suffix'!r}, known: .nwb. Pass a "
        "reader of your own, or put the arrays together with SessionBuilder."
    )


def run(
    store: Store,
    files: Iterable[str | Path | Reader],
    dataset: str | None = None,
    *,
    dry_run: bool = False,
    stop_on_refusal: bool = False,
    again: bool = False,
    message: str | None = None,
    codecs: str = "default",
    progress: bool | None = None,
) -> IngestReport:
    """Read files into a store, all in one commit.

    A source that is in the store already (same bytes, reader, options and contracts) is left alone;
    one whose bytes changed replaces its session in the new snapshot, under the id that it has now.
    A refused one does not stop the others.

    Parameters
    ----------
    files : iterable of path or Reader
        Paths are read by suffix.
    dataset : str, optional
        Dataset of the sessions; the name of each file's folder without it.
    dry_run : bool
        Read and check everything, write nothing.
    stop_on_refusal : bool
        Raise at the first refused source, with nothing written.
    again : bool
        Read what is in the store already too, and replace its session, e.g. one that is damaged;
        also one of the same id that was read from another place.
    message : str, optional
        Of the commit.
    progress : bool, optional
        Show a progress bar on stderr; by default where that is a terminal.
    """
    if not isinstance(store, Store):
        raise UsageError(f"ingest takes an open store first: neurostore.open({store!r}).")
    sources = [files] if isinstance(files, (str, Path)) else list(files)
    if not sources:
        raise UsageError("ingest needs at least one file or reader.")
    said = message or f"ingest {counted(len(sources), 'file')}"
    transaction = store.transaction(said, codecs=codecs)
    taken: dict[str, str] = {}
    outcomes: list[Outcome] = []
    with _bar(sources, progress) as steps:
        for source in steps:
            for outcome in _source(store, transaction, source, dataset, dry_run, again, taken):
                outcomes.append(outcome)
                if stop_on_refusal and outcome.status == "refused":
                    raise RefusedError(outcome.message, outcome.findings)
    if dry_run:
        return IngestReport(outcomes, None)
    with transaction:
        pass
    return IngestReport(outcomes, transaction.snapshot)


def _source(
    store: Store,
    transaction: Transaction,
    source: str | Path | Reader,
    dataset: str | None,
    dry_run: bool,
    again: bool,
    taken: dict[str, str],
) -> Iterator[Outcome]:
    """What becomes of every session of one source."""
    name = str(source) if isinstance(source, (str, Path)) else type(source).__name__
    try:
        reader = reader_for(source, dataset) if isinstance(source, (str, Path)) else source
        name = reader.source.url
        sessions = reader.sessions()
    except (MissingExtraError, StoreError):
        raise
    except NeurostoreError as error:
        yield _refused(name, "", error)
        return
    except Exception as error:
        yield _refused(name, "", _failed(name, error))
        return
    for session in sessions:
        try:
            yield _session(store, transaction, reader, session, dry_run, again, taken)
        except (MissingExtraError, StoreError):
            raise
        except NeurostoreError as error:
            yield _refused(name, session, error)
        except Exception as error:
            yield _refused(name, session, _failed(name, error))


def _session(
    store: Store,
    transaction: Transaction,
    reader: Reader,
    session: str,
    dry_run: bool,
    again: bool,
    taken: dict[str, str],
) -> Outcome:
    url = reader.source.url
    same = None if again else _same(store, reader, session)
    if same is not None:
        return Outcome(url, same, "unchanged", f"{same}: {url} is in the store already")
    builder = reader.read(session)
    builder.source = reader.source
    made, notes = builder.build(), list(builder.notes)
    found = _came_from(store, made, reader.source)
    staged = made if found is None else _under(made, found)
    if staged.id in taken:
        raise RefusedError(
            f"{staged.id} was read from {taken[staged.id]} and again from {url}. Give one of them "
            "another dataset."
        )
    before = store.row(staged.id)
    if before is not None and before["source"] != url and found is None and not again:
        raise RefusedError(
            f"{staged.id} is in the store, read from {before['source'] or 'a builder'}; {url} "
            "holds another session of that name. Read it with --again (again=True) to replace that "
            "one, or give it another dataset to keep both."
        )
    findings = check(staged) if dry_run else transaction.put(staged, replace=before is not None)
    taken[staged.id] = url
    status: Status = "written" if before is None else "replaced"
    tables = {name: table.rows for name, table in staged.tables.items()}
    message = _line(staged, findings) + _changed(made.id, staged.id, before, url)
    return Outcome(url, staged.id, status, message, tables, findings, notes)


def _came_from(store: Store, made: StagedSession, source: Source) -> Mapping[str, Any] | None:
    """What the store keeps of the session that came from the same place, whatever its name is now.

    That is the same content, or what lay at the same URL under the same name, in the same dataset.

    Raises
    ------
    RefusedError
        Where several did.
    """
    key, name = made.attrs["source_key"], str(made.attrs["session"])
    near = [one for one in store.rows if key == one["source_key"] or source.url == one["source"]]
    known = [store.session(str(one["id"])).attrs for one in near if one["source_key"]]
    found = [
        one
        for one in known
        if one.get("source_dataset", one["dataset"]) == made.attrs["dataset"]
        and one["source_key"] in (key, source_key(one["source"], name))
    ]
    if len(found) > 1:
        raise RefusedError(
            f"{' and '.join(str(one['id']) for one in found)} were read from {source.url} both. "
            "Delete all but the one that it is to replace."
        )
    return found[0] if found else None


def _under(made: StagedSession, known: Mapping[str, Any]) -> StagedSession:
    """A session under the id that the store knows it by; where it came from stays as it was."""
    names = ("id", "dataset", "session", "source_dataset")
    attrs = {**made.attrs, **{name: known[name] for name in names if name in known}}
    return replaced(made, id=str(known["id"]), attrs=attrs)


def _changed(read_as: str, id: str, before: Mapping[str, Any] | None, url: str) -> str:
    """What became another one: its name since it was first read, the place it is read from."""
    said = "" if read_as == id else f"; it is {read_as} in {url}"
    if before is not None and before["source"] != url:
        said += f"; read from {url} now, from {before['source'] or 'a builder'} before"
    return said


def _line(staged: StagedSession, findings: Sequence[Finding]) -> str:
    units = staged.tables["units"].rows if "units" in staged.tables else 0
    spikes = staged.tables["spikes"].rows if "spikes" in staged.tables else 0
    return (
        f"{staged.id}: {counted(units, 'unit')}, {counted(spikes, 'spike')}, "
        f"{counted(len(staged.tables), 'table')}, {counted(len(findings), 'finding')}"
    )


def _refused(file: str, session: str, error: NeurostoreError) -> Outcome:
    findings = list(error.findings) if isinstance(error, RefusedError) else []
    return Outcome(file, session, "refused", error.line, {}, findings)


def _failed(name: str, error: Exception) -> RefusedError:
    """Whatever a reader raises, as the refusal of its source; the error itself is the cause."""
    _log.debug("the reader of %s failed", name, exc_info=error)
    return RefusedError(
        f"{name}: its reader failed: {type(error).__name__}: {error}".split("\n")[0]
    )


def _same(store: Store, reader: Reader, session: str) -> str | None:
    """Id of the session that was made of the very same source, under the same contracts."""
    key = reader.source.key(session)
    for row in store.rows:
        if row["source_key"] == key and all(
            contract(name.partition("/")[0]).id == entry["contract"]
            for name, entry in row["tables"].items()
        ):
            return str(row["id"])
    return None


@contextmanager
def _bar(
    sources: Sequence[str | Path | Reader], progress: bool | None
) -> Iterator[Iterable[str | Path | Reader]]:
    """The sources, with a progress bar on stderr while they are read."""
    if not (sys.stderr.isatty() if progress is None else progress):
        yield sources
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def steps() -> Iterator[str | Path | Reader]:
            task = bar.add_task("reading", total=len(sources))
            for source in sources:
                name = Path(source).name if isinstance(source, (str, Path)) else "reading"
                bar.update(task, description=name)
                yield source
                bar.advance(task)

        yield steps()
