"""Windows that hold nothing which depends on samples after their present."""

from __future__ import annotations

from collections.abc import Mapping

from neurostore.errors import UsageError
from neurostore.sample.batch import Values
from neurostore.sample.plan import Window
from neurostore.sample.streams import Behaviour, Reader, SpikeEvents, Stream


def opened(window: Window, stream: Stream) -> Window:
    """The window that a stream is opened with: one whose present is known, so that it is heeded.

    A window without a horizon is all target, and a stream may look beyond its stop. Events have no
    axis to cut: they are of the history alone from the start.
    """
    if isinstance(stream, SpikeEvents):
        return Window(window.history)
    if window.horizon or not window.history:
        return window
    return Window(window.history, window.history)


def refuse_no_history() -> None:
    """Refuse windows of which nothing would be left.

    Raises
    ------
    UsageError
    """
    raise UsageError("Causal windows hold their history alone, and this one has none.")


def refuse_looking_ahead(streams: Mapping[str, Stream], readers: Mapping[str, Reader]) -> None:
    """Refuse streams that cannot be cut at the present, or that all of the session decides.

    Raises
    ------
    UsageError
        Where there is one.
    """
    for name, stream in streams.items():
        if isinstance(stream, SpikeEvents):
            continue
        if not readers[name].steps:
            raise UsageError(
                f"The stream {name!r} ({type(stream).__name__}) has no axis of time to cut at the "
                "present: it may tell what comes later. Leave it out of causal windows."
            )
        if isinstance(stream, Behaviour) and stream.max_gap is None:
            raise UsageError(
                f"The stream {name!r} takes its max_gap from all samples of a session, later ones "
                "too. Say max_gap= in seconds."
            )


def cut(values: Values, steps: Mapping[str, tuple[int, int, int]], stream: Stream) -> Values:
    """What a stream read, up to the present.

    Raises
    ------
    UsageError
        Where a tensor has no axis of time.
    """
    if isinstance(stream, SpikeEvents):
        return values
    made: Values = {}
    for name, (value, reason) in values.items():
        if name not in steps:
            raise UsageError(
                f"The tensor {name!r} has no axis of time to cut at the present. Leave its stream "
                "out of causal windows."
            )
        axis, past, _ = steps[name]
        where = (*[slice(None)] * axis, slice(past))
        made[name] = value[where], reason[where] if reason.ndim > axis else reason
    return made
