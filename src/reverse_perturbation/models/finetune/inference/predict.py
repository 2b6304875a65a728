"""Inference: embeddings and logits of many cells."""

import numpy as np
import torch

from reverse_perturbation.models.encoder.batches import inference_batches
from reverse_perturbation.models.encoder.tokens import TokenSource, on_device
from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier


def predict(
    model: EncoderClassifier, tokens: TokenSource, rows: np.ndarray, device: torch.device, share: slice = slice(None)
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Compute embeddings and logits in eval mode, cells of similar length together.

    Parameters
    ----------
    model
        In any mode.
    tokens
        Of all cells.
    rows
        int [n], which cells; at least one.
    device
        Where to compute.
    share
        Which of the batches.

    Returns
    -------
    order, embedding, logits
        int [n], the row of each result; float32 [n, dim] and [n, n_conditions], None without a classifier.
    """
    model.to(device).eval()
    tokens = on_device(tokens, device)
    batches = inference_batches(rows, tokens.lengths, model.backbone.width, device)
    batches = batches[share] or batches[:1]  # a process too many repeats the first one's work
    order = np.concatenate(batches)
    # Not a list of small results: between the batches' large arrays each keeps the allocator from using their memory
    # again, which with every cell of Norman came to gigabytes.
    results: list[np.ndarray] = []
    start = 0
    with torch.inference_mode():
        for batch in batches:
            output = model(tokens.batch(batch).to(device))
            parts = [part for part in (output.embedding, output.logits) if part is not None]
            results = results or [np.empty((len(order), part.shape[1]), dtype=np.float32) for part in parts]
            for whole, part in zip(results, parts, strict=True):
                whole[start : start + len(batch)] = part.float().cpu().numpy()
            start += len(batch)
    return order, results[0], results[1] if len(results) > 1 else None


def predict_in_order(
    model: EncoderClassifier, tokens: TokenSource, rows: np.ndarray, device: torch.device
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return embeddings and, with a classifier, logits of some cells, in the order of ``rows``."""
    place = np.full(len(tokens.lengths), -1)
    place[rows] = np.arange(len(rows))
    order, embedding, logits = predict(model, tokens, rows, device)
    sorting = np.argsort(place[order])
    return embedding[sorting], None if logits is None else logits[sorting]
