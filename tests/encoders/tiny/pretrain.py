"""Random weights: nothing is learned before fine-tuning."""

from collections.abc import Callable
from pathlib import Path

import torch
from reverse_perturbation.models.tiny.encoder.checkpoint import TinyBackbone
from reverse_perturbation.models.tiny.encoder.vocabulary import Config
from safetensors.torch import save_file

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.storage import write_atomically, write_json


def provide(params: Params, load: Callable[[], MaskedScreen], folder: str | Path) -> None:
    """Write the weights and the genes of this screen that have a token."""
    genes = sorted({token for token in load().tokens if token})
    width = params.section("tiny", Config).width
    torch.manual_seed(0)
    with write_atomically(folder) as temporary:
        temporary.mkdir()
        save_file(TinyBackbone(len(genes), width).state_dict(), temporary / "weights.safetensors")
        write_json(temporary / "about.json", {"genes": genes, "width": width})
