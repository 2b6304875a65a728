"""Agreement of prototypes: sure where conditions are far apart, a guess where they are one."""

import numpy as np
import pytest

from reverse_perturbation.analysis.agreement import agreement
from reverse_perturbation.config import Params
from reverse_perturbation.retrieval.evaluate import Evaluator, Setting
from reverse_perturbation.retrieval.outputs import Outputs
from tests.end_to_end.pipeline import params

SETTING = Setting("bootstrap", "cell", "canonical")


def screen() -> tuple[Evaluator, Outputs]:
    """A is far from B and C, which are drawn from one distribution; 40 cells each, 10 of them queries."""
    rng = np.random.default_rng(0)
    centre = np.repeat([[9.0, 0, 0], [0, 9, 0], [0, 9, 0]], 40, axis=0)
    cells = np.array([f"c{i}" for i in range(120)], dtype=object)
    config = Params.model_validate(params(library={"prototypes": 20, "cells_per_prototype": 5}))
    evaluator = Evaluator(
        cells=cells,
        legacy=np.repeat(np.array(["A+ctrl", "B+ctrl", "C+ctrl"], dtype=object), 40),
        parts=np.tile(np.repeat(np.array(["reference", "query"], dtype=object), [30, 10]), 3),
        fitted_space="canonical",
        library=config.library,
        query=config.query,
    )
    return evaluator, Outputs(cells, None, None, (centre + rng.normal(size=(120, 3))).astype(np.float32))


def test_prototypes_agree_on_what_is_clear_and_not_on_what_cannot_be_told():
    evaluator, outputs = screen()
    found = agreement(evaluator, outputs, SETTING, evaluator.scores(outputs, SETTING))
    assert found[:10].tolist() == [1] * 10
    assert 0.35 < found[10:].mean() < 0.85
    assert set(found * 20) <= set(range(21))


def test_only_libraries_that_are_drawn_can_agree():
    evaluator, outputs = screen()
    setting = Setting("mean", "cell", "canonical")
    with pytest.raises(ValueError, match="not mean"):
        agreement(evaluator, outputs, setting, evaluator.scores(outputs, setting))
