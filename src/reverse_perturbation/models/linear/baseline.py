"""Baselines that are a logistic regression on some features."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.models.linear.logreg import LogisticRegression, tune
from reverse_perturbation.models.ranker import Ranker
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.sections import Count, Positive, Section


class TunedConfig(Section):
    """Settings tried on the validation cells."""

    scaling: Annotated[list[Literal["none", "max_abs"]], Field(min_length=1)]
    c: Annotated[list[Positive], Field(min_length=1)]
    max_iter: Count


class LogregBaseline(Ranker):
    """Logistic regression on :meth:`features`; :meth:`select` makes ``model``."""

    model: LogisticRegression

    def features(self, screen: MaskedScreen) -> sp.csr_matrix:
        """Return CSR float32 [n_cells, n_columns]: log1p expression."""
        return screen.log1p()

    def columns(self, screen: MaskedScreen) -> list[str]:
        """Return the names of the columns."""
        return list(screen.genes)

    def fit(self, screen: MaskedScreen, rows: np.ndarray) -> None:
        """Fit the chosen configuration on some cells, warm-started from the fit before."""
        model = self.model.unfitted()
        self.model = model.fit(self.features(screen)[rows], screen.conditions[rows], start=self.model)

    def predict(self, screen: MaskedScreen) -> Predictions:
        """Return log-probabilities of the conditions."""
        return Predictions(
            cell_ids=screen.cell_ids,
            log_proba=self.model.log_proba(self.features(screen)),
            conditions=self.model.conditions,
            embedding=None,
        )

    def save(self, folder: str | Path, screen: MaskedScreen) -> None:
        """Write the weights and what they belong to."""
        self.model.save(folder, self.columns(screen))


class TunedBaseline(LogregBaseline):
    """Scaling and C are chosen by validation cross-entropy."""

    def select(self, screen: MaskedScreen, reference: np.ndarray, validation: np.ndarray) -> None:
        """Fit every configuration on the reference cells and keep the best on validation."""
        features, labels = self.features(screen), screen.conditions
        self.model, self.choices = tune(
            features[reference],
            labels[reference],
            features[validation],
            labels[validation],
            scalings=self.config.scaling,
            cs=self.config.c,
            max_iter=self.config.max_iter,
            name=self.name,
        )
