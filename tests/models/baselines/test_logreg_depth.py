"""Depth beside expression."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from reverse_perturbation.models.baselines import logreg, logreg_depth
from reverse_perturbation.models.baselines.logreg_depth import Baseline, Config, depth_features
from reverse_perturbation.models.linear.logreg import LogisticRegression

SETTINGS = {"scaling": ["none", "max_abs"], "c": [0.1, 1.0], "max_iter": 500}


def test_depth_by_hand():
    found = depth_features(np.array([1e4, 2e4, 0.0], dtype=np.float32)).toarray()
    assert found == pytest.approx(np.array([[0, 0], [np.log(2), np.log(2) ** 2], [0, 0]]), rel=1e-6)


def test_the_two_columns_stand_behind_the_genes(screen):
    totals = screen.totals.copy()
    totals[:3] = [1e4, 2e4, 5e3]
    deeper, baseline = replace(screen, totals=totals), Baseline(Config(**SETTINGS))
    found = baseline.features(deeper)
    assert found.shape == (120, 14)
    assert found.dtype == np.float32
    assert (found[:, :12] != deeper.log1p()).nnz == 0
    log = np.log([1, 2, 0.5])
    assert found[:3, 12:].toarray() == pytest.approx(np.stack([log, log**2], axis=1), rel=1e-6)
    assert baseline.columns(deeper) == [*screen.genes, "log depth", "log depth squared"]


def test_it_tells_conditions_apart_that_differ_in_depth_alone(screen):
    """Counts in proportion to the depth: log1p of counts per ten thousand is the same for all cells."""
    rng = np.random.default_rng(0)
    deep = rng.random(120) < 0.5
    totals = np.where(deep, 4000, 1000).astype(np.float32)
    same = replace(
        screen,
        conditions=np.where(deep, "A+ctrl", "B+ctrl").astype(object),
        counts=sp.csr_matrix(totals[:, None] / 1000 * np.arange(1, 13, dtype=np.float32)),
        totals=totals,
    )
    hits = {}
    for module in (logreg, logreg_depth):
        baseline = module.Baseline(module.Config(**SETTINGS))
        baseline.select(same, same.rows("reference"), same.rows("validation"))
        found = baseline.predict(same)
        best = found.conditions[found.log_proba.argmax(axis=1)]
        hits[module] = (best == same.conditions)[same.rows("query")].mean()
    assert hits[logreg] < 0.7 < hits[logreg_depth] == 1


def test_its_columns_are_saved(screen, tmp_path):
    baseline = Baseline(Config(**SETTINGS))
    baseline.select(screen, screen.rows("reference"), screen.rows("validation"))
    baseline.save(tmp_path / "m", screen)
    loaded = LogisticRegression.load(tmp_path / "m")
    assert loaded.genes[-3:] == ["G11", "log depth", "log depth squared"]
    assert (loaded.log_proba(baseline.features(screen)) == baseline.predict(screen).log_proba).all()
