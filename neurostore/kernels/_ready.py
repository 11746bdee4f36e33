"""When numba is loaded, and how functions are compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

WINDOWS = 256
"""Windows that are made before numba is loaded."""


@dataclass
class _State:
    windows: int = 0
    loaded: bool = False


_state = _State()


def ready() -> bool:
    """Whether the compiled functions are loaded."""
    return _state.loaded


def load() -> None:
    """Load them now."""
    if not _state.loaded:
        import numba  # noqa: F401  # the functions themselves are compiled, or read, at their call

        _state.loaded = True


def seen(windows: int) -> None:
    """Count windows that were asked for; loads the compiled functions when that begins to pay."""
    if not _state.loaded:
        _state.windows += windows
        if _state.windows >= WINDOWS:
            load()


def compiled(function: Function, takes: Any = None, **options: Any) -> Function:
    """The function compiled, without the GIL; kept on disk where it can be.

    Parameters
    ----------
    takes : numba signatures, optional
        Compiled for these at once; else for what it is called with.
    options
        For ``numba.njit``.
    """
    import numba

    njit: Any = numba.njit
    first = () if takes is None else (takes,)
    try:
        made = njit(*first, cache=True, nogil=True, **options)(function)
    except RuntimeError:  # no folder to keep it in can be written
        made = njit(*first, nogil=True, **options)(function)
    return cast(Function, made)
