"""Training: a recipe and a store → a run, the same to the bit however often it was stopped.

The package can be called: ``neurostore.train(...)`` is `neurostore.train.train(...)`.
"""

from neurostore._callable import callable_as
from neurostore.train._prepare import inputs, null_of
from neurostore.train._train import rehearse, train

callable_as(__name__, train)

__all__ = ["inputs", "null_of", "rehearse", "train"]
