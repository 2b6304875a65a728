"""Multinomial logistic regression fitted by preconditioned L-BFGS.

scikit-learn's lbfgs needs hundreds of iterations on expression, whose genes are correlated and differ in variance, and
stops before its minimum (on the simulated screen at C 1 after 552, 0.5 % above it; here 93; benchmarks/logreg.py). In
the coordinates of the objective's approximate curvature it takes a fraction of them. An iteration is two products of
the sparse expression, several times as fast in single precision on blocks of cells that fit the cache. Where there is
a GPU, the same objective is minimised there (softmax_gpu.py).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize

from reverse_perturbation.gpu import gpu

if TYPE_CHECKING:
    import torch

ROWS = 10_000  # cells from which the curvature is estimated: it decides the speed, not the result
TOLERANCE = 1e-8  # relative change of the objective at which to stop
CELLS = 2048  # of one product, whose scores and gradient then stay in the processor's cache
THREADS = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)  # scipy's sparse products take one each


@dataclass(frozen=True)
class Softmax:
    """Result of a fit.

    Attributes
    ----------
    coef, intercept
        float64 [n_classes, n_features] and [n_classes].
    objective
        Mean cross-entropy in nats plus the penalty.
    n_iter, converged
        Number of iterations, and whether they were enough.
    """

    coef: np.ndarray
    intercept: np.ndarray
    objective: float
    n_iter: int
    converged: bool


@dataclass(frozen=True)
class Problem:
    """What is minimised, but for the features, and in which coordinates.

    Attributes
    ----------
    y
        int [n], class of each cell.
    penalty
        float64 [n_features + 1, 1], of each feature and, 0, of the intercept.
    precision
        float64 [n_classes, n_classes], inverse of the classes' covariance; None: the identity.
    spread
        float64 [n_classes], sqrt(v) of the coordinates.
    ridge
        float64 [n_features + 1], added to the second moments: the penalty over mean v.
    sample
        Cells from which the second moments are estimated.
    start
        float64 [n_features + 1, n_classes], weights and intercepts to start from.
    """

    y: np.ndarray
    penalty: np.ndarray
    precision: np.ndarray | None
    spread: np.ndarray
    ridge: np.ndarray
    sample: slice
    start: np.ndarray


def fit_softmax(
    x: sp.csr_matrix,
    y: np.ndarray,
    c: float,
    max_iter: int,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    covariance: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
    device: "torch.device | None" = None,
) -> Softmax:
    """Minimise ``mean cross-entropy + |coef|^2 / (2 c n)``, as scikit-learn's LogisticRegression does.

    With a covariance K of the classes the penalty is ``tr(coef' K^-1 coef) / (2 c n)``: that of a Gaussian prior under
    which the weights of a feature covary over classes as K says. The problem stays one for ``coef``: for
    ``K^(-1/2) coef``, whose penalty is plain, it takes up to ten times the iterations.

    The Hessian is a mean over cells of ``(diag(p) - p p') (x) x x'`` plus the penalty (Böhning, Multinomial logistic
    regression algorithm, 1992). Where p are the frequencies of the classes, its diagonal blocks are about
    ``v A`` with ``v = p (1 - p)`` of the class and ``A = M + penalty / mean v``, M being the second moments of the
    features. With ``A = L L'`` the problem is solved for ``sqrt(v) L' coef'``, in which these blocks are the identity.

    Parameters
    ----------
    x
        CSR [n, n_features]; the products with it are made in float32, everything else in float64.
    y
        int [n], classes 0 to k - 1, each at least once.
    c
        Inverse strength of the penalty; intercepts are not penalised.
    max_iter
        Of L-BFGS.
    start
        Warm start: weights and intercepts; None: zero.
    covariance
        float64 [k, k], positive definite; None: the identity.
    tolerance
        Relative change of the objective at which to stop.
    device
        Where PyTorch computes; None: the GPU, or where there is none scipy does.
    """
    n, k = x.shape[0], int(y.max()) + 1
    penalty = np.full((x.shape[1] + 1, 1), 1 / (c * n))
    penalty[-1] = 0
    frequency = np.bincount(y) / n
    spread = np.sqrt(frequency * (1 - frequency))
    precision = None if covariance is None else np.linalg.inv(covariance)
    strength = 1.0 if precision is None else float(np.diag(precision).mean())
    ridge = (strength * penalty / (spread**2).mean())[:, 0]
    weights = np.zeros((len(penalty), k)) if start is None else np.vstack([start[0].T, start[1]])
    problem = Problem(y, penalty, precision, spread, ridge, slice(None, None, -(-n // ROWS)), weights)
    device = device or gpu()
    if device is None:
        weights, value, n_iter, converged = _minimise(x, problem, max_iter, tolerance)
    else:
        from reverse_perturbation.models.linear import softmax_gpu  # imports PyTorch

        weights, value, n_iter, converged = softmax_gpu.minimise(x, problem, max_iter, tolerance, device)
    return Softmax(weights[:-1].T.copy(), weights[-1].copy(), value, n_iter, converged)


def _minimise(
    x: sp.csr_matrix, problem: Problem, max_iter: int, tolerance: float
) -> tuple[np.ndarray, float, int, bool]:
    """Return weights float64 [n_features + 1, n_classes], objective, iterations and whether they were enough."""
    n, k = x.shape[0], len(problem.spread)
    x = sp.hstack([x, np.ones((n, 1))], format="csr", dtype=np.float32)
    y, penalty, precision, spread = problem.y, problem.penalty, problem.precision, problem.spread
    factor = _factor(x[problem.sample], problem.ridge)
    parts = [(x[first : first + CELLS], y[first : first + CELLS]) for first in range(0, n, CELLS)]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = solve_triangular(factor, flat.reshape(-1, k) / spread, lower=True, trans="T")
        single = weights.astype(np.float32)
        gradient = penalty * (weights if precision is None else weights @ precision)
        value = (weights * gradient).sum() / 2
        # Added up in the order of the cells: the result is the same with any number of threads.
        for of_part, slope in threads.map(lambda part: _cross_entropy(part[0], part[1], single), parts):
            value += of_part / n
            gradient += slope / n
        return float(value), (solve_triangular(factor, gradient, lower=True) / spread).ravel()

    with ThreadPoolExecutor(THREADS) as threads:
        result = minimize(
            objective,
            (factor.T @ problem.start * spread).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": max_iter, "maxls": 50, "maxcor": 20, "ftol": tolerance, "gtol": 0.0},
        )
    weights = solve_triangular(factor, result.x.reshape(-1, k) / spread, lower=True, trans="T")
    return weights, float(result.fun), int(result.nit), bool(result.success)


def _cross_entropy(x: sp.csr_matrix, y: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the sum over cells of the cross-entropy, and its gradient, float32 like the weights."""
    cells = np.arange(len(y))
    scores = x @ weights
    scores -= scores.max(axis=1, keepdims=True)
    of_truth = scores[cells, y].sum(dtype=np.float64)
    np.exp(scores, out=scores)
    total = scores.sum(axis=1, keepdims=True)
    value = np.log(total).sum(dtype=np.float64) - of_truth
    scores /= total
    scores[cells, y] -= 1
    return float(value), x.T @ scores


def _factor(some: sp.csr_matrix, ridge: np.ndarray) -> np.ndarray:
    """Return L, lower triangular, of the features' second moments among some cells plus the ridge, ``L L'``."""
    moments = (some.T @ some).toarray().astype(np.float64) / some.shape[0]
    # A little more than the ridge, so that rounding cannot make it singular where the penalty is very small.
    moments[np.diag_indices_from(moments)] += ridge + 1e-10 * moments.diagonal().max()
    result: np.ndarray = cholesky(moments, lower=True)
    return result
