"""What every model is given: the cells of the split, masked, and nothing that does not belong together."""

import dataclasses

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from reverse_perturbation.data.screen import masked_screen
from reverse_perturbation.data.screen.contract import write_cells
from reverse_perturbation.data.screen.masked_screen import (
    CONTROL_PART,
    MaskedScreen,
    fingerprint,
    load_masked_screen,
    separate_controls,
)
from reverse_perturbation.errors import InputError

GENES = ["A", "X", "B", "Y"]
LABELS = ["A+ctrl", "ctrl+A", "A+B", "ctrl", "A+ctrl", "ctrl"]
COUNTS = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [1, 0, 0, 2], [9, 1, 9, 1], [0, 1, 0, 2], [2, 2, 2, 2]])
# Not in the order of the file, and without cell c4, whose condition was dropped, say.
SPLIT = pd.DataFrame(
    {
        "cell": ["c2", "c0", "c1"],
        "condition": ["A+B", "A+ctrl", "A+ctrl"],
        "part": ["reference", "query", "validation"],
    }
)
TOKENS = pd.DataFrame({"gene": GENES, "token": ["A", "X1", "", "Y"], "token_id": [5, 6, -1, 8], "match": "exact"})


@pytest.fixture
def files(tmp_path):
    """Write the three files and return how to load them; a frame given replaces that file's."""

    def load(split=SPLIT, tokens=TOKENS, totals=None, mask="none", genes="all", **options):
        obs = pd.DataFrame({"condition": LABELS}, index=[f"c{i}" for i in range(6)])
        obs["control"] = obs["condition"] == "ctrl"
        if totals is not None:
            obs["total_counts"] = np.array(totals, dtype=np.float32)
        var = pd.DataFrame({"gene_name": GENES}, index=GENES)
        counts = sp.csr_matrix(COUNTS.astype(np.float32))
        write_cells(tmp_path / "cells.h5ad", ad.AnnData(obs=obs, var=var, layers={"counts": counts}))
        split.to_csv(tmp_path / "split.csv", index=False)
        tokens.to_csv(tmp_path / "genes.csv", index=False)
        paths = [tmp_path / name for name in ("cells.h5ad", "split.csv", "genes.csv")]
        return load_masked_screen(*paths, mask=mask, genes=genes, **options)

    return load


def test_rows_are_those_of_the_split_in_its_order(files):
    screen = files()
    assert screen.cell_ids.tolist() == ["c2", "c0", "c1"]
    assert screen.conditions.tolist() == ["A+B", "A+ctrl", "A+ctrl"], "the split's labels, not the file's"
    assert screen.counts.toarray().tolist() == COUNTS[[2, 0, 1]].tolist()
    assert screen.totals.tolist() == [3, 10, 26]
    assert screen.genes.tolist() == GENES
    assert screen.tokens.tolist() == ["A", "X1", "", "Y"]
    assert screen.rows("reference").tolist() == [0]
    assert screen.rows("query", "validation").tolist() == [1, 2]


def test_genes_without_a_token_go_but_library_sizes_stay_those_of_all_genes(files):
    screen = files(genes="vocab")
    assert screen.genes.tolist() == ["A", "X", "Y"]
    assert screen.tokens.tolist() == ["A", "X1", "Y"]
    assert screen.counts.toarray().tolist() == COUNTS[[2, 0, 1]][:, [0, 1, 3]].tolist()
    assert screen.totals.tolist() == [3, 10, 26]
    assert screen.log1p().toarray()[1, 0] == pytest.approx(np.log1p(1 / 10 * 1e4))


def test_the_mask_comes_before_the_choice_of_genes(files):
    """B is masked in A+B and has no token: its counts are in no depth either way."""
    own = files(mask="own", genes="vocab")
    assert own.counts.toarray().tolist() == [[0, 0, 2], [0, 2, 4], [0, 6, 8]]
    assert own.totals.tolist() == [2, 9, 21], "the B of A+ctrl still counts"
    everything = files(mask="all_targets", genes="vocab")
    assert everything.totals.tolist() == [2, 6, 14]


def test_the_mask_knows_the_targets_of_cells_outside_the_split(files):
    screen = files(split=SPLIT[SPLIT["condition"] == "A+ctrl"], mask="all_targets")
    assert screen.counts.toarray()[:, 2].tolist() == [0, 0], "B is a target of c2, which is not in this split"


def test_given_library_sizes_are_those_of_the_file(files):
    assert files(totals=[100, 200, 300, 400, 500, 600], mask="own").totals.tolist() == [299, 99, 195]


def test_controls_are_appended_when_asked_for(files):
    screen = files(controls=True, mask="all_targets")
    assert screen.cell_ids.tolist() == ["c2", "c0", "c1", "c3", "c5"]
    assert screen.conditions.tolist()[3:] == ["ctrl", "ctrl"]
    assert screen.parts.tolist() == ["reference", "query", "validation", CONTROL_PART, CONTROL_PART]
    assert screen.rows(CONTROL_PART).tolist() == [3, 4]
    assert screen.counts.toarray()[3:].tolist() == [[0, 1, 0, 1], [0, 2, 0, 2]], "masked like any other cell"
    assert screen.totals.tolist()[3:] == [2, 4]


def test_a_split_of_other_cells_is_refused(files):
    other = SPLIT.replace({"cell": {"c0": "elsewhere"}})
    with pytest.raises(
        InputError, match=r"split\.csv: cell 'elsewhere' is not in .*cells\.h5ad; run `dvc repro split`"
    ):
        files(split=other)


@pytest.mark.parametrize(
    "tokens",
    [TOKENS.iloc[::-1], TOKENS.iloc[:3], TOKENS.replace({"gene": {"X": "Z"}})],
    ids=["order", "fewer", "other"],
)
def test_a_vocabulary_map_of_other_genes_is_refused(files, tokens):
    with pytest.raises(InputError, match=r"genes\.csv: its genes are not those of .*run `dvc repro vocab_map`"):
        files(tokens=tokens)


def test_a_gene_called_na_stays_a_name(files):
    """pandas reads NA and nan as missing values unless told not to."""
    tokens = TOKENS.assign(token=["NA", "nan", "", "Y"])
    assert files(tokens=tokens, genes="vocab").tokens.tolist() == ["NA", "nan", "Y"]


def test_a_missing_split_is_named(files, tmp_path):
    files()
    with pytest.raises(InputError, match=r"none\.csv: no such file; run `dvc repro split`"):
        load_masked_screen(
            tmp_path / "cells.h5ad", tmp_path / "none.csv", tmp_path / "genes.csv", mask="none", genes="all"
        )


def test_a_cell_that_occurs_twice_is_refused(files):
    with pytest.raises(InputError, match="cell 'c0' occurs twice"):
        files(split=pd.concat([SPLIT, SPLIT.iloc[[1]]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": SPLIT.drop(columns="part")}, "split.csv: columns part are missing"),
        ({"tokens": TOKENS.drop(columns="token")}, "genes.csv: columns token are missing"),
    ],
)
def test_a_table_without_a_column_is_named(files, change, message):
    with pytest.raises(InputError, match=message):
        files(**change)


# ---- control cells apart from the split


FOUR_CELLS = sp.csr_matrix(np.arange(8, dtype=np.float32).reshape(4, 2))


def with_controls(rows: list[int]) -> MaskedScreen:
    return MaskedScreen(
        cell_ids=np.array(["q", "r", "c0", "c1"], dtype=object)[rows],
        conditions=np.array(["A+ctrl", "A+ctrl", "ctrl", "ctrl"], dtype=object)[rows],
        parts=np.array(["query", "reference", "control", "control"], dtype=object)[rows],
        counts=FOUR_CELLS[rows],
        totals=np.arange(4, dtype=np.float32)[rows],
        genes=np.array(["A", "B"], dtype=object),
        tokens=np.array(["A", ""], dtype=object),
    )


def test_what_is_left_without_controls_is_the_screen_loaded_without_them():
    of_split, controls = separate_controls(with_controls([0, 1, 2, 3]))
    assert fingerprint(of_split) == fingerprint(with_controls([0, 1]))
    assert fingerprint(controls) == fingerprint(with_controls([2, 3]))
    assert controls.tokens.tolist() == ["A", ""]


def test_without_control_cells():
    of_split, controls = separate_controls(with_controls([0, 1]))
    assert fingerprint(of_split) == fingerprint(with_controls([0, 1]))
    assert controls.counts.shape == (0, 2)


# ---- fingerprint: the same only for the same cells, genes, mask and split


def small_screen() -> MaskedScreen:
    return MaskedScreen(
        cell_ids=np.array(["a", "b", "c"], dtype=object),
        conditions=np.array(["A+ctrl", "B+ctrl", "A+ctrl"], dtype=object),
        parts=np.array(["reference", "validation", "query"], dtype=object),
        counts=sp.csr_matrix(np.array([[1, 0, 2], [0, 3, 0], [4, 0, 5]], dtype=np.float32)),
        totals=np.array([3, 3, 9], dtype=np.float32),
        genes=np.array(["A", "B", "C"], dtype=object),
        tokens=np.array(["A", "B", ""], dtype=object),
    )


def names(*values):
    return np.array(values, dtype=object)


def test_the_same_screen_read_twice_is_the_same():
    shuffled = small_screen()
    shuffled.counts.indices[:2] = shuffled.counts.indices[1::-1]
    shuffled.counts.data[:2] = shuffled.counts.data[1::-1]
    shuffled.counts.has_sorted_indices = False
    assert fingerprint(small_screen()) == fingerprint(small_screen()) == fingerprint(shuffled)


@pytest.mark.parametrize(
    "changes",
    [
        {"cell_ids": names("a", "b", "d")},
        {"conditions": names("A+ctrl", "A+ctrl", "A+ctrl")},
        {"parts": names("reference", "reference", "query")},
        {"genes": names("A", "B", "D")},
        {"totals": np.array([3, 3, 8], dtype=np.float32)},
        # a mask that misses a gene, or is applied to the queries alone
        {"counts": sp.csr_matrix(np.array([[1, 0, 2], [0, 3, 0], [0, 0, 5]], dtype=np.float32))},
        {"cell_ids": names("a", "bc", "")},
    ],
)
def test_whatever_differs_is_seen(changes):
    assert fingerprint(dataclasses.replace(small_screen(), **changes)) != fingerprint(small_screen())


@pytest.mark.parametrize(("genes", "which"), [("all", "with counts"), ("vocab", "with counts and a token")])
def test_a_mask_that_leaves_no_profile_is_an_error(files, monkeypatch, genes, which):
    """A and B are targets and have 39 of 70 UMIs; X and Y are left, both with a token."""
    assert files(mask="all_targets", genes=genes).counts.getnnz(axis=0).astype(bool).sum() == 2
    monkeypatch.setattr(masked_screen, "LEAST_GENES", 3)
    with pytest.raises(
        InputError,
        match=rf"cells\.h5ad: mask=all_targets hides 55\.7% of UMIs and leaves 2 genes {which}, at least 3",
    ):
        files(mask="all_targets", genes=genes)
    assert files(mask="own", genes="all").counts.nnz > 0


def test_a_panel_of_targets_alone_runs_without_the_mask_only(files):
    tokens = TOKENS.assign(token=["A", "", "B", ""])
    assert files(mask="none", tokens=tokens, genes="vocab").counts.nnz > 0
    with pytest.raises(InputError, match=r"leaves 0 genes with counts and a token.*add genes to the file"):
        files(mask="all_targets", tokens=tokens, genes="vocab")
