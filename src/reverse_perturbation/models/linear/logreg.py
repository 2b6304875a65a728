"""Multinomial logistic regression."""

from typing import Any, Literal, Self

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import MaxAbsScaler

from reverse_perturbation.conditions import genes_of
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.linear.model import LinearModel, divided
from reverse_perturbation.models.linear.softmax import TOLERANCE, fit_softmax

Scaling = Literal["none", "max_abs"]


class LogisticRegression(LinearModel):
    """Multinomial logistic regression with an L2 penalty.

    The earlier project's configuration is ``LogisticRegression("none", 1.0, max_iter)``: scikit-learn's defaults, whose
    objective this is.

    Parameters
    ----------
    scaling
        ``none``, or ``max_abs``: each feature divided by its largest absolute value among the cells it is fitted on.
    c
        Inverse strength of the L2 penalty.
    max_iter
        Iterations of L-BFGS; whether they were enough is kept in ``converged``.
    gene_share
        How far conditions that share a gene share weights (:func:`covariance`); 0: not at all.
    """

    def __init__(self, scaling: Scaling, c: float, max_iter: int, gene_share: float = 0.0):
        super().__init__()
        self.scaling: Scaling = scaling
        self.c = c
        self.max_iter = max_iter
        self.gene_share = gene_share
        self.n_iter = 0
        self.converged = False

    def fit(
        self, features: sp.csr_matrix, labels: np.ndarray, start: Self | None = None, tolerance: float = TOLERANCE
    ) -> Self:
        """Fit on some cells.

        Parameters
        ----------
        features
            CSR float32 [n, n_features].
        labels
            Condition of each cell, at least two different ones.
        start
            Warm start: a model of the same scaling, used if its conditions are the same.
        tolerance
            Relative change of the objective at which to stop.

        Raises
        ------
        InputError
            If there is only one condition.
        """
        scale = np.ones(features.shape[1])
        if self.scaling == "max_abs":
            scale = MaxAbsScaler().fit(features).scale_
        conditions, code = np.unique(labels.astype(str), return_inverse=True)
        if len(conditions) < 2:
            raise InputError(f"logistic regression needs cells of at least two conditions, found {len(conditions)}")
        same = start is not None and np.array_equal(start.conditions.astype(str), conditions)
        warm = (start.coef, start.intercept) if start is not None and same else None
        shared = covariance(conditions, self.gene_share) if self.gene_share else None
        fitted = fit_softmax(
            divided(features, scale), code, self.c, self.max_iter, warm, covariance=shared, tolerance=tolerance
        )
        self.coef, self.intercept = fitted.coef, fitted.intercept
        self.n_iter, self.converged = fitted.n_iter, fitted.converged
        self.scale = scale
        self.conditions = conditions.astype(object)
        return self

    def settings(self) -> dict[str, Any]:
        """Return the configuration, and how the fit ended."""
        names = ("scaling", "c", "max_iter", "gene_share", "n_iter", "converged")
        return {name: getattr(self, name) for name in names}


def covariance(conditions: np.ndarray, gene_share: float) -> np.ndarray:
    """Return float64 [k, k], the covariance of the conditions' weights: ``I + gene_share G G'``, of mean variance 1.

    G is 1 where a gene is in a condition and 0 elsewhere, so that the weights of A+B are those of gene A, those of
    gene B and a part of their own, each drawn at random.
    """
    sets = [genes_of(condition) for condition in conditions]
    shared = np.array([[len(a & b) for b in sets] for a in sets], dtype=np.float64)
    matrix = np.eye(len(sets)) + gene_share * shared
    return matrix * len(sets) / np.trace(matrix)
