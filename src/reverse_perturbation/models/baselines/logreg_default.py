"""Multinomial logistic regression with the earlier project's settings: unscaled expression, C = 1."""

import numpy as np

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.models.linear.baseline import LogregBaseline
from reverse_perturbation.models.linear.logreg import LogisticRegression
from reverse_perturbation.sections import Count, Section


class Config(Section):
    """Section ``logreg_default``."""

    max_iter: Count


class Baseline(LogregBaseline):
    """Nothing is chosen on validation; the objective and its weights are scikit-learn's defaults."""

    def select(self, screen: MaskedScreen, reference: np.ndarray, validation: np.ndarray) -> None:
        """Fit on the reference cells."""
        self.model = LogisticRegression(scaling="none", c=1.0, max_iter=self.config.max_iter)
        self.model.fit(self.features(screen)[reference], screen.conditions[reference])
