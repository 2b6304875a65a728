"""Collapse is reported where there is one, and not where the validation part is small or the model only weak."""

import dataclasses
import math

import numpy as np
import pytest

from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics.ranks.rank import rank_of_truth
from reverse_perturbation.models.finetune.training.collapse import chance_mrr, check_collapse, relative_variance
from reverse_perturbation.models.finetune.training.history import Epoch
from reverse_perturbation.models.finetune.training.train import fit
from reverse_perturbation.sections import Schedule
from tests.models.conftest import ONE, build, finetune_config

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


def schedule(**changes) -> Schedule:
    return Schedule(**{"epochs": 10, "patience": 4, "warmup_fraction": 0.1, "probe_epochs": 0} | changes)


def course(*mrr, chance=0.15, variance=0.3, first=1):
    return [
        Epoch(i, 1.0, 0.0, 0.0, 0.0, exact_hit_at_1=0.0, mrr=value, chance_mrr=chance, relative_variance=variance)
        for i, value in enumerate(mrr, start=first)
    ]


@pytest.mark.parametrize(
    ("history", "changes"),
    [
        (course(0.1, 0.1, 0.1), {}),
        (course(0.1, 0.1, 0.1, 0.16), {}),
        (course(0.16, 0.1, 0.1, 0.1, 0.1, 0.1), {}),  # the first epoch is kept
        (course(0.16, 0.1, 0.1, 0.1, 0.1, first=0), {}),  # so is the start
        (course(0.1, 0.1), {"patience": 1}),
        (course(0.1, 0.1, 0.1), {"epochs": 4}),
        (course(0.1, 0.1, 0.1, 0.1, first=0), {}),  # epoch 0 is before training
        (course(0.1, 0.1, 0.1, 0.1, chance=math.nan), {}),  # too few cells
        (course(0.1, 0.1, 0.1, 0.1), {"warmup_fraction": 0.5}),
        (course(0.1, 0.1, 0.1, 0.1), {"probe_epochs": 1}),
        (course(math.nan, math.nan, math.nan, math.nan, chance=math.nan, variance=math.nan), {}),  # a refit
        (course(0.2, variance=1e-6), {}),
    ],
)
def test_no_alarm(history, changes):
    start = math.nan if math.isnan(history[-1].relative_variance) else 0.5
    check_collapse(history, start, schedule(**changes))


AT_CHANCE = "at chance in all of 4 epochs: validation mrr is 0.100, .* reach 0.150; lower finetune"


@pytest.mark.parametrize(
    ("history", "changes", "message"),
    [
        (course(0.1, 0.1, 0.1, 0.1), {}, AT_CHANCE),
        (course(0.1, 0.1, 0.1, 0.1, 0.1, first=0), {}, AT_CHANCE),
        (course(0.15, 0.15, 0.15, 0.1), {"patience": 20, "epochs": 4}, AT_CHANCE),  # its last epoch
        (course(0.1, 0.1, 0.1), {"patience": 1}, "at chance in all of 3 epochs"),
        (course(0.3, variance=1e-7), {}, "collapsed in epoch 1: the embeddings .*1.0e-07 .*5.0e-01 .*lower finetune"),
    ],
)
def test_an_alarm_says_which_and_what_to_try(history, changes, message):
    with pytest.raises(InputError, match=message):
        check_collapse(history, 0.5, schedule(**changes))


def test_embeddings_that_become_alike_end_a_run(checkpoint, data):
    """The transformer is thrown off by a learning rate a hundred times too high."""
    config = finetune_config(
        head__readout=["cls"],
        optimizer__backbone_learning_rate=0.3,
        schedule__epochs=20,
        schedule__patience=20,
        schedule__warmup_fraction=0.0,
    )
    with pytest.raises(InputError, match=r"collapsed in epoch \d: the embeddings"):
        fit(build(checkpoint, config), data, config, seed=0, epochs=20, accelerator=ONE)


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
