"""Principal components of expression: the baseline embedding."""

from pathlib import Path

import numpy as np
import scipy.sparse as sp
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import PCA

from reverse_perturbation.config import Pca as Config
from reverse_perturbation.errors import InputError
from reverse_perturbation.storage import read_json, write_atomically, write_json


class Pca:
    """scikit-learn's PCA on sparse expression (centred implicitly, by ARPACK), saved without pickle."""

    def __init__(self, config: Config):
        self.config = config

    def fit(self, reference: sp.csr_matrix) -> "Pca":
        """Find the components of reference cells, CSR float32 [n, n_genes].

        Raises
        ------
        InputError
            If there are fewer cells or genes than components.
        """
        if min(reference.shape) <= self.config.components:
            raise InputError(
                f"pca.components: {self.config.components}, but the reference has {reference.shape[0]} cells of "
                f"{reference.shape[1]} genes; lower it"
            )
        model = PCA(self.config.components, svd_solver="arpack", random_state=self.config.seed)
        model.fit(sp.csr_matrix(reference, dtype=np.float64))
        self._mean, self._components = model.mean_, model.components_
        return self

    def embed(self, expression: sp.csr_matrix) -> np.ndarray:
        """Return float32 [n, components]."""
        result: np.ndarray = expression @ self._components.T - self._mean @ self._components.T
        return result.astype(np.float32)

    def save(self, folder: str | Path) -> None:
        """Write weights as safetensors beside a JSON, atomically."""
        with write_atomically(folder) as temporary:
            temporary.mkdir()
            save_file({"mean": self._mean, "components": self._components}, temporary / "weights.safetensors")
            write_json(temporary / "config.json", self.config.model_dump())

    @classmethod
    def load(cls, folder: str | Path) -> "Pca":
        """Read what :meth:`save` wrote."""
        folder = Path(folder)
        model = cls(Config.model_validate(read_json(folder / "config.json")))
        weights = load_file(folder / "weights.safetensors")
        model._mean, model._components = weights["mean"], weights["components"]
        return model
