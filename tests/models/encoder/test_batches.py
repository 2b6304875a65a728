"""Which cells share a batch."""

from itertools import pairwise
from unittest.mock import patch

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reverse_perturbation.models.encoder.batches import (
    INFERENCE_TOKENS,
    balanced_batches,
    inference_batches,
    random_batches,
    training_batches,
)
from reverse_perturbation.sections import Sampler


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
def test_inference_batches_stay_small_and_have_little_padding(n, most, seed):
    rng = np.random.default_rng(seed)
    rows, lengths = rng.permutation(300)[:n], rng.integers(0, 50, 300)
    with patch.dict(INFERENCE_TOKENS, cpu=8 * most):
        batches = inference_batches(rows, lengths, 8, torch.device("cpu"))
    assert sorted(np.concatenate([rows[:0], *batches])) == sorted(rows)
    padded = [len(batch) * (lengths[batch].max() + 1) for batch in batches]
    assert all(tokens <= most or len(batch) == 1 for tokens, batch in zip(padded, batches, strict=True))
    assert (np.diff(lengths[np.concatenate([rows[:0], *batches])]) >= 0).all(), "cells of similar length are together"
    for batch, following in pairwise(batches):
        assert (len(batch) + 1) * (lengths[following[0]] + 1) > most, "none is smaller than need be"


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    each=st.integers(2, 8),
    per_batch=st.integers(1, 15),
    seed=st.integers(0, 99),
)
def test_balanced_batches_hold_as_many_cells_of_each_condition(sizes, each, per_batch, seed):
    targets = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = np.random.default_rng(seed).permutation(len(targets))
    batches = balanced_batches(rows, targets[rows], per_batch * each, each, np.random.default_rng(seed))
    assert len(batches) == -(-len(rows) // (per_batch * each))
    for batch in batches:
        assert len(batch) == per_batch * each
        hands = targets[batch].reshape(per_batch, each)
        assert (hands == hands[:, :1]).all()
        conditions, times = np.unique(hands[:, 0], return_counts=True)
        assert len(conditions) == min(per_batch, len(sizes))
        assert np.ptp(times) <= 1
        for cells in batch.reshape(per_batch, each):
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
    config = Sampler(kind="balanced", batch_size=8, cells_per_condition=4, prior_correction=True)

    def epochs(seed):
        rng = np.random.default_rng(seed)
        return [np.concatenate(training_batches(np.arange(60), targets, targets, config, rng)) for _ in range(2)]

    first, again, other = epochs(1), epochs(1), epochs(2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, other)
