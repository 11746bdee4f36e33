"""Files into a store: readers, and `neurostore.ingest(store, files)` that runs them.

The package can be called: ``neurostore.ingest(...)`` is `neurostore.ingest.run(...)`.
"""

from neurostore._callable import callable_as
from neurostore.ingest._run import IngestReport, Outcome, Reader, reader_for, run

callable_as(__name__, run)

__all__ = ["IngestReport", "Outcome", "Reader", "reader_for", "run"]
