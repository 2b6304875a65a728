"""Whether a gap between two models is more than the luck of the queries."""

from dataclasses import dataclass

import numpy as np

BLOCK = 100  # draws at once: 100 x 16,651 indices are 13 MB


@dataclass(frozen=True)
class Gap:
    """Mean difference over queries, and its 95 % interval."""

    mean: float
    low: float
    high: float


def paired_bootstrap(a: np.ndarray, b: np.ndarray, strata: np.ndarray, *, draws: int, seed: int) -> Gap:
    """Resample queries, the same for both models, within each stratum (Efron and Tibshirani 1993, ch. 13).

    Parameters
    ----------
    a, b
        float [n]: a metric's value for each query under either model.
    strata
        [n]: the condition of each query; each keeps its number of queries in every draw.
    draws
        Number of bootstrap samples.
    seed
        Of the draws.

    Returns
    -------
    Gap
        Of ``a - b``; percentiles 2.5 and 97.5.
    """
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    _, code = np.unique(strata.astype(str), return_inverse=True)
    order = np.argsort(code, kind="stable")
    sizes = np.bincount(code)
    start = np.repeat(np.cumsum(sizes) - sizes, sizes)
    size = np.repeat(sizes, sizes)
    rng = np.random.default_rng(seed)
    sorted_difference = difference[order]
    means = np.empty(draws)
    for first in range(0, draws, BLOCK):
        count = min(BLOCK, draws - first)
        drawn = start + (rng.random((count, len(start))) * size).astype(np.int64)
        means[first : first + count] = sorted_difference[drawn].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Gap(float(difference.mean()), float(low), float(high))
