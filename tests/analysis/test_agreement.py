"""Agreement of prototypes: sure where conditions are far apart, a guess where they are one."""

import numpy as np

from reverse_perturbation.analysis.agreement import agreement
from reverse_perturbation.config import Params
from reverse_perturbation.retrieval.evaluate import Evaluator, QuerySetting, Scores
from reverse_perturbation.retrieval.predictions import Predictions
from tests.end_to_end.pipeline import params

SETTING = QuerySetting("bootstrap", "cell", "canonical")


def screen() -> tuple[Evaluator, Predictions]:
    """A is far from B and C, which are drawn from one distribution; 40 cells each, 10 of them queries."""
    rng = np.random.default_rng(0)
    centre = np.repeat([[9.0, 0, 0], [0, 9, 0], [0, 9, 0]], 40, axis=0)
    cell_ids = np.array([f"c{i}" for i in range(120)], dtype=object)
    config = Params.model_validate(params(library={"prototypes": 20, "cells_per_prototype": 5}))
    evaluator = Evaluator(
        cell_ids=cell_ids,
        legacy=np.repeat(np.array(["A+ctrl", "B+ctrl", "C+ctrl"], dtype=object), 40),
        parts=np.tile(np.repeat(np.array(["reference", "query"], dtype=object), [30, 10]), 3),
        fitted_space="canonical",
        library=config.library,
        query=config.query,
    )
    return evaluator, Predictions(cell_ids, None, None, (centre + rng.normal(size=(120, 3))).astype(np.float32))


def test_prototypes_agree_on_what_is_clear_and_not_on_what_cannot_be_told():
    evaluator, predictions = screen()
    found = agreement(evaluator, predictions, SETTING, evaluator.scores(predictions, SETTING))
    assert found[:10].tolist() == [1] * 10
    assert 0.35 < found[10:].mean() < 0.85
    assert set(found * 20) <= set(range(21))


def test_prototypes_can_be_compared_with_the_answers_of_a_classifier():
    """Where it names the condition that all prototypes name, they agree; where it names another, they do not."""
    evaluator, predictions = screen()
    setting = QuerySetting("classifier", "cell", "canonical")
    names = np.array(["C+ctrl", "A+ctrl", "B+ctrl"], dtype=object)
    _, labels, queries = evaluator.queries(setting, "query")
    scores = np.zeros((30, 3))
    scores[:5, 1] = scores[5:10, 0] = 1
    found = agreement(evaluator, predictions, setting, Scores(queries, labels, names, scores))
    assert found[:10].tolist() == [1] * 5 + [0] * 5
