"""Readouts of the backbone's output, and the head that scores the conditions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from reverse_perturbation.sections import Head as HeadConfig


class GeneReadout(nn.Module):
    """Read a few numbers from each gene's output token, each gene in its own place.

    A token's output ``h_g`` is projected to ``rank`` numbers, the same projection for all genes; they enter at
    the gene's own place in one vector of ``n_genes * rank``, zero where the gene has no token, and a linear
    map takes that vector to ``out`` numbers. So the weight a gene's state gets depends on the gene, as in
    a logistic regression on expression; a mean over tokens cannot do that.

    Parameters
    ----------
    width
        Length of the backbone's tokens.
    token_ids
        LongTensor [n_genes], the token of each gene that has one.
    vocabulary_size
        Number of tokens of the backbone.
    rank, out
        Numbers read from each token, and length of the result.
    """

    def __init__(self, width: int, token_ids: Tensor, vocabulary_size: int, rank: int, out: int):
        super().__init__()
        place = torch.full((vocabulary_size,), len(token_ids), dtype=torch.long)  # one past the genes: dropped
        place[token_ids] = torch.arange(len(token_ids))
        self.register_buffer("place", place, persistent=False)
        self.n_genes = len(token_ids)
        self.project = nn.Linear(width, rank)
        self.mix = nn.Linear(self.n_genes * rank, out, bias=False)
        # A cell has tokens for a small part of the genes; the default scale, 1/sqrt(n_genes * rank), would
        # leave the result near zero beside the other readouts.
        nn.init.normal_(self.mix.weight, std=(rank * min(self.n_genes, 64)) ** -0.5)

    def forward(self, hidden: Tensor, ids: Tensor, padding: Tensor) -> Tensor:
        """Return [batch, out] from hidden [batch, tokens, width], ids and padding [batch, tokens]."""
        place: Tensor = self.place[ids].masked_fill(padding, self.n_genes)  # type: ignore[index]
        read = self.project(hidden)
        table = read.new_zeros(len(hidden), self.n_genes + 1, read.shape[2])
        # scatter, whose gradient is a gather; indexing's gradient adds up token by token, which took longer than
        # the transformer.
        table = table.scatter(1, place.unsqueeze(2).expand_as(read), read)
        return self.mix(table[:, : self.n_genes].flatten(1))


class Readout(nn.Module):
    """Concatenate the configured readouts: the ``<cls>`` token, the mean of the gene tokens, the genes."""

    def __init__(self, parts: Sequence[str], width: int, genes: GeneReadout | None = None):
        super().__init__()
        self.parts = parts
        self.genes = genes
        gene_out = genes.mix.out_features if genes is not None else 0
        self.out_features = sum(gene_out if part == "genes" else width for part in parts)

    def forward(self, hidden: Tensor, ids: Tensor, padding: Tensor) -> Tensor:
        """Return [batch, out_features]."""
        read = {"cls": self._cls, "mean": self._mean, "genes": self._genes}
        return torch.cat([read[part](hidden, ids, padding) for part in self.parts], dim=1)

    def _cls(self, hidden: Tensor, ids: Tensor, padding: Tensor) -> Tensor:
        return hidden[:, 0]

    def _mean(self, hidden: Tensor, ids: Tensor, padding: Tensor) -> Tensor:
        present = (~padding[:, 1:]).unsqueeze(2).to(hidden.dtype)
        return (hidden[:, 1:] * present).sum(1) / present.sum(1).clamp(min=1)

    def _genes(self, hidden: Tensor, ids: Tensor, padding: Tensor) -> Tensor:
        assert self.genes is not None
        return self.genes(hidden, ids, padding)


class Head(nn.Module):
    """From the readout to an embedding, and from the embedding to one score a condition.

    ``config.depth`` counts the linear layers before the classifier; with 0 the readout is the embedding. Without
    cross-entropy in the loss nothing would train a classifier: ``classify`` is False and there is none.
    """

    def __init__(self, n_in: int, n_conditions: int, config: HeadConfig, *, classify: bool):
        super().__init__()
        widths = [n_in] + [config.width] * (config.depth - 1)
        layers: list[nn.Module] = [nn.Dropout(config.dropout)]
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), nn.LayerNorm(b), nn.GELU(), nn.Dropout(config.dropout)]
        if config.depth:
            layers.append(nn.Linear(widths[-1], config.dim))
        self.embed = nn.Sequential(*layers)
        dim = config.dim if config.depth else n_in
        self.classify = nn.Linear(dim, n_conditions) if classify else None
        # Balanced batches cannot teach it, see losses.natural_log_prior. No weight: weight decay would shrink it.
        self.log_prior: Tensor
        self.register_buffer("log_prior", torch.zeros(n_conditions))

    def forward(self, readout: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the embedding [batch, dim] and the logits [batch, n_conditions]."""
        embedding = self.embed(readout)
        return embedding, None if self.classify is None else self.classify(embedding) + self.log_prior


@dataclass(frozen=True)
class CellOutput:
    """Output for a batch: embedding [batch, dim]; logits [batch, n_conditions] or None."""

    embedding: Tensor
    logits: Tensor | None
