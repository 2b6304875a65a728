"""Prepared cells survive the disk, and nothing else is taken for them."""

import time

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from reverse_perturbation.data.screen import contract
from reverse_perturbation.data.screen.contract import read_cells, read_obs, write_cells
from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare.h5ad import read_source
from tests.prepare.test_h5ad import GENES, saved, source


def test_prepared_cells_survive_the_disk(tmp_path):
    cells = read_source(saved(tmp_path, source(total_counts=[100, 50, 6, 0], gem_group=[1, 1, 2, 2])))
    write_cells(tmp_path / "cells.h5ad", cells)
    again = read_cells(tmp_path / "cells.h5ad")
    assert isinstance(again.layers["counts"], sp.csr_matrix)
    assert (again.layers["counts"] != cells.layers["counts"]).nnz == 0
    assert again.layers["counts"].dtype == np.float32
    pd.testing.assert_frame_equal(again.obs, cells.obs)
    assert list(again.var_names) == GENES
    assert again.X is None
    pd.testing.assert_frame_equal(read_obs(tmp_path / "cells.h5ad"), cells.obs)


def test_the_same_cells_give_the_same_bytes(tmp_path):
    """Else DVC would rerun every later stage; a time stamp in the file would show after a second."""
    user = saved(tmp_path, source(total_counts=[100, 50, 6, 0]))
    write_cells(tmp_path / "a.h5ad", read_source(user))
    time.sleep(1.1)
    write_cells(tmp_path / "b.h5ad", read_source(user))
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "cells.h5ad"
    path.write_text("old")

    def broken(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(contract, "write_elem", broken)
    with pytest.raises(OSError, match="disk full"):
        write_cells(path, source())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_prepared_cells_are_read_as_such(tmp_path):
    with pytest.raises(InputError, match=r"user\.h5ad: not a file of prepared cells"):
        read_cells(saved(tmp_path, source()))
    for read in (read_cells, read_obs):
        with pytest.raises(InputError, match=r"cells\.h5ad: no such file; run `dvc repro prepare`"):
            read(tmp_path / "cells.h5ad")


@pytest.mark.parametrize(
    ("part", "value", "complaint"),
    [
        ("indices", 99, "indices must be"),
        ("indptr", 7, "indptr must be"),
        ("data", 0.5, "counts that are no whole numbers"),
        ("data", -1, "counts that are no whole numbers"),
        ("data", np.nan, "counts that are no whole numbers"),
    ],
)
def test_counts_that_changed_on_the_disk_are_refused(tmp_path, part, value, complaint):
    """They once ended a later stage with an IndexError, or changed its result."""
    path = tmp_path / "cells.h5ad"
    write_cells(path, read_source(saved(tmp_path, source())))
    with h5py.File(path, "r+") as file:
        file[f"layers/counts/{part}"][1] = value
    with pytest.raises(InputError, match=rf"cells\.h5ad: damaged or cut short \(.*{complaint}"):
        read_cells(path)
