"""Recipes: TOML, the architecture's own signature and overrides as one typed, frozen value."""

from neurostore.recipes._architecture import architecture
from neurostore.recipes._data import dataset, datasets, split_of
from neurostore.recipes._recipe import TARGET, Data, Evaluation, Parts, Recipe, Training
from neurostore.recipes._resolve import load

__all__ = [
    "TARGET",
    "Data",
    "Evaluation",
    "Parts",
    "Recipe",
    "Training",
    "architecture",
    "dataset",
    "datasets",
    "load",
    "split_of",
]
