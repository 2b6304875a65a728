"""How many prototypes agree on an answer: confidence that needs no scale."""

from dataclasses import replace

import numpy as np

from reverse_perturbation.retrieval.evaluate import Evaluator, QuerySetting, Scores
from reverse_perturbation.retrieval.predictions import Predictions


def agreement(evaluator: Evaluator, predictions: Predictions, setting: QuerySetting, found: Scores) -> np.ndarray:
    """Return float64 [n]: the share of single prototypes that give the answer the model gave.

    ``library.prototypes`` libraries of one prototype a condition are drawn, and each answers every query. The model's
    own answer may be that of a library of all prototypes, of another kind, or of its classifier.

    Parameters
    ----------
    evaluator, predictions, setting
        The scores were made from these; the predictions have an embedding.
    found
        The scores.
    """
    drawn = replace(setting, ranking="bootstrap")
    first = found.conditions[found.scores.argmax(axis=1)]
    whole = evaluator.library
    votes = np.zeros(len(first))
    for draw in range(whole.prototypes):
        single = whole.model_copy(update={"prototypes": 1, "seed": whole.seed + 1 + draw})
        scores = replace(evaluator, library=single).scores(predictions, drawn)
        votes += scores.conditions[scores.scores.argmax(axis=1)] == first
    return votes / whole.prototypes
