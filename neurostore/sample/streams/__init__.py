"""What a window holds: spikes as counts or events, behaviour, trials.

A stream is a value; `open` binds it to the chosen sessions, and what comes back reads windows of
one of them at given start ticks. A stream knows no order.
"""

from neurostore.sample.streams._behaviour import Behaviour
from neurostore.sample.streams._spikes import SpikeEvents, Spikes
from neurostore.sample.streams._stream import Reader, Stream
from neurostore.sample.streams._trials import Trials, TrialTable

__all__ = ["Behaviour", "Reader", "SpikeEvents", "Spikes", "Stream", "TrialTable", "Trials"]
