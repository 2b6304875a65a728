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


class DeviceTokens:
    """Tokens kept on a GPU, which makes the batches there: a step then waits for no copy.

    Parameters
    ----------
    tokens
        Of many cells.
    device
        Where to keep them.
    """

    def __init__(self, tokens: Tokens, device: torch.device):
        self.lengths = tokens.lengths
        self._special = (tokens.cls_id, tokens.pad_id, tokens.pad_value)
        # One more token, so that there is one to read and drop where no cell has any.
        self._ids = torch.from_numpy(np.append(tokens.ids, np.int32(tokens.pad_id))).to(device)
        self._values = torch.from_numpy(np.append(tokens.values, np.float32(tokens.pad_value))).to(device)
        self._offsets = torch.from_numpy(tokens.offsets).to(device)

    def batch(self, rows: np.ndarray) -> Batch:
        """Return some cells, as :meth:`Tokens.batch` does."""
        cls_id, pad_id, pad_value = self._special
        device = self._ids.device
        wanted = torch.from_numpy(rows).to(device)
        start, stop = self._offsets[wanted, None], self._offsets[wanted + 1, None]
        # One before a cell's first gene is the place of its <cls>.
        place = start + torch.arange(-1, int(self.lengths[rows].max(initial=0)), device=device)
        padding = place >= stop
        no_gene = padding | (place < start)
        place = place.masked_fill(no_gene, 0)
        ids = self._ids[place].long().masked_fill(no_gene, pad_id)
        ids[:, 0] = cls_id
        return Batch(ids, self._values[place].masked_fill(no_gene, pad_value), padding)


def on_device(tokens: TokenSource, device: torch.device) -> TokenSource:
    """Keep tokens on a GPU if they leave most of its memory free; else, and on a CPU, return them as they are."""
    if device.type != "cuda" or not isinstance(tokens, Tokens):
        return tokens
    free, _ = torch.cuda.mem_get_info(device)
    size = tokens.ids.nbytes + tokens.values.nbytes + tokens.offsets.nbytes
    return DeviceTokens(tokens, device) if size < free / 4 else tokens
