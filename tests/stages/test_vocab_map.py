"""How much the mask hides is said before anything is fitted."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from reverse_perturbation.config import load_params
from reverse_perturbation.data.screen.contract import read_cells, write_cells
from reverse_perturbation.data.screen.genes import resolve
from reverse_perturbation.data.screen.mask import apply_mask
from reverse_perturbation.models.scgpt.encoder.backbone import ScgptBackbone
from reverse_perturbation.models.scgpt.encoder.checkpoint import save_checkpoint
from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary
from reverse_perturbation.models.scgpt.pretrain import small_architecture, small_vocabulary
from reverse_perturbation.sections import NO_CHECKPOINT
from reverse_perturbation.stages.vocab_map import main

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
SYMBOLS = sorted(name for name in default_vocabulary() if name.isalnum() and resolve(name) == name)


def mapped(folder: Path, targets: list[str], others: list[str], params: Path = ROOT / "params.yaml") -> ad.AnnData:
    """Run the stage on a cell of each target, a control cell and a cell with its target alone; return the cells."""
    genes = targets + others
    counts = np.ones((len(targets) + 2, len(genes)), dtype=np.float32)
    counts[-1, 1:] = 0
    labels = [f"{target}+ctrl" for target in targets] + ["ctrl", f"{targets[0]}+ctrl"]
    obs = pd.DataFrame({"condition": labels, "control": [label == "ctrl" for label in labels]})
    obs.index = [f"c{i}" for i in range(len(obs))]
    var = pd.DataFrame({"gene_name": genes}, index=genes)
    write_cells(folder / "cells.h5ad", ad.AnnData(obs=obs, var=var, layers={"counts": sp.csr_matrix(counts)}))
    names = {"params": params, "cells": folder / "cells.h5ad", "output": folder / "genes.csv"}
    names["metrics"] = folder / "vocab_map.json"
    main([text for name, file in names.items() for text in (f"--{name}", str(file))])
    return read_cells(folder / "cells.h5ad")


@pytest.mark.parametrize(
    ("n_targets", "n_others", "warning", "share", "empty"),
    [
        pytest.param(3, 9, "", "26.5%", 1, id="a real panel"),  # 13 of 49 UMIs
        pytest.param(40, 0, "warning: ", "100.0%", 42, id="targets alone"),
        pytest.param(1200, 40, "warning: ", "96.8%", 1, id="nearly all targets"),
    ],
)
def test_what_the_mask_leaves_is_said(tmp_path, capsys, n_targets, n_others, warning, share, empty):
    adata = mapped(tmp_path, SYMBOLS[:n_targets], SYMBOLS[n_targets : n_targets + n_others])
    said = f"; {warning}the mask all_targets hides {share} of UMIs and leaves {n_others} genes with counts"
    assert f"{said}; cells without any: {empty}\n" in capsys.readouterr().out
    masked = apply_mask(adata, "all_targets").counts
    assert f"{1 - masked.sum() / adata.layers['counts'].sum():.1%}" == share
    assert len(np.unique(masked.indices)) == n_others
    assert (masked.getnnz(axis=1) == 0).sum() == empty


@pytest.fixture
def given(tmp_path) -> Path:
    """A small checkpoint that knows the first twelve symbols, and parameters that name it."""
    architecture = small_architecture(PARAMS.pretrain, "log1p")
    vocabulary = small_vocabulary(np.array(SYMBOLS[:12], dtype=object))
    save_checkpoint(tmp_path / "given", ScgptBackbone(architecture, vocabulary), vocabulary, architecture)
    text = (ROOT / "params.yaml").read_text().replace(NO_CHECKPOINT, str(tmp_path / "given"))
    (tmp_path / "params.yaml").write_text(text)
    return tmp_path / "given"


def test_a_given_checkpoint(given, tmp_path):
    mapped(tmp_path, SYMBOLS[:3], SYMBOLS[3:13], tmp_path / "params.yaml")
    assert pd.read_csv(tmp_path / "genes.csv")["token"].notna().tolist() == [True] * 12 + [False]


@pytest.mark.parametrize(("file", "message"), [("best_model.pt", "cannot be read"), ("args.json", "not JSON")])
def test_a_broken_checkpoint_ends_the_stage_before_anything_is_fitted(given, tmp_path, capsys, file, message):
    (given / file).write_bytes((given / file).read_bytes()[:100])
    with pytest.raises(SystemExit) as end:
        mapped(tmp_path, SYMBOLS[:3], SYMBOLS[3:9], tmp_path / "params.yaml")
    assert end.value.code == 2
    assert f"error: {given / file}: {message}" in (said := capsys.readouterr().err)
    assert said.count("\n") == 1
    assert not (tmp_path / "genes.csv").exists()
