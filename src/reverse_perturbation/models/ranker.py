"""What a baseline is: a ranker in one file of ``models/baselines``, found there by its name."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.metrics.ranks.per_query import exact_hit, reciprocal_rank
from reverse_perturbation.metrics.ranks.ranking import Ranking
from reverse_perturbation.retrieval.predictions import Predictions

Folds = Sequence[tuple[np.ndarray, np.ndarray]]  # rows to fit on, rows held out
Held = tuple[np.ndarray, np.ndarray, np.ndarray]  # log-probabilities of held out cells, the conditions, the true ones


class Ranker(ABC):
    """A model without training seeds, fitted twice on expression.

    A file of ``models/baselines`` has two classes: ``Config``, its section of params.yaml, and ``Baseline``, a ranker.

    Parameters
    ----------
    config
        The section.

    Attributes
    ----------
    choices
        One row a configuration tried by :meth:`select`, kept as choices.csv beside the weights; None where nothing is
        chosen.
    """

    def __init__(self, config: Any):
        self.config = config
        self.choices: pd.DataFrame | None = None

    @property
    def name(self) -> str:
        """Name of its file, by which params.yaml lists it."""
        return type(self).__module__.rpartition(".")[2]

    def select(self, screen: MaskedScreen, folds: Folds) -> None:  # noqa: B027, not every baseline has a choice
        """Make every choice by cross-validation in the known cells; :meth:`fit` then keeps to it.

        Parameters
        ----------
        screen
            Cells of the split.
        folds
            For each fold the rows to fit on and the rows held out, all of them known cells.
        """

    @abstractmethod
    def fit(self, screen: MaskedScreen, rows: np.ndarray) -> None:
        """Fit on some cells, with the choices made before; only their labels may be read."""

    @abstractmethod
    def predict(self, screen: MaskedScreen) -> Predictions:
        """Score every condition for every cell, or embed every cell, or both."""

    @abstractmethod
    def save(self, folder: str | Path, screen: MaskedScreen) -> None:
        """Write the fitted weights without pickle."""


def cross_validate(ranker: Ranker, screen: MaskedScreen, folds: Folds) -> dict[str, float] | None:
    """Fit a ranker on each fold and judge it on the cells held out; None for one without class probabilities.

    Returns
    -------
    dict
        ``cross_entropy`` in nats, ``exact_hit@1`` and ``mrr`` of the cells held out.
    """
    parts: list[Held] = []
    for train, held in folds:
        ranker.fit(screen, train)
        found = ranker.predict(screen.take(held))
        if found.log_proba is None or found.conditions is None:
            return None
        parts.append((found.log_proba, found.conditions, screen.conditions[held]))
    return held_out(parts)


def held_out(parts: Sequence[Held]) -> dict[str, float]:
    """Return ``cross_entropy`` in nats, ``exact_hit@1`` and ``mrr`` of the cells held out in all folds."""
    values = []
    for log_proba, conditions, labels in parts:
        ranking = Ranking.of(log_proba, labels, conditions)
        of_truth = np.take_along_axis(log_proba, ranking.truth[:, None], axis=1)[:, 0]
        values.append(np.stack([-of_truth.astype(np.float64), exact_hit(ranking, 1), reciprocal_rank(ranking)]))
    means = np.concatenate(values, axis=1).mean(axis=1)
    return dict(zip(("cross_entropy", "exact_hit@1", "mrr"), means.tolist(), strict=True))


def load_baseline(name: str, params: Params) -> Ranker:
    """Make the unfitted baseline of a name, with its section of params.yaml.

    Raises
    ------
    InputError
        If the section has an unknown, missing or wrong key.
    """
    module = import_module(f"reverse_perturbation.models.baselines.{name}")
    baseline: Ranker = module.Baseline(params.section(name, module.Config))
    return baseline
