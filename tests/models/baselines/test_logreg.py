"""Tuned logistic regression: features, scaling and C by the cross-entropy of cells held out."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from reverse_perturbation.models.baselines import logreg, logreg_genes
from reverse_perturbation.models.linear.features import features
from reverse_perturbation.models.linear.logreg import LogisticRegression
from reverse_perturbation.models.ranker import held_out
from tests.models.test_ranker import fit_once, known_folds

SETTINGS = {
    "features": ["log1p", "log1p_depth"],
    "scaling": ["none", "max_abs"],
    "c": {"least": 0.01, "most": 10.0, "evaluations": 4},
    "max_iter": 500,
}


def test_the_least_cross_entropy_of_cells_held_out_is_chosen(screen):
    baseline = logreg.Baseline(logreg.Config(**SETTINGS))
    found = fit_once(baseline, screen)
    table = baseline.choices
    tried = table[["features", "scaling"]].value_counts()
    assert len(tried) == 4
    assert (tried <= 4).all()
    assert table["c"].between(0.01, 10).all()
    best = table.loc[table["cross_entropy"].idxmin()]
    x, y = features(screen, best["features"]), screen.conditions
    parts = []
    for train, held in known_folds(screen):
        model = LogisticRegression(best["scaling"], best["c"], 500).fit(x[train], y[train])
        parts.append((model.log_proba(x[held]), model.conditions, y[held]))
    assert held_out(parts)["cross_entropy"] == pytest.approx(best["cross_entropy"], abs=1e-3), "from a cold start"
    reference = screen.rows("reference")
    again = LogisticRegression(best["scaling"], best["c"], 500).fit(x[reference], y[reference])
    assert (found.log_proba == again.log_proba(x)).all()
    assert found.embedding is None


def test_the_search_comes_near_the_best_of_a_fine_grid(screen):
    """On noisy labels, so that the best C lies inside the range."""
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(120) < 0.5, rng.permutation(screen.conditions), screen.conditions)
    noisy = replace(screen, conditions=labels.astype(object))
    section = SETTINGS | {"features": ["log1p"], "scaling": ["none"]}
    baseline = logreg.Baseline(logreg.Config(**section | {"c": {"least": 0.001, "most": 100.0, "evaluations": 10}}))
    baseline.select(noisy, known_folds(noisy))
    x, y = features(noisy, "log1p"), noisy.conditions
    grid = []
    for c in np.logspace(-3, 2, 26):
        parts = []
        for train, held in known_folds(noisy):
            model = LogisticRegression("none", c, 500).fit(x[train], y[train])
            parts.append((model.log_proba(x[held]), model.conditions, y[held]))
        grid.append(held_out(parts)["cross_entropy"])
    assert baseline.choices["cross_entropy"].min() <= min(grid) + 1e-3
    assert grid[0] > min(grid) + 0.01 < grid[-1], "neither end is best"


def test_depth_is_chosen_where_conditions_differ_in_it_alone(screen):
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
    baseline = logreg.Baseline(logreg.Config(**SETTINGS))
    found = fit_once(baseline, same)
    assert baseline.features == "log1p_depth"
    assert (found.conditions[found.log_proba.argmax(axis=1)] == same.conditions)[same.rows("query")].all()
    blind = logreg.Baseline(logreg.Config(**SETTINGS | {"features": ["log1p"]}))
    found = fit_once(blind, same)
    assert (found.conditions[found.log_proba.argmax(axis=1)] == same.conditions)[same.rows("query")].mean() < 0.7


def test_genes_held_in_common_help_where_doubles_are_rare(screen):
    """A+B, the sum of A and B, with three known cells: its weights are learned from the singles too."""
    rng = np.random.default_rng(0)
    labels = np.array(["A+ctrl", "B+ctrl", "A+B"], dtype=object)[rng.choice(3, 600, p=[0.45, 0.45, 0.1])]
    rate = np.full((600, 12), 2.0)
    for i, label in enumerate(labels):
        rate[i, 0] += 2 * ("A" in label)
        rate[i, 1] += 2 * ("B" in label)
    parts = np.repeat(["reference", "validation", "query"], [80, 20, 500]).astype(object)
    counts = sp.csr_matrix(rng.poisson(rate).astype(np.float32))
    cells = replace(
        screen,
        cell_ids=np.array([f"c{i}" for i in range(600)], dtype=object),
        conditions=labels,
        parts=parts,
        counts=counts,
        totals=np.asarray(counts.sum(axis=1), dtype=np.float32).ravel(),
    )
    entropy = {}
    for module in (logreg, logreg_genes):
        section = SETTINGS | ({"gene_share": [1.0, 10.0]} if module is logreg_genes else {})
        found = fit_once(module.Baseline(module.Config(**section)), cells)
        query = cells.rows("query")
        entropy[module] = held_out([(found.log_proba[query], found.conditions, labels[query])])["cross_entropy"]
    assert entropy[logreg_genes] < entropy[logreg] - 0.01
