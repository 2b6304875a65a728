"""Multinomial logistic regression on expression: the baseline to beat."""

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from safetensors.numpy import load_file, save_file
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression as Sklearn
from sklearn.preprocessing import MaxAbsScaler

from reverse_perturbation.config import Logreg
from reverse_perturbation.errors import InputError
from reverse_perturbation.retrieval import metrics
from reverse_perturbation.retrieval.rank import truth_index
from reverse_perturbation.storage import read_json, write_atomically, write_json

Scaling = Literal["none", "max_abs"]


class LogisticRegression:
    """scikit-learn's multinomial logistic regression (lbfgs), as a ranker that is saved without pickle.

    Parameters
    ----------
    scaling
        ``none``, or ``max_abs``: each gene divided by its largest value among the cells it is fitted on.
    c
        Inverse strength of the L2 penalty.
    max_iter
        Iterations of lbfgs; whether they were enough is kept in ``converged``.
    """

    def __init__(self, scaling: Scaling, c: float, max_iter: int):
        self.scaling: Scaling = scaling
        self.c = c
        self.max_iter = max_iter
        self.conditions = np.empty(0, dtype=object)
        self.n_iter = 0
        self.converged = False

    def fresh(self) -> "LogisticRegression":
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
            Condition of each cell.
        start
            A model fitted on the same cells, from whose weights to set out.
        """
        scale = np.ones(reference.shape[1])
        if self.scaling == "max_abs":
            scale = MaxAbsScaler().fit(reference).scale_
        model = Sklearn(C=self.c, max_iter=self.max_iter, warm_start=start is not None)
        if start is not None:
            model.coef_, model.intercept_, model.classes_ = start._coef.copy(), start._intercept.copy(), start.conditions
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # kept in `converged` instead
            model.fit(self._scaled(reference, scale), labels.astype(str))
        self._coef, self._intercept, self._scale = model.coef_, model.intercept_, scale
        if len(model.classes_) == 2:  # scikit-learn keeps one row of weights for two classes
            self._coef = np.concatenate([-model.coef_ / 2, model.coef_ / 2])
            self._intercept = np.concatenate([-model.intercept_ / 2, model.intercept_ / 2])
        self.conditions = model.classes_.astype(object)
        self.n_iter = int(model.n_iter_[0])
        self.converged = self.n_iter < self.max_iter
        return self

    def scores(self, queries: sp.csr_matrix) -> np.ndarray:
        """Return float64 [n, n_conditions], the linear predictor of each condition."""
        return self._scaled(queries, self._scale) @ self._coef.T + self._intercept

    def log_proba(self, queries: sp.csr_matrix) -> np.ndarray:
        """Return float32 [n, n_conditions] log-probabilities."""
        return log_softmax(self.scores(queries), axis=1).astype(np.float32)

    def save(self, folder: str | Path) -> None:
        """Write weights as safetensors beside a JSON, atomically."""
        with write_atomically(folder) as temporary:
            temporary.mkdir()
            save_file(
                {"coef": self._coef, "intercept": self._intercept, "scale": self._scale},
                temporary / "weights.safetensors",
            )
            write_json(
                temporary / "config.json",
                {
                    "scaling": self.scaling,
                    "c": self.c,
                    "max_iter": self.max_iter,
                    "n_iter": self.n_iter,
                    "converged": self.converged,
                    "conditions": list(self.conditions),
                },
            )

    @classmethod
    def load(cls, folder: str | Path) -> "LogisticRegression":
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            If a file is missing.
        """
        folder = Path(folder)
        for name in ("config.json", "weights.safetensors"):
            if not (folder / name).exists():
                raise InputError(f"{folder}: {name} is missing; run `dvc repro logreg` to make it again")
        config, weights = read_json(folder / "config.json"), load_file(folder / "weights.safetensors")
        model = cls(config["scaling"], config["c"], config["max_iter"])
        model._coef, model._intercept, model._scale = weights["coef"], weights["intercept"], weights["scale"]
        model.conditions = np.array(config["conditions"], dtype=object)
        model.n_iter, model.converged = config["n_iter"], config["converged"]
        return model

    @staticmethod
    def _scaled(expression: sp.csr_matrix, scale: np.ndarray) -> sp.csr_matrix:
        result = sp.csr_matrix(expression, dtype=np.float64, copy=True)
        result.data /= scale[result.indices]
        return result


def tune(
    reference: sp.csr_matrix,
    reference_labels: np.ndarray,
    validation: sp.csr_matrix,
    validation_labels: np.ndarray,
    config: Logreg,
) -> tuple[LogisticRegression, pd.DataFrame]:
    """Choose scaling and C by the cross-entropy on the validation cells.

    Cross-entropy and not the mean reciprocal rank: with some 260 validation cells of 33 conditions the rank's noise
    is larger than its change over a factor of ten in C, and chose C between 0.1 and 3 from split to split.

    Parameters
    ----------
    reference, validation
        CSR float32, the same genes.
    reference_labels, validation_labels
        Conditions.
    config
        What to try. C goes up from the smallest, each fit setting out from the one before.

    Returns
    -------
    model, table
        The best configuration, unfitted; of equals the smallest C. One row a configuration tried:
        scaling, c, cross_entropy (nats), exact_hit@1, mrr, n_iter, converged.
    """
    rows = []
    for scaling in config.scaling:
        model = None
        for c in sorted(config.c):
            model = LogisticRegression(scaling, c, config.max_iter).fit(reference, reference_labels, start=model)
            log_proba = model.log_proba(validation)
            truth = truth_index(validation_labels, model.conditions)
            loss = -float(np.take_along_axis(log_proba, truth[:, None], axis=1).mean())
            found = metrics.compute(log_proba, validation_labels, model.conditions)
            rows.append(
                {
                    "scaling": scaling,
                    "c": c,
                    "cross_entropy": loss,
                    "exact_hit@1": found["exact_hit@1"],
                    "mrr": found["mrr"],
                    "n_iter": model.n_iter,
                    "converged": model.converged,
                }
            )
            print(f"logreg: scaling {scaling}, C {c:g}: validation cross-entropy {loss:.4f}, mrr {found['mrr']:.4f}", flush=True)
    table = pd.DataFrame(rows)
    best = table.sort_values(["cross_entropy", "c"], kind="stable").iloc[0]
    return LogisticRegression(best["scaling"], float(best["c"]), config.max_iter), table
