"""The store: versioned, checked sessions, read lazily."""

from neurostore.store._versions import Commit
from neurostore.store.builder import SessionBuilder, Source, Staged, StagedSession, check
from neurostore.store.session import Session
from neurostore.store.store import Store, create, open
from neurostore.store.tables import Ragged, Span
from neurostore.store.transaction import Transaction

__all__ = [
    "Commit",
    "Ragged",
    "Session",
    "SessionBuilder",
    "Source",
    "Span",
    "Staged",
    "StagedSession",
    "Store",
    "Transaction",
    "check",
    "create",
    "open",
]
