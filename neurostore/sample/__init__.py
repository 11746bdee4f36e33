"""Windows of many sessions as batches: which ones (plan), of what (streams), how (batch).

Nothing here imports the store until a dataset reads from one.
"""

from neurostore.sample._chosen import Chosen, choose
from neurostore.sample._describe import Description
from neurostore.sample._explain import Explanation
from neurostore.sample._fitted import Normaliser, fitted_on, refuse_shared_units
from neurostore.sample._stitch import Stitched
from neurostore.sample.acquisition import Acquisition, All, Staggered, TimeAligned, observed
from neurostore.sample.batch import Batch, Reason
from neurostore.sample.bundle import Bundle
from neurostore.sample.dataset import Dataset
from neurostore.sample.dropout import UnitDropout
from neurostore.sample.loader import Loader
from neurostore.sample.packing import pack
from neurostore.sample.plan import Plan, Window
from neurostore.sample.streams import (
    Activity,
    Behaviour,
    Mask,
    Presentation,
    SpikeEvents,
    Spikes,
    Stream,
    Trials,
)

__all__ = [
    "Acquisition",
    "Activity",
    "All",
    "Batch",
    "Behaviour",
    "Bundle",
    "Chosen",
    "Dataset",
    "Description",
    "Explanation",
    "Loader",
    "Mask",
    "Normaliser",
    "Plan",
    "Presentation",
    "Reason",
    "SpikeEvents",
    "Spikes",
    "Staggered",
    "Stitched",
    "Stream",
    "TimeAligned",
    "Trials",
    "UnitDropout",
    "Window",
    "choose",
    "fitted_on",
    "observed",
    "pack",
    "refuse_shared_units",
]
