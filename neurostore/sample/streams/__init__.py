"""What a window holds: spikes, dense activity, behaviour, presentations, trials.

A stream is a value; `open` binds it to the chosen sessions, and what comes back reads windows of
one of them at given start ticks. A stream knows no order.
"""

from neurostore.sample.streams._activity import Activity
from neurostore.sample.streams._behaviour import Behaviour
from neurostore.sample.streams._events import SpikeEvents
from neurostore.sample.streams._masks import Mask
from neurostore.sample.streams._presentations import Presentation
from neurostore.sample.streams._spikes import Spikes
from neurostore.sample.streams._stream import Acquired, Gridded, Reader, Stream
from neurostore.sample.streams._trials import Trials, TrialTable

__all__ = [
    "Acquired",
    "Activity",
    "Behaviour",
    "Gridded",
    "Mask",
    "Presentation",
    "Reader",
    "SpikeEvents",
    "Spikes",
    "Stream",
    "TrialTable",
    "Trials",
]
