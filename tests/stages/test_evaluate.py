"""The metrics file says what it was measured on and lies where its run says."""

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from reverse_perturbation import metrics, retrieval
from reverse_perturbation.data.screen.contract import write_cells
from reverse_perturbation.metrics import registry
from reverse_perturbation.retrieval.evaluate import Scores
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.runs import Run
from reverse_perturbation.sections import FITS
from reverse_perturbation.stages import evaluate
from reverse_perturbation.storage import sha256, source_sha256, write_json
from tests.end_to_end.pipeline import params, yaml

LABELS = ["A+ctrl"] * 6 + ["B+ctrl"] * 6
PARTS = ["reference", "reference", "reference", "validation", "query", "query"] * 2


def evaluated(folder, run: Run, *arguments: str, **changes) -> dict:
    """Run the stage on twelve cells whose predictions are right; return the metrics file."""
    cell_ids = np.array([f"c{i}" for i in range(12)], dtype=object)
    obs = pd.DataFrame({"condition": LABELS, "control": False}, index=cell_ids)
    var = pd.DataFrame({"gene_name": ["A", "B"]}, index=["A", "B"])
    counts = sp.csr_matrix(np.ones((12, 2), dtype=np.float32))
    write_cells(folder / "cells.h5ad", ad.AnnData(obs=obs, var=var, layers={"counts": counts}))
    pd.DataFrame({"cell": cell_ids, "condition": LABELS, "part": PARTS}).to_csv(folder / "split.csv", index=False)
    conditions = np.array(["A+ctrl", "B+ctrl"], dtype=object)
    log_proba = np.log(np.where(np.array(LABELS)[:, None] == conditions, 0.9, 0.1)).astype(np.float32)
    for fit in FITS:
        Predictions(cell_ids, log_proba, conditions, None, f"the {fit} screen").save(
            run.predictions(folder / "predictions", fit)
        )
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(params(**changes), file)
    seed = [] if run.seed is None else ["--seed", str(run.seed)]
    names = {"params": "params.yaml", "cells": "cells.h5ad", "split": "split.csv"}
    names |= {name: name for name in ("predictions", "metrics", "scores")}
    places = [text for name, file in names.items() for text in (f"--{name}", str(folder / file))]
    evaluate.main(["--model", run.model, *seed, *places, *arguments])
    content: dict = json.loads(run.metrics(folder / "metrics").read_text())
    return content


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"source": "h5ad", "path": "data/raw/norman_subset.h5ad"}, "norman_subset"),
        ({"source": "simulated", "path": "data/norman_conditions.csv"}, "simulated"),
    ],
)
def test_the_data_are_called_by_the_name_of_their_file(tmp_path, data, name):
    about = evaluated(tmp_path, Run("logreg"), data=data)["provenance"]
    assert (about["source"], about["data"]) == (data["source"], name)
    assert about["data_sha256"] == sha256(tmp_path / "cells.h5ad")
    assert about["split_sha256"] == sha256(tmp_path / "split.csv")
    judges = [Path(package.__file__).parent for package in (metrics, retrieval)]
    assert about["evaluator_sha256"] == source_sha256(judges), "the code that judges, all of it"


def test_a_baseline_has_no_seed_and_no_checkpoint(tmp_path):
    found = evaluated(tmp_path, Run("logreg"))
    about = found["provenance"]
    assert [path.name for path in (tmp_path / "metrics").iterdir()] == ["logreg.json"]
    assert about["model"] == "logreg"
    assert [about[key] for key in ("training_seed", "checkpoint_sha256", "trainable_parameters")] == [None] * 3
    assert about["screen_sha256"] == "the final screen"
    assert (about["ranking"], about["queries"], about["conditions"]) == ("classifier", 4, 2)
    assert found["exact_hit@1"] == found["validation"]["exact_hit@1"] == 1
    assert set(found["validation"]) == set(registry.shown_in("brief"))
    scores = Scores.load(tmp_path / "scores" / "logreg.npz")
    assert registry.chance(scores.labels, scores.conditions) == pytest.approx(found["chance"])


def test_a_trained_model_is_found_by_its_name_and_seed(tmp_path):
    """Also where the name looks as if it had a seed of its own."""
    run = Run("my-model-2", 3)
    write_json(run.weights(tmp_path / "models") / "config.json", {"trainable_parameters": 7})
    (tmp_path / "base").mkdir()
    arguments = ["--trained", str(tmp_path / "models"), "--checkpoint", str(tmp_path / "base")]
    about = evaluated(tmp_path, run, *arguments)["provenance"]
    assert (about["model"], about["training_seed"]) == ("my-model-2", 3)
    assert about["trainable_parameters"] == 7
    assert about["checkpoint_sha256"] == sha256(tmp_path / "base")
    assert (tmp_path / "scores" / "my-model-2-3.npz").exists()
