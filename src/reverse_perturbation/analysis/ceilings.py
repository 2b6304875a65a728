"""Ceilings: the cap that twins set, and how well one half of the screen retrieves the other.

docs/protocol.md says what each bounds and what it does not.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from reverse_perturbation.conditions import canonical
from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics.ranks.rank import rank_of_truth

LEAST = 4  # cells of a condition, so that either half has a variance


def twin_scores(labels: np.ndarray, conditions: np.ndarray, library: np.ndarray) -> np.ndarray:
    """Score like a model that knows the perturbation, cannot tell its twins apart, and prefers the more frequent one.

    Parameters
    ----------
    labels
        True condition of each query.
    conditions
        The candidates.
    library
        Condition of each cell of the library, which decides which twin is more frequent.

    Returns
    -------
    numpy.ndarray
        float64 [n, n_conditions]: a condition's share of the library's cells of its perturbation, 0 for the others.
    """
    names = np.array([canonical(name) for name in conditions], dtype=object)
    cells = np.array([np.count_nonzero(library == name) for name in conditions], dtype=np.float64)
    of_all = np.array([cells[names == name].sum() for name in names])
    share = np.divide(cells, of_all, out=np.zeros_like(cells), where=of_all > 0)
    truth = np.array([canonical(label) for label in labels], dtype=object)
    return np.where(truth[:, None] == names[None, :], share, 0.0)


def split_half(
    embedding: np.ndarray, labels: np.ndarray, sizes: Sequence[int], *, draws: int, seed: int
) -> pd.DataFrame:
    """Retrieve means of cells from one half of each condition by the cells of the other half.

    Each draw halves every condition's cells. Linear discriminant analysis with equal priors is fitted on one half;
    the other half's cells are divided into disjoint groups, whose means it ranks.

    Parameters
    ----------
    embedding
        float [n, d].
    labels
        Condition of each cell. One with fewer than four cells is left out, as a candidate too.
    sizes
        Numbers of cells averaged. A condition whose half has fewer is left out at that size.
    draws, seed
        Of the halving.

    Returns
    -------
    pandas.DataFrame
        One row a condition and number of cells: ``condition``, ``cells_per_query`` (a number, or ``half`` for all cells
        of the half), ``exact_hit@1``, ``mrr``, ``groups`` (over all draws).

    Raises
    ------
    InputError
        If fewer than two conditions are left.
    """
    names, counts = np.unique(np.asarray(labels).astype(str), return_counts=True)
    kept = np.isin(np.asarray(labels).astype(str), names[counts >= LEAST])
    embedding = embedding[kept]
    conditions, code = np.unique(np.asarray(labels)[kept].astype(str), return_inverse=True)
    if len(conditions) < 2:
        raise InputError(
            f"the split-half ceiling needs two conditions of {LEAST} reference and validation cells, found "
            f"{len(conditions)}; raise split.min_cells or data.simulated.n_cells"
        )
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(draws):
        order = rng.permutation(len(code))
        halves = [np.array_split(order[code[order] == i], 2) for i in range(len(conditions))]
        library = np.concatenate([half for _, half in halves])
        model = LinearDiscriminantAnalysis(
            solver="lsqr", shrinkage="auto", priors=np.full(len(conditions), 1 / len(conditions))
        ).fit(embedding[library], code[library])
        for size in [*sizes, None]:
            for i, (half, _) in enumerate(halves):
                groups = _groups(half, size or len(half))
                if not len(groups):
                    continue
                scores = _scores(model, embedding[groups].mean(axis=1))
                rank = rank_of_truth(scores, np.full(len(groups), i))
                records.append((conditions[i], str(size or "half"), np.sum(rank == 1), np.sum(1 / rank), len(groups)))
    rows = pd.DataFrame(records, columns=["condition", "cells_per_query", "exact_hit@1", "mrr", "groups"])
    total = rows.groupby(["condition", "cells_per_query"], sort=False).sum()
    for name in ("exact_hit@1", "mrr"):
        total[name] /= total["groups"]
    return total.reset_index()


def _groups(rows: np.ndarray, size: int) -> np.ndarray:
    """Divide rows into as many groups of a size as there are, int [n_groups, size]."""
    return rows[: len(rows) // size * size].reshape(-1, size)


def _scores(model: LinearDiscriminantAnalysis, queries: np.ndarray) -> np.ndarray:
    """Return float [n, n_conditions]; scikit-learn gives one column for two classes."""
    decision: np.ndarray = model.decision_function(queries)
    return np.column_stack([-decision, decision]) if decision.ndim == 1 else decision
