"""Training objective: cross-entropy, two contrastive losses, and their weighted sum.

The contrastive losses are short functions here because pytorch-metric-learning's NTXentLoss builds a table of every
positive pair by every negative one: 89 s and 15 GB for one batch of 64 x 8 cells. The tests hold both against it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, softplus

from reverse_perturbation.conditions import genes_of
from reverse_perturbation.models.finetune.network.heads import CellOutput
from reverse_perturbation.sections import Loss

MASKED = -1e9  # instead of -inf, whose gradient through logsumexp is NaN where everything is masked


class Objective:
    """The weighted sum of losses of a batch.

    Parameters
    ----------
    config
        Section ``finetune.loss``.
    conditions
        In the order of the logits.
    log_prior
        float [n_conditions]: subtracted from the logits within the cross-entropy, where the batches are balanced and
        the model's logits already stand for natural frequencies; see :func:`natural_log_prior`.
    """

    def __init__(self, config: Loss, conditions: Sequence[str], log_prior: Tensor | None = None):
        self.config = config
        self.log_prior = log_prior
        # Without credit the class numbers themselves are the targets.
        self.soft = credited_targets(conditions, config.shared_gene_credit) if config.shared_gene_credit else None

    def __call__(self, output: CellOutput, target: Tensor) -> Tensor:
        """Return the loss, a scalar in nats, of ``output`` given the classes ``target``, int64 [batch]."""
        config = self.config
        terms = []
        if config.cross_entropy:
            assert output.logits is not None
            wanted = target if self.soft is None else self.soft.to(target.device)[target]
            logits = output.logits if self.log_prior is None else output.logits - self.log_prior
            terms.append(config.cross_entropy * cross_entropy(logits, wanted, label_smoothing=config.label_smoothing))
        if config.infonce:
            terms.append(config.infonce * infonce(output.embedding, target, config.temperature))
        if config.supcon:
            terms.append(config.supcon * supcon(output.embedding, target, config.temperature))
        return torch.stack(terms).sum()


def credited_targets(conditions: Sequence[str], credit: float) -> Tensor:
    """Return float32 [n, n]: row i is the target distribution of condition i.

    ``1 - credit`` on the condition itself and ``credit`` in equal shares on the others that share a gene with it;
    all on itself where there are none.
    """
    genes = [genes_of(condition) for condition in conditions]
    shared = np.array([[bool(a & b) for b in genes] for a in genes], dtype=np.float32)
    np.fill_diagonal(shared, 0.0)
    partners = shared.sum(axis=1, keepdims=True)
    soft = np.divide(credit * shared, partners, out=np.zeros_like(shared), where=partners > 0)
    np.fill_diagonal(soft, 1 - soft.sum(axis=1))
    return torch.from_numpy(soft)


def natural_log_prior(targets: np.ndarray, n_conditions: int) -> Tensor:
    """Return float32 [n_conditions]: log of each condition's share of the training cells.

    Balanced batches teach ``f_y(x) = log p(x | y)`` up to a number common to all y; at natural frequencies the
    prediction is ``f_y(x) + log p(y)`` (logit adjustment, Menon et al., arXiv 2007.07314, reversed: they learn from
    natural frequencies and predict for equal ones). The model adds ``log p(y)`` always, the cross-entropy of
    balanced batches takes it off again. A condition without cells counts as one with a single cell.
    """
    counts = np.bincount(targets, minlength=n_conditions).clip(min=1)
    return torch.from_numpy(np.log(counts / counts.sum())).float()


def infonce(embedding: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return the InfoNCE loss: of each two cells of one condition, against all cells of the others.

    The mean over ordered pairs (a, p) of ``-log(exp(s_ap) / (exp(s_ap) + sum_n exp(s_an)))``, s the cosine similarity
    divided by the temperature, n the cells of other conditions (van den Oord et al., arXiv 1807.03748, with the
    positives of NT-Xent, arXiv 2002.05709). Zero where no two cells share a condition.

    Parameters
    ----------
    embedding
        float [batch, dim], of any length.
    target
        int64 [batch].
    temperature
        Above 0.
    """
    similarity, same, positive = _pairs(embedding, target, temperature)
    others = similarity.masked_fill(same, MASKED).logsumexp(dim=1, keepdim=True)
    return (softplus(others - similarity) * positive).sum() / positive.sum().clamp(min=1)


def supcon(embedding: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss, L_out of Khosla et al. (arXiv 2004.11362).

    For each cell with others of its condition, the mean over these of ``-log(exp(s_ap) / sum_{k != a} exp(s_ak))``;
    then the mean over such cells. Parameters as for :func:`infonce`; zero where there are no such cells.
    """
    similarity, _, positive = _pairs(embedding, target, temperature)
    itself = torch.eye(len(target), dtype=torch.bool, device=target.device)
    log_share = similarity - similarity.masked_fill(itself, MASKED).logsumexp(dim=1, keepdim=True)
    partners = positive.sum(dim=1)
    each = -(log_share * positive).sum(dim=1) / partners.clamp(min=1)
    return each.sum() / (partners > 0).sum().clamp(min=1)


def _pairs(embedding: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return [batch, batch]: similarities, pairs of one condition, and such pairs of two different cells."""
    direction = normalize(embedding.float())
    same = target[:, None] == target
    positive = same.clone().fill_diagonal_(False)
    return direction @ direction.T / temperature, same, positive
