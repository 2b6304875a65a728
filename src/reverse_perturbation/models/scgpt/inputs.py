"""From the masked screen to scGPT's tokens."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from reverse_perturbation.config import Scgpt
from reverse_perturbation.data.screen import Screen
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.scgpt.checkpoint import Checkpoint
from reverse_perturbation.models.scgpt.tokens import Scale, Tokens, fit_scale, tokenize


def token_ids_of(screen: Screen, vocabulary: dict[str, int]) -> np.ndarray:
    """Return int64 [n_genes]: the token id of each gene in this vocabulary, -1 where it has none.

    Raises
    ------
    InputError
        If the vocabulary knows none of the genes.
    """
    ids = np.array([vocabulary.get(token, -1) if token else -1 for token in screen.tokens], dtype=np.int64)
    if (ids < 0).all():
        raise InputError("scgpt.checkpoint: its vocab.json has none of the genes; do the gene names hold symbols?")
    return ids


def readable_tokens(screen: Screen, vocabulary: dict[str, int]) -> Tensor:
    """Return LongTensor: the token ids that may occur, each once, in order."""
    ids = token_ids_of(screen, vocabulary)
    return torch.from_numpy(np.unique(ids[ids >= 0]))


def tokens_of(screen: Screen, checkpoint: Checkpoint, config: Scgpt) -> Tokens:
    """Tokenise every cell of a screen, as :func:`tokenizer_of` says."""
    return tokenizer_of(screen, checkpoint, config)(screen)


def tokenizer_of(screen: Screen, checkpoint: Checkpoint, config: Scgpt) -> Callable[[Screen], Tokens]:
    """Return what turns this screen, or one of cells made from it, into tokens.

    A value encoder that was trained on bins gets continuous values mapped to the range of the bins; the mapping is
    fitted on the reference cells alone, as everything fitted is.

    Raises
    ------
    InputError
        If the vocabulary knows none of the genes, or ``binned`` values are asked for and the encoder knows none.
    """
    architecture = checkpoint.architecture
    continuous = architecture.input_style == "log1p"
    if continuous and config.value_input != "log1p":
        raise InputError(
            f"scgpt.value_input is {config.value_input!r}, but the checkpoint was trained on log1p values (args.json: "
            "input_style); set scgpt.value_input=log1p"
        )
    reference = screen.rows("reference")
    return partial(
        _tokens,
        token_ids=token_ids_of(screen, checkpoint.vocabulary),
        checkpoint=checkpoint,
        config=config,
        scale=None if continuous else fit_scale(screen.counts[reference], screen.totals[reference]),
    )


def _tokens(
    screen: Screen, *, token_ids: np.ndarray, checkpoint: Checkpoint, config: Scgpt, scale: Scale | None
) -> Tokens:
    return tokenize(
        screen.counts,
        screen.totals,
        token_ids=token_ids,
        cells=screen.cells,
        config=config,
        n_bins=checkpoint.architecture.n_bins,
        vocabulary=checkpoint.vocabulary,
        pad_value=checkpoint.architecture.pad_value,
        scale=scale,
    )
