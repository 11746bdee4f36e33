"""Named sets of blocks over sessions: which time trains, validates and tests."""

from neurostore.splits._blocks import contiguous, interleaved_blocks
from neurostore.splits._split import Part, Split
from neurostore.splits._timeline import Timeline, TrialRows
from neurostore.splits._trials import by_trial

__all__ = [
    "Part",
    "Split",
    "Timeline",
    "TrialRows",
    "by_trial",
    "contiguous",
    "interleaved_blocks",
]
