"""Uncertainty of a gap between two models, over queries and over training seeds, in one split or several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

BLOCK = 100  # bootstrap samples at once: 100 x 16,651 indices are 13 MB


@dataclass(frozen=True)
class Gap:
    """Mean difference over queries, and what a bootstrap says of it.

    Attributes
    ----------
    mean
        Of all queries.
    low, high
        Ends of the 95 % interval: percentiles 2.5 and 97.5.
    low_90, high_90
        Ends of the 90 % interval, for two one-sided tests at 5 %.
    p
        Of no difference, two-sided: twice the smaller share of samples on one side of 0, the gap itself counted as a
        sample (Davison and Hinkley, Bootstrap Methods, 1997, ch. 4), at most 1.
    """

    mean: float
    low: float
    high: float
    low_90: float
    high_90: float
    p: float

    def equivalent(self, margin: float) -> bool:
        """Whether the gap is shown to be within ``margin`` of 0 by two one-sided tests at 5 % (Schuirmann 1987)."""
        return -margin < self.low_90 and self.high_90 < margin


@dataclass(frozen=True)
class Spread:
    """A metric over training seeds: mean, standard deviation, and the 95 % interval of the mean."""

    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Differences:
    """Differences between two models on the queries of one split.

    Attributes
    ----------
    values
        float64 [n_seeds, n]: a metric's value for each query under the model of each training seed, minus that under
        the other model.
    cells
        [n]: the cell of each query, each once.
    strata
        [n]: its condition.
    """

    values: np.ndarray
    cells: np.ndarray
    strata: np.ndarray

    def __post_init__(self) -> None:
        if not self.values.size or not self.values.shape[1] == len(self.cells) == len(self.strata):
            raise ValueError(
                f"values of shape {self.values.shape} for {len(self.cells)} cells and {len(self.strata)} strata"
            )


def bootstrap(splits: Sequence[Differences], *, draws: int, seed: int, seeds: bool = False) -> Gap:
    """Resample cells, the same for both models, within each condition (Efron and Tibshirani 1993, ch. 16).

    The gap is the mean over all queries of all splits. Cells are what is resampled: one that is a query in several
    splits is drawn with all its occurrences, as these are not independent.

    Parameters
    ----------
    splits
        One or more splits of the same cells. Models trained with several seeds enter as the mean over seeds.
    draws
        Number of bootstrap samples.
    seed
        Of the samples.
    seeds
        Draw the training seeds of each split again, too: as many as there are, with replacement. A bootstrap of n
        seeds finds only the share (n - 1) / n of their variance: half of it with two.

    Raises
    ------
    ValueError
        If ``seeds`` and a split has fewer than two of them.
    """
    if seeds and any(len(split.values) < 2 for split in splits):
        raise ValueError("one seed cannot be drawn again; train with at least two")
    names = np.concatenate([split.cells for split in splits]).astype(str)
    strata = np.concatenate([split.strata for split in splits]).astype(str)
    _, first, code = np.unique(names, return_index=True, return_inverse=True)
    # Cells in the order of their first occurrence within their condition: of one split, that of the queries.
    _, stratum, sizes = np.unique(strata[first], return_inverse=True, return_counts=True)
    place = np.empty(len(first), dtype=np.int64)
    place[np.lexsort((first, stratum))] = np.arange(len(first))
    parts = np.split(place[code], np.cumsum([len(split.cells) for split in splits])[:-1])
    sums = [_sums(split.values, at, len(first)) for split, at in zip(splits, parts, strict=True)]
    occurrences = np.bincount(place[code], minlength=len(first)).astype(np.float64)
    start, size = np.repeat(np.cumsum(sizes) - sizes, sizes), np.repeat(sizes, sizes)
    rng = np.random.default_rng(seed)
    samples = np.empty(draws)
    for begin in range(0, draws, BLOCK):
        count = min(BLOCK, draws - begin)
        drawn = start + (rng.random((count, len(start))) * size).astype(np.int64)
        drawn += np.arange(count)[:, None] * len(start)
        times = np.bincount(drawn.ravel(), minlength=count * len(start)).reshape(count, -1).astype(np.float64)
        total = np.zeros(count)
        for of_split in sums:
            of_seed = of_split @ times.T
            if seeds:
                of_seed = np.take_along_axis(of_seed, rng.integers(len(of_seed), size=of_seed.shape), axis=0)
            total += of_seed.mean(axis=0)
        samples[begin : begin + count] = total / (times @ occurrences)
    mean = sum(float(split.values.mean(axis=0).sum()) for split in splits) / len(names)
    return _summary(mean, samples)


def paired_bootstrap(a: np.ndarray, b: np.ndarray, strata: np.ndarray, *, draws: int, seed: int) -> Gap:
    """Return :func:`bootstrap` of ``a - b`` in one split, each float [n], every query a cell of its own."""
    if not len(a) == len(b) == len(strata):
        raise ValueError(f"a, b and strata hold {len(a)}, {len(b)} and {len(strata)} queries")
    values = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return bootstrap([Differences(values[None], np.arange(len(strata)), strata)], draws=draws, seed=seed)


def _sums(values: np.ndarray, at: np.ndarray, n: int) -> np.ndarray:
    """Return float64 [n_seeds, n]: the values in the places of their cells, 0 elsewhere."""
    result = np.zeros((len(values), n))
    result[:, at] = values
    return result


def _summary(mean: float, samples: np.ndarray) -> Gap:
    low, low_90, high_90, high = np.percentile(samples, [2.5, 5, 95, 97.5]).tolist()
    least = min((samples <= 0).sum(), (samples >= 0).sum())
    return Gap(mean, low, high, low_90, high_90, min(1.0, 2 * (float(least) + 1) / (len(samples) + 1)))


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
