"""The metrics file says what it was measured on and lies where its run says."""

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from reverse_perturbation import metrics, retrieval
from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.contract import write_cells
from reverse_perturbation.metrics import registry
from reverse_perturbation.retrieval.evaluate import Scores
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.runs import all_runs
from reverse_perturbation.sections import FITS
from reverse_perturbation.stages import evaluate
from reverse_perturbation.storage import sha256, source_sha256, write_json
from tests.end_to_end.pipeline import params, yaml

LABELS = ["A+ctrl"] * 6 + ["B+ctrl"] * 6
PARTS = ["reference", "reference", "reference", "validation", "query", "query"] * 2


def evaluated(folder, group: str, *arguments: str, facts: dict[str, dict] | None = None, **changes) -> dict[str, dict]:
    """Evaluate a group of models on twelve cells; predictions are right, but those of seed 1 are wrong.

    Return the metrics files by name. ``facts`` lie beside the predictions of the runs they name.
    """
    cell_ids = np.array([f"c{i}" for i in range(12)], dtype=object)
    obs = pd.DataFrame({"condition": LABELS, "control": False}, index=cell_ids)
    var = pd.DataFrame({"gene_name": ["A", "B"]}, index=["A", "B"])
    counts = sp.csr_matrix(np.ones((12, 2), dtype=np.float32))
    write_cells(folder / "cells.h5ad", ad.AnnData(obs=obs, var=var, layers={"counts": counts}))
    pd.DataFrame({"cell": cell_ids, "condition": LABELS, "part": PARTS}).to_csv(folder / "split.csv", index=False)
    content = params(baselines=["logreg", "pca"], **changes)
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(content, file)
    conditions = np.array(["A+ctrl", "B+ctrl"], dtype=object)
    for run in (run for runs in all_runs(Params.model_validate(content)).values() for run in runs):
        if run.group != group:
            continue  # the stage reads those of its own group alone
        right = np.array(LABELS)[:, None] == conditions
        log_proba = np.log(np.where(right == (run.seed != 1), 0.9, 0.1)).astype(np.float32)
        for fit in FITS:
            Predictions(cell_ids, log_proba, conditions, None, f"the {fit} screen of {run.name}").save(
                run.predictions(folder / "predictions", fit)
            )
        if facts and run.name in facts:
            write_json(run.facts(folder / "predictions"), facts[run.name])
    names = {"params": "params.yaml", "cells": "cells.h5ad", "split": "split.csv"}
    names |= {name: name for name in ("predictions", "metrics", "scores")}
    places = [text for name, file in names.items() for text in (f"--{name}", str(folder / file))]
    evaluate.main(["--group", group, *places, *arguments])
    return {path.stem: json.loads(path.read_text()) for path in (folder / "metrics" / group).iterdir()}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"source": "h5ad", "path": "data/raw/norman_subset.h5ad"}, "norman_subset"),
        ({"source": "simulated", "path": "data/norman_conditions.csv"}, "simulated"),
    ],
)
def test_the_data_are_called_by_the_name_of_their_file(tmp_path, data, name):
    about = evaluated(tmp_path, "baselines", data=data)["logreg"]["provenance"]
    assert (about["source"], about["data"]) == (data["source"], name)
    assert about["data_sha256"] == sha256(tmp_path / "cells.h5ad")
    assert about["split_sha256"] == sha256(tmp_path / "split.csv")
    judges = [Path(package.__file__).parent for package in (metrics, retrieval)]
    assert about["evaluator_sha256"] == source_sha256(judges), "the code that judges, all of it"


def test_the_baselines_are_evaluated_apart_from_the_other_models(tmp_path):
    """Each group in a folder of its own, in one process."""
    assert evaluated(tmp_path / "one", "baselines").keys() == {"logreg", "pca"}
    names = {"scgpt-0", "scgpt-1", "scgpt_ensemble", "fusion-0", "fusion-1", "fusion_ensemble", "stack"}
    assert evaluated(tmp_path / "two", "models").keys() == names
    for folder, group in (("one", "baselines"), ("two", "models")):
        for kind, ending in (("metrics", "json"), ("scores", "npz")):
            assert [path.name for path in (tmp_path / folder / kind).iterdir()] == [group]
            found = {path.name for path in (tmp_path / folder / kind / group).iterdir()}
            assert found == {f"{name}.{ending}" for name in (names if group == "models" else ("logreg", "pca"))}


def test_a_baseline_has_no_seed_and_no_checkpoint(tmp_path):
    tuned = {"cross_validation": {"folds": 5, "configurations": 7, "held_out": None}}
    found = evaluated(tmp_path, "baselines", facts={"logreg": tuned})
    about = found["logreg"]["provenance"]
    assert about["model"] == "logreg"
    assert [about[key] for key in ("training_seed", "checkpoint_sha256")] == [None] * 2
    assert about["screen_sha256"] == "the final screen of logreg"
    assert (about["ranking"], about["queries"], about["conditions"]) == ("classifier", 4, 2)
    assert found["logreg"]["exact_hit@1"] == found["logreg"]["validation"]["exact_hit@1"] == 1
    assert set(found["logreg"]["validation"]) == set(registry.shown_in("brief"))
    scores = Scores.load(tmp_path / "scores" / "baselines" / "logreg.npz")
    assert registry.chance(scores.labels, scores.conditions) == pytest.approx(found["logreg"]["chance"])
    assert found["logreg"]["cross_validation"] == tuned["cross_validation"]
    assert not {"training", "weights"} & found["logreg"].keys()


def test_each_run_has_its_own_predictions_and_facts(tmp_path):
    facts = {"scgpt-1": {"training": {"trainable_parameters": 7}}, "fusion-0": {"weights": {"scgpt": 0.5}}}
    (tmp_path / "base").mkdir()
    found = evaluated(tmp_path, "models", "--checkpoint", str(tmp_path / "base"), facts=facts)
    assert {name: content["exact_hit@1"] for name, content in found.items()} == {
        name: float(name not in ("scgpt-1", "fusion-1")) for name in found
    }
    about = {name: content["provenance"] for name, content in found.items()}
    assert (about["scgpt-1"]["model"], about["scgpt-1"]["training_seed"]) == ("scgpt", 1)
    assert (about["fusion_ensemble"]["model"], about["fusion_ensemble"]["training_seed"]) == ("fusion_ensemble", None)
    for name in found:
        assert about[name]["screen_sha256"] == f"the final screen of {name}"
        assert about[name]["checkpoint_sha256"] == sha256(tmp_path / "base")
    assert found["scgpt-1"]["training"] == {"trainable_parameters": 7}
    assert found["fusion-0"]["weights"] == {"scgpt": 0.5}
    assert not {"training", "weights", "cross_validation"} & found["scgpt_ensemble"].keys(), "an ensemble has no facts"


def test_combined_models_are_ranked_by_their_probabilities_where_others_use_a_library(tmp_path):
    """They have no embedding."""
    found = evaluated(tmp_path, "models", evaluate={"ranking": "library"})
    assert {found[name]["provenance"]["ranking"] for name in ("stack", "fusion-0", "scgpt_ensemble")} == {"classifier"}


def test_what_was_found_in_training_is_said_of_the_run_it_is_of(tmp_path):
    training = {"trainable_parameters": 7, "finding": "the selection fit ended at chance"}
    found = evaluated(tmp_path / "models", "models", facts={"scgpt-1": {"training": training}})
    findings = {name: content["provenance"]["finding"] for name, content in found.items()}
    assert findings == dict.fromkeys(found, None) | {"scgpt-1": "the selection fit ended at chance"}
    assert evaluated(tmp_path / "baselines", "baselines")["logreg"]["provenance"]["finding"] is None
