"""A linear model of the conditions: one score a condition from the features of a cell."""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import log_softmax

from reverse_perturbation.models.linear.features import Features
from reverse_perturbation.storage import load_weights, save_weights


class LinearModel:
    """Scores ``coef @ (features / scale) + intercept``, saved without pickle; its softmax gives the probabilities.

    Attributes
    ----------
    conditions
        Names of the classes, object array of str.
    coef, intercept
        float64 [n_conditions, n_features] and [n_conditions].
    scale
        float64 [n_features].
    """

    def __init__(self) -> None:
        self.conditions = np.empty(0, dtype=object)
        self.coef = np.empty((0, 0))
        self.intercept = np.empty(0)
        self.scale = np.empty(0)

    def scores(self, queries: sp.csr_matrix) -> np.ndarray:
        """Return float64 [n, n_conditions], the linear predictor of each condition."""
        return divided(queries, self.scale) @ self.coef.T + self.intercept

    def log_proba(self, queries: sp.csr_matrix) -> np.ndarray:
        """Return float32 [n, n_conditions] log-probabilities."""
        return log_softmax(self.scores(queries), axis=1).astype(np.float32)

    def settings(self) -> dict[str, Any]:
        """Return what is saved about the fit."""
        return {}

    def save(self, folder: str | Path, features: Features, genes: list[str]) -> None:
        """Write the model, the kind of its features and their genes, in the order of the columns."""
        weights = {"coef": self.coef, "intercept": self.intercept, "scale": self.scale}
        about = {"features": features, "conditions": list(self.conditions), "genes": genes}
        save_weights(folder, weights, self.settings() | about)

    @classmethod
    def load(cls, folder: str | Path, stage: str) -> tuple["LinearModel", dict[str, Any]]:
        """Read what :meth:`save` wrote: the model, and ``features``, ``conditions`` and ``genes``.

        Raises
        ------
        InputError
            If a file is missing or broken; ``stage`` makes it.
        """
        return load_weights(folder, _model_of, stage)


def divided(features: sp.csr_matrix, scale: np.ndarray) -> sp.csr_matrix:
    """Return CSR float64, each column divided by its scale."""
    result = sp.csr_matrix(features, dtype=np.float64, copy=True)
    result.data /= scale[result.indices]
    return result


def _model_of(weights: dict[str, np.ndarray], about: dict[str, Any]) -> tuple[LinearModel, dict[str, Any]]:
    model = LinearModel()
    model.coef, model.intercept, model.scale = weights["coef"], weights["intercept"], weights["scale"]
    model.conditions = np.array(about["conditions"], dtype=object)
    if model.coef.shape != (len(model.conditions), len(model.scale)):
        raise ValueError(f"weights {model.coef.shape} for {len(model.conditions)} conditions")
    return model, {name: about[name] for name in ("features", "conditions", "genes")}
