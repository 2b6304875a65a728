"""Fusion starts as the logistic regression it stands beside, both its parts learn, and it is saved whole."""

import dataclasses
import json
import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.embed import embed_cells
from reverse_perturbation.models.encoder.tokens import Tokens
from reverse_perturbation.models.finetune.network.classifier import save_classifier
from reverse_perturbation.models.finetune.training.history import chosen_epoch
from reverse_perturbation.models.finetune.training.train import fit, make_optimizer
from reverse_perturbation.models.fusion import FusionClassifier, LinearPart, TokensAndFeatures, load_fusion
from reverse_perturbation.models.linear.logreg import LogisticRegression
from reverse_perturbation.models.scgpt.encoder.checkpoint import load_checkpoint
from reverse_perturbation.sections import Fusion
from tests.models.conftest import CELL_IDS, CONDITIONS, GENES, ONE, finetune_config

NAMES = [f"G{i}" for i in range(GENES)]
LABELS = np.array(CONDITIONS, dtype=object)[np.arange(240) % 3]
EVERY = np.arange(240)


@pytest.fixture(scope="module")
def expression() -> sp.csr_matrix:
    """What tells the conditions apart, sparse, genes of different scale."""
    rng = np.random.default_rng(4)
    dense = rng.poisson(0.5, (240, GENES)) * rng.uniform(0.2, 3.0, GENES)
    dense[EVERY, np.arange(240) % 3] += rng.uniform(1, 5, 240)
    return sp.csr_matrix(dense.astype(np.float32))


@pytest.fixture(scope="module")
def cells(tokens, expression) -> Tokens:
    return TokensAndFeatures.join(tokens, expression)


@pytest.fixture(scope="module", params=["none", "max_abs"])
def fitted(request, expression) -> LogisticRegression:
    return LogisticRegression(request.param, 1.0, 500).fit(expression[:60], LABELS[:60])


@pytest.fixture
def folder(fitted, tmp_path):
    fitted.save(tmp_path / "logreg", "log1p", NAMES)
    return tmp_path / "logreg"


def build(checkpoint, folder, config, rate=1e-3, seed=1, dropout=0.0) -> FusionClassifier:
    linear = LinearPart.load(folder, NAMES, CONDITIONS, "cells.h5ad")
    torch.manual_seed(seed)
    backbone = load_checkpoint(checkpoint).backbone
    fusion = Fusion(linear_learning_rate=rate, linear_dropout=dropout)
    return FusionClassifier(backbone, torch.arange(GENES), linear, config, fusion)


def predict(model, cells):
    return embed_cells(model, cells, CELL_IDS, CONDITIONS, ONE)


def same_as_logreg(found, fitted, expression) -> None:
    wanted = fitted.log_proba(expression)
    assert found.log_proba == pytest.approx(wanted, abs=1e-5)
    assert (np.argsort(found.log_proba, axis=1) == np.argsort(wanted, axis=1)).all()


@pytest.mark.parametrize("adaptation", ["frozen", "head", "last_n", "lora", "full"])
def test_before_training_it_scores_as_logreg(checkpoint, folder, fitted, cells, expression, adaptation):
    config = finetune_config(adaptation__mode=adaptation, head__readout=["cls", "mean"])
    found = predict(build(checkpoint, folder, config), cells)
    same_as_logreg(found, fitted, expression)
    assert found.log_proba.std() > 0.1
    assert found.embedding.std() > 0.1


def test_in_training_some_cells_go_without_logreg_s_scores(checkpoint, folder, cells):
    model = build(checkpoint, folder, finetune_config(), dropout=0.4)
    with torch.no_grad():
        model.head.classify.weight.normal_()
    batch = cells.batch(np.arange(240))
    with torch.no_grad():
        alone = super(FusionClassifier, model).forward(batch).logits
        whole = alone + model.linear(batch.features)
        found = model.train()(batch).logits
        predicted = model.eval()(batch).logits
    without = (found - alone).abs().amax(1) < 1e-5
    assert 0.3 < without.float().mean() < 0.5  # 240 draws at 0.4: three standard deviations
    assert torch.allclose(found[~without], whole[~without], atol=1e-5)
    assert torch.allclose(predicted, whole, atol=1e-5), "a prediction always has them"


def test_tokens_left_out_leave_the_expression(cells):
    """And ``only`` leaves the right cells without them."""
    kept = np.ones(len(cells.ids), dtype=bool)
    kept[cells.offsets[7] : cells.offsets[8]] = False
    found = cells.only(kept)
    assert isinstance(found, TokensAndFeatures)
    assert found.features is cells.features
    assert found.lengths[7] == 0
    assert (np.delete(found.lengths, 7) == np.delete(cells.lengths, 7)).all()
    assert (found.take(np.array([8])).values == cells.take(np.array([8])).values).all()


def test_balance_corrected_does_not_count_the_frequencies_twice(checkpoint, folder, fitted, cells, expression, data):
    """The logistic regression has them in its intercept already: epoch 0 still predicts what it does."""
    rates = {"optimizer__backbone_learning_rate": 1e-12, "optimizer__head_learning_rate": 1e-12}
    config = finetune_config(sampler__kind="balanced", sampler__cells_per_condition=8, schedule__epochs=1, **rates)
    model = build(checkpoint, folder, config, rate=0.0)
    uneven = data.train[(data.targets[data.train] > 0) | (data.train < 9)]
    fit(model, dataclasses.replace(data, tokens=cells, train=uneven), config, seed=0, epochs=1, accelerator=ONE)
    same_as_logreg(predict(model, cells), fitted, expression)


def test_it_scores_as_logreg_with_many_genes(tmp_path):
    """As many as the real screen has: single precision is enough."""
    rng = np.random.default_rng(0)
    expression = sp.random(300, 5045, 0.2, "csr", np.float32, rng, lambda n: rng.gamma(4, 0.5, n).astype(np.float32))
    labels = np.array([f"G{i}+ctrl" for i in np.arange(300) % 30], dtype=object)
    genes = [f"G{i}" for i in range(5045)]
    fitted = LogisticRegression("max_abs", 1.0, 100).fit(expression, labels)
    fitted.save(tmp_path / "logreg", "log1p", genes)
    part = LinearPart.load(tmp_path / "logreg", genes, sorted(set(labels)), "cells.h5ad")
    found = torch.log_softmax(part(torch.from_numpy(expression.toarray())), dim=1).detach().numpy()
    assert found == pytest.approx(fitted.log_proba(expression), abs=1e-5)


def test_both_parts_learn(checkpoint, folder, cells, data):
    config = finetune_config()
    model = build(checkpoint, folder, config)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batch, target = cells.batch(data.train[:32]), torch.from_numpy(data.targets[data.train[:32]])
    optimizer = make_optimizer(model)
    for step in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch).logits, target).backward()
        reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        assert {"linear.weight", "linear.bias", "head.classify.weight", "head.classify.bias"} <= reached
        # Behind a layer of zeros nothing is seen of the loss until that layer has moved.
        behind = {name for name in reached if name.startswith("backbone.")}
        assert bool(behind) == bool(step)
        optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {"linear.weight", "head.classify.weight", "backbone.transformer_encoder.layers.2.linear1.weight"} <= changed


def test_training_improves_on_a_logreg_that_knows_little(checkpoint, folder, expression, cells, data):
    """Fitted on shuffled labels; the tokens tell these cells' conditions."""
    shuffled = np.random.default_rng(3).permutation(LABELS[:60])
    LogisticRegression("none", 1.0, 500).fit(expression[:60], shuffled).save(folder, "log1p", NAMES)
    config = finetune_config(
        schedule__epochs=12, schedule__patience=12, sampler__batch_size=16, head__readout=["genes"]
    )
    model = build(checkpoint, folder, config)
    history = fit(model, joined(data, cells), config, seed=0, epochs=12, accelerator=ONE, include_untrained=True)
    assert chosen_epoch(history).mrr > history[0].mrr + 0.1
    hits = predict(model, cells).log_proba[data.validation].argmax(axis=1) == data.targets[data.validation]
    assert hits.mean() == pytest.approx(chosen_epoch(history).exact_hit_at_1)


def test_a_learning_rate_of_zero_keeps_the_linear_part(checkpoint, folder, fitted, cells, data):
    config = finetune_config(schedule__epochs=2)
    model = build(checkpoint, folder, config, rate=0.0)
    assert [group["name"] for group in model.parameter_groups()] == ["backbone", "head"]
    fit(model, joined(data, cells), config, seed=0, epochs=2, accelerator=ONE)
    assert torch.equal(model.linear.weight, torch.from_numpy(fitted.coef).float())
    assert model.head.classify.weight.abs().max() > 0


def test_the_linear_part_has_a_learning_rate_of_its_own_and_no_decay(checkpoint, folder):
    config = finetune_config(optimizer__weight_decay=0.3)
    model = build(checkpoint, folder, config, rate=2e-4)
    linear, bias = model.linear.weight.detach().clone(), model.head.embed[-1].weight.detach().clone()
    optimizer = make_optimizer(model)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {
        "backbone": config.optimizer.backbone_learning_rate,
        "head": config.optimizer.head_learning_rate,
        "linear": 2e-4,
    }
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(model.linear.weight, linear)
    assert (model.head.embed[-1].weight.abs() < bias.abs()).any()


def joined(data, cells):
    return dataclasses.replace(data, tokens=cells)


def test_logreg_is_kept_where_training_only_harms(checkpoint, folder, fitted, cells, expression, data):
    """Labels that are wrong for the cells to learn from; validation cells keep theirs."""
    targets = data.targets.copy()
    targets[data.train] = (targets[data.train] + 1) % 3
    wrong = dataclasses.replace(data, tokens=cells, targets=targets)
    config = finetune_config(schedule__epochs=3, sampler__batch_size=4)
    model = build(checkpoint, folder, config, rate=1.0)
    history = fit(model, wrong, config, seed=0, epochs=3, accelerator=ONE, include_untrained=True)
    assert [epoch.epoch for epoch in history] == [0, 1, 2, 3]
    assert math.isnan(history[0].train_loss)
    assert min(epoch.exact_hit_at_1 for epoch in history[1:]) < history[0].exact_hit_at_1
    assert chosen_epoch(history).epoch == 0
    same_as_logreg(predict(model, cells), fitted, expression)


def test_a_refit_of_no_epochs_is_logreg(checkpoint, folder, fitted, cells, expression, data):
    model = build(checkpoint, folder, finetune_config())
    assert fit(model, joined(data, cells), finetune_config(), seed=0, epochs=0, accelerator=ONE) == []
    same_as_logreg(predict(model, cells), fitted, expression)


@pytest.mark.parametrize("rate", [0.0, 1e-2])
def test_saved_and_loaded_it_scores_the_same(checkpoint, folder, cells, data, tmp_path, rate):
    config = finetune_config(schedule__epochs=1)
    model, other = build(checkpoint, folder, config, rate), build(checkpoint, folder, config, rate, seed=2)
    fit(model, joined(data, cells), config, seed=0, epochs=1, accelerator=ONE)
    loaded = load_checkpoint(checkpoint)
    about = {"fusion": {"linear_learning_rate": rate, "linear_dropout": 0.0}, "features": "log1p", "genes": NAMES}
    save_classifier(tmp_path / "model", {"selection": other, "final": model}, CONDITIONS, loaded, config, **about)
    found, conditions = load_fusion(tmp_path / "model", "final", loaded, NAMES, "cells.h5ad")
    assert conditions == CONDITIONS
    assert predict(found, cells).log_proba == pytest.approx(predict(model, cells).log_proba, abs=1e-5)
    assert predict(found, cells).embedding == pytest.approx(predict(model, cells).embedding, abs=1e-5)
    second, _ = load_fusion(tmp_path / "model", "selection", loaded, NAMES, "cells.h5ad")
    assert not np.allclose(predict(second, cells).embedding, predict(model, cells).embedding, atol=1e-3)

    with pytest.raises(InputError, match=r"model: fitted on other genes than those of b\.h5ad: 12 for 11; run"):
        load_fusion(tmp_path / "model", "final", loaded, NAMES[:-1], "b.h5ad")
    content = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(content | {"conditions": CONDITIONS[:2]}))
    with pytest.raises(InputError, match=r"another shape: .*linear\.weight"):
        load_fusion(tmp_path / "model", "final", loaded, NAMES, "cells.h5ad")


def test_a_logreg_of_other_genes_or_conditions_is_refused(folder):
    turned = [NAMES[1], NAMES[0], *NAMES[2:]]
    with pytest.raises(InputError) as refused:
        LinearPart.load(folder, turned, CONDITIONS, "cells.h5ad")
    assert str(refused.value) == (
        f"{folder}: fitted on other genes than those of cells.h5ad: 12 for 12, the first that differs 'G0' for 'G1'; "
        "run `dvc repro baseline@logreg`"
    )
    with pytest.raises(InputError, match=r"other conditions than those of cells\.h5ad: 3 for 2, .* 'B\+ctrl' for 'C"):
        LinearPart.load(folder, NAMES, ["A+ctrl", "C+ctrl"], "cells.h5ad")
    with pytest.raises(InputError, match="not saved weights"):
        LinearPart.load(folder / "none", NAMES, CONDITIONS, "cells.h5ad")


def test_the_expression_stays_with_its_cells(cells, tokens, expression):
    rows = np.array([7, 3, 200])
    found, plain = cells.batch(rows), tokens.batch(rows)
    assert (found.features.numpy() == expression.toarray()[rows]).all()
    for name in ("ids", "values", "padding"):
        assert torch.equal(getattr(found, name), getattr(plain, name))
    again = cells.take(rows)
    assert torch.equal(again.batch(np.array([2, 0])).features, found.features[[2, 0]])
