"""Prepared cells: the file that the stage prepare writes and every later stage reads.

``layers["counts"]``: whole numbers, CSR float32; ``obs``: ``condition`` (legacy label), ``control`` (bool), optionally
``gem_group`` and ``total_counts``; ``var``: ``gene_name``, unique; ``uns["source"]``; no X. Cells without counts are
allowed; the audit counts them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import read_elem, write_elem

from reverse_perturbation.errors import InputError
from reverse_perturbation.storage import check_space, write_atomically

SIGNATURE = b"\x89HDF\r\n\x1a\n"  # the first bytes of an HDF5 file
AGAIN = "run `dvc repro prepare` to make it again"


def write_cells(path: str | Path, adata: ad.AnnData) -> None:
    """Write checked cells atomically; the same cells give the same bytes."""
    counts = adata.layers["counts"]
    check_space(path, counts.data.nbytes + counts.indices.nbytes)  # HDF5 on a full disk ends the process with a signal
    with write_atomically(path) as temporary, h5py.File(temporary, "w") as file:
        write_elem(file, "/", adata, dataset_kwargs={"compression": "lzf"})


def read_cells(path: str | Path) -> ad.AnnData:
    """Read what :func:`write_cells` wrote.

    Raises
    ------
    InputError
        If the file is missing, broken or was not written by :func:`write_cells`.
    """
    with open_hdf5(Path(path), AGAIN) as file:
        adata = read_elem(file)
        if not isinstance(adata, ad.AnnData) or "counts" not in adata.layers or adata.X is not None:
            raise InputError(f"{path}: not a file of prepared cells; pass the one that the stage prepare writes")
        _check_counts(adata.layers["counts"])
    return adata


def _check_counts(counts: sp.csr_matrix) -> None:
    """Raise ValueError where a byte has changed since the counts were written, as far as it shows."""
    counts.check_format(full_check=True)
    if not np.isfinite(counts.data).all() or (counts.data < 0).any() or (counts.data % 1 != 0).any():
        raise ValueError("counts that are no whole numbers")


def read_obs(path: str | Path) -> pd.DataFrame:
    """Read only the cells' annotations of a prepared file; raises as :func:`read_cells`."""
    with open_hdf5(Path(path), AGAIN) as file:
        frame: pd.DataFrame = read_elem(file["obs"])
    return frame


def read_genes(path: str | Path) -> pd.Index:
    """Read only the gene names of a prepared file; raises as :func:`read_cells`."""
    with open_hdf5(Path(path), AGAIN) as file:
        genes: pd.Index = read_elem(file["var"]).index
    return genes


@contextmanager
def open_hdf5(path: Path, advice: str) -> Iterator[h5py.File]:
    """Open an HDF5 file; any failure while reading is reported as a fault of the file, in one line."""
    if path.is_dir():
        raise InputError(f"{path}: a folder, not a file; {advice}")
    if not path.exists():
        raise InputError(f"{path}: no such file; {advice}")
    try:
        # h5py.is_hdf5 would also be False for a file that is cut short, which is a different mistake.
        with path.open("rb") as start:
            is_hdf5 = start.read(len(SIGNATURE)) == SIGNATURE
        if not is_hdf5:
            raise InputError(f"{path}: not an HDF5 file; {advice}")
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # h5py and anndata raise many types for damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: damaged or cut short ({reason}); fetch or write it again") from error
