"""The report on real cells: all rows in it, and splits of the same cells pooled."""

import json
import re
import shutil

import pandas as pd
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from reverse_perturbation.config import load_params
from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.sections import Compare
from reverse_perturbation.studies import screens
from reverse_perturbation.studies.presets import load_preset
from reverse_perturbation.studies.reports import MadeRow
from tests.end_to_end.pipeline import ROOT

MODELS = ("logreg", "logreg_default", "logreg_genes", "lda", "pca", "scgpt", "fusion")
ABOUT = {
    "preset": "norman_subset",
    "preset_sha256": "0" * 64,
    "data_sha256": {"norman_subset.h5ad": "1" * 64},
    "code": "abcdef0123456789",
    "models": ["scgpt", "fusion"],
    "baselines": ["logreg", "logreg_default", "logreg_genes", "lda", "pca"],
    "seeds": [0, 1],
    "date": "2026-01-01",
}


def row(folder, mask, split_seed):
    """A row with the files of another run: what is said of mask and split in its provenance is changed."""
    params = load_params(folder / "params.yaml")
    params = params.model_copy(update={"mask": mask, "split": params.split.model_copy(update={"seed": split_seed})})
    for path in folder.glob("metrics/*.json"):
        content = json.loads(path.read_text())
        if "provenance" in content:
            content["provenance"] |= {"mask": mask, "split_seed": split_seed}
            path.write_text(json.dumps(content))
    return MadeRow(params, DirFileSystem(str(folder), LocalFileSystem()))


def test_the_report_has_all_masks_and_models(simulated, tmp_path, monkeypatch):
    """The experiments are stood in for by one run; what is tested is what is made of them."""
    monkeypatch.chdir(ROOT)
    preset = load_preset("norman_subset", {"data.path": "/somewhere/norman_subset.h5ad", "compare.draws": 200})
    rows = {}
    for name, differences in preset.rows.items():
        shutil.copytree(simulated, tmp_path / name)
        rows[name] = row(tmp_path / name, differences["mask"], differences["split.seed"])
    screens.write(preset, rows, ABOUT, tmp_path / "reports")

    text = (tmp_path / "reports" / "norman_subset.md").read_text()
    comparison = rows["all_targets-42"].comparison
    for mask in ("none", "own", "all_targets"):
        section = text.split(f"## Mask {mask}, split seed 42")[1].split("## ")[0]
        assert section.count("\n| scgpt |") == section.count("\n| fusion |") == 2
        for model in ("logreg", "logreg_default", "logreg_genes", "lda", "pca", "chance"):
            assert f"\n| {model} |" in section
    split_table = text.split("## Over split seeds")[1].split("The gap")[0]
    found = [line for line in split_table.split("\n") if "| scgpt |" in line]
    assert [line.split(" | ")[0] for line in found] == ["| 42", "| 43", "| 44", "| mean"]
    mean = comparison["scgpt"]["mrr"]
    assert all(line.split(" | ")[4] == f"{mean:.3f}" for line in found)
    # Three times the same split: the gap over all is that of one.
    queries, gap = comparison["provenance"]["queries"], comparison["gap"]["mrr"]
    assert f"| scgpt | mrr | {queries} | {gap:.3f} |" in text
    assert "`reverse-perturbation experiments norman_subset -S compare.draws=200` from `norman_subset.h5ad`" in text
    assert "`finetune.schedule.epochs=25`" in text
    assert "No pretrained weights were used" in text

    report = json.loads((tmp_path / "reports" / "norman_subset.json").read_text())
    assert report["provenance"] == ABOUT
    assert report["rows"].keys() == rows.keys()
    assert report["rows"]["own-42"]["mask"] == "own"
    assert report["rows"]["all_targets-43"]["split_seed"] == 43
    for model in MODELS:
        assert report["rows"]["none-42"][model]["mrr"] == pytest.approx(comparison[model]["mrr"], abs=1e-6)
    interval = comparison["fusion_interval"]["ndcg@5"]
    assert report["rows"]["all_targets-42"]["fusion_interval"]["ndcg@5"] == pytest.approx(interval, abs=1e-6)
    assert report["pooled"]["query_cells"] == queries
    assert report["pooled"]["scgpt"]["mrr"]["gap"] == pytest.approx(gap, abs=1e-6)
    best = comparison["strongest"]["baseline"]
    assert {row["strongest"] for row in report["rows"].values()} == {best}
    to_best = comparison["fusion"]["mrr"] - comparison[best]["mrr"]
    assert report["pooled_strongest"]["fusion"]["mrr"]["gap"] == pytest.approx(to_best, abs=1e-6)
    assert f"`{best}` in split 42, `{best}` in split 43, `{best}` in split 44." in text
    assert markdown(screens.main_table(report)) in text

    folder = tmp_path / "reports" / "norman_subset"
    pictures = re.findall(r"\]\(([^)]+\.png)\)", (folder / "report.md").read_text())
    assert "hit_at_k.png" in pictures
    assert all((folder / picture).exists() for picture in pictures)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (folder.parent / link).exists(), link


def test_a_cell_that_is_a_query_twice_counts_once():
    rows = {"condition": "A+ctrl", "model": "scgpt"}
    first = pd.DataFrame([rows | {"cell": cell, "mrr": gap} for cell, gap in (("a", 0.2), ("b", 0.4))])
    second = pd.DataFrame([rows | {"cell": cell, "mrr": gap} for cell, gap in (("b", 0.0), ("c", 0.5))])
    others = {metric: 0.0 for metric in screens.TESTED if metric != "mrr"}
    tables = [table.assign(**others) for table in (first, second)]
    pooled = screens.pooled_gaps(tables, Compare(draws=2000, seed=0))
    found = next(row for row in pooled if row["metric"] == "mrr")
    assert found["query cells"] == 3
    assert found["gap"] == pytest.approx((0.2 + 0.2 + 0.5) / 3)
    assert 0.2 <= found["95 % low"] < found["gap"] < found["95 % high"] <= 0.5
