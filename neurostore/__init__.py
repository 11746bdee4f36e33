"""A versioned feature store for neural recordings."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from neurostore import splits
    from neurostore.clocks import Clock
    from neurostore.errors import (
        ConflictError,
        DamagedError,
        MissingExtraError,
        NeurostoreError,
        NotFoundError,
        RefusedError,
        StoreError,
        UsageError,
    )
    from neurostore.evaluate import Forecaster, Scores, evaluate
    from neurostore.ingest import Reader
    from neurostore.ingest import run as ingest
    from neurostore.runs import Run
    from neurostore.sample import (
        All,
        Batch,
        Behaviour,
        Dataset,
        Reason,
        SpikeEvents,
        Spikes,
        Trials,
        Window,
    )
    from neurostore.schemas import Contract, Finding, Table, contract
    from neurostore.splits import Split
    from neurostore.store import (
        Ragged,
        Session,
        SessionBuilder,
        Source,
        Store,
        create,
        open,
        tables,
    )
    from neurostore.train import train

_WHERE = {
    **dict.fromkeys(
        ("All", "Batch", "Behaviour", "Dataset", "Reason", "SpikeEvents", "Spikes", "Trials"),
        "sample",
    ),
    "Window": "sample",
    "Forecaster": "evaluate",
    "Run": "runs",
    "Scores": "evaluate",
    "Clock": "clocks",
    "ConflictError": "errors",
    "DamagedError": "errors",
    "MissingExtraError": "errors",
    "NeurostoreError": "errors",
    "NotFoundError": "errors",
    "RefusedError": "errors",
    "StoreError": "errors",
    "UsageError": "errors",
    "Reader": "ingest",
    "ingest": "ingest",
    "Contract": "schemas",
    "Finding": "schemas",
    "contract": "schemas",
    "Split": "splits",
    "splits": "splits",
    "Ragged": "store",
    "Session": "store",
    "SessionBuilder": "store",
    "Source": "store",
    "Store": "store",
    "Table": "schemas",
    "create": "store",
    "evaluate": "evaluate",
    "open": "store",
    "tables": "store.tables",
    "train": "train",
}

__all__ = [
    "All",
    "Batch",
    "Behaviour",
    "Clock",
    "ConflictError",
    "Contract",
    "DamagedError",
    "Dataset",
    "Finding",
    "Forecaster",
    "MissingExtraError",
    "NeurostoreError",
    "NotFoundError",
    "Ragged",
    "Reader",
    "Reason",
    "RefusedError",
    "Run",
    "Scores",
    "Session",
    "SessionBuilder",
    "Source",
    "SpikeEvents",
    "Spikes",
    "Split",
    "Store",
    "StoreError",
    "Table",
    "Trials",
    "UsageError",
    "Window",
    "__version__",
    "contract",
    "create",
    "evaluate",
    "ingest",
    "open",
    "splits",
    "tables",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'neurostore' has no attribute {name!r}")
    module = importlib.import_module(f"neurostore.{_WHERE[name]}")
    own = callable(module) and name == _WHERE[name]  # neurostore.train is a package one can call
    value: object = module if own else getattr(module, name, module)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
