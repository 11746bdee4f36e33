"""The store: versioned, checked sessions, read lazily.

What writes, and the engine below, is loaded where it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from neurostore.store.session import Session
from neurostore.store.store import Store, create, open

if TYPE_CHECKING:
    from neurostore.store._around import psth, raster
    from neurostore.store._clone import Cloned, clone
    from neurostore.store._faults import Fault
    from neurostore.store._lineage import Lineage
    from neurostore.store._stored_stimulus import Embedding, StoredStimulus
    from neurostore.store._verify import Progress, Report, verify
    from neurostore.store._versions import Commit
    from neurostore.store.builder import SessionBuilder, Source, Staged, StagedSession, check
    from neurostore.store.difference import Difference
    from neurostore.store.edit import Edit
    from neurostore.store.space import Space
    from neurostore.store.stimulus import Stimulus
    from neurostore.store.tables import Interleaved, Ragged, Span
    from neurostore.store.transaction import Transaction

_WHERE = {
    "Cloned": "_clone",
    "Commit": "_versions",
    "Difference": "difference",
    "Edit": "edit",
    "Embedding": "_stored_stimulus",
    "Fault": "_faults",
    "Interleaved": "tables",
    "Lineage": "_lineage",
    "Progress": "_verify",
    "Space": "space",
    "Ragged": "tables",
    "Report": "_verify",
    "SessionBuilder": "builder",
    "Source": "builder",
    "Span": "tables",
    "Staged": "builder",
    "StagedSession": "builder",
    "Stimulus": "stimulus",
    "StoredStimulus": "_stored_stimulus",
    "Transaction": "transaction",
    "check": "builder",
    "clone": "_clone",
    "psth": "_around",
    "raster": "_around",
    "verify": "_verify",
}

__all__ = [
    "Cloned",
    "Commit",
    "Difference",
    "Edit",
    "Embedding",
    "Fault",
    "Interleaved",
    "Lineage",
    "Progress",
    "Ragged",
    "Report",
    "Session",
    "SessionBuilder",
    "Source",
    "Space",
    "Span",
    "Staged",
    "StagedSession",
    "Stimulus",
    "Store",
    "StoredStimulus",
    "Transaction",
    "check",
    "clone",
    "create",
    "open",
    "psth",
    "raster",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'neurostore.store' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"neurostore.store.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
