"""Training cells drawn anew: counts of several cells of one condition, pooled and thinned to one cell's depth."""

from dataclasses import replace

import numpy as np

from reverse_perturbation.data.screen import Screen


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


def _partners(conditions: np.ndarray, order: np.random.Generator) -> np.ndarray:
    """Return for each cell the place of a cell of its condition."""
    _, code, size = np.unique(conditions.astype(str), return_inverse=True, return_counts=True)
    first = np.cumsum(size) - size
    drawn = first[code] + (order.random(len(code)) * size[code]).astype(np.int64)
    partners: np.ndarray = np.argsort(code, kind="stable")[drawn]
    return partners
