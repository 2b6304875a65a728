"""The split: cells for fitting, for choices, and for evaluation."""

from typing import Literal

import numpy as np
import pandas as pd

from reverse_perturbation.conditions import CONTROL, LabelSpace, in_space
from reverse_perturbation.errors import InputError

PARTS = ("reference", "validation", "query")
SplitKind = Literal["cell", "gem_group"]


def split_cells(
    obs: pd.DataFrame,
    *,
    kind: SplitKind = "cell",
    seed: int,
    label_space: LabelSpace,
    min_cells: int = 50,
    query_fraction: float = 0.2,
    min_query: int = 10,
    validation_fraction: float = 0.1,
    known_fraction: float = 1.0,
) -> pd.DataFrame:
    """Divide the perturbed cells of each condition at random, or by the lane they were measured in.

    With ``cell`` the query cells are exactly those of the earlier project (algorithm in docs/protocol.md): conditions
    in the order of their first appearance, one generator for all, the last ``n_query`` of each condition's permuted
    cells. Its reference cells are ``reference`` and ``validation`` together. Cells are always assigned by their legacy
    label, so that the canonical space shares the assignment.

    With ``gem_group`` whole lanes are query: in random order as many as hold ``query_fraction`` of the perturbed cells,
    and never all. The other lanes' cells are divided into reference and validation at random, so what is chosen on
    validation is chosen on lanes that were seen. Conditions with fewer than ``min_query`` cells in the query lanes, or
    fewer than two in the others, are left out.

    Parameters
    ----------
    obs
        One row a cell, indexed by cell id, with ``condition`` (legacy labels), for ``gem_group`` with that column too.
        Control cells are those whose label names no gene.
    seed
        Of ``numpy.random.default_rng``.
    label_space
        In which the labels of the result are written.
    min_cells
        Legacy conditions with fewer cells are left out.
    query_fraction, min_query
        ``n_query = max(min_query, int(query_fraction * n))``; by lane as said above.
    validation_fraction
        Share of a condition's remaining cells, rounded, at least one.
    known_fraction
        Share of a condition's cells outside the query that is kept, rounded, at least two; the others are left out. The
        query cells are the same for any, and the cells of a smaller share are among those of a larger one.

    Returns
    -------
    pandas.DataFrame
        Columns ``cell``, ``condition``, ``part``; in the order of ``obs``, without control cells and
        dropped conditions.

    Raises
    ------
    InputError
        If no condition has enough cells, one has too few to leave a reference cell, or there are fewer than two lanes.
    """
    labels = obs["condition"].astype(str).to_numpy()
    codes, conditions = pd.factorize(labels)
    by_condition = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    rng = np.random.default_rng(seed)
    part = np.full(len(obs), "", dtype=object)
    in_query_lane = _in_query_lanes(obs, labels != CONTROL, query_fraction, rng) if kind == "gem_group" else None
    for condition, rows in zip(conditions, by_condition, strict=True):
        if condition == CONTROL or len(rows) < min_cells:
            continue
        order = rng.permutation(rows)
        if in_query_lane is None:
            n_query = max(min_query, int(query_fraction * len(rows)))
            known, query = order[:-n_query], order[-n_query:]
        else:
            known, query = order[~in_query_lane[order]], order[in_query_lane[order]]
            if len(known) < 2 or len(query) < min_query:
                continue
        if known_fraction < 1:
            known = known[-max(2, round(known_fraction * len(known))) :]
        n_validation = max(1, round(validation_fraction * len(known)))
        if len(known) - n_validation < 1:
            raise InputError(
                f"split: condition {condition!r} has {len(rows)} cells; {len(query)} query and {n_validation} "
                "validation cells leave none for reference: raise split.min_cells or lower split.min_query"
            )
        part[known[:-n_validation]] = "reference"
        part[known[-n_validation:]] = "validation"
        part[query] = "query"
    kept = part != ""
    if not kept.any():
        sizes = [len(rows) for name, rows in zip(conditions, by_condition, strict=True) if name != CONTROL]
        advice = "lower it" if kind == "cell" else "or too few on either side of the lanes; lower it or split.min_query"
        raise InputError(
            f"split: no condition has split.min_cells={min_cells} cells (the largest of {len(sizes):,} has "
            f"{max(sizes, default=0):,}), {advice}"
        )
    return pd.DataFrame(
        {
            "cell": obs.index.to_numpy(dtype=object)[kept],
            "condition": in_space(labels[kept], label_space),
            "part": part[kept],
        }
    )


def _in_query_lanes(obs: pd.DataFrame, perturbed: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Return for each cell whether its lane is one of those whose cells are queries."""
    if "gem_group" not in obs:
        raise InputError('split.kind is gem_group, but the cells have no obs["gem_group"]; set split.kind=cell')
    lanes = obs["gem_group"].astype(str).to_numpy()
    names, sizes = np.unique(lanes[perturbed], return_counts=True)
    if len(names) < 2:
        raise InputError(
            f"split.kind is gem_group, but there is one lane only ({', '.join(names)}); set split.kind=cell"
        )
    order = rng.permutation(len(names))
    enough = int(np.searchsorted(np.cumsum(sizes[order]), fraction * sizes.sum())) + 1
    return np.isin(lanes, names[order[: min(enough, len(names) - 1)]])
