"""Counts come back from normalised values exactly or not at all."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare.norman_subset import gears_label, norman_cells, recover_counts

COUNTS = sp.csr_matrix(np.array([[1, 0, 3], [0, 2, 4], [0, 0, 0], [755, 0, 1]], dtype=np.float64))
NORMALISED_BY = np.array([990.0, 480.0, 700.0, 19753.0])
TOTALS = np.array([1000.0, 487.0, 705.0, 19854.0])


def normalised(counts=COUNTS, by=NORMALISED_BY) -> sp.csr_matrix:
    return sp.csr_matrix(sp.diags(1e4 / by) @ counts).log1p()


def test_counts_are_recovered_though_the_library_size_counts_more_genes():
    found = recover_counts(normalised(), TOTALS)
    assert found.dtype == np.float32
    assert found.toarray().tolist() == COUNTS.toarray().tolist()


@pytest.mark.parametrize("part", ["value", "library"])
def test_what_is_no_count_is_refused(part):
    logs, totals = normalised(), TOTALS.copy()
    if part == "value":
        logs.data[1] += 1e-6
    else:
        totals[0] = 980  # fewer UMIs than the value says it was normalised by
    with pytest.raises(InputError, match=r"X holds [12] values that are no log1p of a whole count"):
        recover_counts(logs, totals)


@pytest.mark.parametrize(("theirs", "ours"), [("A", "A+ctrl"), ("A+B", "A+B"), ("B+A", "B+A"), ("control", "ctrl")])
def test_labels_are_written_as_gears_does(theirs, ours):
    assert gears_label(theirs) == ours


def test_only_normans_cells_are_kept_in_order():
    obs = pd.DataFrame(
        {
            "dataset": ["norman19", "other", "norman19", "norman19"],
            "condition": ["B", "B", "control", "A+B"],
            "ncounts": TOTALS,
        },
        index=["AA-3", "AC-1", "AG-1", "AT-8"],
    )
    cells = norman_cells(ad.AnnData(X=normalised(), obs=obs, var=pd.DataFrame(index=["A", "B", "C"])))
    assert list(cells.obs_names) == ["AA-3", "AG-1", "AT-8"]
    assert list(cells.obs["condition"]) == ["B+ctrl", "ctrl", "A+B"]
    assert list(cells.obs["control"]) == [0, 1, 0]
    assert list(cells.obs["gem_group"]) == [3, 1, 8]
    assert list(cells.obs["condition_name"]) == ["K562_B+ctrl_1+1", "K562_ctrl_1", "K562_A+B_1+1"]
    assert cells.layers["counts"].toarray().tolist() == [[1, 0, 3], [0, 0, 0], [755, 0, 1]]
