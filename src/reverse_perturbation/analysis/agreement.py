"""Agreement of prototypes with a prediction: a measure of confidence without a scale."""

from dataclasses import replace

import numpy as np

from reverse_perturbation.retrieval.evaluate import Evaluator, QuerySetting, Scores
from reverse_perturbation.retrieval.predictions import Predictions


def agreement(evaluator: Evaluator, predictions: Predictions, setting: QuerySetting, scores: Scores) -> np.ndarray:
    """Return float64 [n]: the share of single prototypes that predict what the model predicts.

    ``library.prototypes`` libraries of one prototype a condition are drawn, and each ranks every query. The model's
    own prediction may be that of a library of all prototypes, of another kind, or of its classifier.

    Parameters
    ----------
    evaluator, predictions, setting
        Origin of the scores; the predictions have an embedding.
    scores
        The scores.
    """
    drawn = replace(setting, ranking="bootstrap")
    first = scores.conditions[scores.scores.argmax(axis=1)]
    whole = evaluator.library
    votes = np.zeros(len(first))
    for draw in range(whole.prototypes):
        single = whole.model_copy(update={"prototypes": 1, "seed": whole.seed + 1 + draw})
        of_draw = replace(evaluator, library=single).scores(predictions, drawn)
        votes += of_draw.conditions[of_draw.scores.argmax(axis=1)] == first
    return votes / whole.prototypes
