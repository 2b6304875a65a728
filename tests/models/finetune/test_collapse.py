"""Collapse is told where there is one, and not where the validation part is small or the model only weak."""

import dataclasses
import math

import numpy as np
import pytest
from tests.models.scgpt.conftest import ONE, finetune_config
from tests.models.scgpt.test_train import build

from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics.rank import rank_of_truth
from reverse_perturbation.models.finetune.training.collapse import chance_mrr, check_collapse, spread
from reverse_perturbation.models.finetune.training.history import Epoch
from reverse_perturbation.models.finetune.training.train import fit

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


def test_answers_that_do_not_depend_on_the_cell_are_at_chance():
    """The most frequent conditions first: better than random ranks, and no better than chance for such answers."""
    rng = np.random.default_rng(0)
    truth = rng.choice(CONDITIONS, N, p=PRIOR)
    same = np.tile(PRIOR, (N, 1))
    assert (1 / rank_of_truth(same, truth)).mean() > (1 / np.arange(1, CONDITIONS + 1)).mean()
    assert not above_chance(same, truth)
    assert not above_chance(np.zeros((N, CONDITIONS)), truth)


def test_one_in_a_hundred_of_random_answers_is_above_chance():
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


def test_spread_by_hand():
    """Two vectors at a right angle: squared length 1, mean (1/2, 1/2), variance 1/4 + 1/4. Length plays no part."""
    embedding = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    assert spread(embedding) == pytest.approx(0.5)
    assert spread(1e-4 * embedding) == pytest.approx(0.5)
    assert spread(np.ones((3, 2), dtype=np.float32)) == 0
    assert spread(np.zeros((3, 2), dtype=np.float32)) == 0


def course(*mrr, chance=0.15, spread=0.3, first=1):
    return [
        Epoch(i, 1.0, 0.0, 0.0, 0.0, exact_hit_at_1=0.0, mrr=value, chance_mrr=chance, spread=spread)
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
        (course(math.nan, math.nan, math.nan, math.nan, chance=math.nan, spread=math.nan), {}),  # a refit
        (course(0.2, spread=1e-6), {}),
    ],
)
def test_no_alarm(history, changes):
    start = math.nan if math.isnan(history[-1].spread) else 0.5
    check_collapse(history, start, finetune_config(**{"epochs": 10, "patience": 4, "warmup_fraction": 0.1} | changes))


AT_CHANCE = "at chance in all of 4 epochs: validation mrr is 0.100, .* reach 0.150; lower finetune"


@pytest.mark.parametrize(
    ("history", "changes", "message"),
    [
        (course(0.1, 0.1, 0.1, 0.1), {}, AT_CHANCE),
        (course(0.1, 0.1, 0.1, 0.1, 0.1, first=0), {}, AT_CHANCE),
        (course(0.15, 0.15, 0.15, 0.1), {"patience": 20, "epochs": 4}, AT_CHANCE),  # its last epoch
        (course(0.1, 0.1, 0.1), {"patience": 1}, "at chance in all of 3 epochs"),
        (course(0.3, spread=1e-7), {}, "collapsed in epoch 1: the embeddings .*1.0e-07 .*5.0e-01 .*lower finetune"),
    ],
)
def test_an_alarm_says_which_and_what_to_try(history, changes, message):
    with pytest.raises(InputError, match=message):
        check_collapse(history, 0.5, finetune_config(**{"epochs": 10, "patience": 4, "warmup_fraction": 0.1} | changes))


def test_embeddings_that_become_alike_end_a_run(checkpoint, task):
    """The transformer is thrown off by a learning rate a hundred times too high."""
    config = finetune_config(readout=["cls"], backbone_learning_rate=0.3, epochs=20, patience=20, warmup_fraction=0.0)
    with pytest.raises(InputError, match=r"collapsed in epoch \d: the embeddings"):
        fit(build(checkpoint, config), task, config, seed=0, epochs=20, accelerator=ONE)


def test_a_run_that_learns_is_left_alone(checkpoint, task):
    """It has to be told from chance on 30 cells, and was not in its first epochs."""
    config = finetune_config(epochs=8, patience=8, batch_size=16, readout=["genes"])
    history = fit(build(checkpoint, config), task, config, seed=0, epochs=8, accelerator=ONE)
    assert len(history) == 8
    assert history[-1].mrr > history[-1].chance_mrr > 0.6
    shorter = dataclasses.replace(task, validation=task.validation[:12])
    history = fit(build(checkpoint, config), shorter, config, seed=0, epochs=1, accelerator=ONE)
    assert math.isnan(history[0].chance_mrr)
    assert 0 < history[0].spread < 1
