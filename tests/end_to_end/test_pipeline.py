"""The stages together, on simulated and on real cells."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from scipy.special import log_softmax

from reverse_perturbation.analysis.calibration import fit_temperature
from reverse_perturbation.comparison.verdict import main as check
from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.contract import read_cells, write_cells
from reverse_perturbation.data.screen.masked_screen import load_masked_screen
from reverse_perturbation.metrics.ranks.rank import truth_index
from reverse_perturbation.models.baselines.pca import Pca
from reverse_perturbation.models.finetune.training.resume import TrainingState
from reverse_perturbation.models.linear.baseline import LinearBaseline
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.runs import all_runs
from tests.end_to_end.pipeline import commands, inside, params, run, yaml

BASELINES = params()["baselines"]
SCORING = [name for name in BASELINES if name != "pca"]  # those with class probabilities
RUNS = {run.name: run for runs in all_runs(Params.model_validate(params())).values() for run in runs}
MODELS = [*RUNS]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    run(folder, params())
    return folder


def metrics(folder, name):
    """Return the metrics of a run, or of a stage."""
    path = RUNS[name].metrics(folder / "metrics") if name in RUNS else folder / "metrics" / f"{name}.json"
    return json.loads(path.read_text())


def predicted(folder, name, fit="final"):
    return Predictions.load(RUNS[name].predictions(folder / "data" / "predictions", fit))


def of_run(rows, about):
    """The rows of one run, by the model and seed of its provenance."""
    seed = about["training_seed"]
    return (rows["model"] == about["model"]) & (rows["seed"].isna() if seed is None else rows["seed"] == seed)


def test_every_model_answers_the_same_queries(simulated):
    first, *others = (metrics(simulated, name)["provenance"] for name in MODELS)
    for other in others:
        for field in ("data_sha256", "split_sha256", "mask", "labels", "queries", "conditions"):
            assert other[field] == first[field]


def test_the_bound_of_the_simulator_is_above_every_model(simulated):
    """It is not above what a lucky model finds in few queries by rule, but here nothing comes near it."""
    bound = metrics(simulated, "analysis")["simulator_bound"]
    for name in MODELS:
        for metric in ("exact_hit@1", "mrr"):
            assert metrics(simulated, name)[metric] < bound[metric] < 1
    rows = pd.read_csv(simulated / "results" / "analysis" / "cells_per_query.csv").fillna({"seed": -1})
    hits = rows.groupby(["model", "seed", "ranking", "cells_per_query"])["exact_hit@1"].mean()
    for (model, _, _, size), hit in hits.items():
        assert hit <= hits["simulator bound", -1, "posterior", size] + 0.02, model


def test_the_table_by_cells_agrees_with_the_metrics(simulated):
    rows = pd.read_csv(simulated / "results" / "analysis" / "cells_per_query.csv")
    single = rows[rows["cells_per_query"] == 1]
    for name in MODELS:
        about = metrics(simulated, name)["provenance"]
        found = single[of_run(single, about) & (single["ranking"] == about["ranking"])]
        assert found["exact_hit@1"].mean() == pytest.approx(metrics(simulated, name)["macro_hit@1"], abs=1e-5)


def test_the_grid_has_every_setting_and_agrees_with_the_metrics(simulated):
    rows = pd.read_csv(simulated / "results" / "reports" / "library_query.csv")
    settings = rows[(rows["part"] == "query") & (rows["labels"] == "canonical") & (rows["cells_per_query"] == 1)]
    found = settings.groupby("model").size().to_dict()
    combined = ("stack", "fusion", "fusion_ensemble", "scgpt_ensemble")
    assert found == dict.fromkeys((*SCORING, *combined), 1) | {"pca": 20, "scgpt": 21}
    assert set(rows["labels"]) == {"legacy", "canonical"}
    assert set(rows["cells_per_query"]) == {1, 5, 10, 25, 50, 100}
    found = settings.set_index(["model", "ranking", "embedding", "similarity"])["mrr"]
    for name in (*SCORING, "stack", "scgpt_ensemble", "fusion_ensemble"):
        expected = metrics(simulated, name)["mrr"]
        assert found[name, "classifier", "-", "-"] == pytest.approx(expected, abs=1e-4)
    assert found["pca", "bootstrap", "plain", "cosine"] == pytest.approx(metrics(simulated, "pca")["mrr"], abs=1e-4)
    seeds = np.mean([metrics(simulated, f"scgpt-{seed}")["mrr"] for seed in (0, 1)])
    assert found["scgpt", "classifier", "-", "-"] == pytest.approx(seeds, abs=1e-4)
    page = (simulated / "results" / "reports" / "library_query.md").read_text()
    assert "**Single-cell queries: " in page


def test_embeddings_are_centred_on_what_the_model_makes_of_the_control_cells(simulated):
    paths = [simulated / "data" / name for name in ("prepared/cells.h5ad", "split/split.csv", "vocab/genes.csv")]
    screen = load_masked_screen(*paths, mask="all_targets", genes="all", controls=True)
    control = screen.log1p()[screen.rows("control")]
    for fit in ("selection", "final"):
        expected = Pca.load(simulated / "models" / "pca" / fit).embed(control).mean(axis=0)
        found = predicted(simulated, "pca", fit)
        assert found.control_mean == pytest.approx(expected, abs=1e-5)
    for name in ("scgpt-0", "scgpt-1"):
        found = predicted(simulated, name)
        assert found.control_mean is not None
        near, far = found.embedding.min(axis=0), found.embedding.max(axis=0)
        assert ((near < found.control_mean) & (found.control_mean < far)).all()


def test_logistic_regression_finds_what_was_simulated(simulated):
    found = metrics(simulated, "logreg")
    assert found["exact_hit@1"] > 1.5 * found["chance"]["exact_hit@1"]


def test_the_analysis_has_every_model_and_agrees_with_its_metrics(simulated):
    confusions = pd.read_csv(simulated / "results" / "analysis" / "confusions.csv")
    measures = pd.read_csv(simulated / "results" / "analysis" / "confidence.csv")
    for name in MODELS:
        about = metrics(simulated, name)["provenance"]
        shares = confusions[of_run(confusions, about)].set_index("class")["share"]
        assert shares.sum() == pytest.approx(1, abs=1e-5)
        assert shares["right"] == pytest.approx(metrics(simulated, name)["exact_hit@1"], abs=1e-6)
        margins = measures[of_run(measures, about)].set_index("measure").loc["margin"]
        for measure in ("confidence_auc", "aurc", "confidence_roc_auc"):
            value = margins[measure]
            assert value == pytest.approx(metrics(simulated, name)[measure], abs=1e-6)
    few = metrics(simulated, "analysis")
    assert set(few["calibration"]) == set(MODELS)
    selection = predicted(simulated, "logreg", "selection")
    split = pd.read_csv(simulated / "data" / "split" / "split.csv")
    held_out = (split["part"] == "validation").to_numpy()
    truth = truth_index(split.loc[held_out, "condition"], selection.conditions)
    temperature = fit_temperature(selection.log_proba[held_out].astype(np.float64), truth)
    assert few["calibration"]["logreg"]["temperature"] == pytest.approx(temperature, rel=1e-3)
    assert 0.5 < few["twin_cap_of_legacy_labels"]["exact_hit@1"] <= 1
    reach = {name: row["exact_hit@1"] for name, row in few["split_half"].items()}
    assert reach["1"] < reach["10"]


def test_the_report_has_every_row_and_says_simulated(simulated):
    text = (simulated / "results" / "reports" / "report.md").read_text()
    assert "Simulated cells" in text
    rows = text.split("## Every model and seed")[1].split("## ")[0].split("\n\n| model")[1]
    for model in ("scgpt", "fusion"):
        assert rows.count(f"\n| {model} |") == 2
    for model in (*BASELINES, "stack", "scgpt_ensemble", "fusion_ensemble", "chance"):
        assert rows.count(f"\n| {model} |") == 1
    for line in text.splitlines():
        if line.startswith("!["):
            picture = line.split("](")[1].rstrip(")")
            assert (simulated / "results" / "reports" / picture).resolve().read_bytes().startswith(b"\x89PNG")


def test_the_check_says_what_is_missed(simulated, capsys):
    comparison = metrics(simulated, "comparison")
    passed = [target["passed"] for target in comparison["targets"].values()]
    with inside(simulated):
        assert check([]) == (0 if all(passed) else 1)
    assert capsys.readouterr().out.count("MISSED") == passed.count(False)


def test_the_second_run_gives_the_same_metrics(simulated, tmp_path):
    """Nothing depends on the clock, the folder, or what ran before."""
    run(tmp_path, params(), until="evaluate")
    for name in MODELS:
        assert metrics(tmp_path, name) == metrics(simulated, name)


# ---- what is combined


def weights(folder):
    found = (folder / "data" / "predictions" / "combined").glob("*/facts.json")
    return {path.parent.name: json.loads(path.read_text())["weights"] for path in found}


def test_the_weights_of_the_stack_and_of_fusion_are_fitted_on_validation(simulated):
    """Those written are the best: in each direction the cross-entropy of the selection fits there rises."""
    found = weights(simulated)
    assert {name: list(own) for name, own in found.items()} == {
        "stack": SCORING,
        "fusion-0": ["scgpt", *SCORING],
        "fusion-1": ["scgpt", *SCORING],
    }
    assert all(metrics(simulated, name)["weights"] == own for name, own in found.items())
    split = pd.read_csv(simulated / "data" / "split" / "split.csv")
    rows = np.flatnonzero(split["part"] == "validation")
    for name, own in found.items():
        seed = RUNS[name].seed
        members = [predicted(simulated, f"scgpt-{seed}" if each == "scgpt" else each, "selection") for each in own]
        order = predicted(simulated, name).conditions
        parts = np.array([columns(member, order)[rows] for member in members])
        truth = truth_index(split["condition"].iloc[rows], order)

        def loss(values, parts=parts, truth=truth):
            total = log_softmax(np.tensordot(values, parts, axes=1), axis=1)
            return -total[np.arange(len(truth)), truth].mean()

        best = np.array(list(own.values()))
        assert (best >= 0).all()
        for step in (*np.eye(len(best)), *-np.eye(len(best))):
            assert loss(np.clip(best + 0.02 * step, 0, None)) >= loss(best) - 1e-6, name


def columns(predictions, order):
    at = [list(predictions.conditions).index(condition) for condition in order]
    return predictions.log_proba[:, at].astype(np.float64)


def test_both_fits_are_the_sum_with_these_weights(simulated):
    for name, own in weights(simulated).items():
        members = {each: f"scgpt-{RUNS[name].seed}" if each == "scgpt" else each for each in own}
        for fit in ("selection", "final"):
            found = predicted(simulated, name, fit)
            parts = [columns(predicted(simulated, members[each], fit), found.conditions) for each in own]
            total = np.tensordot(list(own.values()), parts, axes=1)
            assert found.log_proba == pytest.approx(log_softmax(total, axis=1), abs=1e-4)
            assert found.embedding is None


@pytest.mark.parametrize("model", ["scgpt", "fusion"])
def test_an_ensemble_is_the_mean_of_the_seeds_log_probabilities(simulated, model):
    for fit in ("selection", "final"):
        ensemble = predicted(simulated, f"{model}_ensemble", fit)
        members = [columns(predicted(simulated, f"{model}-{seed}", fit), ensemble.conditions) for seed in (0, 1)]
        assert ensemble.log_proba == pytest.approx(log_softmax(np.mean(members, axis=0), axis=1), abs=1e-4)


def test_the_comparison_tests_every_model_against_logreg_and_the_strongest_baseline(simulated):
    found = metrics(simulated, "comparison")
    best = found["strongest"]["baseline"]
    assert best in SCORING
    assert list(found["tests"]) == ["scgpt", "scgpt_ensemble", "fusion", "fusion_ensemble"]
    for model, of_model in found["tests"].items():
        assert set(of_model) == {"logreg", best}
        for name, test in of_model.items():
            assert test["gap"] == pytest.approx(found[model]["mrr"] - found[name]["mrr"])
            assert test["p"] <= test["p_holm"] <= 1
    assert found["provenance"]["baselines"] == [*BASELINES, "stack"]


def test_fusion_with_a_model_without_class_probabilities_is_the_stack(tmp_path):
    """Trained by a contrastive loss alone, scGPT has an embedding only; its ensemble joins those of the seeds."""
    content = params(finetune={"loss": {"cross_entropy": 0.0, "supcon": 1.0}})
    run(tmp_path, content)
    found = weights(tmp_path)
    assert found["fusion-0"] == found["fusion-1"] == found["stack"]
    for name in ("fusion-0", "fusion-1"):
        assert (predicted(tmp_path, name).log_proba == predicted(tmp_path, "stack").log_proba).all()
        assert metrics(tmp_path, name)["mrr"] == metrics(tmp_path, "stack")["mrr"]
    ensemble, one = predicted(tmp_path, "scgpt_ensemble"), predicted(tmp_path, "scgpt-0")
    assert ensemble.log_proba is None
    assert ensemble.embedding.shape[1] == 2 * one.embedding.shape[1]
    assert {metrics(tmp_path, f"scgpt{end}")["provenance"]["ranking"] for end in ("-0", "_ensemble")} == {"bootstrap"}


def test_without_fusion_there_are_no_rows_of_it(simulated, tmp_path):
    shutil.copytree(simulated, tmp_path / "run")
    for name in ("data/predictions/combined", "metrics/models", "data/scores/models"):
        shutil.rmtree(tmp_path / "run" / name)
    last = ("combine", "evaluate", "library_query", "compare", "analysis", "report")
    run(tmp_path / "run", params(models=["scgpt"]), only=lambda name: name in last)
    assert list(weights(tmp_path / "run")) == ["stack"]
    assert weights(tmp_path / "run")["stack"] == weights(simulated)["stack"]
    names = sorted(path.stem for path in (tmp_path / "run" / "metrics" / "models").iterdir())
    assert names == ["scgpt-0", "scgpt-1", "scgpt_ensemble", "stack"]
    assert list(metrics(tmp_path / "run", "comparison")["tests"]) == ["scgpt", "scgpt_ensemble"]
    for page in ("report.md", "library_query.md"):
        text = (tmp_path / "run" / "results" / "reports" / page).read_text()
        assert "| fusion" not in text
        assert "`fusion`" not in text


def test_training_that_is_killed_goes_on(simulated, tmp_path, monkeypatch, capsys):
    """In the first epoch of the second fit: the first fit is not trained again."""
    save, kept = TrainingState.save, []

    def killed(state, path):
        kept.append(path.stem)
        if kept.count("finetune-final") == 1:
            raise KeyboardInterrupt
        save(state, path)

    monkeypatch.setattr(TrainingState, "save", killed)
    with pytest.raises(SystemExit, match="130"):
        run(tmp_path, params(), until="finetune@0")
    assert not (tmp_path / "models" / "scgpt-0").exists()
    monkeypatch.setattr(TrainingState, "save", save)
    capsys.readouterr()
    run(tmp_path, params(), until="embed@0")
    assert f"finetune-selection: resumed after epoch {len(kept) - 1}" in capsys.readouterr().out
    for fit in ("selection", "final"):
        assert (predicted(tmp_path, "scgpt-0", fit).log_proba == predicted(simulated, "scgpt-0", fit).log_proba).all()
    assert not list((tmp_path / "data" / "resume").iterdir())


# `accelerate launch --cpu` starts one process, whatever number it is told.
TWO_PROCESSES = "-m torch.distributed.run --nproc_per_node 2 -m"


def launched(simulated, folder, stage, launcher, **changes):
    """Run a stage as DVC does, in a process of its own, where the whole pipeline has run; return what it prints."""
    shutil.copytree(simulated, folder)
    content = params(**changes)
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(content, file)
    command = commands(content)[stage].replace(content["launcher"], launcher)
    done = subprocess.run([sys.executable, *shlex.split(command)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def trained(simulated, folder, launcher="-m", **changes):
    """Train the first seed; return its curves and final weights."""
    # No dropout; shares of a batch that differ in size, and a last batch that is smaller.
    changes["finetune"] = {"head": {"dropout": 0.0}, "sampler": {"batch_size": 63}}
    said = launched(simulated, folder, "finetune@0", launcher, **changes)
    assert said.count("finetune: epoch 1/2") == 1
    assert not list((folder / "data/resume").iterdir())
    names = ("train_loss", "validation_loss", "exact_hit_at_1", "mrr")
    curves = folder / "plots/training/scgpt-0/plots/metrics"
    table = np.array([pd.read_csv(curves / f"{name}.tsv", sep="\t")[name] for name in names])
    return table, load_file(folder / "models/scgpt-0/final.safetensors")


def farthest(one, two):
    return max(float((one[name] - two[name]).abs().max()) for name in one)


@pytest.mark.slow
def test_two_processes_are_one_run_of_two(tmp_path):
    """Else each would train by itself, and the tests below would compare one process with itself."""
    (tmp_path / "told.py").write_text(
        "from reverse_perturbation.models.device import make_accelerator\n"
        'print(make_accelerator("float32").num_processes, "processes", flush=True)\n'
    )
    command = [sys.executable, *shlex.split(TWO_PROCESSES), "told"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert told.stdout.count("2 processes") == 2, told.stderr


@pytest.mark.slow
def test_two_processes_train_what_one_trains_and_bfloat16_nearly_so(simulated, tmp_path):
    """Two processes take the same steps, up to the order in which numbers are added."""
    one, weights = trained(simulated, tmp_path / "one")
    two, others = trained(simulated, tmp_path / "two", TWO_PROCESSES)
    assert two == pytest.approx(one, abs=2e-3)
    assert farthest(weights, others) < 2e-3
    half, halves = trained(simulated, tmp_path / "half", precision="bfloat16")
    assert half[:2] == pytest.approx(one[:2], rel=0.02), "losses"
    assert farthest(weights, halves) > 1e-4, "it is another precision"


@pytest.mark.slow
def test_two_processes_embed_what_one_embeds_and_bfloat16_nearly_so(simulated, tmp_path):
    said = launched(simulated, tmp_path / "two", "embed@0", TWO_PROCESSES)
    assert said.count("embed: scgpt, final fit") == 1
    one, two = predicted(simulated, "scgpt-0"), predicted(tmp_path / "two", "scgpt-0")
    assert (one.embedding == two.embedding).all()
    assert (one.log_proba == two.log_proba).all()
    launched(simulated, tmp_path / "half", "embed@0", "-m", precision="bfloat16")
    half = predicted(tmp_path / "half", "scgpt-0")
    assert (half.embedding != one.embedding).mean() > 0.5, "it is another precision"
    cosine = (half.embedding * one.embedding).sum(axis=1)
    lengths = np.linalg.norm(half.embedding, axis=1) * np.linalg.norm(one.embedding, axis=1)
    assert (cosine >= 0.999 * lengths).all()


def with_other_cells(simulated, folder, part):
    """Copy the folder of a run, random counts in the place of those of one part, and no fitted model."""
    shutil.copytree(simulated, folder)
    cells = read_cells(folder / "data/prepared/cells.h5ad")
    split = pd.read_csv(folder / "data/split/split.csv")
    rows = np.flatnonzero(cells.obs_names.isin(split.loc[split["part"] == part, "cell"]))
    counts = cells.layers["counts"].tolil()
    counts[rows] = np.random.default_rng(0).poisson(3, (len(rows), cells.n_vars)).astype(np.float32)
    cells.layers["counts"] = counts.tocsr()
    write_cells(folder / "data/prepared/cells.h5ad", cells)
    shutil.rmtree(folder / "models")
    return folder


def test_no_fitted_weight_depends_on_what_the_query_cells_hold(simulated, tmp_path):
    """Scaling, C, components, pretraining, the value input and the epoch too: all of them decide the weights."""
    folder = with_other_cells(simulated, tmp_path / "other queries", "query")
    names = ("baseline@", "pretrain", "finetune@", "embed@", "combine")
    run(folder, params(), only=lambda name: name.startswith(names))
    fitted = sorted(path.relative_to(folder) for path in folder.glob("models/**/*.safetensors"))
    assert len(fitted) == 2 * (len(BASELINES) + 2), "two fits of each baseline and of scGPT with each seed"
    for path in [*fitted, Path("models/base/best_model.pt")]:
        assert (folder / path).read_bytes() == (simulated / path).read_bytes(), path
    for name, own in weights(folder).items():  # a batch with other cells computes the same up to rounding
        assert own == pytest.approx(weights(simulated)[name], rel=1e-5, abs=1e-6)
    predictions = [predicted(f, "logreg") for f in (folder, simulated)]
    assert predictions[0].screen_sha256 != predictions[1].screen_sha256, "what the models were given did differ"
    for name in ("pca", "scgpt-0"):
        origins = [predicted(f, name).control_mean for f in (folder, simulated)]
        assert (origins[0] == origins[1]).all(), "the origin of centred embeddings is that of control cells"


def test_no_weight_that_choices_are_made_by_depends_on_what_the_validation_cells_hold(simulated, tmp_path):
    """Of the models in which nothing is chosen, or only one choice is there: the fit is on the reference alone."""
    one = {"features": ["log1p"], "scaling": ["max_abs"], "c": {"least": 0.1, "most": 0.1}}
    others = {"lda": {"shrinkage": [0.5]}, "mlp": {"epochs": 1}}
    content = params(finetune={"schedule": {"epochs": 1}}, logreg=one, logreg_genes=one, **others)
    folders = [with_other_cells(simulated, tmp_path / "other validation cells", "validation"), tmp_path / "same"]
    shutil.copytree(simulated, folders[1])
    for folder in folders:
        run(folder, content, only=lambda name: name.startswith(("baseline@", "pretrain", "finetune@0")))
    names = [
        *(f"{name}/{{}}/weights" for name in BASELINES),
        "scgpt-0/{}",
    ]
    for name in names:
        for fit, same in (("selection", True), ("final", False)):
            paths = [folder / "models" / f"{name.format(fit)}.safetensors" for folder in folders]
            assert (paths[0].read_bytes() == paths[1].read_bytes()) == same, paths[0]


def test_shuffled_labels_are_at_chance_through_the_whole_pipeline(simulated, tmp_path):
    cells = read_cells(simulated / "data" / "prepared" / "cells.h5ad")
    perturbed = np.flatnonzero(~cells.obs["control"].to_numpy(dtype=bool))
    labels = cells.obs["condition"].astype(str).to_numpy(dtype=object)
    labels[perturbed] = np.random.default_rng(1).permutation(labels[perturbed])
    cells.obs["condition"] = labels
    cells.write_h5ad(tmp_path / "shuffled.h5ad")
    # With the mask "own" the labels, shuffled or not, would show in what was zeroed. In a library of raw cells a query
    # that stands in it would find itself.
    run(tmp_path, params(data={"source": "h5ad", "path": "shuffled.h5ad"}, library={"kind": "raw_cell"}))
    assert "simulator_bound" not in metrics(tmp_path, "analysis"), "nothing is known of cells from a file"
    split = pd.read_csv(tmp_path / "data" / "split" / "split.csv")
    queries = split.loc[split["part"] == "query", "condition"].value_counts()
    # Answers that ignore the cell have a macro_hit@1 of 1 / conditions, whatever is known of frequencies. A condition
    # that is answered with a probability p has the variance p (1 - p) / queries; all together most where p is the same.
    chance = 1 / len(queries)
    bound = chance + 4 * chance * (chance * (1 - chance) / queries).sum() ** 0.5
    assert bound < 0.42
    for name in MODELS:
        assert metrics(tmp_path, name)["macro_hit@1"] < bound, name
        # Of few cells; of those a model or its library has seen, most are found again.
        assert metrics(tmp_path, name)["validation"]["exact_hit@1"] < 0.6, name
    rows = pd.read_csv(tmp_path / "results" / "reports" / "library_query.csv")
    single = rows[(rows["part"] == "query") & (rows["labels"] == "canonical") & (rows["cells_per_query"] == 1)]
    assert set(single["model"]) == {run.model for run in RUNS.values()}
    assert (single["macro_hit@1"] < bound).all(), single.nlargest(3, "macro_hit@1")
    held_out = rows[(rows["part"] == "validation") & (rows["cells_per_query"] == 1)]
    assert (held_out["macro_hit@1"] < 0.7).all(), held_out.nlargest(3, "macro_hit@1")


@pytest.mark.parametrize("mode", ["frozen", "head"])
def test_what_is_frozen_runs_with_the_default_readout_and_is_computed_once(tmp_path, capsys, mode):
    run(tmp_path, params(finetune={"adaptation": {"mode": mode}, "augmentation": {"mixing": 1}}))
    said = capsys.readouterr().out
    names = ("scgpt-0", "scgpt-1")
    trained = [metrics(tmp_path, name)["training"]["trainable_parameters"] for name in names]
    assert [counts["backbone"] for counts in trained] == [0, 0]
    for name in ("pca", "fusion-0", "scgpt_ensemble", "stack"):
        assert "training" not in metrics(tmp_path, name)
    for name in names:
        assert (tmp_path / "plots" / "training" / name).is_dir(), "DVC wants what a stage says it writes"
    if mode == "frozen":
        assert said.count(": the readout genes has weights to train and is left out") == 2
        assert [counts["head"] for counts in trained] == [0, 0]
        assert not (tmp_path / "data" / "cache").exists()
    else:
        assert f"trainable parameters: 0 in the backbone, {trained[0]['head']:,} in the head\n" in said
        assert trained[1] == trained[0]
        assert trained[0]["head"] > 0
        assert len(list((tmp_path / "data" / "cache").iterdir())) == 1, "one for both seeds"
        assert said.count("cache: keeping") == 1
        assert said.count("cache: found") == 3, "one more stage that trains, two that embed"


def on_the_way_to_logreg(name: str) -> bool:
    return name in ("prepare", "audit", "vocab_map", "split", "evaluate_baselines") or name.startswith("baseline@")


def test_real_cells_run_as_they_are(norman_subset, tmp_path):
    run(tmp_path, params(data={"source": "h5ad", "path": str(norman_subset)}), only=on_the_way_to_logreg)
    assert metrics(tmp_path, "logreg")["provenance"]["conditions"] == 33
    assert metrics(tmp_path, "logreg")["provenance"]["queries"] == 655
    assert metrics(tmp_path, "logreg")["exact_hit@1"] > 0.18
    report = (tmp_path / "results" / "reports" / "audit.md").read_text()
    assert "imulated" not in report


def test_a_baseline_that_gives_no_finite_numbers_is_named(simulated, tmp_path, capsys, monkeypatch):
    """Minus infinity is what the log of a vote of none is; it would end a later stage without naming the model."""

    def votes_of_none(self, screen):
        votes = np.zeros((len(screen.cell_ids), 6))
        with np.errstate(divide="ignore"):
            return Predictions(screen.cell_ids, np.log(votes), self.model.conditions, None)

    monkeypatch.setattr(LinearBaseline, "predict", votes_of_none)
    shutil.copytree(simulated, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/data/predictions")
    with pytest.raises(SystemExit):
        run(tmp_path / "run", params(), only=lambda name: name == "baseline@logreg_genes")
    error = "error: models/baselines/logreg_genes.py: log_proba holds -inf (in float32); it must be finite\n"
    assert capsys.readouterr().err == error
    assert not (tmp_path / "run/data/predictions").exists()


def test_a_given_checkpoint_is_taken_as_it_is(simulated, tmp_path):
    given = simulated / "models" / "base"
    run(tmp_path, params(scgpt={"checkpoint": str(given)}), until="pretrain")
    for file in ("vocab.json", "best_model.pt"):
        assert (tmp_path / "models" / "base" / file).read_bytes() == (given / file).read_bytes()


def test_a_checkpoint_without_one_of_its_files(simulated, tmp_path, capsys):
    folder = tmp_path / "given"
    folder.mkdir()
    for file in ("vocab.json", "best_model.pt"):
        (folder / file).write_bytes((simulated / "models" / "base" / file).read_bytes())
    with pytest.raises(SystemExit):
        run(tmp_path, params(scgpt={"checkpoint": str(folder)}), until="pretrain")
    assert "args.json is missing" in capsys.readouterr().err
    assert not (tmp_path / "models").exists(), "nothing was fitted before the mistake was found"


def test_a_file_that_is_no_screen_ends_with_one_line_and_writes_nothing(tmp_path, capsys):
    (tmp_path / "cells.h5ad").write_text("not HDF5")
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, params(data={"source": "h5ad", "path": "cells.h5ad"}))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cells.h5ad: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_no_overlap_with_the_vocabulary(simulated, tmp_path, capsys):
    cells = read_cells(simulated / "data" / "prepared" / "cells.h5ad")
    names = [f"XLOC_{i:06d}" for i in range(cells.n_vars)]  # of no vocabulary and no target
    renamed = ad.AnnData(obs=cells.obs, var=pd.DataFrame({"gene_name": names}, index=names), layers=dict(cells.layers))
    renamed.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(SystemExit):
        run(tmp_path, params(data={"source": "h5ad", "path": "cells.h5ad"}), until="vocab_map")
    assert "foundation model's vocabulary" in capsys.readouterr().err
