"""The registry of metrics: what each means, its chance level, and where it is shown.

What fits use of the formulas is in ``ranks``: no fit depends on this file, so an entry added here retrains nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics.confidence import aurc, confidence_auc, roc_auc
from reverse_perturbation.metrics.ranks.per_query import (
    exact_hit,
    graded_ndcg,
    macro_hit,
    ndcg,
    reciprocal_rank,
    relevant_hit,
)
from reverse_perturbation.metrics.ranks.rank import truth_index
from reverse_perturbation.metrics.ranks.ranking import Ranking, any_of_first, discount, jaccard

# Where a metric is shown: tables of the report; comparison.json; its intervals (tested); verdict and ceilings
# (summary); libraries x queries (grid); tables with room for two, as of probes (brief); rows of single conditions.
Place = Literal["tables", "comparison", "tested", "summary", "grid", "brief", "conditions"]
OF_QUERIES = frozenset[Place](("tested", "grid", "brief", "conditions"))  # they need one value a query
# What is shown in the first is shown in the second, which the first is read with.
INCLUDES: dict[Place, Place] = {"tested": "comparison", "summary": "comparison", "brief": "grid"}


@dataclass(frozen=True, eq=False)
class Candidates:
    """Queries and conditions without scores: what the chance level of a metric depends on.

    Attributes
    ----------
    truth
        int64 [n]: the true column of each query.
    gain
        float64 [n_conditions, n_conditions]: Jaccard index of the conditions' genes.
    """

    truth: np.ndarray
    gain: np.ndarray

    @property
    def n(self) -> int:
        """Number of conditions."""
        return len(self.gain)


def exact_hit_chance(candidates: Candidates, k: int) -> float:
    """Return the chance level of exact_hit@k and of macro_hit@k."""
    return min(k, candidates.n) / candidates.n


def relevant_hit_chance(candidates: Candidates, k: int) -> float:
    """Return the chance level of relevant_hit@k."""
    sharing = (candidates.gain > 0).sum(axis=1)[candidates.truth]
    return float(any_of_first(sharing, candidates.n, min(k, candidates.n)).mean())


def reciprocal_rank_chance(candidates: Candidates, k: int | None = None) -> float:
    """Return the chance level of mrr, or of mrr@k."""
    return float((1 / np.arange(1, candidates.n + 1))[:k].sum() / candidates.n)


def ndcg_chance(candidates: Candidates, k: int) -> float:
    """Return the chance level of ndcg@k."""
    return float(discount(candidates.n, k).sum() / candidates.n)


def graded_ndcg_chance(candidates: Candidates, k: int) -> float:
    """Return the chance level of graded_ndcg@k."""
    gain, weights = candidates.gain, discount(candidates.n, k)
    best = -np.sort(-gain, axis=1) @ weights
    return float((gain.mean(axis=1) * weights.sum() / best)[candidates.truth].mean())


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes
    ----------
    direction
        Whether ``higher`` or ``lower`` values are better.
    values
        Gives one value a query, whose mean is the metric, or one value for all queries.
    chance
        Expected value for a model that scores at random, without ties.
    shown
        Places that show it, beside the metrics file of each model, which has every metric.
    """

    name: str
    direction: Literal["higher", "lower"]
    description: str
    values: Callable[[Ranking], np.ndarray | float]
    chance: Callable[[Candidates], float]
    shown: frozenset[Place] = frozenset()

    @property
    def heading(self) -> str:
        """The name, as tables have it."""
        return self.name if self.direction == "higher" else f"{self.name} (lower is better)"

    def measure(self, ranking: Ranking) -> np.ndarray | float:
        """Return float64 [n], or one value for all queries.

        Raises
        ------
        InputError
            If it is one value and the metric is shown in a place of :data:`OF_QUERIES`.
        """
        values = self.values(ranking)
        if np.ndim(values) != 1 and (places := self.shown & OF_QUERIES):
            raise InputError(
                f"metric {self.name}: gives one value for all queries, but is shown in "
                f"{', '.join(sorted(places))}, where each query needs one; leave these places out of its "
                "entry in metrics/registry.py"
            )
        return values


def _confidence(measure: Callable[[np.ndarray, np.ndarray], float], ranking: Ranking) -> float:
    return measure(ranking.scores, exact_hit(ranking, 1))


def _at(
    name: str,
    description: str,
    values: Callable[..., np.ndarray],
    chance: Callable[..., float],
    shown: Mapping[int, tuple[Place, ...]],
) -> list[Metric]:
    """Return the metric at several k, the keys of ``shown``."""
    return [
        Metric(
            f"{name}@{k}", "higher", description.format(k=k), partial(values, k=k), partial(chance, k=k), frozenset(at)
        )
        for k, at in shown.items()
    ]


EVERYWHERE: tuple[Place, ...] = ("tables", "comparison", "tested", "summary", "grid", "brief", "conditions")
METRICS: tuple[Metric, ...] = (
    *_at(
        "exact_hit",
        "the true condition is among the first {k}",
        exact_hit,
        exact_hit_chance,
        {1: EVERYWHERE, 5: ("tables", "comparison", "summary", "grid", "conditions"), 10: ("tables",)},
    ),
    *_at(
        "relevant_hit",
        "a condition sharing a gene is among the first {k}",
        relevant_hit,
        relevant_hit_chance,
        {1: ("tables", "comparison", "grid", "conditions"), 5: (), 10: ()},
    ),
    *_at(
        "macro_hit",
        "exact_hit@{k} within each condition, averaged over conditions",
        macro_hit,
        exact_hit_chance,
        {1: ("tables", "comparison", "summary", "grid"), 5: (), 10: ()},
    ),
    Metric(
        "mrr",
        "higher",
        "1 / rank of the truth, over the full ranking",
        reciprocal_rank,
        reciprocal_rank_chance,
        frozenset(EVERYWHERE),
    ),
    *_at(
        "mrr",
        "1 / rank of the truth, 0 beyond rank {k}",
        reciprocal_rank,
        reciprocal_rank_chance,
        {10: ("tables",)},
    ),
    *_at(
        "ndcg",
        "1 / log2(1 + rank of the truth), 0 beyond rank {k}",
        ndcg,
        ndcg_chance,
        {5: ("tables", "comparison", "tested", "summary", "grid"), 10: ()},
    ),
    *_at(
        "graded_ndcg",
        "discounted gain of the first {k}, gain = Jaccard of genes",
        graded_ndcg,
        graded_ndcg_chance,
        {5: ("tables", "conditions"), 10: ()},
    ),
    Metric(
        "confidence_auc",
        "higher",
        "area under accuracy over coverage 0.05 to 1, most confident first; at most 0.95",
        partial(_confidence, confidence_auc),
        lambda candidates: 0.95 / candidates.n,
        frozenset(("tables", "comparison")),
    ),
    Metric(
        "aurc",
        "lower",
        "area under the risk-coverage curve: error among the most confident i queries, averaged over i",
        partial(_confidence, aurc),
        lambda candidates: 1 - 1 / candidates.n,
    ),
    Metric(
        "confidence_roc_auc",
        "higher",
        "probability that a right answer is given with more confidence than a wrong one",
        partial(_confidence, roc_auc),
        lambda candidates: 0.5,
    ),
)
REGISTRY = {metric.name: metric for metric in METRICS}


def shown_in(place: Place) -> tuple[str, ...]:
    """Return the names of the metrics that a place shows, in the order of the registry."""
    places = {place} | {inner for inner, outer in INCLUDES.items() if outer == place}
    return tuple(metric.name for metric in METRICS if metric.shown & places)


def heading(name: str) -> str:
    """Return the name of a metric as tables have it, or of anything else as it is."""
    return REGISTRY[name].heading if name in REGISTRY else name


def compute(scores: np.ndarray, labels: np.ndarray, conditions: np.ndarray) -> dict[str, float]:
    """Compute every metric of :data:`METRICS`.

    Parameters
    ----------
    scores
        float [n_queries, n_conditions], higher is better, without NaN.
    labels
        True condition of each query.
    conditions
        The columns of ``scores``.

    Raises
    ------
    InputError
        If a label is not among the conditions, or a metric does not fit the places that show it.
    ValueError
        If a score is NaN or the shapes do not fit.
    """
    ranking = Ranking.of(scores, labels, conditions)
    return {metric.name: float(np.mean(metric.measure(ranking))) for metric in METRICS}


def per_query(name: str, scores: np.ndarray, labels: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    """Return float64 [n_queries]: the value of a metric for each query, whose mean is the metric.

    Raises
    ------
    KeyError
        If there is no such metric, or it is not a mean over queries.
    """
    values = REGISTRY[name].measure(Ranking.of(scores, labels, conditions))
    if not isinstance(values, np.ndarray):
        raise KeyError(f"{name} is not a mean over queries")
    return values


def hit_curve(scores: np.ndarray, labels: np.ndarray, conditions: np.ndarray, most: int = 20) -> pd.DataFrame:
    """Return exact and relevant hit@k for k up to ``most``: columns k, exact_hit, relevant_hit."""
    ranking = Ranking.of(scores, labels, conditions)
    ks = list(range(1, min(most, len(conditions)) + 1))
    return pd.DataFrame(
        {
            "k": ks,
            "exact_hit": [exact_hit(ranking, k).mean() for k in ks],
            "relevant_hit": [relevant_hit(ranking, k).mean() for k in ks],
        }
    )


def chance(labels: np.ndarray, conditions: np.ndarray) -> dict[str, float]:
    """Return the expected value of every metric for a model that scores at random, without ties.

    Parameters
    ----------
    labels
        True condition of each query.
    conditions
        The candidates.
    """
    candidates = Candidates(truth_index(labels, conditions), jaccard(conditions))
    return {metric.name: metric.chance(candidates) for metric in METRICS}
