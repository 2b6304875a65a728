"""GEARS's layout for the counts of a screen with one perturbed gene a cell."""

from collections.abc import Iterable, Mapping
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from reverse_perturbation.conditions import CONTROL

SCALED_TO = np.float32(1e4)  # X is log1p of counts per so many


def gears_layout(
    counts: sp.csr_matrix,
    genes: Iterable[str],
    targets: pd.Series,
    annotations: Mapping[str, Any],
    source: Mapping[str, str],
) -> ad.AnnData:
    """Build an AnnData object as :mod:`reverse_perturbation.prepare.h5ad` describes it.

    Parameters
    ----------
    counts
        CSR float32 [n_cells, n_genes], whole numbers.
    genes
        Unique gene symbols, [n_genes].
    targets
        The perturbed gene of each cell or ``ctrl``; its index holds the cell ids.
    annotations
        Further columns of ``obs``, [n_cells] each or one value for all; strings become categories. With
        ``total_counts`` in it, X is scaled by that, else by the cell's UMIs over ``genes``.
    source
        Where the counts come from, for ``uns["source"]``.

    Returns
    -------
    anndata.AnnData
        ``layers["counts"]`` as given, ``X`` log1p of counts per 10,000 UMIs, float32; cells and genes in order.
    """
    labels = targets.where(targets == CONTROL, targets + f"+{CONTROL}")
    obs = pd.DataFrame({"condition": labels, "control": (labels == CONTROL).astype(np.int64)}).assign(**annotations)
    strings = obs.select_dtypes(["object", "string"]).columns
    obs = obs.astype(dict.fromkeys(strings, "category"))
    totals = obs["total_counts"].to_numpy() if "total_counts" in obs else np.asarray(counts.sum(axis=1)).ravel()
    names = list(genes)
    return ad.AnnData(
        X=_log_normalised(counts, totals.astype(np.float32)),
        obs=obs,
        var=pd.DataFrame({"gene_name": names}, index=names),
        layers={"counts": counts},
        uns={"source": dict(source)},
    )


def _log_normalised(counts: sp.csr_matrix, totals: np.ndarray) -> sp.csr_matrix:
    values = np.log1p(counts.data / np.repeat(totals, np.diff(counts.indptr)) * SCALED_TO)
    return sp.csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)
