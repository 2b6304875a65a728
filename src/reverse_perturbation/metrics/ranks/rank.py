"""Ranks, and the step from one label space to the other."""

from collections.abc import Mapping

import numpy as np
from scipy.special import logsumexp

from reverse_perturbation.conditions import LabelSpace, canonical
from reverse_perturbation.errors import InputError


def truth_index(labels: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    """Return int64 [n]: the column of each query's true condition.

    Raises
    ------
    InputError
        If a label is not among the candidates: such a query would distort every mean.
    """
    place = {condition: i for i, condition in enumerate(conditions)}
    missing = sorted({str(label) for label in labels if label not in place})
    if missing:
        raise InputError(
            f"queries are labelled {', '.join(missing[:5])} ({len(missing)} labels), which are not among the "
            "conditions of the reference; leave these cells out or add reference cells"
        )
    return np.array([place[label] for label in labels], dtype=np.int64)


def ahead_and_tied(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count, for each query, the conditions scored above the truth and the others scored equal to it.

    Raises
    ------
    ValueError
        If a score is NaN: it has no rank.
    """
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN; a condition without a score has no rank")
    of_truth = np.take_along_axis(scores, truth[:, None], axis=1)
    return (scores > of_truth).sum(axis=1), (scores == of_truth).sum(axis=1) - 1


def rank_of_truth(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return float64 [n]: the rank of the true condition, 1 the best; ties share the mean of their ranks.

    Parameters
    ----------
    scores
        float [n, n_conditions], higher is better.
    truth
        int [n], the true column.
    """
    ahead, tied = ahead_and_tied(scores, truth)
    return 1.0 + ahead + tied / 2


def translate(
    log_proba: np.ndarray, conditions: np.ndarray, cells: Mapping[str, int], to: LabelSpace
) -> tuple[np.ndarray, np.ndarray]:
    """Carry class log-probabilities from one label space to the other.

    To canonical, the probabilities of twins are added. To legacy, a canonical probability is divided among
    its twins by their shares of cells, as they are one perturbation.

    Parameters
    ----------
    log_proba
        float [n, n_conditions] in the other space.
    conditions
        Its columns.
    cells
        Legacy label -> number of reference cells, at least 1.
    to
        The target space.

    Returns
    -------
    log_proba, conditions
        float32 [n, n_new] and object array [n_new], sorted.

    Raises
    ------
    InputError
        To legacy: if a condition is not the canonical name of a label in ``cells``.
    """
    columns: dict[str, np.ndarray] = {}
    if to == "canonical":
        names = np.array([canonical(condition) for condition in conditions], dtype=object)
        for name in set(names):
            columns[name] = logsumexp(log_proba[:, names == name], axis=1)
    else:
        twins: dict[str, list[str]] = {}
        for label in cells:
            twins.setdefault(canonical(label), []).append(label)
        for i, condition in enumerate(conditions):
            if condition not in twins:
                raise InputError(f"condition {condition!r} has no legacy label among the reference cells")
            total = sum(cells[label] for label in twins[condition])
            for label in twins[condition]:
                columns[label] = log_proba[:, i] + np.log(cells[label] / total)
    ordered = sorted(columns)
    translated = np.column_stack([columns[name] for name in ordered]).astype(np.float32)
    return translated, np.array(ordered, dtype=object)
