"""A fine-tuned scGPT asked about every cell of the split."""

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from reverse_perturbation.models.scgpt.classifier import ScgptClassifier
from reverse_perturbation.models.scgpt.tokens import Cells
from reverse_perturbation.models.scgpt.train import ask
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
        mine = ask(model, tokens, np.arange(len(cells)), accelerator.device, share)
    asked, embedding, logits = zip(*gather_object([mine]), strict=True)
    _, rows = np.unique(np.concatenate(asked), return_index=True)
    scored = all(part is not None for part in logits)
    return Outputs(
        cells=cells,
        log_proba=torch.log_softmax(torch.from_numpy(np.concatenate(logits)[rows]), dim=1).numpy() if scored else None,
        conditions=np.asarray(conditions) if scored else None,
        embedding=np.concatenate(embedding)[rows],
    )
