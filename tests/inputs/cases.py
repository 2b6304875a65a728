"""Inputs that users bring, by what is special about each."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary
from tests.inputs import files
from tests.inputs.files import GENES, LABELS, N, of, saved, scperturb, screen

Make = Callable[[Path], Path]


def gears(*changes: files.Change, edit: files.Edit | None = None) -> Make:
    return lambda path: saved(path, of(screen(), *changes), edit)


def labelled(*labels: str, genes: list[str] = GENES) -> Make:
    return lambda path: saved(path, screen(labels, genes))


def pert(*labels: str, genes: list[str] = GENES, **obs: object) -> Make:
    def make(path: Path) -> Path:
        adata = scperturb(labels, genes)
        for name, values in obs.items():
            adata.obs[name] = values
        return saved(path, adata)

    return make


def obs(**columns: object) -> files.Change:
    def change(adata) -> None:
        for name, values in columns.items():
            adata.obs[name] = values

    return change


def renamed(part: str, **names: str) -> files.Change:
    def change(adata) -> None:
        setattr(adata, part, getattr(adata, part).rename(columns=names))

    return change


def layer(make: Callable[[np.ndarray], object]) -> files.Change:
    def change(adata) -> None:
        adata.layers["counts"] = make(adata.layers["counts"].toarray())

    return change


def totals(values: Callable[[np.ndarray], np.ndarray]) -> files.Change:
    def change(adata) -> None:
        adata.obs["total_counts"] = values(np.asarray(adata.layers["counts"].sum(axis=1)).ravel())

    return change


def few(adata) -> None:
    """Leave two counts a cell."""
    layer(lambda x: sp.csr_matrix(np.eye(len(GENES))[np.arange(N) % len(GENES)] * 2))(adata)


def wide(values: Callable[[np.ndarray], np.ndarray]) -> Make:
    """Cells of 1,500 genes, 1,000 to 4,000 UMIs each."""
    names = [*GENES, *(f"LOC{i}" for i in range(1_490))]

    def make(path: Path) -> Path:
        rng = np.random.default_rng(1)
        depths, means = rng.uniform(1_000, 4_000, (N, 1)), rng.lognormal(0, 1.5, (1, len(names)))
        adata = screen(LABELS, names)
        adata.layers["counts"] = sp.csr_matrix(values(rng.poisson(depths * means / means.sum())).astype(np.float32))
        return saved(path, adata)

    return make


def no_counts(adata) -> None:
    del adata.layers["counts"]


IDS = [f"ENSG{i:011d}" for i in range(105610, 105610 + len(GENES))]


def ids(adata) -> None:
    adata.var = pd.DataFrame({"gene_name": IDS, "gene_symbol": GENES}, index=adata.var_names)


COUNTS = "layers/counts"
FORMS = {
    "GEARS's layout": gears(),
    "scPerturb's layout": pert("KLF1", "GATA1", "KLF1_GATA1", "control"),
    "counts dense": gears(layer(np.asarray)),
    "counts by columns": gears(layer(sp.csc_matrix)),
    "counts as integers": gears(layer(lambda x: sp.csr_matrix(x.astype(np.int64)))),
    "written by anndata 0.6": gears(edit=files.of_06),
    "an unneeded column in an unknown encoding": gears(obs(score=1.0), edit=files.new_encoding("obs/score")),
    "a group that holds itself": gears(edit=files.circle),
}
KINDS = {
    "no such file": lambda path: path,
    "a folder": files.folder(),
    "a Zarr store": files.folder(".zgroup"),
    "a pipe": files.pipe,
    "an empty file": files.text("mine.h5ad", ""),
    ".h5ad.gz": files.packed,
    "a zip archive": files.zipped,
    "a table": files.text("mine.csv", "cell,KLF1\nc0,1\n"),
    "Matrix Market": files.text("mine.mtx", "%%MatrixMarket matrix coordinate\n"),
    "a Git LFS pointer": files.text("mine.h5ad", "version https://git-lfs.github.com/spec/v1\n"),
    "a DVC pointer": files.text("mine.h5ad.dvc", "outs:\n- md5: 0\n"),
    "a web page": files.text("mine.h5ad", "<!DOCTYPE html>"),
    "a 10x file": files.hdf5("mine.h5", "matrix/barcodes", "matrix/data"),
    "a loom file": files.hdf5("mine.loom", "matrix", "row_attrs/Gene", "col_attrs/CellID"),
    "a MuData file": files.hdf5("mine.h5mu", "mod/rna/X"),
    "an h5Seurat file": files.hdf5("mine.h5seurat", "assays/RNA", "meta.data/x"),
    "another HDF5 file": files.hdf5("mine.h5ad", "data"),
    "cut short": files.cut(0.6),
    "another sha256 than data.sha256": gears(),
}
STRUCTURE = {
    "counts: indptr beyond the values": gears(edit=files.put(f"{COUNTS}/indptr", 3, 10**6)),
    "counts: indptr falls": gears(edit=files.put(f"{COUNTS}/indptr", 3, 0)),
    "counts: indptr does not begin at 0": gears(edit=files.put(f"{COUNTS}/indptr", 0, 2)),
    "counts: a column beyond the genes": gears(edit=files.put(f"{COUNTS}/indices", 0, 70_000_000)),
    "counts: a negative column": gears(edit=files.put(f"{COUNTS}/indices", 0, -1)),
    "counts: fewer values than places": gears(edit=files.replace(f"{COUNTS}/data", np.ones(3, dtype=np.float32))),
    "counts: columns as fractions": gears(edit=files.replace(f"{COUNTS}/indices", np.full(3, 0.5))),
    "counts: no indptr": gears(edit=files.drop(f"{COUNTS}/indptr")),
    "counts: no shape": gears(edit=files.note(COUNTS, "shape", 7)),
    "counts: text": gears(edit=files.add(COUNTS, np.full((N, len(GENES)), "1", dtype=object))),
    "counts: of another shape": gears(edit=files.add(COUNTS, sp.csr_matrix(np.ones((N, 4))))),
    "counts: 3,000,000 columns declared": gears(edit=files.unwritten(COUNTS, (N, 3_000_000))),
    "counts: declared but never written": gears(edit=files.unwritten(COUNTS, (N, len(GENES)))),
    "X: indptr beyond the values": gears(edit=files.put("X/indptr", 3, 10**6)),
    "X: a column beyond the genes": gears(edit=files.put("X/indices", 0, 70_000_000)),
    "X: of another shape": gears(edit=files.add("X", np.ones((N, 4)))),
    "values in another file": gears(edit=files.outside),
    "a link to another file": gears(edit=files.linked),
    "values mapped to another file": gears(edit=files.virtual),
    "condition in an unknown encoding": gears(edit=files.new_encoding("obs/condition")),
    "condition for other cells": gears(edit=files.add("obs/condition", np.array(["ctrl"] * 3, dtype=object))),
    "no obs": gears(edit=files.drop("obs")),
}
VALUES = {
    "counts in X only": gears(no_counts),
    "counts: fractions": gears(layer(lambda x: sp.csr_matrix(x * 0.5))),
    "counts: negative": gears(layer(lambda x: sp.csr_matrix(x - 1))),
    "counts: NaN": gears(layer(lambda x: sp.csr_matrix(np.where(x == 3, np.nan, x)))),
    "total_counts of the assay": gears(totals(lambda x: x + np.arange(N))),
    "counts of 1,500 genes": wide(lambda x: x),
    "total_counts constant": gears(totals(lambda x: np.full(N, 10_000.0))),
    "total_counts in fractions": gears(totals(lambda x: x + 0.5)),
    "counts normalised and rounded": wide(lambda x: np.round(x / x.sum(axis=1, keepdims=True) * 1e4)),
    "counts logged and rounded": wide(lambda x: np.round(np.log1p(x / x.sum(axis=1, keepdims=True) * 1e4))),
    "counts thinned to one depth": gears(layer(lambda x: sp.csr_matrix(np.tile(np.arange(1, 11), (N, 1))))),
    "no genes": lambda path: saved(path, screen(LABELS, [])),
    "no cells": lambda path: saved(path, screen()[:0].copy()),
    "counts of zero": gears(layer(lambda x: sp.csr_matrix(x * 0))),
    "total_counts nearly constant": gears(totals(lambda x: 10_000 + np.arange(N))),
    "total_counts logged and rounded": gears(few, totals(lambda x: np.round(np.log(2_000 * (1 + np.arange(N)))))),
    "total_counts logged": gears(totals(np.log1p)),
    "total_counts below the counts": gears(totals(lambda x: x - 1)),
}
READ = {
    "several words for control": pert(
        "KLF1", "GATA1_NegCtrl0", "non-targeting", "NT_1", "AAVS1", "control", "scramble"
    ),
    "another word beside a gene": labelled("KLF1+control", "GATA1+ctrl", "ctrl"),
    "no target assigned": pert("KLF1", "multiplet", "unassigned", "None", "control"),
    "names of guides": pert("KLF1_sg1", "KLF1_sg2", "control"),
    "genes joined by comma, bar, semicolon": labelled("KLF1,GATA1", "KLF1|GATA1", "KLF1;GATA1", "ctrl"),
    "a gene alone in GEARS's layout": labelled("KLF1", "GATA1", "ctrl"),
    "three genes": labelled("KLF1+GATA1+SPI1", "ctrl"),
    "spaces": labelled("KLF1 + GATA1", "ctrl"),
    "an invisible character": labelled("KLF1\u200b+ctrl", "ctrl"),
    "controls under an unknown word": pert("KLF1", "GATA1", "mock", "mock"),
    "CTRL where that gene is measured": pert("KLF1", "CTRL", "control", genes=[*GENES[1:], "CTRL"]),
    "NT5 where that gene is measured": pert("KLF1", "NT5", "control", genes=[*GENES[1:], "NT5E"]),
    "NT1, NT2, NT5 where NT5's gene is measured": pert("KLF1", "NT1", "NT2", "NT5", genes=[*GENES[1:], "NT5E"]),
    "a measured gene with _ in its name": pert("KLF1", "Y_RNA", "control", genes=[*GENES[1:], "Y_RNA"]),
    "nperts that contradict the labels": pert("KLF1", "GATA1", "control", nperts=2),
    "labels in a column target_gene": gears(renamed("obs", condition="target_gene")),
    "labels in a column guide_identity": gears(renamed("obs", condition="guide_identity")),
    "no column control": gears(renamed("obs", control="is_control")),
    "control set for a perturbed cell": gears(obs(control=[1] * N)),
    "an empty label": gears(obs(condition=[None, *LABELS, *["ctrl"] * (N - 5)])),
    "duplicate cells": gears(lambda adata: setattr(adata, "obs_names", ["c"] * N)),
    "duplicate genes": labelled(*LABELS, genes=[*GENES[1:], "GATA1"]),
    "Ensembl ids beside symbols": gears(ids),
    "Ensembl ids alone": lambda path: saved(path, screen(LABELS, IDS)),
}
TARGETS = {
    "a target in another case": labelled("Klf1+ctrl", "ctrl"),
    "a target with a version": labelled("KLF1.1+ctrl", "ctrl"),
    "a target with its guide": labelled("KLF1-g2+ctrl", "ctrl"),
    "a measured gene in another case": labelled(*LABELS, genes=["Klf1", *GENES[1:]]),
    "a measured gene made unique": labelled(*LABELS, genes=["KLF1-1", *GENES]),
    "a measured gene with its Ensembl id": labelled(*LABELS, genes=["KLF1_ENSG00000105610", *GENES[1:]]),
    "a measured gene with a space": labelled(*LABELS, genes=["KLF1 ", *GENES[1:]]),
    "a target that is no known gene": labelled("GFP+ctrl", "KLF1+ctrl", "ctrl"),
    "a target that is not measured": labelled("RUNX1+ctrl", "KLF1+ctrl", "ctrl"),
    "a word for control with a suffix": labelled("non-targeting_human+ctrl", "KLF1+ctrl", "ctrl"),
}


def mouse(adata) -> None:
    """Write genes and labels as mouse symbols."""
    adata.var["gene_name"] = [gene.capitalize() for gene in GENES]
    adata.obs["condition"] = [
        label.replace("KLF1", "Klf1").replace("GATA1", "Gata1") for label in adata.obs["condition"]
    ]


def many(labels: list[str], genes: list[str], times: int = 12) -> Make:
    """As many cells of each label as a split needs."""

    def make(path: Path) -> Path:
        rng = np.random.default_rng(0)
        condition = [*labels, "ctrl"] * times
        counts = rng.poisson(rng.uniform(1, 40, (len(condition), 1)) * np.ones(len(genes))).astype(np.float32)
        obs = pd.DataFrame({"condition": condition, "control": [int(label == "ctrl") for label in condition]})
        obs.index = [f"cell{i}" for i in range(len(condition))]
        var = pd.DataFrame({"gene_name": genes}, index=genes)
        return saved(path, ad.AnnData(obs=obs, var=var, layers={"counts": sp.csr_matrix(counts)}))

    return make


SYMBOLS = [name for name in default_vocabulary() if name.isalnum() and name.isupper()][:1240]
LATER = "Later stages"
AFTER = {
    "mouse symbols": gears(mouse),
    "Ensembl ids in labels and genes": lambda path: saved(path, screen([f"{IDS[0]}+ctrl", "ctrl"], IDS)),
    "enough cells of each condition": many([f"{gene}+ctrl" for gene in GENES[:3]], GENES, 60),
    "one condition with enough cells": many([f"{GENES[0]}+ctrl"], GENES, 60),
    "no condition with enough cells": many([f"{gene}+ctrl" for gene in GENES[:3]], GENES, 9),
    "a panel of targets alone": many([f"{gene}+ctrl" for gene in GENES], GENES, 60),
    "1,200 targets of 1,240 genes": many([f"{gene}+ctrl" for gene in SYMBOLS[:1200]], SYMBOLS, 1),
    "1,200 targets that are not known": many([f"TARGET{i}X+ctrl" for i in range(1200)], GENES, 1),
    "cells that are copies": lambda path: saved(
        path, ad.concat([of(screen()) for _ in range(20)], index_unique="-", merge="same")
    ),
}
SETTINGS = {"another sha256 than data.sha256": {"sha256": "ab" * 32}}  # of params.yaml, beside the path
CASES: dict[str, dict[str, Make]] = {
    "Layouts": FORMS,
    "Other kinds of files": KINDS,
    "Damaged and hostile files": STRUCTURE,
    "Counts and depths": VALUES,
    "Labels and genes": READ,
    "Targets": TARGETS,
    LATER: AFTER,
}
