"""Synthetic cells made of a screen's own: mixed within their condition, thinned."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from reverse_perturbation.data.screen.masked_screen import MaskedScreen


def mix(screen: MaskedScreen, rows: np.ndarray, n_cells: int, rng: np.random.Generator) -> MaskedScreen:
    """Return a screen of synthetic cells, one for each row, in the order of the rows.

    Each takes the counts of its row and of ``n_cells - 1`` partners, drawn with replacement among the rows of the same
    condition, and keeps every molecule of the pool with probability ``1 / n_cells``. Signal shared by the cells of a
    condition stays; state and sampling noise of a single cell are resampled, so there is less of them to memorise. The
    expected depth of a synthetic cell is the mean depth of the cells it is made of.

    Parameters
    ----------
    screen
        Its counts are masked; no cell outside ``rows`` contributes.
    rows
        int [n], the training cells.
    n_cells
        Number of cells pooled, at least 1; 1 gives the cells themselves.
    rng
        Source of all randomness.
    """
    counts, totals = screen.counts[rows], screen.totals[rows].astype(np.float64)
    if n_cells > 1:
        for partners in (_partners(screen.conditions[rows], rng) for _ in range(n_cells - 1)):
            counts = counts + screen.counts[rows[partners]]
            totals += screen.totals[rows[partners]]
        counts.data = rng.binomial(counts.data.astype(np.int64), 1 / n_cells).astype(np.float32)
        counts.eliminate_zeros()
    return replace(
        screen,
        cell_ids=screen.cell_ids[rows],
        conditions=screen.conditions[rows],
        parts=screen.parts[rows],
        counts=counts,
        totals=(totals / n_cells).astype(np.float32),
    )


def thin(screen: MaskedScreen, most: float, rng: np.random.Generator) -> MaskedScreen:
    """Return the screen as if each of its cells had been sequenced less deeply.

    A cell keeps each of its molecules with a probability of its own, drawn uniformly from ``[1 - most, 1]``; the part
    of its library that is not among the screen's genes is thinned alike.

    Parameters
    ----------
    screen
        Not changed.
    most
        At least 0, which gives the screen itself, and below 1.
    rng
        Source of all randomness.
    """
    if not most:
        return screen
    share = 1 - most * rng.random(len(screen.cell_ids))
    unseen = np.rint(screen.totals - _sums(screen.counts)).clip(min=0).astype(np.int64)
    counts = screen.counts.copy()
    kept = rng.binomial(counts.data.astype(np.int64), np.repeat(share, np.diff(counts.indptr)))
    counts.data = kept.astype(np.float32)
    totals = _sums(counts) + rng.binomial(unseen, share)
    counts.eliminate_zeros()
    return replace(screen, counts=counts, totals=totals.astype(np.float32))


def _sums(counts: sp.csr_matrix) -> np.ndarray:
    return np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()


def _partners(conditions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each cell the index of a random cell of its condition."""
    _, code, size = np.unique(conditions.astype(str), return_inverse=True, return_counts=True)
    first = np.cumsum(size) - size
    drawn = first[code] + (rng.random(len(code)) * size[code]).astype(np.int64)
    partners: np.ndarray = np.argsort(code, kind="stable")[drawn]
    return partners
