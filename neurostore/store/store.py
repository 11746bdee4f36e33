"""`Store`: a repository at one snapshot, and the transactions that make the next one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore.cache import Cache, current
from neurostore.errors import DamagedError, NotFoundError, StoreError, UsageError
from neurostore.schemas import Finding, Table
from neurostore.splits import Part, Split
from neurostore.store import _catalogue, _presented, _splits, _stimuli, _stored_stimulus
from neurostore.store._damage import WAY_OUT
from neurostore.store._format import FORMAT, session_path
from neurostore.store._forms import Form, open_form
from neurostore.store.session import Session
from neurostore.store.urls import Place, apart, parse

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from zarr.abc.store import Store as ZarrStore

    from neurostore.store._local import Catalogue
    from neurostore.store._versions import Commit, Versions
    from neurostore.store.release import Published
    from neurostore.store.transaction import Transaction


def create(url: str | Path) -> Store:
    """A new, empty store at a local folder, or in memory (``memory://name``).

    Raises
    ------
    UsageError
        Where there is something already.
    """
    from neurostore.store import layout
    from neurostore.store._versions import IcechunkVersions
    from neurostore.store.transaction import who

    place = parse(url)

    def start(store: ZarrStore) -> None:
        layout.put_group(store, "", {"neurostore_format": FORMAT})
        layout.put_group(store, "sessions", {})

    about = who() | {"sessions": {}, "catalogue": _catalogue.Total().to_json()}
    about |= {"splits": {}, "split_catalogue": _catalogue.Total(of="splits").to_json()}
    about |= {"stimuli": {}, "stimulus_catalogue": _catalogue.Total(of="stimuli").to_json()}
    IcechunkVersions.create(place, start, about)
    return open(url)


def open(
    url: str | Path | Sequence[str | Path],
    snapshot: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Store:
    """The store at a URL, at its newest snapshot or at the one (or the tag) named.

    Reading needs neither a lock nor a folder that can be written.

    Parameters
    ----------
    url : str or Path
        A repository in a local folder or ``memory://name``; ``url@tag`` at a tag. Or a release at
        any URL that fsspec knows. Several URLs as one catalogue are refused so far.
    snapshot : str, optional
        A tag, or a snapshot id or its unique start; the store is then read only.
    storage_options : mapping, optional
        As fsspec takes them; a local folder and memory take none.

    Raises
    ------
    NotFoundError, DamagedError, StoreError, UsageError
    """
    if not isinstance(url, (str, Path)):
        raise UsageError(f"One store opens at a time so far, found {len(url)} URLs.")
    text, tag = apart(url)
    if tag is not None and snapshot is not None:
        raise UsageError(f"{url} names the tag {tag!r}, and snapshot={snapshot!r} is given too.")
    form, ref = open_form(parse(text, storage_options)), tag or snapshot
    if ref is None:
        return Store(form, form.head())
    return Store(form, form.versions.resolve(ref), pinned=True)


class Store:
    """A repository of sessions, seen at one snapshot.

    Own transactions move it on; `refresh` moves it to what others have committed; `at` gives it as
    it was. It pickles as (URL, snapshot), and is opened again where it is unpickled.
    """

    def __init__(
        self,
        form: Form,
        snapshot: str,
        *,
        pinned: bool = False,
        catalogue: Catalogue | None = None,
    ) -> None:
        self._form = form
        self.pinned = pinned
        self._see(snapshot, catalogue)

    def _see(self, snapshot: str, catalogue: Catalogue | None = None) -> None:
        self.snapshot = snapshot
        for cached in ("zarr", "_commit", "split_rows", "stimulus_rows"):
            self.__dict__.pop(cached, None)
        self._catalogue = catalogue or self._form.cached(snapshot)
        if self._catalogue is None:
            self._check_format()

    def _check_format(self) -> None:
        from neurostore.store import layout

        root = layout.get_document(self.zarr, "")
        found = (root or {}).get("attributes", {}).get("neurostore_format")
        if found is None:
            raise DamagedError(
                f"{self.url} at {self.snapshot} carries no neurostore_format: it is damaged, or no "
                f"neurostore. {WAY_OUT}"
            )
        if found != FORMAT:
            raise StoreError(
                f"{self.url} is of format {found}, this version reads {FORMAT}. "
                "Install a newer neurostore."
            )

    @property
    def url(self) -> str:
        """Where it lies."""
        return self._form.place.url

    @property
    def _versions(self) -> Versions:
        return self._form.versions

    @cached_property
    def zarr(self) -> ZarrStore:
        """The snapshot as a read-only Zarr store."""
        return self._versions.read(self.snapshot)

    @property
    def cache(self) -> Cache | None:
        """The window cache that its tables are kept in; None where it is switched off.

        What lies in memory has none: it ends with the process, and is at hand.
        """
        return None if self.url.startswith("memory://") else current()

    def __reduce__(self) -> tuple[Any, ...]:
        if self.url.startswith("memory://"):
            raise UsageError(f"{self.url} lies in this process and cannot go to another one.")
        return _reopen, (self._form.place, self.snapshot, self.pinned)

    def __repr__(self) -> str:
        return f"<Store {self.url} at {self.snapshot}: {self._total['sessions']} sessions>"

    def _repr_html_(self) -> str:
        import html

        table = self.sessions().drop(columns=["tables"], errors="ignore")
        return f"<b>{html.escape(repr(self)[1:-1])}</b>{table.to_html(index=False)}"

    # ---- reading

    @cached_property
    def _commit(self) -> Commit:
        return self._versions.about(self.snapshot)

    @property
    def _total(self) -> Mapping[str, Any]:
        said = self._commit.metadata.get("catalogue")
        if not isinstance(said, dict):
            raise DamagedError(f"Commit {self.snapshot} names no catalogue. {WAY_OUT}")
        return said

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The catalogue's rows as they are kept with the sessions, checked."""
        if self._catalogue is None:  # another process may have read it meanwhile
            self._catalogue = self._form.cached(self.snapshot) or self._read_all()
        return self._catalogue.rows

    def _read_all(self) -> Catalogue:
        sessions = _catalogue.read_all(self.zarr, self._total)
        return self._form.keep(self.snapshot, sessions)

    def sessions(self, where: str | None = None) -> pd.DataFrame:
        """The catalogue: one row a session.

        Parameters
        ----------
        where : str, optional
            A SQL boolean expression: ``"n_units >= 20 AND list_contains(regions, 'CA1')"``.

        Returns
        -------
        pandas.DataFrame
            id, dataset, session, subject, species, n_units, n_spikes, n_trials, start, stop and
            observed (seconds), regions, findings (how many), tables.
        """
        return _catalogue.query(_catalogue.frame(self.rows), where, "sessions")

    def units(
        self, where: str | None = None, sessions: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """All units of all sessions, with the columns that their sources have.

        Parameters
        ----------
        where : str, optional
            A SQL boolean expression: ``"region = 'CA1' AND rate_hz < 50"``.
        sessions : sequence of str, optional
            Ids of the sessions whose units are asked for.

        Returns
        -------
        pandas.DataFrame
            session, dataset, unit, n_spikes, observed (seconds), rate_hz, region, ...
        """
        import pandas as pd

        ids = [row["id"] for row in self.rows if "units" in row["tables"]]
        ids = ids if sessions is None else [id for id in ids if id in set(sessions)]
        frames = [_unit_frame(self.session(str(id))) for id in ids]
        known = ["session", "dataset", "unit", "region", "n_spikes", "observed", "rate_hz"]
        if not frames:
            return _catalogue.query(pd.DataFrame({name: [] for name in known}), where, "units")
        joined = pd.concat(frames, ignore_index=True)
        return _catalogue.query(joined, where, "units")

    def session(self, id: str) -> Session:
        """One session by its id, ``<dataset>/<session>``.

        Raises
        ------
        NotFoundError
            With the nearest id there is.
        """
        attrs = None if self._catalogue is None else self._catalogue.attrs(id)
        if attrs is None and "/" in id:
            attrs = _catalogue.read_attrs(self.zarr, session_path(id))
        if attrs is None:
            known = [str(row["id"]) for row in self.rows]
            if id in known:
                raise DamagedError(f"{id} stands in the catalogue but is not found. {WAY_OUT}")
            raise NotFoundError("session", id, known, self.url)
        if attrs["id"] != id:
            raise DamagedError(f"{id} is not found; {attrs['id']} lies in its place. {WAY_OUT}")
        return Session(self, id, attrs)

    # ---- splits

    @cached_property
    def split_rows(self) -> list[dict[str, Any]]:
        """What is kept of every version of every split beside its rows, checked."""
        return _splits.read_all(self.zarr, self._commit.metadata.get("split_catalogue"))

    @property
    def splits(self) -> pd.DataFrame:
        """The splits, one row a version: name, version, digest, rows (how many), labels."""
        return _splits.frame(self.split_rows)

    def split(self, name: str) -> Split | Part:
        """A split, or one label of it.

        Parameters
        ----------
        name : str
            ``"blocks"`` for its newest version, ``"blocks/v2"``, ``"blocks/train"`` or
            ``"blocks/v2/train"``.

        Raises
        ------
        NotFoundError
            With the nearest split, version or label there is.
        """
        return _splits.find(self.zarr, self.split_rows, name, self.url)

    # ---- stimuli

    @cached_property
    def stimulus_rows(self) -> list[dict[str, Any]]:
        """What is kept of every stimulus and embedding beside its values, checked."""
        return _stimuli.read_all(self.zarr, self._commit.metadata.get("stimulus_catalogue"))

    @property
    def stimuli(self) -> pd.DataFrame:
        """The stimuli: name, frames (how many), rate_hz, shape, url, embeddings (dim by title)."""
        return _stimuli.frame(self.stimulus_rows)

    def stimulus(self, name: str) -> _stored_stimulus.StoredStimulus:
        """A stimulus by the name that presentations give it: its frames and embeddings, lazily.

        Raises
        ------
        NotFoundError
            With the nearest one there is.
        """
        return _stored_stimulus.find(self, name)

    def __contains__(self, id: object) -> bool:
        return any(row["id"] == id for row in self.rows)

    # ---- history

    def log(self, limit: int | None = None) -> list[Commit]:
        """The commits that led here, newest first."""
        return list(islice(self._versions.log(self.snapshot), limit))

    def tag(self, name: str) -> None:
        """Name this snapshot for good; a tag never moves."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name == "main":
            raise UsageError(
                "A tag is named in letters, digits, dots and dashes, and not 'main'; found "
                f"{name!r}."
            )
        self._versions.tag(name, self.snapshot)

    def at(self, ref: str) -> Store:
        """The store as it was at a tag or snapshot; read only."""
        return Store(self._form, self._versions.resolve(ref), pinned=True)

    def pin(self) -> Store:
        """The store at the snapshot it shows now, for good; read only."""
        return Store(self._form, self.snapshot, pinned=True, catalogue=self._catalogue)

    def refresh(self) -> Store:
        """Move on to the newest snapshot; gives the store itself."""
        if not self.pinned:
            self._see(self._form.head())
        return self

    def transaction(self, message: str, *, codecs: str = "default") -> Transaction:
        """A transaction: all that is put, updated and deleted in it is committed at once.

        Parameters
        ----------
        codecs : {"default", "interop"}
            How arrays are written; ``"interop"`` for readers without PCodec.
        """
        if self.pinned:
            raise UsageError(
                f"This store is opened at {self.snapshot} and cannot be written. "
                f"Open it without a snapshot: neurostore.open({self.url!r})."
            )
        if not message.strip():
            raise UsageError("A transaction needs a message: what changed, and why.")
        from neurostore.store.transaction import Transaction

        return Transaction(self, message, codecs)

    def publish(
        self,
        target: str | Path,
        storage_options: Mapping[str, Any] | None = None,
        *,
        title: str = "",
        licence: str = "",
        citation: str = "",
        files: Mapping[str, bytes] | None = None,
        dry_run: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Published:
        """Write this snapshot as a release: a plain Zarr v3 tree with manifests, read by `open`.

        A publish that was stopped goes on where it was, and ends in the same bytes. All that is
        written is read back.

        Parameters
        ----------
        target : str or Path
            An empty place: a folder, a bucket, or any fsspec URL that can be written.
        storage_options : mapping, optional
            As fsspec takes them.
        title, licence, citation : str
            What ``release.json`` says of the release.
        files : mapping, optional
            Further files by path, whose digests the catalogue keeps, beside ``croissant.json``,
            ``ro-crate-metadata.json``, what they speak of, and the cards.
        dry_run : bool
            Say how much would be written, and write nothing.
        progress : callable, optional
            Called with the bytes that are done and those there are in all.

        Raises
        ------
        UsageError
            Where something else is there, the release of another snapshot among it.
        DamagedError
            Where the store is not what was written.
        StoreError
            Where the target cannot be written, or reads otherwise than it was written.
        """
        from neurostore.store.release import publish

        return publish(
            self,
            str(target),
            storage_options,
            title=title,
            licence=licence,
            citation=citation,
            files=files,
            dry_run=dry_run,
            progress=progress,
        )

    def validate(self, ids: Iterable[str] | None = None) -> dict[str, list[Finding]]:
        """Every table of the sessions through both gates; splits and stimuli too without `ids`.

        Reads all values, and holds every table's content against the digest in its session's row.
        Damage is a finding too (``store/damage``), so that one bad chunk hides no other.
        """
        wanted = [str(row["id"]) for row in self.rows] if ids is None else list(ids)
        shared = {} if ids is not None else self.validate_splits() | self.validate_stimuli()
        return {id: _validate(self.session(id)) for id in wanted} | shared

    def validate_splits(self) -> dict[str, list[Finding]]:
        """The rows of every version of every split through both gates, by path."""
        return {one["id"]: _splits.validate(self.zarr, one) for one in self.split_rows}

    def validate_stimuli(self) -> dict[str, list[Finding]]:
        """Every stimulus and every embedding through both gates, by path."""
        return {one["id"]: _stimuli.validate(self.zarr, one) for one in self.stimulus_rows}


def _reopen(place: Place, snapshot: str, pinned: bool) -> Store:
    return Store(open_form(place), snapshot, pinned=pinned)


def _unit_frame(session: Session) -> pd.DataFrame:
    table = session._pandas("units", wide=False)
    seconds = _observed_by_unit(session, len(table))
    table.insert(0, "session", session.id)
    table.insert(1, "dataset", session.dataset)
    table["observed"] = seconds
    table["rate_hz"] = table["n_spikes"] / table["observed"].where(table["observed"] > 0)
    first = ["session", "dataset", "unit", "region", "n_spikes", "observed", "rate_hz"]
    front = [name for name in first if name in table]
    return table[front + [name for name in table if name not in front]]


def _observed_by_unit(session: Session, units: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    import numpy as np

    if "intervals/observed" not in session.tables:
        return np.zeros(units)
    columns = session.stored("intervals/observed").columns
    ticks = np.asarray(columns["stop"].values[:]) - np.asarray(columns["start"].values[:])
    seconds = ticks / float(session.clock.rate)
    if "unit" not in columns:
        return np.full(units, seconds.sum())
    rows = np.asarray(columns["unit"].values[:])
    return np.bincount(rows, seconds, minlength=units).astype(np.float64)


def _validate(session: Session) -> list[Finding]:
    """Both gates over what can be read of a session; what cannot is damage, by table and column."""
    from neurostore.store.builder import check_tables

    findings: list[Finding] = []
    whole: dict[str, Table] = {}
    for name in session.tables:
        try:
            table = session.stored(name)
            digests = session.attrs["row"]["tables"][name]["arrays"]
            broken = [key for key in digests if _content(table, key) != digests[key]]
        except DamagedError as error:
            findings.append(_damage(name, "", error.line))
            continue
        whole |= {} if broken else {name: table}
        findings += [_damage(name, key, f"{name}/{key} is not what was written") for key in broken]
    unlinked = _presented.broken(session.store.zarr, session.id, whole)
    return [*findings, *check_tables(whole), *unlinked]


def _content(table: Table, column: str) -> str:
    from neurostore.store.layout import StoredArray

    values = table.columns[column].values
    return values.chunk_digests() if isinstance(values, StoredArray) else ""


def _damage(table: str, column: str, message: str) -> Finding:
    return Finding("store/damage", "critical", table, column, message)
