"""Multinomial logistic regression on expression: the baseline to beat."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.special import log_softmax
from sklearn.preprocessing import MaxAbsScaler

from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics.ranks.per_query import exact_hit, reciprocal_rank
from reverse_perturbation.metrics.ranks.ranking import Ranking
from reverse_perturbation.models.linear.softmax import fit_softmax
from reverse_perturbation.storage import load_weights, save_weights

Scaling = Literal["none", "max_abs"]


class LogisticRegression:
    """Multinomial logistic regression with an L2 penalty, as a ranker that is saved without pickle.

    The earlier project's configuration is ``LogisticRegression("none", 1.0, max_iter)``: scikit-learn's defaults, whose
    objective this is.

    Parameters
    ----------
    scaling
        ``none``, or ``max_abs``: each gene divided by its largest value among the cells it is fitted on.
    c
        Inverse strength of the L2 penalty.
    max_iter
        Iterations of L-BFGS; whether they were enough is kept in ``converged``.

    Attributes
    ----------
    conditions
        Names of the classes, object array of str.
    coef, intercept
        float64 [n_conditions, n_genes] and [n_conditions]: weights of expression divided by ``scale``.
    scale
        float64 [n_genes].
    genes
        Names of the columns; known of a model that was loaded.
    """

    def __init__(self, scaling: Scaling, c: float, max_iter: int):
        self.scaling: Scaling = scaling
        self.c = c
        self.max_iter = max_iter
        self.conditions = np.empty(0, dtype=object)
        self.n_iter = 0
        self.converged = False
        self.coef = np.empty((0, 0))
        self.intercept = np.empty(0)
        self.scale = np.empty(0)
        self.genes: list[str] = []

    def unfitted(self) -> "LogisticRegression":
        """Return an unfitted model of the same configuration."""
        return LogisticRegression(self.scaling, self.c, self.max_iter)

    def fit(
        self, reference: sp.csr_matrix, labels: np.ndarray, start: "LogisticRegression | None" = None
    ) -> "LogisticRegression":
        """Fit on reference cells.

        Parameters
        ----------
        reference
            CSR float32 [n, n_genes], log1p of counts per ten thousand.
        labels
            Condition of each cell, at least two different ones.
        start
            Warm start: a model of the same scaling, used if its conditions are the same; the minimum is one.

        Raises
        ------
        InputError
            If there is only one condition.
        """
        scale = np.ones(reference.shape[1])
        if self.scaling == "max_abs":
            scale = MaxAbsScaler().fit(reference).scale_
        conditions, code = np.unique(labels.astype(str), return_inverse=True)
        if len(conditions) < 2:
            raise InputError(f"logistic regression needs cells of at least two conditions, found {len(conditions)}")
        same = start is not None and np.array_equal(start.conditions.astype(str), conditions)
        warm = (start.coef, start.intercept) if start is not None and same else None
        fitted = fit_softmax(_divided(reference, scale), code, self.c, self.max_iter, warm)
        self.coef, self.intercept = fitted.coef, fitted.intercept
        self.n_iter, self.converged = fitted.n_iter, fitted.converged
        self.scale = scale
        self.conditions = conditions.astype(object)
        return self

    def scores(self, queries: sp.csr_matrix) -> np.ndarray:
        """Return float64 [n, n_conditions], the linear predictor of each condition."""
        return _divided(queries, self.scale) @ self.coef.T + self.intercept

    def log_proba(self, queries: sp.csr_matrix) -> np.ndarray:
        """Return float32 [n, n_conditions] log-probabilities."""
        return log_softmax(self.scores(queries), axis=1).astype(np.float32)

    def save(self, folder: str | Path, genes: Sequence[str]) -> None:
        """Write the model; ``genes`` names the columns."""
        weights = {"coef": self.coef, "intercept": self.intercept, "scale": self.scale}
        about = {
            "scaling": self.scaling,
            "c": self.c,
            "max_iter": self.max_iter,
            "n_iter": self.n_iter,
            "converged": self.converged,
            "conditions": list(self.conditions),
            "genes": list(genes),
        }
        save_weights(folder, weights, about)

    @classmethod
    def load(cls, folder: str | Path) -> "LogisticRegression":
        """Read what :meth:`save` wrote; an InputError if a file is missing or broken."""
        return load_weights(folder, cls._of, "baseline@logreg")

    @classmethod
    def _of(cls, weights: dict[str, np.ndarray], about: dict[str, Any]) -> "LogisticRegression":
        model = cls(about["scaling"], about["c"], about["max_iter"])
        model.coef, model.intercept, model.scale = weights["coef"], weights["intercept"], weights["scale"]
        model.conditions, model.genes = np.array(about["conditions"], dtype=object), list(about["genes"])
        model.n_iter, model.converged = about["n_iter"], about["converged"]
        if model.coef.shape != (len(model.conditions), len(model.scale)):
            raise ValueError(f"weights {model.coef.shape} for {len(model.conditions)} conditions")
        return model


def tune(
    reference: sp.csr_matrix,
    reference_labels: np.ndarray,
    validation: sp.csr_matrix,
    validation_labels: np.ndarray,
    *,
    scalings: Sequence[Scaling],
    cs: Sequence[float],
    max_iter: int,
    name: str,
) -> tuple[LogisticRegression, pd.DataFrame]:
    """Choose scaling and C by the cross-entropy on the validation cells.

    Cross-entropy and not the mean reciprocal rank, whose noise over a few hundred validation cells hides how it
    changes with C: on the real subset (262 validation cells, split seeds 42 to 44, three masks) the rank chose
    C anywhere from 0.1 to 3, cross-entropy 0.1 or 0.3. The table has both.

    Parameters
    ----------
    reference, validation
        CSR float32, the same genes.
    reference_labels, validation_labels
        Conditions.
    scalings, cs
        Values tried, each scaling with each C; C rises from the smallest, each fit warm-started from the one before.
    max_iter
        Maximum number of L-BFGS iterations.
    name
        Of the baseline, in the printed progress.

    Returns
    -------
    model, table
        The best, as it was fitted on the reference cells; of equals the smallest C. One row a configuration tried:
        scaling, c, cross_entropy (nats), exact_hit@1, mrr, n_iter, converged.
    """
    rows: list[dict[str, Any]] = []
    models = []
    for scaling in scalings:
        model = None
        for c in sorted(cs):
            candidate = LogisticRegression(scaling, c, max_iter)
            model = candidate.fit(reference, reference_labels, start=model)
            tried = _tried(model, model.log_proba(validation), validation_labels)
            rows.append(tried)
            models.append(model)
            print(
                f"{name}: scaling {scaling}, C {c:g}: validation cross-entropy {tried['cross_entropy']:.4f}, "
                f"mrr {tried['mrr']:.4f}, {model.n_iter} iterations",
                flush=True,
            )
    table = pd.DataFrame(rows)
    best = table.sort_values(["cross_entropy", "c"]).index[0]
    print(f"{name}: of {len(table)} configurations scaling {models[best].scaling}, C {models[best].c:g} is kept")
    return models[best], table


def _tried(model: LogisticRegression, log_proba: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    ranking = Ranking.of(log_proba, labels, model.conditions)
    of_truth = np.take_along_axis(log_proba, ranking.truth[:, None], axis=1)
    return {
        "scaling": model.scaling,
        "c": model.c,
        "cross_entropy": -float(of_truth.mean(dtype=np.float64)),
        "exact_hit@1": float(exact_hit(ranking, 1).mean()),
        "mrr": float(reciprocal_rank(ranking).mean()),
        "n_iter": model.n_iter,
        "converged": model.converged,
    }


def _divided(expression: sp.csr_matrix, scale: np.ndarray) -> sp.csr_matrix:
    result = sp.csr_matrix(expression, dtype=np.float64, copy=True)
    result.data /= scale[result.indices]
    return result
