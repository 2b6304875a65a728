"""A small scGPT trained in domain, which stands in where the official checkpoint is not at hand.

The task is scGPT's own (Cui et al., Nat. Methods 2024): some of a cell's values are hidden behind
``mask_value`` and predicted, once from the genes' output tokens (gene expression prediction) and once from the
``<cls>`` token and the gene alone (its MVC decoder). No label is used.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import AdamW

from reverse_perturbation.config import Pretrain, ValueInput
from reverse_perturbation.models.scgpt.backbone import Architecture
from reverse_perturbation.models.scgpt.samplers import random_batches
from reverse_perturbation.models.scgpt.schedule import make_schedule
from reverse_perturbation.models.scgpt.tokens import Batch, Tokens
from reverse_perturbation.models.scgpt.vocabulary import SPECIAL_TOKENS

WARMUP_FRACTION = 0.05
CLIP_NORM = 1.0


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
        Of :func:`backbone.build_backbone`.
    tokens
        Of the cells to learn from: reference and control.
    architecture
        Of the model.
    config
        Section ``pretrain``.
    device
        Where to compute.
    on_epoch
        Called with the epoch's number and its mean squared error, on the scale of the values fed in.
    """
    torch.manual_seed(config.seed)
    order = np.random.default_rng(config.seed)
    hide = torch.Generator().manual_seed(config.seed)
    model.to(device).train()
    n_cells = len(tokens.lengths)
    optimizer = AdamW((p for p in model.parameters() if p.requires_grad), lr=config.learning_rate)
    schedule = make_schedule(optimizer, math.ceil(n_cells / config.batch_size) * config.epochs, WARMUP_FRACTION)
    for epoch in range(1, config.epochs + 1):
        total = 0.0
        for batch in random_batches(np.arange(n_cells), tokens.lengths, config.batch_size, order):
            cells = tokens.batch(batch)
            hidden = (torch.rand(cells.values.shape, generator=hide) < config.mask_fraction) & ~cells.padding
            hidden[:, 0] = False
            if not hidden.any():
                continue
            loss = _loss(model, cells.to(device), hidden.to(device), architecture.mask_value)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        on_epoch(epoch, total / n_cells)
    model.eval()


def _loss(model: nn.Module, cells: Batch, hidden: Tensor, mask_value: int) -> Tensor:
    fed = cells.values.masked_fill(hidden, mask_value)
    output = model(cells.ids, fed, src_key_padding_mask=cells.padding, MVC=True)
    target = cells.values[hidden]
    loss: Tensor = mse_loss(output["mlm_output"][hidden], target) + mse_loss(output["mvc_output"][hidden], target)
    return loss
