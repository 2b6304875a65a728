"""The loop learns, repeats itself, keeps the best epoch, and keeps its learning rates apart."""

import dataclasses

import numpy as np
import pytest
import torch
from tests.models.scgpt.conftest import CONDITIONS, GENES, ONE, PARAMS, finetune_config, loss_config

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.embed import embed_cells
from reverse_perturbation.models.encoder.batches import INFERENCE_TOKENS, inference_batches
from reverse_perturbation.models.finetune.network.classifier import ScgptClassifier, load_classifier, save_classifier
from reverse_perturbation.models.finetune.training.ema import Ema
from reverse_perturbation.models.finetune.training.history import Epoch, chosen_epoch, highest_epoch
from reverse_perturbation.models.finetune.training.train import ask, fit
from reverse_perturbation.models.scgpt import train
from reverse_perturbation.models.scgpt.encoder.checkpoint import load_checkpoint
from reverse_perturbation.models.scgpt.pretrain import pretrain

CPU = torch.device("cpu")


def build(checkpoint, config, seed=1) -> ScgptClassifier:
    torch.manual_seed(seed)
    return ScgptClassifier(load_checkpoint(checkpoint).model, torch.arange(GENES), len(CONDITIONS), config)


def test_it_learns_what_can_be_learned(checkpoint, task):
    config = finetune_config(epochs=12, patience=12, batch_size=16, readout=["genes"])
    history = fit(build(checkpoint, config), task, config, seed=0, epochs=12, accelerator=ONE)
    assert history[0].validation_loss > 0.9
    assert chosen_epoch(history).exact_hit_at_1 > 0.85
    assert chosen_epoch(history).mrr > 0.9


@pytest.mark.parametrize("term", ["infonce", "supcon"])
def test_a_contrastive_loss_alone_learns_and_is_judged_by_a_library(checkpoint, task, term):
    config = finetune_config(epochs=12, patience=12, loss=loss_config(cross_entropy=0.0, **{term: 1.0}))
    model = build(checkpoint, config)
    history = fit(model, task, config, seed=0, epochs=12, accelerator=ONE)
    assert np.isnan(history[0].validation_loss)
    assert chosen_epoch(history).exact_hit_at_1 > 0.85
    outputs = embed_cells(model, task.tokens, np.arange(240), CONDITIONS, ONE)
    assert outputs.log_proba is None
    assert outputs.conditions is None


@pytest.mark.parametrize("processes", [3, 50])
def test_shares_of_the_batches_make_up_the_whole(checkpoint, task, monkeypatch, processes):
    """With more processes than batches too: those without one of their own give what the first gives."""
    monkeypatch.setitem(INFERENCE_TOKENS, "cpu", 2**11)
    model = build(checkpoint, finetune_config())
    whole = ask(model, task.tokens, np.arange(240), CPU)
    assert 3 < len(inference_batches(np.arange(240), task.tokens.lengths, model.width, CPU)) < 50
    shares = [ask(model, task.tokens, np.arange(240), CPU, slice(i, None, processes)) for i in range(processes)]
    assert set(np.concatenate([asked for asked, *_ in shares])) == set(range(240))
    order = np.argsort(whole[0])
    for asked, embedding, logits in shares:
        np.testing.assert_array_equal(embedding, whole[1][order][asked])
        np.testing.assert_array_equal(logits, whole[2][order][asked])


def test_both_rankings_are_followed_through_the_epochs(checkpoint, task):
    """The library's figures are those of the mean embedding of each condition's training cells."""
    config = finetune_config(epochs=3)
    model = build(checkpoint, config)
    history = fit(model, task, config, seed=0, epochs=3, accelerator=ONE)
    last = history[-1]
    assert chosen_epoch(history) is last, "its weights are in the model"
    outputs = embed_cells(model, task.tokens, np.arange(240), CONDITIONS, ONE)
    unit = outputs.embedding / np.linalg.norm(outputs.embedding, axis=1, keepdims=True)
    means = np.stack([outputs.embedding[task.train[task.targets[task.train] == c]].mean(axis=0) for c in range(3)])
    similarity = unit[task.validation] @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    truth = task.targets[task.validation]
    assert last.library_exact_hit_at_1 == pytest.approx((similarity.argmax(axis=1) == truth).mean())
    assert last.exact_hit_at_1 == pytest.approx((outputs.log_proba[task.validation].argmax(axis=1) == truth).mean())
    assert 1 / 3 < last.library_exact_hit_at_1 <= last.library_mrr <= 1


def test_shuffled_labels_stay_at_chance_and_are_told(checkpoint, task):
    wrong = dataclasses.replace(task, targets=np.random.default_rng(3).permutation(task.targets))
    config = finetune_config(epochs=6, patience=6)
    history = []
    with pytest.raises(InputError, match=r"at chance in all of 6 epochs: validation mrr is 0\.\d+.*lower finetune\."):
        fit(build(checkpoint, config), wrong, config, seed=0, epochs=6, accelerator=ONE, on_epoch=history.append)
    # 30 validation cells, chance 1/3: 0.6 is the 99.9 % quantile of the binomial
    assert history[-1].exact_hit_at_1 <= 0.6


def test_the_same_seed_gives_the_same_course_and_another_does_not(checkpoint, task):
    config = finetune_config(dropout=0.2)
    runs = [
        [
            dataclasses.replace(e, seconds=0)
            for e in fit(build(checkpoint, config), task, config, seed=s, epochs=2, accelerator=ONE)
        ]
        for s in (5, 5, 6)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_the_chosen_epoch_s_weights_are_left_in_the_model(checkpoint, task):
    """From the third epoch on the training cells have the labels of others: what comes then is worse."""
    config = finetune_config(epochs=8, patience=3)
    model = build(checkpoint, config)
    rows = iter([task.train] * 2 + [np.roll(task.train, 1)] * 6)
    drawing = dataclasses.replace(task, draw=lambda order: task.tokens.take(next(rows)))
    history = fit(model, drawing, config, seed=0, epochs=8, accelerator=ONE)
    chosen = chosen_epoch(history)
    assert chosen.epoch < len(history) <= highest_epoch(history).epoch + 3
    outputs = embed_cells(model, task.tokens, np.arange(240), CONDITIONS, ONE)
    hits = (outputs.log_proba[task.validation].argmax(axis=1) == task.targets[task.validation]).mean()
    assert hits == pytest.approx(chosen.exact_hit_at_1)


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
        history = fit(model, task, config, seed=0, epochs=1, accelerator=ONE)
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
    fit(model, few, config, seed=0, epochs=1, accelerator=ONE)
    assert model.head.log_prior.exp().tolist() == pytest.approx([5 / 45, 20 / 45, 20 / 45])
    save_classifier(
        tmp_path / "model", {"selection": model, "final": model}, CONDITIONS, load_checkpoint(checkpoint), config
    )
    loaded, _ = load_classifier(tmp_path / "model", "final", load_checkpoint(checkpoint))
    assert torch.equal(loaded.head.log_prior, model.head.log_prior)
    for other in ({"prior_correction": False}, {"sampler": "random"}):
        changed = config.model_copy(update=other)
        model = build(checkpoint, changed)
        fit(model, few, changed, seed=0, epochs=1, accelerator=ONE)
        assert not model.head.log_prior.any()


def test_the_chosen_epoch_is_the_last_within_a_standard_error_of_the_highest():
    def epoch(number, hit, mrr=0.5):
        return Epoch(number, 1.0, 0.0, 0.0, 0.0, exact_hit_at_1=hit, exact_hit_at_1_error=0.04, mrr=mrr)

    history = [epoch(1, 0.2, 0.9), epoch(2, 0.3, 0.4), epoch(3, 0.3, 0.5), epoch(4, 0.3, 0.5), epoch(5, 0.26)]
    assert highest_epoch(history).epoch == 3, "the first of equals"
    assert chosen_epoch([*history, epoch(6, 0.25)]).epoch == 5
    assert chosen_epoch([*history, epoch(6, 0.31)]).epoch == 6
    assert chosen_epoch([*history, epoch(6, 0.29), epoch(7, 0.34)]).epoch == 7
    assert chosen_epoch([Epoch(n, 1.0, 0.0, 0.0, 0.0) for n in (1, 2)]).epoch == 2, "a refit has no validation"


def test_the_standard_error_is_the_binomial_one(checkpoint, task):
    """Of the 30 validation cells."""
    config = finetune_config(epochs=1)
    (epoch,) = fit(build(checkpoint, config), task, config, seed=0, epochs=1, accelerator=ONE)
    hit = epoch.exact_hit_at_1
    assert 0 < hit < 1
    assert epoch.exact_hit_at_1_error == pytest.approx((hit * (1 - hit) / 30) ** 0.5)


@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_a_probe_leaves_the_backbone_as_it_is(checkpoint, task, adaptation):
    config = finetune_config(adaptation=adaptation, probe_epochs=2, epochs=4, ema=0.5, backbone_learning_rate=0.01)
    start = build(checkpoint, config).trainable_state()

    def after(epochs):
        model = build(checkpoint, config)
        alone = dataclasses.replace(task, validation=task.validation[:0])
        history = fit(model, alone, config, seed=0, epochs=epochs, accelerator=ONE)
        moved = {name for name, tensor in model.trainable_state().items() if not torch.equal(tensor, start[name])}
        assert any(p.requires_grad for p in model.backbone.parameters()), "frozen for a while only"
        return history, {name.split(".")[0] for name in moved}

    history, moved = after(2)
    assert moved == {"readout", "head"}
    assert history[0].backbone_learning_rate == 0
    assert history[1].backbone_learning_rate > 0, "an epoch's rates are those of the step after it"
    assert after(3)[1] == {"readout", "head", "backbone"}


def test_the_mean_of_the_weights_is_judged_and_kept(checkpoint, task, monkeypatch):
    """Worked out again from the weights after each step."""
    config = finetune_config(ema=0.6, epochs=2)
    steps, model = [], build(checkpoint, config)
    start = {name: t.clone() for name, t in model.trainable_state().items()}
    update = Ema.update

    def watched(ema, model):
        steps.append({name: t.clone() for name, t in model.trainable_state().items()})
        update(ema, model)

    monkeypatch.setattr(Ema, "update", watched)
    history = fit(model, task, config, seed=0, epochs=2, accelerator=ONE)
    assert len(steps) == 4
    for name, mean in start.items():
        means = [mean.double()]
        for t, weights in enumerate(steps, start=1):
            decay = min(0.6, (1 + t) / (10 + t))
            means.append(decay * means[-1] + (1 - decay) * weights[name].double())
        kept = means[2 * chosen_epoch(history).epoch]
        assert torch.allclose(model.trainable_state()[name].double(), kept, atol=1e-6), name
    outputs = embed_cells(model, task.tokens, np.arange(240), CONDITIONS, ONE)
    hits = (outputs.log_proba[task.validation].argmax(axis=1) == task.targets[task.validation]).mean()
    assert hits == pytest.approx(chosen_epoch(history).exact_hit_at_1)
    assert (steps[-1]["head.classify.weight"] - model.head.classify.weight).abs().max() > 1e-4


def test_the_mean_does_not_change_the_course_of_the_weights(checkpoint, task):
    """It is only looked at: the training losses are those without it."""
    histories = [
        fit(build(checkpoint, config), task, config, seed=0, epochs=3, accelerator=ONE)
        for config in (finetune_config(ema=0.0, dropout=0.2), finetune_config(ema=0.9, dropout=0.2))
    ]
    assert [e.train_loss for e in histories[0]] == [e.train_loss for e in histories[1]]
    assert [e.validation_loss for e in histories[0]] != [e.validation_loss for e in histories[1]]


def test_a_loss_that_is_not_finite_stops_and_names_the_cells(checkpoint, task, tmp_path):
    """The state of the last epoch before it stays, to be read and gone on from."""
    config = finetune_config()
    drawn = task.tokens.take(task.train)
    spoilt = dataclasses.replace(drawn, values=np.full_like(drawn.values, np.nan))
    epochs = iter([drawn, drawn, spoilt])
    states = tmp_path / "state.pt"
    with pytest.raises(InputError, match=r"loss is nan in the batch of cells c\d+, c\d+.*lower finetune\.backbone_le"):
        fit(
            build(checkpoint, config),
            dataclasses.replace(task, draw=lambda order: next(epochs)),
            config,
            seed=0,
            epochs=4,
            accelerator=ONE,
            state=states,
        )
    kept = torch.load(states, weights_only=True)
    assert len(kept["history"]) == 2
    assert all(tensor.isfinite().all() for tensor in (kept["weights"] | kept["chosen"]).values())


def test_pretraining_learns_without_labels(checkpoint, tokens):
    loaded = load_checkpoint(checkpoint)
    losses = []
    config = PARAMS.pretrain.model_copy(update={"epochs": 8, "batch_size": 16, "dropout": 0.0, "learning_rate": 0.01})
    pretrain(
        loaded.model, tokens, loaded.architecture, config, device=CPU, on_epoch=lambda epoch, loss: losses.append(loss)
    )
    assert losses[-1] < 0.6 * losses[0]


def test_made_up_cells_stand_in_for_the_training_cells_in_each_epoch(checkpoint, task):
    config = finetune_config(epochs=2)
    drawn = []

    def draw(order, rows=task.train):
        drawn.append(order)
        return task.tokens.take(rows)

    def course(task):
        history = fit(build(checkpoint, config), task, config, seed=0, epochs=2, accelerator=ONE)
        return [dataclasses.replace(e, seconds=0) for e in history]

    themselves = course(task)
    assert course(dataclasses.replace(task, draw=draw)) == themselves
    assert len(drawn) == 2
    # Cells of other conditions under the labels of the training cells: it learns something else.
    others = np.roll(task.train, 1)
    assert course(dataclasses.replace(task, draw=lambda order: draw(order, others))) != themselves
