"""What the stage writes, that validation alone decides the weights, and that both fits have the same."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.special import log_softmax

from reverse_perturbation.data.screen.contract import write_cells
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.runs import Run
from reverse_perturbation.sections import FITS
from reverse_perturbation.stages import combine
from reverse_perturbation.storage import sha256
from tests.end_to_end.pipeline import params, yaml

CONDITIONS = np.array(["A+B", "A+ctrl", "B+ctrl"], dtype=object)
LEGACY = np.array(["A+B", "A+ctrl", "ctrl+A", "B+ctrl"], dtype=object)  # the two of A are twins
PARTS = ["reference", "validation", "query"]
N = 360
SEEDS = (3, 5)
BASELINES = ("logreg", "lda", "pca")
SIMPLE = [Run(name) for name in BASELINES]
TRAINED = [Run("scgpt", seed, "trained") for seed in SEEDS]
COMBINED = ["fusion-3", "fusion-5", "fusion_ensemble", "scgpt_ensemble", "stack"]


def screen() -> pd.DataFrame:
    """The split; the file of cells has them in another order."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"cell": [f"c{i}" for i in range(N)], "condition": rng.choice(LEGACY, N)})
    return frame.assign(part=rng.choice(PARTS, N))


def made_up(run: Run, fit: str, frame: pd.DataFrame) -> Predictions:
    """Noisy predictions; PCA has no class probabilities."""
    rng = np.random.default_rng([ord(letter) for letter in f"{run.name} {fit}"])
    truth = frame["condition"].replace({"ctrl+A": "A+ctrl"}).to_numpy()
    logits = rng.normal(size=(N, 3)) + 1.2 * (truth[:, None] == CONDITIONS)
    if run.model == "pca":
        return Predictions(frame["cell"].to_numpy(object), None, None, logits, "the screen")
    embedding = logits if run.model == "scgpt" else None
    return Predictions(frame["cell"].to_numpy(object), log_softmax(logits, axis=1), CONDITIONS, embedding, "the screen")


def write(folder, **changes) -> None:
    """Write what the stages before would have."""
    frame = screen()
    frame.to_csv(folder / "split.csv", index=False)
    obs = frame.set_index("cell")[["condition"]].assign(control=False).sample(frac=1, random_state=0)
    var = pd.DataFrame({"gene_name": ["A", "B"]}, index=["A", "B"])
    counts = sp.csr_matrix(np.ones((N, 2), dtype=np.float32))
    write_cells(folder / "cells.h5ad", ad.AnnData(obs=obs, var=var, layers={"counts": counts}))
    for run in [*SIMPLE, *TRAINED]:
        for fit in FITS:
            made_up(run, fit, frame).save(run.predictions(folder / "predictions", fit))
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(params(seeds=list(SEEDS), baselines=list(BASELINES), **changes), file)


def combined(folder) -> dict[str, dict[str, float]]:
    """Run the stage; return the weights."""
    names = {"params": "params.yaml", "cells": "cells.h5ad", "split": "split.csv", "predictions": "predictions"}
    combine.main([text for name, file in names.items() for text in (f"--{name}", str(folder / file))])
    found = sorted((folder / "predictions" / "combined").glob("*/facts.json"))
    return {path.parent.name: json.loads(path.read_text())["weights"] for path in found}


def log_proba(folder, name: str, fit: str, origin: str = "combined") -> np.ndarray:
    return Predictions.load(folder / "predictions" / origin / name / f"{fit}.npz").log_proba.astype(float)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path)
    return tmp_path


def test_what_is_written(folder, capsys):
    weights = combined(folder)
    assert sorted(path.name for path in (folder / "predictions" / "combined").iterdir()) == COMBINED
    assert list(weights) == ["fusion-3", "fusion-5", "stack"], "an ensemble has none"
    assert list(weights["stack"]) == ["logreg", "lda"], "PCA has no class probabilities"
    assert list(weights["fusion-3"]) == ["scgpt", "logreg", "lda"]
    assert all(weight > 0.1 for of_model in weights.values() for weight in of_model.values())
    said = capsys.readouterr().out
    assert f"combine: stack: logreg {weights['stack']['logreg']:.2f}, lda {weights['stack']['lda']:.2f}\n" in said
    for name in COMBINED:
        for fit in FITS:
            found = Predictions.load(folder / "predictions" / "combined" / name / f"{fit}.npz")
            assert list(found.cell_ids) == list(screen()["cell"])
            assert (list(found.conditions), found.screen_sha256) == (list(CONDITIONS), "the screen")


def test_both_fits_have_the_weights_of_the_selection_fits(folder):
    weights = combined(folder)
    for fit in FITS:
        for seed in SEEDS:
            own = weights[f"fusion-{seed}"]
            total = own["scgpt"] * log_proba(folder, f"scgpt-{seed}", fit, "trained")
            total += sum(own[name] * log_proba(folder, name, fit, "baselines") for name in ("logreg", "lda"))
            assert log_proba(folder, f"fusion-{seed}", fit) == pytest.approx(log_softmax(total, axis=1), abs=1e-5)
    for run in [*SIMPLE, *TRAINED]:
        made_up(run, "other", screen()).save(run.predictions(folder / "predictions", "final"))
    assert combined(folder) == weights, "the final fits have seen the validation cells"


def test_an_ensemble_is_the_mean_over_the_seeds(folder):
    combined(folder)
    for model, origin in (("scgpt", "trained"), ("fusion", "combined")):
        for fit in FITS:
            mean = np.mean([log_proba(folder, f"{model}-{seed}", fit, origin) for seed in SEEDS], axis=0)
            assert log_proba(folder, f"{model}_ensemble", fit) == pytest.approx(log_softmax(mean, axis=1), abs=1e-5)


def with_other(folder, part: str, labels: bool) -> None:
    """Change all that is known of the cells of one part: what every model predicts for them, or their labels."""
    frame = screen()
    rows = np.flatnonzero(frame["part"] == part)
    rng = np.random.default_rng(1)
    if labels:
        frame.loc[rows, "condition"] = rng.permutation(frame.loc[rows, "condition"].to_numpy())
        frame.to_csv(folder / "split.csv", index=False)
        obs = frame.set_index("cell")[["condition"]].assign(control=False)
        var = pd.DataFrame({"gene_name": ["A", "B"]}, index=["A", "B"])
        counts = sp.csr_matrix(np.ones((N, 2), dtype=np.float32))
        write_cells(folder / "cells.h5ad", ad.AnnData(obs=obs, var=var, layers={"counts": counts}))
        return
    for run in [*SIMPLE, *TRAINED]:
        for fit in FITS:
            path = run.predictions(folder / "predictions", fit)
            given = Predictions.load(path)
            arrays = {name: getattr(given, name) for name in ("log_proba", "embedding")}
            for values in arrays.values():
                if values is not None:
                    values[rows] = log_softmax(5 * rng.normal(size=(len(rows), 3)), axis=1)
            Predictions(given.cell_ids, conditions=given.conditions, screen_sha256="the screen", **arrays).save(path)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("part", PARTS)
def test_validation_alone_decides_the_weights(folder, part, labels):
    """No query cell has a part in them, neither by its label nor by its scores."""
    before = combined(folder)
    with_other(folder, part, labels)
    assert (combined(folder) == before) == (part != "validation")


def test_twins_are_one_condition_in_the_canonical_space(folder):
    """The stage reads legacy labels; the weights are those of fits in the canonical space."""
    weights = combined(folder)["stack"]
    assert min(weights.values()) > 0.3, "the twin's cells are not taken for another condition"


def test_without_fusion_there_are_the_stack_and_one_ensemble(tmp_path):
    write(tmp_path, models=["scgpt"])
    assert list(combined(tmp_path)) == ["stack"]
    assert sorted(path.name for path in (tmp_path / "predictions" / "combined").iterdir()) == [
        "scgpt_ensemble",
        "stack",
    ]


def test_fusion_with_a_model_without_class_probabilities_is_the_stack(folder):
    for run in TRAINED:
        for fit in FITS:
            path = run.predictions(folder / "predictions", fit)
            given = Predictions.load(path)
            Predictions(given.cell_ids, None, None, given.embedding, given.screen_sha256).save(path)
    weights = combined(folder)
    assert weights["fusion-3"] == weights["fusion-5"] == weights["stack"]
    for fit in FITS:
        for name in ("fusion-3", "fusion-5"):
            assert (log_proba(folder, name, fit) == log_proba(folder, "stack", fit)).all()
        ensemble = Predictions.load(folder / "predictions" / "combined" / "scgpt_ensemble" / f"{fit}.npz")
        assert ensemble.log_proba is None
        assert ensemble.embedding.shape == (N, 6), "joined"


def test_the_second_run_writes_the_same_and_nothing_else_is_touched(folder):
    combined(folder)
    before = sha256(folder / "predictions")
    combined(folder)
    assert sha256(folder / "predictions") == before


def test_predictions_of_a_model_that_was_dropped_are_removed(folder):
    """DVC leaves them, and a clone, which has none, would find the stage changed."""
    dropped = [folder / "predictions" / name for name in ("baselines/mlp", "trained/scgpt-9")]
    for old in dropped:
        old.mkdir()
        (old / "final.npz").write_text("broken")
    (folder / "predictions" / "baselines" / ".gitignore").write_text("/logreg\n")
    combined(folder)
    assert not any(old.exists() for old in dropped)
    assert sorted(path.name for path in (folder / "predictions" / "baselines").iterdir()) == [
        ".gitignore",
        *sorted(BASELINES),
    ]


def test_predictions_of_another_screen_end_with_one_line_and_write_nothing(folder, capsys):
    run = TRAINED[1]
    given = Predictions.load(run.predictions(folder / "predictions", "selection"))
    Predictions(given.cell_ids, given.log_proba, given.conditions, given.embedding, "another screen").save(
        run.predictions(folder / "predictions", "selection")
    )
    with pytest.raises(SystemExit):
        combined(folder)
    error = capsys.readouterr().err
    assert error == "error: combine: predictions of several models differ in screen_sha256; run `dvc repro`\n"
    assert not (folder / "predictions" / "combined").exists()
