"""A network without attention: genes are embedded, and each layer adds what the cell's tokens have in common."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.models.encoder.interface import Backbone, Checkpoint, Tokenizer
from reverse_perturbation.models.encoder.tokens import Batch, Tokens
from reverse_perturbation.storage import sha256


class TinyLayer(nn.Module):
    """Add a nonlinear map of the mean over a cell's tokens."""

    def __init__(self, width: int):
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, states: Tensor, padding: Tensor) -> Tensor:
        present = (~padding).unsqueeze(2).to(states.dtype)
        mean = (states * present).sum(1, keepdim=True) / present.sum(1, keepdim=True)
        return states + torch.tanh(self.mix(mean))


class TinyBackbone(Backbone):
    """One layer over a table."""

    lora_paths = {"linear1": r"stack\.\d+\.mix"}  # noqa: RUF012

    def __init__(self, n_genes: int, width: int):
        super().__init__()
        self.table = nn.Embedding(n_genes + 2, width)
        self.stack = nn.ModuleList([TinyLayer(width)])
        self.guess = nn.Linear(width, 1)  # predicts values in pretraining; states do not depend on it

    width = property(lambda self: self.table.embedding_dim)
    vocabulary_size = property(lambda self: self.table.num_embeddings)
    layers = property(lambda self: self.stack)

    def embed(self, batch: Batch) -> Tensor:
        return self.table(batch.ids) * batch.values.clamp(min=0.1).unsqueeze(2)

    def transform(self, states: Tensor, padding: Tensor, *, first: int = 0, last: int | None = None) -> Tensor:
        for layer in self.stack[first:last]:
            states = layer(states, padding)
        return states

    def shapes_embedding(self, name: str) -> bool:
        return not name.startswith("guess")


@dataclass(frozen=True)
class TinyCheckpoint(Checkpoint):
    """Weights and genes; token ids are the places of the genes."""

    backbone: TinyBackbone
    genes: list[str]
    folder: Path

    @property
    def sha256(self) -> str:
        return sha256(self.folder)

    def tokenizer(self, screen: MaskedScreen, params: Params) -> Tokenizer:
        place = {gene: i for i, gene in enumerate(self.genes)}
        ids = np.array([place.get(token, -1) for token in screen.tokens])

        def tokenize(cells: MaskedScreen) -> Tokens:
            expression = cells.log1p()[:, np.flatnonzero(ids >= 0)].sorted_indices()
            return Tokens(
                ids=ids[ids >= 0][expression.indices].astype(np.int32),
                values=expression.data,
                offsets=expression.indptr.astype(np.int64),
                cls_id=len(self.genes),
                pad_id=len(self.genes) + 1,
                pad_value=0,
            )

        return tokenize

    def token_ids(self, screen: MaskedScreen) -> Tensor:
        place = {gene: i for i, gene in enumerate(self.genes)}
        return torch.tensor(sorted(place[token] for token in set(screen.tokens) if token in place))


def load_checkpoint(folder: str | Path) -> TinyCheckpoint:
    """Load the folder that ``pretrain.provide`` wrote."""
    folder = Path(folder)
    about = json.loads((folder / "about.json").read_text())
    model = TinyBackbone(len(about["genes"]), about["width"])
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return TinyCheckpoint(model.eval(), about["genes"], folder)
