"""Which cells a model may learn from, which it chooses by, and which it is judged on."""

import numpy as np
import pandas as pd

from reverse_perturbation.conditions import LabelSpace, in_space
from reverse_perturbation.errors import InputError

PARTS = ("reference", "validation", "query")


def split_cells(
    obs: pd.DataFrame,
    *,
    seed: int,
    label_space: LabelSpace,
    min_cells: int = 50,
    query_fraction: float = 0.2,
    min_query: int = 10,
    validation_fraction: float = 0.1,
) -> pd.DataFrame:
    """Divide the perturbed cells of each condition at random.

    The query cells are exactly those of the earlier project (algorithm in docs/protocol.md): conditions in
    the order of their first appearance, one generator for all, the last ``n_query`` of each condition's
    permuted cells. Its reference cells are ``reference`` and ``validation`` together. Cells are always
    assigned by their legacy label, so that the canonical space shares the assignment.

    Parameters
    ----------
    obs
        One row a cell, indexed by cell id, with ``condition`` (legacy labels). Control cells are those
        whose label names no gene.
    seed
        Of ``numpy.random.default_rng``.
    label_space
        In which the labels of the result are written.
    min_cells
        Legacy conditions with fewer cells are left out.
    query_fraction, min_query
        ``n_query = max(min_query, int(query_fraction * n))``.
    validation_fraction
        Share of a condition's remaining cells, rounded, at least one.

    Returns
    -------
    pandas.DataFrame
        Columns ``cell``, ``condition``, ``part``; in the order of ``obs``, without control cells and
        dropped conditions.

    Raises
    ------
    InputError
        If no condition has enough cells, or one has too few to leave a reference cell.
    """
    labels = obs["condition"].astype(str).to_numpy()
    codes, conditions = pd.factorize(labels)
    by_condition = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    rng = np.random.default_rng(seed)
    part = np.full(len(obs), "", dtype=object)
    for condition, rows in zip(conditions, by_condition, strict=True):
        if condition == "ctrl" or len(rows) < min_cells:
            continue
        order = rng.permutation(rows)
        n_query = max(min_query, int(query_fraction * len(rows)))
        n_validation = max(1, round(validation_fraction * (len(rows) - n_query)))
        if len(rows) - n_query - n_validation < 1:
            raise InputError(
                f"split: condition {condition!r} has {len(rows)} cells; {n_query} query and {n_validation} "
                "validation cells leave none for reference: raise split.min_cells or lower split.min_query"
            )
        part[order[: -n_query - n_validation]] = "reference"
        part[order[-n_query - n_validation : -n_query]] = "validation"
        part[order[-n_query:]] = "query"
    kept = part != ""
    if not kept.any():
        raise InputError(f"split: no condition has split.min_cells={min_cells} cells; lower it")
    return pd.DataFrame(
        {
            "cell": obs.index.to_numpy(dtype=object)[kept],
            "condition": in_space(labels[kept], label_space),
            "part": part[kept],
        }
    )
