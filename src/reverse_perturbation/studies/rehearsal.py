"""What a rehearsal needs beside its settings: a checkpoint in the official layout, with random weights."""

from pathlib import Path

import torch

from reverse_perturbation.models.scgpt.encoder.backbone import Architecture, ScgptBackbone
from reverse_perturbation.models.scgpt.encoder.checkpoint import save_checkpoint
from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary

CHECKPOINT = Path("data/raw/random_scgpt")  # the rehearsals of experiments/ name it
# The args.json of scGPT whole-human, as far as it matters here; what it lacks has the default of the official one.
WHOLE_HUMAN = {"nlayers": 12, "nheads": 8, "embsize": 512, "d_hid": 512, "dropout": 0.2, "n_bins": 51}


def provide_checkpoint(folder: Path = CHECKPOINT) -> None:
    """Write scGPT whole-human with random weights: 60,697 tokens, 12 layers of width 512, 206 MB; once."""
    if folder.exists():
        return
    print(f"experiments: {folder}: writing a checkpoint of the official size, with random weights", flush=True)
    architecture = Architecture.from_args(WHOLE_HUMAN, "rehearsal")
    vocabulary = default_vocabulary()
    torch.manual_seed(0)
    save_checkpoint(folder, ScgptBackbone(architecture, vocabulary), vocabulary, architecture)
