"""How many prototypes agree on an answer: confidence that needs no scale."""

from dataclasses import replace

import numpy as np

from reverse_perturbation.retrieval.evaluate import Evaluator, Scores, Setting
from reverse_perturbation.retrieval.outputs import Outputs


def agreement(evaluator: Evaluator, outputs: Outputs, setting: Setting, found: Scores) -> np.ndarray:
    """Return float64 [n]: the share of single prototypes that give the answer the whole library gave.

    ``library.prototypes`` libraries of one prototype a condition are drawn, and each answers every query.

    Parameters
    ----------
    evaluator, outputs, setting
        What the scores were made from; the ranking is ``bootstrap``.
    found
        The scores of the whole library.

    Raises
    ------
    ValueError
        If the ranking is another one: without draws, no two libraries differ.
    """
    if setting.ranking != "bootstrap":
        raise ValueError(f"the agreement of prototypes needs a bootstrap library, not {setting.ranking}")
    first = found.conditions[found.scores.argmax(axis=1)]
    whole = evaluator.library
    votes = np.zeros(len(first))
    for draw in range(whole.prototypes):
        single = whole.model_copy(update={"prototypes": 1, "seed": whole.seed + 1 + draw})
        scores = replace(evaluator, library=single).scores(outputs, setting)
        votes += scores.conditions[scores.scores.argmax(axis=1)] == first
    return votes / whole.prototypes
