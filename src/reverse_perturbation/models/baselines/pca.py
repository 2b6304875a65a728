"""Principal components of the reference cells; libraries of the embeddings rank."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import PCA

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.ranker import Ranker
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.sections import Count, Section, Seed
from reverse_perturbation.storage import load_weights, save_weights


class Config(Section):
    """Section ``pca``."""

    components: Count
    seed: Seed


class Pca:
    """scikit-learn's PCA on sparse expression (centred implicitly, by ARPACK), saved without pickle.

    scikit-learn makes the largest weight of each component positive, so fits to the same cells agree in sign.
    """

    def __init__(self, config: Config):
        self.config = config
        self._mean = np.empty(0)
        self._components = np.empty((0, 0))

    def fit(self, reference: sp.csr_matrix) -> "Pca":
        """Find the components of reference cells, CSR float32 [n, n_genes].

        Raises
        ------
        InputError
            If there are fewer cells or genes than components.
        """
        if min(reference.shape) <= self.config.components:
            raise InputError(
                f"pca.components: {self.config.components}, but the reference has {reference.shape[0]} cells "
                f"of {reference.shape[1]} genes; lower it"
            )
        model = PCA(self.config.components, svd_solver="arpack", random_state=self.config.seed)
        model.fit(sp.csr_matrix(reference, dtype=np.float64))
        self._mean, self._components = model.mean_, model.components_
        return self

    def embed(self, expression: sp.csr_matrix) -> np.ndarray:
        """Return float32 [n, components]."""
        result: np.ndarray = expression @ self._components.T - self._mean @ self._components.T
        return result.astype(np.float32)

    def save(self, folder: str | Path, genes: Sequence[str]) -> None:
        """Write the model; ``genes`` names the columns."""
        about = {"pca": self.config.model_dump(), "genes": list(genes)}
        save_weights(folder, {"mean": self._mean, "components": self._components}, about)

    @classmethod
    def load(cls, folder: str | Path) -> "Pca":
        """Read what :meth:`save` wrote; an InputError if a file is missing or broken."""
        return load_weights(folder, cls._of, "baseline@pca")

    @classmethod
    def _of(cls, weights: dict[str, np.ndarray], about: dict[str, Any]) -> "Pca":
        model = cls(Config.model_validate(about["pca"]))
        model._mean, model._components = weights["mean"], weights["components"]
        return model


class Baseline(Ranker):
    """PCA as an embedding; it has no classifier."""

    model: Pca

    def fit(self, screen: MaskedScreen, rows: np.ndarray) -> None:
        """Find the components of some cells."""
        self.model = Pca(self.config).fit(screen.log1p()[rows])

    def predict(self, screen: MaskedScreen) -> Predictions:
        """Return embeddings."""
        return Predictions(screen.cell_ids, None, None, self.model.embed(screen.log1p()))

    def save(self, folder: str | Path, screen: MaskedScreen) -> None:
        """Write the components."""
        self.model.save(folder, list(screen.genes))
