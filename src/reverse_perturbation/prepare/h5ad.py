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
names of guides are refused. :func:`reverse_perturbation.prepare.targets.read_label` has the rule.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import read_elem

from reverse_perturbation.conditions import CONTROL, genes_of
from reverse_perturbation.data.screen.contract import open_hdf5
from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare.scale import describe_x, first_rows_of_x
from reverse_perturbation.prepare.targets import COMPLAINTS, read_label

DENSE_ROWS = 4096  # rows of a dense layer made sparse at once
LARGEST_COUNT = 2**24  # float32 holds every whole number up to here
TOTALS_ADVICE = "it must be the cell's UMIs over all genes of the assay, or be left out"
FLAGS = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}


def read_source(path: str | Path) -> ad.AnnData:
    """Read and check a user's file.

    Returns
    -------
    anndata.AnnData
        ``layers["counts"]`` CSR float32 with sorted indices and no stored zeros; ``obs`` with condition (str),
        control (bool) and, where the file has them, gem_group (str) and total_counts (float32); ``var`` indexed
        by gene name; ``uns["source"]``, for the audit: the file, its layers, what its X looks like and, where there are
        any, ``labels_read_as``: labels with another word for control and what they were read as.

    Raises
    ------
    InputError
        With the file, the field, what was found and what to do.
    """
    path = Path(path)
    raw = _read_raw(path)
    genes = _checked_genes(path, raw.var)
    frame, read_as = _checked_obs(path, raw.obs, raw.sign)
    counts = _checked_counts(path, raw.counts, raw.field, frame.index, genes)
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    if "total_counts" in raw.obs:
        totals = _checked_totals(path, raw.obs["total_counts"], totals)
        frame["total_counts"] = totals.astype(np.float32)
    source = raw.source | describe_x(raw.first_rows_of_x, counts, totals)
    if read_as:
        source["labels_read_as"] = read_as
    var = pd.DataFrame({"gene_name": genes.to_numpy()}, index=genes)
    return ad.AnnData(obs=frame, var=var, layers={"counts": counts}, uns={"source": source})


@dataclass(frozen=True)
class _Raw:
    """The parts of a user's file that are read, unchecked."""

    obs: pd.DataFrame
    var: pd.DataFrame
    counts: sp.csr_matrix
    field: str  # where they were found
    sign: str  # between the genes of a label
    first_rows_of_x: sp.csr_matrix | None
    source: dict[str, Any]


def _read_raw(path: Path) -> _Raw:
    with open_hdf5(path, "set data.path to an .h5ad file") as file:
        for part in ("obs", "var"):
            if part not in file:
                raise InputError(f"{path}: {part} is missing; write the file with AnnData.write_h5ad")
        layers = sorted(file["layers"]) if "layers" in file else []
        obs, var = read_elem(file["obs"]), read_elem(file["var"])
        scperturb = "counts" not in layers and "condition" not in obs and "perturbation" in obs and "X" in file
        if "counts" not in layers and not scperturb:
            raise InputError(
                f'{path}: layers["counts"] is missing (layers found: {", ".join(layers) or "none"}); put the raw '
                "counts there. X is never taken instead, because it is usually normalised"
            )
        field = "X" if scperturb else 'layers["counts"]'
        layer = file["X" if scperturb else "layers/counts"]
        values = layer if isinstance(layer, h5py.Dataset) else layer.get("data")
        if values is None or values.dtype.kind not in "iufb":
            raise InputError(f"{path}: {field} is no matrix of numbers; put the raw counts there")
        source = {
            "kind": "h5ad",
            "file": path.name,
            "description": _description(file),
            "layers": layers,
            "counts_dtype": str(values.dtype),
        }
        if scperturb:
            obs, var = _from_scperturb(obs, var)
        x = None if scperturb else first_rows_of_x(file)
        return _Raw(obs, var, _read_sparse(layer), field, "_" if scperturb else "+", x, source)


def _from_scperturb(obs: pd.DataFrame, var: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Take scPerturb's columns, the labels as they are."""
    columns = {"perturbation": obs["perturbation"]}
    if "gemgroup" in obs:
        columns["gem_group"] = obs["gemgroup"]
    return pd.DataFrame(columns, index=obs.index), pd.DataFrame({"gene_name": var.index}, index=var.index)


def _read_sparse(layer: h5py.Dataset | h5py.Group) -> sp.csr_matrix:
    """Read a matrix as CSR; a dense one in blocks of rows, so that it is never held whole."""
    if isinstance(layer, h5py.Group):
        stored = read_elem(layer)
        stored.check_format(full_check=True)  # indices beyond the shape would crash what comes after
        return sp.csr_matrix(stored)
    if not layer.shape[0]:
        return sp.csr_matrix(layer.shape, dtype=layer.dtype)
    starts = range(0, layer.shape[0], DENSE_ROWS)
    return sp.vstack([sp.csr_matrix(layer[start : start + DENSE_ROWS]) for start in starts], format="csr")


def _description(file: h5py.File) -> str:
    """Return the file's own description, ``uns["source"]``."""
    if "uns" not in file or "source" not in file["uns"]:
        return ""
    source = read_elem(file["uns/source"])
    if isinstance(source, dict):
        return "; ".join(f"{key}: {value}" for key, value in source.items() if isinstance(value, str))
    return str(source)


def _checked_genes(path: Path, var: pd.DataFrame) -> pd.Index:
    if "gene_name" not in var:
        found = ", ".join(map(str, var.columns)) or "none"
        raise InputError(f'{path}: var["gene_name"] is missing (columns found: {found}); put the gene symbols there')
    names = var["gene_name"]
    missing = (names.isna() | (names.astype(str) == "")).to_numpy()
    if missing.any():
        row = var.index[missing][0]
        raise InputError(f'{path}: var["gene_name"] is empty for {row!r}; name the gene or drop its column')
    genes = pd.Index(names.astype(str).to_numpy(dtype=object))
    if not genes.is_unique:
        raise InputError(
            f'{path}: var["gene_name"] holds {genes[genes.duplicated()][0]!r} more than once; add up the counts '
            "of its columns or keep one of them"
        )
    return genes


def _checked_obs(path: Path, obs: pd.DataFrame, sign: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the checked columns, and which labels have another word for control."""
    scperturb = sign == "_"
    for name, meaning in (("condition", "A+ctrl, ctrl+A, A+B or ctrl"), ("control", "1 for ctrl, else 0")):
        if name not in obs and not scperturb:
            found = ", ".join(map(str, obs.columns)) or "none"
            raise InputError(f'{path}: obs["{name}"] is missing (columns found: {found}); add it: {meaning}')
    if not obs.index.is_unique:
        twice = obs.index[obs.index.duplicated()][0]
        raise InputError(f"{path}: obs holds the cell id {twice!r} more than once; call obs_names_make_unique()")
    texts, labels = _checked_labels(path, obs["perturbation" if scperturb else "condition"], sign)
    flags = pd.Series((labels == CONTROL).astype(int), index=obs.index) if scperturb else obs["control"]
    control = _checked_control(path, flags, labels, texts)
    frame = pd.DataFrame({"condition": labels, "control": control}, index=obs.index.astype(str))
    frame.index.name = None
    if "gem_group" in obs:
        _refuse_empty(path, obs["gem_group"])
        frame["gem_group"] = obs["gem_group"].astype(str).to_numpy(dtype=object)
    read_as = [
        f"{text} as {label}"
        for text, label in sorted(set(zip(texts, labels, strict=True)))
        if text != "control" and CONTROL in label.split("+") and label not in (text, f"{text}+{CONTROL}")
    ]
    return frame, read_as


def _refuse_empty(path: Path, column: pd.Series) -> None:
    if column.isna().any():
        cell = column.index[column.isna()][0]
        raise InputError(
            f'{path}: obs["{column.name}"] is empty for {int(column.isna().sum()):,} cells, first {cell!r}; '
            "fill it in or drop the cells"
        )


def _checked_labels(path: Path, condition: pd.Series, sign: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the texts of the file and the labels they are read as."""
    _refuse_empty(path, condition)
    if sign == "+" and isinstance(condition.dtype, pd.CategoricalDtype):
        present = set(condition)
        empty = [str(name) for name in condition.cat.categories if name not in present]
        if empty:
            raise InputError(
                f'{path}: obs["condition"] lists {len(empty)} conditions without a cell: {", ".join(empty[:5])}'
                f'{", ..." if len(empty) > 5 else ""}; call adata.obs["condition"].cat.remove_unused_categories() '
                "and assign the result"
            )
    texts = condition.astype(str)
    read = {text: read_label(text, sign) for text in texts.unique()}
    _refuse_complaints(path, texts, {text: complaint for text, (_, complaint) in read.items()}, sign)
    labels = texts.map({text: label for text, (label, _) in read.items()})
    for label in labels.unique():
        complaint = _label_complaint(label)
        if complaint:
            cell = labels.index[labels == label][0]
            raise InputError(
                f'{path}: obs["condition"] is {label!r} for cell {cell!r}: {complaint}; write A+ctrl, ctrl+A, '
                "A+B or ctrl"
            )
    return texts.to_numpy(dtype=object), labels.to_numpy(dtype=object)


def _refuse_complaints(path: Path, texts: pd.Series, complaints: dict[str, str], sign: str) -> None:
    """Raise an error that lists the labels that are neither a perturbation nor control, by what is wrong with them."""
    cells = texts.value_counts()
    said = []
    for kind, message in COMPLAINTS.items():
        found = sorted(text for text, complaint in complaints.items() if complaint == kind)
        if found:
            listed = ", ".join(f"{text!r} (cells: {cells[text]:,})" for text in found[:10])
            said.append(message.format(listed + (f" and {len(found) - 10} more" if len(found) > 10 else ""), sign=sign))
    if said:
        raise InputError(
            f'{path}: obs["{texts.name}"] holds labels that are neither a perturbation nor control. {". ".join(said)}'
        )


def _label_complaint(label: str) -> str:
    """Return what is wrong with a label; nothing if it is one of the four forms."""
    try:
        genes = genes_of(label)
    except ValueError:
        return "a part of it is empty"
    if label != label.strip() or any(part != part.strip() for part in label.split("+")):
        return "it holds spaces"
    if label == CONTROL:
        return ""
    parts = label.split("+")
    if len(parts) != 2:
        return f"it has {len(parts)} part{'s' if len(parts) > 1 else ''} instead of two"
    wanted = 1 if CONTROL in parts else 2
    return "" if len(genes) == wanted else "both of its parts are the same"


def _checked_control(path: Path, column: pd.Series, labels: np.ndarray, texts: np.ndarray) -> np.ndarray:
    values = column.astype(str).str.lower().map(FLAGS)
    if values.isna().any():
        cell = column.index[values.isna()][0]
        raise InputError(f'{path}: obs["control"] is {column.loc[cell]!r} for cell {cell!r}; it must be 0 or 1')
    control: np.ndarray = values.to_numpy(dtype=bool)
    wrong = np.flatnonzero(control != (labels == CONTROL))
    if len(wrong):
        i = wrong[0]
        words = sorted({str(text) for text in texts[wrong][labels[wrong] == CONTROL]} - {CONTROL})
        if words:
            listed = ", ".join(map(repr, words[:10])) + (", ..." if len(words) > 10 else "")
            raise InputError(
                f'{path}: obs["control"] is 0 for cell {column.index[i]!r} ({len(wrong):,} such cells), but these '
                f"conditions are control: {listed}; set control to 1 for their cells, or drop them"
            )
        raise InputError(
            f'{path}: obs["control"] is {int(control[i])} for cell {column.index[i]!r}, but its condition is '
            f"{texts[i]!r} ({len(wrong):,} such cells); control must be 1 where the condition is {CONTROL!r} "
            "and 0 elsewhere"
        )
    if not control.any():
        raise InputError(
            f"{path}: obs holds no control cells (condition {CONTROL!r}, control 1); keep them in the file"
        )
    if control.all():
        raise InputError(f"{path}: obs holds only control cells; keep the perturbed cells in the file")
    return control


def _checked_counts(path: Path, counts: sp.csr_matrix, field: str, cells: pd.Index, genes: pd.Index) -> sp.csr_matrix:
    if counts.shape != (len(cells), len(genes)):
        raise InputError(
            f"{path}: {field} is {counts.shape[0]} x {counts.shape[1]}, but obs has {len(cells)} rows and "
            f"var {len(genes)}; write the file again"
        )
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
