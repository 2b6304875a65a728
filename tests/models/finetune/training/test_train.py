"""The loop learns, repeats itself, keeps the best epoch, and keeps its learning rates apart."""

import dataclasses
import re
from io import BytesIO

import numpy as np
import pytest
import torch

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.embed import embed_cells
from reverse_perturbation.models.finetune.network.classifier import load_classifier, save_classifier
from reverse_perturbation.models.finetune.training import train
from reverse_perturbation.models.finetune.training.collapse import check_training
from reverse_perturbation.models.finetune.training.ema import Ema
from reverse_perturbation.models.finetune.training.history import chosen_epoch, highest_epoch
from reverse_perturbation.models.finetune.training.resume import DIGEST
from reverse_perturbation.models.finetune.training.train import fit
from reverse_perturbation.models.scgpt.encoder.checkpoint import load_checkpoint
from tests.models.conftest import CONDITIONS, ONE, build, finetune_config, loss_config


def test_it_learns_what_can_be_learned(checkpoint, data):
    config = finetune_config(
        schedule__epochs=12, schedule__patience=12, sampler__batch_size=16, head__readout=["genes"]
    )
    history = fit(build(checkpoint, config), data, config, seed=0, epochs=12, accelerator=ONE)
    assert history[0].validation_loss > 0.9
    assert chosen_epoch(history).exact_hit_at_1 > 0.85
    assert chosen_epoch(history).mrr > 0.9


@pytest.mark.parametrize("term", ["infonce", "supcon"])
def test_a_contrastive_loss_alone_learns_and_is_evaluated_by_a_library(checkpoint, data, term):
    config = finetune_config(
        schedule__epochs=12, schedule__patience=12, loss=loss_config(cross_entropy=0.0, **{term: 1.0})
    )
    model = build(checkpoint, config)
    history = fit(model, data, config, seed=0, epochs=12, accelerator=ONE)
    assert np.isnan(history[0].validation_loss)
    assert chosen_epoch(history).exact_hit_at_1 > 0.85
    predictions = embed_cells(model, data.tokens, np.arange(240), CONDITIONS, ONE)
    assert predictions.log_proba is None
    assert predictions.conditions is None


def test_both_rankings_are_followed_through_the_epochs(checkpoint, data):
    """The library's figures are those of the mean embedding of each condition's training cells."""
    config = finetune_config(schedule__epochs=3)
    model = build(checkpoint, config)
    history = fit(model, data, config, seed=0, epochs=3, accelerator=ONE)
    last = history[-1]
    assert chosen_epoch(history) is last, "its weights are in the model"
    predictions = embed_cells(model, data.tokens, np.arange(240), CONDITIONS, ONE)
    unit = predictions.embedding / np.linalg.norm(predictions.embedding, axis=1, keepdims=True)
    means = np.stack([predictions.embedding[data.train[data.targets[data.train] == c]].mean(axis=0) for c in range(3)])
    similarity = unit[data.validation] @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    truth = data.targets[data.validation]
    assert last.library_exact_hit_at_1 == pytest.approx((similarity.argmax(axis=1) == truth).mean())
    assert last.exact_hit_at_1 == pytest.approx((predictions.log_proba[data.validation].argmax(axis=1) == truth).mean())
    assert 1 / 3 < last.library_exact_hit_at_1 <= last.library_mrr <= 1


def test_shuffled_labels_stay_at_chance_and_are_reported(checkpoint, data):
    wrong = dataclasses.replace(data, targets=np.random.default_rng(3).permutation(data.targets))
    config = finetune_config(schedule__epochs=6, schedule__patience=6)
    history = fit(build(checkpoint, config), wrong, config, seed=0, epochs=6, accelerator=ONE)
    assert len(history) == 6, "chance ends no fit"
    finding = check_training(history, "selection")
    assert re.fullmatch(
        r"the selection fit ended at chance: validation mrr is 0\.\d+, .*the labels are those.*", finding
    )
    # 30 validation cells, chance 1/3: 0.6 is the 99.9 % quantile of the binomial
    assert history[-1].exact_hit_at_1 <= 0.6


def test_the_same_seed_gives_the_same_course_and_another_does_not(checkpoint, data):
    config = finetune_config(adaptation__dropout=0.2)
    runs = [
        [
            dataclasses.replace(e, seconds=0)
            for e in fit(build(checkpoint, config), data, config, seed=s, epochs=2, accelerator=ONE)
        ]
        for s in (5, 5, 6)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_without_validation_cells_the_course_is_the_same(checkpoint, data):
    """A refit of n epochs repeats the first n: same order, dropout, learning rates and loss."""
    config = finetune_config(adaptation__dropout=0.2, loss=loss_config(label_smoothing=0.3))
    histories = [
        fit(build(checkpoint, config), each, config, seed=0, epochs=epochs, accelerator=ONE)
        for each, epochs in ((data, 3), (dataclasses.replace(data, validation=data.validation[:0]), 2))
    ]
    courses = [[(e.train_loss, e.backbone_learning_rate, e.head_learning_rate) for e in each] for each in histories]
    assert courses[0][:2] == courses[1]


def test_the_chosen_epoch_s_weights_are_left_in_the_model(checkpoint, data):
    """From the third epoch on the training cells have the labels of others: training then does harm."""
    config = finetune_config(schedule__epochs=8, schedule__patience=3)
    model = build(checkpoint, config)
    rows = iter([data.train] * 2 + [np.roll(data.train, 1)] * 6)
    resampled = dataclasses.replace(data, resample=lambda rng: data.tokens.take(next(rows)))
    history = fit(model, resampled, config, seed=0, epochs=8, accelerator=ONE)
    chosen = chosen_epoch(history)
    assert chosen.epoch < len(history) <= highest_epoch(history).epoch + 3
    predictions = embed_cells(model, data.tokens, np.arange(240), CONDITIONS, ONE)
    hits = (predictions.log_proba[data.validation].argmax(axis=1) == data.targets[data.validation]).mean()
    assert hits == pytest.approx(chosen.exact_hit_at_1)


@pytest.mark.parametrize("sampler", ["random", "balanced"])
def test_two_batches_accumulated_are_one_of_twice_the_size(checkpoint, data, sampler, monkeypatch):
    """Both see the same cells in the same order; the last batch is smaller.

    By plain gradient descent: Adam makes steps of rounding errors where a gradient is zero, as the keys' biases' is.
    """
    monkeypatch.setattr(
        train,
        "make_optimizer",
        lambda model: torch.optim.SGD([group | {"lr": 0.1} for group in model.parameter_groups()]),
    )
    rows = [data.train[:24], data.train[24:48], data.train[48:60]]
    twice = [np.concatenate(rows[:2]), rows[2]]
    states, losses, rates = [], [], []
    for batches, accumulation in ((rows, 2), (twice, 1)):
        monkeypatch.setattr(train, "training_batches", lambda *_, batches=batches: batches)
        config = finetune_config(
            sampler__kind=sampler, optimizer__accumulation=accumulation, sampler__batch_size=48 // accumulation
        )
        model = build(checkpoint, config)
        history = fit(model, data, config, seed=0, epochs=1, accelerator=ONE)
        states.append(model.trainable_state())
        losses.append(history[0].train_loss)
        rates.append(history[0].head_learning_rate)
    assert rates[0] == rates[1], "the schedule counts steps, not batches"
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    start = build(checkpoint, config).trainable_state()
    for name, tensor in states[0].items():
        assert torch.allclose(tensor, states[1][name], atol=1e-6), name
    assert (start["head.classify.weight"] - states[0]["head.classify.weight"]).abs().max() > 1e-3


def test_a_balanced_fit_keeps_the_frequencies_of_its_cells(checkpoint, data, tmp_path):
    few = dataclasses.replace(data, train=data.train[(data.targets[data.train] > 0) | (data.train < 15)])  # 5, 20, 20
    settings = {"sampler__kind": "balanced", "sampler__cells_per_condition": 8, "schedule__epochs": 1}
    config = finetune_config(**settings)
    model = build(checkpoint, config)
    fit(model, few, config, seed=0, epochs=1, accelerator=ONE)
    assert model.head.log_prior.exp().tolist() == pytest.approx([5 / 45, 20 / 45, 20 / 45])
    save_classifier(
        tmp_path / "model", {"selection": model, "final": model}, CONDITIONS, load_checkpoint(checkpoint), config
    )
    loaded, _ = load_classifier(tmp_path / "model", "final", load_checkpoint(checkpoint))
    assert torch.equal(loaded.head.log_prior, model.head.log_prior)
    for other in ({"sampler__prior_correction": False}, {"sampler__kind": "random"}):
        changed = finetune_config(**settings | other)
        model = build(checkpoint, changed)
        fit(model, few, changed, seed=0, epochs=1, accelerator=ONE)
        assert not model.head.log_prior.any()


def test_the_standard_error_is_the_binomial_one(checkpoint, data):
    """Of the 30 validation cells."""
    config = finetune_config(schedule__epochs=1)
    (epoch,) = fit(build(checkpoint, config), data, config, seed=0, epochs=1, accelerator=ONE)
    hit = epoch.exact_hit_at_1
    assert 0 < hit < 1
    assert epoch.exact_hit_at_1_error == pytest.approx((hit * (1 - hit) / 30) ** 0.5)


@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_a_probe_leaves_the_backbone_as_it_is(checkpoint, data, adaptation):
    config = finetune_config(
        adaptation__mode=adaptation,
        schedule__probe_epochs=2,
        schedule__epochs=4,
        optimizer__ema=0.5,
        optimizer__backbone_learning_rate=0.01,
    )
    start = build(checkpoint, config).trainable_state()

    def after(epochs):
        model = build(checkpoint, config)
        alone = dataclasses.replace(data, validation=data.validation[:0])
        history = fit(model, alone, config, seed=0, epochs=epochs, accelerator=ONE)
        moved = {name for name, tensor in model.trainable_state().items() if not torch.equal(tensor, start[name])}
        assert any(p.requires_grad for p in model.backbone.parameters()), "frozen for a while only"
        return history, {name.split(".")[0] for name in moved}

    history, moved = after(2)
    assert moved == {"readout", "head"}
    assert history[0].backbone_learning_rate == 0
    assert history[1].backbone_learning_rate > 0, "an epoch's rates are those of the step after it"
    assert after(3)[1] == {"readout", "head", "backbone"}


def test_the_mean_of_the_weights_is_evaluated_and_kept(checkpoint, data, monkeypatch):
    """Worked out again from the weights after each step."""
    config = finetune_config(optimizer__ema=0.6, schedule__epochs=2)
    steps, model = [], build(checkpoint, config)
    start = {name: t.clone() for name, t in model.trainable_state().items()}
    update = Ema.update

    def watched(ema, model):
        steps.append({name: t.clone() for name, t in model.trainable_state().items()})
        update(ema, model)

    monkeypatch.setattr(Ema, "update", watched)
    history = fit(model, data, config, seed=0, epochs=2, accelerator=ONE)
    assert len(steps) == 4
    for name, mean in start.items():
        means = [mean.double()]
        for t, weights in enumerate(steps, start=1):
            decay = min(0.6, (1 + t) / (10 + t))
            means.append(decay * means[-1] + (1 - decay) * weights[name].double())
        kept = means[2 * chosen_epoch(history).epoch]
        assert torch.allclose(model.trainable_state()[name].double(), kept, atol=1e-6), name
    predictions = embed_cells(model, data.tokens, np.arange(240), CONDITIONS, ONE)
    hits = (predictions.log_proba[data.validation].argmax(axis=1) == data.targets[data.validation]).mean()
    assert hits == pytest.approx(chosen_epoch(history).exact_hit_at_1)
    assert (steps[-1]["head.classify.weight"] - model.head.classify.weight).abs().max() > 1e-4


def test_the_mean_does_not_change_the_course_of_the_weights(checkpoint, data):
    """It is only evaluated: the training losses are those without it."""
    histories = [
        fit(build(checkpoint, config), data, config, seed=0, epochs=3, accelerator=ONE)
        for config in (
            finetune_config(optimizer__ema=0.0, adaptation__dropout=0.2),
            finetune_config(optimizer__ema=0.9, adaptation__dropout=0.2),
        )
    ]
    assert [e.train_loss for e in histories[0]] == [e.train_loss for e in histories[1]]
    assert [e.validation_loss for e in histories[0]] != [e.validation_loss for e in histories[1]]


def test_a_loss_that_is_not_finite_stops_and_names_the_cells(checkpoint, data, tmp_path):
    """The state of the last epoch before it stays, to be read and resumed from."""
    config = finetune_config()
    sound = data.tokens.take(data.train)
    broken = dataclasses.replace(sound, values=np.full_like(sound.values, np.nan))
    epochs = iter([sound, sound, broken])
    states = tmp_path / "state.pt"
    with pytest.raises(
        InputError, match=r"loss is nan in the batch of cells c\d+, c\d+.*lower finetune\.optimizer\.backbone_le"
    ):
        fit(
            build(checkpoint, config),
            dataclasses.replace(data, resample=lambda rng: next(epochs)),
            config,
            seed=0,
            epochs=4,
            accelerator=ONE,
            state_path=states,
        )
    kept = torch.load(BytesIO(states.read_bytes()[DIGEST:]), weights_only=True)
    assert len(kept["history"]) == 2
    assert all(tensor.isfinite().all() for tensor in (kept["weights"] | kept["chosen"]).values())


def test_synthetic_cells_replace_the_training_cells_in_each_epoch(checkpoint, data):
    config = finetune_config(schedule__epochs=2)
    draws = []

    def resample(rng, rows=data.train):
        draws.append(rng)
        return data.tokens.take(rows)

    def course(data):
        history = fit(build(checkpoint, config), data, config, seed=0, epochs=2, accelerator=ONE)
        return [dataclasses.replace(e, seconds=0) for e in history]

    themselves = course(data)
    assert course(dataclasses.replace(data, resample=resample)) == themselves
    assert len(draws) == 2
    # Cells of other conditions under the labels of the training cells: it learns something else.
    others = np.roll(data.train, 1)
    assert course(dataclasses.replace(data, resample=lambda rng: resample(rng, others))) != themselves
