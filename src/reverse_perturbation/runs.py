"""The models of an experiment: their runs, where the files of each lie, and how they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from reverse_perturbation.config import Params

REFERENCE_BASELINE = "logreg"  # the specification's, which the targets name
TITLES = {"scgpt": "scGPT"}  # of models whose name is written otherwise in prose
# Baselines in the plots that show some models only; a plot of all of them cannot be read.
PLOTTED_BASELINES = (REFERENCE_BASELINE, "pca")


@dataclass(frozen=True)
class Run:
    """A model, fitted with one training seed where it has seeds, and where its files lie in each folder."""

    model: str
    seed: int | None = None

    @property
    def name(self) -> str:
        """Name of its files, for people and DVC: never parsed."""
        return self.model if self.seed is None else f"{self.model}-{self.seed}"

    def weights(self, folder: str | Path) -> Path:
        """Return the folder of its fitted weights."""
        return Path(folder) / self.name

    def predictions(self, folder: str | Path, fit: str) -> Path:
        """Return the file of what one of its two fits predicts for every cell."""
        return Path(folder) / self.name / f"{fit}.npz"

    def cross_validation(self, folder: str | Path) -> Path:
        """Return the file that says how a baseline did on cells held out, beside its predictions."""
        return Path(folder) / self.name / "cross_validation.json"

    def metrics(self, folder: str | Path) -> Path:
        """Return its metrics file."""
        return Path(folder) / f"{self.name}.json"

    def scores(self, folder: str | Path) -> Path:
        """Return the file of the scores its metrics are computed from."""
        return Path(folder) / f"{self.name}.npz"

    def curves(self, folder: str | Path) -> Path:
        """Return the folder of its training curves."""
        return Path(folder) / self.name


def trained_runs(params: Params) -> dict[str, list[Run]]:
    """Return the runs of each model that has training seeds, the foundation model first."""
    return {model: [Run(model, seed) for seed in params.seeds] for model in params.models}


def baseline_runs(params: Params) -> dict[str, list[Run]]:
    """Return the runs of each baseline."""
    return {name: [Run(name)] for name in params.baselines}


def all_runs(params: Params) -> dict[str, list[Run]]:
    """Return the runs of each model, in the order of every table."""
    return trained_runs(params) | baseline_runs(params)


def gap_prefix(model: str, encoder: str) -> str:
    """Return the prefix of a model's ``gap``, ``ratio`` and ``interval`` in the comparison; the encoder has none."""
    return "" if model == encoder else f"{model}_"


def plotted(models: Sequence[str]) -> list[str]:
    """Return the models in plots that show some only: those with training seeds, and two baselines.

    Parameters
    ----------
    models
        Those with training seeds.
    """
    return [*models, *PLOTTED_BASELINES]


def describe_baselines(params: Params) -> dict[str, str]:
    """Return the first line of each baseline's file."""
    return {
        name: (import_module(f"reverse_perturbation.models.baselines.{name}").__doc__ or name).splitlines()[0]
        for name in params.baselines
    }


def title(model: str) -> str:
    """Return a model's name as prose has it."""
    return TITLES.get(model, model)
