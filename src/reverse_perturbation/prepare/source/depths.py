"""Signs that counts or depths are none: normalised values that were rounded, and depths that are logarithms."""

import numpy as np
import scipy.sparse as sp

# Depths of sequenced cells vary by a fifth and more; the real screens at hand have 0.38 to 0.54.
LEAST_VARIATION = 0.05
LARGEST_LOG = 20.0  # of a depth; e**20 UMIs is more than any cell has
MANY_UMIS = 500  # in a cell with so many some gene has more than LARGEST_LOG
FEWEST_CELLS = 20  # of fewer no variation is judged
FEWEST_GENES = 5  # expressed in a cell, for its smallest count to tell something
MANY_GENES = 0.25  # share of a cell's expressed genes; a count of 1 is that of a third and more
MOST_WITHOUT_ONES = 0.5  # share of cells; of molecules nearly every cell has a gene counted once


def depth_warnings(counts: sp.csr_matrix, totals: np.ndarray, given: bool) -> list[str]:
    """Return what speaks against counts of molecules, in words; nothing for counts as they are sequenced.

    Parameters
    ----------
    counts
        CSR [n_cells, n_genes], whole numbers without stored zeros.
    totals
        Depths, [n_cells].
    given
        Whether they are of ``obs["total_counts"]``.
    """
    warnings = []
    what = 'obs["total_counts"]' if given else "the sum of a cell's counts"
    if len(totals) >= FEWEST_CELLS and totals.mean() > LARGEST_LOG and totals.std() < LEAST_VARIATION * totals.mean():
        warnings.append(
            f"{what} varies by {totals.std() / totals.mean():.1%} only (median {np.median(totals):,.0f}), as of cells "
            "that were scaled to one depth and rounded, or thinned to it"
        )
    if given and 0 < totals.max(initial=0) <= LARGEST_LOG and len(totals) >= FEWEST_CELLS:
        warnings.append(f"{what} is {totals.max():g} at most, as logarithms of depths are")
    if not counts.nnz:
        return warnings
    sums = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    if counts.data.max() <= LARGEST_LOG and np.median(sums) >= MANY_UMIS:
        warnings.append(
            f"no count is above {counts.data.max():g}, although a cell has {np.median(sums):,.0f} (median), as in "
            "logarithms that were rounded"
        )
    if (share := _without_ones(counts)) > MOST_WITHOUT_ONES:
        warnings.append(
            f"in {share:.0%} of the cells the smallest count, of many genes, is above 1, as in values that were scaled "
            "and rounded"
        )
    return warnings


def _without_ones(counts: sp.csr_matrix) -> float:
    """Return the share of cells whose smallest count is above 1 and that of many genes, as counts of 1 are."""
    expressed = np.diff(counts.indptr)
    rows = expressed > 0
    starts, expressed = counts.indptr[:-1][rows], expressed[rows]
    smallest = np.minimum.reduceat(counts.data, starts)
    genes = np.add.reduceat((counts.data == np.repeat(smallest, expressed)).astype(np.int64), starts)
    judged = expressed >= FEWEST_GENES
    scaled = (smallest > 1) & (genes >= MANY_GENES * expressed)
    return float(scaled[judged].mean()) if judged.any() else 0.0
