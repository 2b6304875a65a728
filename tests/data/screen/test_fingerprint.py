"""Two models have one fingerprint only if they were given the same cells, genes, mask and split."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp

from reverse_perturbation.data.screen.masked_screen import MaskedScreen, fingerprint


def screen() -> MaskedScreen:
    return MaskedScreen(
        cells=np.array(["a", "b", "c"], dtype=object),
        conditions=np.array(["A+ctrl", "B+ctrl", "A+ctrl"], dtype=object),
        parts=np.array(["reference", "validation", "query"], dtype=object),
        counts=sp.csr_matrix(np.array([[1, 0, 2], [0, 3, 0], [4, 0, 5]], dtype=np.float32)),
        totals=np.array([3, 3, 9], dtype=np.float32),
        genes=np.array(["A", "B", "C"], dtype=object),
        tokens=np.array(["A", "B", ""], dtype=object),
    )


def names(*values):
    return np.array(values, dtype=object)


def test_the_same_screen_read_twice_is_the_same():
    shuffled = screen()
    shuffled.counts.indices[:2] = shuffled.counts.indices[1::-1]
    shuffled.counts.data[:2] = shuffled.counts.data[1::-1]
    shuffled.counts.has_sorted_indices = False
    assert fingerprint(screen()) == fingerprint(screen()) == fingerprint(shuffled)


@pytest.mark.parametrize(
    "changes",
    [
        {"cells": names("a", "b", "d")},
        {"conditions": names("A+ctrl", "A+ctrl", "A+ctrl")},
        {"parts": names("reference", "reference", "query")},
        {"genes": names("A", "B", "D")},
        {"totals": np.array([3, 3, 8], dtype=np.float32)},
        # a mask that misses a gene, or is applied to the queries alone
        {"counts": sp.csr_matrix(np.array([[1, 0, 2], [0, 3, 0], [0, 0, 5]], dtype=np.float32))},
        {"cells": names("a", "bc", "")},
    ],
)
def test_whatever_differs_is_seen(changes):
    assert fingerprint(dataclasses.replace(screen(), **changes)) != fingerprint(screen())
