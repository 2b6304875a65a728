"""Embeddings as they are, centred on control cells, or whitened; fitted on library and control cells alone."""

from dataclasses import dataclass

import numpy as np

from reverse_perturbation.errors import InputError
from reverse_perturbation.sections import Embedding

FLOOR = 1e-6  # directions with less than this share of the largest variance are float32 noise and left out


@dataclass(frozen=True)
class Transform:
    """``(x - shift) @ matrix``. An average of cells is carried where the average of the carried cells lies.

    Attributes
    ----------
    shift
        float64 [d].
    matrix
        float64 [d, d_new], or None for the identity.
    """

    shift: np.ndarray
    matrix: np.ndarray | None

    @classmethod
    def fit(cls, kind: Embedding, library: np.ndarray, control_mean: np.ndarray | None) -> "Transform":
        """Learn what a kind of embedding needs.

        Parameters
        ----------
        kind
            ``plain``: nothing; ``centred``: the mean of the control cells becomes the origin, so that cosine compares
            directions of change; ``whitened``: the library's cells get mean 0 and covariance 1 (Kessy et al. 2018,
            doi:10.1080/00031305.2016.1277159, PCA whitening).
        library
            float [n, d], the cells the library is built from.
        control_mean
            float [d], mean embedding of the control cells.

        Raises
        ------
        InputError
            ``centred`` without control cells.
        """
        if kind == "whitened":
            shift = library.mean(axis=0, dtype=np.float64)
            moved = library - shift
            variance, axes = np.linalg.eigh(moved.T @ moved / len(moved))
            kept = variance > FLOOR * max(variance[-1], 0)
            return cls(shift, axes[:, kept] / np.sqrt(variance[kept]))
        if kind == "plain":
            return cls(np.zeros(library.shape[1]), None)
        if control_mean is None:
            raise InputError("library.embedding is centred, but there are no control cells; choose plain or whitened")
        return cls(np.asarray(control_mean, dtype=np.float64), None)

    def __call__(self, embedding: np.ndarray) -> np.ndarray:
        """Return float32 [n, d_new] for float [n, d]."""
        moved = embedding - self.shift
        result: np.ndarray = (moved if self.matrix is None else moved @ self.matrix).astype(np.float32)
        return result
