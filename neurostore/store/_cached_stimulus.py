"""Embeddings and frames of stimuli as files that are mapped into memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostore import cache
from neurostore.cache import Cache, Checked, Entry, Fixed, Writer
from neurostore.errors import DamagedError
from neurostore.store import _cached, _stimuli
from neurostore.store._damage import WAY_OUT
from neurostore.store._format import digest

if TYPE_CHECKING:
    from neurostore.store.store import Store

Attrs = Mapping[str, Any]


def embedding(store: Store, attrs: Attrs) -> Checked | None:
    """The vectors of an embedding, decoded once into the window cache; None without one."""
    held = store.cache
    if held is None:
        return None
    entry = held.get(key(attrs)) or build(store, attrs, held)
    return None if entry is None else Checked(entry, "value")


def packed(store: Store, attrs: Attrs) -> Checked | None:
    """The values of a stimulus or an embedding of a bundle; None of a store."""
    held = store.cache
    entry = held.get(key(attrs)) if isinstance(held, Fixed) else None
    return None if entry is None else Checked(entry, "value")


def key(attrs: Attrs) -> str:
    """What an entry is kept under: digest of the values, of their dtype and of their shape."""
    (entry,) = attrs["row"]["tables"].values()
    said = [_cached.content(entry), attrs["digest"] if "encoder" in attrs else None]
    return digest([_cached.FORMAT, cache.FORMAT, "stimulus", *said])


def build(store: Store, attrs: Attrs, held: Cache) -> Entry | None:
    """Decode the values of a stimulus or an embedding into a cache; None where it has no room.

    Raises
    ------
    DamagedError
        Where they are not what was written.
    """
    table = _stimuli.table(store.zarr, attrs)
    if table is None:
        raise DamagedError(f"{attrs['id']} holds no values. {WAY_OUT}")
    values, said = table.columns["value"].values, attrs["row"]["tables"][table.name]["arrays"]

    def fill(writer: Writer) -> None:
        made, what = writer.arrays["value"], f"'value' of {attrs['id']}"
        _cached.copy(values, made, said["value"], what)
        if "encoder" in attrs and _stimuli.content_digest(made) != attrs["digest"]:
            raise DamagedError(f"{attrs['id']} is not what was written. {WAY_OUT}")

    shape = {"value": (np.dtype(values.dtype), tuple(values.shape))}
    return held.build(key(attrs), shape, fill)
