"""Fusion: a foundation model beside the tuned logistic regression, initialised with its scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.encoder.interface import Backbone, Checkpoint
from reverse_perturbation.models.encoder.tokens import Batch, Tokens
from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier, load_classifier
from reverse_perturbation.models.finetune.network.heads import CellOutput
from reverse_perturbation.models.linear.features import Features, feature_names
from reverse_perturbation.models.linear.model import LinearModel
from reverse_perturbation.sections import Finetune, Fusion


@dataclass(frozen=True)
class TokensAndFeatures(Tokens):
    """Tokens of many cells joined to the features of the same cells, the input of logistic regression.

    Attributes
    ----------
    features
        CSR float32 [n_cells, n_features]; only a batch of it is ever dense.
    """

    features: sp.csr_matrix

    @classmethod
    def join(cls, tokens: Tokens, features: sp.csr_matrix) -> "TokensAndFeatures":
        """Join the tokens and the features of the same cells."""
        return cls(**{field.name: getattr(tokens, field.name) for field in fields(Tokens)}, features=features)

    def take(self, rows: np.ndarray) -> "TokensAndFeatures":
        """Return some cells, in the order given."""
        return replace(super().take(rows), features=self.features[rows])  # type: ignore[call-arg, return-value]

    def batch(self, rows: np.ndarray) -> Batch:
        """Return some cells, in the order given, with their features."""
        return replace(super().batch(rows), features=torch.from_numpy(self.features[rows].toarray()))


class LinearPart(nn.Module):
    """The scores of a linear model, ``weight @ (features / scale) + bias``, as a layer that can be trained.

    Parameters
    ----------
    kind
        Of the features.
    n_features, n_conditions
        Numbers of columns and of classes.
    """

    scale: Tensor

    def __init__(self, kind: Features, n_features: int, n_conditions: int):
        super().__init__()
        self.kind: Features = kind
        self.weight = nn.Parameter(torch.zeros(n_conditions, n_features))
        self.bias = nn.Parameter(torch.zeros(n_conditions))
        self.register_buffer("scale", torch.ones(n_features))

    @classmethod
    def load(cls, folder: str | Path, genes: Sequence[str], conditions: Sequence[str], source: str) -> "LinearPart":
        """Start from the fitted logistic regression in ``folder``.

        Parameters
        ----------
        folder
            What :meth:`LinearModel.save` wrote.
        genes, conditions
            Which it must have, in this order.
        source
            Path of the cells, for the error.

        Raises
        ------
        InputError
            If it was fitted on other genes or conditions.
        """
        fitted, about = LinearModel.load(folder, "baseline@logreg")
        _check_names(folder, "genes", about["genes"], genes, source, "baseline@logreg")
        _check_names(folder, "conditions", about["conditions"], conditions, source, "baseline@logreg")
        part = cls(about["features"], len(fitted.scale), len(conditions))
        with torch.no_grad():
            part.weight.copy_(torch.from_numpy(fitted.coef))
            part.bias.copy_(torch.from_numpy(fitted.intercept))
            part.scale.copy_(torch.from_numpy(fitted.scale))
        return part

    def forward(self, features: Tensor) -> Tensor:
        """Return [batch, n_conditions] from features [batch, n_features]."""
        return nn.functional.linear(features / self.scale, self.weight, self.bias)


class FusionClassifier(EncoderClassifier):
    """A classifier whose logits are added to those of a :class:`LinearPart`.

    The last layer of the encoder's head starts at zero, so before training the scores are the linear part's own. In
    training they are dropped for a cell with probability ``fusion.linear_dropout``: logistic regression fits its
    training cells so closely that the encoder would have too little left to explain (modality dropout, Neverova et
    al., ModDrop, 2016; figures in docs/protocol.md). The embedding is the encoder's alone. In adaptation mode
    ``frozen`` there is no head, and the scores stay those of the linear part.

    Parameters
    ----------
    backbone, token_ids, config
        As :class:`EncoderClassifier` takes them.
    linear
        The linear part; it becomes part of this model.
    fusion
        Section ``fusion``.
    """

    def __init__(self, backbone: Backbone, token_ids: Tensor, linear: LinearPart, config: Finetune, fusion: Fusion):
        super().__init__(backbone, token_ids, len(linear.bias), config)
        self.linear_learning_rate = fusion.linear_learning_rate
        self.linear_dropout = fusion.linear_dropout
        self.linear = linear.requires_grad_(fusion.linear_learning_rate > 0)
        if self.head is not None and self.head.classify is not None:
            nn.init.zeros_(self.head.classify.weight)
            nn.init.zeros_(self.head.classify.bias)

    def forward(self, batch: Batch) -> CellOutput:
        """Score a batch of cells as ``TokensAndFeatures.batch`` gives them."""
        output = super().forward(batch)
        scores: Tensor = self.linear(batch.features)
        if self.training and self.linear_dropout:
            scores = scores * (torch.rand(len(scores), 1, device=scores.device) >= self.linear_dropout)
        return replace(output, logits=scores if output.logits is None else scores + output.logits)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the encoder's groups and the linear part's.

        The linear part has no weight decay: its weights start at the minimum of their tuned penalty, and decay would
        move them away from the model that fusion is compared with.
        """
        groups = super().parameter_groups()
        if self.linear_learning_rate:
            group = {"params": list(self.linear.parameters()), "lr": self.linear_learning_rate, "weight_decay": 0.0}
            groups.append({"name": "linear"} | group)
        return groups

    def start_from_prior(self, log_prior: Tensor) -> None:
        """Change nothing: the linear part was fitted at natural frequencies, which its bias already holds."""

    def trainable_state(self) -> dict[str, Tensor]:
        """Return the encoder's trained weights and all of the linear part, trained or not: no checkpoint holds it."""
        linear = {f"linear.{name}": t.detach().contiguous() for name, t in self.linear.state_dict().items()}
        return super().trainable_state() | linear


def load_fusion(
    folder: str | Path, fit: str, checkpoint: Checkpoint, genes: Sequence[str], source: str
) -> tuple[EncoderClassifier, list[str]]:
    """Rebuild one fit, as :func:`load_classifier` does.

    Raises
    ------
    InputError
        Also if it was trained on other genes than ``genes``, which come from ``source``.
    """

    def build(backbone: Backbone, about: Mapping[str, Any]) -> FusionClassifier:
        _check_names(folder, "genes", about["genes"], genes, source, "fuse")
        return FusionClassifier(
            backbone,
            torch.tensor(about["token_ids"]),
            LinearPart(about["features"], len(feature_names(genes, about["features"])), len(about["conditions"])),
            Finetune.model_validate(about["finetune"]),
            Fusion.model_validate(about["fusion"]),
        )

    return load_classifier(folder, fit, checkpoint, build)


def _check_names(
    folder: str | Path, kind: str, names: Sequence[str], wanted: Sequence[str], source: str, stage: str
) -> None:
    if list(names) == list(wanted):
        return
    place = next((i for i, (a, b) in enumerate(zip(names, wanted, strict=False)) if a != b), None)
    where = "" if place is None else f", the first that differs {names[place]!r} for {wanted[place]!r}"
    raise InputError(
        f"{folder}: fitted on other {kind} than those of {source}: {len(names):,} for {len(wanted):,}{where}; "
        f"run `dvc repro {stage}`"
    )
