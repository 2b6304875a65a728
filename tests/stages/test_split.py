"""Queries that are copies of known cells are counted, and where there are too many nothing is written."""

import json
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from reverse_perturbation.data.screen.contract import write_cells
from reverse_perturbation.stages import split
from tests.end_to_end.pipeline import params, yaml

# Control cells come first: rows of the file are not those of the split.
OBS = pd.DataFrame({"condition": ["ctrl"] * 20 + ["A+ctrl"] * 60 + ["B+ctrl"] * 60})
OBS.index = [f"c{i}" for i in range(140)]
OBS["control"] = OBS["condition"] == "ctrl"


def divided(folder, counts: np.ndarray, allowed: float, **section: float) -> tuple[pd.DataFrame, dict]:
    """Run the stage on int [140, 2] counts; return the split and the metrics."""
    layers = {"counts": sp.csr_matrix(counts.astype(np.float32))}
    var = pd.DataFrame({"gene_name": ["A", "B"]}, index=["A", "B"])
    write_cells(folder / "cells.h5ad", ad.AnnData(obs=OBS, var=var, layers=layers))
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(params(split={"max_duplicates": allowed} | section), file)
    names = {"params": "params.yaml", "cells": "cells.h5ad", "output": "split.csv", "metrics": "split.json"}
    split.main([text for name, file in names.items() for text in (f"--{name}", str(folder / file))])
    return pd.read_csv(folder / "split.csv"), json.loads((folder / "split.json").read_text())


def test_copies_across_parts_are_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        divided(tmp_path, np.ones((140, 2)), allowed=0.01)
    assert "100.0% of the query cells" in capsys.readouterr().err
    assert not (tmp_path / "split.csv").exists()


def test_copies_across_parts_are_counted(tmp_path):
    counts = np.column_stack([np.arange(1, 141), np.ones(140)])
    frame, found = divided(tmp_path, counts, allowed=0.0)
    assert (found["duplicated_queries"], found["duplicated_validation"]) == (0, 0)
    # The split does not look at counts: the same cells are in the same parts below.
    rows = {part: OBS.index.get_indexer(own["cell"]) for part, own in frame.groupby("part")}
    counts[rows["query"][:2]] = counts[rows["reference"][0]]
    counts[rows["query"][2]] = counts[rows["validation"][1]]
    counts[rows["validation"][0]] = counts[rows["reference"][1]]
    _, found = divided(tmp_path, counts, allowed=0.5)
    assert found["duplicated_queries"] == pytest.approx(3 / len(rows["query"]))
    assert found["duplicated_validation"] == pytest.approx(1 / len(rows["validation"]))


def test_the_section_decides_the_sizes_of_the_parts(tmp_path):
    """Of a condition's 60 cells 15 are query, and of the 45 others 18 validation."""
    counts = np.column_stack([np.arange(1, 141), np.ones(140)])
    frame, found = divided(tmp_path, counts, allowed=0.0, query_fraction=0.25, validation_fraction=0.4)
    assert found["cells"] == frame["part"].value_counts().to_dict() == {"reference": 54, "validation": 36, "query": 30}


def test_one_condition_is_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        sys.modules[__name__], "OBS", OBS.assign(condition=OBS["condition"].replace("B+ctrl", "A+ctrl"))
    )
    with pytest.raises(SystemExit):
        divided(tmp_path, np.ones((140, 2)), allowed=0.5)
    assert "cells.h5ad: one condition is left, 'A+ctrl', and there is nothing to tell apart" in capsys.readouterr().err
    assert not (tmp_path / "split.csv").exists()
