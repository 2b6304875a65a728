"""The checkpoint that fine-tuning starts from: the user's own, or a small scGPT trained in domain.

The task is scGPT's own (Cui et al., Nat. Methods 2024): some of a cell's values are hidden behind
``mask_value`` and predicted, once from the genes' output tokens (gene expression prediction) and once from the
``<cls>`` token and the gene alone (its MVC decoder). No label is used. A checkpoint that was trained on bins, as the
official one is, learns by it to read log1p values.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import AdamW

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.masked_screen import CONTROL_PART, MaskedScreen
from reverse_perturbation.gpu import gpu
from reverse_perturbation.models.encoder.batches import random_batches
from reverse_perturbation.models.encoder.interface import set_dropout
from reverse_perturbation.models.encoder.tokens import Batch, Tokens
from reverse_perturbation.models.recipe.schedule import make_schedule
from reverse_perturbation.models.scgpt.encoder.backbone import Architecture, ScgptBackbone
from reverse_perturbation.models.scgpt.encoder.checkpoint import ScgptCheckpoint, load_checkpoint, save_checkpoint
from reverse_perturbation.models.scgpt.encoder.vocabulary import SPECIAL_TOKENS
from reverse_perturbation.sections import Pretrain, ValueInput

WARMUP_FRACTION = 0.05
CLIP_NORM = 1.0
READS_VALUES = ("value_encoder", "decoder", "mvc_decoder")  # or predicts them


def provide(params: Params, load: Callable[[], MaskedScreen], folder: str | Path) -> None:
    """Write a folder in the official layout: ``scgpt.checkpoint``, or a small model trained on this screen.

    Parameters
    ----------
    params
        All of params.yaml.
    load
        Reads the screen with its control cells; not called where a checkpoint is given and stays as it is.
    folder
        Where to write.
    """
    if (path := params.scgpt.given) is not None:
        given = load_checkpoint(path)
        print(f"pretrain: {path}: {given.report}", flush=True)
        if given.architecture.input_style != "log1p" and params.scgpt.value_input == "log1p":
            given = read_log1p(given, load(), params)
    else:
        architecture = small_architecture(params.pretrain, params.scgpt.value_input)
        screen = load()
        vocabulary = small_vocabulary(screen.tokens)
        torch.manual_seed(params.pretrain.seed)
        given = ScgptCheckpoint(ScgptBackbone(architecture, vocabulary), vocabulary, architecture, None)
        _pretrain_on(screen, given, params)
    save_checkpoint(folder, given.backbone, given.vocabulary, given.architecture)


def read_log1p(given: ScgptCheckpoint, screen: MaskedScreen, params: Params) -> ScgptCheckpoint:
    """Teach a checkpoint that was trained on bins to read log1p values.

    Bins of a cell of low depth tell little, and weights for bins read log1p values poorly (docs/protocol.md has the
    figures). So the value encoder starts anew and learns to predict hidden values while the rest of the checkpoint
    stays as it is: gene embeddings and layers keep what they know.

    Parameters
    ----------
    given
        Trained on bins; its value encoder is trained in place, its decoders are, too, as they predict bins.
    screen
        With control cells.
    params
        All of params.yaml; ``pretrain`` has the settings of training, and with 0 epochs fine-tuning alone trains it.
    """
    model = given.backbone.requires_grad_(False)
    torch.manual_seed(params.pretrain.seed)
    for name, module in model.named_modules():
        if name.startswith(READS_VALUES) and isinstance(module, nn.Linear | nn.LayerNorm):
            module.reset_parameters()
            module.requires_grad_(True)
    set_dropout(model, params.pretrain.dropout)
    taught = replace(given, architecture=replace(given.architecture, input_style="log1p"))
    _pretrain_on(screen, taught, params)
    model.requires_grad_(True)
    return taught


def _pretrain_on(screen: MaskedScreen, checkpoint: ScgptCheckpoint, params: Params) -> None:
    rows = screen.rows("reference", CONTROL_PART)
    model, tokens = checkpoint.backbone, checkpoint.tokenizer(screen, params)(screen).take(rows)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(
        f"pretrain: {trained:,} parameters, {len(rows):,} reference and control cells, "
        f"{tokens.lengths.mean():.0f} tokens a cell",
        flush=True,
    )
    pretrain(
        model,
        tokens,
        checkpoint.architecture,
        params.pretrain,
        device=gpu() or torch.device("cpu"),
        on_epoch=lambda epoch, loss: print(
            f"pretrain: epoch {epoch}/{params.pretrain.epochs}, mean squared error {loss:.3f}", flush=True
        ),
    )


def small_architecture(config: Pretrain, value_input: ValueInput) -> Architecture:
    """Describe the model to be trained, in the terms of the official ``args.json``."""
    return Architecture.from_args(
        {
            "nlayers": config.layers,
            "nheads": config.heads,
            "embsize": config.width,
            "d_hid": config.width,
            "dropout": config.dropout,
            "n_bins": 51,
            "max_seq_len": 1200,
            "input_style": "log1p" if value_input == "log1p" else "binned",
            "input_emb_style": "continuous",
            "pad_token": "<pad>",
            "pad_value": -2,
            "mask_value": -1,
            "n_layers_cls": 3,
            "no_cls": True,
            "MVC": True,
            "USE_GENERATIVE_TRAINING": False,
            "fast_transformer": True,
        },
        "params.yaml: pretrain",
    )


def small_vocabulary(symbols: np.ndarray) -> dict[str, int]:
    """Number the genes' symbols and the special tokens: only what occurs, so that the table stays small."""
    known = [symbol for symbol in symbols if symbol]
    return {token: i for i, token in enumerate([*known, *SPECIAL_TOKENS])}


def pretrain(
    model: nn.Module,
    tokens: Tokens,
    architecture: Architecture,
    config: Pretrain,
    *,
    device: torch.device,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """Train a model in place by predicting hidden values.

    Parameters
    ----------
    model
        Freshly initialised.
    tokens
        Of the training cells: reference and control.
    architecture
        Of the model.
    config
        Section ``pretrain``.
    device
        Where to compute.
    on_epoch
        Called with the epoch's number and its mean squared error, on the scale of the input values.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    hide = torch.Generator().manual_seed(config.seed)
    model.to(device).train()
    n_cells = len(tokens.lengths)
    optimizer = AdamW((p for p in model.parameters() if p.requires_grad), lr=config.learning_rate)
    schedule = make_schedule(optimizer, math.ceil(n_cells / config.batch_size) * config.epochs, WARMUP_FRACTION)
    for epoch in range(1, config.epochs + 1):
        total = 0.0
        for batch in random_batches(np.arange(n_cells), tokens.lengths, config.batch_size, rng):
            cells = tokens.batch(batch)
            hidden = (torch.rand(cells.values.shape, generator=hide) < config.mask_fraction) & ~cells.padding
            hidden[:, 0] = False
            if not hidden.any():
                continue
            loss = _loss(model, cells.to(device), hidden.to(device), architecture.mask_value, architecture.mvc)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        on_epoch(epoch, total / n_cells)
    model.eval()


def _loss(model: nn.Module, cells: Batch, hidden: Tensor, mask_value: int, mvc: bool) -> Tensor:
    fed = cells.values.masked_fill(hidden, mask_value)
    output = model(cells.ids, fed, src_key_padding_mask=cells.padding, MVC=mvc)
    target = cells.values[hidden]
    outputs = ["mlm_output", "mvc_output"] if mvc else ["mlm_output"]
    return torch.stack([mse_loss(output[name][hidden], target) for name in outputs]).sum()
