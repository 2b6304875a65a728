"""Which cells make a batch."""

import numpy as np

# Batches whose cells are sorted by length together: halves the time of a step on the simulated screen, where a batch
# of random cells is a third padding, and leaves what a cell meets in its batch all but random.
GROUPED = 16


def random_batches(
    rows: np.ndarray, lengths: np.ndarray, batch_size: int, order: np.random.Generator
) -> list[np.ndarray]:
    """Deal all rows into batches of cells of like length, in random order.

    Parameters
    ----------
    rows
        int [n], which cells.
    lengths
        int [n_cells], tokens of every cell.
    batch_size
        Cells a batch; the last one may be smaller.
    order
        Decides all that is random.

    Returns
    -------
    list of numpy.ndarray
        Each row in exactly one batch.
    """
    shuffled = order.permutation(rows)
    step = batch_size * GROUPED
    batches = []
    for start in range(0, len(shuffled), step):
        group = shuffled[start : start + step]
        group = group[np.argsort(lengths[group], kind="stable")]
        batches += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
    return [batches[i] for i in order.permutation(len(batches))]
