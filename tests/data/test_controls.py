"""Control cells apart from the split: what is left is the screen loaded without them."""

import numpy as np
import scipy.sparse as sp

from reverse_perturbation.data.controls import apart
from reverse_perturbation.data.fingerprint import fingerprint
from reverse_perturbation.data.screen import Screen

COUNTS = sp.csr_matrix(np.arange(8, dtype=np.float32).reshape(4, 2))


def screen(rows: list[int]) -> Screen:
    return Screen(
        cells=np.array(["q", "r", "c0", "c1"], dtype=object)[rows],
        conditions=np.array(["A+ctrl", "A+ctrl", "ctrl", "ctrl"], dtype=object)[rows],
        parts=np.array(["query", "reference", "control", "control"], dtype=object)[rows],
        counts=COUNTS[rows],
        totals=np.arange(4, dtype=np.float32)[rows],
        genes=np.array(["A", "B"], dtype=object),
        tokens=np.array(["A", ""], dtype=object),
    )


def test_apart():
    of_split, controls = apart(screen([0, 1, 2, 3]))
    assert fingerprint(of_split) == fingerprint(screen([0, 1]))
    assert fingerprint(controls) == fingerprint(screen([2, 3]))
    assert controls.tokens.tolist() == ["A", ""]


def test_without_control_cells():
    of_split, controls = apart(screen([0, 1]))
    assert fingerprint(of_split) == fingerprint(screen([0, 1]))
    assert controls.counts.shape == (0, 2)
