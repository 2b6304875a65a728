"""A cell that is in the reference and among the queries is counted."""

import numpy as np
import scipy.sparse as sp

from reverse_perturbation.prepare.duplicates import duplicate_shares

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
