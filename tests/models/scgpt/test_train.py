"""The loop learns, repeats itself, keeps the best epoch, and keeps its learning rates apart."""

import dataclasses

import numpy as np
import pytest
import torch

from reverse_perturbation.models.scgpt import train
from reverse_perturbation.models.scgpt.checkpoint import load_checkpoint
from reverse_perturbation.models.scgpt.classifier import ScgptClassifier, load_classifier, save_classifier
from reverse_perturbation.models.scgpt.embed import embed_cells
from reverse_perturbation.models.scgpt.pretrain import pretrain
from reverse_perturbation.models.scgpt.train import Epoch, best_epoch, fit, make_optimizer, make_schedule
from tests.models.scgpt.conftest import CONDITIONS, GENES, PARAMS, finetune_config, loss_config

CPU = torch.device("cpu")


def build(checkpoint, config, seed=1) -> ScgptClassifier:
    torch.manual_seed(seed)
    return ScgptClassifier(load_checkpoint(checkpoint).model, torch.arange(GENES), len(CONDITIONS), config)


def test_it_learns_what_can_be_learned(checkpoint, task):
    config = finetune_config(epochs=12, patience=12, batch_size=16, readout=["genes"])
    history = fit(build(checkpoint, config), task, config, seed=0, epochs=12, device=CPU)
    assert history[0].validation_loss > 0.9
    assert best_epoch(history).exact_hit_at_1 > 0.85
    assert best_epoch(history).mrr > 0.9


@pytest.mark.parametrize("term", ["infonce", "supcon"])
def test_a_contrastive_loss_alone_learns_and_is_judged_by_a_library(checkpoint, task, term):
    config = finetune_config(epochs=12, patience=12, loss=loss_config(cross_entropy=0.0, **{term: 1.0}))
    model = build(checkpoint, config)
    history = fit(model, task, config, seed=0, epochs=12, device=CPU)
    assert np.isnan(history[0].validation_loss)
    assert best_epoch(history).exact_hit_at_1 > 0.85
    outputs = embed_cells(model, task.tokens, np.arange(240), CONDITIONS, CPU)
    assert outputs.log_proba is None
    assert outputs.conditions is None


def test_shuffled_labels_stay_at_chance(checkpoint, task):
    wrong = dataclasses.replace(task, targets=np.random.default_rng(3).permutation(task.targets))
    config = finetune_config(epochs=6, patience=6)
    history = fit(build(checkpoint, config), wrong, config, seed=0, epochs=6, device=CPU)
    # 60 validation cells, chance 1/3: 0.53 is the 99.9 % quantile of the binomial
    assert history[-1].exact_hit_at_1 <= 0.53


def test_the_same_seed_gives_the_same_course_and_another_does_not(checkpoint, task):
    config = finetune_config(dropout=0.2)
    runs = [
        [
            dataclasses.replace(e, seconds=0)
            for e in fit(build(checkpoint, config), task, config, seed=s, epochs=2, device=CPU)
        ]
        for s in (5, 5, 6)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_the_best_epoch_s_weights_are_left_in_the_model(checkpoint, task):
    """Far too high a learning rate after a good start: the last epochs are worse than the best one."""
    config = finetune_config(epochs=8, patience=3, head_learning_rate=0.03, backbone_learning_rate=0.03)
    model = build(checkpoint, config)
    history = fit(model, task, config, seed=0, epochs=8, device=CPU)
    best = best_epoch(history)
    assert len(history) <= best.epoch + 3
    outputs = embed_cells(model, task.tokens, np.arange(240), CONDITIONS, CPU)
    hits = (outputs.log_proba[task.validation].argmax(axis=1) == task.targets[task.validation]).mean()
    assert hits == pytest.approx(best.exact_hit_at_1)


@pytest.mark.parametrize("sampler", ["random", "balanced"])
def test_two_batches_accumulated_are_one_of_twice_the_size(checkpoint, task, sampler, monkeypatch):
    """Both see the same cells in the same order; the last batch is smaller.

    By plain gradient descent: Adam makes steps of rounding errors where a gradient is zero, as the keys' biases' is.
    """
    monkeypatch.setattr(
        train,
        "make_optimizer",
        lambda model, config: torch.optim.SGD([g | {"lr": 0.1} for g in model.parameter_groups(config)]),
    )
    rows = [task.train[:24], task.train[24:48], task.train[48:60]]
    twice = [np.concatenate(rows[:2]), rows[2]]
    states, losses, rates = [], [], []
    for batches, accumulation in ((rows, 2), (twice, 1)):
        monkeypatch.setattr(train, "training_batches", lambda *_, batches=batches: batches)
        config = finetune_config(sampler=sampler, accumulation=accumulation, batch_size=48 // accumulation)
        model = build(checkpoint, config)
        history = fit(model, task, config, seed=0, epochs=1, device=CPU)
        states.append(model.trainable_state())
        losses.append(history[0].train_loss)
        rates.append(history[0].head_learning_rate)
    assert rates[0] == rates[1], "the schedule counts steps, not batches"
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    start = build(checkpoint, config).trainable_state()
    for name, tensor in states[0].items():
        assert torch.allclose(tensor, states[1][name], atol=1e-6), name
    assert (start["head.classify.weight"] - states[0]["head.classify.weight"]).abs().max() > 1e-3


def test_a_balanced_fit_keeps_the_frequencies_of_its_cells(checkpoint, task, tmp_path):
    few = dataclasses.replace(task, train=task.train[(task.targets[task.train] > 0) | (task.train < 15)])  # 5, 20, 20
    config = finetune_config(sampler="balanced", cells_per_condition=8, epochs=1)
    model = build(checkpoint, config)
    fit(model, few, config, seed=0, epochs=1, device=CPU)
    assert model.head.log_prior.exp().tolist() == pytest.approx([5 / 45, 20 / 45, 20 / 45])
    save_classifier(
        tmp_path / "model", {"selection": model, "final": model}, CONDITIONS, load_checkpoint(checkpoint), config
    )
    loaded, _ = load_classifier(tmp_path / "model", "final", load_checkpoint(checkpoint))
    assert torch.equal(loaded.head.log_prior, model.head.log_prior)
    for other in ({"prior_correction": False}, {"sampler": "random"}):
        changed = config.model_copy(update=other)
        model = build(checkpoint, changed)
        fit(model, few, changed, seed=0, epochs=1, device=CPU)
        assert not model.head.log_prior.any()


def test_the_best_epoch_is_the_first_of_equals():
    def epoch(number, hit, mrr):
        return Epoch(number, 1.0, 1.0, hit, mrr, 0.0, 0.0, 0.0)

    history = [epoch(1, 0.2, 0.9), epoch(2, 0.3, 0.4), epoch(3, 0.3, 0.5), epoch(4, 0.3, 0.5)]
    assert best_epoch(history).epoch == 3


def test_learning_rates_stay_apart_at_every_step(checkpoint):
    config = finetune_config(backbone_learning_rate=1e-5, head_learning_rate=1e-3, warmup_fraction=0.2)
    optimizer = make_optimizer(build(checkpoint, config), config)
    schedule = make_schedule(optimizer, 50, config.warmup_fraction)
    seen = []
    for _ in range(50):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    backbone, head = np.array(seen).T
    assert head == pytest.approx(100 * backbone, rel=1e-9)
    assert head.max() == pytest.approx(1e-3)
    assert np.argmax(head) == 9
    assert (np.diff(head[:10]) > 0).all()
    assert (np.diff(head[10:]) < 0).all()


def test_a_loss_that_is_not_finite_stops_and_names_the_cells(checkpoint, task):
    config = finetune_config()
    model = build(checkpoint, config)
    with torch.no_grad():
        model.head.classify.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"in the batch of rows \[\d+"):
        fit(model, task, config, seed=0, epochs=1, device=CPU)


def test_pretraining_learns_without_labels(checkpoint, tokens):
    loaded = load_checkpoint(checkpoint)
    losses = []
    config = PARAMS.pretrain.model_copy(update={"epochs": 8, "batch_size": 16, "dropout": 0.0, "learning_rate": 0.01})
    pretrain(
        loaded.model, tokens, loaded.architecture, config, device=CPU, on_epoch=lambda epoch, loss: losses.append(loss)
    )
    assert losses[-1] < 0.6 * losses[0]


def test_made_up_cells_stand_in_for_the_training_cells_in_each_epoch(checkpoint, task):
    config = finetune_config(epochs=3)
    drawn = []

    def draw(order, rows=task.train):
        drawn.append(order)
        return task.tokens.take(rows)

    def course(task):
        history = fit(build(checkpoint, config), task, config, seed=0, epochs=3, device=CPU)
        return [dataclasses.replace(e, seconds=0) for e in history]

    themselves = course(task)
    assert course(dataclasses.replace(task, draw=draw)) == themselves
    assert len(drawn) == 3
    # Cells of other conditions under the labels of the training cells: it learns something else.
    others = np.roll(task.train, 1)
    assert course(dataclasses.replace(task, draw=lambda order: draw(order, others))) != themselves
