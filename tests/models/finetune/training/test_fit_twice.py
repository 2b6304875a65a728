"""Two fits: the second repeats the first on more cells, for as many epochs as the first chose."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier
from reverse_perturbation.models.finetune.training import fit_twice as module
from reverse_perturbation.models.finetune.training.augmentation import resampler
from reverse_perturbation.models.finetune.training.fit_twice import fit_twice
from reverse_perturbation.models.finetune.training.history import Epoch
from reverse_perturbation.models.finetune.training.train import TrainingData, fit
from reverse_perturbation.models.scgpt.encoder.checkpoint import load_checkpoint
from tests.models.conftest import CONDITIONS, ONE, PARAMS, finetune_config, loss_config

PLAIN = {"augmentation__mixing": 1, "schedule__epochs": 3, "sampler__batch_size": 8}


class Spy:
    """Stands in for ``fit``: fits, notes how it was called, and may report another history of the selection fit."""

    def __init__(self, hits: list[float] | None = None):
        self.hits = hits
        self.calls: list[dict[str, Any]] = []
        self.lengths: list[int] = []
        self.fit = module.fit

    def __call__(self, model, data, config, **options) -> list[Epoch]:
        self.calls.append({"model": model, "data": data, **options})
        history = self.fit(model, data, config, **options)
        self.lengths.append(len(history))
        if self.hits is None or len(self.calls) > 1:
            return history
        return [
            Epoch(i, 1.0, 0.0, 0.0, 0.0, exact_hit_at_1=hit, exact_hit_at_1_error=0.01)
            for i, hit in enumerate(self.hits, start=1)
        ]


@pytest.fixture
def run(checkpoint, screen, tmp_path):
    """Call ``fit_twice`` and return its models, and the weights that each fit started from; it notes the finding."""
    loaded = load_checkpoint(checkpoint)

    def call(config, seed: int = 0, folder: Path = tmp_path, **options):
        starts: dict[str, dict[str, torch.Tensor]] = {}

        def make_model() -> EncoderClassifier:
            model = EncoderClassifier(loaded.backbone, loaded.token_ids(screen), len(CONDITIONS), config)
            starts["final" if starts else "selection"] = {
                name: tensor.clone() for name, tensor in model.state_dict().items()
            }
            return model

        fits, call.finding = fit_twice(
            make_model,
            screen,
            loaded.tokenizer(screen, PARAMS),
            config,
            ONE,
            stage="finetune",
            seed=seed,
            checkpoint_sha256=loaded.sha256,
            cache=folder / "cache",
            states=folder / "states",
            curves=folder / "curves",
            **options,
        )
        return fits, starts

    return call


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


@pytest.mark.parametrize(("hits", "chosen"), [([0.5, 0.9, 0.4], 2), ([0.9, 0.5, 0.4], 1)])
def test_the_refit_runs_as_many_epochs_as_the_selection_fit_chose(run, monkeypatch, capsys, hits, chosen):
    spy = Spy(hits)
    monkeypatch.setattr(module, "fit", spy)
    fits, _ = run(finetune_config(**PLAIN))
    assert [call["epochs"] for call in spy.calls] == [3, chosen]
    assert spy.lengths == [3, chosen]
    assert [call["model"] for call in spy.calls] == [fits["selection"], fits["final"]]
    assert f"finetune: fitting {chosen} epochs on reference + validation" in capsys.readouterr().out


def test_the_selection_fit_trains_on_reference_cells_and_the_final_fit_on_both_parts(run, screen, monkeypatch):
    spy = Spy()
    monkeypatch.setattr(module, "fit", spy)
    run(finetune_config(**PLAIN))
    first, second = (call["data"] for call in spy.calls)
    reference, validation = screen.rows("reference"), screen.rows("validation")
    assert first.train.tolist() == reference.tolist()
    assert first.validation.tolist() == validation.tolist()
    assert sorted(second.train) == sorted([*reference, *validation])
    assert len(second.validation) == 0
    for data in (first, second):
        assert data.conditions == CONDITIONS
        assert (np.array(CONDITIONS)[data.targets] == screen.conditions).all()
        assert data.resample is None


def test_synthetic_cells_are_made_of_the_cells_of_the_fit(run, screen, monkeypatch):
    spy = Spy()
    monkeypatch.setattr(module, "fit", spy)
    run(finetune_config(augmentation__mixing=3, schedule__epochs=1))
    lengths = [len(call["data"].resample(np.random.default_rng(0)).lengths) for call in spy.calls]
    assert lengths == [len(screen.rows("reference")), len(screen.rows("reference", "validation"))]


def test_each_fit_is_one_call_of_fit_with_every_setting_of_the_section(run, checkpoint, screen, monkeypatch):
    """Mixing, label smoothing, dropout: the same weights come out where a fit is called by hand."""
    config = finetune_config(
        augmentation__mixing=3,
        augmentation__thinning=0.2,
        loss=loss_config(label_smoothing=0.3),
        adaptation__dropout=0.2,
        schedule__epochs=3,
        sampler__batch_size=8,
    )
    monkeypatch.setattr(module, "fit", Spy([0.5, 0.9, 0.4]))
    fits, starts = run(config, seed=5)
    loaded = load_checkpoint(checkpoint)
    tokenize = loaded.tokenizer(screen, PARAMS)
    targets = np.searchsorted(CONDITIONS, screen.conditions.astype(str))
    reference, validation = screen.rows("reference"), screen.rows("validation")
    for name, train, chosen_by, epochs in (
        ("selection", reference, validation, 3),
        ("final", np.concatenate([reference, validation]), validation[:0], 2),
    ):
        model = EncoderClassifier(loaded.backbone, loaded.token_ids(screen), len(CONDITIONS), config)
        model.load_state_dict(starts[name])
        resample = resampler(screen, train, tokenize, config.augmentation)
        data = TrainingData(screen.cell_ids, tokenize(screen), targets, CONDITIONS, train, chosen_by, resample)
        fit(model, data, config, seed=5, epochs=epochs, accelerator=ONE)
        assert same(fits[name].state_dict(), model.state_dict()), name


def test_both_fits_are_seeded_alike(run, tmp_path, monkeypatch):
    """The final fit starts from the weights the selection fit started from, whatever that fit has drawn since."""
    spy = Spy()
    monkeypatch.setattr(module, "fit", spy)
    config = finetune_config(adaptation__dropout=0.2, **PLAIN)
    _, starts = run(config, seed=5)
    assert list(starts) == ["selection", "final"]
    assert same(starts["selection"], starts["final"])
    assert [call["seed"] for call in spy.calls] == [5, 5]
    _, others = run(config, seed=6, folder=tmp_path / "other")
    assert not same(others["selection"], starts["selection"])


def test_the_same_seed_gives_the_same_models(run, tmp_path):
    config = finetune_config(adaptation__dropout=0.2, **PLAIN)
    fits, again, other = (run(config, seed=s, folder=tmp_path / name)[0] for s, name in ((5, "a"), (5, "b"), (6, "c")))
    for name in ("selection", "final"):
        assert same(fits[name].state_dict(), again[name].state_dict())
        assert not same(fits[name].state_dict(), other[name].state_dict())


def test_what_is_found_in_either_fit_is_told_and_returned(run, tmp_path, capsys):
    """The transformer is thrown off at once by a learning rate a hundred times too high."""
    changes = {"head__readout": ["cls"], "optimizer__backbone_learning_rate": 0.3, "schedule__warmup_fraction": 0.0}
    run(finetune_config(**PLAIN | changes))
    assert re.fullmatch(
        r"the selection fit collapsed in epoch \d: .*\. the final fit collapsed in epoch 1: .*", run.finding
    )
    assert f"finetune: {run.finding}\n" in capsys.readouterr().out
    run(finetune_config(refit=False, **PLAIN | changes), folder=tmp_path / "one")
    assert run.finding.startswith("the selection fit collapsed")
    assert "final fit" not in run.finding
    run(finetune_config(**PLAIN), folder=tmp_path / "sound")
    assert run.finding is None
    assert capsys.readouterr().out.count("collapsed") == 1


def test_without_a_refit_both_are_one_model(run, monkeypatch):
    spy = Spy()
    monkeypatch.setattr(module, "fit", spy)
    fits, starts = run(finetune_config(refit=False, **PLAIN))
    assert fits["selection"] is fits["final"]
    assert len(spy.calls) == 1
    assert list(starts) == ["selection"]


@pytest.mark.parametrize("refit", [True, False])
def test_a_frozen_model_is_not_fitted(run, tmp_path, monkeypatch, capsys, refit):
    monkeypatch.setattr(module, "fit", None)
    fits, starts = run(finetune_config(adaptation__mode="frozen", refit=refit))
    assert same(fits["selection"].state_dict(), starts["selection"])
    assert (fits["selection"] is fits["final"]) != refit
    assert list((tmp_path / "curves").iterdir()) == [], "the stage declares the folder"
    assert "the readout genes has weights to train and is left out" in capsys.readouterr().out


def test_states_and_curves_lie_where_they_are_wanted(run, tmp_path, capsys):
    run(finetune_config(**PLAIN))
    assert sorted(path.name for path in (tmp_path / "states").iterdir()) == [
        "finetune-final.pt",
        "finetune-selection.pt",
    ]
    curves = {path.stem for path in (tmp_path / "curves").rglob("*.tsv")}
    assert {"train_loss", "validation_loss", "exact_hit_at_1", "mrr", "library_mrr"} <= curves
    assert not {"epoch", "seconds"} & curves
    (loss,) = (tmp_path / "curves").rglob("train_loss.tsv")
    assert len(loss.read_text().splitlines()) == 1 + 3, "a line an epoch of the selection fit alone"
    printed = capsys.readouterr().out
    assert "finetune: full, seed 0; trainable parameters: " in printed
    assert "finetune: epoch 3/3" in printed


def test_frozen_layers_are_computed_once_for_both_fits(run, screen, monkeypatch):
    seen = []
    frozen = EncoderClassifier.frozen
    monkeypatch.setattr(EncoderClassifier, "frozen", lambda self, b: seen.append(len(b.ids)) or frozen(self, b))
    run(finetune_config(adaptation__mode="head", **PLAIN))
    assert sum(seen) == len(screen.cell_ids)
