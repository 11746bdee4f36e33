"""Training: a recipe and a store → a run, the same to the bit however often it was stopped."""

from neurostore.train._prepare import inputs, null_of
from neurostore.train._train import train

__all__ = ["inputs", "null_of", "train"]
