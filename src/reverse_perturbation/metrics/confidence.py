"""Confidence: how well it separates right from wrong predictions.

By default confidence is the margin, the highest score of a query minus the second highest. Scores
are used as they are: probabilities and their logarithms rank conditions alike but order queries differently. Where
several queries are equally confident, each counts as the mean of the group, so that
nothing here depends on the order of the queries.
"""

import numpy as np
import pandas as pd
from scipy.special import entr
from sklearn.metrics import roc_auc_score

COVERAGES = np.linspace(0.05, 1.0, 20)


def margin(scores: np.ndarray) -> np.ndarray:
    """Return float [n]: the highest score of each query minus the second highest.

    Parameters
    ----------
    scores
        float [n, n_conditions], higher is better.

    Raises
    ------
    ValueError
        If there is one condition only.
    """
    if scores.shape[1] < 2:
        raise ValueError("a margin needs at least two conditions")
    top = -np.partition(-scores, 1, axis=1)[:, :2]
    result: np.ndarray = top[:, 0] - top[:, 1]
    return result


def certainty(probabilities: np.ndarray) -> np.ndarray:
    """Return float [n]: the entropy of each query's probabilities, in nats, negated: 0 is certain.

    Parameters
    ----------
    probabilities
        float [n, n_conditions], rows that add up to 1.
    """
    result: np.ndarray = -entr(probabilities).sum(axis=1)
    return result


def accuracy_at_coverages(scores: np.ndarray, correct: np.ndarray, confidence: np.ndarray | None = None) -> np.ndarray:
    """Return float64 [20]: accuracy among the most confident 5 %, 10 %, ... 100 % of the queries.

    Parameters
    ----------
    scores
        float [n, n_conditions].
    correct
        float [n]: exact_hit@1 of each query, a share where scores tie.
    confidence
        float [n], higher is more confident; default: the margin.

    Notes
    -----
    ``max(1, int(coverage * n))`` queries are covered, as in the earlier project; rounding errors in the coverages
    included, so of 40 queries 19 are covered at 0.5.
    """
    running = _running_accuracy(scores, correct, confidence)
    answered = np.maximum(1, (COVERAGES * len(running)).astype(int))
    result: np.ndarray = running[answered - 1]
    return result


def confidence_auc(scores: np.ndarray, correct: np.ndarray, confidence: np.ndarray | None = None) -> float:
    """Return the trapezoid under accuracy over coverage 0.05 to 1.0; at most 0.95 (the earlier project's)."""
    return float(np.trapezoid(accuracy_at_coverages(scores, correct, confidence), COVERAGES))


def coverage_curve(scores: np.ndarray, correct: np.ndarray, confidence: np.ndarray | None = None) -> pd.DataFrame:
    """Return columns coverage and accuracy, 20 rows."""
    return pd.DataFrame({"coverage": COVERAGES, "accuracy": accuracy_at_coverages(scores, correct, confidence)})


def aurc(scores: np.ndarray, correct: np.ndarray, confidence: np.ndarray | None = None) -> float:
    """Return the error among the most confident i queries, averaged over i = 1 ... n; lower is better.

    The area under the risk-coverage curve (Geifman and El-Yaniv 2017, doi:10.48550/arXiv.1705.08500).
    """
    return float(1 - _running_accuracy(scores, correct, confidence).mean())


def roc_auc(scores: np.ndarray, correct: np.ndarray, confidence: np.ndarray | None = None) -> float:
    """Return the probability that a right prediction has a larger margin than a wrong one; ties count half.

    A query whose best scores tie counts as right by its share and as wrong by the rest. Where all predictions are
    right, or all are wrong, there is no pair to order and the value is that of chance, 0.5.
    """
    correct = np.asarray(correct, dtype=np.float64)
    if correct.sum() in (0, len(correct)):
        return 0.5
    ordered_by = margin(scores) if confidence is None else confidence
    outcome = np.repeat([1, 0], len(correct))
    weight = np.concatenate([correct, 1 - correct])
    return float(roc_auc_score(outcome, np.tile(ordered_by, 2), sample_weight=weight))


def _running_accuracy(scores: np.ndarray, correct: np.ndarray, confidence: np.ndarray | None = None) -> np.ndarray:
    """Accuracy among the i most confident queries, for i = 1 ... n."""
    if len(scores) != len(correct):
        raise ValueError(f"{len(scores)} queries have scores and {len(correct)} an outcome")
    ordered_by = margin(scores) if confidence is None else confidence
    _, group, size = np.unique(-ordered_by, return_inverse=True, return_counts=True)
    expected = np.repeat(np.bincount(group, weights=correct) / size, size)
    result: np.ndarray = np.cumsum(expected) / np.arange(1, len(expected) + 1)
    return result
