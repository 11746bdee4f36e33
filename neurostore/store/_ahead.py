"""The window cache built ahead of its use: what a session's entries are, and how large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from neurostore import cache
from neurostore.cache._packed import packed_shapes
from neurostore.store import _cached
from neurostore.store.session import Session

_TEXT = 16
"""Bytes a string is taken to have before it is read."""


@dataclass(frozen=True)
class Piece:
    """One entry of the cache.

    Attributes
    ----------
    session, table, kind : str
        Of the spikes there are two kinds, ``"packed"`` and ``"by unit"``; of others ``"table"``.
    key : str
    size : int
        Bytes on disk; of one with strings that is not there yet, about so many.
    cached : bool
        Whether it is there.
    """

    session: str
    table: str
    kind: str
    key: str
    size: int
    cached: bool


def pieces(session: Session, tables: Sequence[str]) -> list[Piece]:
    """The entries of some tables of a session."""
    return [
        _piece(session, name, kind)
        for name in tables
        for kind in (("packed", "by unit") if name == "spikes" else ("table",))
    ]


def build(session: Session, piece: Piece) -> Piece:
    """The piece as it is once it was built; not `cached` where it cannot be."""
    if piece.kind == "packed":
        _cached.packed(session)
    elif piece.kind == "by unit":
        _cached.by_unit(session)
    else:
        _cached.table(session, piece.table)
    return _found(piece)


def _piece(session: Session, name: str, kind: str) -> Piece:
    key = _cached.key(session, name, kind)
    piece = _found(Piece(session.id, name, kind, key, 0, cached=False))
    return piece if piece.cached else replace(piece, size=_size(session, name, kind))


def _found(piece: Piece) -> Piece:
    held = cache.current()
    entry = None if held is None else held.get(piece.key)
    return piece if entry is None else replace(piece, size=entry.size, cached=True)


def _size(session: Session, name: str, kind: str) -> int:
    columns = session.stored(name).columns
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
        key: (column.values.dtype, column.values.shape) for key, column in columns.items()
    }
    if kind == "packed":
        said: Any = session.stored(name).attrs["block"]
        spikes, edges = shapes["time"][1][0], shapes["block"][1][0]
        units = int(session.attrs["row"]["n_units"])
        shapes = dict(packed_shapes(spikes, edges, int(said["length"]), units))
    elif kind == "by unit":
        shapes = {"ticks": shapes["time"]}
    return sum(prod(shape) * _bytes(np.dtype(dtype)) for dtype, shape in shapes.values())


def _bytes(dtype: np.dtype[Any]) -> int:
    return _TEXT if isinstance(dtype, np.dtypes.StringDType) else dtype.itemsize
