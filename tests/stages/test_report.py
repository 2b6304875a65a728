"""The rows that DVC plots."""

import pandas as pd

from reverse_perturbation.stages.report import _losses


def test_losses_are_laid_out_in_rows_for_every_run():
    curve = pd.DataFrame({"train_loss": [float("nan"), 2.0], "validation_loss": [3.0, 1.0]}, index=[0, 1])
    found = _losses({"scgpt-0": curve.rename_axis("step"), "scgpt-1": pd.DataFrame()})
    assert found.values.tolist() == [
        [1, "scgpt-0", "train", 2.0],
        [0, "scgpt-0", "validation", 3.0],
        [1, "scgpt-0", "validation", 1.0],
    ]
    assert list(found.columns) == ["step", "model", "part", "loss"]


def test_runs_without_training_give_no_rows():
    found = _losses({"scgpt-0": pd.DataFrame()})
    assert list(found.columns) == ["step", "model", "part", "loss"]
    assert found.empty
