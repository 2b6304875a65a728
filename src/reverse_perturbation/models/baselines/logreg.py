"""Multinomial logistic regression on expression, with or without depth; features, scaling and C chosen."""

from reverse_perturbation.models.linear.baseline import TunedBaseline, TunedConfig


class Config(TunedConfig):
    """Section ``logreg``."""


class Baseline(TunedBaseline):
    """The specification's baseline: the targets are measured against it."""
