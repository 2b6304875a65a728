"""How good a ranking is: the registry of metrics and the one function that computes them.

Ties: where the truth shares its score with ``t`` other conditions behind ``a`` better ones, its rank is the mean
``1 + a + t/2``, and a hit within k counts as the share of orders of the tied ones in which it happens. So a model
that scores all conditions alike is at chance in every hit@k.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import gammaln

from reverse_perturbation.conditions import genes_of
from reverse_perturbation.retrieval.confidence import confidence_auc
from reverse_perturbation.retrieval.rank import ahead_and_tied, truth_index


@dataclass(frozen=True)
class Metric:
    """One metric: all here are better when higher and lie between 0 and 1."""

    name: str
    description: str


METRICS = tuple(
    [Metric(f"exact_hit@{k}", f"the true condition is among the first {k}") for k in (1, 5, 10)]
    + [Metric(f"relevant_hit@{k}", f"a condition sharing a gene with the truth is among the first {k}") for k in (1, 5, 10)]
    + [Metric(f"macro_hit@{k}", f"exact_hit@{k} within each condition, averaged over conditions") for k in (1, 5, 10)]
    + [
        Metric("mrr", "mean of 1 / rank of the truth over the full ranking"),
        Metric("mrr@10", "the same, 0 where the rank is above 10"),
    ]
    + [Metric(f"ndcg@{k}", f"1 / log2(1 + rank), 0 where the rank is above {k}") for k in (5, 10)]
    + [
        Metric(f"graded_ndcg@{k}", f"discounted gain of the first {k}, gain = Jaccard index of gene sets")
        for k in (5, 10)
    ]
    + [Metric("confidence_auc", "area under accuracy over coverage 0.05 to 1, at most 0.95")]
)


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
    """
    labels, conditions = np.asarray(labels, dtype=object), np.asarray(conditions, dtype=object)
    found: dict[str, float] = {}
    for metric in METRICS:
        kind, _, k = metric.name.partition("@")
        if kind == "macro_hit":
            hits = pd.Series(per_query(f"exact_hit@{k}", scores, labels, conditions))
            found[metric.name] = float(hits.groupby(labels).mean().mean())
        elif kind == "confidence_auc":
            found[metric.name] = confidence_auc(scores, per_query("exact_hit@1", scores, labels, conditions))
        else:
            found[metric.name] = float(per_query(metric.name, scores, labels, conditions).mean())
    return found


def per_query(name: str, scores: np.ndarray, labels: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    """Return float64 [n_queries]: the value of a metric for each query, whose mean is the metric.

    Raises
    ------
    KeyError
        If the metric is not a mean over queries (``macro_hit``, ``confidence_auc``) or unknown.
    """
    conditions = np.asarray(conditions, dtype=object)
    truth = truth_index(labels, conditions)
    kind, _, suffix = name.partition("@")
    k = int(suffix) if suffix else len(conditions)
    if kind == "relevant_hit":
        return _relevant_hit(scores, truth, conditions, k)
    if kind == "graded_ndcg":
        return _graded_ndcg(scores, truth, conditions, k)
    ahead, tied = ahead_and_tied(scores, truth)
    rank = 1.0 + ahead + tied / 2
    if kind == "exact_hit":
        return np.clip((k - ahead) / (tied + 1), 0.0, 1.0)
    return {
        "mrr": lambda: np.where(rank <= k, 1 / rank, 0.0),
        "ndcg": lambda: np.where(rank <= k, 1 / np.log2(1 + rank), 0.0),
    }[kind]()


def hit_curve(scores: np.ndarray, labels: np.ndarray, conditions: np.ndarray, most: int = 20) -> pd.DataFrame:
    """Return exact and relevant hit@k for k up to ``most``: columns k, exact_hit, relevant_hit."""
    ks = range(1, min(most, len(conditions)) + 1)
    return pd.DataFrame(
        {
            "k": list(ks),
            "exact_hit": [per_query(f"exact_hit@{k}", scores, labels, conditions).mean() for k in ks],
            "relevant_hit": [per_query(f"relevant_hit@{k}", scores, labels, conditions).mean() for k in ks],
        }
    )


def chance(labels: np.ndarray, conditions: np.ndarray) -> dict[str, float]:
    """Return what a model that scores at random is expected to reach, for the metrics with a closed form."""
    n = len(conditions)
    ranks = np.arange(1, n + 1)
    truth = truth_index(labels, conditions)
    sharing = (_jaccard(np.asarray(conditions, dtype=object)) > 0).sum(axis=1)[truth]
    found = {f"exact_hit@{k}": min(k, n) / n for k in (1, 5, 10)}
    found |= {f"macro_hit@{k}": min(k, n) / n for k in (1, 5, 10)}
    found |= {f"relevant_hit@{k}": float(_any_of_first(sharing, n, k).mean()) for k in (1, 5, 10)}
    found |= {"mrr": float((1 / ranks).mean()), "mrr@10": float((1 / ranks[:10]).sum() / n)}
    found |= {f"ndcg@{k}": float((1 / np.log2(1 + ranks[:k])).sum() / n) for k in (5, 10)}
    found["confidence_auc"] = 0.95 / n
    return found


def _any_of_first(relevant: np.ndarray, n: int | np.ndarray, k: int | np.ndarray) -> np.ndarray:
    """Probability that a random order of ``n`` puts at least one of ``relevant`` among its first ``k``."""
    rest = np.asarray(n - relevant)
    k = np.minimum(k, n)
    none = np.where(
        rest >= k,
        np.exp(gammaln(rest + 1) - gammaln(np.maximum(rest - k, 0) + 1) + gammaln(n - k + 1) - gammaln(n + 1)),
        0.0,
    )
    return 1 - none


def _relevant_hit(scores: np.ndarray, truth: np.ndarray, conditions: np.ndarray, k: int) -> np.ndarray:
    """With ``a`` conditions above the k-th score and ``t`` equal to it, k - a of those t are drawn at random."""
    k = min(k, scores.shape[1])
    relevant = (_jaccard(conditions) > 0)[truth]
    edge = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
    above, at = scores > edge, scores == edge
    surely = (above & relevant).any(axis=1)
    maybe = _any_of_first((at & relevant).sum(axis=1), at.sum(axis=1), k - above.sum(axis=1))
    return np.where(surely, 1.0, maybe)


def _graded_ndcg(scores: np.ndarray, truth: np.ndarray, conditions: np.ndarray, k: int) -> np.ndarray:
    """Jarvelin and Kekalainen 2002; conditions that tie share the mean gain of their places."""
    k = min(k, scores.shape[1])
    gain = _jaccard(conditions)
    discount = np.zeros(scores.shape[1])
    discount[:k] = 1 / np.log2(np.arange(2, k + 2))
    best = -np.sort(-gain, axis=1) @ discount
    cumulative = np.concatenate([[0.0], np.cumsum(discount)])
    found = np.empty(len(scores))
    for i, row in enumerate(scores):
        ordered = np.sort(row)
        last = len(row) - np.searchsorted(ordered, row, side="left")
        first = len(row) - np.searchsorted(ordered, row, side="right")
        shared = (cumulative[last] - cumulative[first]) / (last - first)
        found[i] = gain[truth[i]] @ shared / best[truth[i]]
    return found


def _jaccard(conditions: np.ndarray) -> np.ndarray:
    """Return float64 [n_conditions, n_conditions]: shared genes over all genes of two conditions."""
    sets = [genes_of(condition) for condition in conditions]
    names = sorted(set().union(*sets))
    place = {name: i for i, name in enumerate(names)}
    has = np.zeros((len(sets), len(names)))
    for i, genes in enumerate(sets):
        has[i, [place[gene] for gene in genes]] = 1
    shared = has @ has.T
    size = has.sum(axis=1)
    result: np.ndarray = shared / (size[:, None] + size[None, :] - shared)
    return result
