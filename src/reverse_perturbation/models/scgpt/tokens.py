"""Cells as scGPT reads them: for each expressed gene a token and a value.

What a cell's tokens are depends on the cell alone: there is no random sampling of genes and there are no random
ties, unless ``binned_random`` asks for upstream's, and then the draw is seeded by the cell's id.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from reverse_perturbation.config import Scgpt
from reverse_perturbation.data.normalize import log1p_cp10k

QUANTILES = (0.001, 0.999)


@dataclass(frozen=True)
class Tokens:
    """Tokens of many cells, end to end, without padding and without ``<cls>``.

    Attributes
    ----------
    ids
        int32 [n_tokens].
    values
        float32 [n_tokens].
    offsets
        int64 [n_cells + 1]: cell i has tokens ``offsets[i]`` to ``offsets[i + 1]``.
    cls_id, pad_id
        Special tokens.
    pad_value
        Value of both.
    """

    ids: np.ndarray
    values: np.ndarray
    offsets: np.ndarray
    cls_id: int
    pad_id: int
    pad_value: int

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n_cells]: number of genes of each cell."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> "Tokens":
        """Return the tokens of some cells, in the order given."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        index = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return replace(self, ids=self.ids[index], values=self.values[index], offsets=offsets)

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids (int64), values (float32) and padding (bool), each [len(rows), longest + 1].

        ``<cls>`` comes first with the pad value, as upstream feeds it; padding is True behind a cell's last gene.
        """
        taken = self.take(rows)
        lengths = taken.lengths
        shape = (len(rows), int(lengths.max(initial=0)) + 1)
        ids = np.full(shape, self.pad_id, dtype=np.int64)
        values = np.full(shape, self.pad_value, dtype=np.float32)
        present = np.arange(shape[1]) <= lengths[:, None]
        ids[:, 0] = self.cls_id
        genes = present.copy()
        genes[:, 0] = False
        ids[genes], values[genes] = taken.ids, taken.values
        return torch.from_numpy(ids), torch.from_numpy(values), torch.from_numpy(~present)


@dataclass(frozen=True)
class Scale:
    """The log1p values that become the lowest and the highest bin."""

    low: float
    high: float


def fit_scale(counts: sp.csr_matrix, totals: np.ndarray) -> Scale:
    """Return the 0.1 % and 99.9 % quantiles of the non-zero log1p values of (reference) cells."""
    values = log1p_cp10k(counts, totals).data
    if not len(values):
        return Scale(0.0, 1.0)
    low, high = np.quantile(values, QUANTILES)
    return Scale(float(low), float(max(high, low + 1e-3)))


def tokenize(
    counts: sp.csr_matrix,
    totals: np.ndarray,
    *,
    token_ids: np.ndarray,
    cells: np.ndarray,
    config: Scgpt,
    n_bins: int,
    vocabulary: Mapping[str, int],
    pad_value: int,
    scale: Scale,
) -> Tokens:
    """Turn masked counts into tokens.

    Values are, by ``config.value_input``,

    - ``binned``: upstream's per-cell quantile bins of the log1p values, 1 to ``n_bins - 1``; where upstream draws
      a tied value at random between its lowest and highest bin, this takes the middle of the two, the mean of
      that draw, which need not be a whole number;
    - ``binned_random``: upstream's draw, from a generator seeded by the cell's id;
    - ``log1p``: log1p of counts per ten thousand, mapped linearly so that ``scale`` becomes 1 to ``n_bins - 1``, the
      range the value encoder was trained on. Without taking ``low`` off, all values would lie in the upper part of the
      range, where the encoder's layer norm leaves little to tell them apart.

    Parameters
    ----------
    counts
        CSR [n_cells, n_genes], masked.
    totals
        [n_cells], library sizes after the mask.
    token_ids
        int [n_genes], -1 for a gene without a token.
    cells
        Ids, which seed what is drawn.
    config
        ``value_input``, ``zero_genes``, ``max_tokens``. Of a cell with more genes than ``max_tokens``, so many are
        kept, drawn at random from a generator seeded by the cell's id: the same in any batch and order.
    n_bins, pad_value
        Of the checkpoint.
    vocabulary
        Token -> id, for the special ones.
    scale
        Of :func:`fit_scale`.
    """
    known = np.flatnonzero(token_ids >= 0)
    expression = log1p_cp10k(counts, totals)[:, known]
    expression.sort_indices()
    if config.value_input == "log1p":
        expression.data = 1 + (expression.data - scale.low) * ((n_bins - 2) / (scale.high - scale.low))
    else:
        expression.data = _binned(expression, n_bins, cells if config.value_input == "binned_random" else None)
    columns, values, offsets = expression.indices, expression.data, expression.indptr.astype(np.int64)
    if config.zero_genes:
        columns = np.tile(np.arange(len(known)), len(cells))
        values = expression.toarray().ravel()
        offsets = np.arange(len(cells) + 1, dtype=np.int64) * len(known)
    tokens = Tokens(
        ids=token_ids[known][columns].astype(np.int32),
        values=values.astype(np.float32),
        offsets=offsets,
        cls_id=vocabulary["<cls>"],
        pad_id=vocabulary["<pad>"],
        pad_value=pad_value,
    )
    return _limited(tokens, config.max_tokens, cells)


def _binned(expression: sp.csr_matrix, n_bins: int, cells: np.ndarray | None) -> np.ndarray:
    """Bin each cell's non-zero values by its own quantiles, as ``scgpt.preprocess.binning``."""
    result = np.empty(expression.nnz, dtype=np.float32)
    levels = np.linspace(0, 1, n_bins - 1)
    for row, (start, stop) in enumerate(zip(expression.indptr[:-1], expression.indptr[1:], strict=True)):
        values = expression.data[start:stop]
        if not len(values):
            continue
        edges = np.quantile(values, levels)
        left, right = np.digitize(values, edges), np.digitize(values, edges, right=True)
        if cells is None:
            result[start:stop] = np.where(left > right, (left + right + 1) / 2, left)
        else:
            draw = np.random.default_rng(_seed(cells[row])).random(len(values))
            result[start:stop] = np.ceil(draw * (right - left) + left)
    return result


def _limited(tokens: Tokens, most: int, cells: np.ndarray) -> Tokens:
    keep = np.ones(len(tokens.ids), dtype=bool)
    for row in np.flatnonzero(tokens.lengths > most):
        start, stop = tokens.offsets[row], tokens.offsets[row + 1]
        order = np.random.default_rng(_seed(cells[row])).permutation(stop - start)
        keep[start + order[most:]] = False
    kept = np.concatenate([[0], np.cumsum(keep)])
    return replace(tokens, ids=tokens.ids[keep], values=tokens.values[keep], offsets=kept[tokens.offsets])


def _seed(cell: str) -> int:
    return int.from_bytes(hashlib.sha256(str(cell).encode()).digest()[:8], "little")
