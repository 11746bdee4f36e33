"""A run and held-out windows → scores, beside baselines on the same windows.

The package can be called: ``neurostore.evaluate(...)`` is `neurostore.evaluate.evaluate(...)`.
"""

from neurostore._callable import callable_as
from neurostore.evaluate._evaluate import evaluate, score_name, scores_of
from neurostore.evaluate._forecasters import Forecaster
from neurostore.evaluate._scores import Scored, Scores, said

callable_as(__name__, evaluate)

__all__ = ["Forecaster", "Scored", "Scores", "evaluate", "said", "score_name", "scores_of"]
