"""The course of training: one line an epoch, and which epoch is the best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One line of the training curves.

    The training loss is the mean of what is lowered, in nats, NaN in epoch 0, before training. The validation loss is
    the mean cross-entropy, without label smoothing, NaN without a classifier. ``chance_mrr`` and ``spread`` are those
    of ``collapse``. All validation figures are NaN in a refit, which has no validation part left.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    exact_hit_at_1: float
    mrr: float
    backbone_learning_rate: float
    head_learning_rate: float
    seconds: float
    chance_mrr: float = math.nan
    spread: float = math.nan

    @property
    def score(self) -> tuple[float, float]:
        """By which epochs are compared: exact_hit@1, then mrr."""
        return self.exact_hit_at_1, self.mrr


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """Return the first epoch with the highest validation score; the last one where nothing was validated."""
    if math.isnan(history[-1].mrr):
        return history[-1]
    return max(history, key=lambda epoch: (epoch.score, -epoch.epoch))
