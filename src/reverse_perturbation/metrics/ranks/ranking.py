"""Scored queries, with everything several metrics need of them computed once."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import gammaln

from reverse_perturbation.conditions import genes_of
from reverse_perturbation.metrics.ranks.rank import ahead_and_tied, truth_index

BLOCK = 2048  # queries sorted at once for graded_ndcg: with 282 conditions some 30 MB


@dataclass(frozen=True, eq=False)
class Ranking:
    """Scored queries of one model.

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
        """The rank of the truth, 1 the best; ties share the mean of their ranks."""
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
        gains = np.empty(self.scores.shape)
        for start in range(0, len(gains), BLOCK):
            rows = slice(start, start + BLOCK)
            gains[rows] = _gain_by_place(self.scores[rows], self.gain[self.truth[rows]])
        return gains


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


def discount(n: int, k: int) -> np.ndarray:
    """float64 [n]: 1 / log2(1 + place) for the first k places, 0 after them."""
    places = np.arange(1, n + 1)
    return np.where(places <= k, 1 / np.log2(1 + places), 0.0)


def any_of_first(relevant: np.ndarray, n: np.ndarray | int, k: np.ndarray | int) -> np.ndarray:
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
