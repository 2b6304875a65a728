"""How well a model knows when it is right."""

import numpy as np
import pandas as pd

COVERAGES = np.linspace(0.05, 1.0, 20)


def margin(scores: np.ndarray) -> np.ndarray:
    """Return float [n]: the highest score of each query minus the second highest."""
    top = -np.partition(-scores, 1, axis=1)[:, :2]
    result: np.ndarray = top[:, 0] - top[:, 1]
    return result


def accuracy_at_coverages(scores: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Return float64 [20]: accuracy among the most confident 5 %, 10 %, ... 100 % of the queries.

    At least one query is answered at each coverage; queries of equal margin keep their order.
    """
    order = np.argsort(-margin(scores), kind="stable")
    running = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    answered = np.maximum(1, (COVERAGES * len(order)).astype(int))
    result: np.ndarray = running[answered - 1]
    return result


def confidence_auc(scores: np.ndarray, correct: np.ndarray) -> float:
    """Trapezoid under accuracy over coverage 0.05 to 1.0, as the earlier project defined it; at most 0.95."""
    return float(np.trapezoid(accuracy_at_coverages(scores, correct), COVERAGES))


def coverage_curve(scores: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Return columns coverage and accuracy, 20 rows."""
    return pd.DataFrame({"coverage": COVERAGES, "accuracy": accuracy_at_coverages(scores, correct)})
