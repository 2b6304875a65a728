"""The report on real cells: all rows in it, splits of the same cells pooled, and the page of all screens."""

import json
import re
import shutil
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from reverse_perturbation.comparison.compare import Result
from reverse_perturbation.config import Params, load_params
from reverse_perturbation.metrics import registry
from reverse_perturbation.report import tables
from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.retrieval.evaluate import Scores
from reverse_perturbation.runs import all_runs
from reverse_perturbation.studies import screens
from reverse_perturbation.studies.presets import load_preset
from reverse_perturbation.studies.reports import MadeRow, compact, rounded
from tests.end_to_end.pipeline import ROOT, params

BASELINES = params()["baselines"]
TRAINED = ("scgpt", "scgpt_ensemble", "fusion", "fusion_ensemble")
MODELS = (*TRAINED, *BASELINES, "stack")
ABOUT = {
    "preset": "norman_subset",
    "preset_sha256": "0" * 64,
    "data_sha256": {"norman_subset.h5ad": "1" * 64},
    "code": "abcdef0123456789",
    "models": ["scgpt", "fusion"],
    "baselines": BASELINES,
    "seeds": [0, 1],
    "date": "2026-01-01",
}


def row(folder, mask, split_seed, split_kind="cell"):
    """A row with the files of another run: what is said of mask and split in its provenance is changed."""
    made = load_params(folder / "params.yaml")
    split = made.split.model_copy(update={"seed": split_seed, "kind": split_kind})
    made = made.model_copy(update={"mask": mask, "split": split})
    for path in folder.glob("metrics/**/*.json"):
        content = json.loads(path.read_text())
        if "provenance" in content:
            content["provenance"] |= {"mask": mask, "split_seed": split_seed, "split_kind": split_kind}
            path.write_text(json.dumps(content))
    return MadeRow(made, DirFileSystem(str(folder), LocalFileSystem()))


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
        for model in (*MODELS, "chance"):
            assert f"\n| {model} |" in section
    split_table = text.split("## Each split, mask all_targets")[1].split("\n## ")[0]
    found = [line for line in split_table.split("\n") if "| scgpt |" in line]
    assert [line.split(" | ")[0] for line in found] == ["| 42", "| 43", "| 44"]
    mean = comparison["scgpt"]["mrr"]
    assert all(line.split(" | ")[3] == f"{mean:.3f}" for line in found)
    ensemble = next(line for line in split_table.split("\n") if "| fusion_ensemble |" in line)
    assert ensemble.split(" | ")[4] == "-", "no spread over seeds"
    assert "`reverse-perturbation experiments norman_subset -S compare.draws=200` from `norman_subset.h5ad`" in text
    assert "`finetune.schedule.epochs=25`" in text
    assert "No pretrained weights were used" in text

    report = json.loads((tmp_path / "reports" / "norman_subset.json").read_text())
    assert report["provenance"] == ABOUT
    assert report["screen"] == "simulated"
    assert report["rows"].keys() == rows.keys()
    assert report["rows"]["own-42"]["mask"] == "own"
    assert report["rows"]["all_targets-43"]["split_seed"] == 43
    for model in MODELS:
        assert report["rows"]["none-42"][model]["mrr"] == pytest.approx(comparison[model]["mrr"], abs=1e-6)
    interval = comparison["fusion_interval"]["ndcg@5"]
    assert report["rows"]["all_targets-42"]["fusion_interval"]["ndcg@5"] == pytest.approx(interval, abs=1e-6)
    assert {row["strongest"] for row in report["rows"].values()} == {comparison["strongest"]["baseline"]}
    assert markdown(screens.main_table(report)) in text
    assert_pooled(report, comparison, text)

    folder = tmp_path / "reports" / "norman_subset"
    pictures = re.findall(r"\]\(([^)]+\.png)\)", (folder / "report.md").read_text())
    assert "hit_at_k.png" in pictures
    assert all((folder / picture).exists() for picture in pictures)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (folder.parent / link).exists(), link
    assert_overview(report, tmp_path / "reports")


def assert_pooled(report, comparison, text):
    """Three times the same split: the figures over all of them are those of one, intervals and tests too."""
    queries, best = comparison["provenance"]["queries"], comparison["strongest"]["baseline"]
    assert report["pooled"].keys() == {"all_targets", "own", "none"}
    for mask, seeds in (("all_targets", [42, 43, 44]), ("own", [42])):
        found = report["pooled"][mask]
        assert (found["splits"], found["strongest"]) == (seeds, [best] * len(seeds))
        assert (found["queries"], found["cells"]) == (len(seeds) * queries, queries)
        assert list(found["means"]) == [*MODELS, "strongest"]
        for model, of_model in found["means"].items():
            expected = comparison[best if model == "strongest" else model]
            assert of_model == pytest.approx({name: expected[name] for name in of_model}, abs=1e-6)
        assert list(found["tests"]) == list(found["stack"]) == [*TRAINED]
        for model, of_model in found["tests"].items():
            assert list(of_model) == ["logreg", "strongest"]
            for minus, name in (("logreg", "logreg"), ("strongest", best)):
                test, expected = of_model[minus], comparison["tests"][model][name]
                assert test["finding"] == expected["finding"]
                for figure in ("gap", "low", "high", "p", "p_holm"):
                    assert test[figure] == pytest.approx(expected[figure], abs=2e-6), (mask, model, minus, figure)
            to_stack = comparison["gaps" if model == "scgpt" else f"{model}_gaps"]["stack"]["mrr"]
            expected = {"gap": to_stack["mean"], "low": to_stack["low"], "high": to_stack["high"]}
            assert found["stack"][model] == pytest.approx(expected, abs=1e-6)
        section = text.split(f"\n## Mask {mask}\n")[1].split("\n## ")[0]
        assert f"{len(seeds) * queries:,} queries of {queries:,} cells" in section
        assert markdown(screens.means_table(found)) in section
        assert markdown(tables.tests_table(found["tests"])) in section
    assert f"`{best}` in split 42, `{best}` in split 43, `{best}` in split 44." in text


def assert_overview(report, folder):
    """One preset of three has been run here."""
    overview = json.loads((folder / "screens.json").read_text())
    assert overview == {"norman_subset": {"screen": "simulated", "pooled": report["pooled"]}}
    lines = (folder / "screens.md").read_text().splitlines()
    shown = [line.split(" | ")[:3] for line in lines if line.startswith("| [norman_subset](norman_subset.md)")]
    assert shown == [
        ["| [norman_subset](norman_subset.md)", mask, model]
        for mask in ("all_targets", "own", "none")
        for model in TRAINED
    ]
    test = report["pooled"]["own"]["tests"]["fusion"]["strongest"]
    (line,) = (line for line in lines if "| own | fusion |" in line)
    assert f"| {test['gap']:.3f} | {test['low']:.3f} | {test['high']:.3f} | {test['finding']} |" in line


def test_whole_lanes_are_a_group_of_their_own(simulated, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    preset = load_preset("norman_singles", {"data.path": "/somewhere/norman_singles.h5ad"})
    names = ("lanes-42", "cells-42")
    rows = {}
    for name in names:
        shutil.copytree(simulated, tmp_path / name)
        rows[name] = row(tmp_path / name, "all_targets", 42, preset.rows[name]["split.kind"])
    screens.write(preset, rows, ABOUT | {"preset": "norman_singles"}, tmp_path / "reports")
    report = json.loads((tmp_path / "reports" / "norman_singles.json").read_text())
    lanes = "all_targets, whole lanes held out"
    assert list(report["pooled"]) == [lanes, "all_targets"]
    assert {row["mask"] for row in screens.main_table(report)} == {lanes, "all_targets"}
    text = (tmp_path / "reports" / "norman_singles.md").read_text()
    assert text.count(f"\n## Mask {lanes}\n") == text.count("\n## Mask all_targets\n") == 1


# ---- by hand


CONDITIONS = np.array(["A+ctrl", "B+ctrl", "C+ctrl"], dtype=object)
FEW = Params.model_validate(params(models=["scgpt"], baselines=["logreg", "lda", "pca"], seeds=[0, 1]))


@dataclass
class Made:
    """What stands in for a row: the rank of the true condition of each query, by run."""

    ranks: dict[str, list[int]]
    cells: list[str]
    strongest: str
    params: Params = field(default_factory=lambda: FEW)

    @property
    def comparison(self) -> dict[str, Any]:
        return {"strongest": {"baseline": self.strongest}}

    def results(self) -> dict[str, list[Result]]:
        runs = all_runs(FEW).items()
        return {model: [self.result(run) for run in of_model] for model, of_model in runs}

    def result(self, run) -> Result:
        labels = np.full(len(self.cells), "A+ctrl", dtype=object)
        scores = np.array([np.roll([3.0, 2.0, 1.0], 1 - rank) for rank in self.ranks[run.name]])
        found = Scores(np.array(self.cells, dtype=object), labels, CONDITIONS, scores)
        return Result(run, registry.compute(scores, labels, CONDITIONS), found)


def two_splits(best=("lda", "logreg")) -> list[Made]:
    """Three queries and one, of which cell b is a query of both."""
    first = {"scgpt-0": [1, 1, 1], "scgpt-1": [1, 2, 1], "scgpt_ensemble": [1, 1, 1]}
    first |= {"logreg": [1, 2, 2], "lda": [2, 2, 1], "pca": [3, 3, 3], "stack": [1, 1, 2]}
    second = {
        "scgpt-0": [2],
        "scgpt-1": [2],
        "scgpt_ensemble": [2],
        "logreg": [1],
        "lda": [2],
        "pca": [3],
        "stack": [1],
    }
    return [Made(first, ["a", "b", "c"], best[0]), Made(second, ["b"], best[1])]


def test_every_figure_is_a_mean_over_all_queries_of_all_splits():
    found = screens.pooled(two_splits())
    assert (found["queries"], found["cells"]) == (4, 3)
    assert found["splits"] == [42, 42]
    scgpt = ((3 + 1 / 2) + (2 + 1 / 2 + 1 / 2)) / 2 / 4
    assert found["means"]["scgpt"]["mrr"] == pytest.approx(scgpt)
    assert found["means"]["logreg"]["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 2 + 1) / 4)
    assert found["means"]["scgpt"]["exact_hit@1"] == pytest.approx((3 + 2) / 2 / 4)
    assert found["means"]["scgpt_ensemble"]["mrr"] == pytest.approx((3 + 1 / 2) / 4)
    assert found["strongest"] == ["lda", "logreg"]
    strongest = ((1 / 2 + 1 / 2 + 1) + 1) / 4
    assert found["means"]["strongest"]["mrr"] == pytest.approx(strongest), "lda's queries of one split, logreg's of one"
    tests = found["tests"]["scgpt"]
    assert tests["logreg"]["gap"] == pytest.approx(scgpt - 3 / 4)
    assert tests["strongest"]["gap"] == pytest.approx(scgpt - strongest)
    assert found["stack"]["scgpt"]["gap"] == pytest.approx(scgpt - (1 + 1 + 1 / 2 + 1) / 4)


def test_a_cell_that_is_a_query_twice_is_drawn_with_both_occurrences():
    """The ensemble minus logreg is 0 for a, 1/2 for c, and 1/2 and -1/2 for b, which together are 0.

    So no sample is below 0, which occurrences drawn one by one would often be.
    """
    test = screens.pooled(two_splits())["tests"]["scgpt_ensemble"]["logreg"]
    assert test["gap"] == pytest.approx(1 / 2 / 4)
    assert test["low"] == 0
    assert test["high"] == pytest.approx(1 / 2), "c three times"


def test_where_logreg_is_the_strongest_of_every_split_its_test_counts_once():
    found = screens.pooled(two_splits(("logreg", "logreg")))["tests"]
    for of_model in found.values():
        assert list(of_model) == ["logreg", "strongest"]
        assert of_model["strongest"] == of_model["logreg"]
    raw = [of_model["logreg"]["p"] for of_model in found.values()]
    assert max(of_model["logreg"]["p_holm"] for of_model in found.values()) <= min(1, 2 * max(raw))


def test_the_overview_has_every_screen_that_has_been_run(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    pooled = screens.pooled(two_splits())
    for name in ("papalexi", "norman_singles"):
        report = {"screen": f"the screen {name}", "pooled": {"all_targets": pooled}}
        (tmp_path / f"{name}.json").write_text(compact(rounded(report)))
    screens.write_overview(tmp_path)
    overview = json.loads((tmp_path / "screens.json").read_text())
    assert overview.keys() == {"papalexi", "norman_singles"}
    assert overview["papalexi"]["screen"] == "the screen papalexi"
    text = (tmp_path / "screens.md").read_text()
    for name in overview:
        for model in ("scgpt", "scgpt_ensemble"):
            assert f"| [{name}]({name}.md) | all_targets | {model} | {pooled['means'][model]['mrr']:.3f} | " in text
