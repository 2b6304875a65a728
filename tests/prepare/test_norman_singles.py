"""Norman's singles from the gzipped table, or one line that says what is wrong with it."""

import numpy as np
import pytest

from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare.norman_singles import read_singles, singles_cells
from tests.prepare.sources import singles_table, singles_tsv_gz


def test_cells_keep_their_order_totals_and_lanes(tmp_path):
    path = tmp_path / "cells.tsv.gz"
    path.write_bytes(singles_tsv_gz())
    adata = singles_cells(read_singles(path))
    assert list(adata.obs_names) == ["chg0", "chg1", "chg2", "chg3"]
    assert list(adata.obs["condition"]) == ["ctrl", "TSC22D1+ctrl", "MAP3K21+ctrl", "ctrl"]
    assert list(adata.obs["control"]) == [1, 0, 0, 1]
    assert list(adata.obs["gem_group"]) == [1, 1, 8, 2]
    assert list(adata.obs["total_counts"]) == [19413, 13474, 6842, 5000]
    assert list(adata.var_names) == list(adata.var["gene_name"]) == ["KLF1", "GATA1"]
    assert adata.layers["counts"].dtype == np.float32
    assert adata.layers["counts"].toarray().tolist() == [[1, 2], [0, 1], [0, 0], [0, 0]]
    np.testing.assert_allclose(adata.X.toarray()[0], np.log1p(np.array([1, 2]) / 19413 * 1e4), rtol=1e-6)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda table: table.drop(columns="gemgroup"), "the first columns are arm, total_umi, KLF1, expected arm, gem"),
        (lambda table: table.assign(GATA1=[0.5, 0, 0, 0]), "column GATA1 holds values that are no count"),
        (lambda table: table.assign(GATA1=[-1, 0, 0, 0]), "column GATA1 holds values that are no count"),
        (lambda table: table.assign(gemgroup="a"), "column gemgroup holds values that are no count"),
        (lambda table: table.assign(total_umi=1), "the counts of 1 cells add up to more than their total_umi"),
    ],
)
def test_another_table_is_refused(broken, message):
    with pytest.raises(InputError, match=rf"^{message}.*delete the file and fetch it again$"):
        singles_cells(broken(singles_table()))


@pytest.mark.parametrize("content", [b"", b"<html></html>", singles_tsv_gz()[:-20]], ids=["empty", "page", "cut"])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "cells.tsv.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cells\.tsv\.gz: not a gzipped table \(.*fetch it again$"):
        read_singles(path)
