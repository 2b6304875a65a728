"""THP-1 cells with knock-outs of Papalexi et al. 2021, from an early version of sceptre's low-MOI example.

Only the commit named here has measured counts: newer files of the same name are simulated.
"""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from reverse_perturbation.conditions import CONTROL
from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare.layout import gears_layout

COMMIT = "ec722d5df90dfd34ace6cc9a5745ab6a5c2a6731"
OBJECT = "lowmoi_example_data"  # the one R object of the file
NON_TARGETING = "non-targeting"
REPLICATE = "rep_"  # before the number of a replicate
AGAIN = "delete the file and fetch it again"


class CountMatrix(NamedTuple):
    """Counts of genes or of guides."""

    counts: sp.csr_matrix  # float32 [n_cells, n_features]
    features: list[str]


class Papalexi(NamedTuple):
    """The four parts of the R object."""

    response_matrix: CountMatrix  # genes
    grna_matrix: CountMatrix  # guides
    grna_target_data_frame: pd.DataFrame  # grna_id, grna_target
    extra_covariates: pd.DataFrame  # bio_rep; one row a cell


def read_papalexi(path: Path) -> Papalexi:
    """Read the .rda file; nothing stored in it is run.

    Raises
    ------
    InputError
        If the file is damaged, or not an R file with that object.
    """
    import rdata  # half a second

    constructors = {**rdata.conversion.DEFAULT_CLASS_MAP, "dgTMatrix": _count_matrix}
    try:
        content = rdata.read_rda(path, constructor_dict=constructors)[OBJECT]
        return Papalexi(**{part: content[part] for part in Papalexi._fields})
    except Exception as error:  # rdata raises many types for damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path}: not an R file with the parts of {OBJECT} ({type(error).__name__}: {reason}); {AGAIN}"
        ) from error


def _count_matrix(stored: SimpleNamespace, attributes: Mapping[str, Any]) -> CountMatrix:
    """Turn R's matrix of triplets, features x cells, into cells x features."""
    n_features, n_cells = stored.Dim
    triplets = (stored.x.astype(np.float32), (stored.j, stored.i))
    counts = sp.coo_matrix(triplets, shape=(n_cells, n_features)).tocsr()
    return CountMatrix(counts, [str(name) for name in stored.Dimnames[0]])


def papalexi_cells(source: Papalexi) -> AnnData:
    """Give the cells GEARS's layout; a cell's target is that of its most abundant guide, the first of equals.

    Returns
    -------
    anndata.AnnData
        See :func:`~reverse_perturbation.prepare.layout.gears_layout`; ``gem_group`` is the replicate. Cells without
        counts are dropped, the others named ``cell0``, ``cell1``, ... in the order of the source.

    Raises
    ------
    InputError
        If the parts do not fit together, a count or a replicate is no whole number, or a cell has no guide.
    """
    counts, genes = source.response_matrix
    n_cells = {counts.shape[0], source.grna_matrix.counts.shape[0], len(source.extra_covariates)}
    if len(n_cells) > 1:
        raise InputError(f"counts, guides and covariates are of {sorted(n_cells)} cells, expected one number; {AGAIN}")
    if (counts.data < 0).any() or (counts.data != np.rint(counts.data)).any():
        raise InputError(f"the response matrix holds values that are no count; {AGAIN}")
    targets, replicates = _targets(source.grna_matrix, source.grna_target_data_frame), _replicates(source)
    counted = np.asarray(counts.sum(axis=1)).ravel() > 0
    kept = pd.Series(targets[counted]).replace(NON_TARGETING, CONTROL).rename(index="cell{}".format)
    provenance = {
        "dataset": "Papalexi et al. 2021, THP-1 knock-outs at low MOI, 299 genes",
        "file": "Katsevich-Lab/sceptredata data/lowmoi_example_data.rda",
        "commit": COMMIT,
        "licence": "MIT (repository)",
        "note": "raw counts; condition is the target of the cell's most abundant guide, gem_group the replicate",
    }
    annotations = {"cell_type": "THP1", "gem_group": replicates[counted]}
    return gears_layout(counts[counted], genes, kept, annotations, provenance)


def _targets(guides: CountMatrix, table: pd.DataFrame) -> np.ndarray:
    """Return the target of each cell's most abundant guide."""
    target_of = dict(zip(table["grna_id"].astype(str), table["grna_target"].astype(str), strict=True))
    unknown = [guide for guide in guides.features if guide not in target_of]
    if unknown:
        raise InputError(f"{len(unknown)} guides have no target, first {unknown[0]!r}; {AGAIN}")
    counts = guides.counts.toarray()
    without = np.flatnonzero(counts.max(axis=1) <= 0)
    if len(without):
        raise InputError(f"{len(without):,} cells have no guide, first row {without[0]}; {AGAIN}")
    return np.array([target_of[guide] for guide in guides.features], dtype=object)[counts.argmax(axis=1)]


def _replicates(source: Papalexi) -> np.ndarray:
    """Return the number of each cell's replicate: 1 for ``rep_1``."""
    names = source.extra_covariates["bio_rep"].astype(str)
    wrong = names[~names.str.fullmatch(REPLICATE + r"\d+")]
    if len(wrong):
        raise InputError(f"bio_rep holds {wrong.iloc[0]!r}, expected {REPLICATE}1, {REPLICATE}2, ...; {AGAIN}")
    return names.str.removeprefix(REPLICATE).to_numpy(dtype=np.int64)
