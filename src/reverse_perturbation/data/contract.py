"""The door: what a file of cells must hold, and the one place where that is checked.

A user's file (:func:`read_source`) is an .h5ad with

- ``layers["counts"]``: raw counts, cells x genes, integer-valued; ``X`` is not used and not read;
- ``obs["condition"]``: ``A+ctrl``, ``ctrl+A``, ``A+B`` or ``ctrl``; ``obs["control"]``: 1 or True for ``ctrl``;
- ``var["gene_name"]``: unique gene symbols; unique cell ids as the index of ``obs``;
- optionally ``obs["total_counts"]``, each cell's UMIs over all genes of the assay (which may be more than the file
  holds), and ``obs["gem_group"]``, its 10x lane.

GEARS's ``perturb_processed.h5ad`` is such a file. What is written after the checks (:func:`write_cells`) has the same
layout without X and anything else.
"""

from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import read_elem, write_elem

from reverse_perturbation.conditions import CONTROL, genes_of
from reverse_perturbation.errors import InputError
from reverse_perturbation.storage import write_atomically

KEPT = ("condition", "control", "gem_group", "total_counts")
ROWS = 4096  # rows of a dense layer made sparse at once


def read_source(path: str | Path) -> ad.AnnData:
    """Read and check a user's file.

    Returns
    -------
    anndata.AnnData
        ``layers["counts"]`` CSR float32 with sorted indices and no stored zeros; ``obs`` with condition (str), control
        (bool) and, where the file has them, gem_group and total_counts (float32); ``var`` indexed by gene name; ``uns``
        with what X looked like, for the audit.

    Raises
    ------
    InputError
        With the file, the field, what was found and what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; set data.path to an .h5ad file")
    try:
        with h5py.File(path, "r") as file:
            counts = _counts(path, file)
            obs, var = read_elem(file["obs"]), read_elem(file["var"])
            layers = sorted(file["layers"])
            scale = _scale_of_x(file)
    except InputError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: not a readable .h5ad file, or cut short ({error}); fetch or write it again") from None
    frame = _checked_obs(path, obs, counts)
    genes = _checked_genes(path, var, counts)
    cells = ad.AnnData(obs=frame, var=pd.DataFrame(index=genes), layers={"counts": counts})
    cells.var["gene_name"] = cells.var_names.to_numpy()
    cells.uns["source"] = {"kind": "h5ad", "file": path.name, "layers": layers} | scale
    return cells


def write_cells(path: str | Path, cells: ad.AnnData) -> None:
    """Write checked cells atomically; the same cells give the same bytes."""
    with write_atomically(path) as temporary, h5py.File(temporary, "w", track_order=False) as file:
        write_elem(file, "/", cells, dataset_kwargs={"compression": "lzf"})


def read_cells(path: str | Path) -> ad.AnnData:
    """Read what :func:`write_cells` wrote.

    Raises
    ------
    InputError
        If the file is missing or broken.
    """
    try:
        return ad.read_h5ad(path)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run `dvc repro prepare` to make it again") from None


def read_obs(path: str | Path) -> pd.DataFrame:
    """Read only the cells' annotations of a prepared file."""
    try:
        with h5py.File(path, "r") as file:
            frame: pd.DataFrame = read_elem(file["obs"])
            return frame
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run `dvc repro prepare` to make it again") from None


def _counts(path: Path, file: h5py.File) -> sp.csr_matrix:
    if "layers" not in file or "counts" not in file["layers"]:
        found = ", ".join(sorted(file["layers"])) if "layers" in file and len(file["layers"]) else "none"
        raise InputError(
            f'{path}: layers["counts"] is missing (layers found: {found}); put the raw counts there. X is never taken '
            "instead, since it is usually normalised"
        )
    element = file["layers/counts"]
    if isinstance(element, h5py.Dataset):
        blocks = [sp.csr_matrix(element[start : start + ROWS]) for start in range(0, element.shape[0], ROWS)]
        counts = sp.vstack(blocks, format="csr") if blocks else sp.csr_matrix(element.shape)
    else:
        counts = sp.csr_matrix(read_elem(element))
    for wrong, what in (
        (~np.isfinite(counts.data), "a value that is not finite"),
        (counts.data < 0, "a negative value"),
        (counts.data != np.round(counts.data), "a fraction"),
    ):
        if wrong.any():
            place = int(np.argmax(wrong))
            row = int(np.searchsorted(counts.indptr, place, side="right")) - 1
            raise InputError(
                f'{path}: layers["counts"] holds {what}, {counts.data[place]:g} (cell {row}, gene {counts.indices[place]}; '
                f"{int(wrong.sum()):,} such values); raw counts are whole numbers, so put unnormalised counts there"
            )
    counts = counts.astype(np.float32)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts


def _checked_obs(path: Path, obs: pd.DataFrame, counts: sp.csr_matrix) -> pd.DataFrame:
    for name, meaning in (("condition", "A+ctrl, A+B or ctrl"), ("control", "1 for control cells, else 0")):
        if name not in obs:
            raise InputError(f'{path}: obs["{name}"] is missing ({meaning}); columns found: {", ".join(obs.columns)}')
    if len(obs) != counts.shape[0]:
        raise InputError(f'{path}: obs has {len(obs)} rows and layers["counts"] {counts.shape[0]}; write the file again')
    if not obs.index.is_unique:
        twice = obs.index[obs.index.duplicated()][0]
        raise InputError(f"{path}: cell id {twice!r} occurs more than once in obs; call obs_names_make_unique()")
    condition = obs["condition"]
    if condition.isna().any():
        raise InputError(f'{path}: obs["condition"] is empty for cell {obs.index[condition.isna()][0]!r}; drop such cells')
    if isinstance(condition.dtype, pd.CategoricalDtype):
        empty = sorted(set(condition.cat.categories) - set(condition.unique()))
        if empty:
            raise InputError(
                f'{path}: obs["condition"] lists conditions without a cell: {", ".join(map(str, empty[:5]))} ({len(empty)} in '
                'all); call obs["condition"].cat.remove_unused_categories()'
            )
    labels = condition.astype(str)
    for label in labels.unique():
        try:
            genes_of(label)
        except ValueError as error:
            raise InputError(f'{path}: obs["condition"]: {error}') from None
    control = _flag(path, obs["control"])
    contradiction = control != (labels == CONTROL).to_numpy()
    if contradiction.any():
        cell = obs.index[contradiction][0]
        raise InputError(
            f'{path}: obs["control"] contradicts obs["condition"] for cell {cell!r} (condition {labels[cell]!r}, control '
            f"{bool(control[np.argmax(contradiction)])}) and {int(contradiction.sum()) - 1} others; control cells are "
            f"labelled {CONTROL!r}"
        )
    if not control.any():
        raise InputError(f'{path}: no control cells: obs["control"] is 0 everywhere; keep the {CONTROL!r} cells in the file')
    if control.all():
        raise InputError(f"{path}: only control cells; nothing was perturbed")
    frame = pd.DataFrame({"condition": labels.to_numpy(dtype=object), "control": control}, index=obs.index.astype(str))
    frame.index.name = None
    if "gem_group" in obs:
        frame["gem_group"] = obs["gem_group"].astype(str).to_numpy(dtype=object)
    if "total_counts" in obs:
        frame["total_counts"] = _totals(path, obs, counts)
    return frame


def _flag(path: Path, column: pd.Series) -> np.ndarray:
    values = column.astype(str).str.lower().map({"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False})
    if values.isna().any():
        raise InputError(f'{path}: obs["control"] holds {column[values.isna()].iloc[0]!r}; it must be 0 or 1')
    return values.to_numpy(dtype=bool)


def _totals(path: Path, obs: pd.DataFrame, counts: sp.csr_matrix) -> np.ndarray:
    totals = pd.to_numeric(obs["total_counts"], errors="coerce").to_numpy(dtype=np.float64)
    own = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    wrong = ~np.isfinite(totals) | (totals < own)
    if wrong.any():
        cell = obs.index[wrong][0]
        raise InputError(
            f'{path}: obs["total_counts"] is {obs["total_counts"].loc[cell]} for cell {cell!r}, whose counts add up to '
            f"{own[np.argmax(wrong)]:g}; it must be the cell's UMIs over all genes, or be left out"
        )
    return totals.astype(np.float32)


def _checked_genes(path: Path, var: pd.DataFrame, counts: sp.csr_matrix) -> pd.Index:
    if "gene_name" not in var:
        raise InputError(f'{path}: var["gene_name"] is missing (gene symbols); columns found: {", ".join(var.columns) or "none"}')
    if len(var) != counts.shape[1]:
        raise InputError(f'{path}: var has {len(var)} rows and layers["counts"] {counts.shape[1]} columns; write the file again')
    genes = pd.Index(var["gene_name"].astype(str).to_numpy(dtype=object))
    if not genes.is_unique:
        raise InputError(
            f'{path}: gene {genes[genes.duplicated()][0]!r} occurs more than once in var["gene_name"]; add the counts of '
            "its columns or drop all but one"
        )
    return genes


def _scale_of_x(file: h5py.File) -> dict[str, Any]:
    """Look at the first rows of X, for the audit: is it whole numbers, or log1p of a common total?"""
    if "X" not in file or (isinstance(file["X"], h5py.Group) and "indptr" not in file["X"]):
        return {}
    element = file["X"]
    if isinstance(element, h5py.Dataset):
        rows = sp.csr_matrix(element[:ROWS])
    else:
        if element.attrs.get("encoding-type") != "csr_matrix":
            return {}
        indptr = element["indptr"][: ROWS + 1]
        shape = (len(indptr) - 1, int(element.attrs["shape"][1]))
        rows = sp.csr_matrix((element["data"][: indptr[-1]], element["indices"][: indptr[-1]], indptr), shape=shape)
    if not rows.nnz:
        return {}
    sums = np.asarray(rows.astype(np.float64).expm1().sum(axis=1)).ravel() if rows.data.max() < 50 else np.zeros(1)
    return {
        "x_integer_share": float(np.mean(rows.data == np.round(rows.data))),
        "x_max": float(rows.data.max()),
        "x_expm1_row_sum_median": float(np.median(sums)),
    }
