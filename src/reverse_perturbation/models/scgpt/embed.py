"""A fine-tuned scGPT asked about every cell of the split."""

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from reverse_perturbation.models.scgpt.classifier import ScgptClassifier
from reverse_perturbation.models.scgpt.tokens import Cells
from reverse_perturbation.models.scgpt.train import predict
from reverse_perturbation.retrieval.outputs import Outputs


def embed_cells(
    model: ScgptClassifier,
    tokens: Cells,
    cells: np.ndarray,
    conditions: list[str],
    accelerator: Accelerator,
) -> Outputs:
    """Compute embeddings and, where the model scores the conditions, class log-probabilities.

    Of several processes each takes its share of the batches, the same batches as with one, and all return everything.

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
    accelerator
        Where to compute, with how many processes and in which precision.

    Returns
    -------
    Outputs
        Rows in the order of ``cells``; float32.
    """
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    with accelerator.autocast():
        mine = [
            (rows, output.embedding.float().cpu(), None if output.logits is None else output.logits.float().cpu())
            for rows, output in predict(model, tokens, np.arange(len(cells)), accelerator.device, share)
        ]
    rows, embedding, logits = zip(*gather_object(mine), strict=True)
    order = np.argsort(np.concatenate(rows))
    scored = all(part is not None for part in logits)
    return Outputs(
        cells=cells,
        log_proba=torch.log_softmax(torch.cat(logits), dim=1).numpy()[order] if scored else None,
        conditions=np.asarray(conditions) if scored else None,
        embedding=torch.cat(embedding).numpy()[order],
    )
