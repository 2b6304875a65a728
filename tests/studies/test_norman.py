"""The reports on the full screen, at Norman scale and on the ablation, of a run of the small pipeline."""

import json

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from reverse_perturbation.config import load_params
from reverse_perturbation.metrics.registry import shown_in
from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.storage import sha256
from reverse_perturbation.studies import ablation, norman_full, norman_scale
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


@pytest.mark.parametrize("rehearsed", [False, True])
def test_the_report_on_the_full_screen(made, simulated, tmp_path, rehearsed):
    scgpt = made.params.scgpt.model_copy(update={"checkpoint": str(simulated / "models/base")})
    row = MadeRow(made.params.model_copy(update={"scgpt": scgpt}), made.files)
    preset = load_preset("norman_full", rehearsed=rehearsed)
    norman_full.write(preset, {"specification": row, "leak_free": row}, ABOUT | {"preset": preset.name}, tmp_path)
    text = (tmp_path / f"{preset.name}.md").read_text()
    assert ("**A rehearsal.**" in text) == rehearsed
    report = json.loads((tmp_path / f"{preset.name}.json").read_text())
    assert markdown(norman_full.main_table(report)) in text
    assert "| specification | all_targets | canonical | scgpt |" in text
    missed = [name for name, target in made.comparison["targets"].items() if not target["passed"]]
    assert text.count("**missed**") == 2 * len(missed), "the targets stand under both protocols"
    assert "of unknown origin" in text
    assert sha256(simulated / "models/base/best_model.pt") in text
    assert "| it was trained on | not known |" in text


def test_the_cell_line_is_what_the_file_says(tmp_path):
    cells = AnnData(np.ones((3, 2), dtype=np.float32), obs=pd.DataFrame({"cell_type": ["A549"] * 3}, index=list("abc")))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert norman_full.cell_line(tmp_path / "cells.h5ad") == "A549"
    cells.obs["cell_type"] = cells.obs["cell_type"].astype("category")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert norman_full.cell_line(tmp_path / "cells.h5ad") == "A549"
    del cells.obs["cell_type"]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert norman_full.cell_line(tmp_path / "cells.h5ad") == "not named"


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
