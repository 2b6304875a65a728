"""Normalised expression, the same for every model: log1p of counts per ten thousand."""

import numpy as np
import scipy.sparse as sp

COUNTS_PER = 1e4


def log1p_cp10k(counts: sp.csr_matrix, totals: np.ndarray) -> sp.csr_matrix:
    """Return ``log1p(counts / totals * 1e4)`` without densifying.

    Parameters
    ----------
    counts
        CSR, cells x genes, already masked.
    totals
        One a cell, of the masked cell. A cell without counts stays zero.

    Returns
    -------
    scipy.sparse.csr_matrix
        float32, with the sparsity of ``counts``.
    """
    factor = np.divide(COUNTS_PER, totals, out=np.zeros(len(totals)), where=np.asarray(totals) > 0)
    data = np.log1p(counts.data * np.repeat(factor, np.diff(counts.indptr)))
    return sp.csr_matrix((data.astype(np.float32), counts.indices, counts.indptr), shape=counts.shape)
