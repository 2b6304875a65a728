"""Collapse and chance are told where they are, and not where the validation part is small or the model only weak."""

import dataclasses
import math
import re

import numpy as np
import pytest

from reverse_perturbation.metrics.ranks.rank import rank_of_truth
from reverse_perturbation.models.finetune.inference.predict import predict_in_order
from reverse_perturbation.models.finetune.training.collapse import (
    chance_mrr,
    check_training,
    has_collapsed,
    relative_variance,
)
from reverse_perturbation.models.finetune.training.history import Epoch, chosen_epoch
from reverse_perturbation.models.finetune.training.train import fit
from tests.models.conftest import CPU, ONE, build, finetune_config

N, CONDITIONS = 270, 33  # as the real cells have for validation
PRIOR = np.arange(1, CONDITIONS + 1) / np.arange(1, CONDITIONS + 1).sum()


def above_chance(scores, truth) -> bool:
    return bool((1 / rank_of_truth(scores, truth)).mean() > chance_mrr(scores, truth))


def learner(rng, effect):
    """Scores of which the true condition's are higher by ``effect`` standard deviations, and the truth."""
    truth = rng.choice(CONDITIONS, N, p=PRIOR)
    scores = rng.normal(size=(N, CONDITIONS)) + np.log(PRIOR)
    scores[np.arange(N), truth] += effect
    return scores, truth


def test_predictions_that_do_not_depend_on_the_cell_are_at_chance():
    """The most frequent conditions first: better than random ranks, and no better than chance for such predictions."""
    rng = np.random.default_rng(0)
    truth = rng.choice(CONDITIONS, N, p=PRIOR)
    same = np.tile(PRIOR, (N, 1))
    assert (1 / rank_of_truth(same, truth)).mean() > (1 / np.arange(1, CONDITIONS + 1)).mean()
    assert not above_chance(same, truth)
    assert not above_chance(np.zeros((N, CONDITIONS)), truth)


def test_one_in_a_hundred_of_random_predictions_is_above_chance():
    rng = np.random.default_rng(1)
    found = sum(above_chance(*learner(rng, 0.0)) for _ in range(200))
    assert found <= 8  # of 200 with probability 1/100: 8 is the 99.98 % quantile


def test_a_weak_learner_is_above_chance():
    """It is right in a tenth of the cells, where the most frequent condition has a seventeenth of them."""
    rng = np.random.default_rng(2)
    runs = [learner(rng, 0.5) for _ in range(100)]
    hits = np.mean([(scores.argmax(axis=1) == truth).mean() for scores, truth in runs])
    assert hits == pytest.approx(0.10, abs=0.01)
    assert all(above_chance(*run) for run in runs)


def test_too_few_cells_to_tell():
    rng = np.random.default_rng(3)
    truth, scores = rng.integers(CONDITIONS, size=N), rng.normal(size=(N, CONDITIONS))
    assert math.isnan(chance_mrr(scores[:190], truth[:190]))
    assert not math.isnan(chance_mrr(scores[:191], truth[:191]))
    assert math.isnan(chance_mrr(scores[:1, :2], np.zeros(1, dtype=int)))


def test_relative_variance_by_hand():
    """Two vectors at a right angle: squared length 1, mean (1/2, 1/2), variance 1/4 + 1/4. Length plays no part."""
    embedding = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    assert relative_variance(embedding) == pytest.approx(0.5)
    assert relative_variance(1e-4 * embedding) == pytest.approx(0.5)
    assert relative_variance(np.ones((3, 2), dtype=np.float32)) == 0
    assert relative_variance(np.zeros((3, 2), dtype=np.float32)) == 0


def course(*mrr, chance=0.15, variance=0.3, collapsed=False):
    """Epochs with these mrr, the last of which may have collapsed; exact_hit@1 tells none of them apart."""
    hit = {"exact_hit_at_1": 0.0, "exact_hit_at_1_error": 0.0}
    epochs = [
        Epoch(i, 1.0, 0.0, 0.0, 0.0, **hit, mrr=value, chance_mrr=chance, relative_variance=variance)
        for i, value in enumerate(mrr, start=1)
    ]
    return [*epochs[:-1], dataclasses.replace(epochs[-1], collapsed=collapsed)]


@pytest.mark.parametrize(
    "history",
    [
        course(0.1, 0.1, 0.1, 0.16),
        course(0.16, 0.1, 0.1),
        course(0.1, 0.1, 0.1, 0.1, chance=math.nan),  # too few cells
        course(math.nan, math.nan, chance=math.nan),  # a refit
    ],
)
def test_nothing_is_wrong(history):
    assert check_training(history, "selection") is None


@pytest.mark.parametrize(
    ("history", "fit_name", "message"),
    [
        (
            course(0.1, 0.1, 0.12),
            "selection",
            "the selection fit ended at chance: validation mrr is 0.120, in none of 3 epochs above .* reach, 0.150; ",
        ),
        (
            course(0.15),
            "selection",
            "at chance: .* lower finetune.head.dropout or .* where logreg is at chance as well",
        ),
        (
            course(0.3, 0.2, variance=1e-7, collapsed=True),
            "selection",
            "the selection fit collapsed in epoch 2: the embeddings of the validation cells are all alike, .* 1.0e-07 "
            "of .*; epoch 1 is kept; lower finetune.optimizer.backbone_learning_rate",
        ),
        (course(0.1, 0.1, collapsed=True), "selection", "collapsed in epoch 2"),  # that says it all
        (
            course(math.nan, chance=math.nan, collapsed=True),
            "final",
            "the final fit collapsed in epoch 1: the embeddings of the training cells .*; epoch 1 is kept",
        ),
    ],
)
def test_a_finding_says_which_and_what_to_try(history, fit_name, message):
    assert re.fullmatch(f".*{message}.*", check_training(history, fit_name))


def test_a_thousandth_of_the_distances_at_the_start_is_a_collapse():
    assert has_collapsed(0.4e-6, 0.5)
    assert not has_collapsed(0.6e-6, 0.5)
    assert not has_collapsed(0.0, 0.0), "they were all alike before training"
    assert not has_collapsed(math.nan, 0.5)


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.5])
def test_embeddings_that_become_alike_end_a_fit_whose_best_epoch_so_far_is_kept(
    checkpoint, data, tmp_path, warmup_fraction, validated
):
    """The transformer is thrown off by a learning rate hundreds of times too high: at once, or while it rises."""
    config = finetune_config(
        head__readout=["cls"],
        optimizer__backbone_learning_rate=1.0,
        schedule__epochs=20,
        schedule__patience=20,
        schedule__warmup_fraction=warmup_fraction,
    )
    part = data if validated else dataclasses.replace(data, validation=data.validation[:0])
    options = {"seed": 0, "epochs": 20, "accelerator": ONE, "state_path": tmp_path / "state.pt"}
    model = build(checkpoint, config)
    history = fit(model, part, config, **options)
    assert [epoch.collapsed for epoch in history] == [False] * (len(history) - 1) + [True]
    assert len(history) < 20
    kept = chosen_epoch(history)
    assert kept.collapsed == (len(history) == 1), "the collapsed one only where there is no other"
    assert (len(history) == 1) == (warmup_fraction == 0)
    embedding, logits = predict_in_order(model, data.tokens, np.arange(240), CPU)
    if validated:
        hit = (logits[data.validation].argmax(axis=1) == data.targets[data.validation]).mean()
        assert hit == pytest.approx(kept.exact_hit_at_1)
    assert (relative_variance(embedding) < 1e-6) == kept.collapsed
    assert f"epoch {kept.epoch} is kept" in check_training(history, "final")
    again = fit(build(checkpoint, config), part, config, **options)
    assert list(map(repr, again)) == list(map(repr, history)), "resumed, it does not go on"


def test_a_run_that_learns_is_left_alone(checkpoint, data):
    """It has to be told from chance on 30 cells, and was not in its first epochs."""
    config = finetune_config(schedule__epochs=8, schedule__patience=8, sampler__batch_size=16, head__readout=["genes"])
    history = fit(build(checkpoint, config), data, config, seed=0, epochs=8, accelerator=ONE)
    assert len(history) == 8
    assert history[-1].mrr > history[-1].chance_mrr > 0.6
    shorter = dataclasses.replace(data, validation=data.validation[:12])
    history = fit(build(checkpoint, config), shorter, config, seed=0, epochs=1, accelerator=ONE)
    assert math.isnan(history[0].chance_mrr)
    assert 0 < history[0].relative_variance < 1
