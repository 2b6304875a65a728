"""Folds of the known cells, on which models are chosen."""

import numpy as np


def folds(labels: np.ndarray, n: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Divide cells at random into folds, each condition as evenly as its number of cells allows.

    scikit-learn's StratifiedKFold refuses conditions with fewer cells than folds and may leave one without a training
    cell; here every condition has training cells in every fold, so all models score the same conditions.

    Parameters
    ----------
    labels
        Conditions, object array [n_cells].
    n
        Number of folds, at least 2.
    seed
        Of the division.

    Returns
    -------
    list
        For each fold the positions of its training cells and of the cells held out, which are each held out once; the
        cell of a condition with only one is never held out.
    """
    rng = np.random.default_rng(seed)
    fold = np.full(len(labels), -1)
    for condition in np.unique(labels.astype(str)):
        cells = rng.permutation(np.flatnonzero(labels == condition))
        if len(cells) > 1:
            fold[cells] = (np.arange(len(cells)) + rng.integers(n)) % n
    return [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(n) if (fold == i).any()]
