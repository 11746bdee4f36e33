"""Stimuli in the store: ``/stimuli/<name>``, and each version of an embedding in a group below."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurostore.clocks import Clock, exact
from neurostore.errors import DamagedError, NotFoundError, UsageError
from neurostore.schemas import JSON, Column, Finding, Table, Values
from neurostore.store import _catalogue
from neurostore.store._damage import WAY_OUT
from neurostore.store._format import canonical, digest, segment
from neurostore.store.builder import Staged, check_tables
from neurostore.store.stimulus import EMBEDDINGS, FRAMES, Stimulus

if TYPE_CHECKING:
    import pandas as pd
    from zarr.abc.store import Store as ZarrStore

TABLE = "frames"
Attrs = Mapping[str, Any]
"""Attributes of a stimulus or of a version of an embedding, its row among them."""
_PIECE = 1 << 25
"""Bytes hashed at once."""


def path_of(name: str, encoder: str = "", version: int = 0) -> str:
    """Where a stimulus, or a version of an embedding, lies; its id with a slash ahead."""
    path = f"stimuli/{segment(name)}"
    return f"{path}/embeddings/{segment(encoder)}/v{version}" if encoder else path


def is_stimulus(id: str) -> bool:
    """Whether an id of the log is that of a stimulus or of an embedding."""
    return id.startswith("/stimuli/")


# ---- writing


@dataclass(frozen=True, eq=False)
class Flat:
    """Frames (frame, ...) as rows (frame, pixel), read piece by piece."""

    values: Values

    @property
    def shape(self) -> tuple[int, ...]:
        """(frame, pixel)."""
        return self.values.shape[0], prod(self.values.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the frames."""
        return np.dtype(self.values.dtype)

    def __getitem__(self, key: slice) -> NDArray[Any]:
        run = np.asarray(self.values[key])
        return run.reshape(len(run), -1)


def content_digest(values: Values) -> str:
    """sha256 over dtype, shape and values (frame, ...), as they are, however they are stored."""
    said = [np.dtype(values.dtype).name, [int(n) for n in values.shape]]
    made = hashlib.sha256(canonical(said))
    step = max(1, _PIECE // max(1, prod(values.shape[1:]) * np.dtype(values.dtype).itemsize))
    for first in range(0, values.shape[0], step):
        run = np.asarray(values[first : first + step])
        made.update(np.ascontiguousarray(run, dtype=run.dtype.newbyteorder("<")).data)
    return made.hexdigest()


@dataclass(frozen=True, eq=False)
class _Staged:
    """A stimulus, or a version of an embedding, that is ready to be committed."""

    path: str
    said: Mapping[str, JSON]
    tables: Mapping[str, Table]
    findings: tuple[Finding, ...] = ()

    @property
    def id(self) -> str:
        return f"/{self.path}"

    @property
    def attrs(self) -> Mapping[str, JSON]:
        return {"id": self.id, **self.said}

    @property
    def clock(self) -> Clock:
        return Clock()


def stage(store: ZarrStore, stimulus: Stimulus, where: str) -> list[Staged]:
    """What of a stimulus the store does not hold yet: itself, and its embeddings.

    Raises
    ------
    NotFoundError
        Where it only adds embeddings, and there is no such stimulus.
    UsageError
        Where there is another one of this name, or one of another length.
    """
    there = _catalogue.read_attrs(store, path_of(stimulus.name))
    new: list[Staged] = []
    if not stimulus.adds:
        made = _stage_frames(stimulus)
        if there is None:
            new.append(made)
        elif there["digest"] != made.said["digest"]:
            raise UsageError(
                f"The stimulus {stimulus.name!r} is in {where} already, with other frames, rate, "
                "URL or description. A stimulus never changes: give this one another name."
            )
    elif there is None:
        known = [one["stimulus"] for one in read_all(store, None) if "encoder" not in one]
        raise NotFoundError("stimulus", stimulus.name, known, where)
    elif there["frames"] != stimulus.length:
        raise UsageError(
            f"The embeddings of {stimulus.name!r} have {stimulus.length:,} rows, the stimulus in "
            f"{where} has {there['frames']:,} frames."
        )
    for encoder, values in stimulus.embeddings.items():
        version, newest = _newest(store, stimulus.name, encoder)
        if (digest := content_digest(values)) != newest:
            new.append(_stage_embedding(stimulus.name, encoder, version + 1, values, digest))
    return new


def _stage_frames(stimulus: Stimulus) -> _Staged:
    frames = stimulus.frames
    shape: list[JSON] | None = None if frames is None else [int(n) for n in frames.shape[1:]]
    said: dict[str, JSON] = {
        "stimulus": stimulus.name,
        "frames": int(stimulus.length),
        "rate": None if stimulus.rate is None else str(exact(stimulus.rate)),
        "url": stimulus.url,
        "description": stimulus.description,
        "shape": shape,
    }
    content = None if frames is None else content_digest(frames)
    said["digest"] = digest({**said, "content": content})
    tables = {}
    if frames is not None:
        column = Column(("frame", "pixel"), Flat(frames))
        tables[TABLE] = Table(TABLE, FRAMES, {"value": column}, {"shape": shape})
    return _Staged(path_of(stimulus.name), said, tables)


def _stage_embedding(name: str, encoder: str, version: int, values: Values, digest: str) -> _Staged:
    frames, dim = (int(n) for n in values.shape)
    said: dict[str, JSON] = {
        "stimulus": name,
        "encoder": encoder,
        "version": version,
        "frames": frames,
        "dim": dim,
        "digest": digest,
    }
    table = Table(digest, EMBEDDINGS, {"value": Column(("frame", "dim"), values)})
    return _Staged(path_of(name, encoder, version), said, {digest: table})


def _newest(store: ZarrStore, name: str, encoder: str) -> tuple[int, str]:
    """The newest version of an embedding and its digest; 0 and ``""`` where there is none."""
    from neurostore.store import layout

    folder = f"{path_of(name)}/embeddings/{segment(encoder)}"
    version = max((int(one[1:]) for one in layout.children(store, folder)), default=0)
    while layout.get_document(store, f"{folder}/v{version + 1}") is not None:
        version += 1  # a draft does not list what lies below a group that its commit will make
    return version, str(_attrs(store, f"{folder}/v{version}")["digest"]) if version else ""


# ---- reading


def read_all(store: ZarrStore, total: Attrs | None) -> list[dict[str, Any]]:
    """Attributes of every stimulus and of every version of its embeddings, checked.

    `total` is what the commit says of them; None where it is of a time before stimuli.

    Raises
    ------
    DamagedError
        Where a row is damaged, or what is found is not what was committed.
    """
    from neurostore.store import layout

    made = []
    for name in layout.children(store, "stimuli"):
        made.append(_attrs(store, f"stimuli/{name}"))
        below = f"stimuli/{name}/embeddings"
        for encoder in layout.children(store, below):
            versions = layout.children(store, f"{below}/{encoder}")
            made += [_attrs(store, f"{below}/{encoder}/{one}") for one in versions]
    found = total_of(made).to_json()
    if total is not None and found != dict(total):
        raise DamagedError(
            f"The commit names {total.get('stimuli')} stimuli and embeddings, {found['stimuli']} "
            f"are found, or another one than was written. {WAY_OUT}"
        )
    return sorted(made, key=order)


def order(attrs: Attrs) -> tuple[str, str, int]:
    """A stimulus, then its embeddings by encoder and version."""
    return attrs["stimulus"], attrs.get("encoder", ""), attrs.get("version", 0)


def _attrs(store: ZarrStore, path: str) -> dict[str, Any]:
    attrs = _catalogue.read_attrs(store, path)
    if attrs is None or attrs["id"] != f"/{path}":
        raise DamagedError(f"{path} is not found, or another thing is there. {WAY_OUT}")
    return attrs


def total_of(found: Iterable[Attrs]) -> _catalogue.Total:
    """How many stimuli and versions of embeddings there are, and the sum of their rows."""
    return _catalogue.Total(of="stimuli").plus(one["row"] for one in found)


def total_at(store: ZarrStore, said: Attrs | None) -> _catalogue.Total:
    """The total that a commit says; counted where it is of a time before stimuli."""
    if said is None:
        return total_of(read_all(store, None))
    return _catalogue.Total(said, of="stimuli")


def table(store: ZarrStore, attrs: Attrs) -> Table | None:
    """The values of a stimulus or of an embedding, lazily; None of a stimulus by URL."""
    from neurostore.store import layout

    for name, entry in attrs["row"]["tables"].items():
        return layout.read_table(store, str(attrs["id"])[1:], name, entry)
    return None


def validate(store: ZarrStore, attrs: Attrs) -> list[Finding]:
    """Both gates over its values, and their digests; damage is a finding."""
    try:
        found = table(store, attrs)
        if found is None:
            return []
        said = attrs["row"]["tables"][found.name]["arrays"]["value"]
        values: Any = found.columns["value"].values
        if values.chunk_digests() != said:
            raise DamagedError(f"{attrs['id']} is not what was written. {WAY_OUT}")
        return check_tables({found.name: found})
    except DamagedError as error:
        return [Finding("store/damage", "critical", TABLE, "value", error.line)]


def frame(found: Iterable[Attrs]) -> pd.DataFrame:
    """One row a stimulus; its embeddings as a mapping of their titles to their dims."""
    import pandas as pd

    made: dict[str, dict[str, Any]] = {}
    for one in found:
        if "encoder" in one:
            title = f"{one['encoder']}/v{one['version']}"
            made[one["stimulus"]]["embeddings"][title] = one["dim"]
            continue
        rate = None if one["rate"] is None else float(exact(one["rate"]))
        made[one["stimulus"]] = {
            "name": one["stimulus"],
            "frames": one["frames"],
            "rate_hz": rate,
            "shape": None if one["shape"] is None else tuple(one["shape"]),
            "url": one["url"],
            "embeddings": {},
            "digest": one["digest"],
        }
    columns = ["name", "frames", "rate_hz", "shape", "url", "embeddings", "digest"]
    return pd.DataFrame(list(made.values()), columns=columns)
