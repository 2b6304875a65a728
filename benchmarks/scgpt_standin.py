"""The parts of upstream's ``TransformerModel`` that this project uses, for a machine without the package ``scgpt``.

The package brings dozens of others that a GPU machine need not have. Names, shapes and results are upstream's
(tests/benchmarks/test_gpu.py); only ``gpu.py`` uses it, and only to measure.
"""

import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn


class GeneEncoder(nn.Module):
    """Embedding of genes."""

    def __init__(self, n: int, width: int, padding: int):
        super().__init__()
        self.embedding = nn.Embedding(n, width, padding_idx=padding)
        self.enc_norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor) -> Tensor:
        """Return [..., width]."""
        return self.enc_norm(self.embedding(ids))


class ValueEncoder(nn.Module):
    """Embedding of values."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.linear1 = nn.Linear(1, width)
        self.linear2 = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        """Return [..., width]."""
        hidden = torch.relu(self.linear1(values.unsqueeze(-1).clamp(max=512)))
        return self.dropout(self.norm(self.linear2(hidden)))


class Decoder(nn.Module):
    """Values from the genes' states."""

    def __init__(self, width: int):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, 1)
        )

    def forward(self, states: Tensor) -> Tensor:
        """Return [batch, tokens]."""
        return self.fc(states).squeeze(-1)


class MvcDecoder(nn.Module):
    """Values from the cell's state and the gene alone."""

    def __init__(self, width: int):
        super().__init__()
        self.gene2query = nn.Linear(width, width)
        self.W = nn.Linear(width, width, bias=False)

    def forward(self, cell: Tensor, genes: Tensor) -> Tensor:
        """Return [batch, tokens]."""
        return torch.bmm(self.W(torch.sigmoid(self.gene2query(genes))), cell.unsqueeze(2)).squeeze(2)


class TransformerModel(nn.Module):
    """Takes what ``ScgptBackbone`` gives; the layers are put in by it."""

    transformer_encoder: nn.Module

    def __init__(self, *, ntoken: int, d_model: int, dropout: float, vocab: Any, pad_token: str, **_: Any):
        super().__init__()
        self.d_model = d_model
        self.encoder = GeneEncoder(ntoken, d_model, vocab[pad_token])
        self.value_encoder = ValueEncoder(d_model, dropout)
        self.decoder = Decoder(d_model)
        self.mvc_decoder = MvcDecoder(d_model)

    def forward(self, ids: Tensor, values: Tensor, *, src_key_padding_mask: Tensor, MVC: bool) -> dict[str, Tensor]:
        """Return the two predictions of values, each [batch, tokens]."""
        genes = self.encoder(ids)
        states = self.transformer_encoder(genes + self.value_encoder(values), src_key_padding_mask=src_key_padding_mask)
        return {"mlm_output": self.decoder(states), "mvc_output": self.mvc_decoder(states[:, 0], genes)}


def install() -> None:
    """Stand in for the package, until the process ends."""
    package, model = ModuleType("scgpt"), ModuleType("scgpt.model")
    model.TransformerModel = TransformerModel  # type: ignore[attr-defined]
    sys.modules |= {"scgpt": package, "scgpt.model": model}
