"""The report holds every row, warns of simulated cells and of nothing else, and its pictures are there."""

import json
import re
from importlib import import_module
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from reverse_perturbation.analysis import calibration, errors
from reverse_perturbation.comparison.compare import SHARED
from reverse_perturbation.config import Params
from reverse_perturbation.metrics import registry
from reverse_perturbation.report import plots
from reverse_perturbation.report.markdown import escaped, markdown
from reverse_perturbation.report.probe import probe_section
from reverse_perturbation.retrieval.evaluate import Scores
from reverse_perturbation.runs import Run, all_runs
from reverse_perturbation.stages import analysis, compare, report
from reverse_perturbation.storage import write_json
from tests.comparison.test_compare import held_out
from tests.end_to_end.pipeline import params
from tests.report.test_library_query import grid_rows

CONDITIONS = np.array(["A+B", "A+ctrl", "B+ctrl", "D+ctrl"], dtype=object)
LABELS = np.repeat(CONDITIONS, 10)
# How far the truth stands out: PCA loses to all, the last seed of scGPT to the first.
STRENGTH = {"scgpt-0": 1.5, "scgpt-1": 1.0, "scgpt_ensemble": 1.4, "fusion-0": 2.1, "fusion-1": 2.2}
STRENGTH |= {"fusion_ensemble": 2.3, "logreg": 2.0, "logreg_default": 1.8, "pca": 0.2, "stack": 2.05}
TRAINED = ("scgpt", "fusion")
BRIEF = registry.shown_in("brief")
BASELINES = ("logreg", "logreg_default", "pca")
ENSEMBLES = ("scgpt_ensemble", "fusion_ensemble")
COMBINED = (*ENSEMBLES, "stack")
ALONE = sorted(STRENGTH.keys() - {*COMBINED})
PICTURES = ["reach.png", "errors.png", "by_effect.png", "reliability.png"]
PICTURES += ["hit_at_k.png", "coverage.png", "confusion.png", "training.png"]
SPLIT = {"cells": {"reference": 1300, "validation": 90, "query": 40}, "conditions": 4, "cells_left_out": 51}
SPLIT |= {"legacy_conditions_left_out": 2, "duplicated_queries": 0.025, "duplicated_validation": 0.0}
FACTS = pd.DataFrame(
    {
        "condition": CONDITIONS,
        "genes": [2, 1, 1, 1],
        "reference_cells": [40, 30, 20, 10],
        "e_distance": [5.0, 0.1, -0.1, 2.0],
    }
)
REACH = pd.DataFrame(
    [(name, size, 0.25, 0.5, 8) for size in ("1", "10", "half") for name in CONDITIONS],
    columns=["condition", "cells_per_query", "exact_hit@1", "mrr", "groups"],
)


def proba(name: str) -> np.ndarray:
    rng = np.random.default_rng([*ALONE, *COMBINED].index(name))
    logits = rng.normal(size=(40, 4)) + STRENGTH[name] * (LABELS[:, None] == CONDITIONS)
    logits[:, 3] -= 20 if name == "scgpt-0" else 0  # which never answers with the last condition
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def by_size(run: Run, ranking: str, single: float) -> pd.DataFrame:
    """Hits of a run by number of cells: the same for all conditions with one, with ten for one condition alone."""
    rows = [(name, 1, single, 10) for name in CONDITIONS] + [("A+ctrl", 10, single + 0.2, 5)]
    table = pd.DataFrame(rows, columns=["condition", "cells_per_query", "exact_hit@1", "queries"])
    return table.assign(model=run.model, seed=run.seed, ranking=ranking, mrr=0.5)


def analyse(folder, runs, source):
    """Write what the stage analysis would have."""
    config = Params.model_validate(params()).analysis
    rows = {}
    for run in runs:
        scores = Scores.load(run.scores(folder / "scores"))
        found = calibration.tables(scores, scores, "classifier", config)
        found |= errors.tables(scores, FACTS, np.eye(4), config.similar)
        single = 0.1 + 0.1 * ALONE.index(run.name) if run.name in ALONE else 0.4
        sizes = [by_size(run, "classifier", single)]
        found["cells_per_query"] = pd.concat(sizes + [by_size(run, "bootstrap", 0.3)] * (run.model == "scgpt"))
        for table, frame in found.items():
            rows.setdefault(table, []).append(frame.assign(model=run.model, seed=run.seed))
    bound = {}
    if source == "simulated":
        bound = {"simulator_bound": {"exact_hit@1": 0.987, "mrr": 0.991}}
        rows["cells_per_query"].append(by_size(Run("simulator bound"), "posterior", 0.8))
    tables = {name: pd.concat(frames) for name, frames in rows.items()}
    calibrated = tables["calibration"].set_index(pd.Index([run.name for run in runs]))
    tables |= {"facts": FACTS, "split_half": REACH}
    (folder / "analysis").mkdir(exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / "analysis" / f"{name}.csv", index=False)
    cap = {"exact_hit@1": 0.875, "mrr": 0.9375}
    write_json(folder / "metrics" / "analysis.json", analysis.summary(calibrated, REACH, cap) | bound)


def probe(at_chance: bool) -> dict:
    gap = {"found": 0.3, "chance": 0.25, "low": -0.05 if at_chance else 0.02, "high": 0.15}
    return dict.fromkeys(BRIEF, gap) | {"at_chance": at_chance}


def probes(leaks=()) -> dict:
    """What the stage probe would have written."""
    masks = {mask: {"targets": probe(mask == "all_targets"), "gem_group": None} for mask in ("own", "all_targets")}
    return {"masks": masks, "leaks": list(leaks)}


def make(
    folder,
    source="simulated",
    seeds=(0, 1),
    query="cell",
    skipped=1,
    training=True,
    models=TRAINED,
    findings=MappingProxyType({}),
):
    """Write what the stages before would have, then run compare and report."""
    about = {field: f"the {field}" for field in SHARED} | {
        "source": source,
        "data": "simulated" if source == "simulated" else "norman_subset",
        "query": query,
        "query_draws": {"cells_per_query": 10, "draws": 5, "seed": 42},
        "labels": "canonical",
        "split_seed": 42,
        "queries": 40,
        "conditions": 4,
        "ranking": "classifier",
        "skipped_conditions": 3,
    }
    content = params(seeds=list(seeds), models=list(models), baselines=list(BASELINES))
    runs = [run for of_model in all_runs(Params.model_validate(content)).values() for run in of_model]
    for run in runs:
        scores = Scores(np.array([f"c{i}" for i in range(40)], dtype=object), LABELS, CONDITIONS, proba(run.name))
        scores.save(run.scores(folder / "scores"))
        found = registry.compute(scores.scores, LABELS, CONDITIONS)
        own = about | {"model": run.model, "training_seed": run.seed, "finding": findings.get(run.name)}
        rest = {"validation": dict.fromkeys(BRIEF, 0.321), "chance": registry.chance(LABELS, CONDITIONS)}
        if run.origin == "baselines":
            rest["cross_validation"] = held_out(mrr=0.25 if run.name == "logreg_default" else STRENGTH[run.name] / 10)
        if run.name not in ENSEMBLES and run.origin == "combined":
            weights = {"logreg": 0.75, "logreg_default": 0.0}
            rest["weights"] = weights if run.name == "stack" else {"scgpt": 0.5 + run.seed} | weights
        write_json(run.metrics(folder / "metrics"), found | rest | {"provenance": own})
    grid_rows(skipped).to_csv(folder / "grid.csv", index=False)
    for run in (run for run in runs if training and run.origin == "trained"):
        curves = run.curves(folder / "training") / "plots" / "metrics"
        curves.mkdir(parents=True, exist_ok=True)
        for name in ("train_loss", "validation_loss", "exact_hit_at_1", "mrr"):
            pd.DataFrame({"step": [0, 1], name: [0.5, 0.25]}).to_csv(curves / f"{name}.tsv", sep="\t", index=False)
        for name in ("backbone_learning_rate", "head_learning_rate"):
            pd.DataFrame({"step": [0, 1], name: [1e-3, 0.0]}).to_csv(curves / f"{name}.tsv", sep="\t", index=False)
    with (folder / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(content, file)
    analyse(folder, runs, source)
    write_json(folder / "metrics" / "probe.json", probes())
    write_json(folder / "metrics" / "split.json", SPLIT)
    shared = ["--params", folder / "params.yaml", "--metrics", folder / "metrics", "--scores", folder / "scores"]
    compare.main([*map(str, shared), "--output", str(folder / "metrics" / "comparison.json")])
    places = [
        "--grid",
        folder / "grid.csv",
        "--analysis",
        folder / "analysis",
        "--training",
        folder / "training",
        "--plots",
        folder / "plots" / "models",
    ]
    report.main([*map(str, shared + places), "--output", str(folder / "results" / "report.md")])
    return (folder / "results" / "report.md").read_text()


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    return folder, make(folder)


def table(text: str, heading: str, number: int = 0) -> pd.DataFrame:
    """A table under a heading, all cells as text."""
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    block = re.findall(r"(?:^\|.*\n)+", section + "\n", flags=re.M)[number]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().split("\n")]
    assert len({len(row) for row in rows}) == 1
    return pd.DataFrame(rows[2:], columns=rows[0])


def test_every_model_and_seed_has_its_row_the_losing_ones_too(simulated):
    _, text = simulated
    found = table(text, "Every model and seed")
    assert found["model"].tolist() == [name.split("-")[0] for name in STRENGTH] + ["chance"]
    assert found["training seed"].tolist() == ["0", "1", "-"] * 2 + ["-"] * 5
    for name, shown in zip(STRENGTH, found["mrr"], strict=False):
        assert shown == f"{registry.compute(proba(name), LABELS, CONDITIONS)['mrr']:.3f}"
    assert found["exact_hit@1"].iloc[-1] == "0.250"
    mrr = dict(zip(STRENGTH, map(float, found["mrr"]), strict=False))
    assert mrr["pca"] < mrr["scgpt-1"] < mrr["logreg"], "made up so"
    validation = table(text, "Every model and seed", 1)
    assert validation["model"].tolist() == found["model"].tolist()[:-1]
    assert set(validation["validation mrr"]) == {"0.321"}


def test_a_run_whose_training_failed_has_its_row_and_a_line_that_says_so(simulated, tmp_path):
    text = make(tmp_path, findings={"scgpt-1": "the selection fit ended at chance: try this"})
    rows = table(text, "Every model and seed")
    pd.testing.assert_frame_equal(rows, table(simulated[1], "Every model and seed"))
    section = text.split("## Every model and seed\n")[1].split("\n## ")[0]
    assert re.search(r"\| chance .*\|\n\n- `scgpt-1`: the selection fit ended at chance: try this\.\n\n\|", section)
    assert "fit ended" not in simulated[1]


def test_the_verdict_names_the_number_of_missed_targets(simulated):
    _, text = simulated
    verdicts = table(text, "The success criteria")["verdict"]
    missed = int((verdicts == "**missed**").sum())
    assert missed > 0
    assert len(verdicts) == 7
    assert f"**Verdict: {missed} of 7 targets are missed.**" in text


def test_seeds_are_counted_in_whole_numbers(simulated):
    criteria = table(simulated[1], "The success criteria").set_index("criterion")
    assert criteria.loc["training seeds", ["found", "needed", "verdict"]].tolist() == ["2", "2", "passed"]
    assert criteria.loc["scGPT mrr", "needed"] == "0.450"


def test_each_baseline_is_described_by_its_own_file(simulated):
    section = simulated[1].split("## Every model and seed")[1].split("\n## ")[0]
    lines = re.findall(r"^- `(\w+)`: (.*)$", section, flags=re.M)
    modules = {name: import_module(f"reverse_perturbation.models.baselines.{name}") for name in BASELINES}
    described = dict(lines)
    assert described.pop("stack").startswith("The baselines' log-probabilities in a weighted sum")
    assert described == {name: module.__doc__.splitlines()[0] for name, module in modules.items()}


def test_the_headline_tests_are_told_with_their_findings(simulated, tmp_path):
    folder, text = simulated
    tests = json.loads((folder / "metrics" / "comparison.json").read_text())["tests"]
    heading = "The gap to the tuned logistic regression"
    found = table(text, heading, 1).set_index(["model", "minus"])
    models = ("scgpt", "scgpt_ensemble", "fusion", "fusion_ensemble")
    assert list(found.index) == [(model, name) for model in models for name in ("logreg", "logreg_default")]
    for (model, name), row in found.iterrows():
        test = tests[model][name]
        assert row["gap in mrr"] == f"{test['gap']:.3f}"
        assert (row["p, Holm"], row["finding"]) == (f"{test['p_holm']:.3f}", test["finding"])
        assert (row["95 % low, seeds too"] == "-") == model.endswith("ensemble"), "it has no seeds to draw"
    one = table(make(tmp_path, seeds=(0,)), heading, 1)
    assert set(one["95 % low, seeds too"]) == {"-"}


def test_the_weights_of_combined_models_are_told(simulated, tmp_path):
    """A member that another model lacks has no weight in it, which is not a weight of 0."""
    found = table(simulated[1], "Every model and seed", 2)
    assert found.to_dict("records") == [
        {"model": "fusion", "training seed": "0", "scgpt": "0.500", "logreg": "0.750", "logreg_default": "0.000"},
        {"model": "fusion", "training seed": "1", "scgpt": "1.500", "logreg": "0.750", "logreg_default": "0.000"},
        {"model": "stack", "training seed": "-", "scgpt": "-", "logreg": "0.750", "logreg_default": "0.000"},
    ]
    alone = table(make(tmp_path, models=("scgpt",)), "Every model and seed", 2)
    assert alone["model"].tolist() == ["stack"]


def test_probes_are_told_and_a_leak_cannot_be_overlooked(simulated):
    section = simulated[1].split("## Leak probes")[1]
    figures = " 0.300 | 0.250 | +0.020 to +0.150 |" * len(BRIEF)
    assert f"| own | counts of the target genes |{figures} above chance |" in section
    assert f"| all_targets | gem group |{' - | - | - |' * len(BRIEF)} absent from the data |" in section
    assert "the target genes reveal nothing" in section
    assert "**Leak: all_targets: zeros above chance.**" in probe_section(probes(["all_targets: zeros"]))


def test_the_cells_and_the_duplicates_among_them_are_told(simulated):
    section = simulated[1].split("## The cells")[1].split("\n## ")[0]
    assert "1,300 reference, 90 validation and 40 query cells of 4 conditions, no cell in two parts" in section
    assert "2 legacy conditions with too few cells are left out (51 cells)" in section
    assert "2.50% of the query cells (of reference and validation), 0.00% of the validation cells" in section


def test_scgpt_alone_is_compared_where_nothing_else_was_trained(tmp_path, capsys):
    text = make(tmp_path, models=("scgpt",))
    assert "\n| scgpt | mrr |" in text
    assert "\n| fusion |" not in text
    assert "\nscgpt - logreg " in (said := capsys.readouterr().out)
    assert "fusion" not in said
    assert "`fusion`" not in text


def test_an_ensemble_has_a_gap_but_no_spread(simulated):
    heading = "The gap to the tuned logistic regression"
    gaps = table(simulated[1], heading).set_index(["model", "metric"])
    mrr = {name: registry.compute(proba(name), LABELS, CONDITIONS)["mrr"] for name in STRENGTH}
    for name in ENSEMBLES:
        row = gaps.loc[(name, "mrr")]
        assert row["std over seeds"] == "-"
        assert row["gap"] == f"{mrr[name] - mrr['logreg']:.3f}"
    assert set(table(simulated[1], heading, 2)["model"]) == {*TRAINED}


@pytest.mark.parametrize("model", TRAINED)
def test_the_gap_is_shown_with_both_kinds_of_interval(simulated, model):
    _, text = simulated
    hit = {name: registry.compute(proba(name), LABELS, CONDITIONS)["exact_hit@1"] for name in STRENGTH}
    hits = [hit[f"{model}-0"], hit[f"{model}-1"]]
    heading, row = "The gap to the tuned logistic regression", (model, "exact_hit@1")
    gap = table(text, heading).set_index(["model", "metric"]).loc[row]
    assert gap["mean"] == f"{np.mean(hits):.3f}"
    assert gap["gap"] == f"{np.mean(hits) - hit['logreg']:.3f}"
    assert gap["std over seeds"] == f"{np.std(hits, ddof=1):.3f}"
    assert float(gap["95 % low"]) < float(gap["gap"]) < float(gap["95 % high"])
    seeds = table(text, heading, 2).set_index(["model", "metric"]).loc[row]
    half = 12.706 * np.std(hits, ddof=1) / 2**0.5
    assert float(seeds["95 % high"]) == pytest.approx(np.mean(hits) + half, abs=2e-3)


def test_the_warning_of_simulated_cells_stands_over_those_alone(simulated, tmp_path):
    _, text = simulated
    assert text.index("**Simulated cells.**") < text.index("Verdict")
    real = make(tmp_path, source="h5ad")
    assert "imulated" not in real
    assert "Measured on: norman_subset data" in real
    assert table(real, "Every model and seed")["slice"].str.startswith("norman_subset, mask").all()
    assert "h5ad data" not in real


def test_no_nan_and_no_none(simulated, tmp_path):
    for text in (simulated[1], make(tmp_path, skipped=4)):
        assert not re.search(r"\b(nan|none|inf)\b", text, flags=re.I)


def test_the_libraries_are_summed_up_and_the_grid_is_pointed_to(simulated, tmp_path):
    heading = "Libraries and queries"
    found = table(simulated[1], heading).set_index(["model", "queries"])
    assert found.loc[("scgpt", "pseudo-bulks"), ["ranking", "cells per query"]].tolist() == ["mean", "10"]
    assert "[library_query.md](library_query.md)" in simulated[1]
    found = table(make(tmp_path, skipped=4), heading).set_index(["model", "queries"])
    assert found.loc[("scgpt", "pseudo-bulks"), ["cells per query", "query mrr", "classifier"]].tolist() == ["-"] * 3


def test_one_seed_and_pseudobulks_come_with_their_caveats(simulated, tmp_path):
    text = make(tmp_path, seeds=(0,), query="pseudobulk")
    assert "trained with one seed" in text
    assert set(table(text, "The gap to the tuned logistic regression")["std over seeds"]) == {"-"}
    assert "may share cells" in text
    assert "3 conditions have too few query cells" in text
    assert "trained with one seed" not in simulated[1]
    assert "may share cells" not in simulated[1]


def test_pictures_are_found_from_the_report_and_come_out_the_same_again(simulated, tmp_path):
    folder, text = simulated
    links = re.findall(r"!\[.*\]\((.*)\)", text)
    assert [link.rsplit("/", 1)[1] for link in links] == PICTURES
    make(tmp_path)
    for link in links:
        content = (folder / "results" / link).resolve().read_bytes()
        assert content.startswith(b"\x89PNG")
        assert content == (tmp_path / "results" / link).resolve().read_bytes()


def test_ceilings_and_conditions_that_leave_no_trace(simulated):
    _, text = simulated
    section = text.split("## What could be reached")[1].split("\n## ")[0]
    assert "exact_hit@1 0.875 and mrr 0.938" in section
    assert "in most draws: A+B, A+ctrl, B+ctrl, D+ctrl." in section
    reach = table(text, "What could be reached")
    assert reach["cells averaged"].tolist() == ["1", "10", "half"]
    assert reach["conditions"].tolist() == ["4"] * 3


def test_models_stand_beside_the_ceilings_over_the_same_conditions(simulated, tmp_path):
    """At ten cells one condition is left; scGPT's figures are means over its seeds."""
    heading = "What could be reached"
    found = table(simulated[1], heading, 1)
    models = ["scgpt", "scgpt, library", "fusion", "logreg", "pca"]
    assert list(found.columns) == ["cells averaged", "conditions", "split half", "simulator bound", *models]
    assert found.iloc[0].tolist() == ["1", "4", "0.250", "0.800", "0.650", "0.300", "0.150", "0.300", "0.500"]
    assert found.iloc[1].tolist() == ["10", "1", "0.250", "1.000", "0.850", "0.500", "0.350", "0.500", "0.700"]
    shares = table(simulated[1], heading, 2)
    assert shares.iloc[0, 2:].tolist() == ["0.812", "0.375", "0.188", "0.375", "0.625"]
    assert "as a share of `simulator bound`" in simulated[1]
    assert "has exact_hit@1 0.987, mrr 0.991 on the queries" in simulated[1]
    real = make(tmp_path, source="h5ad")
    assert "imulator" not in real
    found = table(real, heading, 1)
    assert list(found.columns) == ["cells averaged", "conditions", "split half", *models]
    assert "as a share of `split half`. Above 1" in real
    assert table(real, heading, 2).iloc[0, 2:].tolist() == ["2.600", "1.200", "0.600", "1.200", "2.000"]


def test_errors_are_means_over_seeds_and_add_up(simulated):
    _, text = simulated
    classes = table(text, "Errors").set_index("class")
    assert list(classes.index) == ["right", "shares a gene", "unrelated"]  # no twins here, and no similar profiles
    for model in ("scgpt", "fusion", "logreg", "pca"):
        assert sum(map(float, classes[model])) == pytest.approx(1, abs=2e-3)
    hits = [registry.compute(proba(f"scgpt-{seed}"), LABELS, CONDITIONS)["exact_hit@1"] for seed in (0, 1)]
    assert classes.loc["right", "scgpt"] == f"{np.mean(hits):.3f}"
    assert classes.loc["right", "chance"] == "0.250"
    by_group = table(text, "Errors", 1).set_index("group")
    assert by_group.loc[["single", "double"], "conditions"].tolist() == ["3", "1"]
    # Each condition has ten queries, so the groups' means give the whole.
    whole = (3 * float(by_group.loc["single", "exact_hit@1 scgpt"]) + float(by_group.loc["double"].iloc[1])) / 4
    assert whole == pytest.approx(np.mean(hits), abs=2e-3)
    hardest = table(text, "Errors", 2)
    assert hardest["condition"].iloc[0] == "D+ctrl"  # which the first seed never answers
    assert set(hardest["which is"]) <= {"shares a gene", "unrelated"}


def test_confidence_has_every_model(simulated):
    _, text = simulated
    models = ["scgpt", "scgpt_ensemble", "fusion", "fusion_ensemble", "logreg", "logreg_default", "pca", "stack"]
    assert table(text, "Confidence")["model"].tolist() == models
    by_margin = table(text, "Confidence", 1).set_index(["model", "measure"])
    found = registry.compute(proba("pca"), LABELS, CONDITIONS)
    for name in ("confidence_auc", "aurc", "confidence_roc_auc"):
        assert by_margin.loc[("pca", "margin"), name] == f"{found[name]:.3f}"


def test_the_gap_to_every_baseline(simulated):
    _, text = simulated
    found = table(text, "The gap to the tuned logistic regression", 3).set_index(["model", "minus", "metric"])
    assert {minus for _, minus, _ in found.index} == {"logreg", "logreg_default", "pca", "stack"}
    row = found.loc[("scgpt", "pca", "mrr")]
    assert float(row["low, seeds too"]) < float(row["gap"]) < float(row["high, seeds too"])


def test_the_strongest_baseline_is_named_with_how_it_was_chosen_and_the_gap_to_it(simulated):
    _, text = simulated
    assert "`logreg_default` has the highest mrr of known cells" in text
    tried = table(text, "The strongest baseline")
    assert tried["baseline"].tolist() == ["logreg_default", "logreg", "pca"]
    assert tried["configurations tried"].tolist() == ["7", "7", "7"]
    assert tried["held out mrr"].tolist() == ["0.250", "0.200", "0.020"]
    gaps = table(text, "The strongest baseline", 1).set_index(["model", "metric"])
    mrr = {name: registry.compute(proba(name), LABELS, CONDITIONS)["mrr"] for name in STRENGTH}
    ours = (mrr["scgpt-0"] + mrr["scgpt-1"]) / 2
    row = gaps.loc[("scgpt", "mrr")]
    assert row["logreg_default"] == f"{mrr['logreg_default']:.3f}"
    assert row["gap"] == f"{ours - mrr['logreg_default']:.3f}"
    assert row["ratio"] == f"{ours / mrr['logreg_default']:.3f}"
    assert float(row["95 % low"]) <= float(row["gap"]) <= float(row["95 % high"])


def test_rows_for_dvc_plots(simulated):
    folder = simulated[0] / "plots" / "models"
    hits = pd.read_csv(folder / "hit_at_k.csv").set_index(["model", "k"])["exact_hit"]
    for name in STRENGTH:
        found = registry.compute(proba(name), LABELS, CONDITIONS)
        assert hits[name, 1] == pytest.approx(found["exact_hit@1"], abs=1e-6)
        assert hits[name, 4] == 1
    coverage = pd.read_csv(folder / "coverage.csv").set_index(["model", "coverage"])["accuracy"]
    assert coverage["pca", 1.0] == pytest.approx(hits["pca", 1], abs=1e-6)
    answers = pd.read_csv(folder / "confusion.csv")
    assert (answers["actual"] == LABELS).all()
    assert (answers["actual"] == answers["predicted"]).mean() == pytest.approx(hits["scgpt-0", 1])
    losses = pd.read_csv(folder / "training.csv")
    assert set(losses["model"]) == {"scgpt-0", "scgpt-1"}, "nothing else is trained"


def test_without_training_curves_there_is_still_a_report(tmp_path):
    assert "training.png" in make(tmp_path, training=False)


def test_confusion_shows_every_condition_of_every_model_in_the_same_place(tmp_path, monkeypatch):
    """One model may never answer with a condition that another does."""
    assert set(np.argmax(proba("scgpt-0"), axis=1)) < set(np.argmax(proba("logreg"), axis=1))
    drawn = {}
    monkeypatch.setattr(plots, "confusion", lambda matrices, path, title: drawn.update(matrices))
    make(tmp_path)
    assert list(drawn) == ["scgpt-0", "logreg"]
    for name, matrix in drawn.items():
        assert matrix.index.tolist() == matrix.columns.tolist() == CONDITIONS.tolist()
        assert matrix.sum(axis=1).tolist() == pytest.approx([1] * 4)
        hit = registry.compute(proba(name), LABELS, CONDITIONS)["exact_hit@1"]
        assert np.diag(matrix).mean() == pytest.approx(hit)


@pytest.mark.parametrize(
    "missing",
    [
        "metrics/comparison.json",
        "metrics/baselines/pca.json",
        "metrics/models/stack.json",
        "metrics/analysis.json",
        "metrics/split.json",
        "metrics/probe.json",
        "analysis/facts.csv",
        "scores/models/scgpt-1.npz",
        "grid.csv",
    ],
)
def test_a_missing_file_ends_with_one_line(simulated, tmp_path, capsys, missing):
    make(tmp_path)
    (tmp_path / missing).unlink()
    capsys.readouterr()
    arguments = ["--params", "params.yaml", "--metrics", "metrics", "--scores", "scores", "--grid", "grid.csv"]
    arguments += ["--analysis", "analysis"]
    arguments += ["--training", "training", "--plots", "plots", "--output", "again.md"]
    arguments = [each if each.startswith("--") else str(tmp_path / each) for each in arguments]
    with pytest.raises(SystemExit) as stopped:
        report.main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / missing}: no such file; run `dvc repro")
    assert error.count("\n") == 1
    assert not (tmp_path / "again.md").exists()


def test_a_table_by_hand():
    rows = [{"model": "a", "hit": 0.12345, "n": 3}, {"model": "b", "hit": None, "n": 4}]
    assert markdown(rows).splitlines() == [
        "| model | hit | n |",
        "|---|---:|---|",
        "| a | 0.123 | 3 |",
        "| b | - | 4 |",
    ]


def test_texts_of_the_data_stay_in_their_cell_and_are_no_html():
    """A label as hostile as it gets, in a table and in a sentence."""
    label = "A|B<img src=x onerror=alert(1)>&amp;`c`**d**[e](f)\\\n|g"
    shown = r"A\|B&lt;img src=x onerror=alert(1)&gt;&amp;amp;\`c\`\*\*d\*\*\[e\](f)\\ \|g"
    assert escaped(label) == shown
    assert markdown([{"a": escaped(label), "b": 1.0}]).splitlines()[2] == f"| {shown} | 1.000 |"
    raw = markdown([{"a|a": "**b**|<i>\nc", "d": "[e](f.md)"}])
    assert raw.splitlines() == [r"| a\|a | d |", "|---|---|", r"| **b**\|&lt;i&gt; c | [e](f.md) |"]
    assert escaped("HLA-A_1.2+ctrl") == "HLA-A_1.2+ctrl"


def test_a_text_with_dollar_signs_is_no_formula_in_a_picture(tmp_path):
    names = ["A$\\frac$+ctrl", "B$^$+ctrl"]
    matrix = pd.DataFrame(np.eye(2), index=names, columns=names)
    plots.confusion({"scgpt": matrix}, tmp_path / "confusion.png", "data $\\nothing$, mask own")
    assert (tmp_path / "confusion.png").stat().st_size
