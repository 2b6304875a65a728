"""Queries made of several cells."""

import hashlib
from dataclasses import dataclass

import numpy as np

from reverse_perturbation.sections import Query


@dataclass(frozen=True)
class Pseudobulk:
    """Groups of query cells to be averaged.

    Attributes
    ----------
    groups
        int64 [n_draws, cells]: rows of the query cells; none twice in a draw.
    labels
        Object array [n_draws]: the condition of each draw.
    skipped
        Conditions with too few cells, and how many they have.
    """

    groups: np.ndarray
    labels: np.ndarray
    skipped: dict[str, int]


def pseudobulk(labels: np.ndarray, config: Query) -> Pseudobulk:
    """Draw ``config.draws`` groups of ``config.cells_per_query`` query cells from each condition, without repetition.

    Draws of one condition may share cells, the more so the fewer it has: they are not independent queries.
    What is averaged over a group is an embedding, or log-probabilities of a classifier in the space it was
    fitted in; for a linear model the latter ranks conditions as averaging its inputs does.

    Parameters
    ----------
    labels
        Condition of each query cell.
    config
        Section ``query``. A condition's draws depend on the seed, its name and its own cells alone.
    """
    labels = np.asarray(labels).astype(str)
    groups: list[np.ndarray] = []
    names: list[str] = []
    skipped: dict[str, int] = {}
    for name in np.unique(labels):
        rows = np.flatnonzero(labels == name)
        if len(rows) < config.cells_per_query:
            skipped[str(name)] = len(rows)
            continue
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        rng = np.random.default_rng([config.seed, key])
        groups += [rng.choice(rows, config.cells_per_query, replace=False) for _ in range(config.draws)]
        names += [str(name)] * config.draws
    return Pseudobulk(
        np.array(groups, dtype=np.int64).reshape(-1, config.cells_per_query), np.array(names, dtype=object), skipped
    )
