"""The masked screen: the input of every model, assembled in one place so that all see the same."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from reverse_perturbation.data.screen.contract import read_cells
from reverse_perturbation.data.screen.mask import apply_mask
from reverse_perturbation.data.screen.normalize import log1p_cp10k
from reverse_perturbation.errors import InputError
from reverse_perturbation.sections import GeneSet, Mask

CONTROL_PART = "control"
LEAST_GENES = 2  # genes with counts that the mask leaves; of fewer there is no profile


@dataclass(frozen=True)
class MaskedScreen:
    """Masked counts of the cells of a split, in its order.

    Attributes
    ----------
    cell_ids
        Object array of str.
    conditions
        Labels in the label space of the split, object array of str.
    parts
        ``reference``, ``validation``, ``query``, and ``control`` where control cells were loaded.
    counts
        CSR float32, cells x genes, masked.
    totals
        float32, depths after the mask.
    genes
        Gene names, object array of str.
    tokens
        The symbol of each gene in the foundation model's vocabulary, empty where it has none.
    """

    cell_ids: np.ndarray
    conditions: np.ndarray
    parts: np.ndarray
    counts: sp.csr_matrix
    totals: np.ndarray
    genes: np.ndarray
    tokens: np.ndarray

    def rows(self, *parts: str) -> np.ndarray:
        """Return the row numbers of the cells in some parts."""
        return np.flatnonzero(np.isin(self.parts, parts))

    def classes(self) -> list[str]:
        """Return the conditions, each once, in the order of every model's classes."""
        return sorted(set(self.conditions.astype(str)))

    def take(self, rows: np.ndarray) -> "MaskedScreen":
        """Return some cells: their row numbers, or whether to take each."""
        return replace(
            self,
            cell_ids=self.cell_ids[rows],
            conditions=self.conditions[rows],
            parts=self.parts[rows],
            counts=self.counts[rows],
            totals=self.totals[rows],
        )

    def log1p(self) -> sp.csr_matrix:
        """Return log1p of counts per ten thousand, CSR float32."""
        return log1p_cp10k(self.counts, self.totals)


def load_masked_screen(
    cells_path: str | Path,
    split_path: str | Path,
    genes_path: str | Path,
    *,
    mask: Mask,
    genes: GeneSet,
    controls: bool = False,
) -> MaskedScreen:
    """Read prepared cells, mask all of them, and take those of the split.

    Parameters
    ----------
    cells_path, split_path, genes_path
        Written by the stages prepare, split and vocab_map.
    mask
        Applied before anything else.
    genes
        ``vocab`` keeps the genes that have a token; depths stay those of all genes.
    controls
        Append the control cells.

    Raises
    ------
    InputError
        If the files do not belong together, or the mask leaves fewer than ``LEAST_GENES`` genes with counts.
    """
    adata = read_cells(cells_path)
    frame = read_split(split_path)
    places = adata.obs_names.get_indexer(frame["cell"])
    if (places < 0).any():
        raise InputError(
            f"{split_path}: cell {frame['cell'].iloc[int(np.argmin(places))]!r} is not in {cells_path}; run "
            "`dvc repro split`"
        )
    mapped = _read_table(genes_path, ["gene", "token"], "vocab_map")
    if list(mapped["gene"]) != list(adata.var_names):
        raise InputError(f"{genes_path}: its genes are not those of {cells_path}; run `dvc repro vocab_map`")
    masked = apply_mask(adata, mask)
    conditions, parts = frame["condition"].to_numpy(dtype=object), frame["part"].to_numpy(dtype=object)
    if controls:
        control = np.flatnonzero(adata.obs["control"].to_numpy(dtype=bool))
        places = np.concatenate([places, control])
        conditions = np.concatenate([conditions, adata.obs["condition"].astype(str).to_numpy(dtype=object)[control]])
        parts = np.concatenate([parts, np.full(len(control), CONTROL_PART, dtype=object)])
    tokens = mapped["token"].to_numpy(dtype=object)
    kept = np.flatnonzero(tokens != "") if genes == "vocab" else np.arange(len(tokens))
    counts = masked.counts[places][:, kept]
    if (left := len(np.unique(counts.indices))) < LEAST_GENES:
        share = 1 - masked.counts.sum(dtype=np.float64) / max(adata.layers["counts"].sum(dtype=np.float64), 1)
        which = "with counts and a token" if genes == "vocab" else "with counts"
        raise InputError(
            f"{cells_path}: mask={mask} hides {share:.1%} of UMIs and leaves {left} genes {which}, at least "
            f"{LEAST_GENES} are needed; add genes to the file that no label names"
        )
    return MaskedScreen(
        cell_ids=adata.obs_names.to_numpy(dtype=object)[places],
        conditions=conditions,
        parts=parts,
        counts=counts,
        totals=masked.totals[places],
        genes=adata.var_names.to_numpy(dtype=object)[kept],
        tokens=tokens[kept],
    )


def read_split(path: str | Path) -> pd.DataFrame:
    """Read the frame written by the stage split: columns cell, condition, part."""
    frame = _read_table(path, ["cell", "condition", "part"], "split")
    if not frame["cell"].is_unique:
        twice = frame["cell"][frame["cell"].duplicated()].iloc[0]
        raise InputError(f"{path}: cell {twice!r} occurs twice; run `dvc repro split`")
    return frame


def _read_table(path: str | Path, columns: list[str], stage: str) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run `dvc repro {stage}`") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a table ({error}); run `dvc repro {stage}`") from None
    missing = [column for column in columns if column not in frame]
    if missing:
        raise InputError(f"{path}: columns {', '.join(missing)} are missing; run `dvc repro {stage}`")
    return frame


def fingerprint(screen: MaskedScreen) -> str:
    """Return the hexadecimal sha256 of the cells, their conditions and parts, the genes, the masked counts and totals.

    It changes with mask, genes, split and data, and with the order of cells and genes.
    """
    digest = hashlib.sha256()
    for names in (screen.cell_ids, screen.conditions, screen.parts, screen.genes):
        digest.update("\0".join(names.astype(str)).encode() + b"\1")
    counts = screen.counts.sorted_indices()
    for array, kind in (
        (counts.indptr, np.int64),
        (counts.indices, np.int64),
        (counts.data, np.float64),
        (screen.totals, np.float64),
    ):
        digest.update(np.ascontiguousarray(array, dtype=kind).data)
    return digest.hexdigest()


def separate_controls(screen: MaskedScreen) -> tuple[MaskedScreen, MaskedScreen]:
    """Divide a screen loaded with its control cells: the cells of the split, in its order, and the control cells."""
    control = screen.parts == CONTROL_PART
    return screen.take(~control), screen.take(control)
