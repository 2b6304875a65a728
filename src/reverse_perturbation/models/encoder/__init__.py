"""Foundation models by name.

A foundation model is a folder of ``reverse_perturbation.models``, named first in ``params.yaml: models``, with three
modules: ``encoder.vocabulary``, ``encoder.checkpoint`` and ``pretrain``. Head, training, cache, fusion and report know
nothing else of it.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from reverse_perturbation.config import Params

if TYPE_CHECKING:  # torch takes seconds to import, and not every stage needs it
    from reverse_perturbation.data.screen.masked_screen import MaskedScreen
    from reverse_perturbation.models.encoder.interface import Checkpoint


class VocabularyModule(Protocol):
    """The module ``encoder.vocabulary``, which is imported without torch."""

    def read_vocabulary(self, params: Params) -> dict[str, int]:
        """Return gene symbol -> token id."""


class CheckpointModule(Protocol):
    """The module ``encoder.checkpoint``."""

    def load_checkpoint(self, folder: str | Path) -> "Checkpoint":
        """Load what ``pretrain.provide`` wrote; an InputError names what is wrong."""


class PretrainModule(Protocol):
    """The module ``pretrain``."""

    def provide(self, params: Params, load: "Callable[[], MaskedScreen]", folder: str | Path) -> None:
        """Write the checkpoint that fine-tuning starts from: the user's own, or one trained on the screen's cells."""


def read_vocabulary(params: Params) -> dict[str, int]:
    """Read the vocabulary of the foundation model."""
    return cast(VocabularyModule, _module(params, "encoder.vocabulary")).read_vocabulary(params)


def load_checkpoint(params: Params, folder: str | Path) -> "Checkpoint":
    """Load a checkpoint of the foundation model."""
    return cast(CheckpointModule, _module(params, "encoder.checkpoint")).load_checkpoint(folder)


def provide_checkpoint(params: Params, load: "Callable[[], MaskedScreen]", folder: str | Path) -> None:
    """Write the checkpoint of the foundation model that fine-tuning starts from."""
    cast(PretrainModule, _module(params, "pretrain")).provide(params, load, folder)


def _module(params: Params, name: str) -> object:
    return import_module(f"reverse_perturbation.models.{params.encoder}.{name}")
