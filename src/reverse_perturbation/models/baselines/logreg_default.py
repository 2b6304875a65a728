"""Multinomial logistic regression with the earlier project's settings: unscaled expression, C = 1."""

import numpy as np

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.models.linear.baseline import LinearBaseline
from reverse_perturbation.models.linear.features import features
from reverse_perturbation.models.linear.logreg import LogisticRegression
from reverse_perturbation.sections import Count, Section


class Config(Section):
    """Section ``logreg_default``."""

    max_iter: Count


class Baseline(LinearBaseline):
    """Nothing is chosen; the objective and its weights are scikit-learn's defaults."""

    def fit(self, screen: MaskedScreen, rows: np.ndarray) -> None:
        """Fit on some cells."""
        self.model = LogisticRegression(scaling="none", c=1.0, max_iter=self.config.max_iter)
        self.model.fit(features(screen, self.features)[rows], screen.conditions[rows])
