"""What lies under an NWB reader: the HDF5 file, its samples on disk, and plain values of it.

`refusing` is the one place where whatever a library raises over a file's bytes becomes one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from neurostore.errors import MissingExtraError, NeurostoreError, RefusedError
from neurostore.schemas import JSON

Floats: TypeAlias = NDArray[np.float64]


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Any bytes may lie in a file: whatever a library raises over them refuses it in one line."""
    try:
        yield
    except MissingExtraError:
        raise
    except NeurostoreError as error:
        line = error.line if error.line.startswith(str(path)) else f"{path}: {error.line}"
        raise RefusedError(line, getattr(error, "findings", ())) from error.__cause__
    except Exception as error:
        cause = f"{type(error).__name__}: {line_of(error.args[-1] if error.args else '')}"
        raise RefusedError(
            f"{path}: cannot be read as NWB 2 ({cause}). Fetch or export the file again."
        ) from error


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open the HDF5 file, after a look at what it is."""
    if fault := path_fault(path) or ("" if h5py.is_hdf5(path) else _guess(path)):
        raise RefusedError(fault)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        ends = re.search(r"eof = (\d+).*stored_eof = (\d+)", str(error))
        if ends is None:
            raise
        sizes = f"{int(ends[1]):,} bytes, expected {int(ends[2]):,}"
        raise RefusedError(f"truncated HDF5: {sizes}. Fetch the file again.") from error
    with file:
        if fault := _version_fault(file):
            raise RefusedError(fault)
        yield file


def path_fault(path: Path) -> str:
    if not path.exists():
        return "no such file. Check the path."
    if path.is_dir():
        zarr = any((path / name).exists() for name in (".zgroup", ".zattrs", "zarr.json"))
        kind = "NWB in a Zarr folder" if zarr else "a folder"
        return f"{kind}, expected one HDF5 file. Name the .nwb file, exported as HDF5."
    return "" if path.stat().st_size else "an empty file (0 bytes). Fetch it again."


def _guess(path: Path) -> str:
    """Say what a file without the HDF5 signature is, and the way out."""
    with path.open("rb") as raw:
        head = raw.read(512)
    if head.startswith(b"version https://git-lfs"):
        size = re.search(rb"size (\d+)", head)
        whole = f" of {int(size[1]):,} bytes" if size else ""
        return f"a git-LFS pointer, not the file{whole} it stands for. Run `git lfs pull`."
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page (HTML), expected HDF5. Fetch the file by its download address."
    kind = "text" if re.fullmatch(rb"[\t\r\n\x20-\x7e\x80-\xff]+", head) else "no HDF5"
    return f"{kind} (begins {head[:12]!r}), expected HDF5. Fetch or export the file again."


def _version_fault(file: Any) -> str:
    said = plain_of(file.attrs.get("nwb_version"))
    if said is None and "nwb_version" in file:
        said = plain_of(file["nwb_version"][()])
    if said is None:
        found = ", ".join(list(file)[:5]) or "nothing"
        return f"HDF5 without NWB: no 'nwb_version', found {found}. Name an NWB 2 file."
    version = str(said).upper().removeprefix("NWB-")
    if version.startswith(("0.", "1.")):
        return f"NWB {version}, expected NWB 2. Export it again as NWB 2 from the original data."
    return ""


def index_fault(file: Any) -> str:
    """Say what is wrong with the index of the spikes, before pynwb says it of the whole table."""
    units = file.get("units", {})
    if "spike_times" not in units:
        return ""
    if "spike_times_index" not in units:
        return "units/spike_times has no index: no spike belongs to a unit. Export the file again."
    found, rows = len(units["spike_times_index"]), len(units["id"])
    if found != rows:
        return f"units/spike_times_index has {found} entries for {rows} units. Export it again."
    return ""


# ---- samples


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of one HDF5 dataset, read when sliced, as ``value * conversion + offset``.

    Parameters
    ----------
    path, name : str
        File, and dataset in it.
    shape, dtype
        Of the values as they come out; a one-dimensional dataset may be given a channel.
    conversion : float or (channel,) float64
        Factor to the unit of the series.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    conversion: float | Floats = 1.0
    offset: float = 0.0

    @property
    def ndim(self) -> int:
        """1 (time) or 2 (time, channel)."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        with refusing(Path(self.path)), h5py.File(self.path, "r") as file:
            data = file[self.name]
            raw = np.asarray(data[rows] if data.ndim == self.ndim else data[rows][..., None])
        plain = isinstance(self.conversion, float) and (self.conversion, self.offset) == (1.0, 0.0)
        values = raw if plain else raw * self.conversion + self.offset
        return np.asarray(values if self.ndim == 1 else values[..., columns], dtype=self.dtype)


# ---- plain values


def text_of(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    clean = "" if text is None else str(text).replace("\0", "").strip()
    return clean.encode("utf-8", "replace").decode()


def texts_of(values: Any) -> list[str]:
    return [text_of(one) for one in values]


def json_text(values: Any) -> str:
    return json.dumps([plain_of(one) for one in values])


def plain_of(value: Any) -> JSON:
    """Turn a value into JSON; None for what is empty, not finite or no such value."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str | bytes):
        return text_of(value) or None
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, datetime | timedelta):
        return value.isoformat() if isinstance(value, datetime) else value.total_seconds()
    if isinstance(value, list | tuple) or hasattr(value, "shape"):
        return [plain_of(one) for one in value[:]] or None
    return None


def moment_of(file: Any, name: str) -> str | None:
    """Read a date-time as ISO 8601 in the time zone it names; None where it is none."""
    try:
        return datetime.fromisoformat(text_of(file[name][()])).isoformat()
    except (KeyError, ValueError):
        return None


def line_of(what: object) -> str:
    text = " ".join(text_of(what).split()) or type(what).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
