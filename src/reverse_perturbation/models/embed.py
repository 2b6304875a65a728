"""Embeddings and class probabilities of every cell of the split."""

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from reverse_perturbation.models.encoder.tokens import TokenSource
from reverse_perturbation.models.finetune.inference.predict import predict
from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier
from reverse_perturbation.retrieval.predictions import Predictions


def embed_cells(
    model: EncoderClassifier,
    tokens: TokenSource,
    cell_ids: np.ndarray,
    conditions: list[str],
    accelerator: Accelerator,
) -> Predictions:
    """Compute embeddings and, where the model scores the conditions, class log-probabilities.

    Several processes each take their share of the batches, the same batches as one process has, and all return
    everything.

    Parameters
    ----------
    model
        In any mode; it predicts in eval mode.
    tokens
        Of the cells.
    cell_ids
        In the order of the split.
    conditions
        In the order of the model's logits.
    accelerator
        Where to compute, with how many processes and in which precision.

    Returns
    -------
    Predictions
        Rows in the order of ``cell_ids``; float32.
    """
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    with accelerator.autocast():
        share_of_process = predict(model, tokens, np.arange(len(cell_ids)), accelerator.device, share)
    order, embedding, logits = zip(*gather_object([share_of_process]), strict=True)
    _, rows = np.unique(np.concatenate(order), return_index=True)
    scored = all(part is not None for part in logits)
    return Predictions(
        cell_ids=cell_ids,
        log_proba=torch.log_softmax(torch.from_numpy(np.concatenate(logits)[rows]), dim=1).numpy() if scored else None,
        conditions=np.asarray(conditions) if scored else None,
        embedding=np.concatenate(embedding)[rows],
    )
