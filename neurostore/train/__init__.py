"""Training: a recipe and a store → a run, the same to the bit however often it was stopped."""

from neurostore.train._prepare import null_of
from neurostore.train._train import train

__all__ = ["null_of", "train"]
