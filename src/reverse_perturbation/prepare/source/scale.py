"""What the normalised matrix X of a file looks like beside its counts: evidence for the audit, nothing more."""

from typing import Any

import numpy as np
import scipy.sparse as sp

ROWS = 4096  # the first cells of a file are enough to tell a scale
LARGEST_LOG = 50.0  # above it X is no logarithm of counts, and exp would overflow


def describe_x(rows: sp.csr_matrix | None, counts: sp.csr_matrix, totals: np.ndarray) -> dict[str, Any]:
    """Compare the first rows of X with those of the counts.

    If X is ``log1p(counts * f)`` with one factor f a cell, then ``expm1(X) / counts`` is f for all genes of a cell,
    and f times the cell's depth is what the cells were scaled to.

    Parameters
    ----------
    rows
        First rows of X, [n_rows, n_genes]; None where it is absent or stored by columns.
    counts
        CSR [n_cells, n_genes].
    totals
        [n_cells], depths.

    Returns
    -------
    dict
        Empty without rows of X. Else ``x_cells`` looked at; of the non-zero values ``x_integer_share`` and
        ``x_max``; and where X could be a logarithm ``x_log1p_share``, the share of cells in which that ratio varies
        by less than 0.1 %, and ``x_scaled_to``, the median of f times the depth.
    """
    if rows is None or not rows.nnz:
        return {}
    rows = rows.astype(np.float64)
    description = {
        "x_cells": rows.shape[0],
        "x_integer_share": float(np.mean(rows.data == np.floor(rows.data))),
        "x_max": float(rows.data.max()),
    }
    if not 0 <= rows.data.min() <= description["x_max"] <= LARGEST_LOG:
        return description
    inverse = counts[: rows.shape[0]].astype(np.float64)
    inverse.data = 1 / inverse.data
    factor = sp.csr_matrix(rows.expm1().multiply(inverse))
    stored = np.diff(factor.indptr)
    cells = np.flatnonzero(stored)
    if not len(cells):
        return description
    low = np.minimum.reduceat(factor.data, factor.indptr[cells])
    high = np.maximum.reduceat(factor.data, factor.indptr[cells])
    same_genes = stored[cells] == np.diff(rows.indptr)[cells]
    return description | {
        "x_log1p_share": float(np.mean(same_genes & (high <= low * 1.001))),
        "x_scaled_to": float(np.median(low * totals[cells])),
    }
