"""Control cells apart from the split: what is left is the screen loaded without them."""

import numpy as np
import scipy.sparse as sp

from reverse_perturbation.data.screen.masked_screen import MaskedScreen, fingerprint, separate_controls

COUNTS = sp.csr_matrix(np.arange(8, dtype=np.float32).reshape(4, 2))


def screen(rows: list[int]) -> MaskedScreen:
    return MaskedScreen(
        cells=np.array(["q", "r", "c0", "c1"], dtype=object)[rows],
        conditions=np.array(["A+ctrl", "A+ctrl", "ctrl", "ctrl"], dtype=object)[rows],
        parts=np.array(["query", "reference", "control", "control"], dtype=object)[rows],
        counts=COUNTS[rows],
        totals=np.arange(4, dtype=np.float32)[rows],
        genes=np.array(["A", "B"], dtype=object),
        tokens=np.array(["A", ""], dtype=object),
    )


def test_apart():
    of_split, controls = separate_controls(screen([0, 1, 2, 3]))
    assert fingerprint(of_split) == fingerprint(screen([0, 1]))
    assert fingerprint(controls) == fingerprint(screen([2, 3]))
    assert controls.tokens.tolist() == ["A", ""]


def test_without_control_cells():
    of_split, controls = separate_controls(screen([0, 1]))
    assert fingerprint(of_split) == fingerprint(screen([0, 1]))
    assert controls.counts.shape == (0, 2)
