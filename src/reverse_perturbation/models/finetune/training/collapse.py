"""Detect collapsed training: predictions that do not depend on the cell, or embeddings that are all alike."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.finetune.training.history import Epoch
from reverse_perturbation.sections import Schedule

PERMUTATIONS = 1000
QUANTILE = 0.99
DEVIATIONS = 2.33  # of a normal distribution, up to its quantile 0.99
AT_LEAST = 3  # epochs before a run is called at chance
# Share of the relative variance at the start below which embeddings count as all alike: a thousandth in distances.
# On the tests' small model far too high learning rates end at 1e-9 to 1e-13; what still recovered was above 1e-5.
VARIANCE_LEFT = 1e-6
ADVICE = (
    "lower finetune.optimizer.backbone_learning_rate and head_learning_rate, raise finetune.schedule.warmup_fraction "
    "or set finetune.schedule.probe_epochs"
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
        return float("nan")
    gain = 1 / rankdata(-scores, axis=1)
    rng = np.random.default_rng(0)
    means = [gain[np.arange(n), rng.permutation(truth)].mean() for _ in range(PERMUTATIONS)]
    return float(np.quantile(means, QUANTILE)) + 1e-9  # the same numbers in another order have not quite the same mean


def relative_variance(embedding: np.ndarray) -> float:
    """Return the total variance of embeddings, float [n, dim], as a share of their mean squared length: 0 to 1."""
    embedding = embedding.astype(np.float64)
    length = (embedding**2).sum(axis=1).mean()
    return float(embedding.var(axis=0).sum() / length) if length else 0.0


def check_collapse(history: Sequence[Epoch], start_variance: float, config: Schedule) -> None:
    """Stop a run whose last epochs show that it has collapsed.

    That is: embeddings all alike, measured by their :func:`relative_variance` against the one before training; or
    validation mrr above :func:`chance_mrr` in no epoch, once the probe and the warm-up are over and ``patience`` epochs
    have gone by, at least three. A start may be slow, so a few epochs at chance prove nothing; and a run that has been
    above chance has an epoch worth keeping, which early stopping keeps.

    Raises
    ------
    InputError
        Saying which, and what to try.
    """
    last = history[-1]
    if last.epoch and last.relative_variance < VARIANCE_LEFT * start_variance:
        raise InputError(
            f"finetune: collapsed in epoch {last.epoch}: the embeddings of the validation cells are all alike, with a "
            f"variance of {last.relative_variance:.1e} of their squared length, {start_variance:.1e} before training; "
            f"{ADVICE}"
        )
    waited = max(AT_LEAST, min(config.patience, config.epochs), config.warmup_fraction * config.epochs)
    if last.epoch >= config.probe_epochs + waited and all(epoch.mrr <= epoch.chance_mrr for epoch in history):
        raise InputError(
            f"finetune: at chance in all of {last.epoch} epochs: validation mrr is {last.mrr:.3f}, the "
            f"same answers given to other cells reach {last.chance_mrr:.3f}; {ADVICE}, or see whether the labels are "
            "those of the cells"
        )
