"""A cell that is in the reference and among the queries is counted."""

import numpy as np
import scipy.sparse as sp

from reverse_perturbation.data.duplicates import duplicate_share

PARTS = np.array(["reference", "validation", "query", "query", "query", "query"], dtype=object)


def test_by_hand():
    rows = [[1, 0, 2], [0, 0, 0], [1, 0, 2], [1, 2, 0], [0, 0, 0], [1, 2, 0]]
    counts = sp.csr_matrix(np.array(rows, dtype=np.float32))
    assert duplicate_share(counts, PARTS) == 0.25, "neither empty cells nor two equal queries count"
