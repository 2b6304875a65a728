"""The multinomial logistic regression of softmax.py, minimised on a device.

Expression of screens is dense enough (a tenth to a fifth of its values) that dense products are several times as fast
on a GPU as sparse ones. They are made in float32, without TensorFloat-32, as PyTorch does unless told otherwise.
"""

import warnings
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from torch.nn import functional

from reverse_perturbation.models.linear.lbfgs import lbfgs

if TYPE_CHECKING:
    from reverse_perturbation.models.linear.softmax import Problem

CELLS = 16_384  # of one product: enough to keep a GPU busy, and 331 MB of 5,045 genes
SHARE = 0.5  # of the free memory that dense expression may take; more stays CSR, each block made dense when used


def minimise(
    x: sp.csr_matrix, problem: "Problem", max_iter: int, tolerance: float, device: torch.device
) -> tuple[np.ndarray, float, int, bool]:
    """Return weights float64 [n_features + 1, n_classes], objective, iterations and whether they were enough.

    x is CSR [n, n_features] without the column of the intercept, which is added on the device.
    """

    def on_device(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, device=device)

    n = len(problem.y)
    penalty, spread = on_device(problem.penalty), on_device(problem.spread)
    precision = None if problem.precision is None else on_device(problem.precision)
    factor = _factor(_dense(_csr(x[problem.sample], device)), on_device(problem.ridge))
    # L^-1 itself: a product is faster than a triangular solve. Its rounding is that of the coordinates, not of the
    # result, because the gradient is taken in the same coordinates.
    inverse = torch.linalg.solve_triangular(
        factor, torch.eye(len(factor), dtype=factor.dtype, device=device), upper=False
    )
    parts = _parts(x, problem.y, device)

    def weights_of(point: torch.Tensor) -> torch.Tensor:
        return inverse.T @ (point / spread)

    def objective(point: torch.Tensor) -> tuple[float, torch.Tensor]:
        weights = weights_of(point)
        single = weights.float()
        gradient = penalty * (weights if precision is None else weights @ precision)
        value = (weights * gradient).sum() / 2
        for block, truth in parts:
            features = _dense(block)
            log_proba = (features @ single).log_softmax(dim=1)
            value -= log_proba.gather(1, truth).sum(dtype=torch.float64) / n
            slope = log_proba.exp_()
            slope.scatter_add_(1, truth, torch.full_like(truth, -1, dtype=slope.dtype))
            gradient += (features.T @ slope) / n
        return float(value), inverse @ gradient / spread

    found = lbfgs(objective, factor.T @ on_device(problem.start) * spread, max_iter, tolerance)
    return weights_of(found.point).cpu().numpy(), found.value, found.n_iter, found.converged


def _parts(x: sp.csr_matrix, y: np.ndarray, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return blocks of cells, dense with a last column of ones if all of them fit, else CSR; and classes [n, 1]."""
    fits = 4 * x.shape[0] * (x.shape[1] + 1) <= SHARE * _free(device)
    parts = []
    for first in range(0, x.shape[0], CELLS):
        block = _csr(x[first : first + CELLS], device)
        truth = torch.as_tensor(y[first : first + CELLS, None], dtype=torch.int64, device=device)
        parts.append((_dense(block) if fits else block, truth))
    return parts


def _free(device: torch.device) -> float:
    """Return the bytes free on a GPU, those that PyTorch keeps for reuse included."""
    if device.type != "cuda":
        return float("inf")
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def _csr(x: sp.csr_matrix, device: torch.device) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CSR is called a beta feature
        rows, columns, values = map(torch.from_numpy, (x.indptr, x.indices, x.data.astype(np.float32)))
        return torch.sparse_csr_tensor(rows, columns, values, size=x.shape, device=device)


def _dense(block: torch.Tensor) -> torch.Tensor:
    """Return float32 [n, n_features + 1], of CSR [n, n_features] or of what this has returned before."""
    return block if block.layout == torch.strided else functional.pad(block.to_dense(), (0, 1), value=1.0)


def _factor(some: torch.Tensor, ridge: torch.Tensor) -> torch.Tensor:
    """Return L as softmax.py does, of some cells."""
    some = some.double()
    moments = some.T @ some / len(some)
    moments.diagonal().add_(ridge + 1e-10 * moments.diagonal().max())
    return torch.linalg.cholesky(moments)
