"""Tuned logistic regression on expression and sequencing depth.

A transformer can tell the depth from its tokens (a single count has the value log1p(1e4 / depth)), a linear model of
expression cannot: the distance to ``logreg`` is what depth is worth.
"""

import numpy as np
import scipy.sparse as sp

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.data.screen.normalize import COUNTS_PER
from reverse_perturbation.models.linear.baseline import TunedBaseline, TunedConfig


class Config(TunedConfig):
    """Section ``logreg_depth``."""


class Baseline(TunedBaseline):
    """Two columns beside expression: log depth and its square."""

    def features(self, screen: MaskedScreen) -> sp.csr_matrix:
        """Return CSR float32 [n_cells, n_genes + 2]."""
        return sp.hstack([screen.log1p(), depth_features(screen.totals)]).tocsr()

    def columns(self, screen: MaskedScreen) -> list[str]:
        """Return the names of the columns."""
        return [*screen.genes, "log depth", "log depth squared"]


def depth_features(totals: np.ndarray) -> sp.csr_matrix:
    """Return CSR float32 [n, 2]: log of the depth in units of ten thousand UMIs, and its square.

    ``totals`` [n] are depths after the mask; a cell without counts is given that of ten thousand.
    """
    log = np.log(np.where(totals > 0, totals, COUNTS_PER) / COUNTS_PER)
    return sp.csr_matrix(np.stack([log, log**2], axis=1), dtype=np.float32)
