"""Papalexi's cells from R's serialisation: counts, targets and replicates, or one line that says what is wrong."""

import bz2

import numpy as np
import pytest
import scipy.sparse as sp

from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare.papalexi import CountMatrix, papalexi_cells, read_papalexi
from tests.prepare.sources import GENE_COUNTS, GUIDE_COUNTS, GUIDES, papalexi_rda


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "tiny.rda"
    path.write_bytes(papalexi_rda())
    return read_papalexi(path)


def test_the_parts_are_read_as_they_are(source):
    assert source.response_matrix.features == ["A", "B", "C"]
    assert source.grna_matrix.features == GUIDES
    np.testing.assert_array_equal(source.response_matrix.counts.toarray(), GENE_COUNTS)
    np.testing.assert_array_equal(source.grna_matrix.counts.toarray(), GUIDE_COUNTS)
    assert source.response_matrix.counts.dtype == np.float32


def test_a_cell_has_the_target_of_its_most_abundant_guide(source):
    """The first of equals; the cell without counts is dropped before the others are named."""
    adata = papalexi_cells(source)
    assert list(adata.obs_names) == ["cell0", "cell1", "cell2", "cell3"]
    assert list(adata.obs["condition"]) == ["A+ctrl", "B+ctrl", "ctrl", "A+ctrl"]
    assert list(adata.obs["control"]) == [0, 0, 1, 0]
    assert list(adata.obs["gem_group"]) == [2, 1, 1, 3]
    assert set(adata.obs["cell_type"]) == {"THP1"}
    assert list(adata.var["gene_name"]) == ["A", "B", "C"]
    assert adata.layers["counts"].toarray().tolist() == [[3, 0, 1], [0, 2, 0], [5, 5, 0], [0, 0, 1]]
    np.testing.assert_allclose(adata.X.toarray()[0], np.log1p([7500, 0, 2500]), rtol=1e-6)


def counts_with(matrix, row, column, value):
    dense = matrix.counts.toarray()
    dense[row, column] = value
    return CountMatrix(sp.csr_matrix(dense), matrix.features)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda s: s._replace(extra_covariates=s.extra_covariates[:3]), r"of \[3, 5\] cells, expected one number"),
        (lambda s: s._replace(response_matrix=counts_with(s.response_matrix, 0, 0, 0.5)), "values that are no count"),
        (lambda s: s._replace(response_matrix=counts_with(s.response_matrix, 0, 0, -1)), "values that are no count"),
        (lambda s: s._replace(grna_matrix=counts_with(s.grna_matrix, 1, 2, 0)), "1 cells have no guide, first row 1"),
        (
            lambda s: s._replace(grna_target_data_frame=s.grna_target_data_frame[1:]),
            "1 guides have no target, first 'Ag1'",
        ),
        (
            lambda s: s._replace(extra_covariates=s.extra_covariates.assign(bio_rep="two")),
            "bio_rep holds 'two', expected rep_1, rep_2",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(source, broken, message):
    with pytest.raises(InputError, match=rf"{message}.*delete the file and fetch it again$"):
        papalexi_cells(broken(source))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (papalexi_rda("highmoi_example_data"), "KeyError: 'lowmoi_example_data'"),
        (papalexi_rda()[:-20], ""),
        (bz2.compress(bz2.decompress(papalexi_rda())[:-100]), ""),
        (b"<html></html>", ""),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    path = tmp_path / "other.rda"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"other\.rda: not an R file with the parts of lowmoi_.*{message}") as refused:
        read_papalexi(path)
    assert "\n" not in str(refused.value)
