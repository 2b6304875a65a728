"""Fusion: scGPT beside the logistic regression it is measured against, whose scores it starts from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from reverse_perturbation.config import Finetune, Fusion
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.logreg import LogisticRegression
from reverse_perturbation.models.scgpt.checkpoint import Checkpoint
from reverse_perturbation.models.scgpt.classifier import ScgptClassifier, load_classifier
from reverse_perturbation.models.scgpt.heads import CellOutput
from reverse_perturbation.models.scgpt.tokens import Batch, Tokens


@dataclass(frozen=True)
class TokensAndExpression(Tokens):
    """Tokens of many cells and, beside them, the masked expression that logistic regression is given.

    Attributes
    ----------
    expression
        CSR float32 [n_cells, n_genes], of ``Screen.log1p``; only a batch of it is ever dense.
    """

    expression: sp.csr_matrix

    @classmethod
    def join(cls, tokens: Tokens, expression: sp.csr_matrix) -> "TokensAndExpression":
        """Set the expression of the same cells beside their tokens."""
        return cls(**{field.name: getattr(tokens, field.name) for field in fields(Tokens)}, expression=expression)

    def take(self, rows: np.ndarray) -> "TokensAndExpression":
        """Return some cells, in the order given."""
        return replace(super().take(rows), expression=self.expression[rows])  # type: ignore[call-arg, return-value]

    def batch(self, rows: np.ndarray) -> Batch:
        """Return some cells, in the order given, with their expression."""
        return replace(super().batch(rows), expression=torch.from_numpy(self.expression[rows].toarray()))


class LinearPart(nn.Module):
    """The scores of a logistic regression, ``weight @ (expression / scale) + bias``, as a layer that can be trained."""

    scale: Tensor

    def __init__(self, n_genes: int, n_conditions: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_conditions, n_genes))
        self.bias = nn.Parameter(torch.zeros(n_conditions))
        self.register_buffer("scale", torch.ones(n_genes))

    @classmethod
    def load(cls, folder: str | Path, genes: Sequence[str], conditions: Sequence[str], source: str) -> "LinearPart":
        """Start from the fitted logistic regression in ``folder``.

        Parameters
        ----------
        folder
            Written by ``LogisticRegression.save``.
        genes, conditions
            What its columns and classes must be, in this order.
        source
            Where these come from, for the error.

        Raises
        ------
        InputError
            If it was fitted on other genes or conditions.
        """
        fitted = LogisticRegression.load(folder)
        _check_names(folder, "genes", fitted.genes, genes, source, "logreg")
        _check_names(folder, "conditions", list(fitted.conditions), conditions, source, "logreg")
        part = cls(len(genes), len(conditions))
        with torch.no_grad():
            part.weight.copy_(torch.from_numpy(fitted.coef))
            part.bias.copy_(torch.from_numpy(fitted.intercept))
            part.scale.copy_(torch.from_numpy(fitted.scale))
        return part

    def forward(self, expression: Tensor) -> Tensor:
        """Return [batch, n_conditions] from expression [batch, n_genes]."""
        return nn.functional.linear(expression / self.scale, self.weight, self.bias)


class FusionClassifier(ScgptClassifier):
    """scGPT's classifier whose logits are added to those of a :class:`LinearPart`.

    The last layer of scGPT's head starts at zero, so before training the scores are the linear part's own. In training
    a cell goes without them with probability ``fusion.linear_dropout``: logistic regression knows its training cells
    too well, and scGPT would be left with too little to explain of them (modality dropout, Neverova et al., ModDrop,
    2016; figures in docs/protocol.md). The
    embedding is scGPT's alone: what its head reads beside, not instead of, the linear part. Under the adaptation
    ``frozen`` scGPT has no head and the scores stay those of the linear part.

    Parameters
    ----------
    backbone, token_ids, config
        As :class:`ScgptClassifier` takes them.
    linear
        The linear part; it becomes part of this model.
    fusion
        Section ``fusion``.
    """

    def __init__(self, backbone: nn.Module, token_ids: Tensor, linear: LinearPart, config: Finetune, fusion: Fusion):
        super().__init__(backbone, token_ids, len(linear.bias), config)
        self.linear_learning_rate = fusion.linear_learning_rate
        self.linear_dropout = fusion.linear_dropout
        self.linear = linear.requires_grad_(fusion.linear_learning_rate > 0)
        if self.head is not None and self.head.classify is not None:
            nn.init.zeros_(self.head.classify.weight)
            nn.init.zeros_(self.head.classify.bias)

    def forward(self, batch: Batch) -> CellOutput:
        """Score a batch of cells as ``TokensAndExpression.batch`` gives them."""
        output = super().forward(batch)
        scores: Tensor = self.linear(batch.expression)
        if self.training and self.linear_dropout:
            scores = scores * (torch.rand(len(scores), 1, device=scores.device) >= self.linear_dropout)
        return replace(output, logits=scores if output.logits is None else scores + output.logits)

    def parameter_groups(self, config: Finetune) -> list[dict[str, Any]]:
        """Return scGPT's groups and the linear part's.

        The linear part has no weight decay. Its weights start where the penalty that was tuned for them holds them;
        decay would draw them on to zero, and away from the model that fusion is measured against.
        """
        groups = super().parameter_groups(config)
        if self.linear_learning_rate:
            own = {"params": list(self.linear.parameters()), "lr": self.linear_learning_rate, "weight_decay": 0.0}
            groups.append({"name": "linear"} | own)
        return groups

    def start_from_prior(self, log_prior: Tensor) -> None:
        """Change nothing: the linear part was fitted on cells as they come, its bias holds their frequencies."""

    def trainable_state(self) -> dict[str, Tensor]:
        """Return scGPT's trained weights and all of the linear part, trained or not: no checkpoint holds it."""
        linear = {f"linear.{name}": t.detach().contiguous() for name, t in self.linear.state_dict().items()}
        return super().trainable_state() | linear


def load_fusion(
    folder: str | Path, fit: str, checkpoint: Checkpoint, genes: Sequence[str], source: str
) -> tuple[ScgptClassifier, list[str]]:
    """Rebuild one fit, as :func:`load_classifier` does.

    Raises
    ------
    InputError
        Also if it was trained on other genes than ``genes``, which come from ``source``.
    """

    def build(backbone: nn.Module, about: Mapping[str, Any]) -> FusionClassifier:
        _check_names(folder, "genes", about["genes"], genes, source, "fuse")
        return FusionClassifier(
            backbone,
            torch.tensor(about["token_ids"]),
            LinearPart(len(genes), len(about["conditions"])),
            Finetune.model_validate(about["finetune"]),
            Fusion.model_validate(about["fusion"]),
        )

    return load_classifier(folder, fit, checkpoint, build)


def _check_names(
    folder: str | Path, kind: str, found: Sequence[str], wanted: Sequence[str], source: str, stage: str
) -> None:
    if list(found) == list(wanted):
        return
    place = next((i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), None)
    where = "" if place is None else f", the first that differs {found[place]!r} for {wanted[place]!r}"
    raise InputError(
        f"{folder}: fitted on other {kind} than those of {source}: {len(found):,} for {len(wanted):,}{where}; "
        f"run `dvc repro {stage}`"
    )
