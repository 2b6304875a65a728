"""Predictions of several models in one: averaged over training seeds, or in a sum whose weights are fitted."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from reverse_perturbation.errors import InputError
from reverse_perturbation.retrieval.predictions import Predictions


def average(members: Sequence[Predictions]) -> Predictions:
    """Return the mean of the members' log-probabilities, made probabilities again.

    That is the geometric mean of the probabilities. Without a classifier the members' embeddings are joined end to end.

    Raises
    ------
    InputError
        If the members are not of the same cells and conditions.
    """
    if any(member.log_proba is None for member in members):
        first = _checked(members)
        embedding = np.concatenate([member.embedding for member in members if member.embedding is not None], axis=1)
        means = [member.control_mean for member in members if member.control_mean is not None]
        control_mean = np.concatenate(means) if len(means) == len(members) else None
        return Predictions(first.cell_ids, None, None, embedding, first.screen_sha256, control_mean)
    return weighted(members, np.full(len(members), 1 / len(members)))


def weighted(members: Sequence[Predictions], weights: np.ndarray) -> Predictions:
    """Return a weighted sum of the members' log-probabilities, made probabilities again; without an embedding.

    Raises
    ------
    InputError
        If the members are not of the same cells and conditions.
    """
    first = _checked(members)
    conditions = np.sort(np.asarray(first.conditions).astype(str))
    total = np.zeros((len(first.cell_ids), len(conditions)))
    for member, weight in zip(members, weights, strict=True):
        total += weight * in_order(member, conditions)
    return Predictions(first.cell_ids, log_softmax(total, axis=1), conditions.astype(object), None, first.screen_sha256)


def fit_weights(members: Mapping[str, Predictions], labels: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """Fit the weights of a sum of log-probabilities on cells that no member was fitted on.

    The weights are at least 0 and minimise the cross-entropy of the sum (stacking, Wolpert, Neural Networks 1992;
    non-negative as in Breiman, Machine Learning 1996). They need not add up to 1: their sum is an inverse temperature.

    Parameters
    ----------
    members
        With class probabilities.
    labels
        Object array [n_cells]: the true condition of every cell.
    rows
        int [n]: the cells to fit on.

    Returns
    -------
    dict
        Member -> its weight.

    Raises
    ------
    InputError
        If the members are not of the same cells and conditions, or there is no cell to fit on.
    """
    if not len(rows):
        raise InputError("combine: no validation cell to fit weights on; raise split.validation_fraction")
    first = _checked(list(members.values()))
    conditions = np.sort(np.asarray(first.conditions).astype(str))
    parts = np.stack([in_order(member, conditions)[rows] for member in members.values()])
    truth = np.searchsorted(conditions, labels[rows].astype(str))
    cells = np.arange(len(rows))
    of_truth = parts[:, cells, truth].mean(axis=1)

    def cross_entropy(weights: np.ndarray) -> tuple[float, np.ndarray]:
        log_proba = log_softmax(np.tensordot(weights, parts, axes=1), axis=1)
        expected = np.einsum("nk,mnk->m", np.exp(log_proba), parts) / len(rows)
        return -float(log_proba[cells, truth].mean()), expected - of_truth

    start = np.full(len(parts), 1 / len(parts))
    found = minimize(cross_entropy, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(parts))
    return dict(zip(members, found.x.tolist(), strict=True))


def in_order(predictions: Predictions, conditions: np.ndarray) -> np.ndarray:
    """Return float64 [n_cells, n_conditions], log-probabilities in the order of sorted ``conditions``."""
    assert predictions.log_proba is not None
    return predictions.log_proba[:, np.argsort(np.asarray(predictions.conditions).astype(str))].astype(np.float64)


def _checked(members: Sequence[Predictions]) -> Predictions:
    """Return the first member, after checking that all are of the same cells, screen and conditions."""
    first = members[0]
    for member in members[1:]:
        for part in ("cell_ids", "screen_sha256", "conditions"):
            ours, theirs = (getattr(each, part) for each in (first, member))
            if part == "conditions" and ours is not None and theirs is not None:
                ours, theirs = sorted(ours), sorted(theirs)
            if not np.array_equal(ours, theirs):
                raise InputError(f"combine: predictions of several models differ in {part}; run `dvc repro`")
    return first
