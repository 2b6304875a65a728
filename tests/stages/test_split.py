"""Queries that are copies of known cells stop the split before anything is written."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from reverse_perturbation.data.contract import write_cells
from reverse_perturbation.stages import split
from tests.end_to_end.pipeline import ROOT


def test_copies_across_parts_are_an_error(tmp_path, capsys):
    obs = pd.DataFrame({"condition": "A+ctrl", "control": False}, index=[f"c{i}" for i in range(60)])
    var = pd.DataFrame({"gene_name": ["A", "B"]}, index=["A", "B"])
    counts = sp.csr_matrix(np.ones((60, 2), dtype=np.float32))
    write_cells(tmp_path / "cells.h5ad", ad.AnnData(obs=obs, var=var, layers={"counts": counts}))
    paths = {"--cells": "cells.h5ad", "--output": "split.csv", "--metrics": "split.json"}
    argv = [text for name, file in paths.items() for text in (name, str(tmp_path / file))]
    with pytest.raises(SystemExit):
        split.main([*argv, "--params", str(ROOT / "params.yaml")])
    assert "100.0% of the query cells" in capsys.readouterr().err
    assert not (tmp_path / "split.csv").exists()
