"""Scikit-learn's defaults, and nothing chosen."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression as Sklearn

from reverse_perturbation.models.baselines.logreg_default import Baseline, Config


def test_it_is_scikit_learn_s_default_on_unscaled_expression(screen):
    baseline = Baseline(Config(max_iter=500))
    expression, query = screen.log1p().astype(np.float64), screen.rows("query")
    for parts in (("reference",), ("reference", "validation")):
        rows = screen.rows(*parts)
        baseline.fit(screen, rows)
        theirs = Sklearn(max_iter=10_000, tol=1e-9).fit(expression[rows], screen.conditions[rows].astype(str))
        found = baseline.predict(screen)
        assert np.exp(found.log_proba[query]) == pytest.approx(theirs.predict_proba(expression[query]), abs=1e-3)
        assert list(found.conditions) == list(theirs.classes_)
