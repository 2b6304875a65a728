"""A leak probe that does not trust names: one gene that tells which target was perturbed, where no other gene does.

A target measured under a name that nobody recognises escapes the mask. It then rises or falls in the cells in which it
was perturbed and in no others. A downstream gene does so as well, but not alone: what moves one gene far moves others.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import ndtri
from scipy.stats import rankdata

from reverse_perturbation.conditions import genes_of
from reverse_perturbation.sections import Mask

# Set on the real screens at hand and the simulated default: with them no gene is suspected under all_targets, and
# without a mask targets are. AVP tells TBX3 in Norman (AUC 0.96), and so do other genes (0.72).
LEAST_RATIO = 1.6  # of the distance to that of the target's next gene, and to that of the gene's next target
LEAST_ERRORS = 4.0  # standard errors between the first and the next gene
MOST_OF_NEXT = 0.75  # distance of the next gene: above it others tell the target too


def single_genes(expression: sp.csr_matrix, labels: np.ndarray, genes: np.ndarray) -> dict[str, Any]:
    """Find the genes that alone tell a target.

    For each target and gene the area under the curve, of the gene's expression in cells whose label has the target
    against the others, is written as the distance of two normal distributions with that area, in standard deviations. A
    gene is suspected where its distance exceeds that of every other gene for this target, and its own for every target
    that shares no condition with this one.

    Parameters
    ----------
    expression
        CSR [n_cells, n_genes], log1p of masked counts per ten thousand, of known cells only.
    labels
        Object array [n_cells]: their conditions.
    genes
        Object array [n_genes].

    Returns
    -------
    dict
        ``targets``: how many were tried; ``suspected``: a list, the clearest first, of ``gene``, ``target``, ``cells``,
        ``auc``, ``next_gene``, ``next_gene_auc`` and ``next_target_auc``; ``clearest``: the same of the gene nearest to
        suspicion, None without one.
    """
    unique, code = np.unique(labels.astype(str), return_inverse=True)
    targets = sorted(set().union(*map(genes_of, unique)))
    named = np.array([[target in genes_of(label) for target in targets] for label in unique], dtype=bool)
    has = named[code]
    informative = (has.sum(axis=0) > 1) & (has.sum(axis=0) < len(has) - 1)
    targets = [target for target, keep in zip(targets, informative, strict=True) if keep]
    has, named = has[:, informative], named[:, informative]
    if not targets or len(genes) < 2:
        return {"targets": len(targets), "suspected": [], "clearest": None}
    auc = _areas(expression, has)
    distance = np.abs(ndtri(np.clip(auc, 0.5 / len(has), 1 - 0.5 / len(has)))) * 2**0.5
    together = (named.T.astype(int) @ named.astype(int)) > 0
    n = has.sum(axis=0)
    error = 2 * np.pi**0.5 * np.sqrt(len(has) / (12.0 * n * (len(has) - n)))  # of a distance near zero
    found = []
    for target, name in enumerate(targets):
        first, second = np.argsort(-distance[target], kind="stable")[:2]
        others = np.flatnonzero(~together[target])
        other = others[np.argmax(distance[others, first])] if len(others) else None
        beside = max(distance[target, second], 0.0 if other is None else distance[other, first], error[target])
        ratio = distance[target, first] / beside
        suspected = (
            ratio >= LEAST_RATIO
            and distance[target, first] - distance[target, second] >= LEAST_ERRORS * error[target]
            and distance[target, second] <= MOST_OF_NEXT
        )
        said = {
            "gene": str(genes[first]),
            "target": name,
            "cells": int(n[target]),
            "auc": float(auc[target, first]),
            "next_gene": str(genes[second]),
            "next_gene_auc": float(auc[target, second]),
            "next_target_auc": None if other is None else float(auc[other, first]),
        }
        found.append((suspected, ratio, said))
    found.sort(key=lambda row: (row[0], row[1]), reverse=True)
    return {
        "targets": len(targets),
        "suspected": [said for suspected, _, said in found if suspected],
        "clearest": found[0][2],
    }


def suspicions(metrics: Mapping[Mask, Mapping[str, Any]]) -> list[str]:
    """Name the genes, as ``gene for target``, that are suspected although the targets are masked."""
    return [f"{said['gene']} for {said['target']}" for said in metrics["all_targets"]["suspected"]]


def _areas(expression: sp.csr_matrix, has: np.ndarray) -> np.ndarray:
    """Return the areas under the curve, float64 [n_targets, n_genes]; ties count half, zeros are not written out."""
    columns = expression.tocsc().astype(np.float64)
    columns.eliminate_zeros()
    cells, zeros = columns.shape[0], columns.shape[0] - np.diff(columns.indptr)
    for start, stop, absent in zip(columns.indptr[:-1], columns.indptr[1:], zeros, strict=True):
        # Ranks less the mean rank of zeros, which come first: expression is never negative.
        columns.data[start:stop] = rankdata(columns.data[start:stop]) + absent - (absent + 1) / 2
    n = has.sum(axis=0)[:, None].astype(np.float64)
    ranks = (columns.T @ has.astype(np.float64)).T + n * (zeros + 1) / 2
    areas: np.ndarray = (ranks - n * (n + 1) / 2) / (n * (cells - n))
    return areas
