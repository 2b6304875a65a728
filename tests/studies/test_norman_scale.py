"""The reports at Norman scale and on the ablation; the experiment is stood in for by a run of the small pipeline."""

import json

import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from reverse_perturbation.config import load_params
from reverse_perturbation.metrics.registry import shown_in
from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.studies import ablation, norman_scale
from reverse_perturbation.studies.presets import load_preset
from reverse_perturbation.studies.reports import MadeRow
from tests.end_to_end.pipeline import ROOT
from tests.studies.test_screens import ABOUT


@pytest.fixture
def made(simulated, monkeypatch):
    monkeypatch.chdir(ROOT)
    return MadeRow(load_params(simulated / "params.yaml"), DirFileSystem(str(simulated), LocalFileSystem()))


def test_the_report_at_norman_scale(made, tmp_path):
    norman_scale.write(load_preset("norman_scale"), {"one": made}, ABOUT | {"preset": "norman_scale"}, tmp_path)
    text = (tmp_path / "norman_scale.md").read_text()
    missed = [name for name, target in made.comparison["targets"].items() if not target["passed"]]
    assert text.count("**missed**") == len(missed)
    assert ("**Every target is met.**" in text) == (not missed)
    assert text.count("\n| scgpt | ") == 2 + len(shown_in("tested")), "two seeds, the metrics of the gap"
    assert "700 cells x 90 genes" in text
    report = json.loads((tmp_path / "norman_scale.json").read_text())
    assert markdown(norman_scale.main_table(report)) in text
    assert report["rows"]["one"]["gap"]["mrr"] == pytest.approx(made.comparison["gap"]["mrr"], abs=1e-6)


def test_the_report_on_the_ablation(made, tmp_path):
    ablation.write(load_preset("ablation"), {"default": made, "other": made}, ABOUT | {"preset": "ablation"}, tmp_path)
    text = (tmp_path / "ablation.md").read_text()
    report = json.loads((tmp_path / "ablation.json").read_text())
    assert markdown(ablation.main_table(report)) in text
    assert "\n1. **The input matters most**" in text
    scgpt, gap = made.comparison["scgpt"], made.comparison["gap"]["mrr"]
    expected = [scgpt["exact_hit@1"], scgpt["mrr"], scgpt["std"]["exact_hit@1"], scgpt["std"]["mrr"]]
    figures = [*expected, made.comparison["logreg"]["mrr"], gap]
    assert f"| other | {' | '.join(f'{value:.3f}' for value in figures)} |" in text
