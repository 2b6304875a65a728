"""Bayes' rule on simulated cells: the likelihood by other means, the masks, the priors, and that nothing beats it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.special import logsumexp, softmax
from scipy.stats import nbinom

from reverse_perturbation.analysis.oracle import Oracle, log_likelihood
from reverse_perturbation.data.screen.mask import apply_mask
from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.data.split import split_cells
from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics import registry
from reverse_perturbation.models.baselines.pca import Config as PcaConfig
from reverse_perturbation.models.baselines.pca import Pca
from reverse_perturbation.models.linear.logreg import LogisticRegression
from reverse_perturbation.prepare.simulate import MODEL, Truth, simulate
from reverse_perturbation.retrieval.evaluate import QuerySetting
from reverse_perturbation.sections import Simulated
from tests.retrieval.test_evaluate import evaluator, predictions

TABLE = pd.DataFrame({"condition": ["A+ctrl", "ctrl+A", "B+ctrl", "A+B", "D+ctrl", "ctrl"], "cells": [300] * 5 + [100]})
SIZE = Simulated(n_conditions=5, n_cells=1600, n_genes=60, seed=0)
NAMES = [f"GENE{i}" for i in range(400)]
CONDITIONS = ["A+B", "A+ctrl", "B+ctrl", "D+ctrl"]
MASKS = ("none", "own", "all_targets")
CELL, BULK = (QuerySetting("posterior", kind, "canonical") for kind in ("cell", "pseudobulk"))


def draw(**changes):
    """A screen and what it was drawn from."""
    model = dataclasses.replace(MODEL, **changes)
    return (make(TABLE, SIZE, NAMES, {}, model=model) for make in (simulate, Truth.draw))


def masked(cells, mask) -> MaskedScreen:
    """The split of a screen, masked."""
    frame = split_cells(cells.obs, seed=0, label_space="canonical")
    rows = cells.obs_names.get_indexer(frame["cell"])
    found = apply_mask(cells, mask)
    columns = (frame[name].to_numpy(dtype=object) for name in ("cell", "condition", "part"))
    genes = cells.var_names.to_numpy(dtype=object)
    return MaskedScreen(*columns, found.counts[rows], found.totals[rows], genes, genes)


def judge(cells, screen, **options):
    """The evaluator of the cells of a screen."""
    legacy = cells.obs.loc[screen.cell_ids, "condition"].astype(str).to_numpy(dtype=object)
    return dataclasses.replace(evaluator(legacy, screen.parts, **options), cell_ids=screen.cell_ids)


def probability(truth: Truth, row: int, strength: float, label: str, counts, seen) -> float:
    """The joint log probability of a cell's counts, written out with another library's distribution."""
    cells, base = truth.cells, truth.baseline
    log_mean = (
        base.log_mean.astype(np.float64)
        + strength * truth.effects[truth.conditions.index(label)]
        + base.lane[cells.lane[row]]
    )
    log_mean = log_mean + np.cos(cells.phase[row]) * base.cycle[0] + np.sin(cells.phase[row]) * base.cycle[1]
    mean = cells.depth[row] * np.exp(log_mean) / np.exp(log_mean).sum()
    shape = base.shape.astype(np.float64)
    return nbinom.logpmf(counts, shape, shape / (shape + mean))[seen].sum()


@pytest.mark.parametrize("mask", ["none", "all_targets"])
def test_the_likelihood_is_the_negative_binomials(mask):
    cells, truth = draw(weakness=0.0)  # every cell has the whole effect: nothing to integrate
    counts = apply_mask(cells, mask).counts[:20]
    seen = np.ones(60, dtype=bool) if mask == "none" else ~np.isin(truth.genes, ["A", "B", "D"])
    found = log_likelihood(truth, np.arange(20), counts, CONDITIONS, mask)
    expected = [
        [probability(truth, i, 1.0, label, counts[i].toarray()[0], seen) for label in CONDITIONS] for i in range(20)
    ]
    # Both up to a constant a cell.
    assert softmax(found, axis=1) == pytest.approx(softmax(expected, axis=1), abs=1e-6)
    assert np.ptp(found - expected, axis=1).max() < 1e-6


def test_the_share_of_the_effect_is_integrated_over():
    cells, truth = draw(weakness=1.0)
    counts = cells.layers["counts"]
    seen = np.ones(60, dtype=bool)
    places = (np.arange(400) + 0.5) / 400
    for row in range(5):
        x = counts[row].toarray()[0]
        each = [[probability(truth, row, u, label, x, seen) for u in places] for label in ("B+ctrl", "ctrl")]
        expected = logsumexp(each, axis=1)
        found = log_likelihood(truth, np.array([row]), counts[[row]], ["B+ctrl", "ctrl"], "none")[0]
        assert found[0] - found[1] == pytest.approx(expected[0] - expected[1], abs=0.01)


def test_a_count_that_a_candidate_would_have_masked_rules_it_out():
    cells, truth = draw()
    row = np.flatnonzero(cells.obs["condition"] == "B+ctrl")[:40]
    counts = apply_mask(cells, "own").counts[row]
    found = log_likelihood(truth, row, counts, CONDITIONS, "own")
    has_a = counts[:, truth.genes.index("A")].toarray().ravel() > 0
    assert has_a.any()
    assert (np.isinf(found[:, CONDITIONS.index("A+ctrl")]) == has_a).all()
    assert np.isfinite(found[:, CONDITIONS.index("B+ctrl")]).all()


def test_masked_genes_tell_nothing():
    cells, truth = draw()
    rows = np.arange(30)
    hidden = log_likelihood(truth, rows, apply_mask(cells, "all_targets").counts[rows], CONDITIONS, "all_targets")
    targets = np.isin(truth.genes, ["A", "B", "D"])
    # Other activations of the targets, of equal total, would be told from unmasked counts alone.
    other = truth.effects.copy()
    other[:, targets] = 0
    same_sum = dataclasses.replace(truth, effects=other)
    assert not np.allclose(
        log_likelihood(same_sum, rows, cells.layers["counts"][rows], CONDITIONS, "none"),
        log_likelihood(truth, rows, cells.layers["counts"][rows], CONDITIONS, "none"),
        atol=1,
    )
    shape = dataclasses.replace(truth.baseline, shape=np.where(targets, 9, truth.baseline.shape).astype(np.float32))
    again = log_likelihood(
        dataclasses.replace(truth, baseline=shape), rows, apply_mask(cells, "all_targets").counts[rows], CONDITIONS,
        "all_targets",
    )  # fmt: skip
    assert (again == hidden).all()


@pytest.mark.parametrize("mask", MASKS)
def test_its_posterior_is_right_as_often_as_it_says(mask):
    """A likelihood that is wrong anywhere makes the posterior too sure or not sure enough."""
    cells, truth = draw(effect=0.3)
    screen = masked(cells, mask)
    everything = dataclasses.replace(screen, parts=np.full(len(screen.parts), "query", dtype=object))
    found = Oracle.of(truth, everything, mask).scores(judge(cells, everything), CELL)
    sure = softmax(found.scores, axis=1).max(axis=1)
    right = found.conditions[found.scores.argmax(axis=1)] == found.labels
    error = np.sqrt((sure * (1 - sure)).sum()) / len(sure)
    assert 0.4 < right.mean() < 0.97
    assert abs(sure.mean() - right.mean()) < 3 * error


def test_no_model_beats_it():
    cells, truth = draw(effect=1.2)
    screen = masked(cells, "all_targets")
    of = judge(cells, screen, cells_per_query=4, draws=20)
    learn, values = screen.rows("reference", "validation"), screen.log1p()
    logreg = LogisticRegression("none", 0.1, 300).fit(values[learn], screen.conditions[learn])
    pca = Pca(PcaConfig(components=10, seed=0)).fit(values[learn])
    models = {
        "classifier": predictions(of, logreg.conditions, logreg.log_proba(values)),
        "bootstrap": predictions(of, embedding=pca.embed(values)),
    }
    oracle = Oracle.of(truth, screen, "all_targets")
    for setting, equal in ((CELL, False), (BULK, True)):
        best = oracle.scores(of, setting, equal=equal)
        bound = registry.compute(best.scores, best.labels, best.conditions)
        for ranking, model in models.items():
            own = of.scores(model, dataclasses.replace(setting, ranking=ranking))
            assert list(own.queries) == list(best.queries)
            found = registry.compute(own.scores, own.labels, own.conditions)
            assert found["exact_hit@1"] < bound["exact_hit@1"]
            assert 0.5 < found["mrr"] < bound["mrr"]


def test_priors_and_pseudobulks_by_hand():
    """Three queries of A, one of B: a cell that says nothing is A's by frequency, and a draw where all are equal."""
    of = evaluator(
        ["A+ctrl", "B+ctrl", "D+ctrl", "A+ctrl", "A+ctrl", "A+ctrl", "B+ctrl"], ["reference"] * 3 + ["query"] * 4
    )
    names = np.array(["A+ctrl", "B+ctrl", "D+ctrl"], dtype=object)
    likelihood = np.zeros((7, 3))
    likelihood[3:6, 1] = [0.25, 0.5, 1]
    oracle = Oracle(names, likelihood)
    cell = oracle.scores(of, CELL)
    assert softmax(cell.scores[3]).tolist() == pytest.approx([0.75, 0.25, 0])
    assert cell.scores[2].tolist() == pytest.approx([np.log(3), 1, -np.inf])
    assert oracle.scores(of, CELL, equal=True).scores[3].tolist() == [0, 0, -np.inf]
    groups, _, _ = of.queries(BULK, "query")
    bulk = oracle.scores(of, BULK, equal=True)
    assert bulk.labels.tolist() == ["A+ctrl"]
    # The sum over its cells; B has too few cells to be asked, so it cannot be the answer.
    assert bulk.scores[0].tolist() == [0, -np.inf, -np.inf]
    assert oracle.scores(evaluator(of.legacy[3:6], ["query"] * 3, cells_per_query=3), BULK).scores.shape == (1, 3)
    assert likelihood[groups[0], 1].sum() > 0


def test_other_cells_than_those_simulated_are_refused():
    cells, truth = draw()
    screen = masked(cells, "none")
    with pytest.raises(InputError, match=r"not those of data\.simulated; run `dvc repro prepare`"):
        Oracle.of(truth, dataclasses.replace(screen, genes=screen.genes[::-1]), "none")
    with pytest.raises(InputError, match=r"not those of data\.simulated"):
        Oracle.of(truth, dataclasses.replace(screen, cell_ids=screen.cell_ids + "x"), "none")


def test_the_truth_is_that_of_the_screen():
    cells, truth = draw()
    assert truth.genes == list(cells.var_names)
    assert truth.names == list(cells.obs_names)
    assert (truth.labels == cells.obs["condition"]).all()
    assert sp.issparse(cells.layers["counts"])
    # A twin has the same effect, so both are as likely.
    rows = np.arange(10)
    found = log_likelihood(truth, rows, cells.layers["counts"][rows], ["A+ctrl", "ctrl+A"], "none")
    assert (found[:, 0] == found[:, 1]).all()
