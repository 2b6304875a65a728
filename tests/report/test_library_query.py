"""The page on libraries and queries: the choice by validation, its confirmation, and every row."""

import re

import numpy as np
import pandas as pd
import pytest

from reverse_perturbation.comparison.grid import INTERVALS
from reverse_perturbation.config import Params
from reverse_perturbation.report.library_query import chosen_table, library_query
from tests.end_to_end.pipeline import params

LIBRARIES = [("classifier", "-", "-"), ("mean", "plain", "cosine"), ("raw_cell", "whitened", "euclidean")]
CELL, BULK = (0.6, 0.3, 0.4), (0.7, 0.5, 0.45)  # mrr of these on validation; on the query cells 0.01 less
PARAMS = Params.model_validate(params())


def grid_rows(skipped: int = 1, held_out: int = 4) -> pd.DataFrame:
    """Four conditions; ``skipped`` have too few query cells for pseudo-bulks of 10, ``held_out`` enough validation."""
    rows = []
    for model in ("scgpt", "pca", "logreg"):
        for part, labels, cells_per_query, mrrs, conditions in (
            ("validation", "canonical", 1, CELL, 4),
            ("validation", "canonical", 5, BULK, held_out),
            ("query", "canonical", 1, CELL, 4),
            ("query", "canonical", 10, BULK, 4 - skipped),
            ("query", "legacy", 1, (0.99,) * 3, 4),
        ):
            for setting, mrr in zip(LIBRARIES, mrrs, strict=True):
                if (model, setting[0] == "classifier") in (("pca", True), ("logreg", False)):
                    continue
                value = (mrr - 0.01 * (part == "query") - 0.1 * (model == "pca")) if conditions else np.nan
                key = dict(zip(("ranking", "embedding", "similarity"), setting, strict=True))
                size = {"queries": conditions * (10 if cells_per_query == 1 else 5), "conditions": 4}
                row = {"model": model, "labels": labels, "part": part, "cells_per_query": cells_per_query} | key | size
                row |= {"skipped_conditions": 4 - conditions, **dict.fromkeys(INTERVALS, value)}
                alone = cells_per_query > 1 and conditions == 1
                for name in INTERVALS:
                    row |= {f"{name}_low": np.nan if alone else value - 0.2, f"{name}_high": value + 0.2}
                rows.append(row)
    return pd.DataFrame(rows)


def test_the_choice_is_validation_s_and_its_confirmation_the_query_cells():
    table = {(row["model"], row["queries"]): row for row in chosen_table(grid_rows(), "canonical")}
    assert list(table) == [
        ("pca", "single cells"),
        ("scgpt", "single cells"),
        ("pca", "pseudo-bulks"),
        ("scgpt", "pseudo-bulks"),
    ]
    row = table["scgpt", "single cells"]
    assert (row["ranking"], row["embedding"], row["similarity"]) == ("raw_cell", "whitened", "euclidean")
    assert row["validation mrr"] == "0.400 (0.200 to 0.600)"
    assert row["others in its interval"] == "1 of 1"
    assert (row["cells per query"], row["query mrr"]) == ("1", "0.390 (0.190 to 0.590)")
    assert row["classifier"] == pytest.approx(0.59)
    assert np.isnan(table["pca", "single cells"]["classifier"])
    assert table["scgpt", "pseudo-bulks"]["ranking"] == "mean"
    assert table["scgpt", "pseudo-bulks"]["cells per query"] == "10"


def test_the_recommendation_in_words():
    page = library_query(grid_rows(), PARAMS)
    cell, bulk = re.findall(r"^- .*$", page.split("## What the words mean")[0], flags=re.M)
    assert cell == (
        "- **Single-cell queries: scgpt, library `raw_cell`, embedding `whitened`, `euclidean`**, "
        "validation mrr 0.400. "
        "The best classifier, scgpt's, is higher: 0.600. On the query cells: mrr 0.390 (0.190 to 0.590)."
    )
    assert bulk.startswith("- **Pseudo-bulk queries: scgpt, library `mean`, embedding `plain`, `cosine`**")
    assert bulk.endswith("On the query cells, by cells averaged: mrr 0.490 for 10.")


def test_sizes_no_condition_has_are_told_and_leave_no_nan():
    page = library_query(grid_rows(skipped=4), PARAMS)
    assert "Of 4 conditions, by query cells: 4 have fewer than 10" in page
    assert "No condition has query cells enough to confirm it." in page
    assert not re.search(r"\b(nan|none)\b", page, flags=re.I)
    page = library_query(grid_rows(held_out=0), PARAMS)
    assert "- **Pseudo-bulk queries**: no condition has 5 validation cells to choose by; lower" in page
    assert not re.search(r"\b(nan|none)\b", page, flags=re.I)


def test_one_condition_has_no_interval():
    page = library_query(grid_rows(skipped=3), PARAMS)
    assert (
        "| mean | plain | cosine | 0.490 | 0.390 | - |"
        in page.split("### Pseudo-bulks of 10 cells: 1 of 4 conditions")[1]
    )


def test_the_grid_has_every_row_of_its_label_space():
    page = library_query(grid_rows(), PARAMS)
    grid = page.split("## The grid")[1]
    single, bulk = grid.split("\n### ")[1:]
    assert single.startswith("One cell: 4 of 4 conditions, 40 queries")
    assert bulk.startswith("Pseudo-bulks of 10 cells: 3 of 4 conditions, 15 queries")
    assert [line.split(" | ")[0] for line in single.split("\n") if line.startswith("| ")] == [
        "| ranking",
        "| classifier",
        "| mean",
        "| raw_cell",
    ]
    assert "| ranking | embedding | similarity | scgpt | pca | logreg |" in single
    assert "| classifier | - | - | 0.590 (0.390 to 0.790) | - | 0.590 (0.390 to 0.790) |" in single
    assert "| mean | plain | cosine | 0.490 (0.290 to 0.690) | 0.390 (0.190 to 0.590) | - |" in bulk
    assert "0.990" not in page, "that is the legacy space"
    assert ("**Simulated cells.**" in page) == (PARAMS.data.source == "simulated")
    real = PARAMS.model_copy(update={"data": PARAMS.data.model_copy(update={"source": "h5ad"})})
    assert "imulated" not in library_query(grid_rows(), real)
