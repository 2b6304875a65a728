"""The losses: by hand, against pytorch-metric-learning, with nothing to contrast, and after balanced batches."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss

from reverse_perturbation.models.encoder.batches import balanced_batches
from reverse_perturbation.models.finetune.network.heads import CellOutput, Head
from reverse_perturbation.models.finetune.training.losses import (
    Objective,
    credited_targets,
    infonce,
    natural_log_prior,
    supcon,
)
from tests.models.conftest import finetune_config, loss_config

CONDITIONS = ["A+B", "A+ctrl", "B+ctrl", "C+ctrl", "ctrl+C"]
# Two cells of condition 0 at a right angle, one of condition 1 along the first. Cosines: (0, 1) 0, (0, 2) 1, (1, 2) 0.
EMBEDDING = torch.tensor([[2.0, 0.0], [0.0, 5.0], [0.1, 0.0]])
TARGET = torch.tensor([0, 0, 1])


def test_infonce_by_hand():
    pairs = [-math.log(1 / (1 + math.exp(2))), -math.log(1 / (1 + 1))]
    assert infonce(EMBEDDING, TARGET, 0.5).item() == pytest.approx(sum(pairs) / 2)


def test_supcon_by_hand():
    """A third cell of condition 0, like the first, and the mean over positives inside that over cells."""
    embedding = torch.cat([EMBEDDING, torch.tensor([[1.0, 0.0]])])
    e = math.exp(2)
    first = (-math.log(1 / (1 + 2 * e)) - math.log(e / (1 + 2 * e))) / 2  # cells 0 and 3; positives 1 and the other
    second = -math.log(1 / 3)
    found = supcon(embedding, torch.tensor([0, 0, 1, 0]), 0.5)
    assert found.item() == pytest.approx((2 * first + second) / 3)


@settings(max_examples=50, deadline=None)
@given(labels=st.lists(st.integers(0, 3), min_size=3, max_size=12), seed=st.integers(0, 99))
def test_both_are_those_of_pytorch_metric_learning(labels, seed):
    """Which calls a batch of one condition 0: where it has no negative pair it computes nothing."""
    target = torch.tensor([0, 1, *labels])
    embedding = torch.randn(len(target), 4, generator=torch.Generator().manual_seed(seed))
    for ours, theirs in ((infonce, NTXentLoss(0.3)), (supcon, SupConLoss(0.3))):
        assert ours(embedding, target, 0.3).item() == pytest.approx(theirs(embedding, target).item(), rel=1e-4)


@pytest.mark.parametrize("loss", [infonce, supcon])
@pytest.mark.parametrize("target", [[0, 1, 2], [0, 0, 0], [0]])
def test_nothing_to_contrast_is_no_nan(loss, target):
    embedding = EMBEDDING[: len(target)].clone().requires_grad_()
    found = loss(embedding, torch.tensor(target), 0.1)
    found.backward()
    assert torch.isfinite(found)
    assert torch.isfinite(embedding.grad).all()
    if len(set(target)) == len(target):
        assert found.item() == 0
        assert not embedding.grad.any()


@pytest.mark.parametrize("loss", [infonce, supcon])
def test_only_the_direction_counts(loss):
    scale = torch.tensor([[3.0], [0.2], [40.0]])
    assert loss(EMBEDDING * scale, TARGET, 0.1) == pytest.approx(loss(EMBEDDING, TARGET, 0.1))


def test_credit_by_hand():
    double, single_a, single_b = [0.8, 0.1, 0.1, 0, 0], [0.2, 0.8, 0, 0, 0], [0.2, 0, 0.8, 0, 0]
    twins = [[0, 0, 0, 0.8, 0.2], [0, 0, 0, 0.2, 0.8]]
    expected = torch.tensor([double, single_a, single_b, *twins])
    assert torch.allclose(credited_targets(CONDITIONS, 0.2), expected)
    assert credited_targets(["A+ctrl", "B+ctrl"], 0.2).tolist() == [[1, 0], [0, 1]]


def output(n=3):
    generator = torch.Generator().manual_seed(0)
    return CellOutput(torch.randn(n, 4, generator=generator), torch.randn(n, 5, generator=generator))


def test_the_sum_is_weighted():
    config = loss_config(cross_entropy=0.5, infonce=2.0, supcon=3.0, temperature=0.2, label_smoothing=0.0)
    given = output()
    logits = given.logits.log_softmax(1)
    by_hand = -0.5 * logits[[0, 1, 2], TARGET].mean()
    by_hand += 2 * infonce(given.embedding, TARGET, 0.2) + 3 * supcon(given.embedding, TARGET, 0.2)
    assert Objective(config, CONDITIONS)(given, TARGET).item() == pytest.approx(by_hand.item())


def test_credit_and_smoothing_together():
    """Smoothing takes its share off a target that has been divided before: (1 - 0.1) * credited + 0.1 / 5."""
    given = output()
    soft = 0.9 * credited_targets(CONDITIONS, 0.3)[TARGET] + 0.1 / 5
    by_hand = -(soft * given.logits.log_softmax(1)).sum(1).mean()
    found = Objective(loss_config(label_smoothing=0.1, shared_gene_credit=0.3), CONDITIONS)(given, TARGET)
    assert found.item() == pytest.approx(by_hand.item())


def test_without_credit_it_is_torch_s_cross_entropy_bit_for_bit():
    given = output()
    plain = torch.nn.functional.cross_entropy(given.logits, TARGET, label_smoothing=0.1)
    assert Objective(finetune_config().loss, CONDITIONS)(given, TARGET) == plain


def test_balance_corrected_gives_the_posterior_of_cells_as_they_come():
    """Three normal distributions of variance 1: the posterior is a softmax of a linear function, known exactly."""
    rng = np.random.default_rng(0)
    prior, mean = np.array([0.75, 0.2, 0.05]), np.array([-1.0, 0.0, 1.0])
    targets = rng.choice(3, 20000, p=prior)
    x = torch.from_numpy(rng.normal(mean[targets], 1.0)).float()[:, None]
    grid = torch.linspace(-3, 3, 41)[:, None]
    true = torch.softmax(grid * mean - torch.from_numpy(mean**2) / 2 + np.log(prior), dim=1)

    def learnt(corrected: bool) -> torch.Tensor:
        torch.manual_seed(0)
        head = Head(1, 3, finetune_config(head__depth=0).head, classify=True)
        if corrected:
            head.log_prior.copy_(natural_log_prior(targets, 3))
        objective = Objective(loss_config(label_smoothing=0.0), ["A+ctrl", "B+ctrl", "C+ctrl"], head.log_prior)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
        for _ in range(3):
            for batch in balanced_batches(np.arange(20000), targets, 300, 100, rng):
                optimizer.zero_grad()
                objective(CellOutput(*head(x[batch])), torch.from_numpy(targets[batch])).backward()
                optimizer.step()
        return head(grid)[1].softmax(dim=1).detach()

    weight = torch.from_numpy(prior * np.exp(-((grid.numpy() - mean) ** 2) / 2)).sum(1)

    def error(found: torch.Tensor) -> float:
        return (((found - true).abs().sum(1) * weight).sum() / weight.sum()).item()

    assert error(learnt(True)) < 0.06
    assert error(learnt(False)) > 0.3


def test_a_prior_is_of_the_cells_and_never_zero():
    assert natural_log_prior(np.array([0, 0, 2]), 3).exp().tolist() == pytest.approx([0.5, 0.25, 0.25])
