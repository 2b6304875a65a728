"""The mask: counts that would reveal the label are set to zero before anything else.

``own`` zeroes, in each cell, the genes its own label names, as the earlier project did. It depends on the
label: a target gene left above zero proves that the label does not contain it. ``all_targets`` zeroes every
gene named by any label, in every cell, so the mask does not depend on the cell's label.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from reverse_perturbation.conditions import genes_of
from reverse_perturbation.data.screen.genes import resolve
from reverse_perturbation.sections import Mask


@dataclass(frozen=True)
class MaskedCounts:
    """Counts after masking.

    Attributes
    ----------
    counts
        CSR float32, cells x genes, integer-valued; masked entries are not stored.
    totals
        float32, one a cell: the depth without the masked counts.
    """

    counts: sp.csr_matrix
    totals: np.ndarray


def target_columns(labels: Iterable[str], gene_names: Iterable[str]) -> dict[str, list[int]]:
    """Find the columns in which each target gene is measured, also under a synonym of its symbol.

    Returns
    -------
    dict
        Target as the labels spell it -> column numbers; an empty list where it is not measured.
    """
    columns: dict[str, list[int]] = {}
    for column, name in enumerate(gene_names):
        columns.setdefault(resolve(name), []).append(column)
    targets = sorted(set().union(*(genes_of(label) for label in set(labels))))
    return {target: columns.get(resolve(target), []) for target in targets}


def apply_mask(adata: AnnData, mask: Mask) -> MaskedCounts:
    """Zero the masked counts and subtract them from the depths.

    Parameters
    ----------
    adata
        Prepared cells: all of them, so that ``all_targets`` means the targets of the whole screen.
    mask
        ``none``, ``own`` or ``all_targets``.

    Returns
    -------
    MaskedCounts
        In the order of ``adata``; the input is not changed.
    """
    counts = sp.csr_matrix(adata.layers["counts"], copy=True)
    totals = depths(adata)
    labels = adata.obs["condition"].astype(str).to_numpy()
    columns = target_columns(labels, adata.var_names)
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    if mask == "none":
        hidden = np.zeros(counts.nnz, dtype=bool)
    elif mask == "all_targets":
        is_target = np.zeros(counts.shape[1], dtype=bool)
        is_target[[c for indices in columns.values() for c in indices]] = True
        hidden = is_target[counts.indices]
    else:
        unique, code = np.unique(labels, return_inverse=True)
        is_own_target = np.zeros((len(unique), counts.shape[1]), dtype=bool)
        for i, label in enumerate(unique):
            is_own_target[i, [c for gene in genes_of(label) for c in columns[gene]]] = True
        hidden = is_own_target[code[rows], counts.indices]
    removed = np.bincount(rows[hidden], weights=counts.data[hidden], minlength=counts.shape[0])
    counts.data[hidden] = 0
    counts.eliminate_zeros()
    return MaskedCounts(counts, (totals - removed).astype(np.float32))


def depths(adata: AnnData) -> np.ndarray:
    """Return each cell's UMIs, float64: ``obs["total_counts"]`` where present, else the sum of its counts."""
    if "total_counts" in adata.obs:
        return adata.obs["total_counts"].to_numpy(dtype=np.float64)
    return np.asarray(adata.layers["counts"].sum(axis=1, dtype=np.float64)).ravel()
