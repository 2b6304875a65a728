"""How labels were read, and which targets are no known gene, is said on the stage's line."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from reverse_perturbation.data.screen.contract import read_cells
from reverse_perturbation.stages import audit, prepare
from tests.end_to_end.pipeline import params, yaml

LABELS = ["KLF1", "GATA1_KLF1", "control", "non-targeting", "NT_1", "AAVS1", "GATA1_NegCtrl0"]


def prepared(folder, labels: list[str]) -> ad.AnnData:
    """Run the stage on a cell of each label, in scPerturb's layout."""
    genes = ["KLF1", "GATA1", "GAPDH"]
    counts = sp.csr_matrix(np.arange(1, 3 * len(labels) + 1, dtype=np.float32).reshape(-1, 3))
    obs = pd.DataFrame({"perturbation": labels}, index=[f"c{i}" for i in range(len(labels))])
    ad.AnnData(X=counts, obs=obs, var=pd.DataFrame(index=genes)).write_h5ad(folder / "mine.h5ad")
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(params(data={"source": "h5ad", "path": str(folder / "mine.h5ad")}), file)
    prepare.main(["--params", str(folder / "params.yaml"), "--output", str(folder / "cells.h5ad")])
    return read_cells(folder / "cells.h5ad")


def test_several_words_for_control_in_one_file(tmp_path, capsys):
    cells = prepared(tmp_path, LABELS)
    assert list(cells.obs["condition"]) == ["KLF1+ctrl", "GATA1+KLF1", "ctrl", "ctrl", "ctrl", "ctrl", "GATA1+ctrl"]
    printed = capsys.readouterr().out
    assert "4 control cells, 3 perturbed conditions of 2 targets, 0 of them not measured" in printed
    plain = "KLF1 as KLF1+ctrl (labels like it: 1), GATA1_KLF1 as GATA1+KLF1 (labels like it: 1)"
    others = "AAVS1 as ctrl, GATA1_NegCtrl0 as GATA1+ctrl, NT_1 as ctrl, non-targeting as ctrl"
    assert f"labels read: {plain}, {others}; sha256 of " in printed
    assert "warning" not in printed
    names = {"cells": "cells.h5ad", "metrics": "audit.json", "plots": "plots", "report": "audit.md"}
    audit.main([text for name, file in names.items() for text in (f"--{name}", str(tmp_path / file))])
    assert len(json.loads((tmp_path / "audit.json").read_text())["source"]["labels_read_as"]) == 6


def test_a_target_that_is_no_known_gene_is_said(tmp_path, capsys):
    prepared(tmp_path, ["KLF1", "GFP", "control"])
    assert "; warning: targets that are no known gene symbols: GFP; sha256 of " in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"", b"\x89HDF\r\n\x1a\n\xff", b"condition,cells\nA,1,2,3\n", b"a,b\n1,2\n"])
def test_what_is_no_table_of_conditions_is_refused(tmp_path, capsys, content):
    """None is a folder."""
    path = tmp_path / "table.csv"
    path.mkdir() if content is None else path.write_bytes(content)
    with (tmp_path / "params.yaml").open("w") as file:
        yaml.dump(params(data={"path": str(path)}), file)
    with pytest.raises(SystemExit):
        prepare.main(["--params", str(tmp_path / "params.yaml"), "--output", str(tmp_path / "cells.h5ad")])
    assert capsys.readouterr().err.startswith("error: data.path: ")
    assert not (tmp_path / "cells.h5ad").exists()


def test_cells_without_a_target_stop_the_stage(tmp_path, capsys):
    with pytest.raises(SystemExit):
        prepared(tmp_path, ["KLF1", "multiplet", "control"])
    assert "No target is assigned: 'multiplet' (cells: 1); drop these cells" in capsys.readouterr().err
    assert not (tmp_path / "cells.h5ad").exists()
