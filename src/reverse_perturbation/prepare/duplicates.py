"""Cells that a model could know by heart: the same counts in the reference and among the queries."""

import hashlib

import numpy as np
import scipy.sparse as sp


def duplicate_shares(counts: sp.csr_matrix, parts: np.ndarray) -> dict[str, float]:
    """Return the shares of cells whose counts, not all zero, are exactly those of a cell that is known by then.

    Parameters
    ----------
    counts
        CSR [n_cells, n_genes] with sorted indices and no stored zeros, before any mask.
    parts
        Object array [n_cells]: ``reference``, ``validation`` or ``query``.

    Returns
    -------
    dict
        ``query``: of the query cells, those that equal a reference or validation cell; ``validation``: of the
        validation cells, those that equal a reference cell.
    """
    digests = np.array([_digest(counts, row) for row in range(counts.shape[0])], dtype=object)
    found = {}
    for part, others in (("query", ["reference", "validation"]), ("validation", ["reference"])):
        known = set(digests[np.isin(parts, others)]) - {""}
        found[part] = float(np.mean([digest in known for digest in digests[parts == part]]))
    return found


def _digest(counts: sp.csr_matrix, row: int) -> str:
    values = slice(counts.indptr[row], counts.indptr[row + 1])
    if values.start == values.stop:
        return ""
    content = counts.indices[values].astype(np.int64).tobytes() + counts.data[values].astype(np.float32).tobytes()
    return hashlib.sha256(content).hexdigest()
