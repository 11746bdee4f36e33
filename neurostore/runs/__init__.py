"""Runs: a folder with weights, metrics, the recipe, and what all of it is bound to."""

from neurostore.runs._facts import environment
from neurostore.runs._files import Checkpoint, write
from neurostore.runs._run import RUN, Run
from neurostore.runs._tables import compare, find

__all__ = ["RUN", "Checkpoint", "Run", "compare", "environment", "find", "write"]
