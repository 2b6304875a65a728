"""Linear discriminant analysis with a shrunken covariance; features and shrinkage chosen."""

from itertools import product
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.models.linear.baseline import LinearBaseline
from reverse_perturbation.models.linear.features import Features, features
from reverse_perturbation.models.linear.model import LinearModel
from reverse_perturbation.models.ranker import Folds, cross_validate
from reverse_perturbation.sections import Section, Share


class Config(Section):
    """Section ``lda``."""

    features: Annotated[list[Features], Field(min_length=1)]
    shrinkage: Annotated[list[Share], Field(min_length=1)]


class Baseline(LinearBaseline):
    """Chosen by the mrr of the cells held out: its probabilities are far too sure for a choice by cross-entropy."""

    def select(self, screen: MaskedScreen, folds: Folds) -> None:
        """Try every combination; keep the highest mrr."""
        rows = []
        for kind, shrinkage in product(self.config.features, self.config.shrinkage):
            self.features, self.shrinkage = kind, shrinkage
            found = cross_validate(self, screen, folds)
            assert found is not None
            rows.append({"features": kind, "shrinkage": shrinkage} | found)
            print(f"lda: {kind}, shrinkage {shrinkage:g}: held out mrr {found['mrr']:.4f}", flush=True)
        self.choices = pd.DataFrame(rows)
        best = max(rows, key=lambda row: row["mrr"])
        self.features, self.shrinkage = best["features"], best["shrinkage"]

    def fit(self, screen: MaskedScreen, rows: np.ndarray) -> None:
        """Fit on some cells: means of the conditions, and one covariance, shrunken towards the identity."""
        x = features(screen, self.features)[rows].toarray()
        labels = screen.conditions[rows].astype(str)
        fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=self.shrinkage).fit(x, labels)
        coef, intercept = fitted.coef_.astype(np.float64), fitted.intercept_.astype(np.float64)
        if len(fitted.classes_) == 2:  # scikit-learn then has the scores of the second, over the first
            coef, intercept = np.vstack([np.zeros_like(coef), coef]), np.append(0.0, intercept)
        self.model = LinearModel()
        self.model.conditions = fitted.classes_.astype(object)
        self.model.coef, self.model.intercept, self.model.scale = coef, intercept, np.ones(x.shape[1])
