"""Which cells make a batch, and that balance is not paid for in the answers."""

from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.scgpt.conftest import finetune_config, loss_config

from reverse_perturbation.models.encoder.batches import (
    INFERENCE_TOKENS,
    balanced_batches,
    inference_batches,
    random_batches,
    training_batches,
)
from reverse_perturbation.models.finetune.network.heads import CellOutput, Head
from reverse_perturbation.models.finetune.training.losses import Objective, natural_log_prior


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 200), batch_size=st.integers(1, 40), seed=st.integers(0, 99))
def test_every_cell_is_dealt_once(n, batch_size, seed):
    rng = np.random.default_rng(seed)
    rows = rng.permutation(300)[:n]
    batches = random_batches(rows, rng.integers(0, 50, 300), batch_size, rng)
    assert sorted(np.concatenate(batches)) == sorted(rows)
    assert max(map(len, batches)) <= batch_size


@settings(max_examples=50, deadline=None)
@given(n=st.integers(0, 200), most=st.integers(1, 400), seed=st.integers(0, 99))
def test_what_is_asked_at_once_stays_small_and_has_little_padding(n, most, seed):
    rng = np.random.default_rng(seed)
    rows, lengths = rng.permutation(300)[:n], rng.integers(0, 50, 300)
    with patch.dict(INFERENCE_TOKENS, cpu=8 * most):
        batches = inference_batches(rows, lengths, 8, torch.device("cpu"))
    assert sorted(np.concatenate([rows[:0], *batches])) == sorted(rows)
    padded = [len(batch) * (lengths[batch].max() + 1) for batch in batches]
    assert all(tokens <= most or len(batch) == 1 for tokens, batch in zip(padded, batches, strict=True))
    assert (np.diff(lengths[np.concatenate([rows[:0], *batches])]) >= 0).all(), "cells of like length are together"
    for batch, following in pairwise(batches):
        assert (len(batch) + 1) * (lengths[following[0]] + 1) > most, "none is smaller than need be"


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    each=st.integers(2, 8),
    held=st.integers(1, 15),
    seed=st.integers(0, 99),
)
def test_balanced_batches_hold_as_many_cells_of_each_condition(sizes, each, held, seed):
    targets = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = np.random.default_rng(seed).permutation(len(targets))
    batches = balanced_batches(rows, targets[rows], held * each, each, np.random.default_rng(seed))
    assert len(batches) == -(-len(rows) // (held * each))
    for batch in batches:
        assert len(batch) == held * each
        hands = targets[batch].reshape(held, each)
        assert (hands == hands[:, :1]).all()
        conditions, times = np.unique(hands[:, 0], return_counts=True)
        assert len(conditions) == min(held, len(sizes))
        assert np.ptp(times) <= 1
        for cells in batch.reshape(held, each):
            assert len(set(cells)) == min(each, sizes[targets[cells[0]]]), "a cell comes again only where it must"
    dealt = np.concatenate(batches)
    seen = np.bincount(targets[dealt], minlength=len(sizes))
    assert np.ptp(seen) <= each
    for i in range(len(sizes)):
        assert np.ptp(np.bincount(dealt[targets[dealt] == i], minlength=len(targets))[targets == i]) <= 1


def test_a_condition_with_fewer_cells_than_wanted_gives_them_again():
    rows, targets = np.array([7, 8, 9, 4]), np.array([0, 0, 0, 1])
    (batch,) = balanced_batches(rows, targets, 8, 4, np.random.default_rng(0))
    assert sorted(batch[batch != 4]) in ([7, 7, 8, 9], [7, 8, 8, 9], [7, 8, 9, 9])
    assert (batch == 4).sum() == 4


def test_balanced_batches_follow_the_seed_and_change_with_the_epoch():
    targets = np.arange(60) % 3
    config = finetune_config(sampler="balanced", batch_size=8, cells_per_condition=4)

    def epochs(seed):
        order = np.random.default_rng(seed)
        return [np.concatenate(training_batches(np.arange(60), targets, targets, config, order)) for _ in range(2)]

    first, again, other = epochs(1), epochs(1), epochs(2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, other)


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
        head = Head(1, 3, finetune_config(head_depth=0))
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
