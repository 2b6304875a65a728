"""What the door lets in, and the one clear error for each thing it does not."""

import re
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.io import write_elem

from reverse_perturbation.data.screen.contract import read_cells, write_cells
from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare.h5ad import read_source
from reverse_perturbation.prepare.source import elements
from reverse_perturbation.prepare.source.labels import GEARS, checked_labels

COUNTS = np.array([[1, 0, 3], [0, 2, 0], [5, 0, 1], [0, 0, 0]])
LABELS = ["A+ctrl", "ctrl+A", "A+B", "ctrl"]
CELLS = ["c0", "c1", "c2", "c3"]
GENES = ["A", "B", "C"]


def source(counts=None, **obs) -> ad.AnnData:
    """A small file laid out as GEARS does it: float counts, log1p in X, categorical condition, control 0 or 1."""
    values = sp.csr_matrix((COUNTS if counts is None else counts).astype(np.float32))
    frame = pd.DataFrame({"condition": pd.Categorical(LABELS), "control": [0, 0, 0, 1]} | obs, index=CELLS)
    var = pd.DataFrame({"gene_name": GENES}, index=["ENSG1", "ENSG2", "ENSG3"])
    logs = values.copy()
    logs.data = np.log1p(np.abs(values.data))
    return ad.AnnData(X=logs, obs=frame, var=var, layers={"counts": values})


def saved(folder: Path, cells: ad.AnnData) -> Path:
    path = folder / "user.h5ad"
    cells.write_h5ad(path)
    return path


def test_a_gears_file_is_accepted_as_it_is(tmp_path):
    cells = read_source(saved(tmp_path, source(gem_group=[1, 1, 2, 2])))
    counts = cells.layers["counts"]
    assert isinstance(counts, sp.csr_matrix)
    assert counts.dtype == np.float32
    assert counts.toarray().tolist() == COUNTS.tolist()
    assert cells.X is None
    assert list(cells.obs_names) == CELLS
    assert list(cells.var_names) == list(cells.var["gene_name"]) == GENES
    assert list(cells.obs["condition"]) == LABELS
    assert cells.obs["control"].dtype == bool
    assert list(cells.obs["control"]) == [False, False, False, True]
    assert list(cells.obs["gem_group"]) == ["1", "1", "2", "2"]
    assert "total_counts" not in cells.obs


@pytest.mark.parametrize("control", [[False, False, False, True], [0.0, 0.0, 0.0, 1.0], pd.Categorical([0, 0, 0, 1])])
def test_control_may_be_written_in_several_ways(tmp_path, control):
    assert list(read_source(saved(tmp_path, source(control=control))).obs["control"]) == [False, False, False, True]


@pytest.mark.parametrize("layout", [np.asarray, sp.csc_matrix, lambda x: sp.csr_matrix(x.astype(np.int64))])
def test_counts_may_be_dense_or_stored_by_columns_or_integers(tmp_path, monkeypatch, layout):
    monkeypatch.setattr(elements, "BLOCK", 9)
    cells = source()
    cells.layers["counts"] = layout(COUNTS.astype(np.float32))
    counts = read_source(saved(tmp_path, cells)).layers["counts"]
    assert isinstance(counts, sp.csr_matrix)
    assert counts.dtype == np.float32
    assert counts.toarray().tolist() == COUNTS.tolist()


def test_counts_come_sorted_and_without_stored_zeros(tmp_path):
    cells = source()
    data, indices, indptr = np.array([3, 1, 0, 2, 1, 5]), np.array([2, 0, 0, 1, 2, 0]), np.array([0, 2, 4, 6, 6])
    cells.layers["counts"] = sp.csr_matrix((data.astype(np.float32), indices, indptr), shape=(4, 3))
    counts = read_source(saved(tmp_path, cells)).layers["counts"]
    assert counts.toarray().tolist() == COUNTS.tolist()
    assert counts.indices.tolist() == [0, 2, 1, 0, 2]
    assert counts.data.tolist() == [1, 3, 2, 5, 1]


def test_x_is_neither_checked_nor_kept(tmp_path):
    cells = source()
    cells.X = np.full(COUNTS.shape, np.nan, dtype=np.float32)
    assert read_source(saved(tmp_path, cells)).layers["counts"].toarray().tolist() == COUNTS.tolist()


def test_x_that_is_log1p_of_scaled_counts_is_recognised(tmp_path):
    cells = source()
    totals = np.maximum(COUNTS.sum(axis=1, keepdims=True), 1)
    cells.X = sp.csr_matrix(np.log1p(COUNTS / totals * 1e4).astype(np.float32))
    found = read_source(saved(tmp_path, cells)).uns["source"]
    assert found["x_log1p_share"] == 1
    assert found["x_scaled_to"] == pytest.approx(1e4, rel=1e-5)
    assert found["x_cells"] == 4
    cells.X = sp.csr_matrix(COUNTS**2 * 1.5)
    found = read_source(saved(tmp_path, cells)).uns["source"]
    assert found["x_log1p_share"] == pytest.approx(1 / 3), "only the cell with one gene is not contradicted"
    assert found["x_max"] == 37.5


def test_what_the_file_says_of_its_origin_is_kept(tmp_path):
    cells = source()
    cells.uns["source"] = {"dataset": "a screen", "licence": "CC0"}
    found = read_source(saved(tmp_path, cells)).uns["source"]
    assert found["description"] == "dataset: a screen; licence: CC0"
    assert found["file"] == "user.h5ad"
    assert found["layers"] == ["counts"]


def test_library_sizes_may_exceed_what_the_file_holds(tmp_path):
    cells = read_source(saved(tmp_path, source(total_counts=[100, 50, 6, 0])))
    assert cells.obs["total_counts"].dtype == np.float32
    assert list(cells.obs["total_counts"]) == [100, 50, 6, 0]


def test_frames_of_old_anndata_are_read(tmp_path):
    """anndata before 0.8 kept categories in a group beside the columns; public files still have that layout."""
    path = saved(tmp_path, source())
    with h5py.File(path, "a") as file:
        del file["obs/condition"]
        categories = sorted(set(LABELS))
        kept = file.create_dataset("obs/__categories/condition", data=categories, dtype=h5py.string_dtype())
        codes = file.create_dataset(
            "obs/condition", data=np.array([categories.index(x) for x in LABELS], dtype=np.int8)
        )
        codes.attrs["categories"] = kept.ref
        for frame in (file["obs"], file["var"]):
            frame.attrs["encoding-version"] = "0.1.0"
            for name, column in frame.items():
                if name != "__categories":
                    for attribute in ("encoding-type", "encoding-version"):
                        column.attrs.pop(attribute, None)
    cells = read_source(path)
    assert list(cells.obs["condition"]) == LABELS
    assert list(cells.obs["control"]) == [False, False, False, True]
    assert list(cells.var_names) == GENES


def without(name: str) -> ad.AnnData:
    cells = source()
    del cells.obs[name]
    return cells


def no_counts() -> ad.AnnData:
    cells = source()
    cells.layers["raw"] = cells.layers.pop("counts")
    return cells


def with_count(value: float, row: int = 2, column: int = 2) -> ad.AnnData:
    counts = COUNTS.astype(float)
    counts[row, column] = value
    return source(counts)


def with_cells(*names: str) -> ad.AnnData:
    cells = source()
    cells.obs.index = list(names)
    return cells


def with_genes(column: str, *names: str | None) -> ad.AnnData:
    cells = source()
    cells.var = pd.DataFrame({column: names}, index=cells.var_names)
    return cells


def with_unused() -> ad.AnnData:
    return source(condition=pd.Categorical(LABELS, categories=["KLF1+ctrl", *LABELS]))


def labelled(*labels: str | None) -> ad.AnnData:
    return source(condition=labels)


BROKEN = {
    "no counts layer": (no_counts, r'layers\["counts"\] is missing \(layers found: raw\).*X is never taken'),
    "text for counts": (source, r'layers\["counts"\] is no matrix of numbers'),
    "negative count": (
        lambda: with_count(-2),
        r'layers\["counts"\] holds 1 negative.*-2 for cell \'c2\' and gene \'C\'',
    ),
    "fraction": (lambda: with_count(0.5), r'layers\["counts"\] holds 1 fractions, first 0.5 for cell \'c2\' and gene'),
    "NaN": (
        lambda: with_count(np.nan, 1, 0),
        r"holds 1 values that are NaN or infinite.*nan for cell 'c1' and gene 'A'",
    ),
    "infinity": (lambda: with_count(np.inf), r"NaN or infinite, first inf for cell 'c2'"),
    "beyond float32": (lambda: with_count(2**25), r"too large for a count"),
    "duplicate genes": (
        lambda: with_genes("gene_name", "A", "B", "A"),
        r'var\["gene_name"\] holds \'A\' more than once',
    ),
    "gene without name": (
        lambda: with_genes("gene_name", "A", None, "C"),
        r'var\["gene_name"\] is empty for \'ENSG2\'',
    ),
    "no gene names": (lambda: with_genes("symbol", *GENES), r'var\["gene_name"\] is missing \(columns found: symbol\)'),
    "duplicate cells": (lambda: with_cells("c0", "c1", "c0", "c3"), r"obs holds the cell id 'c0' more than once"),
    "no condition": (lambda: without("condition"), r'obs\["condition"\] is missing \(columns found: control\)'),
    "no control column": (lambda: without("control"), r'obs\["control"\] is missing \(columns found: condition\)'),
    "condition without cells": (with_unused, r'obs\["condition"\] lists 1 .*: KLF1\+ctrl; .*remove_unused_categories'),
    "cell without condition": (lambda: labelled("A+ctrl", None, "A+B", "ctrl"), r'obs\["condition"\] is empty.*\'c1\''),
    "empty part": (lambda: labelled("A+", "ctrl+A", "A+B", "ctrl"), r"is 'A\+' for cell 'c0': a part of it is empty"),
    "bare gene": (lambda: labelled("A", "ctrl+A", "A+B", "ctrl"), r"is 'A' for cell 'c0': it has 1 part instead"),
    "three genes": (lambda: labelled("A+B+C", "ctrl+A", "A+B", "ctrl"), r"'A\+B\+C' .* it has 3 parts instead of two"),
    "same gene twice": (lambda: labelled("A+A", "ctrl+A", "A+B", "ctrl"), r"both of its parts are the same"),
    "control twice": (
        lambda: labelled("ctrl+ctrl", "ctrl+A", "A+B", "ctrl"),
        r"is 0 for cell 'c0' \(1 such cells\), but these conditions are control: 'ctrl\+ctrl'; set control to 1",
    ),
    "controls called perturbed": (
        lambda: source(condition=["AAVS1+ctrl", "NT_1", "A+B", "ctrl"]),
        r"is 0 for cell 'c0' \(2 such cells\), but these conditions are control: 'AAVS1\+ctrl', 'NT_1'; set ",
    ),
    "no target": (
        lambda: labelled("unassigned", "nan+ctrl", "A+multiplet", "ctrl"),
        r"condition\"\] holds .* neither a perturbation nor control\. No target is assigned: 'A\+multiplet' \S+ 1., "
        r"'nan\+ctrl' \(cells: 1\), 'unassigned' \(cells: 1\); drop these cells$",
    ),
    "other signs": (
        lambda: labelled("A,B", "A|B+ctrl", "A;B", "ctrl"),
        r"another sign than \+: 'A,B' \(cells: 1\), 'A;B' \(cells: 1\), 'A\|B\+ctrl' \(cells: 1\); write A\+B$",
    ),
    "several complaints": (
        lambda: labelled("None", "A+2", "A&B", "ctrl"),
        r"assigned: 'None' .* cells\. Genes are joined .*'A&B' .*\. A part is no gene: 'A\+2' .* the gene alone",
    ),
    "spaces": (lambda: labelled("A + B", "ctrl+A", "A+B", "ctrl"), r"'A \+ B' for cell 'c0': it holds spaces"),
    "unclear control": (
        lambda: source(control=[0, 0, 2, 1]),
        r'obs\["control"\] is .*2.* for cell \'c2\'; it must be 0 or 1',
    ),
    "empty control": (lambda: source(control=[0, np.nan, 0, 1]), r'obs\["control"\] is .*nan.* for cell \'c1\''),
    "false control": (
        lambda: source(control=[1, 0, 0, 1]),
        r"control\"\] is 1 for cell 'c0', .* is 'A\+ctrl' \(1 such",
    ),
    "hidden control": (
        lambda: source(control=[0, 0, 0, 0]),
        r"control\"\] is 0 for cell 'c3', but its condition is 'ctrl'",
    ),
    "no control cells": (
        lambda: source(condition=["A+ctrl", "ctrl+A", "A+B", "A+B"], control=[0, 0, 0, 0]),
        r"no control cells",
    ),
    "only control cells": (lambda: source(condition=["ctrl"] * 4, control=[1] * 4), r"only control cells"),
    "infinite library": (
        lambda: source(total_counts=[9, np.inf, 9, 9]),
        r'obs\["total_counts"\] is inf for cell \'c1\'',
    ),
    "missing library": (
        lambda: source(total_counts=[9, 9, 9, np.nan]),
        r'obs\["total_counts"\] is nan for cell \'c3\'',
    ),
    "library in fractions": (
        lambda: source(total_counts=[9, 9, 9.5, 9]),
        r'total_counts"\] is 9.5 for cell \'c2\' \(1 fractions\), which is no number of molecules; .* or be left out',
    ),
    "library of one size": (
        lambda: source(total_counts=[10, 10, 10, 10]),
        r'total_counts"\] is 10 for every cell: a depth that counts were scaled to',
    ),
    "library below its counts": (
        lambda: source(total_counts=[4, 2, 5, 0]),
        r'total_counts"\] is 5 for cell \'c2\', whose counts add up to 6 \(1 such cells\)',
    ),
    "cell without lane": (lambda: source(gem_group=["1", None, "2", "2"]), r'obs\["gem_group"\] is empty.*\'c1\''),
}


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize("name", BROKEN)
def test_broken_input_is_one_clear_error(tmp_path, name):
    make, message = BROKEN[name]
    path = saved(tmp_path, make())
    if name == "text for counts":
        with h5py.File(path, "a") as file:
            del file["layers/counts"]
            write_elem(file, "layers/counts", np.full(COUNTS.shape, "1", dtype=object))
    with pytest.raises(InputError, match=message) as caught:
        read_source(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path], "nothing else is written"


@pytest.mark.parametrize(
    ("part", "message"), [("obs", "obs is missing"), ("var", "var is missing"), ("layers", "layers found: none")]
)
def test_a_file_without_one_of_its_parts(tmp_path, part, message):
    path = saved(tmp_path, source())
    with h5py.File(path, "a") as file:
        del file[part]
    with pytest.raises(InputError, match=message):
        read_source(path)


def test_counts_of_another_shape_than_the_annotations(tmp_path):
    path = saved(tmp_path, source())
    with h5py.File(path, "a") as file:
        del file["layers/counts"]
        write_elem(file, "layers/counts", sp.csr_matrix(np.ones((4, 2))))
    with pytest.raises(InputError, match=re.escape('layers["counts"] is 4 x 2, but obs has 4 rows and var 3')):
        read_source(path)


def test_columns_beyond_the_matrix_are_damage_not_a_crash(tmp_path):
    path = saved(tmp_path, source())
    with h5py.File(path, "a") as file:
        file["layers/counts/indices"][0] = 70_000_000
    with pytest.raises(InputError, match="damaged"):
        read_source(path)


def test_not_an_hdf5_file(tmp_path):
    path = tmp_path / "table.h5ad"
    path.write_text("cell,condition\n")
    with pytest.raises(InputError, match=r"not an HDF5 file; set data\.path to an \.h5ad file"):
        read_source(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="not an HDF5 file"):
        read_source(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.h5ad: no such file"):
        read_source(tmp_path / "nowhere.h5ad")
    with pytest.raises(InputError, match="a folder, not a file"):
        read_source(tmp_path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_cut_short_wherever_it_ends(tmp_path, share):
    path = saved(tmp_path, source())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="damaged or cut short"):
        read_source(path)


def test_the_real_subset(norman_subset):
    cells = read_source(norman_subset)
    assert cells.shape == (3375, 500)
    assert cells.obs["control"].sum() == 100
    assert cells.obs["condition"].nunique() == 34
    assert set(cells.obs) == {"condition", "control", "gem_group", "total_counts"}
    assert len(np.unique(cells.layers["counts"].indices)) == 250
    assert cells.layers["counts"].getnnz(axis=1).mean() == pytest.approx(15, abs=0.1)
    assert cells.uns["source"]["x_log1p_share"] == 1


def scperturb(names: list[str], values: np.ndarray = COUNTS) -> ad.AnnData:
    """A small file in scPerturb's layout: raw counts in X, ``A_B`` and ``control``, symbols as the index of var."""
    obs = pd.DataFrame({"perturbation": pd.Categorical(names), "gemgroup": [1, 1, 2, 2], "ncounts": 9.0}, index=CELLS)
    var = pd.DataFrame({"ncells": [2, 1, 2]}, index=pd.Index(GENES, name="gene_symbol"))
    return ad.AnnData(X=sp.csr_matrix(values.astype(np.float32)), obs=obs, var=var)


def test_scperturbs_layout_is_taken_and_its_labels_are_translated(tmp_path):
    cells = read_source(saved(tmp_path, scperturb(["A", "B", "A_B", "control"])))
    assert cells.layers["counts"].toarray().tolist() == COUNTS.tolist()
    assert list(cells.obs["condition"]) == ["A+ctrl", "B+ctrl", "A+B", "ctrl"]
    assert list(cells.obs["control"]) == [False, False, False, True]
    assert list(cells.obs["gem_group"]) == ["1", "1", "2", "2"]
    assert list(cells.var_names) == GENES
    assert "total_counts" not in cells.obs
    assert not [key for key in cells.uns["source"] if key.startswith("x_")], "X is the counts, no evidence beside them"
    write_cells(tmp_path / "cells.h5ad", cells)
    assert list(read_cells(tmp_path / "cells.h5ad").obs["condition"]) == list(cells.obs["condition"])


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (["A", "B", "A_B", "control"], COUNTS * 0.5, r"X holds 4 fractions, first 0\.5 for cell 'c0' and gene 'A'"),
        (
            ["A", "B", "A_B_C", "control"],
            COUNTS,
            r"perturbation\"\] is 'A_B_C' for cell 'c2': it has 3 parts.*write A, A_B or",
        ),
        (["A", "B", "A_A", "control"], COUNTS, "both of its parts are the same"),
        (["A", "B", "A_B", "A"], COUNTS, "no control cells"),
        (["A", "B", None, "control"], COUNTS, r'obs\["perturbation"\] is empty for 1 cells, first .c2.'),
    ],
)
def test_what_is_wrong_in_scperturbs_layout_is_named(tmp_path, names, values, message):
    with pytest.raises(InputError, match=message):
        read_source(saved(tmp_path, scperturb(names, values)))


def test_x_is_not_taken_for_counts_where_the_labels_are_this_projects(tmp_path):
    cells = scperturb(["A", "B", "A_B", "control"])
    cells.obs["condition"] = LABELS
    with pytest.raises(InputError, match=r'layers\["counts"\] is missing'):
        read_source(saved(tmp_path, cells))


CONTROL_WORDS = [
    "control", "Control", "ctrl", "CTRL", "ctrl1", "non-targeting", "non_targeting_12", "NonTargeting", "no-target",
    "NT", "NT_1", "NTg2", "NTC", "NTC-3", "sgNT-1", "neg ctrl", "NegCtrl0", "NegCtrl0_NegCtrl1", "safe-targeting",
    "safe_targeting_7", "safe-harbor", "scramble", "scrambled_2", "AAVS1", "AAVS1_sg2", "non-targeting|non-targeting",
    "NT,NT", "control+control", "unperturbed",
]  # fmt: skip


@pytest.mark.parametrize("word", CONTROL_WORDS)
def test_words_for_control_are_read_as_control(tmp_path, word):
    cells = read_source(saved(tmp_path, scperturb(["A", word, "A_B", "control"])))
    assert list(cells.obs["condition"]) == ["A+ctrl", "ctrl", "A+B", "ctrl"]
    assert list(cells.obs["control"]) == [False, True, False, True]
    again = read_source(saved(tmp_path, source(condition=["A+ctrl", word, "A+B", "ctrl"], control=[0, 1, 0, 1])))
    assert list(again.obs["condition"]) == ["A+ctrl", "ctrl", "A+B", "ctrl"]


def test_several_words_in_one_file_are_one_control_and_said(tmp_path):
    cells = read_source(saved(tmp_path, scperturb(["non-targeting", "AAVS1", "A_NT", "control"])))
    assert list(cells.obs["condition"]) == ["ctrl", "ctrl", "A+ctrl", "ctrl"]
    assert cells.uns["source"]["labels_read_as"] == ["AAVS1 as ctrl", "A_NT as A+ctrl", "non-targeting as ctrl"]
    plain = read_source(saved(tmp_path, scperturb(["A", "B", "A_B", "control"]))).uns["source"]["labels_read_as"]
    assert plain == ["A as A+ctrl (labels like it: 2)", "A_B as A+B (labels like it: 1)"]
    assert "labels_read_as" not in read_source(saved(tmp_path, source())).uns["source"]


@pytest.mark.parametrize(
    ("text", "label"),
    [("A+control", "A+ctrl"), ("control+A", "ctrl+A"), ("A+non-targeting", "A+ctrl"), ("NT_1+A", "ctrl+A")],
)
def test_another_word_beside_a_gene_is_control(tmp_path, text, label):
    cells = read_source(saved(tmp_path, source(condition=[text, "ctrl+A", "A+B", "ctrl"])))
    assert list(cells.obs["condition"]) == [label, "ctrl+A", "A+B", "ctrl"]
    assert list(cells.obs["control"]) == [False, False, False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "No target is assigned") for text in ("unassigned", "multiplet", "nan", "None", "", "A_doublet")),
        *((text, r"another sign than _: .*; write A_B") for text in ("A,B", "A|B", "A;B", "A&B")),
        *((text, "A part is no gene: .* not its guide") for text in ("A_1", "A_sg2", "A_P1P2", "guide3", "63", "*")),
    ],
)
def test_texts_that_are_no_perturbation_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_source(saved(tmp_path, scperturb(["A", text, "A_B", "control"])))
    assert 'obs["perturbation"] holds labels that are neither a perturbation nor control' in str(caught.value)
    assert f"{text!r} (cells: 1)" in str(caught.value)


def test_of_many_labels_ten_are_listed():
    obs = pd.DataFrame({"condition": [f"{i},B" for i in range(12)]})
    with pytest.raises(InputError, match=r"'6,B' \(cells: 1\), '7,B' \(cells: 1\) and 2 more; write A\+B"):
        checked_labels(Path("mine.h5ad"), obs, GEARS, GENES)
