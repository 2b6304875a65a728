"""What the mask hides, and that it hides it before anything else."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from reverse_perturbation.data.screen.mask import apply_mask, target_columns
from reverse_perturbation.data.screen.normalize import log1p_cp10k

LABELS = ["A+ctrl", "ctrl+A", "A+B", "B+ctrl", "ctrl"]
GENES = ["A", "X", "B", "Y"]


def cells(
    counts: np.ndarray, labels: list[str], totals: list[float] | None = None, genes: list[str] = GENES
) -> ad.AnnData:
    obs = pd.DataFrame({"condition": labels}, index=[f"c{i}" for i in range(len(labels))])
    obs["control"] = obs["condition"] == "ctrl"
    if totals is not None:
        obs["total_counts"] = np.asarray(totals, dtype=np.float32)
    return ad.AnnData(
        obs=obs, var=pd.DataFrame(index=genes), layers={"counts": sp.csr_matrix(counts.astype(np.float32))}
    )


COUNTS = np.array([[1, 2, 3, 4]] * 5)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("none", [[1, 2, 3, 4]] * 5),
        ("own", [[0, 2, 3, 4], [0, 2, 3, 4], [0, 2, 0, 4], [1, 2, 0, 4], [1, 2, 3, 4]]),
        ("all_targets", [[0, 2, 0, 4]] * 5),
    ],
)
def test_masked_counts(mask, expected):
    masked = apply_mask(cells(COUNTS, LABELS), mask)
    assert masked.counts.toarray().tolist() == expected
    assert masked.totals.tolist() == [sum(row) for row in expected]
    assert (masked.counts.data > 0).all(), "masked entries are not stored"


def test_masked_counts_are_taken_off_given_library_sizes():
    masked = apply_mask(cells(COUNTS, LABELS, totals=[100, 100, 100, 100, 100]), "own")
    assert masked.totals.tolist() == [99, 99, 96, 97, 100]


def test_the_input_is_left_alone():
    data = cells(COUNTS, LABELS)
    apply_mask(data, "all_targets")
    assert (data.layers["counts"].toarray() == COUNTS).all()


def test_a_target_is_masked_under_its_other_symbol():
    """C19orf26 is CBARP today; a label may use one name and the file the other."""
    assert target_columns(["C19orf26+ctrl", "ctrl"], ["X", "CBARP"]) == {"C19orf26": [1]}
    assert target_columns(["CBARP+ctrl"], ["C19orf26"]) == {"CBARP": [0]}
    assert target_columns(["NOTMEASURED+ctrl"], ["X"]) == {"NOTMEASURED": []}


def test_a_target_measured_under_two_symbols_is_masked_under_both():
    assert target_columns(["C19orf26+ctrl"], ["CBARP", "X", "C19orf26"]) == {"C19orf26": [0, 2]}


@pytest.mark.parametrize(
    ("mask", "expected"),
    [("own", [[0, 2, 0, 0], [1, 2, 3, 4]]), ("all_targets", [[0, 2, 0, 0], [0, 2, 0, 0]])],
)
def test_every_column_of_a_target_is_masked(mask, expected):
    """C19orf26 and BARP are earlier symbols of CBARP."""
    genes = ["CBARP", "X", "C19orf26", "BARP"]
    masked = apply_mask(cells(COUNTS[:2], ["C19orf26+ctrl", "ctrl"], genes=genes), mask)
    assert masked.counts.toarray().tolist() == expected
    assert masked.totals.tolist() == [sum(row) for row in expected]


@given(st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=5, max_size=5))
def test_nothing_depends_on_the_targets_under_all_targets(rows):
    """Whatever the target columns hold, the models get the same: the mask leaks nothing."""
    counts = np.array(rows)
    other = counts.copy()
    other[:, [0, 2]] = np.arange(10).reshape(5, 2)
    a, b = (apply_mask(cells(c, LABELS), "all_targets") for c in (counts, other))
    assert (a.counts != b.counts).nnz == 0
    assert (a.totals == b.totals).all()


def test_log1p_by_hand():
    counts = sp.csr_matrix(np.array([[1, 3], [0, 0]], dtype=np.float32))
    found = log1p_cp10k(counts, np.array([4.0, 0.0])).toarray()
    assert found == pytest.approx(np.array([[np.log(2501), np.log(7501)], [0, 0]]), rel=1e-6)
