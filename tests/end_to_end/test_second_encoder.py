"""A foundation model is a folder: another one than scGPT goes through the whole pipeline, no line of it changed."""

import json

import pytest

from reverse_perturbation import models
from reverse_perturbation.config import Params, known_encoders
from reverse_perturbation.errors import InputError
from tests.end_to_end.pipeline import ROOT, params, run


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    """Where a user would put the folder beside models/scgpt."""
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(ROOT / "tests" / "encoders")])


def comparison(folder):
    return json.loads((folder / "metrics" / "comparison.json").read_text())


def test_a_second_encoder_goes_through_the_whole_pipeline(tmp_path):
    learning = {"optimizer": {"backbone_learning_rate": 0.01, "head_learning_rate": 0.02}, "schedule": {"epochs": 6}}
    run(tmp_path, params(models=["tiny", "fusion"], tiny={"width": 12}, finetune=learning))
    found = comparison(tmp_path)
    assert found["provenance"]["models"] == ["tiny", "tiny_ensemble", "fusion", "fusion_ensemble"]
    assert "scgpt" not in found
    run_0 = json.loads((tmp_path / "metrics" / "models" / "tiny-0.json").read_text())
    assert run_0["provenance"]["ranking"] == "classifier"
    assert run_0["mrr"] > 1.2 * run_0["chance"]["mrr"], "it learned from its own tokens"
    assert found["gap"]["mrr"] == pytest.approx(found["tiny"]["mrr"] - found["logreg"]["mrr"])
    assert {"fusion_gap", "tiny_ensemble_gap", "targets"} <= found.keys()
    facts = json.loads((tmp_path / "data" / "predictions" / "combined" / "fusion-0" / "facts.json").read_text())
    assert next(iter(facts["weights"])) == "tiny"
    report = (tmp_path / "results" / "reports" / "report.md").read_text()
    assert report.startswith("# tiny against logistic regression")
    assert "\n| tiny |" in report
    assert "scGPT" not in report


@pytest.mark.parametrize("mode", ["head", "lora"])
def test_its_frozen_output_is_cached_and_its_layers_take_adapters(tmp_path, capsys, mode):
    adaptation = {"mode": mode, "lora": {"targets": ["linear1"]}}
    content = params(models=["tiny"], finetune={"adaptation": adaptation, "augmentation": {"mixing": 1}}, seeds=[0])
    run(tmp_path, content, until="evaluate")
    said = capsys.readouterr().out
    assert said.count("cache: keeping") == (mode == "head")
    training = json.loads((tmp_path / "metrics" / "models" / "tiny-0.json").read_text())["training"]
    width, rank = 8, 8
    assert training["trainable_parameters"]["backbone"] == (2 * width * rank if mode == "lora" else 0)


def test_its_section_is_checked():
    assert "tiny" in known_encoders()
    from reverse_perturbation.models.tiny.encoder.vocabulary import Config

    found = Params.model_validate(params(models=["tiny"], tiny={"widht": 3}))
    with pytest.raises(InputError, match=r"tiny\.widht: unknown key"):
        found.section("tiny", Config)
