"""Files that are whole or not there: written beside, flushed to the disk, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostore.errors import JSON, DamagedError, MissingExtraError, NotFoundError, StoreError

if TYPE_CHECKING:
    from torch import Tensor

FACTS = "neurostore"
"""Key of the safetensors header under which everything lies that is no tensor."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a run is: tensors by name, and counters.

    Attributes
    ----------
    tensors : mapping of str to Tensor
        On the CPU; ``model.<name>`` and ``optimizer.<parameter>.<name>``.
    facts : mapping
        Plain values: epoch, batch, step, ...
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def write(path: Path, content: bytes) -> None:
    """Replace a file by another content, whole.

    Raises
    ------
    StoreError
        Where the disk refuses; the old file is left.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}.") from error


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can."""
    if os.name == "nt":  # a folder has no descriptor there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: JSON) -> None:
    """Replace a JSON file; NaN is refused."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises
    ------
    NotFoundError
        Where it is not there.
    DamagedError
        Where it is no JSON.
    """
    return parse(path, read(path).decode(errors="replace"))


def read(path: Path) -> bytes:
    """A file of a run.

    Raises
    ------
    NotFoundError
        Where it is not there.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        names = [one.name for one in beside if not one.name.startswith(".")]
        raise NotFoundError("file", path.name, names, str(path.parent)) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}.") from error


def parse(path: Path, text: str) -> Any:
    """JSON text that came from a file."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise DamagedError(f"{path} is damaged: {error}. Restore it from a copy.") from error


def write_tensors(path: Path, checkpoint: Checkpoint) -> None:
    """Replace a safetensors file; its header holds the facts and a digest of the tensors.

    A copy of the facts lies beside it as JSON, for people: what is read back is the header, so
    that the two cannot be of different times.
    """
    save = _safetensors().save
    tensors = {name: one.detach().cpu().contiguous() for name, one in checkpoint.tensors.items()}
    facts = {**checkpoint.facts, "sha256": digest(tensors)}
    header = {FACTS: json.dumps(facts, allow_nan=False)}
    write(path, save(_apart(tensors), metadata=header))
    write_json(path.with_suffix(".json"), facts)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory, which safetensors would refuse."""
    return {name: one.clone() for name, one in tensors.items()}


def read_tensors(path: Path) -> Checkpoint:
    """A file of `write_tensors`.

    Raises
    ------
    NotFoundError
        Where it is not there.
    DamagedError
        Where its bytes are not the ones that were written.
    """
    content = read(path)
    try:
        length = int.from_bytes(content[:8], "little")
        facts = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][FACTS])
        tensors: dict[str, Tensor] = _safetensors().load(content)
    except MissingExtraError:
        raise
    except Exception as error:  # safetensors raises an error of its own for every kind of damage
        raise DamagedError(f"{path} is damaged: {error}. Restore it from a copy.") from error
    found = digest(tensors)
    if facts.get("sha256") != found:
        raise DamagedError(
            f"{path} is damaged: its tensors have the digest {found[:12]}, "
            f"{str(facts.get('sha256'))[:12]} was written. Restore it from a copy."
        )
    return Checkpoint(tensors, facts)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes."""
    import torch

    made = hashlib.sha256()
    for name in sorted(tensors):
        one = tensors[name]
        made.update(f"{name} {one.dtype} {tuple(one.shape)}\n".encode())
        made.update(one.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return made.hexdigest()


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise MissingExtraError("A run's weights", "train") from error
    return safetensors.torch
