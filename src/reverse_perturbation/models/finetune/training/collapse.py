"""Detect collapsed training: predictions that do not depend on the cell, or embeddings that are all alike."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from reverse_perturbation.models.finetune.training.history import Epoch, chosen_epoch
from reverse_perturbation.sections import Fit

PERMUTATIONS = 1000
QUANTILE = 0.99
DEVIATIONS = 2.33  # of a normal distribution, up to its quantile 0.99
# Share of the relative variance at the start below which embeddings count as all alike: a thousandth in distances.
# On the tests' small model far too high learning rates end at 1e-9 to 1e-13; what still recovered was above 1e-5.
VARIANCE_LEFT = 1e-6
ADVICE = (
    "lower finetune.optimizer.backbone_learning_rate and head_learning_rate, raise finetune.schedule.warmup_fraction "
    "or set finetune.schedule.probe_epochs"
)
AT_CHANCE_ADVICE = (
    "lower finetune.head.dropout or raise finetune.schedule.epochs; where logreg is at chance as well, the cells tell "
    "little of their conditions, or the labels are those of other cells"
)


def chance_mrr(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the 99 % quantile of the mrr of the same predictions, assigned to the cells in random order.

    This is chance for predictions as they are: a collapsed model ranks all cells alike, by the conditions' frequencies,
    and that beats random ranks. The mrr is used rather than exact_hit@1 because every cell contributes to it; by
    exact_hit@1 a weak model can hardly be told from chance on a few hundred cells.

    NaN, which no mrr is below, where the cells are too few to tell. They are enough where a model half as good again as
    random ranks would exceed the bound in 99 of 100 cases: half the mean of random ranks must be twice 2.33 of the
    standard deviations of their mean. With 33 conditions that takes 191 cells, with 282 it takes 953.

    Parameters
    ----------
    scores
        float [n, n_conditions], higher is better.
    truth
        int [n], the true column.
    """
    n, n_conditions = scores.shape
    random = 1 / np.arange(1, n_conditions + 1)
    if random.mean() / 2 < 2 * DEVIATIONS * random.std() / np.sqrt(n):
        return math.nan
    gain = 1 / rankdata(-scores, axis=1)
    rng = np.random.default_rng(0)
    means = [gain[np.arange(n), rng.permutation(truth)].mean() for _ in range(PERMUTATIONS)]
    return float(np.quantile(means, QUANTILE)) + 1e-9  # the same numbers in another order have not quite the same mean


def relative_variance(embedding: np.ndarray) -> float:
    """Return the total variance of embeddings, float [n, dim], as a share of their mean squared length: 0 to 1."""
    embedding = embedding.astype(np.float64)
    length = (embedding**2).sum(axis=1).mean()
    return float(embedding.var(axis=0).sum() / length) if length else 0.0


def has_collapsed(variance: float, start_variance: float) -> bool:
    """Return whether embeddings are all alike: their :func:`relative_variance` against the one before training."""
    return variance < VARIANCE_LEFT * start_variance


def check_training(history: Sequence[Epoch], fit_name: Fit) -> str | None:
    """Say what is wrong with a fit that has ended, and what to try; None if nothing is.

    Either it has collapsed, or in no epoch was validation mrr above :func:`chance_mrr`. Neither stops an experiment:
    chance is a result, and other models may find more. Of a refit, which has no validation cells, only collapse can be
    told.
    """
    last, kept = history[-1], chosen_epoch(history)
    if last.collapsed:
        part = "training" if math.isnan(last.mrr) else "validation"
        return (
            f"the {fit_name} fit collapsed in epoch {last.epoch}: the embeddings of the {part} cells are all alike, "
            f"with a variance of {last.relative_variance:.1e} of their squared length; epoch {kept.epoch} is kept; "
            f"{ADVICE}"
        )
    if all(epoch.mrr <= epoch.chance_mrr for epoch in history):
        return (
            f"the {fit_name} fit ended at chance: validation mrr is {kept.mrr:.3f}, in none of {last.epoch} epochs "
            "above what the same predictions assigned to the cells at random reach, "
            f"{kept.chance_mrr:.3f}; {AT_CHANCE_ADVICE}"
        )
    return None
