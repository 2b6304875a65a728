"""PyTorch, on the GPU where there is one and else on the CPU, finds the minimum that scipy finds."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import rankdata

from reverse_perturbation.gpu import gpu
from reverse_perturbation.models.linear import softmax as module
from reverse_perturbation.models.linear import softmax_gpu
from reverse_perturbation.models.linear.softmax import fit_softmax

DEVICE = gpu() or torch.device("cpu")
CLASSES = 12


@pytest.fixture(autouse=True)
def _scipy_where_no_device_is_given(monkeypatch):
    monkeypatch.setattr(module, "gpu", lambda: None)


def problem(seed: int = 0, n: int = 400, genes: int = 30) -> tuple[sp.csr_matrix, np.ndarray]:
    """Three quarters zeros; genes of correlated expression, of which one is always zero and one on a large scale."""
    rng = np.random.default_rng(seed)
    y = rng.permutation((CLASSES * (np.arange(n) / n) ** 1.5).astype(int))  # the first class has most cells
    x = np.maximum(rng.normal(-1, 1, (n, genes)) + rng.normal(0, 0.5, (n, 1)), 0)
    x[np.arange(n), y] += 0.5
    x[:, 20] = 0
    x[:, 21] *= 100
    return sp.csr_matrix(x), y


def covariance() -> np.ndarray:
    """Of classes in groups of three."""
    return np.eye(CLASSES) + 2 * np.kron(np.eye(CLASSES // 3), np.ones((3, 3)))


@pytest.mark.parametrize("c", [1e-3, 0.1, 3.0])
@pytest.mark.parametrize("shared", [None, covariance()], ids=["plain", "covariance"])
def test_objective_and_ranks_are_those_of_scipy(c, shared):
    x, y = problem()
    queries = problem(1)[0]
    theirs = fit_softmax(x, y, c, 500, covariance=shared)
    ours = fit_softmax(x, y, c, 500, covariance=shared, device=DEVICE)
    assert ours.objective == pytest.approx(theirs.objective, rel=1e-6)
    assert ours.n_iter < 1.2 * theirs.n_iter + 3
    assert ours.converged
    assert ours.coef.dtype == ours.intercept.dtype == np.float64
    scores = [queries @ each.coef.T + each.intercept for each in (ours, theirs)]
    assert softmax(scores[0], axis=1) == pytest.approx(softmax(scores[1], axis=1), abs=2e-3)
    ranks = [rankdata(-each, axis=1) for each in scores]
    assert (ranks[0] == ranks[1]).mean() > 0.995, "all but ties at the precision of the minimum"
    assert ((ranks[0] == 1) == (ranks[1] == 1)).all()
    if shared is not None:
        apart = fit_softmax(x, y, c, 500, device=DEVICE)
        assert not np.allclose(apart.coef, ours.coef, rtol=0.05)


def test_the_objective_is_that_of_the_weights():
    x, y = problem()
    found = fit_softmax(x, y, 0.1, 7, covariance=covariance(), device=DEVICE)
    log_proba = log_softmax(x @ found.coef.T + found.intercept, axis=1)
    penalty = np.trace(found.coef.T @ np.linalg.inv(covariance()) @ found.coef) / (2 * 0.1 * len(y))
    assert found.objective == pytest.approx(penalty - log_proba[np.arange(len(y)), y].mean(), rel=1e-6)
    assert (found.n_iter, found.converged) == (7, False)


def test_started_at_the_minimum_it_stays():
    x, y = problem()
    theirs = fit_softmax(x, y, 0.1, 2000)
    warm = fit_softmax(x, y, 0.1, 2000, (theirs.coef, theirs.intercept), device=DEVICE)
    assert warm.n_iter <= 3
    assert warm.objective == pytest.approx(theirs.objective, rel=1e-6)


@pytest.mark.parametrize("counts", [[50, 30, 20], [30, 30, 30]])
def test_without_features_it_gives_the_frequencies(counts):
    """Of equal classes the start is the minimum, and the gradient there all rounding."""
    y = np.repeat([0, 1, 2], counts)
    found = fit_softmax(sp.csr_matrix((len(y), 3)), y, 1.0, 100, device=DEVICE)
    assert found.converged
    assert softmax(found.intercept) == pytest.approx(np.array(counts) / len(y), abs=1e-4)
    assert not found.coef.any()


@pytest.mark.parametrize("free", [0.0, float("inf")], ids=["CSR", "dense"])
def test_blocks_that_fit_and_blocks_that_do_not(monkeypatch, free):
    x, y = problem()
    whole = fit_softmax(x, y, 0.1, 2000, device=DEVICE)
    monkeypatch.setattr(softmax_gpu, "CELLS", 97)
    monkeypatch.setattr(softmax_gpu, "_free", lambda device: free)
    blocks = [block for block, _ in softmax_gpu._parts(x, y, DEVICE)]
    assert [len(block) for block in blocks] == [97, 97, 97, 97, 12]
    assert {block.layout for block in blocks} == {torch.strided if free else torch.sparse_csr}
    assert fit_softmax(x, y, 0.1, 2000, device=DEVICE).objective == pytest.approx(whole.objective, rel=1e-6)


def test_the_cells_the_curvature_is_estimated_from_decide_nothing(monkeypatch):
    x, y = problem()
    whole = fit_softmax(x, y, 1.0, 2000, device=DEVICE)
    monkeypatch.setattr(module, "ROWS", 20)
    few = fit_softmax(x, y, 1.0, 5000, device=DEVICE)
    assert few.n_iter > whole.n_iter
    assert few.objective == pytest.approx(whole.objective, rel=1e-5)


def test_the_gpu_is_taken_where_there_is_one(monkeypatch):
    x, y = problem()
    asked = fit_softmax(x, y, 0.1, 20, device=DEVICE)
    assert not np.array_equal(fit_softmax(x, y, 0.1, 20).coef, asked.coef)
    monkeypatch.setattr(module, "gpu", lambda: DEVICE)
    assert np.array_equal(fit_softmax(x, y, 0.1, 20).coef, asked.coef)
