"""All cells of Norman et al. 2019 with one perturbed gene, and 23 of their genes, from a demonstration of CausalHG."""

import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from reverse_perturbation.conditions import CONTROL
from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare.layout import gears_layout

COMMIT = "db56c051c24be66304265973d3fa29bb187cf211"
ANNOTATIONS = ["arm", "gemgroup", "total_umi"]  # the first columns; the others are genes
NON_TARGETING = "NTC"
RENAMED = {"KIAA1804": "MAP3K21"}  # the current symbol, which norman_subset has
AGAIN = "delete the file and fetch it again"


def read_singles(path: Path) -> pd.DataFrame:
    """Read the gzipped table of cells.

    Raises
    ------
    InputError
        If the file is damaged or holds no table.
    """
    try:
        return pd.read_csv(path, sep="\t", compression="gzip", dtype={"arm": str}, keep_default_na=False)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a gzipped table ({reason}); {AGAIN}") from None


def singles_cells(table: pd.DataFrame) -> AnnData:
    """Give the cells GEARS's layout.

    Parameters
    ----------
    table
        One row a cell: ``arm``, the perturbed gene or ``NTC``; ``gemgroup``; ``total_umi``, the cell's UMIs over all
        genes; then the raw counts of one gene a column.

    Returns
    -------
    anndata.AnnData
        See :func:`~reverse_perturbation.prepare.layout.gears_layout`; cells ``chg0``, ``chg1``, ... in the order of
        the table.

    Raises
    ------
    InputError
        If a column is missing, or a count is no whole number, negative, or more than the cell's total.
    """
    if list(table.columns[: len(ANNOTATIONS)]) != ANNOTATIONS:
        found = ", ".join(map(str, table.columns[: len(ANNOTATIONS)]))
        raise InputError(f"the first columns are {found}, expected {', '.join(ANNOTATIONS)}; {AGAIN}")
    genes = table.columns[len(ANNOTATIONS) :]
    _check_whole(table[["gemgroup", "total_umi", *genes]])
    too_many = (table[genes].sum(axis=1) > table["total_umi"]).to_numpy()
    if too_many.any():
        raise InputError(f"the counts of {too_many.sum():,} cells add up to more than their total_umi; {AGAIN}")
    targets = table["arm"].replace(RENAMED | {NON_TARGETING: CONTROL}).set_axis("chg" + table.index.astype(str))
    annotations = {
        "cell_type": "K562",
        "dose_val": "1",
        "gem_group": table["gemgroup"].to_numpy(dtype=np.int64),
        "total_counts": table["total_umi"].to_numpy(dtype=np.float32),
    }
    source = {
        "dataset": "Norman et al. 2019 (GSE133344), cells with one perturbed gene and controls, 23 genes",
        "file": "logannye/CausalHG demo/data/norman_cells.tsv.gz",
        "commit": COMMIT,
        "licence": "Apache-2.0 (repository)",
        "note": "raw counts; total_counts are the UMIs over all genes of the assay",
    }
    return gears_layout(sp.csr_matrix(table[genes].to_numpy(dtype=np.float32)), genes, targets, annotations, source)


def _check_whole(numbers: pd.DataFrame) -> None:
    for name, column in numbers.items():
        if column.dtype != np.int64 or (column < 0).any():
            raise InputError(f"column {name} holds values that are no count; {AGAIN}")
