"""Cells as token sequences: the input of every foundation model."""

from dataclasses import dataclass, fields, replace
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Input of a model: cells, padded to the longest.

    Attributes
    ----------
    ids
        int64 [batch, tokens], ``<cls>`` first.
    values
        float32 [batch, tokens].
    padding
        bool [batch, tokens], True behind a cell's last gene.
    frozen
        Output of ``EncoderClassifier.frozen`` for these cells, where it is known already.
    """

    ids: Tensor
    values: Tensor
    padding: Tensor
    frozen: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Move every tensor."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(**{name: t.to(device) for name, t in tensors.items() if t is not None})


class TokenSource(Protocol):
    """Cells as tokens, read in batches."""

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n_cells]: number of genes of each cell."""
        ...

    def batch(self, rows: np.ndarray) -> Batch:
        """Return some cells."""
        ...


@dataclass(frozen=True)
class Tokens:
    """Tokens of many cells, end to end, without padding and without ``<cls>``.

    Attributes
    ----------
    ids
        int32 [n_tokens].
    values
        float32 [n_tokens].
    offsets
        int64 [n_cells + 1]: cell i has tokens ``offsets[i]`` to ``offsets[i + 1]``.
    cls_id, pad_id
        Special tokens.
    pad_value
        Value of both.
    """

    ids: np.ndarray
    values: np.ndarray
    offsets: np.ndarray
    cls_id: int
    pad_id: int
    pad_value: int

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n_cells]: number of genes of each cell."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> "Tokens":
        """Return the tokens of some cells, in the order given."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        index = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return replace(self, ids=self.ids[index], values=self.values[index], offsets=offsets)

    def only(self, kept: np.ndarray) -> Self:
        """Return all cells with some of their tokens: those where ``kept``, bool [n_tokens], is True."""
        before = np.concatenate([[0], np.cumsum(kept)])
        return replace(self, ids=self.ids[kept], values=self.values[kept], offsets=before[self.offsets])

    def batch(self, rows: np.ndarray) -> Batch:
        """Return some cells, in the order given; ``<cls>`` has the pad value, as upstream feeds it."""
        taken = self.take(rows)
        lengths = taken.lengths
        shape = (len(rows), int(lengths.max(initial=0)) + 1)
        ids = np.full(shape, self.pad_id, dtype=np.int64)
        values = np.full(shape, self.pad_value, dtype=np.float32)
        present = np.arange(shape[1]) <= lengths[:, None]
        ids[:, 0] = self.cls_id
        genes = present.copy()
        genes[:, 0] = False
        ids[genes], values[genes] = taken.ids, taken.values
        return Batch(torch.from_numpy(ids), torch.from_numpy(values), torch.from_numpy(~present))
