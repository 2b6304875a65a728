"""Linear discriminants with a shrunken covariance."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from reverse_perturbation.models.baselines.lda import Baseline, Config
from tests.models.test_ranker import fit_once, known_folds

SETTINGS = {"features": ["log1p", "log1p_depth"], "shrinkage": [0.1, 0.5, 0.9]}


def test_probabilities_are_those_of_scikit_learn(screen):
    baseline = Baseline(Config(**SETTINGS | {"features": ["log1p"], "shrinkage": [0.5]}))
    found = fit_once(baseline, screen)
    x, reference = screen.log1p().toarray(), screen.rows("reference")
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5)
    theirs.fit(x[reference], screen.conditions[reference].astype(str))
    assert np.exp(found.log_proba) == pytest.approx(theirs.predict_proba(x), abs=1e-4)


def test_of_two_conditions_each_has_its_score(screen):
    two = replace(screen, conditions=np.where(screen.conditions == "A+ctrl", "A+ctrl", "B+ctrl").astype(object))
    found = fit_once(Baseline(Config(**SETTINGS)), two)
    assert found.conditions.tolist() == ["A+ctrl", "B+ctrl"]
    best = found.conditions[found.log_proba.argmax(axis=1)]
    assert (best == two.conditions)[two.rows("query")].mean() > 0.9


def test_the_highest_mrr_of_cells_held_out_is_chosen(screen):
    baseline = Baseline(Config(**SETTINGS))
    baseline.select(screen, known_folds(screen))
    best = baseline.choices.loc[baseline.choices["mrr"].idxmax()]
    assert len(baseline.choices) == 6
    assert (baseline.features, baseline.shrinkage) == (best["features"], best["shrinkage"])
