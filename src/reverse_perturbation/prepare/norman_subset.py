"""Norman's cells from PerturBench's development file, with the counts they were normalised from."""

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from reverse_perturbation.conditions import CONTROL
from reverse_perturbation.errors import InputError

COMMIT = "d357dfae3b50968e800e9f5f273ff145080ae67c"
SCALED_TO = 1e4  # X is log1p of counts per so many
TOLERANCE = 1e-9  # relative; X is float64, what it gives is whole to 1e-14 or not at all


def norman_cells(source: ad.AnnData) -> ad.AnnData:
    """Keep the cells of Norman et al. 2019 and give them GEARS's layout.

    Parameters
    ----------
    source
        ``X`` log1p of counts per 10,000, CSR; ``obs`` with ``dataset``, ``condition`` (``A``, ``A+B`` or
        ``control``) and ``ncounts``, the cell's UMIs over all genes; cell ids end in ``-`` and the gem group.

    Returns
    -------
    anndata.AnnData
        ``layers["counts"]`` CSR float32; ``X`` as it was, float32; ``obs`` and ``var`` as
        :mod:`reverse_perturbation.data.screen.contract` wants them; cells and genes in the order of the source.

    Raises
    ------
    InputError
        If a value of X is not that of a whole count, so that counts cannot be recovered exactly.
    """
    adata = source[(source.obs["dataset"] == "norman19").to_numpy()]
    totals = adata.obs["ncounts"].to_numpy(dtype=np.float64)
    logs = sp.csr_matrix(adata.X)
    labels = adata.obs["condition"].astype(str).map(gears_label)
    dose = labels.map(lambda label: "1" if label == CONTROL else "1+1")
    obs = pd.DataFrame(
        {
            "condition": pd.Categorical(labels),
            "control": (labels == CONTROL).astype(np.int64),
            "cell_type": pd.Categorical(["K562"] * len(labels)),
            "dose_val": pd.Categorical(dose),
            "condition_name": pd.Categorical("K562_" + labels + "_" + dose),
            "gem_group": adata.obs_names.str.rsplit("-", n=1).str[-1].astype(np.int64),
            "total_counts": totals.astype(np.float32),
        },
        index=adata.obs_names,
    )
    return ad.AnnData(
        X=logs.astype(np.float32),
        obs=obs,
        var=pd.DataFrame({"gene_name": adata.var_names}, index=adata.var_names),
        layers={"counts": recover_counts(logs, totals)},
        uns={
            "source": {
                "dataset": "Norman et al. 2019 (GSE133344), 34-condition subset",
                "file": "altoslabs/perturbench src/perturbench/data/resources/devel.h5ad",
                "commit": COMMIT,
                "licence": "BSD-3-Clause (repository)",
                "note": "counts recovered exactly from log1p(CP10k); X is that log1p matrix",
            }
        },
    )


def gears_label(condition: str) -> str:
    """Return GEARS's label: ``A`` becomes ``A+ctrl``, ``control`` becomes ``ctrl``, ``A+B`` stays."""
    if condition == "control":
        return CONTROL
    return condition if "+" in condition else f"{condition}+{CONTROL}"


def recover_counts(logs: sp.csr_matrix, totals: np.ndarray) -> sp.csr_matrix:
    """Return the counts c of which ``logs`` is log1p(10,000 c / T), T a whole number for each cell.

    T is the cell's UMIs over the genes present when the file was normalised, a little less than ``totals``. The
    smallest value of a cell stands for so few UMIs that ``totals`` determines their number, which gives T.

    Parameters
    ----------
    logs
        CSR float64 [n_cells, n_genes].
    totals
        [n_cells], UMIs of each cell over all genes.

    Returns
    -------
    scipy.sparse.csr_matrix
        float32, whole numbers.

    Raises
    ------
    InputError
        If a T is not whole or more than ``totals``, or a count is not whole and above 0, by more than a relative
        :data:`TOLERANCE`.
    """
    stored = np.diff(logs.indptr)
    filled = np.flatnonzero(stored)
    values = np.expm1(logs.data.astype(np.float64)) / SCALED_TO
    smallest = np.minimum.reduceat(values, logs.indptr[filled]) if len(filled) else values
    normalised_by = np.rint(smallest * totals[filled]) / smallest
    counts = values * np.repeat(normalised_by, stored[filled])
    wrong = np.abs(counts - np.rint(counts)) > TOLERANCE * counts
    wrong |= ~(counts > 0.5)
    wrong |= np.repeat(
        (np.abs(normalised_by - np.rint(normalised_by)) > TOLERANCE * normalised_by)
        | (np.rint(normalised_by) > totals[filled]),
        stored[filled],
    )
    if wrong.any():
        raise InputError(
            f"X holds {int(wrong.sum()):,} values that are no log1p of a whole count per 10,000; the counts cannot be "
            "recovered. Fetch the file again"
        )
    return sp.csr_matrix((np.rint(counts).astype(np.float32), logs.indices, logs.indptr), shape=logs.shape)
