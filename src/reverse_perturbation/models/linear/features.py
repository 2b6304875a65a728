"""Features of linear models: expression, alone or with the depth of the cell.

A transformer can tell the depth from its tokens (a single count has the value log1p(1e4 / depth)), a linear model of
expression cannot.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy.sparse as sp

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.data.screen.normalize import COUNTS_PER

Features = Literal["log1p", "log1p_depth"]


def features(screen: MaskedScreen, kind: Features) -> sp.csr_matrix:
    """Return CSR float32 [n_cells, n_features]: log1p expression, and for ``log1p_depth`` two columns of the depth."""
    return screen.log1p() if kind == "log1p" else sp.hstack([screen.log1p(), depth_features(screen.totals)]).tocsr()


def feature_names(genes: Sequence[str], kind: Features) -> list[str]:
    """Return the names of the columns of :func:`features`."""
    return [*genes] if kind == "log1p" else [*genes, "log depth", "log depth squared"]


def depth_features(totals: np.ndarray) -> sp.csr_matrix:
    """Return CSR float32 [n, 2]: log of the depth in units of ten thousand UMIs, and its square.

    ``totals`` [n] are depths after the mask; a cell without counts is given that of ten thousand.
    """
    log = np.log(np.where(totals > 0, totals, COUNTS_PER) / COUNTS_PER)
    return sp.csr_matrix(np.stack([log, log**2], axis=1), dtype=np.float32)
