"""What a model was given, as one number that two models must share to be compared."""

import hashlib

import numpy as np

from reverse_perturbation.data.screen import Screen


def fingerprint(screen: Screen) -> str:
    """Return the hexadecimal sha256 of the cells, their conditions and parts, the genes, the masked counts and totals.

    Whatever differs in mask, genes, split or data makes it another one; the order of cells and genes counts too.
    """
    digest = hashlib.sha256()
    for names in (screen.cells, screen.conditions, screen.parts, screen.genes):
        digest.update("\0".join(names.astype(str)).encode() + b"\1")
    counts = screen.counts.sorted_indices()
    for array, kind in (
        (counts.indptr, np.int64),
        (counts.indices, np.int64),
        (counts.data, np.float64),
        (screen.totals, np.float64),
    ):
        digest.update(np.ascontiguousarray(array, dtype=kind).data)
    return digest.hexdigest()
