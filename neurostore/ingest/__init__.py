"""Files into a store: readers, and `neurostore.ingest(store, files)` that runs them.

The package can be called: ``neurostore.ingest(...)`` is `neurostore.ingest.run(...)`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from neurostore.ingest._run import IngestReport, Outcome, Reader, reader_for, run


class _Callable(ModuleType):
    """This package as the function of its name; a submodule would hide the function otherwise."""

    def __call__(self, *args: Any, **kwargs: Any) -> IngestReport:
        return run(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable

__all__ = ["IngestReport", "Outcome", "Reader", "reader_for", "run"]
