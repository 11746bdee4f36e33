"""Decoded tables as memory-mapped files on local disk, shared by processes, within a bound.

An entry is one file of named arrays under a key; it knows no session. What reads it needs numpy
and the standard library alone.
"""

from neurostore.cache._ahead import verify as verify_ahead
from neurostore.cache._cache import Cache
from neurostore.cache._entry import WHOLE, Checked, Entry
from neurostore.cache._fixed import Fixed
from neurostore.cache._format import FORMAT, SEGMENT
from neurostore.cache._packed import ByUnit, Packed
from neurostore.cache._settings import current, folder, parse_size, use
from neurostore.cache._writer import Writer

__all__ = [
    "FORMAT",
    "SEGMENT",
    "WHOLE",
    "ByUnit",
    "Cache",
    "Checked",
    "Entry",
    "Fixed",
    "Packed",
    "Writer",
    "current",
    "folder",
    "parse_size",
    "use",
    "verify_ahead",
]
