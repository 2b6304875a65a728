"""A fine-tuned scGPT asked about every cell of the split."""

import numpy as np
import torch

from reverse_perturbation.models.scgpt.classifier import ScgptClassifier
from reverse_perturbation.models.scgpt.tokens import Cells
from reverse_perturbation.models.scgpt.train import predict
from reverse_perturbation.retrieval.outputs import Outputs


def embed_cells(
    model: ScgptClassifier,
    tokens: Cells,
    cells: np.ndarray,
    conditions: list[str],
    device: torch.device,
) -> Outputs:
    """Compute embeddings and, where the model scores the conditions, class log-probabilities.

    Parameters
    ----------
    model
        In any mode; it is asked in eval mode.
    tokens
        Of ``cells``.
    cells
        Ids, in the order of the split.
    conditions
        In the order of the model's logits.
    device
        Where to compute.

    Returns
    -------
    Outputs
        Rows in the order of ``cells``; float32.
    """
    embedding: np.ndarray | None = None
    log_proba: np.ndarray | None = None
    for rows, output in predict(model, tokens, np.arange(len(cells)), device):
        found = output.embedding.float().cpu().numpy()
        if embedding is None:
            embedding = np.empty((len(cells), found.shape[1]), dtype=np.float32)
        embedding[rows] = found
        if output.logits is not None:
            if log_proba is None:
                log_proba = np.empty((len(cells), len(conditions)), dtype=np.float32)
            log_proba[rows] = torch.log_softmax(output.logits.float(), dim=1).cpu().numpy()
    return Outputs(
        cells=cells,
        log_proba=log_proba,
        conditions=None if log_proba is None else np.asarray(conditions),
        embedding=embedding,
    )
