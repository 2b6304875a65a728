"""Duplicate cells: across splits, where a model could memorise them, and in the whole screen."""

import hashlib

import numpy as np
import scipy.sparse as sp


def duplicate_shares(counts: sp.csr_matrix, parts: np.ndarray) -> dict[str, float]:
    """Return the shares of cells whose counts, not all zero, are exactly those of a cell that a model has seen by then.

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
    digests = _digests(counts)
    shares = {}
    for part, others in (("query", ["reference", "validation"]), ("validation", ["reference"])):
        known = set(digests[np.isin(parts, others)]) - {""}
        shares[part] = float(np.mean([digest in known for digest in digests[parts == part]]))
    return shares


def identical_cells(counts: sp.csr_matrix, labels: np.ndarray) -> dict[str, int]:
    """Count the cells whose counts another cell repeats exactly; of two conditions, no model can tell them apart.

    Parameters
    ----------
    counts
        As in :func:`duplicate_shares`; cells without counts are identical.
    labels
        Object array [n_cells]: conditions.

    Returns
    -------
    dict
        ``cells`` that are repeated, their different ``vectors``, and ``vectors_in_several_conditions``.
    """
    groups: dict[str, list[str]] = {}
    for digest, label in zip(_digests(counts), labels, strict=True):
        groups.setdefault(digest, []).append(label)
    repeated = [group for group in groups.values() if len(group) > 1]
    return {
        "cells": sum(map(len, repeated)),
        "vectors": len(repeated),
        "vectors_in_several_conditions": sum(len(set(group)) > 1 for group in repeated),
    }


def _digests(counts: sp.csr_matrix) -> np.ndarray:
    """Object array [n_cells]: hash of each cell's counts, empty for a cell without counts."""
    indices, data = counts.indices.astype(np.int64), counts.data.astype(np.float32)
    digests = []
    for start, stop in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
        content = indices[start:stop].tobytes() + data[start:stop].tobytes()
        digests.append(hashlib.sha256(content).hexdigest() if content else "")
    return np.array(digests, dtype=object)
