"""Where the files of a run lie, in which order the models come, and that a name is written but never read."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from reverse_perturbation.comparison.compare import Result, compare
from reverse_perturbation.comparison.verdict import lines
from reverse_perturbation.config import Params
from reverse_perturbation.report.tables import gaps_table, models_table
from reverse_perturbation.runs import (
    PLOTTED_BASELINES,
    REFERENCE_BASELINE,
    STACK,
    Run,
    all_runs,
    baseline_runs,
    describe_baselines,
    ensemble_of,
    gap_prefix,
    plotted,
    seeded_runs,
    simple_runs,
    title,
    trained_runs,
)
from reverse_perturbation.sections import FITS
from reverse_perturbation.storage import write_json
from tests.comparison.test_compare import CONFIG, TARGETS, baselines, result
from tests.end_to_end.pipeline import params

LONG = "my-model-2"  # a name that looks like a shorter one with a seed


def experiment(**changes) -> Params:
    return Params.model_validate(params(**changes))


def test_the_files_of_a_trained_model_carry_its_seed():
    run = Run("scgpt", 1, "trained")
    assert run.name == "scgpt-1"
    assert run.weights("models") == Path("models/scgpt-1")
    assert [run.predictions("data/predictions", fit) for fit in FITS] == [
        Path("data/predictions/trained/scgpt-1/selection.npz"),
        Path("data/predictions/trained/scgpt-1/final.npz"),
    ]
    assert run.facts("data/predictions") == Path("data/predictions/trained/scgpt-1/facts.json")
    assert run.metrics("metrics") == Path("metrics/models/scgpt-1.json")
    assert run.scores(Path("data/scores")) == Path("data/scores/models/scgpt-1.npz")
    assert run.curves("training") == Path("training/scgpt-1")


def test_seed_0_is_a_seed_and_a_baseline_has_none():
    assert Run("scgpt", 0, "trained").name == "scgpt-0"
    assert Run("logreg").name == "logreg"
    assert Run("logreg").metrics("metrics") == Path("metrics/baselines/logreg.json")
    assert Run("logreg").scores("s") == Path("s/baselines/logreg.npz")
    assert Run("logreg").predictions("p", "final") == Path("p/baselines/logreg/final.npz")


def test_what_is_combined_lies_apart_from_what_it_is_made_of():
    """But is evaluated with the trained models."""
    for run, name in ((Run("fusion", 2, "combined"), "fusion-2"), (ensemble_of("scgpt"), "scgpt_ensemble")):
        assert run.predictions("p", "final") == Path(f"p/combined/{name}/final.npz")
        assert run.facts("p") == Path(f"p/combined/{name}/facts.json")
        assert run.metrics("metrics") == Path(f"metrics/models/{name}.json")
    assert [Run("a", origin=origin).group for origin in ("baselines", "trained", "combined")] == [
        "baselines",
        "models",
        "models",
    ]


def test_the_foundation_model_comes_first_then_fusion_each_with_its_ensemble_then_the_baselines_as_listed():
    given = experiment(seeds=[5, 3], baselines=["pca", "logreg_default", "logreg"])
    found = all_runs(given)
    scgpt = [Run("scgpt", 5, "trained"), Run("scgpt", 3, "trained")]
    fusion = [Run("fusion", 5, "combined"), Run("fusion", 3, "combined")]
    assert found == {
        "scgpt": scgpt,
        "scgpt_ensemble": [Run("scgpt_ensemble", None, "combined")],
        "fusion": fusion,
        "fusion_ensemble": [Run("fusion_ensemble", None, "combined")],
        "pca": [Run("pca")],
        "logreg_default": [Run("logreg_default")],
        "logreg": [Run("logreg")],
        "stack": [Run("stack", None, "combined")],
    }
    assert list(found) == [*trained_runs(given), *simple_runs(given)]
    assert list(trained_runs(given)) == ["scgpt", "scgpt_ensemble", "fusion", "fusion_ensemble"]
    assert seeded_runs(given) == {"scgpt": scgpt, "fusion": fusion}
    assert list(simple_runs(given)) == [*baseline_runs(given), STACK] == ["pca", "logreg_default", "logreg", "stack"]
    alone = experiment(models=["scgpt"], baselines=["logreg", "pca"])
    assert list(all_runs(alone)) == ["scgpt", "scgpt_ensemble", "logreg", "pca", "stack"]
    assert list(seeded_runs(alone)) == ["scgpt"]


def test_no_two_runs_of_an_experiment_share_a_file():
    runs = [run for of_model in all_runs(experiment(seeds=[0, 1, 10, 42])).values() for run in of_model]
    files = [path for run in runs for path in (run.metrics("m"), run.scores("s"), run.facts("p"))]
    files += [run.predictions("p", fit) for run in runs for fit in FITS]
    assert len({*files}) == len(files)
    names = [run.name for run in runs]
    assert len({*names}) == len(names), "reports and tables call a run by its name alone"


def test_only_the_foundation_models_gap_has_no_prefix():
    assert gap_prefix("scgpt", "scgpt") == ""
    assert gap_prefix("fusion", "scgpt") == "fusion_"
    assert gap_prefix("scgpt", "geneformer") == "scgpt_"


def test_what_is_plotted_and_called_how():
    assert plotted(["scgpt", "fusion"]) == ["scgpt", "fusion", *PLOTTED_BASELINES]
    assert REFERENCE_BASELINE in PLOTTED_BASELINES
    assert {*PLOTTED_BASELINES} <= {*experiment().baselines}, "config.py insists on both"
    assert (title("scgpt"), title("fusion"), title(LONG)) == ("scGPT", "fusion", LONG)


def test_a_baseline_is_described_by_the_first_line_of_its_file():
    found = describe_baselines(experiment())
    assert list(found) == [*experiment().baselines, STACK]
    for name in experiment().baselines:
        assert import_module(f"reverse_perturbation.models.baselines.{name}").__doc__.startswith(found[name])
    assert all(description and "\n" not in description for description in found.values())


# ---- names are never parsed


@pytest.fixture
def of_long_name(tmp_path) -> list[Result]:
    """Two training seeds of the model with the long name, read from its files."""
    found = []
    for seed, ranks in ((3, [1, 2, 1, 3]), (4, [1, 1, 1, 3])):
        given = result(LONG, ranks, seed)
        given.metrics["provenance"]["model"] = LONG
        run = Run(LONG, seed, "trained")
        write_json(run.metrics(tmp_path), given.metrics)
        given.scores.save(run.scores(tmp_path))
        found.append(Result.load(run, tmp_path, tmp_path))
    assert sorted(path.name for path in tmp_path.glob("*/*.json")) == ["my-model-2-3.json", "my-model-2-4.json"]
    return found


def test_a_name_with_dashes_and_digits_stays_whole(of_long_name):
    assert [(each.run.model, each.run.seed) for each in of_long_name] == [(LONG, 3), (LONG, 4)]
    found = json.loads(json.dumps(compare({LONG: of_long_name}, baselines(), CONFIG, TARGETS)))
    assert found["provenance"]["models"] == [LONG]
    assert found["provenance"]["training_seeds"] == [3, 4]
    assert found[LONG]["exact_hit@1"] == pytest.approx((0.5 + 0.75) / 2)
    assert found["gap"]["exact_hit@1"] == pytest.approx(-0.125)
    assert {row["model"] for row in gaps_table(found)} == {LONG}
    found["provenance"] |= {"queries": 4, "conditions": 3}
    text = [line for line in lines(found) if "lower is better" not in line]
    assert [line.split()[0] for line in text[2:6]] == [LONG, "logreg", "pca", "strongest"]
    assert text[6].startswith(f"{LONG} - logreg mrr ")
    assert any(line.startswith(f"MISSED  {LONG} ") or line.startswith(f"passed  {LONG} ") for line in text)


def test_the_table_of_all_runs_takes_model_and_seed_from_the_metrics_files(of_long_name):
    about = {"ranking": "classifier", "split_seed": 42}
    chance = dict.fromkeys(of_long_name[0].metrics, 0.25)
    files = [
        each.metrics | {"provenance": each.metrics["provenance"] | about, "chance": chance} for each in of_long_name
    ]
    rows = models_table(files)
    assert [(row["model"], row["training seed"]) for row in rows] == [(LONG, "3"), (LONG, "4"), ("chance", "-")]
