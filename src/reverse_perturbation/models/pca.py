"""Principal components of expression: the baseline embedding."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import PCA

from reverse_perturbation.config import Pca as Config
from reverse_perturbation.errors import InputError
from reverse_perturbation.storage import read_json, write_atomically, write_json


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
        """Write weights as safetensors beside a JSON, atomically; ``genes`` names the columns."""
        with write_atomically(folder) as temporary:
            temporary.mkdir()
            weights = {"mean": self._mean, "components": np.ascontiguousarray(self._components)}
            save_file(weights, temporary / "weights.safetensors")
            about = {"pca": self.config.model_dump(), "genes": list(genes)}
            write_json(temporary / "config.json", about)

    @classmethod
    def load(cls, folder: str | Path) -> "Pca":
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            If a file is missing or broken.
        """
        folder = Path(folder)
        try:
            model = cls(Config.model_validate(read_json(folder / "config.json")["pca"]))
            weights = load_file(folder / "weights.safetensors")
            model._mean, model._components = weights["mean"], weights["components"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"{folder}: not a saved PCA ({error}); run `dvc repro pca` again") from None
        return model
