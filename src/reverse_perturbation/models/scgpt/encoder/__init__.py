"""scGPT as an encoder: what ``models.encoder.interface.EncoderModule`` asks for. torch is imported where it is used."""

from pathlib import Path
from typing import TYPE_CHECKING

from reverse_perturbation.config import Params
from reverse_perturbation.models.scgpt.encoder import vocabulary

if TYPE_CHECKING:
    from reverse_perturbation.models.scgpt.encoder.checkpoint import ScgptCheckpoint


def read_vocabulary(params: Params) -> dict[str, int]:
    """Return token -> id of ``scgpt.checkpoint``, or the official vocabulary where no checkpoint is given."""
    folder = params.scgpt.checkpoint
    return vocabulary.default_vocabulary() if folder is None else vocabulary.read_vocabulary(folder)


def load_checkpoint(folder: str | Path) -> "ScgptCheckpoint":
    """Load a folder in the official layout."""
    from reverse_perturbation.models.scgpt.encoder import checkpoint

    return checkpoint.load_checkpoint(folder)
