"""A versioned feature store for neural recordings."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from neurostore import cache, splits
    from neurostore.clocks import Clock
    from neurostore.errors import (
        CacheWarning,
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
        Activity,
        All,
        Batch,
        Behaviour,
        Bundle,
        Dataset,
        Mask,
        Normaliser,
        Presentation,
        Reason,
        SpikeEvents,
        Spikes,
        Staggered,
        Stitched,
        TimeAligned,
        Trials,
        UnitDropout,
        Window,
    )
    from neurostore.sample.device import DeviceDataset
    from neurostore.schemas import Contract, Finding, Table, contract
    from neurostore.splits import Split
    from neurostore.store import (
        Interleaved,
        Ragged,
        Session,
        SessionBuilder,
        Source,
        Stimulus,
        Store,
        clone,
        create,
        open,
        psth,
        raster,
        tables,
        verify,
    )
    from neurostore.train import train

_WHERE = {
    **dict.fromkeys(
        (
            *("Activity", "All", "Batch", "Behaviour", "Bundle", "Dataset", "Mask", "Normaliser"),
            *("Presentation", "Reason", "SpikeEvents", "Spikes", "Staggered", "Stitched"),
            *("TimeAligned", "Trials", "UnitDropout", "Window"),
        ),
        "sample",
    ),
    **dict.fromkeys(
        (
            *("CacheWarning", "ConflictError", "DamagedError", "MissingExtraError"),
            *("NeurostoreError", "NotFoundError", "RefusedError", "StoreError", "UsageError"),
        ),
        "errors",
    ),
    **dict.fromkeys(
        (
            *("Interleaved", "Ragged", "Session", "SessionBuilder", "Source", "Stimulus", "Store"),
            *("clone", "create", "open", "psth", "raster", "verify"),
        ),
        "store",
    ),
    **dict.fromkeys(("Contract", "Finding", "Table", "contract"), "schemas"),
    "Clock": "clocks",
    "DeviceDataset": "sample.device",
    "Forecaster": "evaluate",
    "Reader": "ingest",
    "Run": "runs",
    "Scores": "evaluate",
    "Split": "splits",
    "cache": "cache",
    "evaluate": "evaluate",
    "ingest": "ingest",
    "splits": "splits",
    "tables": "store.tables",
    "train": "train",
}

__all__ = [
    "Activity",
    "All",
    "Batch",
    "Behaviour",
    "Bundle",
    "CacheWarning",
    "Clock",
    "ConflictError",
    "Contract",
    "DamagedError",
    "Dataset",
    "DeviceDataset",
    "Finding",
    "Forecaster",
    "Interleaved",
    "Mask",
    "MissingExtraError",
    "NeurostoreError",
    "Normaliser",
    "NotFoundError",
    "Presentation",
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
    "Staggered",
    "Stimulus",
    "Stitched",
    "Store",
    "StoreError",
    "Table",
    "TimeAligned",
    "Trials",
    "UnitDropout",
    "UsageError",
    "Window",
    "__version__",
    "cache",
    "clone",
    "contract",
    "create",
    "evaluate",
    "ingest",
    "open",
    "psth",
    "raster",
    "splits",
    "tables",
    "train",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'neurostore' has no attribute {name!r}")
    try:
        module = importlib.import_module(f"neurostore.{_WHERE[name]}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from neurostore.errors import MissingExtraError

        raise MissingExtraError(f"neurostore.{name}", "train") from error
    own = callable(module) and name == _WHERE[name]  # neurostore.train is a package one can call
    value: object = module if own else getattr(module, name, module)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
