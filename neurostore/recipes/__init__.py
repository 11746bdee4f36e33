"""Recipes: TOML, the architecture's own signature and overrides as one typed, frozen value."""

from neurostore.recipes._recipe import Data, Evaluation, Parts, Recipe, Training
from neurostore.recipes._resolve import load

__all__ = ["Data", "Evaluation", "Parts", "Recipe", "Training", "load"]
