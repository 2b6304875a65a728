"""How good a ranking is: the registry of metrics and the one function that computes them.

Ties. Let ``a`` conditions score above the truth and ``t`` others equal to it.

- ``exact_hit@k`` is the share of the orders of the tied conditions that put the truth among the first k, so a
  model that scores all n conditions alike gets k/n, which is chance, not 1. ``relevant_hit@k`` and
  ``graded_ndcg@k`` are expectations over these orders too.
- ``mrr``, ``mrr@10`` and ``ndcg@k`` take the mean rank ``1 + a + t/2`` as the rank. Since 1/rank is convex,
  ties never gain in ``mrr``: with all n conditions alike it is 2/(n + 1), below chance. Where a metric is cut
  at k, the mean rank is within k or it is not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import gammaln

from reverse_perturbation.conditions import genes_of
from reverse_perturbation.retrieval.confidence import aurc, confidence_auc, roc_auc
from reverse_perturbation.retrieval.rank import ahead_and_tied, truth_index

BLOCK = 2048  # queries sorted at once for graded_ndcg: with 282 conditions some 30 MB


@dataclass(frozen=True, eq=False)
class Ranking:
    """Scored queries, with what several metrics need of them computed once.

    Attributes
    ----------
    scores
        float [n, n_conditions], higher is better, without NaN.
    truth
        int64 [n]: the true column.
    gain
        float64 [n_conditions, n_conditions]: Jaccard index of the conditions' genes.
    """

    scores: np.ndarray
    truth: np.ndarray
    gain: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, labels: np.ndarray, conditions: np.ndarray) -> "Ranking":
        """Check scores and labels against the conditions.

        Raises
        ------
        InputError
            If a label is not among the conditions.
        ValueError
            If there are no queries, or the scores do not have a row a label and a column a condition.
        """
        if not len(labels) or scores.shape != (len(labels), len(conditions)):
            expected = (len(labels), len(conditions))
            raise ValueError(f"scores are {scores.shape}, expected (queries, conditions) = {expected}")
        return cls(scores, truth_index(labels, conditions), jaccard(conditions))

    @cached_property
    def standing(self) -> tuple[np.ndarray, np.ndarray]:
        """How many conditions are ahead of the truth, and how many others tie with it."""
        return ahead_and_tied(self.scores, self.truth)

    @cached_property
    def rank(self) -> np.ndarray:
        """The mean rank of the truth, 1 the best."""
        ahead, tied = self.standing
        return 1.0 + ahead + tied / 2

    @cached_property
    def relevant_standing(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Counts: ahead of the best relevant condition, level with it, and relevant among the level."""
        relevant = (self.gain > 0)[self.truth]
        best = np.where(relevant, self.scores, -np.inf).max(axis=1, keepdims=True)
        level = self.scores == best
        return (self.scores > best).sum(axis=1), level.sum(axis=1), (level & relevant).sum(axis=1)

    @cached_property
    def gain_by_place(self) -> np.ndarray:
        """float64 [n, n_conditions]: the gain at each place, the mean among tied conditions."""
        found = np.empty(self.scores.shape)
        for start in range(0, len(found), BLOCK):
            rows = slice(start, start + BLOCK)
            found[rows] = _gain_by_place(self.scores[rows], self.gain[self.truth[rows]])
        return found


def exact_hit(ranking: Ranking, k: int) -> np.ndarray:
    """Return float64 [n]: whether the truth is among the first k."""
    ahead, tied = ranking.standing
    return np.clip((k - ahead) / (tied + 1), 0.0, 1.0)


def relevant_hit(ranking: Ranking, k: int) -> np.ndarray:
    """Return float64 [n]: whether a condition that shares a gene with the truth is among the first k."""
    ahead, level, relevant = ranking.relevant_standing
    return _any_of_first(relevant, level, np.clip(k - ahead, 0, level))


def macro_hit(ranking: Ranking, k: int) -> np.ndarray:
    """Return float64 [n]: :func:`exact_hit`, weighted so that each condition counts the same."""
    sizes = np.bincount(ranking.truth)
    weight = len(ranking.truth) / (np.count_nonzero(sizes) * sizes[ranking.truth])
    return weight * exact_hit(ranking, k)


def reciprocal_rank(ranking: Ranking, k: int | None = None) -> np.ndarray:
    """Return float64 [n]: 1 / rank, 0 beyond rank k."""
    return np.where(ranking.rank <= (k or np.inf), 1 / ranking.rank, 0.0)


def ndcg(ranking: Ranking, k: int) -> np.ndarray:
    """Return float64 [n]: 1 / log2(1 + rank), 0 beyond rank k (one relevant condition)."""
    return np.where(ranking.rank <= k, 1 / np.log2(1 + ranking.rank), 0.0)


def graded_ndcg(ranking: Ranking, k: int) -> np.ndarray:
    """Return float64 [n]: discounted gain of the first k places over the best possible.

    Järvelin and Kekäläinen 2002 (doi:10.1145/582415.582418); the gain is the Jaccard index of the genes.
    """
    discount = _discount(ranking.scores.shape[1], k)
    best = -np.sort(-ranking.gain, axis=1) @ discount
    result: np.ndarray = ranking.gain_by_place @ discount / best[ranking.truth]
    return result


def _confidence(measure: Callable[[np.ndarray, np.ndarray], float], ranking: Ranking) -> float:
    return measure(ranking.scores, exact_hit(ranking, 1))


@dataclass(frozen=True)
class Metric:
    """A metric with its name, which direction is better, what it means, and how it is computed.

    ``values`` gives one value a query, whose mean is the metric, or one value for all queries.
    """

    name: str
    direction: Literal["higher", "lower"]
    description: str
    values: Callable[[Ranking], np.ndarray | float]


def _at(name: str, ks: tuple[int, ...], description: str, values: Callable[..., np.ndarray]) -> list[Metric]:
    return [Metric(f"{name}@{k}", "higher", description.format(k=k), partial(values, k=k)) for k in ks]


METRICS: tuple[Metric, ...] = (
    *_at("exact_hit", (1, 5, 10), "the true condition is among the first {k}", exact_hit),
    *_at("relevant_hit", (1, 5, 10), "a condition sharing a gene is among the first {k}", relevant_hit),
    *_at("macro_hit", (1, 5, 10), "exact_hit@{k} within each condition, averaged over conditions", macro_hit),
    Metric("mrr", "higher", "1 / rank of the truth, over the full ranking", reciprocal_rank),
    *_at("mrr", (10,), "1 / rank of the truth, 0 beyond rank {k}", reciprocal_rank),
    *_at("ndcg", (5, 10), "1 / log2(1 + rank of the truth), 0 beyond rank {k}", ndcg),
    *_at("graded_ndcg", (5, 10), "discounted gain of the first {k}, gain = Jaccard of genes", graded_ndcg),
    Metric(
        "confidence_auc",
        "higher",
        "area under accuracy over coverage 0.05 to 1, most confident first; at most 0.95",
        partial(_confidence, confidence_auc),
    ),
    Metric(
        "aurc",
        "lower",
        "area under the risk-coverage curve: error among the most confident i queries, averaged over i",
        partial(_confidence, aurc),
    ),
    Metric(
        "confidence_roc_auc",
        "higher",
        "probability that a right answer is given with more confidence than a wrong one",
        partial(_confidence, roc_auc),
    ),
)
REGISTRY = {metric.name: metric for metric in METRICS}


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
        If a label is not among the conditions.
    ValueError
        If a score is NaN or the shapes do not fit.
    """
    ranking = Ranking.of(scores, labels, conditions)
    return {metric.name: float(np.mean(metric.values(ranking))) for metric in METRICS}


def per_query(name: str, scores: np.ndarray, labels: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    """Return float64 [n_queries]: the value of a metric for each query, whose mean is the metric.

    Raises
    ------
    KeyError
        If there is no such metric, or it is not a mean over queries.
    """
    values = REGISTRY[name].values(Ranking.of(scores, labels, conditions))
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
    """Return what a model that scores at random, without ties, is expected to reach in every metric.

    Parameters
    ----------
    labels
        True condition of each query.
    conditions
        The candidates.
    """
    truth, gain, n = truth_index(labels, conditions), jaccard(conditions), len(conditions)
    found: dict[str, float] = {}
    for k in (1, 5, 10):
        found[f"exact_hit@{k}"] = found[f"macro_hit@{k}"] = min(k, n) / n
        sharing = (gain > 0).sum(axis=1)[truth]
        found[f"relevant_hit@{k}"] = float(_any_of_first(sharing, n, min(k, n)).mean())
    reciprocal = 1 / np.arange(1, n + 1)
    found |= {"mrr": float(reciprocal.sum() / n), "mrr@10": float(reciprocal[:10].sum() / n)}
    for k in (5, 10):
        discount = _discount(n, k)
        best = -np.sort(-gain, axis=1) @ discount
        found[f"ndcg@{k}"] = float(discount.sum() / n)
        found[f"graded_ndcg@{k}"] = float((gain.mean(axis=1) * discount.sum() / best)[truth].mean())
    return found | {"confidence_auc": 0.95 / n, "aurc": 1 - 1 / n, "confidence_roc_auc": 0.5}


def jaccard(conditions: np.ndarray) -> np.ndarray:
    """Return float64 [n_conditions, n_conditions]: shared genes over all genes of two conditions.

    1 for the same genes, twins included; control has no genes and is like itself only.
    """
    sets = [genes_of(condition) for condition in conditions]
    place = {name: i for i, name in enumerate(sorted(set().union(*sets)))}
    has = np.zeros((len(sets), len(place)))
    for i, genes in enumerate(sets):
        has[i, [place[gene] for gene in genes]] = 1
    shared = has @ has.T
    size = has.sum(axis=1)
    union = size[:, None] + size[None, :] - shared
    return np.divide(shared, union, out=np.eye(len(sets)), where=union > 0)


def _discount(n: int, k: int) -> np.ndarray:
    """float64 [n]: 1 / log2(1 + place) for the first k places, 0 after them."""
    places = np.arange(1, n + 1)
    return np.where(places <= k, 1 / np.log2(1 + places), 0.0)


def _any_of_first(relevant: np.ndarray, n: np.ndarray | int, k: np.ndarray | int) -> np.ndarray:
    """Probability that a random order of ``n`` puts one of ``relevant`` among its first ``k <= n``."""
    rest = n - relevant
    log_none = gammaln(rest + 1) - gammaln(np.maximum(rest - k, 0) + 1) + gammaln(n - k + 1) - gammaln(n + 1)
    return np.where(rest >= k, np.clip(-np.expm1(log_none), 0.0, 1.0), 1.0)


def _gain_by_place(scores: np.ndarray, gain: np.ndarray) -> np.ndarray:
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    total = np.cumsum(np.take_along_axis(gain, order, axis=1), axis=1)
    total = np.concatenate([np.zeros((len(total), 1)), total], axis=1)
    change = ordered[:, 1:] != ordered[:, :-1]
    edge = np.ones((len(scores), 1), dtype=bool)
    place = np.arange(scores.shape[1])
    first = np.maximum.accumulate(np.where(np.hstack([edge, change]), place, 0), axis=1)
    after = np.where(np.hstack([change, edge]), place + 1, len(place))
    after = np.minimum.accumulate(after[:, ::-1], axis=1)[:, ::-1]
    result: np.ndarray = np.take_along_axis(total, after, axis=1) - np.take_along_axis(total, first, axis=1)
    return result / (after - first)
