"""A gene that alone tells a target is suspected; a programme of genes, a shared marker and noise are not."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score

from reverse_perturbation.analysis.single_genes import _areas, single_genes
from reverse_perturbation.config import load_params
from reverse_perturbation.data.screen.contract import write_cells
from reverse_perturbation.data.screen.genes import load_aliases
from reverse_perturbation.data.screen.mask import apply_mask
from reverse_perturbation.data.screen.normalize import log1p_cp10k
from reverse_perturbation.data.split import split_cells
from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary
from reverse_perturbation.prepare.h5ad import read_source
from reverse_perturbation.prepare.simulate import simulate
from reverse_perturbation.report.probe import probe_section
from reverse_perturbation.stages import probe
from tests.end_to_end.pipeline import ROOT, params, yaml

CONDITIONS = ["A+B", *(f"{target}+ctrl" for target in "ABCDEFGHI")]
GENES = np.array([f"g{i}" for i in range(30)], dtype=object)


def cells(*raised: tuple[str, list[int]], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """600 cells x 30 genes; of each target some genes are raised."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(CONDITIONS, 60)).astype(object)
    counts = rng.poisson(1.0, (len(labels), len(GENES)))
    for target, columns in raised:
        counts[:, columns] += rng.poisson(6.0, (len(labels), len(columns))) * np.array(
            [[target in label.split("+")] for label in labels]
        )
    return counts, labels


def found(*raised: tuple[str, list[int]], seed: int = 0) -> list[tuple[str, str]]:
    counts, labels = cells(*raised, seed=seed)
    result = single_genes(sp.csr_matrix(np.log1p(counts)), labels, GENES)
    assert result["targets"] == 9
    return [(said["gene"], said["target"]) for said in result["suspected"]]


def test_areas_are_those_of_scikit_learn():
    counts, labels = cells(("A", [3]))
    has = np.array([["A" in label, "D" in label] for label in labels])
    areas = _areas(sp.csr_matrix(counts.astype(np.float32)), has)
    for target in range(2):
        assert areas[target] == pytest.approx([roc_auc_score(has[:, target], counts[:, g]) for g in range(30)])


def test_one_gene_of_one_target_is_suspected():
    assert found(("A", [3])) == [("g3", "A")]
    assert set(found(("A", [3]), ("D", [7]))) == {("g3", "A"), ("g7", "D")}


@pytest.mark.parametrize("seed", range(5))
def test_without_an_effect_none_is(seed):
    assert found(seed=seed) == []


def test_a_gene_among_others_is_not_suspected():
    assert found(("A", [3, 4, 5])) == [], "what moves several genes"
    assert found(("A", [3]), ("C", [3]), ("D", [3])) == [], "a gene that several targets move"


def test_nothing_to_compare():
    labels = np.array(["A+ctrl"] * 5, dtype=object)
    empty = single_genes(sp.csr_matrix((5, 3)), labels, GENES[:3])
    assert empty == {"targets": 0, "suspected": [], "clearest": None}


def known(adata: ad.AnnData, mask: str) -> list[tuple[str, str]]:
    frame = split_cells(adata.obs, seed=42, label_space="canonical")
    frame = frame[frame["part"] != "query"]
    rows, masked = adata.obs_names.get_indexer(frame["cell"]), apply_mask(adata, mask)
    expression = log1p_cp10k(masked.counts[rows], masked.totals[rows])
    result = single_genes(expression, frame["condition"].to_numpy(dtype=object), adata.var_names.to_numpy(dtype=object))
    return [(said["gene"], said["target"]) for said in result["suspected"]]


def test_the_real_subset(norman_subset):
    """TBX3 raises AVP in nearly every cell, and other genes too."""
    adata = read_source(norman_subset)
    assert known(adata, "all_targets") == []
    assert known(adata, "none") == [("TMSB4X", "TMSB4X")]
    adata.var_names = ["LOC7114" if gene == "TMSB4X" else gene for gene in adata.var_names]
    assert known(adata, "all_targets") == [("LOC7114", "TMSB4X")]


def test_papalexi(norman_subset):
    """Most knock-outs there hardly change their own gene; that of CMTM6 does."""
    adata = read_source(norman_subset.with_name("papalexi.h5ad"))
    assert known(adata, "all_targets") == []
    assert known(adata, "none") == [("CMTM6", "CMTM6")]
    adata.var_names = ["LOC54918" if gene == "CMTM6" else gene for gene in adata.var_names]
    assert known(adata, "all_targets") == [("LOC54918", "CMTM6")]


def test_the_simulated_default():
    """Most targets there are expressed too little to be seen; ELMSAN1 is seen, and also in its double with LHX1."""
    data = load_params(ROOT / "params.yaml").data
    table = pd.read_csv(ROOT / data.path)
    adata = simulate(table, data.simulated, list(default_vocabulary()), load_aliases())
    assert known(adata, "all_targets") == []
    assert known(adata, "none") == [("ELMSAN1", "ELMSAN1")]
    adata.var_names = ["LOC91748" if gene == "ELMSAN1" else gene for gene in adata.var_names]
    assert known(adata, "all_targets") == [("LOC91748", "ELMSAN1"), ("LOC91748", "LHX1")]


def test_queries_are_not_looked_at_and_the_stage_says_what_it_suspects(tmp_path, capsys):
    counts, labels = cells(("A", [3]))
    part = np.where(np.arange(600) % 5 == 0, "query", "reference")
    labels_of = {}
    for name in ("as they are", "of queries exchanged"):
        if name != "as they are":
            labels = labels.copy()
            labels[part == "query"] = labels[part == "query"][::-1]
        obs = pd.DataFrame({"condition": labels, "control": False}, index=[f"c{i}" for i in range(600)])
        var = pd.DataFrame({"gene_name": GENES}, index=GENES)
        layers = {"counts": sp.csr_matrix(counts.astype(np.float32))}
        write_cells(tmp_path / "cells.h5ad", ad.AnnData(obs=obs, var=var, layers=layers))
        split = pd.DataFrame({"cell": obs.index, "condition": labels, "part": part})
        split.to_csv(tmp_path / "split.csv", index=False)
        with (tmp_path / "params.yaml").open("w") as file:
            yaml.dump(params(), file)
        files = {"params": "params.yaml", "cells": "cells.h5ad", "split": "split.csv", "metrics": "probe.json"}
        probe.main([text for key, file in files.items() for text in (f"--{key}", str(tmp_path / file))])
        labels_of[name] = yaml.load((tmp_path / "probe.json").read_text())["single_genes"]
    section = probe_section(yaml.load((tmp_path / "probe.json").read_text()))
    assert "**Suspected under `all_targets`: g3 for A.**" in section
    assert "| none | 9 | 1 | g3 | A | 0.9" in section
    assert labels_of["as they are"] == labels_of["of queries exchanged"]
    assert (
        "no leak found; warning: each of these genes tells a masked target alone: g3 for A" in capsys.readouterr().out
    )
