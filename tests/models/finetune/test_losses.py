"""The losses: by hand, against pytorch-metric-learning, and where there is nothing to contrast."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss
from tests.models.scgpt.conftest import finetune_config, loss_config

from reverse_perturbation.models.finetune.network.heads import CellOutput
from reverse_perturbation.models.finetune.training.losses import Objective, credited_targets, infonce, supcon

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
