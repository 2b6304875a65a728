"""Foundation models by name.

A foundation model is a folder of ``reverse_perturbation.models``, named first in ``params.yaml: models``. It has a
package ``encoder`` (:class:`EncoderModule`) and a module ``pretrain`` (:class:`PretrainModule`); head, training, cache,
fusion and report know nothing else of it.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from reverse_perturbation.config import Params

if TYPE_CHECKING:  # torch takes seconds to import, and not every stage needs it
    from reverse_perturbation.data.screen.masked_screen import MaskedScreen
    from reverse_perturbation.models.encoder.interface import Checkpoint


class EncoderModule(Protocol):
    """The package ``encoder`` of a foundation model."""

    def read_vocabulary(self, params: Params) -> dict[str, int]:
        """Return gene symbol -> token id, without loading weights."""

    def load_checkpoint(self, folder: str | Path) -> "Checkpoint":
        """Load what ``pretrain.provide`` wrote; an InputError names what is wrong."""


class PretrainModule(Protocol):
    """The module ``pretrain`` of a foundation model."""

    def provide(self, params: Params, load: "Callable[[], MaskedScreen]", folder: str | Path) -> None:
        """Write the checkpoint that fine-tuning starts from: the user's own, or one trained on the screen's cells."""


def load_encoder(name: str) -> EncoderModule:
    """Import the encoder of a foundation model."""
    return cast(EncoderModule, import_module(f"reverse_perturbation.models.{name}.encoder"))


def load_pretraining(name: str) -> PretrainModule:
    """Import the pretraining of a foundation model."""
    return cast(PretrainModule, import_module(f"reverse_perturbation.models.{name}.pretrain"))
