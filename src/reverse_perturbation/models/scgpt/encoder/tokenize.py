"""Cells as input of scGPT: a token and a value for each expressed gene.

A cell's tokens depend on the cell alone: no random sampling of genes, and no random
ties, unless ``binned_random`` asks for upstream's, and then the draw is seeded by the cell's id.
"""

import hashlib
from collections.abc import Mapping
from functools import partial

import numpy as np
import scipy.sparse as sp

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.data.screen.normalize import log1p_cp10k
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.encoder.interface import Tokenizer
from reverse_perturbation.models.encoder.tokens import Tokens
from reverse_perturbation.models.scgpt.encoder.backbone import Architecture
from reverse_perturbation.sections import Scgpt

TABLE = 1 << 19  # entries of the table by which counts are sorted: as many cells are binned at once as fit


def gene_token_ids(screen: MaskedScreen, vocabulary: Mapping[str, int]) -> np.ndarray:
    """Return int64 [n_genes]: the token id of each gene in this vocabulary, -1 where it has none.

    Raises
    ------
    InputError
        If the vocabulary knows none of the genes.
    """
    ids = np.array([vocabulary.get(token, -1) if token else -1 for token in screen.tokens], dtype=np.int64)
    if (ids < 0).all():
        raise InputError("scgpt.checkpoint: its vocab.json has none of the genes; are the gene names symbols?")
    return ids


def make_tokenizer(
    screen: MaskedScreen, vocabulary: Mapping[str, int], architecture: Architecture, config: Scgpt
) -> Tokenizer:
    """Return what turns this screen, or one of cells resampled from it, into tokens.

    Raises
    ------
    InputError
        If the vocabulary knows none of the genes, or ``config`` asks for other values than the value encoder was
        trained on.
    """
    if (architecture.input_style == "log1p") != (config.value_input == "log1p"):
        raise InputError(
            f"scgpt.value_input is {config.value_input!r}, but the value encoder was trained on "
            f"{architecture.input_style} values (args.json: input_style); "
            f"set scgpt.value_input={architecture.input_style}"
        )
    return partial(
        _tokenize_screen,
        token_ids=gene_token_ids(screen, vocabulary),
        vocabulary=vocabulary,
        architecture=architecture,
        config=config,
    )


def _tokenize_screen(
    screen: MaskedScreen,
    *,
    token_ids: np.ndarray,
    vocabulary: Mapping[str, int],
    architecture: Architecture,
    config: Scgpt,
) -> Tokens:
    return tokenize(
        screen.counts,
        screen.totals,
        token_ids=token_ids,
        cell_ids=screen.cell_ids,
        config=config,
        n_bins=architecture.n_bins,
        vocabulary=vocabulary,
        pad_value=architecture.pad_value,
    )


def tokenize(
    counts: sp.csr_matrix,
    totals: np.ndarray,
    *,
    token_ids: np.ndarray,
    cell_ids: np.ndarray,
    config: Scgpt,
    n_bins: int,
    vocabulary: Mapping[str, int],
    pad_value: int,
) -> Tokens:
    """Turn masked counts into tokens.

    Values are, by ``config.value_input``,

    - ``binned``: upstream's per-cell quantile bins of the log1p values, 1 to ``n_bins - 1``; where upstream draws
      a tied value at random between its lowest and highest bin, this takes the middle of the two, the mean of
      that draw, which need not be a whole number;
    - ``binned_random``: upstream's draw, seeded by the cell's id;
    - ``log1p``: log1p of counts per ten thousand, which only a value encoder trained on them can read: one trained on
      bins ends in a layer norm that leaves little of the differences between values so small.

    Parameters
    ----------
    counts
        CSR [n_cells, n_genes], masked.
    totals
        [n_cells], depths after the mask.
    token_ids
        int [n_genes], -1 for a gene without a token.
    cell_ids
        Seeds of all random draws.
    config
        ``value_input``, ``zero_genes``, ``max_tokens``. Of a cell with more genes than ``max_tokens``, so many are
        kept, drawn at random from a generator seeded by the cell's id: the same in any batch and order.
    n_bins, pad_value
        Of the checkpoint.
    vocabulary
        Token -> id, for the special ones.
    """
    known = np.flatnonzero(token_ids >= 0)
    if len(known) < len(token_ids):
        counts = counts[:, known]
    expression = counts.sorted_indices()
    if config.value_input == "log1p":
        expression.data = log1p_cp10k(expression, totals).data
    else:
        expression.data = _binned(
            expression, totals, n_bins, cell_ids if config.value_input == "binned_random" else None
        )
    columns, values, offsets = expression.indices, expression.data, expression.indptr.astype(np.int64)
    if config.zero_genes:
        columns = np.tile(np.arange(len(known)), len(cell_ids))
        values = expression.toarray().ravel()
        offsets = np.arange(len(cell_ids) + 1, dtype=np.int64) * len(known)
    tokens = Tokens(
        ids=token_ids[known][columns].astype(np.int32),
        values=values.astype(np.float32),
        offsets=offsets,
        cls_id=vocabulary["<cls>"],
        pad_id=vocabulary["<pad>"],
        pad_value=pad_value,
    )
    return _limited(tokens, config.max_tokens, cell_ids)


def _binned(counts: sp.csr_matrix, totals: np.ndarray, n_bins: int, cell_ids: np.ndarray | None) -> np.ndarray:
    """Bin the log1p values of each cell's counts by their own quantiles, as ``scgpt.preprocess.binning``."""
    result = np.empty(counts.nnz, dtype=np.float32)
    rows = max(1, TABLE // (int(counts.data.max(initial=0)) + 1))
    for first in range(0, counts.shape[0], rows):
        block = slice(first, first + rows)
        cut = counts[block]
        part = slice(counts.indptr[first], counts.indptr[first] + cut.nnz)
        low, high, run = _bin_ranges(cut, totals[block], n_bins)
        if cell_ids is None:
            result[part] = np.where(high > low, (low + high + 1) / 2, high)[run]
        else:
            draw = _draws(cell_ids[block], np.diff(cut.indptr))
            result[part] = np.ceil(draw * (low - high)[run] + high[run])
    return result


def _bin_ranges(counts: sp.csr_matrix, totals: np.ndarray, n_bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each run of equal counts in a cell, how many edges lie below it, and how many at or below it.

    The edges of a cell are the quantiles of its values, so every edge is, or lies between, two neighbours among its
    sorted values. Counting edges is then counting places in the sorted values. As the values follow the counts, and
    these are small whole numbers, a table of how often a cell has each count sorts them.

    Returns
    -------
    low, high
        int64 [n_runs].
    run
        int64 [n_values], the run of each value.
    """
    lengths = np.diff(counts.indptr)
    width = int(counts.data.max(initial=0)) + 1
    codes = np.repeat(np.arange(len(lengths)) * width, lengths) + counts.data.astype(np.int64)
    table = np.bincount(codes, minlength=len(lengths) * width)
    occurring = np.flatnonzero(table > 0)  # of booleans, which numpy searches several times faster than numbers
    size = table[occurring]
    table[occurring] = np.arange(len(occurring))
    cell, count = np.divmod(occurring, width)
    first_run = np.searchsorted(cell, np.arange(len(lengths) + 1))
    runs = sp.csr_matrix((count.astype(np.float32), count, first_run), shape=(len(lengths), width))
    below, reached = _edges(np.repeat(log1p_cp10k(runs, totals).data, size), lengths[lengths > 0], n_bins)
    last = np.cumsum(size) - 1
    others = (cell - np.cumsum(lengths == 0)[cell]) * (n_bins - 1)  # edges of the cells before; an empty cell has none
    low = np.searchsorted(below, last - size + 1, side="left") - others
    high = np.searchsorted(reached, last, side="right") - others
    return low, high, table[codes]


def _edges(ordered: np.ndarray, lengths: np.ndarray, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of the value at or below each edge, and of that at or above it, among ``ordered`` values.

    The arithmetic is that of ``numpy.quantile``: where an edge is meant to meet a value, rounding can put it beside,
    and the same bins as upstream's follow only from the same rounding.
    """
    start = (np.cumsum(lengths) - lengths)[:, None]
    place = (lengths[:, None] - 1) * np.linspace(0, 1, n_bins - 1)
    floor = np.floor(place).astype(np.int64)
    weight = place - floor
    floor += start
    ceiling = np.minimum(floor + 1, start + lengths[:, None] - 1)
    left, right = ordered[floor], ordered[ceiling]
    edge = np.where(weight < 0.5, left + (right - left) * weight, right - (right - left) * (1 - weight))
    return np.where(edge == right, ceiling, floor).ravel(), np.where(edge == left, floor, ceiling).ravel()


def _draws(cell_ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return random numbers from 0 to below 1, ``lengths`` of them for each cell, end to end, seeded by its id.

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): one of numpy's generators for each cell takes longer to set up than
    the bins take.
    """
    place = np.arange(1, lengths.sum() + 1) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    seeds = np.fromiter(map(_seed, cell_ids), np.uint64, len(cell_ids))
    state = np.repeat(seeds, lengths) + place.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> 30)) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> 27)) * np.uint64(0x94D049BB133111EB)
    return ((state ^ (state >> 31)) >> 11) * 2.0**-53


def _limited(tokens: Tokens, most: int, cell_ids: np.ndarray) -> Tokens:
    rows = np.flatnonzero(tokens.lengths > most)
    if not len(rows):
        return tokens
    keep = np.ones(len(tokens.ids), dtype=bool)
    for row in rows:
        start, stop = tokens.offsets[row], tokens.offsets[row + 1]
        order = np.random.default_rng(_seed(cell_ids[row])).permutation(stop - start)
        keep[start + order[most:]] = False
    return tokens.only(keep)


def _seed(cell_id: str) -> int:
    return int.from_bytes(hashlib.sha256(str(cell_id).encode()).digest()[:8], "little")
