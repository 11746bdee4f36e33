"""Modules that can be called: where function and module share a name, neither hides the other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def callable_as(name: str, function: Callable[..., Any]) -> None:
    """Let the module of a name be called as one of its functions."""

    class Called(ModuleType):
        __call__ = staticmethod(function)
        __doc__ = sys.modules[name].__doc__

    sys.modules[name].__class__ = Called
