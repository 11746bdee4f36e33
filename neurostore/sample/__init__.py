"""Windows of many sessions as batches: which ones (plan), of what (streams), how (batch).

Nothing here imports the store until a dataset reads from one.
"""

from neurostore.sample._chosen import Chosen, choose
from neurostore.sample.acquisition import Acquisition, All
from neurostore.sample.batch import Batch, Reason
from neurostore.sample.dataset import Dataset
from neurostore.sample.loader import Loader
from neurostore.sample.plan import Plan, Window
from neurostore.sample.streams import Behaviour, SpikeEvents, Spikes, Stream, Trials

__all__ = [
    "Acquisition",
    "All",
    "Batch",
    "Behaviour",
    "Chosen",
    "Dataset",
    "Loader",
    "Plan",
    "Reason",
    "SpikeEvents",
    "Spikes",
    "Stream",
    "Trials",
    "Window",
    "choose",
]
