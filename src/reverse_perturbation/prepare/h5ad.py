"""A user's file of cells: what it must hold, and the one place where that is checked.

An .h5ad file (:func:`read_source`) with

- ``layers["counts"]``: raw counts, cells x genes, whole numbers; ``X`` never stands in for it;
- ``obs["condition"]``: ``A+ctrl``, ``ctrl+A``, ``A+B`` or ``ctrl``;
- ``obs["control"]``: 1 or True for ``ctrl``, else 0 or False;
- ``var["gene_name"]``: unique gene symbols, and unique cell ids as the index of ``obs``;
- optionally ``obs["total_counts"]``, each cell's UMIs over all genes of the assay, which may be more than
  the file holds, and ``obs["gem_group"]``, its 10x lane.

GEARS's ``perturb_processed.h5ad`` is such a file. scPerturb's ``NormanWeissman2019_filtered.h5ad`` is accepted too:
``obs["perturbation"]``, ``A``, ``A_B`` or ``control``, and no ``condition``; raw counts in ``X`` and no layer of them;
gene symbols as the index of ``var``; optionally ``obs["gemgroup"]``.

Other words for control, such as ``non-targeting``, are read as ``ctrl`` in both; texts for "no target assigned" and
names of guides are refused. :func:`reverse_perturbation.prepare.source.labels.read_label` has the rule.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from reverse_perturbation.data.screen.genes import load_aliases
from reverse_perturbation.errors import InputError, listed
from reverse_perturbation.prepare.source.depths import depth_warnings
from reverse_perturbation.prepare.source.elements import column_names, read_columns, read_matrix, text_of
from reverse_perturbation.prepare.source.labels import GEARS, SCPERTURB, Layout, checked_labels, refuse_empty
from reverse_perturbation.prepare.source.opening import open_source
from reverse_perturbation.prepare.source.scale import ROWS, describe_x

LARGEST_COUNT = 2**24  # float32 holds every whole number up to here
TOTALS_ADVICE = "it must be the cell's UMIs over all genes of the assay, or be left out"
# Columns of obs in which others keep the perturbation, and of var in which they keep symbols.
LABEL_COLUMN = re.compile(r"gene|target|guide|pert|s?grna|treatment|knock|condition", re.IGNORECASE)
SYMBOL_COLUMN = re.compile(r"symbol|name|gene|feature", re.IGNORECASE)
ENSEMBL = re.compile(r"ENS[A-Z]*G\d{11}")
MANY_SYMBOLS = 0.2  # of the names in a column of symbols so many or more are current symbols with a synonym


def read_source(path: str | Path) -> ad.AnnData:
    """Read and check a user's file.

    Returns
    -------
    anndata.AnnData
        ``layers["counts"]`` CSR float32 with sorted indices and no stored zeros; ``obs`` with condition (str),
        control (bool) and, where the file has them, gem_group (str) and total_counts (float32); ``var`` indexed
        by gene name; ``uns["source"]``, for the audit: the file, its layers, what its X looks like and, where there are
        any, ``labels_read_as``: labels that are written otherwise and what they were read as, and
        ``depth_warnings``: what speaks against counts of molecules.

    Raises
    ------
    InputError
        With the file, the field, what was found and what to do.
    """
    path = Path(path)
    raw = _read_raw(path)
    genes = _checked_genes(path, raw)
    frame, read_as = _checked_obs(path, raw, genes)
    counts = _checked_counts(path, raw.counts, raw.field, frame.index, genes)
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    if "total_counts" in raw.obs:
        totals = _checked_totals(path, raw.obs["total_counts"], totals)
        frame["total_counts"] = totals.astype(np.float32)
    source = raw.source | describe_x(raw.first_rows_of_x, counts, totals)
    if read_as:
        source["labels_read_as"] = read_as
    if warnings := depth_warnings(counts, totals, "total_counts" in frame):
        source["depth_warnings"] = warnings
    var = pd.DataFrame({"gene_name": genes.to_numpy()}, index=genes)
    return ad.AnnData(obs=frame, var=var, layers={"counts": counts}, uns={"source": source})


@dataclass(frozen=True)
class _Raw:
    """The parts of a user's file that are read, unchecked."""

    layout: Layout
    obs: pd.DataFrame
    var: pd.DataFrame
    obs_columns: list[str]
    var_columns: list[str]
    counts: sp.csr_matrix
    field: str  # where they were found
    first_rows_of_x: sp.csr_matrix | None
    source: dict[str, Any]


def _read_raw(path: Path) -> _Raw:
    with open_source(path) as file:
        for part in ("obs", "var"):
            if part not in file:
                raise InputError(f"{path}: {part} is missing; write the file with AnnData.write_h5ad")
        columns = column_names(file["obs"])
        layers = sorted(file["layers"]) if isinstance(file.get("layers"), h5py.Group) else []
        scperturb = "counts" not in layers and "condition" not in columns and "perturbation" in columns and "X" in file
        if "counts" not in layers and not scperturb:
            raise InputError(
                f'{path}: layers["counts"] is missing (layers found: {listed(layers) or "none"}); put the raw '
                "counts there. X is never taken instead, because it is usually normalised"
            )
        obs = read_columns(path, file["obs"], _OBS[scperturb])
        var_columns = column_names(file["var"])
        var = read_columns(
            path, file["var"], [] if scperturb else ["gene_name"], [c for c in var_columns if SYMBOL_COLUMN.search(c)]
        )
        if scperturb:
            obs = obs.rename(columns={"gemgroup": "gem_group"})
        layer, shape = file["X" if scperturb else "layers/counts"], (len(obs), len(var))
        counts = read_matrix(path, layer, shape)
        source = {
            "kind": "h5ad",
            "file": path.name,
            "description": _description(file),
            "layers": layers,
            "counts_dtype": str(counts.dtype) if counts is not None else "",
        }
        x = None if scperturb or _is_null(file.get("X")) else read_matrix(path, file["X"], shape, ROWS)
        field = "X" if scperturb else 'layers["counts"]'
        layout = SCPERTURB if scperturb else GEARS
        return _Raw(layout, obs, var, columns, var_columns, counts, field, x, source)


_OBS = {True: ["perturbation", "gemgroup", "nperts"], False: ["condition", "control", "gem_group", "total_counts"]}


def _is_null(element: h5py.Dataset | h5py.Group | None) -> bool:
    return element is None or (isinstance(element, h5py.Dataset) and element.ndim == 0)


def _description(file: h5py.File) -> str:
    """Return the file's own description, ``uns["source"]``."""
    source = file["uns"].get("source") if isinstance(file.get("uns"), h5py.Group) else None
    if isinstance(source, h5py.Group):
        texts = {key: text_of(value) for key, value in source.items()}
        return "; ".join(f"{key}: {text}" for key, text in texts.items() if text is not None)
    return text_of(source) or ""


def _checked_genes(path: Path, raw: _Raw) -> pd.Index:
    var, field = raw.var, 'var["gene_name"]'
    if raw.layout is SCPERTURB:
        names, field = pd.Series(var.index, index=var.index), "the index of var"
    elif "gene_name" in var:
        names = var["gene_name"]
    else:
        found = listed(raw.var_columns) or "none"
        raise InputError(f"{path}: {field} is missing (columns found: {found}); put the gene symbols there")
    missing = (names.isna() | (names.astype(str) == "")).to_numpy()
    if missing.any():
        row = var.index[missing][0]
        raise InputError(f"{path}: {field} is empty for {row!r}; name the gene or drop its column")
    genes = pd.Index(names.astype(str).to_numpy(dtype=object))
    if not genes.is_unique:
        raise InputError(
            f"{path}: {field} holds {genes[genes.duplicated()][0]!r} more than once; add up the counts "
            "of its columns or keep one of them"
        )
    _refuse_ids(path, field, genes, var)
    return genes


def _refuse_ids(path: Path, field: str, genes: pd.Index, var: pd.DataFrame) -> None:
    """Refuse Ensembl ids where another column of ``var`` holds symbols."""
    if 2 * sum(bool(ENSEMBL.match(gene)) for gene in genes) <= len(genes):
        return
    current = set(load_aliases().values())
    columns = {f'var["{name}"]': var[name] for name in var} | {"the index of var": pd.Series(var.index)}
    shares = {name: values.astype(str).isin(current).mean() for name, values in columns.items() if name != field}
    if shares and (best := max(shares, key=lambda name: shares[name])) and shares[best] >= MANY_SYMBOLS:
        raise InputError(f"{path}: {field} holds Ensembl ids, and {best} symbols; put the symbols there")


def _checked_obs(path: Path, raw: _Raw, genes: pd.Index) -> tuple[pd.DataFrame, list[str]]:
    """Return the checked columns, and how labels were read that are written otherwise."""
    obs = raw.obs
    for name, meaning in (("condition", GEARS.forms), ("control", "1 for ctrl, else 0")):
        if name not in obs and raw.layout is GEARS:
            likely = (
                [column for column in raw.obs_columns if LABEL_COLUMN.search(column)] if name == "condition" else []
            )
            advice = (
                f"; the labels may be in {listed(likely)}: write that column as condition" if likely else "; add it"
            )
            found = listed(raw.obs_columns) or "none"
            raise InputError(f'{path}: obs["{name}"] is missing (columns found: {found}){advice}: {meaning}')
    if obs.empty:
        raise InputError(f"{path}: obs holds no cells; write the file with its cells")
    if not obs.index.is_unique:
        twice = obs.index[obs.index.duplicated()][0]
        raise InputError(f"{path}: obs holds the cell id {twice!r} more than once; call obs_names_make_unique()")
    frame, read_as = checked_labels(path, obs, raw.layout, list(genes))
    frame.index.name = None
    if "gem_group" in obs:
        refuse_empty(path, obs["gem_group"])
        frame["gem_group"] = obs["gem_group"].astype(str).to_numpy(dtype=object)
    return frame, read_as


def _checked_counts(path: Path, counts: sp.csr_matrix, field: str, cells: pd.Index, genes: pd.Index) -> sp.csr_matrix:
    values = counts.data
    finite = np.isfinite(values)
    for wrong, what in (
        (~finite, "values that are NaN or infinite"),
        (values < 0, "negative values"),
        (finite & (values != np.floor(values)), "fractions"),
        (values > LARGEST_COUNT, "values too large for a count"),
    ):
        if wrong.any():
            place = int(np.argmax(wrong))
            cell = cells[int(np.searchsorted(counts.indptr, place, side="right")) - 1]
            raise InputError(
                f"{path}: {field} holds {int(wrong.sum()):,} {what}, first {values[place]:g} for cell "
                f"{cell!r} and gene {genes[int(counts.indices[place])]!r}; put the raw, unnormalised counts there"
            )
    counts = counts.astype(np.float32)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    if not counts.nnz:
        raise InputError(f"{path}: {field} holds no counts; put the raw counts there")
    return counts


def _checked_totals(path: Path, column: pd.Series, panel_totals: np.ndarray) -> np.ndarray:
    totals: np.ndarray = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(totals) | (totals < panel_totals))
    if len(wrong):
        i = wrong[0]
        raise InputError(
            f'{path}: obs["total_counts"] is {column.iloc[i]} for cell {column.index[i]!r}, whose counts add up to '
            f"{panel_totals[i]:g} ({len(wrong):,} such cells); {TOTALS_ADVICE}"
        )
    fractions = np.flatnonzero(totals != np.floor(totals))
    if len(fractions):
        i = fractions[0]
        raise InputError(
            f'{path}: obs["total_counts"] is {totals[i]:g} for cell {column.index[i]!r} ({len(fractions):,} '
            f"fractions), which is no number of molecules; {TOTALS_ADVICE}"
        )
    if len(totals) > 1 and (totals == totals[0]).all() and not (totals == panel_totals).all():
        raise InputError(
            f'{path}: obs["total_counts"] is {totals[0]:g} for every cell: a depth that counts were scaled to, not one '
            f"that was sequenced; {TOTALS_ADVICE}"
        )
    return totals
