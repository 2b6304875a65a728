"""Multinomial logistic regression on expression, scaling and C tuned on the validation cells."""

from reverse_perturbation.models.linear.baseline import TunedBaseline, TunedConfig


class Config(TunedConfig):
    """Section ``logreg``."""


class Baseline(TunedBaseline):
    """The specification's baseline: the targets are measured against it, and fusion is initialised with it."""
