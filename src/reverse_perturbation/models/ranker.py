"""What a baseline is: a ranker in one file of ``models/baselines``, found there by its name."""

from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.retrieval.predictions import Predictions


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

    def select(self, screen: MaskedScreen, reference: np.ndarray, validation: np.ndarray) -> None:
        """Fit on the reference cells; make every choice on the validation cells.

        Parameters
        ----------
        screen
            Cells of the split.
        reference, validation
            int arrays: rows of its parts.
        """
        self.fit(screen, reference)

    @abstractmethod
    def fit(self, screen: MaskedScreen, rows: np.ndarray) -> None:
        """Fit on some cells, with the choices made before; only their labels may be read."""

    @abstractmethod
    def predict(self, screen: MaskedScreen) -> Predictions:
        """Score every condition for every cell, or embed every cell, or both."""

    @abstractmethod
    def save(self, folder: str | Path, screen: MaskedScreen) -> None:
        """Write the fitted weights without pickle."""


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
