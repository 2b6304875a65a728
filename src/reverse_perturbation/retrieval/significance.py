"""Whether a gap between two models is more than the luck of the queries, or of the training seed."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

BLOCK = 100  # bootstrap samples at once: 100 x 16,651 indices are 13 MB


@dataclass(frozen=True)
class Gap:
    """Mean difference over queries, and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """A metric over training seeds: mean, standard deviation, and the 95 % interval of the mean."""

    mean: float
    std: float
    low: float
    high: float


def paired_bootstrap(a: np.ndarray, b: np.ndarray, strata: np.ndarray, *, draws: int, seed: int) -> Gap:
    """Resample queries, the same for both models, within each stratum (Efron and Tibshirani 1993, ch. 16).

    A model trained with several seeds comes in as the mean of its per-query values over seeds; how the seeds
    differ is for :func:`over_seeds`.

    Parameters
    ----------
    a, b
        float [n]: a metric's value for each query under either model.
    strata
        [n]: the condition of each query; each keeps its number of queries in every sample.
    draws
        Number of bootstrap samples.
    seed
        Of the samples.

    Returns
    -------
    Gap
        Of ``a - b``; percentiles 2.5 and 97.5.

    Raises
    ------
    ValueError
        If the three are not equally long, or empty.
    """
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if not len(difference) or not len(a) == len(b) == len(strata):
        raise ValueError(f"a, b and strata hold {len(a)}, {len(b)} and {len(strata)} queries")
    _, code = np.unique(np.asarray(strata).astype(str), return_inverse=True)
    sizes = np.bincount(code)
    by_stratum = difference[np.argsort(code, kind="stable")]
    first, size = np.repeat(np.cumsum(sizes) - sizes, sizes), np.repeat(sizes, sizes)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for start in range(0, draws, BLOCK):
        count = min(BLOCK, draws - start)
        drawn = first + (rng.random((count, len(first))) * size).astype(np.int64)
        means[start : start + count] = by_stratum[drawn].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Gap(float(difference.mean()), float(low), float(high))


def over_seeds(values: np.ndarray) -> Spread:
    """Summarise one metric over training seeds.

    Parameters
    ----------
    values
        float [n_seeds], at least two.

    Returns
    -------
    Spread
        Standard deviation with n - 1; Student's t interval of the mean, wide for few seeds as it should be.

    Raises
    ------
    ValueError
        If there are fewer than two seeds: one has no spread.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f"{len(values)} seeds have no spread; train with at least two")
    mean, std = float(values.mean()), float(values.std(ddof=1))
    half = float(student.ppf(0.975, len(values) - 1)) * std / len(values) ** 0.5
    return Spread(mean, std, mean - half, mean + half)
