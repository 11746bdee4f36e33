"""HTML pages that stand on their own, without network or script: of a store, of a run."""

from neurostore.report._catalogue import catalogue_page
from neurostore.report._experiment import experiment_page
from neurostore.report._page import PAGE, STYLE
from neurostore.report._run import run_page

__all__ = ["PAGE", "STYLE", "catalogue_page", "experiment_page", "run_page"]
