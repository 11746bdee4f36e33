"""Pictures small enough to be inlined in a page: of sessions, of runs and their scores."""

from neurostore.figures._dataset import dataset
from neurostore.figures._picture import PALETTE, Floats, Picture
from neurostore.figures._run import bits_by_unit, examples, models, training
from neurostore.figures._session import psth, raster

__all__ = [
    "PALETTE",
    "Floats",
    "Picture",
    "bits_by_unit",
    "dataset",
    "examples",
    "models",
    "psth",
    "raster",
    "training",
]
