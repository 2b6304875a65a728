"""Queries made of several cells."""

import hashlib
from dataclasses import dataclass

import numpy as np

from reverse_perturbation.config import Query


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
    """Draw ``config.draws`` groups of ``config.cells`` cells from each condition's query cells, without repetition.

    Parameters
    ----------
    labels
        Condition of each query cell.
    config
        Section ``query``. A condition's draws depend on the seed and its name alone.
    """
    groups, names, skipped = [], [], {}
    for name in np.unique(labels.astype(str)):
        rows = np.flatnonzero(labels == name)
        if len(rows) < config.cells:
            skipped[str(name)] = len(rows)
            continue
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        rng = np.random.default_rng([config.seed, key])
        for _ in range(config.draws):
            groups.append(rng.choice(rows, config.cells, replace=False))
            names.append(name)
    return Pseudobulk(
        np.array(groups, dtype=np.int64).reshape(-1, config.cells), np.array(names, dtype=object), skipped
    )
