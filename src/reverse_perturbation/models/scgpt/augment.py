"""Training cells drawn anew in each epoch: mixed within their condition, thinned, with tokens left out."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from reverse_perturbation.config import Finetune
from reverse_perturbation.data.screen import Screen
from reverse_perturbation.models.scgpt.tokens import Tokens


def drawn_anew(
    screen: Screen, rows: np.ndarray, tokenize: Callable[[Screen], Tokens], config: Finetune
) -> Callable[[np.random.Generator], Tokens] | None:
    """Return what draws the tokens of made-up cells, one for each of ``rows``; None where nothing is asked for."""
    if not config.draws_cells:
        return None

    def draw(order: np.random.Generator) -> Tokens:
        tokens = tokenize(thin(mix(screen, rows, config.mixing, order), config.thinning, order))
        return tokens.only(order.random(len(tokens.ids)) >= config.token_dropout) if config.token_dropout else tokens

    return draw


def mix(screen: Screen, rows: np.ndarray, cells: int, order: np.random.Generator) -> Screen:
    """Return a screen of made-up cells, one for each row, in the order of the rows.

    Each takes the counts of its row and of ``cells - 1`` partners, drawn with replacement among the rows of the same
    condition, and keeps every molecule of the pool with probability ``1 / cells``. What the cells of a condition share
    stays, what is a single cell's own (its state, its sampling noise) is drawn anew, so there is less of it to learn by
    heart. The depth of a made-up cell is in expectation the mean depth of the cells it is made of.

    Parameters
    ----------
    screen
        Its counts are masked; no cell outside ``rows`` contributes.
    rows
        int [n], the training cells.
    cells
        How many are pooled, at least 1; 1 gives the cells themselves.
    order
        Decides all that is random.
    """
    counts, totals = screen.counts[rows], screen.totals[rows].astype(np.float64)
    if cells > 1:
        for partners in (_partners(screen.conditions[rows], order) for _ in range(cells - 1)):
            counts = counts + screen.counts[rows[partners]]
            totals += screen.totals[rows[partners]]
        counts.data = order.binomial(counts.data.astype(np.int64), 1 / cells).astype(np.float32)
        counts.eliminate_zeros()
    return replace(
        screen,
        cells=screen.cells[rows],
        conditions=screen.conditions[rows],
        parts=screen.parts[rows],
        counts=counts,
        totals=(totals / cells).astype(np.float32),
    )


def thin(screen: Screen, most: float, order: np.random.Generator) -> Screen:
    """Return the screen as if each of its cells had been sequenced less deeply.

    A cell keeps each of its molecules with a probability of its own, drawn uniformly from ``[1 - most, 1]``; the part
    of its library that is not among the screen's genes is thinned alike.

    Parameters
    ----------
    screen
        Not changed.
    most
        At least 0, which gives the screen itself, and below 1.
    order
        Decides all that is random.
    """
    if not most:
        return screen
    share = 1 - most * order.random(len(screen.cells))
    unseen = np.rint(screen.totals - _sums(screen.counts)).clip(min=0).astype(np.int64)
    counts = screen.counts.copy()
    kept = order.binomial(counts.data.astype(np.int64), np.repeat(share, np.diff(counts.indptr)))
    counts.data = kept.astype(np.float32)
    totals = _sums(counts) + order.binomial(unseen, share)
    counts.eliminate_zeros()
    return replace(screen, counts=counts, totals=totals.astype(np.float32))


def _sums(counts: sp.csr_matrix) -> np.ndarray:
    return np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()


def _partners(conditions: np.ndarray, order: np.random.Generator) -> np.ndarray:
    """Return for each cell the place of a cell of its condition."""
    _, code, size = np.unique(conditions.astype(str), return_inverse=True, return_counts=True)
    first = np.cumsum(size) - size
    drawn = first[code] + (order.random(len(code)) * size[code]).astype(np.int64)
    partners: np.ndarray = np.argsort(code, kind="stable")[drawn]
    return partners
