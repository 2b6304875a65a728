"""A foundation model with a head: the model that is fine-tuned, saved and used for prediction."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.encoder.interface import Backbone, Checkpoint, set_dropout
from reverse_perturbation.models.encoder.tokens import Batch
from reverse_perturbation.models.finetune.network.adapters import adapt, frozen_layers
from reverse_perturbation.models.finetune.network.heads import CellOutput, GeneReadout, Head, Readout
from reverse_perturbation.sections import Finetune
from reverse_perturbation.sections import Readout as ReadoutPart
from reverse_perturbation.storage import read_json, write_atomically, write_json


class EncoderClassifier(nn.Module):
    """Backbone, readout and head.

    Parameters
    ----------
    backbone
        Of a checkpoint; a copy of it is adapted.
    token_ids
        LongTensor [n_genes]: the tokens that may occur, for the readout ``genes``.
    n_conditions
        Number of classes.
    config
        Section ``finetune``.
    """

    def __init__(self, backbone: Backbone, token_ids: Tensor, n_conditions: int, config: Finetune):
        super().__init__()
        self.backbone = backbone = copy.deepcopy(backbone)
        self.token_ids = token_ids
        self.config = config
        adaptation, head = config.adaptation, config.head
        self.frozen_layers = frozen_layers(backbone, adaptation)
        set_dropout(backbone, 0.0)  # frozen layers give the same output each time
        trained = backbone if adaptation.mode in ("lora", "full") else backbone.layers[self.frozen_layers :]
        set_dropout(trained, adaptation.dropout)
        adapt(backbone, adaptation)  # after it, set_dropout would reach LoRA's own dropout as well
        parts = _readout_parts(config)
        genes = None
        if "genes" in parts:
            genes = GeneReadout(backbone.width, token_ids, backbone.vocabulary_size, head.gene_rank, head.dim)
        self.readout = Readout(parts, backbone.width, genes)
        # A readout without weights of its own is as frozen as the backbone below it.
        self.frozen_states_per_token = self.frozen_layers < len(backbone.layers) or genes is not None
        self.frozen_width = backbone.width if self.frozen_states_per_token else self.readout.out_features
        self.head = None
        if adaptation.mode != "frozen":
            self.head = Head(self.readout.out_features, n_conditions, head, classify=config.loss.cross_entropy > 0)

    def forward(self, batch: Batch) -> CellOutput:
        """Score a batch of cells; the output of :meth:`frozen` is computed unless the batch holds it."""
        read = self.frozen(batch) if batch.frozen is None else batch.frozen
        if self.frozen_states_per_token:
            read = self.backbone.transform(read, batch.padding, first=self.frozen_layers)
            read = self.readout(read, batch.ids, batch.padding)
        if self.head is None:
            return CellOutput(read, None)
        return CellOutput(*self.head(read))

    def frozen(self, batch: Batch) -> Tensor:
        """Return the input of the first trained layer, or the readout where nothing below the head is trained.

        [batch, tokens, frozen_width] where ``frozen_states_per_token``, else [batch, frozen_width]. Training cannot
        change it, unless ``frozen_layers`` is 0: then it is the embedded tokens, whose encoders may be trained.
        """
        hidden = self.backbone.transform(self.backbone.embed(batch), batch.padding, last=self.frozen_layers)
        return hidden if self.frozen_states_per_token else self.readout(hidden, batch.ids, batch.padding)

    def trainable_parameters(self) -> dict[str, int]:
        """Return the number of trained parameters of each group: backbone, head (with readout), and any other."""
        groups = [] if self.head is None else self.parameter_groups()
        return {"backbone": 0, "head": 0} | {group["name"]: sum(p.numel() for p in group["params"]) for group in groups}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups with their learning rates; those without a parameter are absent."""
        rates = self.config.optimizer
        parts = {
            "backbone": ([self.backbone], rates.backbone_learning_rate),
            "head": ([self.readout] if self.head is None else [self.readout, self.head], rates.head_learning_rate),
        }
        return [
            {"name": name, "params": parameters, "lr": rate}
            for name, (modules, rate) in parts.items()
            if (parameters := [p for module in modules for p in module.parameters() if p.requires_grad])
        ]

    def start_from_prior(self, log_prior: Tensor) -> None:
        """Add the conditions' log frequencies, float [n_conditions], to the logits from now on."""
        if self.head is not None:
            self.head.log_prior.copy_(log_prior)

    def trainable_state(self) -> dict[str, Tensor]:
        """Return what differs from the checkpoint: the trained weights and the head's log prior."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad} | {"head.log_prior"}
        return {name: t.detach().contiguous() for name, t in self.state_dict().items() if name in trained}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Put back what :meth:`trainable_state` gave.

        Raises
        ------
        ValueError
            If names or shapes are not exactly those of this model.
        """
        expected = self.trainable_state()
        wrong = sorted(
            name
            for name in expected.keys() | state.keys()
            if name not in expected or name not in state or expected[name].shape != state[name].shape
        )
        if wrong:
            raise ValueError(f"weights missing, unexpected or of another shape: {', '.join(wrong[:10])}")
        self.load_state_dict(state, strict=False)


def _readout_parts(config: Finetune) -> list[ReadoutPart]:
    """Leave out readouts with weights where nothing is trained."""
    if config.adaptation.mode != "frozen":
        return config.head.readout
    parts: list[ReadoutPart] = [part for part in config.head.readout if part != "genes"]
    if not parts:
        raise InputError(
            "finetune.head.readout: 'genes' has weights to train and finetune.adaptation.mode is 'frozen'; add cls or "
            "mean"
        )
    return parts


def save_classifier(
    folder: str | Path,
    fits: dict[str, EncoderClassifier],
    conditions: Sequence[str],
    checkpoint: Checkpoint,
    config: Finetune,
    finding: str | None = None,
) -> None:
    """Write the trained weights of each fit as safetensors beside a JSON of what they belong to, atomically.

    The JSON also has the ``finding`` of ``fit_twice``.
    """
    with write_atomically(folder) as temporary:
        temporary.mkdir()
        for name, model in fits.items():
            save_file(model.trainable_state(), temporary / f"{name}.safetensors")
        write_json(
            temporary / "config.json",
            {
                "checkpoint_sha256": checkpoint.sha256,
                "conditions": list(conditions),
                "finetune": config.model_dump(),
                "trainable_parameters": fits["final"].trainable_parameters(),
                "token_ids": fits["final"].token_ids.tolist(),
                "finding": finding,
            },
        )


def load_classifier(folder: str | Path, fit: str, checkpoint: Checkpoint) -> tuple[EncoderClassifier, list[str]]:
    """Rebuild one fit from the checkpoint it was trained from.

    Returns
    -------
    model, conditions
        In eval mode; the conditions are in the order of the logits.

    Raises
    ------
    InputError
        If a file is missing or broken, or the checkpoint is not the one the model was trained from.
    """
    folder = Path(folder)
    for name in ("config.json", f"{fit}.safetensors"):
        if not (folder / name).exists():
            raise InputError(f"{folder}: {name} is missing; run `dvc repro` to make it again")
    content = read_json(folder / "config.json")
    if content["checkpoint_sha256"] != checkpoint.sha256:
        raise InputError(
            f"{folder}: trained from another checkpoint than the one given "
            f"(sha256 {content['checkpoint_sha256'][:12]}, found {checkpoint.sha256[:12]}); run `dvc repro`"
        )
    config = Finetune.model_validate(content["finetune"])
    model = EncoderClassifier(
        checkpoint.backbone, torch.tensor(content["token_ids"]), len(content["conditions"]), config
    )
    try:
        model.load_trainable_state(load_file(folder / f"{fit}.safetensors"))
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{folder / fit}.safetensors: {error}; run `dvc repro`") from None
    return model.eval(), list(content["conditions"])
