"""A stimulus as a store keeps it: its frames and embeddings, read where they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import exact
from neurostore.errors import DamagedError, NotFoundError, StoreError, UsageError
from neurostore.schemas import Table, Values
from neurostore.store import _cached_stimulus, _presented, _stimuli
from neurostore.store._damage import WAY_OUT

if TYPE_CHECKING:
    from neurostore.cache import Cache
    from neurostore.store.store import Store


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames (frame, ...) of a stimulus; slices and arrays of rows read those alone."""

    flat: Values = field(repr=False)
    inner: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(frame, ...)."""
        return (self.flat.shape[0], *self.inner)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of one value."""
        return np.dtype(self.flat.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows, *rest = key if isinstance(key, tuple) else (key,)
        flat = np.asarray(self.flat[rows])
        made = flat.reshape(*flat.shape[:-1], *self.inner)
        return made[(slice(None),) * (flat.ndim - 1) + tuple(rest)] if rest else made

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)


@dataclass(frozen=True, eq=False)
class Embedding:
    """One vector a frame, by one version of an encoder.

    Attributes
    ----------
    title : str
        ``"clip_l14/v1"``.
    digest : str
        sha256 over dtype, shape and values.
    """

    stimulus: str
    title: str
    digest: str
    values: Values = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """(frame, dim)."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """float16 or float32."""
        return np.dtype(self.values.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return np.asarray(self.values[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.read(), dtype=dtype)

    def read(self) -> NDArray[Any]:
        """All of it (frame, dim), held against its digest.

        Raises
        ------
        DamagedError
            Where it is not what was written.
        """
        made = self[:]
        if _stimuli.content_digest(made) != self.digest:
            raise DamagedError(
                f"The embedding {self.title} of {self.stimulus!r} is not what was written. "
                f"{WAY_OUT}"
            )
        return made


@dataclass(frozen=True, eq=False)
class StoredStimulus:
    """A stimulus at one snapshot.

    Attributes
    ----------
    name : str
        As presentations name it.
    """

    store: Store = field(repr=False)
    name: str
    attrs: Mapping[str, Any] = field(repr=False)
    kept: Sequence[Mapping[str, Any]] = field(repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.store, self.name)

    @property
    def n_frames(self) -> int:
        """How many frames it has."""
        return int(self.attrs["frames"])

    @property
    def rate(self) -> Fraction | None:
        """Frames a second; None where it does not say."""
        said = self.attrs["rate"]
        return None if said is None else exact(said)

    @property
    def url(self) -> str:
        """Where its frames lie; empty where it does not say."""
        return str(self.attrs["url"])

    @property
    def description(self) -> str:
        """What was said of it."""
        return str(self.attrs["description"])

    @property
    def digest(self) -> str:
        """sha256 over its frames and what is said of them."""
        return str(self.attrs["digest"])

    @property
    def frames(self) -> Frames:
        """Its frames, lazily.

        Raises
        ------
        UsageError
            Where only their URL is kept.
        """
        if not self.attrs["row"]["tables"]:
            raise UsageError(
                f"The store keeps no frames of {self.name!r}, only where they lie: {self.url}. "
                "Read them from there, or use their numbers or an embedding."
            )
        return Frames(self._values(self.attrs), tuple(self.attrs["shape"]))

    def _values(self, attrs: Mapping[str, Any]) -> Values:
        packed = _cached_stimulus.packed(self.store, attrs)
        if packed is not None:
            return packed
        table = _stimuli.table(self.store.zarr, attrs)
        if table is None:
            raise DamagedError(f"{attrs['id']} holds no values. {WAY_OUT}")
        return table.columns["value"].values

    @property
    def embeddings(self) -> dict[str, int]:
        """Titles of its embeddings, every version, and their dims."""
        return {_title(one): int(one["dim"]) for one in self.kept}

    def embedding(self, name: str) -> Embedding:
        """An embedding: ``"clip_l14"`` for its newest version, or ``"clip_l14/v1"``.

        Raises
        ------
        NotFoundError
            With the nearest encoder or version there is.
        """
        encoder, _, version = name.partition("/")
        where = f"stimulus {self.name!r} of {self.store.url}"
        mine = {f"v{one['version']}": one for one in self.kept if one["encoder"] == encoder}
        if not mine:
            known = {str(one["encoder"]) for one in self.kept}
            raise NotFoundError("embedding", encoder, known, where)
        if "/" in name and version not in mine:
            raise NotFoundError("version", version, mine, f"embedding {encoder!r} of {where}")
        attrs = mine[version or max(mine, key=lambda one: int(one[1:]))]
        return Embedding(self.name, _title(attrs), str(attrs["digest"]), self._values(attrs))

    def mapped(self, title: str) -> Embedding:
        """An embedding as `embedding` gives it, for those who read it again and again.

        Its values are decoded once, into the window cache (see `neurostore.cache`), and mapped into
        memory from there; where there is no cache, it is the stored one.
        """
        made = self.embedding(title)
        (attrs,) = (one for one in self.kept if _title(one) == made.title)
        values = _cached_stimulus.embedding(self.store, attrs)
        return made if values is None else replace(made, values=values)

    def put(self, what: str | None, into: Cache) -> Path:
        """Put its frames, or the embedding of a title, into a cache; gives the file.

        Raises
        ------
        StoreError
            Where it cannot be written.
        """
        attrs = next((one for one in self.kept if _title(one) == what), self.attrs)
        own = _cached_stimulus.key(attrs)
        entry = into.get(own) or _cached_stimulus.build(self.store, attrs, into)
        if entry is None:
            raise StoreError(f"{attrs['id']} cannot be written to {into.root}.")
        return entry.path

    def refuse_beyond(self, session: str, presentations: Table) -> None:
        """Refuse presentations of rows that it does not have.

        Raises
        ------
        RefusedError
            With the finding, which names the first such row.
        """
        _presented.refuse_beyond(session, presentations, self.n_frames)

    def __repr__(self) -> str:
        shape = "URL" if self.attrs["shape"] is None else tuple(self.attrs["shape"])
        kept = ", ".join(f"{title} ({dim})" for title, dim in self.embeddings.items()) or "none"
        return f"<Stimulus {self.name}: {self.n_frames:,} frames {shape}, embeddings {kept}>"


def _title(attrs: Mapping[str, Any]) -> str:
    return f"{attrs['encoder']}/v{attrs['version']}"


def find(store: Store, name: str) -> StoredStimulus:
    """A stimulus by its name.

    Raises
    ------
    NotFoundError
        With the nearest one there is.
    """
    mine = [one for one in store.stimulus_rows if one["stimulus"] == name]
    if not mine:
        known = {str(one["stimulus"]) for one in store.stimulus_rows}
        raise NotFoundError("stimulus", name, known, store.url)
    return StoredStimulus(store, name, mine[0], mine[1:])


def _reopen(store: Store, name: str) -> StoredStimulus:
    return find(store, name)


__all__ = ["Embedding", "Frames", "StoredStimulus", "find"]
