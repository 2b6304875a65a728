"""Calibration of a model's probabilities: one temperature, fitted on validation, and what it improves."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from reverse_perturbation.metrics import registry
from reverse_perturbation.metrics.confidence import aurc, certainty, confidence_auc, margin, roc_auc
from reverse_perturbation.metrics.ranks.rank import truth_index
from reverse_perturbation.retrieval.evaluate import Scores
from reverse_perturbation.sections import Analysis

LOG_TEMPERATURES = (
    np.log(1e-4),
    np.log(1e4),
)  # cosine similarities need about 0.01, overconfident classifiers up to 10


def logits(scores: np.ndarray, ranking: str) -> np.ndarray:
    """Return float64 [n, n_conditions] to divide by a temperature: log probabilities, or similarities as they are.

    Parameters
    ----------
    scores
        float [n, n_conditions]: probabilities where ``ranking`` is ``classifier``, else similarities.
    """
    scores = np.asarray(scores, dtype=np.float64)
    return np.log(np.maximum(scores, np.finfo(np.float64).tiny)) if ranking == "classifier" else scores


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature under which the true conditions are most likely (Guo et al. 2017, arXiv:1706.04599).

    Parameters
    ----------
    logits
        float [n, n_conditions] of cells the model was not fitted on.
    truth
        int [n]: the true column.
    """

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(logits / np.exp(log_temperature), truth)

    # Convex in 1 / temperature, so there is one minimum.
    return float(np.exp(minimize_scalar(loss, bounds=LOG_TEMPERATURES, method="bounded").x))


def negative_log_likelihood(logits: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean cross-entropy, in nats."""
    return float(-np.take_along_axis(log_softmax(logits, axis=1), truth[:, None], axis=1).mean())


def reliability(logits: np.ndarray, correct: np.ndarray, bins: int) -> pd.DataFrame:
    """Compare the probability of the first-ranked condition with how often it is right.

    Parameters
    ----------
    logits
        float [n, n_conditions].
    correct
        float [n]: exact_hit@1 of each query, a share where scores tie.
    bins
        Of equal width from 0 to 1, each without its lower end.

    Returns
    -------
    pandas.DataFrame
        One row a bin that has queries: ``bin`` (from 0), ``confidence`` and ``accuracy`` (means), ``queries``.
    """
    confidence = softmax(logits, axis=1).max(axis=1)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    rows = pd.DataFrame({"bin": place, "confidence": confidence, "accuracy": np.asarray(correct, dtype=np.float64)})
    by_bin = rows.groupby("bin").agg(
        confidence=("confidence", "mean"), accuracy=("accuracy", "mean"), queries=("bin", "size")
    )
    return by_bin.reset_index()


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Return the mean of ``|accuracy - confidence|`` over the bins of :func:`reliability`, weighted by their queries.

    Naeini et al. 2015 (doi:10.1609/aaai.v29i1.9602). It cannot be below 0, so with few queries it is biased upwards.
    """
    gap = (table["accuracy"] - table["confidence"]).abs()
    return float((gap * table["queries"]).sum() / table["queries"].sum())


def error_if_calibrated(logits: np.ndarray, bins: int, draws: int, seed: int) -> float:
    """Return the calibration error expected of this many queries when every probability is right.

    Sampling makes it larger than 0: smaller errors cannot be told from zero.
    """
    rng = np.random.default_rng(seed)
    confidence = softmax(logits, axis=1).max(axis=1)
    drawn = [rng.random(len(confidence)) < confidence for _ in range(draws)]
    return float(np.mean([expected_calibration_error(reliability(logits, right, bins)) for right in drawn]))


def tables(scores: Scores, validation: Scores, ranking: str, config: Analysis) -> dict[str, pd.DataFrame]:
    """Fit the temperature on validation and evaluate confidence on the queries.

    Returns
    -------
    dict
        ``confidence``: one row a measure; ``calibration``: one row; ``reliability``: one row a bin, before and after.
    """
    correct = registry.per_query("exact_hit@1", scores.scores, scores.labels, scores.conditions)
    temperature = fit_temperature(
        logits(validation.scores, ranking), truth_index(validation.labels, validation.conditions)
    )
    raw = logits(scores.scores, ranking)
    truth = truth_index(scores.labels, scores.conditions)
    bins = {}
    row: dict[str, Any] = {"ranking": ranking, "temperature": temperature}
    for when, divisor in (("before", 1.0), ("after", temperature)):
        bins[when] = reliability(raw / divisor, correct, config.bins).assign(when=when)
        row[f"ece_{when}"] = expected_calibration_error(bins[when])
        row[f"nll_{when}"] = negative_log_likelihood(raw / divisor, truth)
    row["ece_if_calibrated"] = error_if_calibrated(raw / temperature, config.bins, config.draws, config.seed)
    confidences = {"margin": margin(scores.scores), "entropy": certainty(softmax(raw / temperature, axis=1))}
    return {
        "confidence": measures(scores, confidences),
        "calibration": pd.DataFrame([row]),
        "reliability": pd.concat(bins.values(), ignore_index=True),
    }


def measures(scores: Scores, confidences: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Evaluate measures of confidence, name -> float [n], higher is more confident.

    Returns
    -------
    pandas.DataFrame
        One row a measure: ``measure``, ``confidence_auc``, ``aurc``, ``confidence_roc_auc``.
    """
    correct = registry.per_query("exact_hit@1", scores.scores, scores.labels, scores.conditions)
    return pd.DataFrame(
        {
            "measure": name,
            "confidence_auc": confidence_auc(scores.scores, correct, values),
            "aurc": aurc(scores.scores, correct, values),
            "confidence_roc_auc": roc_auc(scores.scores, correct, values),
        }
        for name, values in confidences.items()
    )
