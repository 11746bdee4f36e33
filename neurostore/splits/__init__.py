"""Named sets of blocks over sessions: which time trains, validates and tests."""

from neurostore.splits._blocks import contiguous, interleaved_blocks
from neurostore.splits._fitted import SEES, Fitted, refuse_leak
from neurostore.splits._sessions import (
    by_session,
    by_subject,
    leave_session_out,
    leave_subject_out,
)
from neurostore.splits._split import Part, Split
from neurostore.splits._timeline import Timeline, TrialRows
from neurostore.splits._trials import by_trial

__all__ = [
    "SEES",
    "Fitted",
    "Part",
    "Split",
    "Timeline",
    "TrialRows",
    "by_session",
    "by_subject",
    "by_trial",
    "contiguous",
    "interleaved_blocks",
    "leave_session_out",
    "leave_subject_out",
    "refuse_leak",
]
