"""A tuned logistic regression: chosen on cells held out, and fitted as it was chosen."""

from dataclasses import replace

import numpy as np
import pytest

from reverse_perturbation.models.linear.baseline import TunedBaseline, TunedConfig
from reverse_perturbation.models.linear.features import features
from reverse_perturbation.models.linear.logreg import LogisticRegression
from reverse_perturbation.models.linear.model import LinearModel
from tests.models.test_ranker import known_folds

SEARCH = {"least": 0.0003, "most": 30.0, "evaluations": 5}
CONFIG = TunedConfig(features=["log1p", "log1p_depth"], scaling=["none", "max_abs"], c=SEARCH, max_iter=500)


@pytest.fixture
def chosen(screen) -> TunedBaseline:
    baseline = TunedBaseline(CONFIG)
    baseline.select(screen, known_folds(screen))
    return baseline


def test_labels_of_cells_held_out_decide_the_choice(chosen, screen):
    """Where they say nothing of the cells, a strong penalty does the least harm."""
    assert chosen.chosen["c"] > 0.01
    known = screen.rows("reference", "validation")
    conditions = screen.conditions.copy()
    conditions[known] = np.random.default_rng(0).permutation(conditions[known])
    other = TunedBaseline(CONFIG)
    shuffled = replace(screen, conditions=conditions)
    other.select(shuffled, known_folds(shuffled))
    assert other.chosen["c"] < 0.01


def test_every_fit_keeps_the_choice_and_starts_from_nothing(chosen, screen):
    """Its weights are those of its own cells: no cell of another fit has a part in them."""
    for parts in (("reference",), ("reference", "validation")):
        rows = screen.rows(*parts)
        chosen.fit(screen, rows)
        x = features(screen, chosen.features)
        cold = LogisticRegression(chosen.chosen["scaling"], chosen.chosen["c"], 500)
        cold.fit(x[rows], screen.conditions[rows])
        assert (chosen.predict(screen).log_proba == cold.log_proba(x)).all()


def test_it_is_saved_as_a_linear_model_of_its_genes(chosen, screen, tmp_path):
    chosen.fit(screen, screen.rows("reference"))
    chosen.save(tmp_path / "m", screen)
    loaded, about = LinearModel.load(tmp_path / "m", "baseline@logreg")
    assert about["genes"] == list(screen.genes)
    assert (loaded.log_proba(features(screen, about["features"])) == chosen.predict(screen).log_proba).all()
