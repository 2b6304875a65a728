"""A cell that is in the reference and among the queries is counted."""

import numpy as np
import scipy.sparse as sp

from reverse_perturbation.prepare.duplicates import duplicate_shares, identical_cells

PARTS = np.array(["reference", "validation", "validation", "query", "query", "query", "query"], dtype=object)


def test_by_hand():
    rows = [[1, 0, 2], [0, 0, 0], [3, 0, 0], [1, 0, 2], [1, 2, 0], [0, 0, 0], [1, 2, 0]]
    counts = sp.csr_matrix(np.array(rows, dtype=np.float32))
    expected = {"query": 0.25, "validation": 0}
    assert duplicate_shares(counts, PARTS) == expected, "neither empty cells nor two equal queries count"
    rows[2] = rows[0]
    assert duplicate_shares(sp.csr_matrix(np.array(rows, dtype=np.float32)), PARTS)["validation"] == 0.5
    rows[4] = rows[2] = [3, 0, 0]
    assert duplicate_shares(sp.csr_matrix(np.array(rows, dtype=np.float32)), PARTS) == {"query": 0.5, "validation": 0}


def test_other_counts_of_the_same_genes_are_no_copy():
    rows = [[1, 0, 2], [1, 0, 3], [1, 0, 1], [2, 0, 4], [1, 0, 4], [2, 0, 1], [3, 0, 2]]
    counts = sp.csr_matrix(np.array(rows, dtype=np.float32))
    assert duplicate_shares(counts, PARTS) == {"query": 0, "validation": 0}


def test_identical_cells_by_hand():
    """Three equal cells of two conditions, two empty ones of one, and two that only have the same genes."""
    rows = [[1, 0, 2], [1, 0, 2], [0, 0, 0], [1, 0, 2], [0, 0, 0], [3, 3, 0], [3, 4, 0]]
    labels = np.array(["A+ctrl", "A+ctrl", "B+ctrl", "B+ctrl", "B+ctrl", "A+ctrl", "A+ctrl"], dtype=object)
    found = identical_cells(sp.csr_matrix(np.array(rows, dtype=np.float32)), labels)
    assert found == {"cells": 5, "vectors": 2, "vectors_in_several_conditions": 1}
    assert identical_cells(sp.csr_matrix(np.eye(7, dtype=np.float32)), labels)["cells"] == 0
