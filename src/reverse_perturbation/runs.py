"""The models of an experiment: their runs, where the files of each lie, and how they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

from reverse_perturbation.config import Params

REFERENCE_BASELINE = "logreg"  # the specification's, which the targets name
TITLES = {"scgpt": "scGPT"}  # of models whose name is written otherwise in prose
FUSION = "fusion"  # the foundation model's probabilities and the baselines'
STACK = "stack"  # the baselines' alone
Origin = Literal["baselines", "trained", "combined"]  # a folder of predictions
Group = Literal["baselines", "models"]  # a folder of metrics, and of scores
# Baselines in the plots that show some models only; a plot of all of them cannot be read.
PLOTTED_BASELINES = (REFERENCE_BASELINE, "pca")


@dataclass(frozen=True)
class Run:
    """A model, fitted with one training seed where it has seeds, and where its files lie in each folder.

    Attributes
    ----------
    model
        Name of the model.
    seed
        Its training seed, None without one.
    origin
        What made its predictions: a baseline's stage, training, or a combination of these.
    """

    model: str
    seed: int | None = None
    origin: Origin = "baselines"

    @property
    def name(self) -> str:
        """Name of its files, for people and DVC: never parsed."""
        return self.model if self.seed is None else f"{self.model}-{self.seed}"

    def weights(self, folder: str | Path) -> Path:
        """Return the folder of its fitted weights."""
        return Path(folder) / self.name

    def predictions(self, folder: str | Path, fit: str) -> Path:
        """Return the file of what one of its two fits predicts for every cell."""
        return Path(folder) / self.origin / self.name / f"{fit}.npz"

    def facts(self, folder: str | Path) -> Path:
        """Return the file of what its stage has to say of it, beside its predictions; an ensemble has none."""
        return Path(folder) / self.origin / self.name / "facts.json"

    @property
    def group(self) -> Group:
        """Whether it is a baseline or another model, which are evaluated by stages of their own."""
        return "baselines" if self.origin == "baselines" else "models"

    def metrics(self, folder: str | Path) -> Path:
        """Return its metrics file."""
        return Path(folder) / self.group / f"{self.name}.json"

    def scores(self, folder: str | Path) -> Path:
        """Return the file of the scores its metrics are computed from."""
        return Path(folder) / self.group / f"{self.name}.npz"

    def curves(self, folder: str | Path) -> Path:
        """Return the folder of its training curves."""
        return Path(folder) / self.name


def seeded_runs(params: Params) -> dict[str, list[Run]]:
    """Return the runs of each model that has training seeds, the foundation model first."""
    origins: dict[str, Origin] = {FUSION: "combined"}
    return {
        model: [Run(model, seed, origins.get(model, "trained")) for seed in params.seeds] for model in params.models
    }


def ensemble_of(model: str) -> Run:
    """Return the run that averages a model's log-probabilities over its training seeds."""
    return Run(f"{model}_ensemble", origin="combined")


def trained_runs(params: Params) -> dict[str, list[Run]]:
    """Return the runs of each model that training has a part in: of all seeds, and their ensemble."""
    runs: dict[str, list[Run]] = {}
    for model, of_model in seeded_runs(params).items():
        ensemble = ensemble_of(model)
        runs |= {model: of_model, ensemble.model: [ensemble]}
    return runs


def baseline_runs(params: Params) -> dict[str, list[Run]]:
    """Return the runs of each baseline."""
    return {name: [Run(name)] for name in params.baselines}


def simple_runs(params: Params) -> dict[str, list[Run]]:
    """Return the runs of each model without a foundation model: the baselines and their stack."""
    return baseline_runs(params) | {STACK: [Run(STACK, origin="combined")]}


def all_runs(params: Params) -> dict[str, list[Run]]:
    """Return the runs of each model, in the order of every table."""
    return trained_runs(params) | simple_runs(params)


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
    """Return the first line of each baseline's file, and what their stack is."""
    files = {name: import_module(f"reverse_perturbation.models.baselines.{name}") for name in params.baselines}
    return {name: (file.__doc__ or name).splitlines()[0] for name, file in files.items()} | {
        STACK: "The baselines' log-probabilities in a weighted sum, the weights fitted on validation."
    }


def title(model: str) -> str:
    """Return a model's name as prose has it."""
    return TITLES.get(model, model)
