"""Baselines that are a linear model on some features."""

from itertools import product
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator
from scipy.optimize import minimize_scalar

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.models.linear.features import Features, features
from reverse_perturbation.models.linear.logreg import LogisticRegression, Scaling
from reverse_perturbation.models.linear.model import LinearModel
from reverse_perturbation.models.ranker import Folds, Ranker, held_out
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.sections import Count, Positive, Section

TOLERANCE = 1e-5  # of fits that only choose: their cross-entropy is then right to about the fourth digit


class LinearBaseline(Ranker):
    """A linear model of the conditions; :meth:`fit` makes ``model``."""

    model: LinearModel
    features: Features = "log1p"

    def predict(self, screen: MaskedScreen) -> Predictions:
        """Return log-probabilities of the conditions."""
        log_proba = self.model.log_proba(features(screen, self.features))
        return Predictions(screen.cell_ids, log_proba, self.model.conditions, None)

    def save(self, folder: str | Path, screen: MaskedScreen) -> None:
        """Write the weights and what they belong to."""
        self.model.save(folder, self.features, list(screen.genes))


class Search(Section):
    """Range of a value that is searched on its logarithm, by Brent's method; of one value there is no search."""

    least: Positive
    most: Positive
    evaluations: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least is {self.least:g}, above most, {self.most:g}")
        return self


class TunedConfig(Section):
    """Settings tried by cross-validation."""

    features: Annotated[list[Features], Field(min_length=1)]
    scaling: Annotated[list[Scaling], Field(min_length=1)]
    c: Search
    max_iter: Count


class TunedBaseline(LinearBaseline):
    """Logistic regression, features, scaling and C chosen by the cross-entropy of the cells held out.

    Cross-entropy and not the mean reciprocal rank, whose noise hides how it changes with C.
    """

    def gene_shares(self) -> list[float]:
        """Return the values of ``gene_share`` tried."""
        return [0.0]

    def select(self, screen: MaskedScreen, folds: Folds) -> None:
        """Search C for every combination of the other settings; keep the least cross-entropy."""
        rows: list[dict[str, Any]] = []
        for kind, scaling, gene_share in product(self.config.features, self.config.scaling, self.gene_shares()):
            rows += self._search(screen, folds, kind, scaling, gene_share)
        self.choices = pd.DataFrame(rows)
        self.chosen = min(rows, key=lambda row: row["cross_entropy"])
        self.features = self.chosen["features"]

    def fit(self, screen: MaskedScreen, rows: np.ndarray) -> None:
        """Fit the chosen configuration."""
        names = ("scaling", "c", "gene_share")
        self.model = LogisticRegression(**{name: self.chosen[name] for name in names}, max_iter=self.config.max_iter)
        self.model.fit(features(screen, self.features)[rows], screen.conditions[rows])

    def _search(
        self, screen: MaskedScreen, folds: Folds, kind: Features, scaling: Scaling, gene_share: float
    ) -> list[dict[str, Any]]:
        """Return one row a value of C tried; each fit starts from that of the value before, on the same cells."""
        x, labels = features(screen, kind), screen.conditions
        starts: list[LogisticRegression | None] = [None for _ in folds]
        rows: list[dict[str, Any]] = []

        def cross_entropy(log_c: float) -> float:
            c, parts = float(10**log_c), []
            for i, (train, held) in enumerate(folds):
                model = LogisticRegression(scaling, c, self.config.max_iter, gene_share)
                starts[i] = model.fit(x[train], labels[train], start=starts[i], tolerance=TOLERANCE)
                parts.append((model.log_proba(x[held]), model.conditions, labels[held]))
            found = held_out(parts)
            rows.append({"features": kind, "scaling": scaling, "gene_share": gene_share, "c": c} | found)
            print(
                f"{self.name}: {kind}, scaling {scaling}, gene share {gene_share:g}, C {c:.3g}: held out "
                f"cross-entropy {found['cross_entropy']:.4f}, mrr {found['mrr']:.4f}",
                flush=True,
            )
            return found["cross_entropy"]

        search = self.config.c
        minimize_scalar(
            cross_entropy,
            bounds=(np.log10(search.least), np.log10(search.most)),
            method="bounded",
            options={"maxiter": search.evaluations, "xatol": 0.01},
        )
        return rows
