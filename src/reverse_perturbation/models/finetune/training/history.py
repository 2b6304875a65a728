"""Training history: one entry an epoch, and the choice of the epoch to keep."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One line of the training curves.

    The training loss is the mean objective, in nats. The validation loss is the mean cross-entropy, without label
    smoothing, NaN without a classifier. ``exact_hit_at_1`` and ``mrr`` are the classifier's; where there is none, those
    of a library of mean embeddings, whose own are ``library_...``. ``exact_hit_at_1_error`` is the binomial standard
    error of ``exact_hit_at_1``. ``chance_mrr`` and ``relative_variance`` are those of ``collapse``. A refit has no
    validation part left: ``relative_variance`` is then that of some training cells, and all other validation figures
    are NaN. An epoch has ``collapsed`` when its embeddings are all alike; it is the last.
    """

    epoch: int
    train_loss: float
    backbone_learning_rate: float
    head_learning_rate: float
    seconds: float
    validation_loss: float = math.nan
    exact_hit_at_1: float = math.nan
    mrr: float = math.nan
    exact_hit_at_1_error: float = math.nan
    library_exact_hit_at_1: float = math.nan
    library_mrr: float = math.nan
    chance_mrr: float = math.nan
    relative_variance: float = math.nan
    collapsed: bool = False


def highest_epoch(history: Sequence[Epoch]) -> Epoch:
    """Return the first epoch with the highest validation exact_hit@1, mrr among equals; never the collapsed one.

    Unless there is no other.
    """
    return max(_sound(history), key=lambda epoch: (epoch.exact_hit_at_1, epoch.mrr, -epoch.epoch))


def chosen_epoch(history: Sequence[Epoch]) -> Epoch:
    """Return the last epoch whose validation exact_hit@1 is within one standard error of the highest.

    The one-standard-error rule (Breiman et al., Classification and Regression Trees, 1984). On a few hundred
    validation cells the highest epoch is largely luck, and often one before the learning rates have come down; what
    comes later and cannot be told from it is the better choice (docs/protocol.md has the figures). Without validation
    it is the last epoch. The collapsed epoch is chosen only if there is no other.
    """
    epochs = _sound(history)
    if math.isnan(epochs[-1].exact_hit_at_1):
        return epochs[-1]
    highest = highest_epoch(epochs)
    least = highest.exact_hit_at_1 - highest.exact_hit_at_1_error
    return [epoch for epoch in epochs if epoch.exact_hit_at_1 >= least][-1]


def _sound(history: Sequence[Epoch]) -> Sequence[Epoch]:
    return [epoch for epoch in history if not epoch.collapsed] or history
