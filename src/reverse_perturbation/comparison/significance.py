"""Uncertainty of a gap between two models, over queries and over training seeds."""

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

    A model trained with several seeds enters as the mean of its per-query values over seeds; the variation
    between seeds is for :func:`over_seeds`.

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
    if not len(a) or not len(a) == len(b) == len(strata):
        raise ValueError(f"a, b and strata hold {len(a)}, {len(b)} and {len(strata)} queries")
    return _bootstrap(np.asarray(a, dtype=np.float64)[None], b, strata, draws, seed)


def paired_bootstrap_with_seeds(a: np.ndarray, b: np.ndarray, strata: np.ndarray, *, draws: int, seed: int) -> Gap:
    """Resample training seeds and queries together: the interval covers both.

    Each sample draws as many seeds as there are, with replacement, and for all of them the same queries, as
    :func:`paired_bootstrap` does. A bootstrap of n seeds finds
    only the share (n - 1) / n of their variance: half of it with two.

    Parameters
    ----------
    a
        float [n_seeds, n]: a metric's value for each query under the model of each seed.
    b
        float [n]: the same under the other model, which has no seeds.
    strata, draws, seed
        As in :func:`paired_bootstrap`.

    Raises
    ------
    ValueError
        If there are fewer than two seeds, or the three do not have the same queries.
    """
    if len(a) < 2:
        raise ValueError(f"{len(a)} seeds cannot be drawn again; train with at least two")
    if not len(b) or not a.shape[1] == len(b) == len(strata):
        raise ValueError(f"a, b and strata hold {a.shape[1]}, {len(b)} and {len(strata)} queries")
    return _bootstrap(np.asarray(a, dtype=np.float64), b, strata, draws, seed)


def _bootstrap(a: np.ndarray, b: np.ndarray, strata: np.ndarray, draws: int, seed: int) -> Gap:
    difference = a - np.asarray(b, dtype=np.float64)
    _, code = np.unique(np.asarray(strata).astype(str), return_inverse=True)
    sizes = np.bincount(code)
    by_stratum = difference[:, np.argsort(code, kind="stable")]
    first, size = np.repeat(np.cumsum(sizes) - sizes, sizes), np.repeat(sizes, sizes)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for start in range(0, draws, BLOCK):
        count = min(BLOCK, draws - start)
        drawn = first + (rng.random((count, len(first))) * size).astype(np.int64)
        if len(a) == 1:
            means[start : start + count] = by_stratum[0, drawn].mean(axis=1)
            continue
        of_seed = np.array([values[drawn].mean(axis=1) for values in by_stratum])
        seeds = rng.integers(len(a), size=(len(a), count))
        means[start : start + count] = np.take_along_axis(of_seed, seeds, axis=0).mean(axis=0)
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
        Standard deviation with n - 1; Student's t interval of the mean, appropriately wide for few seeds.

    Raises
    ------
    ValueError
        If there are fewer than two seeds.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f"{len(values)} seeds have no spread; train with at least two")
    mean, std = float(values.mean()), float(values.std(ddof=1))
    half = float(student.ppf(0.975, len(values) - 1)) * std / len(values) ** 0.5
    return Spread(mean, std, mean - half, mean + half)
