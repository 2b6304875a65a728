"""Metrics with one value per query: the formulas, which fits use too.

Ties. Let ``a`` conditions score above the truth and ``t`` others equal to it.

- ``exact_hit@k`` is the share of the orders of the tied conditions that put the truth among the first k, so a
  model that scores all n conditions alike gets k/n, which is chance, not 1. ``relevant_hit@k``, ``ndcg@k`` and
  ``graded_ndcg@k`` are expectations over these orders too.
- ``mrr`` and ``mrr@10`` take the mean rank ``1 + a + t/2`` as the rank. Since 1/rank is convex, ties never gain
  in ``mrr``: with all n conditions alike it is 2/(n + 1), below chance. In ``mrr@10`` the mean rank is within 10
  or it is not.
"""

import numpy as np

from reverse_perturbation.metrics.ranks.ranking import Ranking, any_of_first, discount


def exact_hit(ranking: Ranking, k: int) -> np.ndarray:
    """Return float64 [n]: whether the truth is among the first k."""
    ahead, tied = ranking.standing
    return np.clip((k - ahead) / (tied + 1), 0.0, 1.0)


def relevant_hit(ranking: Ranking, k: int) -> np.ndarray:
    """Return float64 [n]: whether a condition that shares a gene with the truth is among the first k."""
    ahead, level, relevant = ranking.relevant_standing
    return any_of_first(relevant, level, np.clip(k - ahead, 0, level))


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
    ahead, tied = (count[:, None] for count in ranking.standing)
    places = np.arange(k)
    possible = (ahead <= places) & (places <= ahead + tied)
    result: np.ndarray = possible @ discount(k, k) / (tied[:, 0] + 1)
    return result


def graded_ndcg(ranking: Ranking, k: int) -> np.ndarray:
    """Return float64 [n]: discounted gain of the first k places over the best possible.

    Järvelin and Kekäläinen 2002 (doi:10.1145/582415.582418); the gain is the Jaccard index of the genes.
    """
    weights = discount(ranking.scores.shape[1], k)
    best = -np.sort(-ranking.gain, axis=1) @ weights
    result: np.ndarray = ranking.gain_by_place @ weights / best[ranking.truth]
    return result
