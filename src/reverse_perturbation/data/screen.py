"""The masked screen: what every model is given, assembled in one place so that all see the same."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from reverse_perturbation.config import GeneSet, Mask
from reverse_perturbation.data.contract import read_cells
from reverse_perturbation.data.mask import apply_mask
from reverse_perturbation.data.normalize import log1p_cp10k
from reverse_perturbation.errors import InputError

CONTROL_PART = "control"


@dataclass(frozen=True)
class Screen:
    """Masked counts of the cells of a split, in its order.

    Attributes
    ----------
    cells
        Ids, object array of str.
    conditions
        Labels in the label space of the split, object array of str.
    parts
        ``reference``, ``validation``, ``query``, and ``control`` where control cells were asked for.
    counts
        CSR float32, cells x genes, masked.
    totals
        float32, library sizes after the mask.
    genes
        Gene names, object array of str.
    tokens
        The symbol each gene has in scGPT's vocabulary, empty where it has none.
    """

    cells: np.ndarray
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

    def log1p(self) -> sp.csr_matrix:
        """Return log1p of counts per ten thousand, CSR float32."""
        return log1p_cp10k(self.counts, self.totals)


def load_screen(
    cells: str | Path,
    split: str | Path,
    vocabulary_map: str | Path,
    *,
    mask: Mask,
    genes: GeneSet,
    controls: bool = False,
) -> Screen:
    """Read prepared cells, mask all of them, and take those of the split.

    Parameters
    ----------
    cells, split, vocabulary_map
        Written by the stages prepare, split and vocab_map.
    mask
        Applied before anything else.
    genes
        ``vocab`` keeps the genes that have a token; library sizes stay those of all genes.
    controls
        Append the control cells.

    Raises
    ------
    InputError
        If the files do not belong together.
    """
    data = read_cells(cells)
    frame = read_split(split)
    places = data.obs_names.get_indexer(frame["cell"])
    if (places < 0).any():
        raise InputError(
            f"{split}: cell {frame['cell'].iloc[int(np.argmin(places))]!r} is not in {cells}; run `dvc repro split`"
        )
    mapped = _read_table(vocabulary_map, ["gene", "token"], "vocab_map")
    if list(mapped["gene"]) != list(data.var_names):
        raise InputError(f"{vocabulary_map}: its genes are not those of {cells}; run `dvc repro vocab_map`")
    masked = apply_mask(data, mask)
    conditions, parts = frame["condition"].to_numpy(dtype=object), frame["part"].to_numpy(dtype=object)
    if controls:
        control = np.flatnonzero(data.obs["control"].to_numpy(dtype=bool))
        places = np.concatenate([places, control])
        conditions = np.concatenate([conditions, data.obs["condition"].astype(str).to_numpy(dtype=object)[control]])
        parts = np.concatenate([parts, np.full(len(control), CONTROL_PART, dtype=object)])
    tokens = mapped["token"].to_numpy(dtype=object)
    kept = np.flatnonzero(tokens != "") if genes == "vocab" else np.arange(len(tokens))
    return Screen(
        cells=data.obs_names.to_numpy(dtype=object)[places],
        conditions=conditions,
        parts=parts,
        counts=masked.counts[places][:, kept],
        totals=masked.totals[places],
        genes=data.var_names.to_numpy(dtype=object)[kept],
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
