"""Audit of the cells: are the counts counts, how deep are they, and what does binning do to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from reverse_perturbation.conditions import CONTROL, canonical, twins
from reverse_perturbation.data.screen.mask import depths, target_columns
from reverse_perturbation.data.screen.normalize import log1p_cp10k
from reverse_perturbation.prepare.duplicates import identical_cells

N_BINS = 51  # scGPT's: bin 0 for zeros, 1 to 50 for what is expressed
HISTOGRAM_BINS = 50


@dataclass(frozen=True)
class Audit:
    """Result of :func:`audit`: numbers for a metrics file, and rows to plot by the name of their file."""

    metrics: dict[str, Any]
    plots: dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Bins:
    """The bins scGPT's binning may give each non-zero value, in the order of ``counts.data``.

    Upstream draws the bin of a value that ties with others, evenly between ``low`` and ``high``, which are equal
    for the rest. Both are int8, 1 to ``N_BINS - 1``.
    """

    low: np.ndarray
    high: np.ndarray

    @property
    def width(self) -> np.ndarray:
        """int64: how many bins each value may get."""
        return self.high.astype(np.int64) - self.low + 1

    def occupancy(self) -> np.ndarray:
        """float64 [N_BINS - 1]: the share of the values expected in bins 1, 2, ..."""
        share = 1 / self.width
        edges = np.bincount(self.low, share, N_BINS + 1) - np.bincount(self.high + 1, share, N_BINS + 1)
        return np.cumsum(edges)[1:N_BINS] / max(len(self.low), 1)


def possible_bins(expression: sp.csr_matrix) -> Bins:
    """Return the bins that ``scgpt.preprocess.binning`` may give each non-zero value.

    It bins a cell's non-zero values by ``N_BINS - 1`` of their own quantiles. A value among equals is on several
    edges at once, and upstream puts it on one of them by an unseeded draw.

    Parameters
    ----------
    expression
        CSR [n_cells, n_genes], log1p of counts per ten thousand.
    """
    low, high = np.zeros(expression.nnz, dtype=np.int8), np.zeros(expression.nnz, dtype=np.int8)
    quantiles = np.linspace(0, 1, N_BINS - 1)
    for start, stop in zip(expression.indptr[:-1], expression.indptr[1:], strict=True):
        if start == stop:
            continue
        values = expression.data[start:stop]
        edges = np.quantile(values, quantiles)
        high[start:stop] = np.digitize(values, edges)
        below = np.digitize(values, edges, right=True)
        low[start:stop] = np.minimum(below + 1, high[start:stop])
    return Bins(low, high)


def audit(adata: AnnData) -> Audit:
    """Describe prepared cells, before any mask.

    Parameters
    ----------
    adata
        As :func:`reverse_perturbation.data.screen.contract.read_cells` gives them.

    Returns
    -------
    Audit
        Metrics: small, only plain numbers, strings and lists. Plots: ``depth``, ``cells_per_condition``,
        ``bin_occupancy``.
    """
    counts: sp.csr_matrix = adata.layers["counts"]
    labels = adata.obs["condition"].astype(str)
    sizes = depths(adata)
    bins = possible_bins(log1p_cp10k(counts, sizes))
    per_condition = labels[labels != CONTROL].value_counts()
    metrics = {
        "source": _plain(adata.uns["source"]),
        "cells": adata.n_obs,
        "genes": adata.n_vars,
        "control_cells": int(adata.obs["control"].sum()),
        "counts": _scale(counts),
        "depth": _percentiles(sizes) | {"variation": float(sizes.std() / sizes.mean()) if sizes.any() else 0.0},
        "umis_in_file": _percentiles(np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()),
        "expressed_genes": _percentiles(np.diff(counts.indptr)),
        "empty_cells": int((np.diff(counts.indptr) == 0).sum()),
        "detected_genes": len(np.unique(counts.indices)),
        "conditions": {
            "legacy": len(per_condition),
            "canonical": per_condition.index.map(canonical).nunique(),
            "cells_min": int(per_condition.min()),
            "cells_median": float(per_condition.median()),
            "cells_max": int(per_condition.max()),
        },
        "twins": _twins(per_condition),
        "targets": _targets(labels, adata.var_names),
        "binning": _binning(counts, bins),
        "identical_cells": identical_cells(counts, labels.to_numpy()),
    }
    occupancy = pd.DataFrame({"bin": np.arange(1, N_BINS), "share": bins.occupancy()})
    conditions = per_condition.rename_axis("condition").reset_index(name="cells")
    conditions = conditions.sort_values(["cells", "condition"], ascending=[False, True])
    plots = {"depth": _histogram(sizes), "cells_per_condition": conditions, "bin_occupancy": occupancy}
    return Audit(metrics, plots)


def _plain(source: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``uns["source"]`` in types JSON knows, what was found in X last; h5ad hands lists back as arrays."""
    names = sorted(source, key=lambda name: (name.startswith("x_"), name))
    return {name: np.asarray(source[name]).tolist() for name in names}


def _scale(counts: sp.csr_matrix) -> dict[str, Any]:
    values = counts.data
    expressed = max(len(values), 1)
    return {
        "dtype": str(counts.dtype),
        "integer_share": float((values == np.floor(values)).sum() / expressed) if len(values) else 1.0,
        "ones_share": float((values == 1).sum() / expressed),
        "nonzero_mean": float(values.sum(dtype=np.float64) / expressed),
        "max": float(values.max(initial=0)),
        "nonzero_share": float(counts.nnz / (counts.shape[0] * counts.shape[1])),
    }


def _percentiles(values: np.ndarray) -> dict[str, float]:
    return {f"p{q}": float(np.percentile(values, q)) for q in (5, 50, 95)}


def _twins(per_condition: pd.Series) -> dict[str, Any]:
    groups = twins(per_condition.index)
    labels = [label for group in groups.values() for label in group]
    return {
        "perturbations": len(groups),
        "labels": len(labels),
        "cells_share": float(per_condition[labels].sum() / per_condition.sum()),
    }


def _targets(labels: pd.Series, gene_names: pd.Index) -> dict[str, Any]:
    columns = target_columns(labels.unique(), gene_names)
    renamed = {
        name: str(gene_names[indices[0]]) for name, indices in columns.items() if indices and name not in gene_names
    }
    missing = [name for name, indices in columns.items() if not indices]
    return {
        "named": len(columns),
        "measured": len(columns) - len(missing) - len(renamed),
        "measured_under_alias": renamed,
        "not_measured": missing,
    }


def _binning(counts: sp.csr_matrix, bins: Bins) -> dict[str, Any]:
    width = bins.width
    ones = counts.data == 1
    return {
        "bins": N_BINS,
        "tied_share": _tied_share(counts),
        "drawn_share": float((width > 1).mean()) if len(width) else 0.0,
        "same_bin_twice": float((1 / width).mean()) if len(width) else 1.0,
        "count_of_one_low": float(np.median(bins.low[ones])) if ones.any() else 0.0,
        "count_of_one_high": float(np.median(bins.high[ones])) if ones.any() else 0.0,
        "fullest_bin_share": float(bins.occupancy().max()),
    }


def _tied_share(counts: sp.csr_matrix) -> float:
    """Return the share of the non-zero values that another gene of the same cell has as well."""
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    order = np.lexsort((counts.data, rows))
    rows, values = rows[order], counts.data[order]
    same_as_next = (rows[:-1] == rows[1:]) & (values[:-1] == values[1:])
    tied = np.zeros(len(values), dtype=bool)
    tied[:-1] |= same_as_next
    tied[1:] |= same_as_next
    return float(tied.mean()) if len(tied) else 0.0


def _histogram(sizes: np.ndarray) -> pd.DataFrame:
    cells, edges = np.histogram(sizes, bins=HISTOGRAM_BINS)
    return pd.DataFrame({"depth": (edges[:-1] + edges[1:]) / 2, "cells": cells})
