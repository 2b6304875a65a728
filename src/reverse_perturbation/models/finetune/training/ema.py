"""Exponential moving average of the weights, evaluated and kept in place of the weights themselves."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier


class Ema:
    """An exponential moving average of a model's trained weights.

    After step t the mean moves to ``d * mean + (1 - d) * weights`` with ``d = min(decay, (1 + t) / (10 + t))``, as
    TensorFlow's ExponentialMovingAverage: a fine-tuning of a few hundred steps would otherwise be evaluated at its
    initial weights.

    Parameters
    ----------
    model
        Its trained weights are the mean's start.
    decay
        Above 0 and below 1.
    """

    def __init__(self, model: EncoderClassifier, decay: float):
        self.decay = decay
        self.steps = 0
        self.mean = _copy(model.trainable_state())

    def update(self, model: EncoderClassifier) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        weights = model.state_dict()
        for name, mean in self.mean.items():
            mean.lerp_(weights[name], 1 - decay)

    @contextmanager
    def in_place(self, model: EncoderClassifier) -> Iterator[None]:
        """Give the model the averaged weights, and put its own back at the end."""
        weights = _copy(model.trainable_state())
        model.load_trainable_state(self.mean)
        try:
            yield
        finally:
            model.load_trainable_state(weights)


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}
